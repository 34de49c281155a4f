"""Nodes of a fleet, with a broker and cameras, and a coordinator that the test plays."""

from __future__ import annotations

import itertools
import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.broker import MosquittoBroker
from tests.support.fleet_node import Document, LocalNode, NodeProcess, Ruler
from tests.support.messages import valid
from tests.support.requirements import MOSQUITTO, require
from tests.support.subscriber import Message, Subscriber
from tests.support.waiting import until
from visaged.daemon.config.document import SettingsError
from visaged.daemon.errors import StartError
from visaged.daemon.fleet.node.member import Member
from visaged.daemon.fleet.records import CameraReport, NodeReport, Orphan

PATIENCE_S = 60.0
LEASE_S = 1.0
_epochs = itertools.count(1_000)


class Fleet:
    """Two nodes: north in this process, south in one of its own."""

    def __init__(self, broker: MosquittoBroker, ruler: Ruler, north: LocalNode, south: NodeProcess) -> None:
        self.broker, self.ruler, self.north, self.south = broker, ruler, north, south

    def fenced(self) -> float:
        """How many frames north did not tell because it had no lease."""
        name, labels = "visaged_output_lost_total", {"output": "mqtt", "kind": "faces", "cause": "fenced"}
        return self.north.member.metrics.registry.get_sample_value(name, labels) or 0.0


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
    messages = [m for m in subscriber.messages if m.topic.startswith(f"visaged/{camera}/") and not m.is_retained]
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


def retained(broker: MosquittoBroker, topic: str) -> Document:
    """What the broker keeps on a topic."""
    with Subscriber(broker, topic) as kept:
        document: Document = kept.wait_for(lambda m: m.is_retained, PATIENCE_S).json()
        return document


def of_camera(message: Message, camera: str) -> bool:
    return bool(message.payload) and message.json()["device"]["name"] == camera


def devices(broker: MosquittoBroker, topic: str, camera: str) -> set[str]:
    """Topics of a camera's devices that the broker keeps."""
    with Subscriber(broker, topic) as kept:
        kept.publish("homeassistant/device/last/config", json.dumps({"device": {"name": "last"}}))
        kept.wait_for(lambda m: of_camera(m, "last"), PATIENCE_S)
        return {m.topic for m in kept.messages if of_camera(m, camera)}


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


