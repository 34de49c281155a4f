"""Keeps one node actor on every node of the Ray cluster. Runs in the coordinator's process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from visaged.daemon.fleet.cluster.names import NAMESPACE, NODE_LABEL, node_name, node_prefix
from visaged.daemon.fleet.cluster.node import NodeActor

log = logging.getLogger(__name__)

_START_S = 90.0
"""Longest time in seconds until a node actor has started; Python and this package are loaded in it."""
_AGAIN_S = 30.0
"""Seconds until an actor that could not be made is tried again."""
_INSTALL = "install the same version of visaged[fleet] there, in the Python that runs Ray"

NAMESAKE = (
    "several nodes of the Ray cluster have this name, and one of them takes part: give each its own by `ray start "
    f"--labels {NODE_LABEL}=NAME`"
)


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node of the Ray cluster.

    Attributes:
        name: What the fleet calls it: its label `visaged-node`, or its host's name.
        id: Ray's number of it, which is another one when the machine joins again.
    """

    name: str
    id: str


@dataclass(slots=True)
class _Kept:
    node: RayNode
    actor: Any
    hello: Any
    """The future answer to the first call; None once it has come."""
    since_s: float


def ray_nodes() -> list[RayNode]:
    """Return the nodes of the cluster that Ray takes for alive, in the order of their numbers."""
    found = []
    for one in ray.nodes():
        if one["Alive"]:
            name = (one.get("Labels") or {}).get(NODE_LABEL) or one["NodeManagerHostname"].split(".")[0]
            found.append(RayNode(name, one["NodeID"]))
    return sorted(found, key=lambda node: node.id)


class Keeper:
    """Makes node actors where there are none, and removes those of nodes that are gone.

    An actor that ends is started again by Ray, on its node; nothing here takes part in that.

    Args:
        fleet: Name of the fleet.
        tell: Called with a node's name and why it cannot take part; with an empty text when that is over.

    Attributes:
        namesakes: Names that several nodes of the Ray cluster have. One of each takes part.
    """

    def __init__(self, fleet: str, tell: Callable[[str, str], None]) -> None:
        self._fleet = fleet
        self._tell = tell
        self.namesakes: frozenset[str] = frozenset()
        self._kept: dict[str, _Kept] = {}
        self._failed: dict[RayNode, float] = {}  # until when they are left alone

    def turn(self, now_s: float, is_wanted: Callable[[str], bool]) -> None:
        """Look once; may take seconds while Ray's head process does not answer.

        Args:
            now_s: Seconds of a monotonic clock.
            is_wanted: Whether a node of this name may take part; others get no actor.
        """
        nodes = [node for node in ray_nodes() if is_wanted(node.name)]
        for gone in self._kept.keys() - {node.id for node in nodes}:
            self._drop(self._kept.pop(gone))
        held = {kept.node.name: kept.node.id for kept in self._kept.values()}
        namesakes = set()
        for node in nodes:
            if held.setdefault(node.name, node.id) != node.id:
                namesakes.add(node.name)
            elif node.id not in self._kept and now_s >= self._failed.get(node, now_s):
                self._kept[node.id] = self._make(node, now_s)
        for name in sorted(namesakes - self.namesakes):
            log.warning("node %s: %s", name, NAMESAKE)
        self.namesakes = frozenset(namesakes)
        for id, kept in list(self._kept.items()):
            if kept.hello is not None and not self._has_started(kept, now_s):
                self._drop(self._kept.pop(id))
                self._failed[kept.node] = now_s + _AGAIN_S
        for node in self._failed.keys() - set(nodes):  # it has gone, and is not in trouble any more
            del self._failed[node]
            self._tell(node.name, "")

    def stop(self, patience_s: float) -> None:
        """End all node actors of the fleet: in order as far as they do so in time."""
        actors = []
        for one in ray.util.list_named_actors(all_namespaces=True):
            if one["namespace"] == NAMESPACE and one["name"].startswith(node_prefix(self._fleet)):
                with contextlib.suppress(ValueError):  # it has gone meanwhile
                    actors.append(ray.get_actor(one["name"], NAMESPACE))
        ends = [actor.end.remote() for actor in actors]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=patience_s)
        for actor in actors:
            ray.kill(actor, no_restart=True)
        self._kept.clear()

    def _make(self, node: RayNode, now_s: float) -> _Kept:
        actor = (
            ray.remote(NodeActor)
            .options(
                name=node_name(self._fleet, node.name, node.id),
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=4,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            )
            .remote(self._fleet, node.name)
        )
        log.info("node %s: its actor starts on Ray's node %s", node.name, node.id[:12])
        return _Kept(node, actor, actor.hello.remote().future(), now_s)

    def _has_started(self, kept: _Kept, now_s: float) -> bool:
        """Return whether an actor has started, or may still; tell why if not."""
        if not kept.hello.done():
            if now_s - kept.since_s < _START_S:
                return True
            self._tell(kept.node.name, f"its actor has not started in {_START_S:.0f} s; `ray status` may say why")
            return False
        error = kept.hello.exception()
        if isinstance(error, ray.exceptions.ActorUnavailableError):  # as when its machine has gone meanwhile
            self._tell(kept.node.name, "its actor cannot be reached; it is tried again")
            return False
        if error is not None:  # whatever keeps a class from being loaded there arrives here
            self._tell(kept.node.name, f"its actor cannot start: {_last_line(error)}; {_INSTALL}")
            return False
        kept.hello = None
        self._tell(kept.node.name, "")
        return True

    def _drop(self, kept: _Kept) -> None:
        log.info("node %s: its actor on Ray's node %s is given up", kept.node.name, kept.node.id[:12])
        ray.kill(kept.actor, no_restart=True)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
