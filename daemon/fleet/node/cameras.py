"""The cameras that a node holds: they come, become active, and go, as the orders say.

A camera that is warm runs and is not published. When it becomes active, or again after its lease had ended, its tracks
begin anew. When it goes, its open tracks end in the old epoch, and it is reported until that has reached the broker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from visaged.daemon.app import Daemon
from visaged.daemon.fleet.node.holding import Holding
from visaged.daemon.fleet.records import CameraReport, Grant, Orders, Revoked
from visaged.pipelines.outputs.leases import Begun, Published, Released
from visaged.pipelines.outputs.messages import OpenTrack
from visaged.pipelines.records import EndReason

log = logging.getLogger(__name__)

_NOTHING = Published()


@dataclass(frozen=True, slots=True)
class _Held:
    """A camera that the node holds; whether it is, or was, published in this epoch."""

    epoch: int
    active: bool


class HeldCameras:
    """The cameras that a node holds. `follow` must be called from the daemon's thread, other methods from any.

    Args:
        holding: The leases.
    """

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        # Cameras that go: what was held of them, and the tracks that their new owner ends.
        self._leaving: dict[str, tuple[_Held, frozenset[int]]] = {}
        # What went, and may be on its way to the broker, with the number of the next track.
        self._departing: dict[tuple[str, int], int] = {}
        self._reasons: dict[str, EndReason] = {}
        self._cleared: frozenset[str] = frozenset()
        self._unknown: frozenset[str] = frozenset()
        self._daemon: Daemon | None = None

    def serve(self, daemon: Daemon) -> None:
        """Run the cameras in a daemon."""
        self._daemon = daemon

    # For the daemon.

    def has(self, camera: str) -> bool:
        """Return whether a camera is to run here."""
        return camera in self._held

    def reasons(self) -> Mapping[str, EndReason]:
        """Return why the tracks of cameras end that go."""
        return self._reasons

    def on_removed(self, camera: str) -> None:
        """Let a camera go that does not run any more."""
        with self._lock:
            held = self._held.pop(camera, None)  # still there if it is missing in the configuration alone
            going, ended = self._leaving.get(camera, (held, frozenset[int]()))
        if going is not None and going.active:
            self._release(camera, going.epoch, ended, self._server.camera_set.next_track(camera))
        with self._lock:
            self._leaving.pop(camera, None)  # once it is among those that depart, as it must not miss in a report

    # For the member.

    def renew(self, orders: Orders, until_s: float) -> bool:
        """Renew the leases of what is granted; return whether that is all that the orders ask for."""
        with self._lock:
            held = dict(self._held)
        is_all = held.keys() == {grant.camera for grant in orders.grants} and self._cleared == set(orders.clear)
        for grant in orders.grants:
            is_as_granted = held.get(grant.camera) == _Held(grant.epoch, grant.active)
            if is_as_granted and grant.active:
                is_as_granted = self._holding.renew(grant.camera, grant.epoch, until_s)
            is_all = is_all and is_as_granted
        return is_all

    def leave(self, orders: Orders) -> None:
        """Take the cameras that are not granted any more off those that are to run."""
        granted = {grant.camera for grant in orders.grants}
        ended = _ended(orders.revoked)
        with self._lock:
            gone = {camera: one for camera, one in self._held.items() if camera not in granted}
            for camera, one in gone.items():
                del self._held[camera]
                self._leaving[camera] = one, ended.get((camera, one.epoch), frozenset())
        self._reasons = {camera: "removed" if camera in orders.clear else "moved" for camera in gone}

    def take(self, orders: Orders, until_s: float) -> None:
        """Hold what is granted, and clear what is told; those that went must not run any more."""
        for camera in list(self._leaving):  # those that could never run
            self.on_removed(camera)
        known = {camera.name for camera in self._server.settings.cameras}
        ended = _ended(orders.revoked)
        for grant in orders.grants:
            if grant.camera not in known:
                continue
            held = self._held.get(grant.camera)
            if held is None:
                self._server.camera_set.number_from(grant.camera, grant.next_track)
                self._hold(grant)
                if grant.active:
                    self._activate(grant, until_s)
            elif held != _Held(grant.epoch, grant.active) or not self._lasts(grant):
                self._change(held, grant, until_s, ended.get((grant.camera, held.epoch), frozenset()))
        self._server.run_cameras()
        unknown = frozenset(grant.camera for grant in orders.grants if grant.camera not in known)
        if unknown - self._unknown:
            text = "not held, although the fleet grants them, as the configuration here has no such cameras: %s"
            log.error(text, ", ".join(sorted(unknown)))
        self._unknown = unknown
        for camera in sorted(set(orders.clear) - self._cleared):
            self._server.delivery.clear(camera)
        self._cleared = frozenset(orders.clear)

    def report(self) -> tuple[CameraReport, ...]:
        """Return what is held, and what went and is not at the broker yet."""
        delivery, cameras = self._server.delivery, self._server.camera_set
        now = {one.status.camera: one for one in cameras.overview()}
        with self._lock:
            leaving = {camera: one for camera, (one, _) in self._leaving.items()}
            held, departing = self._held | leaving, dict(self._departing)
        reports = []
        for (camera, epoch), next_track in departing.items():
            stage = delivery.departing(camera, epoch)
            if not stage or (stage == "sending" and not self._holding.holds(camera, epoch)):
                self._forget(camera, epoch)
            else:
                held.pop(camera, None)  # one at a time
                state = now[camera].status.state if camera in now else "stopped"
                reports.append(CameraReport(camera, epoch, state, True, self._published(camera, epoch).seq, next_track))
        for camera, one in held.items():
            state, next_track = "connecting", cameras.next_track(camera)
            if camera in now:
                state, next_track = now[camera].status.state, now[camera].next_track
            told = self._published(camera, one.epoch)
            active = one.active and told.begun and self._holding.holds(camera, one.epoch)
            bodies = tuple(message.body for message in told.open)
            reports.append(CameraReport(camera, one.epoch, state, active, told.seq, next_track, bodies))
        return tuple(reports)

    @property
    def _server(self) -> Daemon:
        assert self._daemon is not None
        return self._daemon

    def _published(self, camera: str, epoch: int) -> Published:
        ledger = self._server.delivery.fan_out.ledger
        return (None if ledger is None else ledger.of(camera, epoch)) or _NOTHING

    def _lasts(self, grant: Grant) -> bool:
        return not grant.active or self._holding.holds(grant.camera, grant.epoch)

    def _hold(self, grant: Grant) -> None:
        with self._lock:
            self._held[grant.camera] = _Held(grant.epoch, grant.active)

    def _activate(self, grant: Grant, until_s: float, is_again: bool = False) -> None:
        with self._lock:
            self._departing.pop((grant.camera, grant.epoch), None)
        is_new = not self._published(grant.camera, grant.epoch).begun
        orphans = tuple(OpenTrack(one.node, one.epoch, one.track, one.body) for one in grant.orphans) if is_new else ()
        self._holding.activate(grant.camera, grant.epoch, until_s)
        if is_again:
            self._server.delivery.release(Released(grant.camera, grant.epoch, is_over=False))
        self._server.delivery.begin(Begun(grant.camera, grant.epoch, orphans))

    def _change(self, held: _Held, grant: Grant, until_s: float, ended: frozenset[int]) -> None:
        """Go over to a grant, with a camera that runs and goes on."""
        camera = grant.camera

        def go_over() -> None:
            is_again = held == _Held(grant.epoch, True) and grant.active  # its lease had ended
            if held.active and not is_again:
                self._release(camera, held.epoch, ended, grant.next_track)
            self._hold(grant)
            if grant.active:
                self._activate(grant, until_s, is_again)

        self._server.camera_set.begin_anew(camera, "moved", grant.next_track, go_over)

    def _release(self, camera: str, epoch: int, ended: frozenset[int], next_track: int) -> None:
        self._holding.retire(camera)
        with self._lock:
            self._departing[camera, epoch] = next_track
        self._server.delivery.release(Released(camera, epoch, ended))

    def _forget(self, camera: str, epoch: int) -> None:
        with self._lock:
            self._departing.pop((camera, epoch), None)
        self._holding.drop(camera, epoch)
        ledger = self._server.delivery.fan_out.ledger
        if ledger is not None:
            ledger.drop(camera, epoch)


def _ended(revoked: tuple[Revoked, ...]) -> dict[tuple[str, int], frozenset[int]]:
    return {(one.camera, one.epoch): frozenset(one.ended) for one in revoked}
