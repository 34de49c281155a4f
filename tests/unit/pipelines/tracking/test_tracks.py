"""The faces of a camera over time: what is told of them, and when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.manifest import Head
from visaged.models.types import Detections
from visaged.pipelines.attributes import AttributeReader, NoReader
from visaged.pipelines.records import Face, TrackEvent
from visaged.pipelines.source.times.timeline import Timeline
from visaged.pipelines.tracking.tracker import TrackerConfig
from visaged.pipelines.tracking.tracks import CameraTracks, ReadingPolicy, TrackingSpec, faces_of

CHARM = Head(name="charm", kind="score", output="charm")
MASK = Head(name="mask", kind="binary", output="mask", labels=["none", "mask"], memory_s=10)
POINTS = Head(name="landmarks_106", kind="points", output="points", count=106, memory_s=0)
ALL = frozenset({"charm", "mask"})
START = 1000.0


def reader() -> fakes.Reader:
    return fakes.Reader(
        CHARM, MASK, POINTS, values={"charm": [0.5], "mask": [0.9, 0.1], "landmarks_106": np.zeros((106, 2))}
    )


def camera_tracks(
    by: AttributeReader,
    *,
    attributes: frozenset[str] = ALL,
    policy: ReadingPolicy | None = None,
    update_s: float = 5.0,
    points: bool = False,
    min_confidence: float = 0.5,
    tracker: TrackerConfig | None = None,
    least: Mapping[str, float] | None = None,
    fps: float | None = None,
) -> CameraTracks:
    spec = TrackingSpec(
        tracker=tracker or TrackerConfig(),
        policy=policy or ReadingPolicy(),
        attributes=attributes,
        min_confidence=min_confidence,
        update_s=update_s,
        points=points,
        least=least or {},
        fps=fps,
    )
    return CameraTracks("door", spec, by)


@dataclass
class Stage:
    """Plays frames through tracks at 5 fps, and keeps what comes out."""

    tracks: CameraTracks
    reader: fakes.Reader = field(default_factory=reader)
    time_s: float = START
    stream: int = 1
    step_s: float = 0.2
    events: list[TrackEvent] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)

    def show(self, detections: Detections) -> list[TrackEvent]:
        """Play one frame; return its events. `faces` are those of the last frame."""
        frame = fakes.frame(self.time_s, stream=self.stream)
        observation = self.tracks.observe(frame, detections)
        readings = self.reader.read(observation.requests) if observation.requests else []
        self.faces, events = self.tracks.conclude(observation, readings)
        self.time_s += self.step_s
        self.events += events
        return events

    def play(self, detections: Iterable[Detections]) -> list[TrackEvent]:
        return [event for one in detections for event in self.show(one)]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


def stage(**options: object) -> Stage:
    by = reader()
    return Stage(camera_tracks(by, **options), by)  # type: ignore[arg-type]


def walk(count: int, start: int = 0, size: float = 80, yaw: float = 0.0) -> list[Detections]:
    """Return a face that goes to the right."""
    return [fakes.faces((100 + 4 * index, 150, size, yaw)) for index in range(start, start + count)]


# --- events -----------------------------------------------------------------------------------------------------------


def test_a_face_begins_when_it_is_confirmed() -> None:
    s = stage()
    assert s.show(walk(1)[0]) == []
    assert [face.track for face in s.faces] == [None]
    (begin,) = s.show(walk(1, 1)[0])
    assert (begin.camera, begin.kind, begin.reason) == ("door", "begin", None)
    assert begin.face.track == 1
    assert begin.frames == 1
    assert begin.captured_s == pytest.approx(START + 0.2)
    assert begin.started_at == pytest.approx(1.7e9 + START + 0.2)
    assert begin.face.attributes["charm"].value == 0.5
    assert [face.track for face in s.faces] == [1]


def test_updates_come_no_more_often_than_asked_for() -> None:
    s = stage(update_s=5.0)
    s.play(walk(100))  # 20 s
    assert s.kinds == ["begin", "update", "update", "update"]
    gaps = np.diff([event.captured_s for event in s.events])
    assert (gaps >= 5.0 - 1e-6).all()
    assert s.events[-1].duration_s == pytest.approx(s.events[-1].captured_s - s.events[0].captured_s)
    assert s.events[-1].frames > s.events[1].frames > 1


def test_without_news_there_is_no_update() -> None:
    s = stage(attributes=frozenset(), update_s=1.0)
    s.play([fakes.faces((100, 150, 80))] * 100)
    assert s.kinds == ["begin"]


def test_a_better_shot_is_news() -> None:
    s = stage(attributes=frozenset(), update_s=1.0)
    s.play([fakes.faces((100, 150, 80, 50))] * 20)
    assert s.kinds == ["begin"]
    s.play([fakes.faces((100, 150, 80, 0))] * 20)
    assert s.kinds == ["begin", "update"]


def test_a_new_reading_is_news() -> None:
    s = stage(update_s=1.0, policy=ReadingPolicy(refresh_s=4.0))
    s.play([fakes.faces((100, 150, 80))] * 45)  # 9 s: read at 0.2, 4.2 and 8.2
    assert s.kinds == ["begin", "update", "update"]


def test_a_lost_face_ends() -> None:
    s = stage(tracker=TrackerConfig(lost_s=2.0))
    s.play(walk(10))
    gone = s.play([fakes.faces()] * 15)
    (end,) = gone
    assert (end.kind, end.reason) == ("end", "lost")
    assert end.face.track == 1
    assert end.frames == 9
    assert end.duration_s == pytest.approx(8 * 0.2)
    assert end.face.attributes.keys() == ALL
    # What is known is as old as when the face was last seen, not as when its loss was noticed.
    assert end.face.attributes["charm"].age_s < 2
    assert end.captured_s > START + 1.8 + 1.99
    assert s.tracks.present() == 0


def test_a_short_absence_is_no_end() -> None:
    s = stage()
    s.play(walk(10))
    s.play([fakes.faces()] * 3)
    s.play(walk(10, 13))
    assert "end" not in s.kinds
    assert s.kinds.count("begin") == 1
    assert {face.track for face in s.faces} == {1}


@pytest.mark.parametrize("reason", ["stream_ended", "shutdown"])
def test_all_end_at_once(reason: str) -> None:
    s = stage()
    s.play([fakes.faces((100, 100, 60), (300, 100, 60))] * 4)
    ends = s.tracks.end_all(2000.0, reason)  # type: ignore[arg-type]
    assert [(event.kind, event.reason, event.captured_s) for event in ends] == [("end", reason, 2000.0)] * 2
    assert {event.face.track for event in ends} == {1, 2}
    assert s.tracks.end_all(2001.0, reason) == []  # type: ignore[arg-type]
    assert s.tracks.present() == 0


def test_tracks_expire_when_no_frame_comes() -> None:
    s = stage(tracker=TrackerConfig(lost_s=2.0))
    s.play(walk(5))
    last = s.time_s - s.step_s
    assert s.tracks.expire(last + 1.9) == []
    (end,) = s.tracks.expire(last + 2.1)
    assert (end.kind, end.reason, end.captured_s) == ("end", "lost", last + 2.1)
    assert s.tracks.expire(last + 5) == []


def test_a_camera_that_may_be_held_up_keeps_its_tracks_for_longer() -> None:
    s = stage(tracker=TrackerConfig(lost_s=2.0))
    s.play(walk(5))
    last = s.time_s - s.step_s
    assert s.tracks.expire(last + 4.9, stall_s=3.0) == []
    assert [event.kind for event in s.tracks.expire(last + 5.1, stall_s=3.0)] == ["end"]


WATCH_S = 0.5
"""How often the daemon asks for tracks of silent cameras."""


def watched(arrivals: Iterable[tuple[float, float]], stall_s: float = 3.0) -> list[TrackEvent]:
    """Return the events of a still face with frames of these (stamp, arrival) in seconds, watched as by the daemon."""
    s, timeline, events, watch_s = stage(), Timeline(), [], WATCH_S
    for stamp_s, arrival_s in arrivals:
        while watch_s < arrival_s:
            events += s.tracks.expire(watch_s, stall_s=stall_s)
            watch_s += WATCH_S
        motion_s = timeline.capture(stamp_s, arrival_s)
        frame = replace(fakes.frame(motion_s), arrived_s=arrival_s, ready_s=arrival_s)
        observation = s.tracks.observe(frame, fakes.faces((200, 150, 80)))
        events += s.tracks.conclude(observation, s.reader.read(observation.requests))[1]
    return events


def test_a_stream_that_was_held_up_once_and_stays_late_keeps_its_faces() -> None:
    late = ((n / 5, n / 5 + (3.5 if n > 50 else 0.0)) for n in range(300))
    assert [event.kind for event in watched(late) if event.kind != "update"] == ["begin"]


def test_a_stream_that_becomes_late_little_by_little_keeps_its_faces() -> None:
    late = ((n / 5, n / 5 + min(6.0, n / 50)) for n in range(600))
    assert [event.kind for event in watched(late, stall_s=0.0) if event.kind != "update"] == ["begin"]


def test_a_stall_that_is_not_waited_for_ends_a_track_once() -> None:
    late = ((n / 5, n / 5 + (3.5 if n > 50 else 0.0)) for n in range(300))
    kinds = [event.kind for event in watched(late, stall_s=0.0) if event.kind != "update"]
    assert kinds == ["begin", "end", "begin"]


def test_frames_that_come_in_bursts_keep_their_faces() -> None:
    bursts = ((n / 5, n // 8 * 1.6 + n % 8 * 0.01 + 1.6) for n in range(400))
    assert [event.kind for event in watched(bursts, stall_s=0.0) if event.kind != "update"] == ["begin"]


@pytest.mark.parametrize("fps", [5, 1, 0.5, 0.25, 0.1])
def test_a_still_face_is_one_track_at_any_rate(fps: float) -> None:
    events = watched(((n / fps, n / fps) for n in range(60)), stall_s=0.0)
    assert [event.kind for event in events if event.kind != "update"] == ["begin"]


@pytest.mark.parametrize("fps", [5, 1, 0.5, 0.25, 0.1])
def test_a_silent_camera_ends_its_tracks_once_at_any_rate(fps: float) -> None:
    s = stage()
    s.step_s = 1 / fps
    s.play([fakes.faces((200, 150, 80))] * 8)
    last = s.time_s - s.step_s
    lifetime_s = max(2.0, 2.5 / fps)
    assert s.tracks.expire(last + lifetime_s - 0.1) == []
    assert [(event.kind, event.reason) for event in s.tracks.expire(last + lifetime_s + 0.1)] == [("end", "lost")]
    assert s.tracks.expire(last + 1000) == []


def test_a_camera_of_one_frame_a_while_is_measured_though_it_looks_silent_at_first() -> None:
    s = stage()
    s.step_s = 10.0
    for _ in range(6):
        s.show(fakes.faces((200, 150, 80)))
        s.events += s.tracks.expire(s.time_s - 0.1)
    assert s.kinds[0] == "begin"
    assert "end" not in s.kinds


def test_a_camera_of_a_low_rate_may_be_silent_for_longer_from_the_first_frames_on() -> None:
    s = stage(fps=0.25)
    s.step_s = 0.02  # what waited for the connection comes in a burst
    s.play([fakes.faces((200, 150, 80))] * 2)
    assert s.kinds == ["begin"]
    assert s.tracks.expire(s.time_s + 9.9) == []
    assert [event.kind for event in s.tracks.expire(s.time_s + 10.1)] == ["end"]


def test_a_begin_that_was_missed_is_told_with_the_next_frame() -> None:
    s = stage()
    s.show(walk(1)[0])
    s.tracks.observe(fakes.frame(s.time_s), walk(1, 1)[0])  # never concluded
    s.time_s += s.step_s
    assert [event.kind for event in s.show(walk(1, 2)[0])] == ["begin"]


def test_without_readings_there_are_faces_and_events_and_they_stay_due() -> None:
    s = stage()
    s.show(walk(1)[0])
    observation = s.tracks.observe(fakes.frame(s.time_s), walk(1, 1)[0])
    (face,), (event,) = s.tracks.conclude(observation)
    assert (face.track, face.attributes, event.kind) == (1, {}, "begin")
    s.time_s += s.step_s
    s.show(walk(1, 2)[0])
    assert s.faces[0].attributes.keys() == ALL


@pytest.mark.parametrize("by", ["the next frame", "silence", "shutdown"])
def test_an_end_is_returned_though_its_frame_was_never_concluded(by: str) -> None:
    s = stage(tracker=TrackerConfig(lost_s=2.0))
    s.play(walk(5))
    s.time_s += 5.0
    s.tracks.observe(fakes.frame(s.time_s), fakes.faces())
    if by == "the next frame":
        events = s.show(fakes.faces())
    elif by == "silence":
        events = s.tracks.expire(s.time_s + 60)
    else:
        events = s.tracks.end_all(s.time_s, "shutdown")
    assert [(event.kind, event.reason) for event in events] == [("end", "lost")]
    assert s.tracks.end_all(s.time_s, "shutdown") == []


def test_expiring_an_empty_camera_is_nothing() -> None:
    assert stage().tracks.expire(1e9) == []


def test_a_new_stream_ends_the_tracks_of_the_old() -> None:
    s = stage()
    s.play(walk(5))
    s.stream = 2
    (end,) = s.show(walk(1, 5)[0])
    assert (end.kind, end.reason, end.face.track) == ("end", "stream_ended", 1)
    assert [face.track for face in s.faces] == [None]
    (begin,) = s.show(walk(1, 6)[0])
    assert (begin.kind, begin.face.track) == ("begin", 2)  # numbers are not used twice


def test_a_track_that_ended_while_it_was_read_is_not_told_of_again() -> None:
    """The first run of a network may take longer than a track lives."""
    s = stage()
    s.show(walk(1)[0])
    observation = s.tracks.observe(fakes.frame(s.time_s), walk(1, 1)[0])
    ends = s.tracks.expire(s.time_s + 60)
    _, events = s.tracks.conclude(observation, s.reader.read(observation.requests))
    told = [event.kind for event in (*ends, *events)]
    assert told in ([], ["begin", "end"])  # never an end without a beginning, or a beginning after the end


def test_a_track_that_was_told_of_ends_once_though_it_was_being_read() -> None:
    s = stage(update_s=0.1)
    s.play(walk(15))
    observation = s.tracks.observe(fakes.frame(s.time_s), walk(1, 15)[0])
    (end,) = s.tracks.expire(s.time_s + 60)
    assert end.kind == "end"
    _, events = s.tracks.conclude(observation, s.reader.read(observation.requests))
    assert events == []


def test_durations_are_never_negative() -> None:
    """A short file that is looped as fast as possible steps back by less than a track lives."""
    s = stage()
    s.play(walk(2))
    s.time_s = START - 0.5
    s.play(walk(2, 2))
    s.events += s.tracks.end_all(2000.0, "shutdown")
    assert s.kinds[-1] == "end"
    assert all(event.duration_s >= 0 for event in s.events)


# --- faces ------------------------------------------------------------------------------------------------------------


def test_faces_without_a_track_are_told_from_the_least_confidence_on() -> None:
    s = stage(min_confidence=0.5)
    s.show(fakes.faces((100, 100, 60, 0, 0.9), (300, 100, 60, 0, 0.55), (500, 100, 60, 0, 0.4)))
    assert [face.shot.confidence for face in s.faces] == pytest.approx([0.9, 0.55])
    assert all(face.track is None and not face.attributes for face in s.faces)


def test_a_track_is_told_of_below_the_least_confidence() -> None:
    s = stage(min_confidence=0.5)
    s.play([fakes.faces((100, 100, 60))] * 3)
    s.show(fakes.faces((100, 100, 60, 0, 0.4)))
    assert [(face.track, round(face.shot.confidence, 2)) for face in s.faces] == [(1, 0.4)]


def test_a_shot_is_what_was_detected() -> None:
    s = stage()
    detections = fakes.faces((200, 150, 112, 30))
    s.show(detections)
    (face,) = s.faces
    np.testing.assert_array_equal(face.shot.box, detections.boxes[0])
    np.testing.assert_array_equal(face.shot.landmarks, detections.landmarks[0])
    assert face.shot.quality == pytest.approx(0.9 * np.cos(np.radians(30)), abs=0.02)
    assert face.shot.captured_at == 1.7e9 + START


def test_the_best_shot_is_kept() -> None:
    s = stage()
    s.play([fakes.faces((200, 150, 70, 40))] * 3)
    s.play([fakes.faces((202, 150, 84, 0))])
    best_at = 1.7e9 + s.time_s - s.step_s
    assert s.faces[0].is_best
    s.play([fakes.faces((204, 150, 70, 40))] * 3)
    assert not s.faces[0].is_best
    (end,) = s.tracks.end_all(2000.0, "shutdown")
    assert end.best.captured_at == pytest.approx(best_at)
    assert end.best.box[3] - end.best.box[1] == pytest.approx(84)
    assert end.face.shot.captured_at > end.best.captured_at
    assert end.best.quality > end.face.shot.quality


def test_two_faces_are_two_tracks() -> None:
    s = stage()
    s.play([fakes.faces((100 + 3 * i, 100, 60), (500 - 3 * i, 100, 60)) for i in range(10)])
    assert [event.face.track for event in s.events if event.kind == "begin"] == [1, 2]
    assert sorted(face.track or 0 for face in s.faces) == [1, 2]
    assert s.tracks.present() == 2


def test_the_shots_of_a_single_picture() -> None:
    shots = faces_of(fakes.faces((100, 100, 60), (300, 100, 112)), captured_at=5.0)
    assert [shot.captured_at for shot in shots] == [5.0, 5.0]
    assert shots[1].quality > shots[0].quality
    assert faces_of(Detections.empty()) == []


# --- readings ---------------------------------------------------------------------------------------------------------


def test_a_new_face_is_read_and_then_now_and_then() -> None:
    s = stage(policy=ReadingPolicy(refresh_s=2.0))
    s.play([fakes.faces((100, 150, 80))] * 2)
    assert len(s.reader.asked) == 1
    s.play([fakes.faces((100, 150, 80))] * 9)  # 1.8 s later
    assert len(s.reader.asked) == 1
    s.play([fakes.faces((100, 150, 80))] * 2)
    assert len(s.reader.asked) == 2


def test_a_tentative_face_is_not_read() -> None:
    s = stage()
    s.show(fakes.faces((100, 150, 80)))
    assert s.reader.asked == []


def test_what_is_asked_is_the_face_as_it_is_now() -> None:
    s = stage()
    s.play(walk(2))
    (request,) = s.reader.asked
    np.testing.assert_array_equal(request.landmarks, walk(1, 1)[0].landmarks[0])
    assert request.surface.width == 640
    assert request.quality == pytest.approx(s.faces[0].shot.quality)


def test_a_better_shot_is_read_at_once() -> None:
    s = stage(policy=ReadingPolicy(refresh_s=60.0, better_by=1.25))
    s.play([fakes.faces((100, 150, 80))] * 5)
    s.play([fakes.faces((100, 150, 96))] * 3)  # better by a fifth: not enough
    assert len(s.reader.asked) == 1
    s.play([fakes.faces((100, 150, 104))] * 3)
    assert len(s.reader.asked) == 2
    s.play([fakes.faces((100, 150, 80))] * 3)  # worse
    s.play([fakes.faces((100, 150, 104))] * 3)  # no better than what was read
    assert len(s.reader.asked) == 2


def test_a_face_in_profile_is_not_read_in_every_frame() -> None:
    """Its quality is 0, and 0 is not better than 0."""
    s = stage(policy=ReadingPolicy(refresh_s=60.0))
    s.play([fakes.faces((100, 150, 80, 110))] * 20)
    assert s.faces[0].shot.quality == 0
    assert len(s.reader.asked) == 1


def test_small_faces_are_not_read() -> None:
    s = stage(policy=ReadingPolicy(min_face_px=40))
    s.play([fakes.faces((100, 150, 39))] * 5)
    assert s.reader.asked == []
    assert s.faces[0].attributes == {}
    s.play([fakes.faces((100, 150, 41))])
    assert len(s.reader.asked) == 1


def test_of_too_many_faces_those_that_wait_longest_are_read_first() -> None:
    s = stage(policy=ReadingPolicy(refresh_s=0.1, max_faces=2))
    crowd = fakes.faces(*[(60 + 100 * index, 150, 60) for index in range(6)])
    s.play([crowd] * 2)
    assert len(s.reader.asked) == 2
    s.play([crowd] * 2)
    assert len(s.reader.asked) == 6
    assert all(face.attributes for face in s.faces)
    centres = {round(float(request.landmarks[:, 0].mean())) // 100 for request in s.reader.asked}
    assert centres == set(range(6))


def test_an_attribute_that_is_off_is_never_told() -> None:
    s = stage(attributes=frozenset({"mask"}))
    s.play(walk(10))
    assert s.faces[0].attributes.keys() == {"mask"}
    assert s.events[0].face.attributes.keys() == {"mask"}


def test_an_attribute_is_told_from_its_least_confidence_on() -> None:
    s = stage(least={"mask": 0.8}, policy=ReadingPolicy(refresh_s=0.2), update_s=1.0)
    s.reader.values["mask"] = np.array([0.4, 0.6], np.float32)
    s.play(walk(3))
    assert [set(face.attributes) for face in s.faces] == [{"charm"}]
    s.reader.values["mask"] = np.array([0.0, 1.0], np.float32)
    s.play(walk(10, 3))
    assert s.faces[0].attributes["mask"].value == "mask"
    assert s.faces[0].attributes["mask"].confidence >= 0.8
    events = s.events + s.tracks.end_all(s.time_s, "shutdown")
    assert events[-1].kind == "end"
    assert ["mask" in event.face.attributes for event in events] == [False] + [True] * (len(events) - 1)


def test_an_attribute_that_never_is_sure_enough_is_never_told() -> None:
    s = stage(least={"mask": 0.95, "charm": 0.0}, update_s=1.0)
    s.play(walk(20))
    events = s.events + s.tracks.end_all(s.time_s, "shutdown")
    assert {event.kind for event in events} == {"begin", "update", "end"}
    assert all(set(event.face.attributes) == {"charm"} for event in events)


def test_with_all_attributes_off_nothing_is_read() -> None:
    s = stage(attributes=frozenset())
    s.play(walk(30))
    assert s.reader.asked == []
    assert s.faces[0].attributes == {}
    assert s.faces[0].landmarks_106 is None


def test_without_an_analyzer_faces_are_tracked_all_the_same() -> None:
    tracks = camera_tracks(NoReader(), attributes=frozenset(), points=False)
    s = Stage(tracks)
    s.play(walk(5))
    assert s.kinds == ["begin"]
    assert [(face.track, face.attributes, face.landmarks_106) for face in s.faces] == [(1, {}, None)]


def test_the_points_head_is_no_attribute() -> None:
    s = stage(attributes=ALL | {"landmarks_106"})
    s.play(walk(5))
    assert s.faces[0].attributes.keys() == ALL


def test_readings_add_up() -> None:
    s = stage(policy=ReadingPolicy(refresh_s=0.5))
    s.play([fakes.faces((100, 150, 80))] * 2)
    s.reader.values["charm"] = np.array([0.9], np.float32)
    s.play([fakes.faces((100, 150, 80))] * 4)
    assert len(s.reader.asked) == 2
    assert s.faces[0].attributes["charm"].value == pytest.approx(0.7, abs=0.01)


def test_attributes_grow_older_until_they_are_read_again() -> None:
    s = stage(policy=ReadingPolicy(refresh_s=60.0))
    s.play([fakes.faces((100, 150, 80))] * 12)
    assert s.faces[0].attributes["charm"].age_s == pytest.approx(2)


def test_landmarks_are_read_in_every_frame_and_follow_the_face() -> None:
    s = stage(points=True, attributes=frozenset())
    seen = []
    for detections in walk(6):
        s.show(detections)
        if s.faces[0].landmarks_106 is not None:
            seen.append(s.faces[0].landmarks_106.mean(0) - detections.landmarks[0].mean(0))
    assert len(s.reader.asked) == 5
    assert len(seen) == 5
    np.testing.assert_allclose(seen, np.tile(seen[0], (5, 1)), atol=1e-3)


def test_landmarks_follow_a_face_that_is_not_read_anew() -> None:
    s = stage(points=True, attributes=frozenset(), policy=ReadingPolicy(max_faces=1))
    pair = [fakes.faces((100 + 5 * i, 150, 60), (400 + 5 * i, 150, 60)) for i in range(6)]
    s.play(pair)
    for face in s.faces:
        assert face.landmarks_106 is not None
        np.testing.assert_allclose(face.landmarks_106.mean(0) - face.shot.landmarks.mean(0), [1.05, 1.06], atol=0.01)


def test_landmarks_that_are_off_are_not_told() -> None:
    s = stage(points=False)
    s.play(walk(5))
    assert s.faces[0].landmarks_106 is None
