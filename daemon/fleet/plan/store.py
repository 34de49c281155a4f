"""What survives the coordinator, and its form as bytes."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from visaged.daemon.fleet.plan.documents import Catalogue, FleetError
from visaged.daemon.fleet.plan.leases import Custody, Handed, Lease, NodeRecord
from visaged.daemon.fleet.records import Orphan

_MAGIC = b"visaged-fleet/1\n"


class StoreError(Exception):
    """What is to be kept cannot be, or what was kept cannot be read; the text says why."""


class Store(Protocol):
    """Keeps bytes. Both methods have to return or raise soon: no lease is renewed while one waits."""

    def load(self) -> bytes | None:
        """Return what was last saved; None if nothing ever was. Raises `StoreError`."""

    def save(self, data: bytes) -> None:
        """Keep these bytes instead of those before, all or none of them, before it returns. Raises `StoreError`."""


@dataclass(slots=True)
class State:
    """What the coordinator keeps.

    Attributes:
        run: Number of the coordinator's run.
        longest_lease_s: The longest lease that a node may be counting still.
        floor: The largest epoch of cameras that have left.
        custodies: What is known of each camera.
        nodes: What is kept of each node that was ever let in.
        clearing: Cameras that have left, and whose retained messages are to be cleared; each with its last holder.
        moves: Planned moves that were completed.
        takeovers: Cameras that were given on because their owner was lost.
        is_settled: Whether it is known who holds what. A new fleet first waits for leases that a former one gave.
    """

    run: int = 0
    longest_lease_s: float = 0.0
    floor: int = 0
    custodies: dict[str, Custody] = field(default_factory=dict)
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    clearing: dict[str, str] = field(default_factory=dict)
    moves: int = 0
    takeovers: int = 0
    is_settled: bool = False

    def copy(self) -> State:
        """Return a copy that can be changed without changing this."""
        nodes = {name: replace(node, handed=dict(node.handed)) for name, node in self.nodes.items()}
        return replace(self, custodies=dict(self.custodies), nodes=nodes, clearing=dict(self.clearing))


def encoded(state: State, document: bytes) -> bytes:
    """Return what is kept as bytes.

    Args:
        state: The state.
        document: The configuration, as `packed` returns it.
    """
    packed_state = zlib.compress(orjson.dumps(_state_json(state)), 1)
    return _MAGIC + len(packed_state).to_bytes(4, "big") + packed_state + document


def packed(catalogue: Catalogue) -> bytes:
    """Return a configuration as bytes."""
    return zlib.compress(orjson.dumps({"document": catalogue.document, "patches": catalogue.patches}), 1)


def decoded(data: bytes) -> tuple[State, Catalogue]:
    """Return what was kept; raises `StoreError` if these are no such bytes."""
    try:
        if not data.startswith(_MAGIC):
            raise ValueError("it was written by another version")
        start = len(_MAGIC) + 4
        end = start + int.from_bytes(data[len(_MAGIC) : start], "big")
        state = _state(orjson.loads(zlib.decompress(data[start:end])))
        configuration = orjson.loads(zlib.decompress(data[end:]))
        return state, Catalogue(configuration["document"], configuration["patches"])
    except (ValueError, KeyError, TypeError, zlib.error, FleetError) as error:
        text = f"what is kept of the fleet cannot be read ({error}); stop the fleet, and start it with --replace"
        raise StoreError(text) from None


def _state_json(state: State) -> dict[str, Any]:
    return {
        "run": state.run,
        "longest_lease_s": state.longest_lease_s,
        "floor": state.floor,
        "custodies": {
            name: [
                c.target,
                c.last_epoch,
                c.next_track,
                _lease_json(c.holder),
                _lease_json(c.successor),
                c.letting_go,
                [[o.node, o.epoch, o.track, base64.b64encode(o.body).decode()] for o in c.owed],
            ]
            for name, c in state.custodies.items()
        },
        "nodes": {
            name: [
                n.incarnation,
                n.home,
                n.draining,
                n.capacity,
                [[camera, epoch, h.tracks, h.at_ms] for (camera, epoch), h in n.handed.items()],
            ]
            for name, n in state.nodes.items()
        },
        "clearing": state.clearing,
        "moves": state.moves,
        "takeovers": state.takeovers,
        "is_settled": state.is_settled,
    }


def _state(data: dict[str, Any]) -> State:
    custodies = {
        name: Custody(
            target, last, track, _lease(holder), _lease(successor), letting_go,
            tuple(Orphan(node, epoch, number, base64.b64decode(body)) for node, epoch, number, body in owed),
        )
        for name, (target, last, track, holder, successor, letting_go, owed) in data["custodies"].items()
    }  # fmt: skip
    nodes = {
        name: NodeRecord(
            incarnation, home, draining, capacity,
            {(camera, epoch): Handed(tuple(tracks), at_ms) for camera, epoch, tracks, at_ms in handed},
        )
        for name, (incarnation, home, draining, capacity, handed) in data["nodes"].items()
    }  # fmt: skip
    return State(
        data["run"], data["longest_lease_s"], data["floor"], custodies, nodes, data["clearing"],
        data["moves"], data["takeovers"], data["is_settled"],
    )  # fmt: skip


def _lease_json(lease: Lease | None) -> list[Any] | None:
    return None if lease is None else [lease.node, lease.incarnation, lease.epoch]


def _lease(data: list[Any] | None) -> Lease | None:
    return None if data is None else Lease(*data)
