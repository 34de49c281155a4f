"""The nodes as the coordinator hears of them: which run has a node's name, and whether its leases may still hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from visaged.daemon.fleet.plan.leases import Lease
from visaged.daemon.fleet.records import CameraReport, NodeReport

_CLOCKS_APART = 1.01
_MARGIN_S = 0.25


def counted_s(lease_s: float) -> float:
    """Return how long the coordinator waits for a lease to end, in seconds.

    The node counts from when it sent the heartbeat, the coordinator from when it answered, which is later. On top of
    that, the clock of one may run 1 % faster than the other's.
    """
    return lease_s * _CLOCKS_APART + _MARGIN_S


@dataclass(slots=True)
class Presence:
    """A run of a node.

    Attributes:
        name: Name of the node.
        incarnation: Number of the run.
        home: What tells its state folder from others.
        heard_s: When it was last answered.
        lease_s: The lease that was last told to it.
        is_starting: Whether it has joined, and not reported yet.
        report: Its newest report; None if it sent none, or none to this run of the coordinator.
        cameras: The cameras of its newest report, by name.
        told: Epochs of cameras whose loss was told to it, and that it reported before.
        let_go: What was last known of the cameras that it let go since, by name and epoch.
    """

    name: str
    incarnation: int
    home: str
    heard_s: float
    lease_s: float
    is_starting: bool = False
    report: NodeReport | None = None
    cameras: dict[str, CameraReport] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    let_go: dict[tuple[str, int], CameraReport | None] = field(default_factory=dict)

    def is_alive(self, now_s: float) -> bool:
        """Return whether its leases may still hold."""
        return now_s < self.heard_s + counted_s(self.lease_s)

    def is_silent(self, now_s: float) -> bool:
        """Return whether it should have been heard of, so that successors for its cameras get ready."""
        return not self.is_starting and now_s >= self.heard_s + self.lease_s / 2

    def is_news(self, report: NodeReport) -> bool:
        """Return whether a report is newer than the newest one."""
        return self.report is None or report.beat == 0 or report.beat > self.report.beat

    def take(self, report: NodeReport) -> None:
        """Note what it says."""
        reported = {camera.camera: camera for camera in report.cameras}
        for camera, epoch in list(self.told.items()):
            if camera not in reported or reported[camera].epoch != epoch:
                last = self.cameras.get(camera)
                self.let_go[camera, epoch] = last if last is not None and last.epoch == epoch else None
                del self.told[camera]
        if report.leaving:  # it takes nothing any more, so what it had and has not any more is over
            for camera, known in self.cameras.items():
                if camera not in reported:
                    self.let_go[camera, known.epoch] = known
        self.report, self.cameras, self.is_starting = report, reported, False

    def known(self, camera: str, lease: Lease) -> CameraReport | None:
        """Return what it last said of a camera under a lease of this run; None if nothing."""
        if (camera, lease.epoch) in self.let_go:
            return self.let_go[camera, lease.epoch]
        report = self.cameras.get(camera)
        return report if report is not None and report.epoch == lease.epoch else None


class Presences:
    """All nodes that were heard of, at a time.

    Attributes:
        now_s: The time, in seconds of the coordinator's monotonic clock.
    """

    def __init__(self, by_name: Mapping[str, Presence], now_s: float) -> None:
        self._by_name = by_name
        self.now_s = now_s
        self.steady = {n: p.incarnation for n, p in by_name.items() if p.is_alive(now_s) and not p.is_silent(now_s)}
        """Incarnations, by name, of the nodes that are heard of as they should be."""

    def of(self, lease: Lease) -> Presence | None:
        """Return the run of a node that a lease belongs to; None if it is not the newest one."""
        presence = self._by_name.get(lease.node)
        return presence if presence is not None and presence.incarnation == lease.incarnation else None

    def is_restarted(self, lease: Lease) -> bool:
        """Return whether the node has begun a new run since it got a lease."""
        presence = self._by_name.get(lease.node)
        return presence is not None and presence.incarnation != lease.incarnation

    def has_let_go(self, camera: str, lease: Lease) -> bool:
        """Return whether the node has said that it no longer holds what was revoked."""
        presence = self.of(lease)
        return presence is not None and (camera, lease.epoch) in presence.let_go

    def is_over(self, camera: str, lease: Lease) -> bool:
        """Return whether nobody publishes under a lease any more."""
        presence = self.of(lease)
        return presence is None or not presence.is_alive(self.now_s) or (camera, lease.epoch) in presence.let_go

    def is_ready(self, name: str) -> bool:
        """Return whether a node can be given a camera now."""
        presence = self._by_name.get(name)
        return presence is not None and name in self.steady and presence.report is not None

    def is_leaving(self, name: str) -> bool:
        """Return whether a node is about to stop."""
        presence = self._by_name.get(name)
        return presence is not None and presence.report is not None and presence.report.leaving

    def lease(self, name: str, epoch: int) -> Lease:
        """Return a lease of a node's present run."""
        return Lease(name, self._by_name[name].incarnation, epoch)
