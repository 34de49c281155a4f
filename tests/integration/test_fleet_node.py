"""Nodes of a fleet, with a broker and cameras, and a coordinator that the test plays."""

from __future__ import annotations

import itertools
import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import MosquittoBroker
from tests.support.fleet_node import Document, LocalNode, NodeProcess, Ruler
from tests.support.messages import valid
from tests.support.requirements import MOSQUITTO, require
from tests.support.subscriber import Message, Subscriber
from visaged.daemon.fleet.records import CameraReport, NodeReport, Orphan

PATIENCE_S = 60.0
LEASE_S = 1.0
_epochs = itertools.count(1_000)


class Fleet:
    """Two nodes: north in this process, south in one of its own."""

    def __init__(self, broker: MosquittoBroker, ruler: Ruler, north: LocalNode, south: NodeProcess) -> None:
        self.broker, self.ruler, self.north, self.south = broker, ruler, north, south


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, demo_clip: Path) -> Iterator[Fleet]:
    require(MOSQUITTO)
    folder = tmp_path_factory.mktemp("fleet")
    broker = MosquittoBroker(folder / "broker").start()
    document = {
        "cameras": [{"name": name, "url": str(demo_clip), "loop": True, "fps": 5} for name in ("door", "yard")],
        "mqtt": {"port": broker.port, "reconnect_most_s": 1, "home_assistant": {"enabled": True}},
        "http": {"port": 0},
        "inference": {"update_s": 0.2, "workers": 1},
        "models": {"analyzer": None},
        "fleet": {
            "name": "campus",
            "nodes": {node: {"settings": {"state_dir": str(folder / node)}} for node in ("north", "south")},
        },
    }
    ruler = Ruler(document, LEASE_S)
    with LocalNode(ruler, "north") as north, NodeProcess(ruler, "south", folder) as south:
        yield Fleet(broker, ruler, north, south)
    broker.stop()


@pytest.fixture(autouse=True)
def nothing_held(fleet: Fleet) -> None:
    fleet.ruler.reset()


def about(subscriber: Subscriber, camera: str) -> list[tuple[str, Document]]:
    """Kind and JSON of all messages about a camera, in the order in which they came."""
    messages = [m for m in subscriber.messages if m.topic.startswith(f"visaged/{camera}/") and m.payload]
    return [(message.topic.rpartition("/")[2], valid(message)) for message in messages]


def camera_of(report: NodeReport, camera: str) -> CameraReport:
    return next(one for one in report.cameras if one.camera == camera)


def has_open_track(report: NodeReport) -> bool:
    return any(one.open for one in report.cameras)


def event_of(camera: str, epoch: int, **wanted: Any) -> Any:
    def is_one(message: Message) -> bool:
        if message.topic != f"visaged/{camera}/events":
            return False
        document = message.json()
        return {"epoch": epoch, **wanted}.items() <= document.items()

    return is_one


def ends_of(told: list[tuple[str, Document]]) -> Counter[tuple[int, int]]:
    return Counter((d["epoch"], d["track_id"]) for kind, d in told if kind == "events" and d["event"] == "end")


def test_a_planned_move_leaves_no_gap_and_no_overlap(fleet: Fleet) -> None:
    old, new = next(_epochs), next(_epochs)
    with Subscriber(fleet.broker) as heard:
        fleet.ruler.grant("north", "door", old)
        fleet.ruler.wait("north", has_open_track)
        fleet.ruler.grant("south", "door", new, active=False)
        fleet.ruler.wait_for("south", "door", active=False)
        fleet.ruler.revoke("north", "door")
        report = fleet.ruler.wait("north", lambda report: not report.cameras)
        assert report.node == "north"
        fleet.ruler.grant("south", "door", new, next_track=500)
        heard.wait_for(event_of("door", new, event="begin"), PATIENCE_S)
        told = about(heard, "door")
    epochs = [document["epoch"] for _, document in told]
    print(
        [(k, d["epoch"], d.get("event"), d.get("reason"), d.get("state"), d.get("seq"), d["node"]) for k, d in told][
            -30:
        ]
    )
    assert epochs == sorted(epochs), "messages of two epochs overlap"
    assert {(d["epoch"], d["node"]) for _, d in told} == {(old, "north"), (new, "south")}
    begun = {(d["epoch"], d["track_id"]) for kind, d in told if kind == "events" and d["event"] == "begin"}
    assert {key for key in begun if key[0] == old} == ends_of(told).keys() - {k for k in ends_of(told) if k[0] == new}
    last = [d for kind, d in told if kind == "events" and d["epoch"] == old][-1]
    assert (last["event"], last["reason"]) == ("end", "moved")
    assert min(d["track_id"] for kind, d in told if kind == "events" and d["epoch"] == new) >= 500
    first = next(d for _, d in told if d["epoch"] == new)
    assert (first["schema"], first["state"]) == ("visaged.camera-status/1", "streaming")
    for epoch in (old, new):
        numbers = [d["seq"] for kind, d in told if kind == "events" and d["epoch"] == epoch]
        assert numbers == list(range(1, len(numbers) + 1))
    frames = [d for kind, d in told if kind == "faces"]
    assert len(frames) > 3


