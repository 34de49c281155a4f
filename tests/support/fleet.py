"""A fleet of daemons on a Ray cluster of this machine: its configuration, its state, and what its messages tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.broker import MosquittoBroker, free_port
from tests.support.ray_cluster import RayCluster
from tests.support.subscriber import Message
from visaged.daemon.fleet.records import CameraView, FleetView

_TURN_S = 0.1


class Fleet:
    """A fleet, as people handle it.

    Args:
        cluster: The Ray cluster.
        broker: Where it publishes.
        folder: Folder for its configuration and the nodes' state folders.
        nodes: Names of its nodes, each with what differs from the defaults: `site`, `capacity`.
        cameras: Its cameras.
        lease_s: Length of a lease.
        settings: More keys of the configuration.
    """

    def __init__(
        self,
        cluster: RayCluster,
        broker: MosquittoBroker,
        folder: Path,
        nodes: dict[str, dict[str, Any]],
        cameras: Sequence[dict[str, Any]],
        lease_s: float = 3.0,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self._cluster = cluster
        self.is_over = False
        self.path = folder / "fleet.yaml"
        self.document: dict[str, Any] = {
            "fleet": {
                "name": "test",
                "lease_s": lease_s,
                "only_listed": True,
                "nodes": {
                    name: {
                        "capacity": 10,
                        "settings": {"state_dir": str(folder / name), "http": {"port": free_port()}},
                        **given,
                    }
                    for name, given in nodes.items()
                },
            },
            "cameras": list(cameras),
            "mqtt": {"host": broker.host, "port": broker.port},
            "models": {"analyzer": None},
            "inference": {"provider": "cpu", "workers": 1},
            **(settings or {}),
        }

    def run(self) -> None:
        """Write the configuration, and hand it to the fleet by `visaged fleet run --detach`."""
        self.path.write_text(json.dumps(self.document))
        done = self.command("run", "--config", str(self.path), "--detach")
        assert done.returncode == 0, done.stderr

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `visaged fleet NAME` and return what it said."""
        argv = [sys.executable, "-m", "visaged.daemon", "fleet", name, *arguments]
        if name != "check":
            argv += ["--address", self._cluster.address]
        return subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False, env=os.environ)

    def ask(self, method: str, *arguments: object) -> Any:
        """Call a method of the coordinator, as the commands do, without the second that a process takes to start."""
        from visaged.daemon.fleet.cluster.client import FleetClient

        return FleetClient.find("test").ask(method, *arguments)

    def view(self) -> FleetView:
        """How the fleet does."""
        from visaged.daemon.fleet.cluster.client import FleetClient

        return FleetClient.find("test").view()

    def wait_for(self, wanted: Callable[[FleetView], bool], timeout_s: float = 30.0) -> FleetView:
        """The first view that is as wanted."""
        until_s = time.monotonic() + timeout_s
        while not wanted(view := self.view()):
            if time.monotonic() > until_s:
                raise AssertionError(f"not so within {timeout_s} s; it is {view}")
            time.sleep(_TURN_S)
        return view


def all_stream(view: FleetView) -> bool:
    """Whether every camera has a place, streams and is published, and none is about to move."""
    is_whole = len(view.cameras) == view.summary.cameras > 0
    return is_whole and all(one.active and one.state == "streaming" and not one.warm for one in view.cameras)


def all_up(view: FleetView) -> bool:
    """Whether every camera streams, and every node takes part."""
    return all_stream(view) and all(one.state == "up" for one in view.nodes)


def camera(view: FleetView, name: str) -> CameraView:
    """A camera of a fleet that has a place."""
    return next(one for one in view.cameras if one.name == name)


def owners(view: FleetView) -> dict[str, str]:
    """Who holds what."""
    return {one.name: one.node for one in view.cameras}


@dataclass(slots=True)
class Account:
    """What the messages of a fleet tell, counted.

    Attributes:
        events: Events of faces.
        missing: Numbers of events that are missing before the newest of their camera and epoch.
        interleaved: Frames that were seen under an epoch after the first of a newer one, and epochs of two nodes.
        late: Messages of frames that came after one of a newer epoch, and whose frames are older than that: they were
            on their way when their sender was cut off.
        unended: Camera, epoch and track of tracks that began and have no end.
        ended_twice: Camera, epoch and track of tracks that one owner ended twice, or two new ones did.
        ended_by_both: Those that the lost owner ended within its last lease, and the new one too, which is allowed.
        moved: Ends of tracks that the camera's new owner told.
        replayed: Events that came late, from a spool.
    """

    events: int = 0
    missing: int = 0
    interleaved: list[str] = field(default_factory=list)
    late: int = 0
    unended: set[tuple[str, int, int]] = field(default_factory=set)
    ended_twice: set[tuple[str, int, int]] = field(default_factory=set)
    ended_by_both: set[tuple[str, int, int]] = field(default_factory=set)
    moved: int = 0
    replayed: int = 0


def account(messages: Iterable[Message]) -> Account:
    """Count what came from the cameras of a fleet. Tracks that are open still have no end."""
    result = Account()
    newest: dict[str, tuple[int, str]] = {}
    nodes: dict[tuple[str, int], str] = {}
    numbers: dict[tuple[str, int], set[int]] = defaultdict(set)
    begun, ended, taken = set(), set(), set()
    for message in messages:
        kind = message.topic.rpartition("/")[2]
        if kind not in ("faces", "events") or message.is_retained:
            continue
        body = message.json()
        name, epoch = body["camera"], body["epoch"]
        node = nodes.setdefault((name, epoch), body["node"])
        if node != body["node"]:
            result.interleaved.append(f"{name}: epoch {epoch} of {node} and {body['node']}")
        if kind == "faces":
            last, since = newest.setdefault(name, (epoch, body["captured_at"]))
            if epoch > last:
                newest[name] = (epoch, body["captured_at"])
            elif epoch < last and body["captured_at"] < since:
                result.late += 1
            elif epoch < last:
                result.interleaved.append(f"{name}: {body['captured_at']} in epoch {epoch}, {since} in {last}")
            continue
        if body["seq"] in numbers[name, epoch]:
            continue  # QoS 1 may send twice
        numbers[name, epoch].add(body["seq"])
        result.events += 1
        result.replayed += bool(body.get("replayed"))
        moved_from = body.get("moved_from")
        result.moved += moved_from is not None
        track = (name, moved_from["epoch"] if moved_from else epoch, body["track_id"])
        if body["event"] != "end":
            begun.add(track)
            continue
        by_whom = ended if moved_from is None else taken
        if track in by_whom:
            result.ended_twice.add(track)
        by_whom.add(track)
    result.missing = sum(max(seen) - len(seen) for seen in numbers.values())
    result.unended = begun - ended - taken
    result.ended_by_both = ended & taken
    return result
