"""Nodes of a fleet without Ray: members in this process or in one of their own, and a coordinator that a test plays."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from visaged.daemon.fleet.node.member import Member
from visaged.daemon.fleet.records import Grant, Joined, NodeReport, Orders, Orphan, Revoked

Document = dict[str, Any]
BEAT_S = 0.1


def beat(member: Member, ask: Callable[[NodeReport, str], Orders | None], over: threading.Event) -> None:
    """Sends reports, and does what the answers say, until `over` is set."""
    while not over.wait(BEAT_S):
        sent_s = member.now()
        orders = ask(member.report(), member.config_version)
        if orders is not None:
            member.obey(orders, sent_s)


@dataclass
class _Seat:
    """What a node is to hold, and what it said."""

    grants: dict[str, Grant] = field(default_factory=dict)
    revoked: dict[str, Revoked] = field(default_factory=dict)
    clear: tuple[str, ...] = ()
    answers: bool = True
    report: NodeReport | None = None


class Ruler:
    """Answers reports with the orders that a test sets. Leases are not counted here: that is the nodes' part."""

    def __init__(self, document: Document, lease_s: float) -> None:
        self.document = document
        self.lease_s = lease_s
        self._changed = threading.Condition()
        self._seats: dict[str, _Seat] = {}

    def grant(
        self, node: str, camera: str, epoch: int, active: bool = True, next_track: int = 1,
        orphans: Sequence[Orphan] = (),
    ) -> None:  # fmt: skip
        """Has a node hold a camera."""
        with self._changed:
            seat = self._seats.setdefault(node, _Seat())
            seat.revoked.pop(camera, None)
            seat.grants[camera] = Grant(camera, epoch, active, next_track, tuple(orphans))

    def revoke(self, node: str, camera: str, ended: Sequence[int] = (), clear: bool = False) -> None:
        """Takes a camera from a node."""
        with self._changed:
            seat = self._seats[node]
            grant = seat.grants.pop(camera)
            seat.revoked[camera] = Revoked(camera, grant.epoch, tuple(ended))
            seat.clear = (camera,) if clear else ()

    def reset(self) -> None:
        """Takes all cameras from all nodes, and waits for that."""
        with self._changed:
            for seat in self._seats.values():
                seat.grants.clear()
                seat.revoked.clear()
                seat.clear, seat.answers = (), True
            nodes = list(self._seats)
        for node in nodes:
            self.wait(node, lambda report: not report.cameras)

    def forget(self, node: str) -> None:
        """Grants a node nothing, which has ended."""
        with self._changed:
            self._seats[node] = _Seat()

    def answer(self, node: str, answers: bool) -> None:
        """Has a node get answers from now on, or none."""
        with self._changed:
            self._seats[node].answers = answers

    def ask(self, report: NodeReport, known: str) -> Orders | None:
        """Returns the answer to a heartbeat; None if it gets lost."""
        with self._changed:
            seat = self._seats.setdefault(report.node, _Seat())
            if not seat.answers:
                return None
            seat.report = report
            self._changed.notify_all()
            version = f"{sorted(seat.grants)} {json.dumps(self.document, sort_keys=True)}"
            cameras = [camera for camera in self.document["cameras"] if camera["name"] in seat.grants]
            config = None if known == version else json.dumps(self.document | {"cameras": cameras}).encode()
            return Orders(
                1, self.lease_s, tuple(seat.grants.values()), tuple(seat.revoked.values()), seat.clear, config, version
            )

    def wait(self, node: str, wanted: Callable[[NodeReport], bool], timeout_s: float = 60.0) -> NodeReport:
        """Waits for a report that is as wanted, from now on."""
        with self._changed:
            seat = self._seats.setdefault(node, _Seat())
            seat.report = None

            def is_there() -> bool:
                return seat.report is not None and wanted(seat.report)

            if not self._changed.wait_for(is_there, timeout_s):
                raise AssertionError(f"{node} did not report that within {timeout_s} s, but {seat.report}")
            assert seat.report is not None
            return seat.report

    def wait_for(self, node: str, camera: str, active: bool = True, state: str = "streaming") -> NodeReport:
        """Waits until a node says that it holds a camera."""
        return self.wait(
            node,
            lambda report: any(
                (one.camera, one.active, one.state) == (camera, active, state) for one in report.cameras
            ),
        )


class LocalNode:
    """A member in this process."""

    def __init__(self, ruler: Ruler, node: str) -> None:
        self.member = Member(ruler.document, node, "0")
        self.member.join(Joined())
        self._over = threading.Event()
        self.code: int | None = None
        self._run = threading.Thread(target=self._body, name=f"node {node}")
        self._beat = threading.Thread(target=beat, args=(self.member, ruler.ask, self._over), name=f"beat {node}")

    def _body(self) -> None:
        self.code = self.member.run()

    def __enter__(self) -> Self:
        self._run.start()
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.member.stop()
        self._run.join(30.0)
        self._over.set()
        self._beat.join(30.0)
        self.member.close()


class NodeProcess:
    """A member in a process of its own.

    Attributes:
        process: The process, for signals.
    """

    def __init__(self, ruler: Ruler, node: str, folder: Path) -> None:
        self._ruler, self._node, self._folder = ruler, node, folder
        self._document = folder / f"{node}.json"
        self._number = 0

    def start(self, ended: Sequence[tuple[str, int, int]] = ()) -> None:
        """Starts it, and answers its reports."""
        self._number += 1
        self._document.write_text(json.dumps({"document": self._ruler.document, "ended": list(ended)}))
        place = str(self._folder / f"{self._node}{self._number}")
        with Listener(place, "AF_UNIX") as listener:
            command = [sys.executable, "-m", "tests.support.fleet_node", place, str(self._document), self._node]
            self.process = subprocess.Popen(
                command, cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONPATH": ":".join(sys.path)}
            )
            self._connection = listener.accept()
        self._answering = threading.Thread(target=self._answer, args=(self._connection,), name=f"answers {self._node}")
        self._answering.start()

    def kill(self) -> None:
        """Ends it without warning."""
        self.process.kill()
        self.process.wait(30.0)
        self._answering.join(30.0)
        self._connection.close()

    def _answer(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                connection.send(self._ruler.ask(*connection.recv()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


def main(place: str, path: str, node: str) -> int:
    """The process of a node."""
    given = json.loads(Path(path).read_text())
    with Client(place, "AF_UNIX") as connection:
        member = Member(given["document"], node, "0")
        member.join(Joined(tuple((camera, epoch, track) for camera, epoch, track in given["ended"])))

        def ask(report: NodeReport, known: str) -> Orders | None:
            connection.send((report, known))
            orders: Orders | None = connection.recv()
            return orders

        threading.Thread(target=beat, args=(member, ask, threading.Event()), daemon=True).start()
        return member.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