def test_a_lease_that_ends_stops_the_messages_until_it_is_granted_again(fleet: Fleet) -> None:
    epoch = next(_epochs)
    with Subscriber(fleet.broker) as heard:
        fleet.ruler.grant("north", "door", epoch)
        before = camera_of(fleet.ruler.wait("north", has_open_track), "door")
        fleet.ruler.answer("north", False)
        metrics = fleet.north.member.metrics
        lost = metrics.output_lost.labels("mqtt", "faces", "fenced")
        fenced = lost._value.get()
        from tests.support.waiting import until

        until(lambda: lost._value.get() > fenced + 2, PATIENCE_S)
        silent = len(about(heard, "door"))
        until(lambda: lost._value.get() > fenced + 6, PATIENCE_S)
        assert len(about(heard, "door")) == silent
        fleet.ruler.answer("north", True)
        fleet.ruler.wait("north", has_open_track)
        told = about(heard, "door")
    assert {d["epoch"] for _, d in told} == {epoch}
    after = told[silent:]
    kinds = [kind for kind, _ in after]
    assert {"status", "presence"} <= set(kinds)
    open_before = {json.loads(body)["track_id"] for body in before.open}
    ended = {d["track_id"]: d["reason"] for kind, d in told if kind == "events" and d["event"] == "end"}
    assert open_before <= ended.keys()
    assert "moved" in ended.values()
    numbers = [d["seq"] for kind, d in told if kind == "events"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert set(ends_of(told).values()) == {1}


def test_a_node_that_was_stopped_beyond_its_lease_says_nothing_in_its_old_epoch(fleet: Fleet) -> None:
    old, new = next(_epochs), next(_epochs)
    with Subscriber(fleet.broker) as heard:
        fleet.ruler.grant("south", "yard", old)
        fleet.ruler.wait("south", has_open_track)
        fleet.south.process.send_signal(signal.SIGSTOP)
        try:
            known = fleet.ruler._seats["south"].report
            assert known is not None
            lost = camera_of(known, "yard")
            orphans = [Orphan("south", old, json.loads(body)["track_id"], body) for body in lost.open]
            assert fleet.north.member.now() > 0
            waited = __import__("threading").Event()
            waited.wait(LEASE_S * 1.5)
            fleet.ruler.grant("north", "yard", new, next_track=lost.next_track + 1000, orphans=orphans)
            heard.wait_for(event_of("yard", new, event="begin"), PATIENCE_S)
            fleet.ruler.revoke("south", "yard", [orphan.track for orphan in orphans])
            at_thaw = len(about(heard, "yard"))
        finally:
            fleet.south.process.send_signal(signal.SIGCONT)
        fleet.ruler.wait("south", lambda report: not report.cameras)
        heard.wait_for_all(lambda messages: sum("yard/faces" in m.topic for m in messages[-20:]) > 10, PATIENCE_S)
        told = about(heard, "yard")
    moved = [d for kind, d in told if kind == "events" and "moved_from" in d]
    assert {(d["moved_from"]["node"], d["moved_from"]["epoch"]) for d in moved} == {("south", old)}
    assert [d["track_id"] for d in moved] == [orphan.track for orphan in orphans]
    assert {(d["node"], d["epoch"], d["reason"]) for d in moved} == {("north", new, "moved")}
    late = [(kind, d) for kind, d in told[at_thaw:] if d["epoch"] == old]
    for kind, document in late:  # the end of a track that nobody else knew
        assert (kind, document["event"], document["reason"]) == ("events", "end", "moved")
        assert document["track_id"] not in {orphan.track for orphan in orphans}
    with Subscriber(fleet.broker, "visaged/yard/status") as kept:
        assert kept.wait_for(lambda m: m.is_retained, PATIENCE_S).json()["node"] == "north"
