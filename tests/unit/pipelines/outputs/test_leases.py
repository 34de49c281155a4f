"""What is handed out under leases, and what is not."""

from __future__ import annotations

import json
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from tests.support.messages import event, result, status
from tests.support.outputs import Collector
from tests.unit.pipelines.outputs.test_messages import validate
from visaged.pipelines.outputs.fan_out import FanOut
from visaged.pipelines.outputs.leases import Begun, Released
from visaged.pipelines.outputs.messages import Composer, Message, OpenTrack
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker


class Leases:
    """A fence that the test sets; keeps what it is told as a keeper."""

    def __init__(self) -> None:
        self.current: dict[str, int] = {}
        self.lasting: set[tuple[str, int]] = set()
        self.let_go: list[tuple[str, int]] = []
        self.elsewhere: list[Message] = []

    def epoch(self, camera: str) -> int | None:
        return self.current.get(camera)

    def holds(self, camera: str, epoch: int) -> bool:
        return (camera, epoch) in self.lasting

    def released(self, camera: str, epoch: int) -> None:
        self.let_go.append((camera, epoch))

    def ended_elsewhere(self, message: Message) -> None:
        self.elsewhere.append(message)

    def activate(self, camera: str, epoch: int) -> None:
        self.current[camera] = epoch
        self.lasting.add((camera, epoch))


class Fan:
    """A fan-out whose thread is the test's."""

    def __init__(self) -> None:
        self.leases = Leases()
        self.metrics = Metrics(CollectorRegistry())
        self.composer = Composer("north", 1)
        self.collector = Collector(kinds=("faces", "events", "status", "presence"))
        self.out = FanOut(self.composer, [self.collector], self.metrics, fence=self.leases, keepers=self.leases)

    def hand_out(self) -> list[tuple[str, Any]]:
        """Hands out what waits; returns it."""
        before = len(self.collector.messages)
        worker = Worker("fan-out", self.out.run, lambda name, error: None)
        worker.stop()
        worker.start()
        assert worker.join(30.0)
        return [(message.kind, orjson.loads(message.body)) for message in self.collector.messages[before:]]

    def fenced(self, kind: str) -> float:
        labels = {"output": "collector", "kind": kind, "cause": "fenced"}
        return self.metrics.registry.get_sample_value("visaged_output_lost_total", labels) or 0.0


def test_a_warm_camera_gives_nothing_and_counts_nothing_as_lost() -> None:
    fan = Fan()
    fan.out.submit_status(status())
    fan.out.submit(result(events=[event(1)]))
    fan.out.submit_event(event(2))
    assert fan.hand_out() == []
    assert fan.fenced("faces") == fan.fenced("events") == 0


def test_a_camera_has_the_epoch_of_its_lease_and_counts_from_one_in_each() -> None:
    fan = Fan()
    for epoch in (70, 90):
        fan.leases.activate("door", epoch)
        fan.out.begin(Begun("door", epoch))
        fan.out.submit_status(status())
        fan.out.submit(result(events=[event(1), event(2)]))
        told = fan.hand_out()
        assert {document["epoch"] for _, document in told} == {epoch}
        assert [d["seq"] for kind, d in told if kind == "events"] == [1, 2]
        assert [d["faces"] for kind, d in told if kind == "presence"] == [2]
        published = fan.out.ledger.of("door", epoch) if fan.out.ledger else None
        assert published is not None
        assert (published.begun, published.seq, len(published.open)) == (True, 2, 2)


def test_what_is_produced_or_composed_after_the_end_of_the_lease_is_counted_and_not_published() -> None:
    fan = Fan()
    fan.leases.activate("door", 70)
    fan.out.submit(result(events=[event(1)]))
    fan.out.submit_status(status())
    fan.leases.lasting.clear()
    fan.out.submit(result(events=[event(2)]))
    fan.out.submit_event(event(3))
    assert fan.hand_out() == []
    assert (fan.fenced("faces"), fan.fenced("events")) == (2, 3)
    fan.leases.lasting.add(("door", 70))
    fan.out.submit(result(events=[event(4)]))
    assert [d["seq"] for kind, d in fan.hand_out() if kind == "events"] == [1]


def test_a_release_ends_what_is_open_after_what_was_submitted_before_it_although_the_lease_is_over() -> None:
    fan = Fan()
    fan.leases.activate("door", 70)
    fan.out.submit(result(events=[event(1), event(2), event(3)]))
    fan.out.submit_event(event(2, kind="end", reason="lost"))
    fan.hand_out()
    fan.leases.lasting.clear()
    fan.leases.current.clear()
    fan.out.release(Released("door", 70, frozenset([3])))
    ((kind, end),) = fan.hand_out()
    assert (kind, end["event"], end["reason"], end["track_id"], end["epoch"]) == ("events", "end", "moved", 1, 70)
    assert [message.track for message in fan.leases.elsewhere] == [3]
    assert fan.leases.let_go == [("door", 70)]
    assert {end["seq"], fan.leases.elsewhere[0].seq} == {5, 6}
    validate("events", fan.collector.messages[-1].encode(0.0, replayed=False))


def test_an_interrupted_epoch_goes_on_after_the_ends_of_its_tracks() -> None:
    fan = Fan()
    fan.leases.activate("door", 70)
    fan.out.submit(result(events=[event(1)]))
    fan.hand_out()
    fan.out.release(Released("door", 70, is_over=False))
    fan.out.begin(Begun("door", 70))
    fan.out.submit_event(event(9))
    told = [(d["event"], d["track_id"], d["seq"]) for kind, d in fan.hand_out() if kind == "events"]
    assert told == [("end", 1, 2), ("begin", 9, 3)]
    assert fan.leases.let_go == []
    fan.leases.lasting.clear()  # before the ends are composed: the new owner may have ended them
    fan.out.release(Released("door", 70, is_over=False))
    assert fan.hand_out() == []


def test_orphans_are_ended_in_the_epoch_of_the_new_owner() -> None:
    lost = Composer("south", 1)
    fan = Fan()
    bodies = [lost.event(event(5), 70).encode(0.0, replayed=True), b"{", b"[]", lost.event(event(6), 70).body]
    orphans = tuple(OpenTrack("south", 70, number, body) for number, body in zip((5, 1, 2, 6), bodies, strict=True))
    fan.leases.activate("door", 90)
    fan.out.begin(Begun("door", 90, orphans))
    fan.out.submit_status(status())
    ends = [d for kind, d in fan.hand_out() if kind == "events"]
    assert [(d["track_id"], d["node"], d["epoch"], d["reason"]) for d in ends] == [
        (5, "north", 90, "moved"), (6, "north", 90, "moved"),
    ]  # fmt: skip
    assert {json.dumps(d["moved_from"]) for d in ends} == {'{"node": "south", "epoch": 70}'}
    for message in fan.collector.messages:
        if message.kind == "events":
            validate("events", message.encode(0.0, replayed=False))
    labels = {"output": "collector", "kind": "events", "cause": "failed"}
    assert fan.metrics.registry.get_sample_value("visaged_output_lost_total", labels) == 2
