"""What the coordinator keeps, in the key-value store of Ray's head process (GCS).

`ray.experimental.internal_kv` is what Ray's own parts keep their state in. It is Ray's experimental interface, not a
promised one: this class is all that uses it, and the integration tests run it. What is kept outlives the coordinator,
whichever machine that starts on again. It outlives the head process where that keeps its state itself, in RocksDB
(`RAY_gcs_storage=rocksdb` and `RAY_gcs_storage_path`) or Redis (`RAY_REDIS_ADDRESS`). Without either, a cluster that is
started anew has an empty store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from visaged.daemon.fleet.cluster.names import NAMESPACE
from visaged.daemon.fleet.plan.store import StoreError

_PATIENCE_S = 1.0
"""Longest time in seconds that a call may take; the coordinator answers nobody meanwhile."""
_SPACE = NAMESPACE.encode()


class RayStore:
    """Keeps bytes of one fleet; see `daemon/fleet/plan/store.py`.

    Args:
        fleet: Name of the fleet.
        what: What is kept.
    """

    def __init__(self, fleet: str, what: str) -> None:
        from ray.experimental import internal_kv

        self._client: Callable[[], Any] = internal_kv.internal_kv_get_gcs_client
        self._key = f"fleet/{fleet}/{what}".encode()

    def load(self) -> bytes | None:
        """Return what was last saved; None if nothing ever was. Raises `StoreError`."""
        try:
            data: bytes | None = self._client().internal_kv_get(self._key, _SPACE, _PATIENCE_S)
        except Exception as error:  # what Ray raises here is documented nowhere
            raise _store_error(error) from error
        return data

    def save(self, data: bytes) -> None:
        """Keep these bytes instead of those before; they are kept when this returns. Raises `StoreError`."""
        try:
            self._client().internal_kv_put(self._key, data, True, _SPACE, _PATIENCE_S)
        except Exception as error:
            raise _store_error(error) from error

    def clear(self) -> None:
        """Keep nothing any more. Raises `StoreError`."""
        try:
            self._client().internal_kv_del(self._key, False, _SPACE, _PATIENCE_S)
        except Exception as error:
            raise _store_error(error) from error


def _store_error(error: Exception) -> StoreError:
    return StoreError(f"Ray's head process does not answer ({type(error).__name__}); is the head of the cluster up?")
