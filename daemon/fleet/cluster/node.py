"""The node actor: one process on each machine of the cluster, with a whole daemon inside.

What Ray does to a worker process, and what is done about it here:

- At SIGTERM a worker ends at once; here the daemon ends in order first.
- It puts file objects of its own over stderr, so that `daemon/logs` would not take over descriptor 2 and what libraries
  write there would reach Ray's log files with credentials; here `sys.stderr` becomes what it was.
- It sets OMP_NUM_THREADS to 1 for actors that ask for no CPUs. Nothing of visaged is built with OpenMP, so it stays.
- Its memory monitor ends workers, the newest tasks first, when a machine has less than 5 % of its memory left. An actor
  that restarts is a candidate. It is started again, and its tracks end with reason `restart`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from visaged.daemon.fleet.cluster.versions import Versions

if TYPE_CHECKING:
    from visaged.daemon.fleet.cluster.life import Life

log = logging.getLogger(__name__)

_END_S = 8.0
"""Longest time in seconds from the request to end to the end of the process."""


class NodeActor:
    """The actor; its methods are called by Ray, from the coordinator.

    Args:
        fleet: Name of the fleet.
        node: Name of this node.
    """

    def __init__(self, fleet: str, node: str) -> None:
        self._fleet, self._node = fleet, node
        self._life: Life | None = None
        self._wanted_end = threading.Event()
        self._over = threading.Event()
        if sys.__stderr__ is not None and sys.__stderr__.fileno() == 2:
            sys.stderr = sys.__stderr__
        signal.signal(signal.SIGTERM, self._on_sigterm)
        threading.Thread(target=self._live, name="node", daemon=True).start()

    def hello(self) -> Versions:
        """Return the versions in this process, which tells that it has started."""
        return Versions.here()

    def end(self) -> None:
        """End the daemon in order, and return when it has ended; the process goes on, without a daemon."""
        self._ask_to_end()
        self._over.wait(_END_S)

    def _on_sigterm(self, *_: object) -> None:
        # A handler must not wait. Whoever holds a lock now would never let it go, so another thread goes on.
        threading.Thread(target=self._end_process, name="sigterm", daemon=True).start()

    def _end_process(self) -> None:
        self.end()
        os._exit(0)

    def _ask_to_end(self) -> None:
        self._wanted_end.set()
        if self._life is not None:
            self._life.stop()

    def _live(self) -> None:
        code = 1
        try:
            # What a daemon needs takes a second to load, and the coordinator imports this module too.
            from visaged.daemon.fleet.cluster.life import Life

            self._life = Life(self._fleet, self._node)
            if self._wanted_end.is_set():
                self._life.stop()
            code = self._life.run()
        except Exception:
            log.critical("ended by a fault in visaged itself", exc_info=True)
        self._over.set()
        if not self._wanted_end.is_set():
            os._exit(code or 1)  # Ray starts the actor again
