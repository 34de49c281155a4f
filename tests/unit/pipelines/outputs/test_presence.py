"""How many faces are in front of a camera."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.support.messages import event, result, status
from tests.support.outputs import Collector
from tests.unit.fakes import Clock
from visaged.pipelines.outputs.fan_out import FanOut
from visaged.pipelines.outputs.messages import Composer
from visaged.pipelines.outputs.presence import Presences
from visaged.pipelines.records import CameraPresence
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def presences(clock: Clock) -> Presences:
    return Presences(clock)


def test_tracks_are_counted_from_their_begin_to_their_end(presences: Presences, clock: Clock) -> None:
    clock.now_s = 1.0
    presences.begin("door")
    assert presences.take() == [CameraPresence("door", 0, 1.0)]
    for now_s, kind, track, faces in ((2, "begin", 1, 1), (3, "begin", 2, 2), (4, "end", 1, 1), (5, "end", 2, 0)):
        clock.now_s = now_s
        presences.note(event(track, kind=kind))  # type: ignore[arg-type]
        assert presences
        assert presences.take() == [CameraPresence("door", faces, now_s)]
    assert not presences
    assert presences.take() == []


def test_only_changes_are_told(presences: Presences, clock: Clock) -> None:
    presences.begin("door")
    presences.note(event(1))
    presences.take()
    clock.now_s = 9.0
    presences.begin("door")
    presences.note(event(1))
    presences.note(event(1, kind="update"))
    presences.note(event(7, kind="end"))
    assert presences.take() == []


def test_the_newest_number_counts(presences: Presences) -> None:
    presences.begin("door")
    for track in range(1, 6):
        presences.note(event(track))
    presences.note(event(3, kind="end"))
    assert [presence.faces for presence in presences.take()] == [4]


def test_cameras_that_are_not_there_do_not_count(presences: Presences) -> None:
    presences.note(event(1))
    assert not presences
    presences.begin("door")
    presences.note(event(1))
    presences.forget("door")
    assert presences.take() == []
    presences.note(event(1, kind="end"))
    presences.note(event(2))
    assert presences.take() == []


def test_a_camera_that_was_removed_and_added_begins_anew(presences: Presences) -> None:
    presences.begin("door")
    presences.note(event(1))
    presences.take()
    presences.forget("door")
    presences.begin("door")
    assert [presence.faces for presence in presences.take()] == [0]


class Fan:
    def __init__(self, most: int = 100) -> None:
        self.heard = Collector(kinds=("faces", "events", "status", "presence"))
        metrics = Metrics(CollectorRegistry())
        self.out = FanOut(Composer("node", 1), [self.heard], metrics, most_results=most, most_events=most)

    def finish(self) -> list[Any]:
        """Hands everything over; returns the kinds of messages, and of presence the number."""
        deaths: list[BaseException] = []
        worker = Worker("fan-out", self.out.run, lambda name, error: deaths.append(error))
        worker.stop()
        worker.start()
        assert worker.join(30.0)
        assert deaths == []
        return self.told()

    def told(self) -> list[Any]:
        return [json.loads(m.body)["faces"] if m.kind == "presence" else m.kind for m in self.heard.messages]


def test_presence_follows_the_events_that_it_comes_from() -> None:
    fan = Fan()
    fan.out.submit_status(status())
    fan.out.submit(result(events=[event(1), event(2)]))
    fan.out.submit_event(event(1, kind="end"))
    assert fan.finish() == ["status", "events", "events", "events", 1, "faces"]


def test_none_is_told_at_once_of_cameras_that_are_about_to_begin() -> None:
    fan = Fan()
    fan.out.expect(["door", "yard"])
    assert fan.told() == [0, 0]
    fan.out.submit_status(status())
    assert fan.finish() == [0, 0, "status"], "and not again when they begin"


def test_events_that_are_lost_leave_no_face_behind() -> None:
    fan = Fan(most=1)
    fan.out.submit_status(status())
    fan.out.submit_event(event(1))
    fan.out.submit_event(event(1, kind="end"))
    fan.out.submit_event(event(1, kind="update"))
    assert fan.finish() == ["status", "events", 0]


def test_nothing_is_told_of_a_camera_after_its_end() -> None:
    fan = Fan()
    fan.out.submit_status(status())
    fan.out.submit_event(event(1))
    fan.out.forget("door")
    fan.out.submit_event(event(2))
    assert 1 not in fan.finish()
    assert fan.heard.forgotten == ["door"]