def test_a_lease_that_ends_silences_a_camera_until_it_is_granted_again(fleet: Fleet) -> None:
    epoch = next(_epochs)
    with Subscriber(fleet.broker) as heard:
        fleet.ruler.grant("north", "door", epoch)
        before = camera_of(fleet.ruler.wait("north", has_open_track), "door")
        fleet.ruler.answer("north", False)
        until(lambda: fleet.fenced() > 2, PATIENCE_S)
        silent = len(about(heard, "door"))
        enough = fleet.fenced() + 5
        until(lambda: fleet.fenced() > enough, PATIENCE_S)
        assert len(about(heard, "door")) == silent
        lapsed = camera_of(fleet.north.member.report(), "door")
        assert (lapsed.epoch, lapsed.active, lapsed.state) == (epoch, False, "streaming")
        fleet.ruler.answer("north", True)
        fleet.ruler.wait_for("north", "door")
        fleet.ruler.wait("north", has_open_track)
        told = about(heard, "door")
    assert {document["epoch"] for _, document in told} == {epoch}
    assert {"status", "presence"} <= {kind for kind, _ in told[silent:]}
    ended = {d["track_id"]: d["reason"] for kind, d in told if kind == "events" and d["event"] == "end"}
    assert {ended[json.loads(body)["track_id"]] for body in before.open} <= {"moved", "lost"}
    assert "moved" in ended.values()
    numbers = [document["seq"] for kind, document in told if kind == "events"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert set(ends_of(told).values()) == {1}


def test_a_node_that_was_stopped_beyond_its_lease_says_nothing_in_its_old_epoch(fleet: Fleet) -> None:
    old, new = next(_epochs), next(_epochs)
    with Subscriber(fleet.broker) as heard:
        fleet.ruler.grant("south", "yard", old)
        known = fleet.ruler.wait("south", has_open_track)
        fleet.south.process.send_signal(signal.SIGSTOP)
        try:
            lost = camera_of(known, "yard")
            orphans = [Orphan("south", old, json.loads(body)["track_id"], body) for body in lost.open]
            frozen_s = fleet.north.member.now()
            until(lambda: fleet.north.member.now() > frozen_s + 1.5 * LEASE_S, PATIENCE_S)
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
    # Events of before, on their way to the broker, and ends of tracks that nobody else knew.
    late = [(kind, d) for kind, d in told[at_thaw:] if d["epoch"] == old]
    for kind, document in late:
        assert kind == "events"
        assert document["age_ms"] > 1000 * LEASE_S or document["reason"] == "moved"
        assert document["event"] != "end" or document["track_id"] not in {orphan.track for orphan in orphans}
    assert retained(fleet.broker, "visaged/yard/status")["node"] == "north"


def test_a_killed_nodes_events_arrive_when_it_is_back_and_each_track_ends_once(fleet: Fleet) -> None:
    old, new = next(_epochs), next(_epochs)
    with Subscriber(fleet.broker) as heard:
        fleet.ruler.grant("south", "yard", old)
        fleet.ruler.wait("south", has_open_track)
        fleet.broker.kill()
        spooled = camera_of(fleet.ruler.wait("south", lambda report: camera_of(report, "yard").seq >= 12), "yard")
        fleet.south.kill()
        known = spooled.open
        orphans = [Orphan("south", old, json.loads(body)["track_id"], body) for body in known]
        fleet.broker.start()
        heard.wait_for_subscriptions(2)
        fleet.ruler.grant("north", "yard", new, next_track=spooled.next_track + 1000, orphans=orphans)
        fleet.ruler.wait_for("north", "yard")
        fleet.ruler.forget("south")
        fleet.south.start(ended=[("yard", old, orphan.track) for orphan in orphans])
        heard.wait_for(lambda m: m.topic == "visaged/south/status" and m.json()["state"] == "online", PATIENCE_S)
        heard.wait_for(event_of("yard", old, seq=spooled.seq), PATIENCE_S)
        fleet.ruler.wait("south", lambda report: not report.cameras)
        told = about(heard, "yard")
    replayed = [d for kind, d in told if kind == "events" and d["epoch"] == old and d["replayed"]]
    assert {document["node"] for document in replayed} == {"south"}
    moved = [d for kind, d in told if kind == "events" and "moved_from" in d]
    assert [(d["epoch"], d["track_id"]) for d in moved] == [(new, orphan.track) for orphan in orphans]
    late = {d["track_id"]: d["reason"] for kind, d in told if d["epoch"] == old and d.get("event") == "end"}
    assert not late.keys() & {orphan.track for orphan in orphans}
    assert set(ends_of(told).values()) <= {1}
    assert retained(fleet.broker, "visaged/yard/status")["node"] == "north"


def test_what_a_camera_has_retained_is_its_owners_until_it_leaves_the_fleet(fleet: Fleet) -> None:
    old, new = next(_epochs), next(_epochs)
    fleet.ruler.grant("south", "yard", old)
    fleet.ruler.wait_for("south", "yard")
    device = "homeassistant/device/+/config"
    assert len(devices(fleet.broker, device, "yard")) == 1
    fleet.ruler.revoke("south", "yard")
    fleet.ruler.wait("south", lambda report: not report.cameras)
    assert retained(fleet.broker, "visaged/yard/status")["epoch"] == old
    fleet.ruler.grant("north", "yard", new)
    fleet.ruler.wait_for("north", "yard")
    with Subscriber(fleet.broker, "visaged/yard/status") as heard:
        heard.wait_for(lambda m: m.json()["epoch"] == new, PATIENCE_S)
    with Subscriber(fleet.broker, device) as heard:
        heard.wait_for(lambda m: of_camera(m, "yard") and b"visaged/north/status" in m.payload, PATIENCE_S)
    assert len(devices(fleet.broker, device, "yard")) == 1
    with Subscriber(fleet.broker, "visaged/yard/+") as heard:
        fleet.ruler.revoke("north", "yard", clear=True)
        heard.wait_for_all(lambda ms: {m.topic for m in ms if not m.payload} >= {
            "visaged/yard/status", "visaged/yard/presence"
        }, PATIENCE_S)  # fmt: skip
        ends = [m.json() for m in heard.messages if m.topic.endswith("/events") and m.json()["event"] == "end"]
    assert {end["reason"] for end in ends} <= {"removed", "lost"}
    assert devices(fleet.broker, device, "yard") == set()


def test_orders_that_cannot_be_followed_leave_the_other_cameras_alone(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    epoch, other = next(_epochs), next(_epochs)
    fleet.ruler.grant("north", "door", epoch)
    fleet.ruler.wait_for("north", "door")
    fleet.ruler.grant("north", "attic", other)
    until(lambda: "has no such cameras: attic" in caplog.text, PATIENCE_S)
    good = fleet.ruler.document
    cameras = [*good["cameras"], {"name": "vault", "url": "rtsp://vault", "username": "v", "password_file": "/no/such"}]
    fleet.ruler.document = good | {"cameras": cameras}
    fleet.ruler.grant("north", "vault", other)
    until(lambda: "camera vault cannot run on this node" in caplog.text, PATIENCE_S)
    assert "camera vault cannot run here: " in fleet.north.member.report().problem
    fleet.ruler.document = good | {"inference": {"update_s": "often"}}
    until(lambda: "the configuration was not reloaded" in caplog.text, PATIENCE_S)
    fleet.ruler.document = good | {"mqtt": good["mqtt"] | {"prefix": "other"}}
    until(lambda: "in effect only after a restart: mqtt.prefix" in caplog.text, PATIENCE_S)
    fleet.ruler.document = good
    held = fleet.ruler.wait_for("north", "door").cameras
    assert [(one.camera, one.epoch) for one in held] == [("door", epoch)]
    until(lambda: not fleet.north.member.report().problem, PATIENCE_S)


def test_cameras_of_a_fleet_are_not_changed_over_http(fleet: Fleet) -> None:
    with httpx.Client(base_url=fleet.north.member.report().url) as client:
        answers = [
            client.post("/v1/reload"),
            client.post("/v1/cameras", json={"name": "new", "url": "rtsp://new"}),
            client.patch("/v1/cameras/door", json={"fps": 1}),
            client.delete("/v1/cameras/door"),
        ]
    assert {(answer.status_code, answer.json()["type"].rpartition(":")[2]) for answer in answers} == {
        (409, "held-by-fleet")
    }
    assert all("the fleet campus holds the cameras" in answer.json()["detail"] for answer in answers)


def test_a_state_folder_that_is_in_use_is_refused(fleet: Fleet) -> None:
    with pytest.raises(StartError, match=r"is in use by another visaged, process \d+"):
        Member(fleet.ruler.document, "north", "0")


def test_a_fleet_needs_a_broker_of_its_own(fleet: Fleet) -> None:
    with pytest.raises(SettingsError, match=r"mqtt\.embedded: the nodes of a fleet need one broker"):
        Member(fleet.ruler.document | {"mqtt": {"embedded": True}}, "attic", "0")
