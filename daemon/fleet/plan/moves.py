"""From who holds the cameras to who should: one step, for every camera.

A planned move has three acts. A successor gets ready: it streams, and publishes nothing. Then the holder is told to let
go. When it has said so, the successor becomes the holder. A holder that was lost is followed at once by its successor,
if there is one, because it was silent for a while; otherwise by a new holder.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

from visaged.daemon.fleet.plan.leases import Custody, Handed, Lease, next_epoch, orphans_of
from visaged.daemon.fleet.plan.nodes import Presences
from visaged.daemon.fleet.plan.store import State
from visaged.daemon.fleet.records import CameraReport

log = logging.getLogger(__name__)

AT_ONCE = 2
"""How many cameras a node gives away at a time in planned moves, and how many it takes."""
WARM_S = 20.0
"""Longest time in seconds that a planned move waits for its successor to stream."""
_STREAMING = "streaming"


class Step:
    """One step. It changes the state that it is given.

    Args:
        state: What is known of the cameras.
        presences: The nodes.
        wall_ms: Wall clock in ms since 1970.
        since: When the present move of each camera began, in seconds of the monotonic clock; kept over the steps.
        standby: Nodes for the successors of cameras whose holder is silent, by camera.
        may_give: Whether cameras are given to nodes; otherwise they are only taken away.

    Attributes:
        changed: Whether the state was changed.
    """

    def __init__(
        self,
        state: State,
        presences: Presences,
        wall_ms: int,
        since: dict[str, float],
        standby: Mapping[str, str],
        may_give: bool,
    ) -> None:
        self._state, self._presences, self._wall_ms = state, presences, wall_ms
        self._since, self._standby, self._may_give = since, standby, may_give
        self._hands: Counter[str] = Counter()
        self.changed = False

    def run(self, cameras: Collection[str]) -> None:
        """Take the step.

        Args:
            cameras: The cameras of the configuration; others are let go, and forgotten when nobody holds them.
        """
        state, steady = self._state, self._presences.steady
        unsettled = [
            name
            for name, c in state.custodies.items()
            if c.holder is None
            or c.successor is not None
            or c.letting_go
            or c.holder.node != c.target
            or steady.get(c.target) != c.holder.incarnation
        ]
        for name in unsettled:
            custody = state.custodies[name]
            if custody.successor is not None and custody.holder is not None:
                self._hands.update((custody.holder.node, custody.successor.node))
        for name in unsettled:
            before = state.custodies[name]
            after = self._advanced(name, before)
            if after is not before:
                state.custodies[name] = after
                self.changed = True
            if after.successor is None:
                self._since.pop(name, None)
            if name not in cameras and (after.holder is None or self._presences.is_over(name, after.holder)):
                state.floor = max(state.floor, after.last_epoch)
                del state.custodies[name]
                self.changed = True

    def _advanced(self, name: str, custody: Custody) -> Custody:
        presences = self._presences
        target = self._standby.get(name, custody.target)
        if custody.successor is not None and presences.is_over(name, custody.successor):
            custody = custody.with_successor(None)
        if custody.holder is None:
            return custody.with_holder(self._lease(custody, target)) if self._can_give(target) else custody
        if presences.is_over(name, custody.holder):
            return self._followed(name, custody, custody.holder, target)
        if custody.letting_go:
            return custody
        if not custody.target:  # it has lost its right to the camera, or the camera has left
            return replace(custody.with_successor(None), letting_go=True)
        return self._moving(name, custody, custody.holder, target)

    def _followed(self, name: str, custody: Custody, holder: Lease, target: str) -> Custody:
        """Return it with the next holder, if there is one, after the present holder's lease is over."""
        let_go = self._presences.has_let_go(name, holder)
        if custody.successor is not None:
            lease = custody.successor
        elif self._can_give(target):
            lease = self._lease(custody, target)
        elif let_go:
            return replace(custody.after(self._known(name, holder)), holder=None, letting_go=False)
        else:
            return custody
        restarted = self._presences.is_restarted(holder)
        known = self._known(name, holder)
        # Who has let go, and who has been started again, ends its tracks itself.
        orphans = () if let_go or restarted else orphans_of(holder, known)
        if orphans and holder.node in self._state.nodes:
            tracks = tuple(orphan.track for orphan in orphans)
            self._state.nodes[holder.node].handed[name, holder.epoch] = Handed(tracks, self._wall_ms)
        if lease.node != holder.node:
            self._state.moves += let_go
            self._state.takeovers += not let_go
            why = "let it go" if let_go else "was started again" if restarted else "is not heard of"
            log.info("camera %s goes from node %s to %s, as the former %s", name, holder.node, lease.node, why)
        return custody.after(known, orphans).with_holder(lease)

    def _moving(self, name: str, custody: Custody, holder: Lease, target: str) -> Custody:
        """Return it one act further in a planned move, or in none."""
        successor = custody.successor
        if successor is not None and successor.node != target:
            custody, successor = custody.with_successor(None), None
        if target == holder.node:
            return custody
        is_silent = holder.node not in self._presences.steady
        if successor is None:
            in_turn = self._hands[holder.node] < AT_ONCE and self._hands[target] < AT_ONCE
            hurries = is_silent or self._presences.is_leaving(holder.node)
            if not self._can_give(target) or not (in_turn or hurries):
                return custody
            self._hands.update((holder.node, target))
            self._since[name] = self._presences.now_s
            return custody.with_successor(self._lease(custody, target))
        if not is_silent and self._is_ready(name, holder, successor):
            return replace(custody, letting_go=True)
        return custody

    def _is_ready(self, name: str, holder: Lease, successor: Lease) -> bool:
        next_one, present = self._known(name, successor), self._known(name, holder)
        if next_one is not None and next_one.state == _STREAMING:
            return True
        if present is not None and present.state != _STREAMING:
            return True  # nothing is lost by a gap
        return self._presences.now_s - self._since.setdefault(name, self._presences.now_s) >= WARM_S

    def _known(self, name: str, lease: Lease) -> CameraReport | None:
        presence = self._presences.of(lease)
        return None if presence is None else presence.known(name, lease)

    def _can_give(self, node: str) -> bool:
        return self._may_give and self._presences.is_ready(node)

    def _lease(self, custody: Custody, node: str) -> Lease:
        lease = self._presences.lease(node, 0)
        return replace(lease, epoch=next_epoch(custody, self._state.floor, self._wall_ms, lease.incarnation))
