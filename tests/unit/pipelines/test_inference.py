"""The inference workers: batches in, faces out, and what becomes of batches that fail."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.manifest import Head
from visaged.models.preprocess import canvas_for
from visaged.models.search import Scales
from visaged.models.types import Detections, Image
from visaged.pipelines.attributes import Reading, Request
from visaged.pipelines.batcher import Batcher, Lane, WhenFull
from visaged.pipelines.images.decode import Decoded, PictureError
from visaged.pipelines.images.job import PictureJob, PictureQuery, PictureResult
from visaged.pipelines.inference import Inference
from visaged.pipelines.jobs import InferenceFailed, Overloaded
from visaged.pipelines.records import AttributeValue, FrameResult, TrackEvent
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.source.picture.canvases import CanvasPool
from visaged.pipelines.tracking.job import FrameStage
from visaged.pipelines.tracking.tracks import CameraTracks, TrackingSpec

CHARM = Head(name="charm", kind="score", output="charm")
POINTS = Head(name="landmarks_106", kind="points", output="points", count=106, memory_s=0)
NEVER = threading.Event()


@dataclass
class Rig:
    """Cameras a and b (files, so that nothing is dropped), a fake detector and a fake reader."""

    max_batch: int = 1
    close_up: Scales | None = None
    clock: fakes.Clock = field(default_factory=fakes.Clock)
    detector: fakes.Detector = field(default_factory=fakes.Detector)
    metrics: Metrics = field(default_factory=Metrics)
    results: list[FrameResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = fakes.Reader(CHARM, POINTS, values={"charm": [0.5], "landmarks_106": np.zeros((106, 2))})
        self.batcher = Batcher(self.max_batch, 0.0, 100, self.clock)
        self.on_result: Callable[[FrameResult], None] = self.results.append
        spec = TrackingSpec(attributes=frozenset({"charm"}))
        self.tracks = {name: CameraTracks(name, spec, self.reader) for name in ("a", "b")}
        self.lanes: dict[str, Lane] = {name: self.batcher.open_lane(WhenFull.WAIT, 100) for name in self.tracks}
        self.stages = {name: self._stage(tracks) for name, tracks in self.tracks.items()}
        self.inference = Inference(self.batcher, self.detector, self.reader, self.metrics, self.clock)  # type: ignore[arg-type]

    def offer(
        self,
        camera: str = "a",
        time_s: float = 1000.0,
        release: Callable[[], None] = lambda: None,
        **more: Any,
    ) -> None:
        frame = fakes.frame(time_s, camera, release=release, **more)
        assert self.lanes[camera].offer(self.stages[camera].job(frame), NEVER)

    def submit(
        self,
        attributes: frozenset[str] = frozenset(),
        min_confidence: float = 0.5,
        deadline_s: float = 2000.0,
        picture: Decoded | Callable[[], Decoded] | None = None,
    ) -> PictureJob:
        query = PictureQuery(min_confidence, attributes)
        # As large as the cameras' frames, on the same canvas.
        job = PictureJob(picture or decoded(), query, Scales(320, small=None), self.reader, deadline_s)
        self.batcher.submit(job)
        return job

    def run(self) -> None:
        """Serve all that waits."""
        while sum(self.batcher.waiting()):
            batch = self.batcher.take(0)
            assert batch, "a camera's last batch was not finished"
            self.inference._serve(batch)
        assert self.batcher.take(0) == []

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"visaged_{name}", labels) or 0.0

    def _stage(self, tracks: CameraTracks) -> FrameStage:
        counters = self.metrics.camera(tracks.camera)
        return FrameStage(
            tracks, counters, self.metrics, lambda result: self.on_result(result), self.close_up, self.clock
        )


def decoded(width: int = 640, height: int = 360, brightness: int = 0) -> Decoded:
    image: Image = np.full((height, width, 3), brightness, np.uint8)
    return Decoded(image, width, height, np.eye(2, 3))


def answer(picture: PictureJob) -> PictureResult:
    return picture.future.result(0)


def one_face(index: int = 0) -> Detections:
    return fakes.faces((100, 80, 40))


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_frame_becomes_faces_in_the_frames_pixels() -> None:
    rig = Rig()
    rig.detector.find = one_face
    for index in range(3):
        rig.offer(time_s=1000.0 + index / 5)
    rig.run()
    assert [len(result.faces) for result in rig.results] == [1, 1, 1]
    # The canvas is half the frame's size.
    np.testing.assert_allclose(rig.results[0].faces[0].shot.box, [160, 120, 240, 200], atol=1e-3)
    assert [[event.kind for event in result.events] for result in rig.results] == [[], ["begin"], []]
    assert rig.results[1].faces[0].attributes["charm"].value == 0.5
    assert len(rig.reader.asked) == 1
    assert rig.value("frames_analysed_total", camera="a") == 3
    assert rig.value("faces_detected_total", camera="a") == 3
    assert rig.value("tracks_begun_total", camera="a") == 1
    assert rig.value("batch_size_count", model="fake-detector") == 3


def test_frames_of_cameras_are_one_batch_and_keep_their_own_tracks() -> None:
    rig = Rig(max_batch=4)
    rig.detector.find = lambda index: one_face() if index == 1 else Detections.empty()
    for index in range(2):
        rig.offer("a", 1000 + index / 5)
        rig.offer("b", 1000 + index / 5)
    rig.run()
    assert [shape[0] for shape in rig.detector.batches] == [2, 2]
    assert [(result.frame.camera, len(result.faces)) for result in rig.results] == [("a", 0), ("b", 1)] * 2
    assert [event.camera for result in rig.results for event in result.events] == ["b"]


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (160, 120)])
def test_close_ups_are_searched_on_a_small_canvas_too(size: tuple[int, int]) -> None:
    rig = Rig(close_up=Scales(640))
    rig.offer(canvas=canvas_for(*size, 640), width=size[0], height=size[1])
    rig.run()
    assert [shape[0] for shape in rig.detector.batches] == [1, 1]
    assert [max(shape[1:3]) for shape in rig.detector.batches] == [640, 256]
    assert len(rig.results) == 1


def test_canvases_are_given_back_before_the_results_are_told() -> None:
    rig = Rig()
    order: list[str] = []
    rig.on_result = lambda result: order.append("result")
    rig.offer(release=lambda: order.append("released"))
    rig.run()
    assert order == ["released", "result"]


def test_times_are_taken_with_the_clock_that_was_given() -> None:
    rig = Rig()
    rig.clock.now_s = 1000.5

    def slow(index: int) -> Detections:
        rig.clock.advance(0.25)
        return Detections.empty()

    rig.detector.find = slow
    rig.offer(time_s=1000.0)
    rig.run()
    (result,) = rig.results
    assert (result.started_s, result.finished_s) == (1000.5, 1000.75)
    assert rig.value("inference_seconds_sum", model="fake-detector") == pytest.approx(0.25)
    assert rig.value("stage_seconds_sum", stage="inference") == pytest.approx(0.25)
    assert rig.value("stage_seconds_sum", stage="queue") == pytest.approx(0.48)
    assert rig.value("stage_seconds_sum", stage="decode") == pytest.approx(0.01)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_batch_that_fails_is_counted_and_passed() -> None:
    rig = Rig(max_batch=2)
    rig.detector.fail = True
    rig.offer("a", 1000.0)
    rig.offer("b", 1000.0)
    rig.run()
    assert rig.results == []
    assert rig.value("failed_batches_total") == 1
    assert rig.value("frames_dropped_total", camera="a", cause="failed") == 1
    assert rig.value("frames_dropped_total", camera="b", cause="failed") == 1
    rig.detector.fail = False
    rig.offer("a", 1000.2)
    rig.run()
    assert [result.frame.captured_s for result in rig.results] == [1000.2]
    assert rig.lanes["a"].idle()


def test_a_failing_analyzer_is_passed_too() -> None:
    rig = Rig()
    rig.detector.find = one_face
    rig.reader.fail = True
    for index in range(3):
        rig.offer(time_s=1000 + index / 5)
    rig.run()
    assert rig.value("failed_batches_total") == 2
    rig.reader.fail = False
    rig.offer(time_s=1000.6)
    rig.run()
    assert rig.results[-1].faces[0].attributes["charm"].value == 0.5


def test_networks_that_keep_failing_end_the_process() -> None:
    rig = Rig()
    rig.detector.fail = True
    for index in range(8):
        rig.offer(time_s=1000 + index)
    for _ in range(7):
        rig.inference._serve(rig.batcher.take(0))
    with pytest.raises(InferenceFailed, match=r"failed 8 times in a row: the detector broke"):
        rig.inference._serve(rig.batcher.take(0))
    assert rig.lanes["a"].idle()


def test_failures_now_and_then_do_not_add_up() -> None:
    rig = Rig()
    for index in range(40):
        rig.detector.fail = index % 8 != 7
        rig.offer(time_s=1000 + index)
        rig.run()
    assert rig.value("failed_batches_total") == 35
    assert len(rig.results) == 5


def test_failures_of_all_callers_add_up() -> None:
    rig = Rig()
    rig.detector.fail = True
    for index in range(12):
        rig.offer("ab"[index % 2], 1000 + index)
    stopping = threading.Event()
    ends: list[BaseException] = []

    def call() -> None:
        try:
            rig.inference.run(stopping)
        except InferenceFailed as error:
            ends.append(error)

    callers = [threading.Thread(target=call, daemon=True) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert not any(caller.is_alive() for caller in callers)
    assert 1 <= len(ends) <= 2


def test_a_picture_that_cannot_be_analysed_gets_an_answer() -> None:
    rig = Rig()
    rig.detector.fail = True
    picture = rig.submit()
    rig.run()
    with pytest.raises(InferenceFailed, match="could not be analysed"):
        picture.future.result(0)
    rig.detector.fail = False
    again = rig.submit()
    rig.run()
    assert again.future.result(0).faces == []


def test_a_failing_batch_fails_its_pictures_and_frames_together() -> None:
    rig = Rig(max_batch=3)
    rig.detector.fail = True
    rig.offer("a")
    pictures = [rig.submit(), rig.submit()]
    rig.run()
    assert all(isinstance(picture.future.exception(0), InferenceFailed) for picture in pictures)
    assert rig.value("failed_batches_total") >= 1
    assert rig.value("frames_dropped_total", camera="a", cause="failed") == 1


def kinds(rig: Rig, camera: str = "a") -> list[str]:
    return [event.kind for result in rig.results if result.frame.camera == camera for event in result.events]


def test_a_track_begins_though_the_analyzer_fails_in_the_frame_that_confirms_it() -> None:
    rig = Rig()
    rig.detector.find = one_face
    for index in range(3):
        rig.reader.fail = index == 1
        rig.offer(time_s=1000 + index / 5)
        rig.run()
    assert [[event.kind for event in result.events] for result in rig.results] == [[], ["begin"], []]
    assert [bool(result.faces[0].attributes) for result in rig.results] == [False, False, True]
    assert rig.value("failed_batches_total") == 1
    assert rig.value("frames_dropped_total", camera="a", cause="failed") == 0
    assert rig.value("tracks_begun_total", camera="a") == 1


def test_a_track_ends_though_the_analyzer_fails_in_the_frame_that_ends_it() -> None:
    rig = Rig()
    for index in range(20):
        rig.detector.find = one_face if index < 3 else lambda _: fakes.faces((250, 80, 40))
        rig.reader.fail = index in (12, 13, 14)  # the first face was last seen in frame 2, and lost_s is 2
        rig.offer(time_s=1000 + index / 5)
        rig.run()
    assert rig.value("failed_batches_total") >= 1
    assert kinds(rig) == ["begin", "begin", "end"]


def test_an_analyzer_that_keeps_failing_ends_the_process_with_its_reason() -> None:
    rig = Rig()
    rig.detector.find = one_face
    rig.reader.fail = True
    for index in range(9):
        rig.offer(time_s=1000 + index / 5)
    for _ in range(8):
        rig.inference._serve(rig.batcher.take(0))
    with pytest.raises(InferenceFailed, match=r"failed 8 times in a row: the analyzer broke"):
        rig.inference._serve(rig.batcher.take(0))
    assert len(rig.results) == 9
    assert kinds(rig) == ["begin"]


def test_an_analyzer_that_fails_costs_only_what_was_to_be_read() -> None:
    rig = Rig(max_batch=4)
    rig.detector.find = one_face
    for index in range(2):
        rig.reader.fail = index == 1
        rig.offer("a", 1000 + index / 5)
        plain, charm = rig.submit(), rig.submit(frozenset({"charm"}))
        rig.run()
    assert len(answer(plain).faces) == 1
    with pytest.raises(InferenceFailed, match="could not be analysed"):
        charm.future.result(0)
    assert kinds(rig) == ["begin"]


def test_a_picture_without_faces_needs_no_analyzer() -> None:
    rig = Rig()
    rig.reader.fail = True
    picture = rig.submit(frozenset({"charm"}))
    rig.run()
    assert picture.future.result(0).faces == []
    assert rig.value("failed_batches_total") == 0


def test_a_picture_that_the_detector_cannot_take_costs_nobody_else_anything() -> None:
    rig = Rig(max_batch=4)
    detect = rig.detector.detect

    def picky(canvases: np.ndarray[Any, Any]) -> list[Detections]:
        if canvases.max() > 0:
            raise ValueError("a bright picture")
        return detect(canvases)

    rig.detector.detect = picky  # type: ignore[method-assign]
    for index in range(10):
        rig.offer("a", 1000 + index)
        rig.offer("b", 1000 + index)
        good, bad = rig.submit(), rig.submit(picture=decoded(brightness=255))
        rig.run()
        assert good.future.result(0).faces == []
        assert isinstance(bad.future.exception(0), InferenceFailed)
    assert len(rig.results) == 20
    assert rig.value("failed_batches_total") == 10


def test_a_picture_that_the_analyzer_cannot_take_costs_nobody_else_anything() -> None:
    rig = Rig(max_batch=4)
    rig.detector.find = one_face
    read = rig.reader.read

    def picky(requests: Sequence[Request]) -> list[Reading]:
        if any(request.surface.width == 1280 for request in requests):
            raise ValueError("a wide picture")
        return read(requests)

    rig.reader.read = picky  # type: ignore[method-assign]
    for index in range(10):
        rig.offer("a", 1000 + index / 5)
        good = rig.submit(frozenset({"charm"}))
        bad = rig.submit(frozenset({"charm"}), picture=decoded(1280, 720))
        rig.run()
        assert answer(good).faces[0].attributes
        assert isinstance(bad.future.exception(0), InferenceFailed)
    assert rig.results[-1].faces[0].attributes


def test_an_output_that_fails_for_one_camera_costs_the_others_nothing() -> None:
    rig = Rig(max_batch=2)
    rig.detector.find = one_face

    def broken(result: FrameResult) -> None:
        if result.frame.camera == "a":
            raise ValueError("a bug")
        rig.results.append(result)

    rig.on_result = broken
    for index in range(20):
        rig.offer("a", 1000 + index / 5)
        rig.offer("b", 1000 + index / 5)
    rig.run()
    assert len(rig.results) == 20
    assert kinds(rig, "b").count("begin") == 1
    assert rig.value("output_errors_total", camera="a") == 20
    assert rig.value("output_errors_total", camera="b") == 0
    assert rig.value("frames_analysed_total", camera="a") == 20
    assert rig.value("frames_dropped_total", camera="a", cause="failed") == 0
    assert rig.value("failed_batches_total") == 0
    assert rig.lanes["a"].idle()


@pytest.mark.parametrize("step", ["observe", "conclude"])
def test_what_fails_for_one_camera_costs_the_others_nothing(step: str) -> None:
    rig = Rig(max_batch=3)
    rig.detector.find = one_face

    def broken(*_: object) -> None:
        raise ValueError("a bug")

    setattr(rig.tracks["a"], step, broken)
    for index in range(20):
        rig.offer("a", 1000 + index / 5)
        rig.offer("b", 1000 + index / 5)
        picture = rig.submit()
        rig.run()
        assert len(answer(picture).faces) == 1
    assert [result.frame.camera for result in rig.results] == ["b"] * 20
    assert rig.value("frames_dropped_total", camera="a", cause="failed") == 20
    assert rig.value("frames_analysed_total", camera="a") == 0
    assert rig.value("failed_batches_total") == 0


@pytest.mark.parametrize("step", ["start", "looks", "release", "observe", "conclude"])
def test_what_a_job_raises_costs_that_job_alone(step: str) -> None:
    rig = Rig(max_batch=3)
    for _ in range(20):
        jobs = [fakes.Job() for _ in range(3)]
        jobs[1].broken = step
        for job in jobs:
            rig.batcher.submit(job)
        rig.run()
        whole = ["start", "looks", "release", "observe", "conclude"]
        assert jobs[0].steps == jobs[2].steps == whole
        assert jobs[1].steps == [*whole[: whole.index(step) + 1], "fail"]
    # Such a job is no reason to think that the networks are broken.
    assert rig.value("failed_batches_total") == 0


def test_an_end_comes_out_later_where_concluding_its_frame_failed() -> None:
    rig = Rig()
    tracks = rig.tracks["a"]
    face = tracks._face
    for index in range(20):
        rig.detector.find = one_face if index < 3 else lambda _: fakes.faces((250, 80, 40))
        broken = 10 < index < 16  # the first face is lost in between
        tracks._face = (lambda *_: 1 / 0) if broken else face  # type: ignore[assignment, method-assign]
        rig.offer(time_s=1000 + index / 5)
        rig.run()
    assert kinds(rig) == ["begin", "begin", "end"]
    assert rig.value("frames_dropped_total", camera="a", cause="failed") == 5


def test_an_end_does_not_overtake_its_begin() -> None:
    """A camera is removed in the moment between the making of a `begin` and its being handed on."""
    rig = Rig()
    rig.detector.find = one_face
    stage, told = rig.stages["a"], list[str]()
    threads = fakes.Threads()
    closing: list[Future[None]] = []

    def close() -> None:
        told.extend(f"{event.kind} {event.reason}" for event in stage.close(1000.3, "removed"))

    def on_result(result: FrameResult) -> None:
        if result.events:
            closing.append(threads.submit(close))
            with pytest.raises(TimeoutError):
                closing[0].result(0.2)
        told.extend(event.kind for event in result.events)

    rig.on_result = on_result
    for index in range(3):
        rig.offer(time_s=1000 + index / 5)
    rig.run()
    closing[0].result(20)
    assert told == ["begin", "end removed"]


def test_a_camera_that_was_removed_has_no_more_results() -> None:
    rig = Rig()
    released: list[int] = []

    def find(index: int) -> Detections:
        if len(rig.detector.batches) == 3:  # while a frame of it is computed
            ends.extend(rig.stages["a"].close(1000.4, "removed"))
        return one_face()

    ends: list[TrackEvent] = []
    rig.detector.find = find
    for index in range(4):
        rig.offer(time_s=1000 + index / 5, release=lambda index=index: released.append(index))
    rig.run()
    assert [(event.kind, event.reason) for event in ends] == [("end", "removed")]
    assert len(rig.results) == 2
    assert released == [0, 1, 2, 3]
    assert rig.value("frames_analysed_total", camera="a") == 2
    assert rig.value("frames_dropped_total", camera="a", cause="removed") == 2
    assert rig.tracks["a"].present() == 0


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_picture_tells_what_was_asked_for() -> None:
    rig = Rig()
    rig.detector.find = one_face
    plain, charm, points = rig.submit(), rig.submit(frozenset({"charm"})), rig.submit(frozenset({"landmarks_106"}))
    rig.run()
    (face,) = answer(plain).faces
    assert (face.track, dict(face.attributes), face.landmarks_106) == (None, {}, None)
    np.testing.assert_allclose(face.shot.box, [160, 120, 240, 200], atol=1e-3)
    (face,) = answer(charm).faces
    assert face.attributes == {"charm": AttributeValue(0.5, face.shot.quality, age_s=0.0, is_score=True)}
    assert face.landmarks_106 is None
    (face,) = answer(points).faces
    assert face.attributes == {}
    assert face.landmarks_106 is not None
    assert face.landmarks_106.shape == (106, 2)
    assert len(rig.reader.asked) == 2  # nothing is read for the first


def test_every_picture_has_its_own_least_confidence() -> None:
    rig = Rig(max_batch=4)
    rig.detector.find = lambda index: fakes.faces((60, 80, 40, 0, 0.9), (160, 80, 40, 0, 0.5), (260, 80, 40, 0, 0.2))
    pictures = [rig.submit(min_confidence=least) for least in (0.1, 0.5, 0.95)]
    rig.run()
    assert [len(answer(picture).faces) for picture in pictures] == [3, 2, 0]


def test_attributes_go_to_the_faces_they_belong_to() -> None:
    rig = Rig(max_batch=4)
    rig.detector.find = lambda index: fakes.faces(*[(40 + 60 * n, 80, 40) for n in range(index + 1)])
    pictures = [rig.submit(frozenset({"charm"}) if n != 1 else frozenset()) for n in range(3)]
    rig.run()
    assert [len(answer(picture).faces) for picture in pictures] == [1, 2, 3]
    assert [[len(face.attributes) for face in answer(picture).faces] for picture in pictures] == [
        [1],
        [0, 0],
        [1, 1, 1],
    ]
    assert len(rig.reader.asked) == 4


def test_a_worker_decodes_what_is_not_decoded_yet() -> None:
    rig = Rig()
    threads: list[int] = []

    def decode() -> Decoded:
        threads.append(threading.get_ident())
        return decoded(400, 300)

    good, bad = rig.submit(picture=decode), rig.submit(picture=lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    rig.run()
    assert threads == [threading.get_ident()]
    assert answer(good) == PictureResult(400, 300, [])
    # What is wrong with a picture is its own answer, and no failure of the networks.
    with pytest.raises(ZeroDivisionError):
        bad.future.result(0)
    assert rig.value("failed_batches_total") == 0


def test_a_picture_whose_time_is_over_is_not_computed() -> None:
    rig = Rig()
    late = rig.submit(deadline_s=999.0)
    rig.run()
    assert isinstance(late.future.exception(0), Overloaded)
    assert rig.detector.batches == []
    assert rig.value("failed_batches_total") == 0


def test_a_picture_that_nobody_waits_for_is_not_computed() -> None:
    rig = Rig()
    picture = rig.submit()
    assert picture.future.cancel()
    rig.run()
    with pytest.raises(CancelledError):
        picture.future.result(0)
    assert rig.detector.batches == []


def test_the_others_of_a_batch_are_computed_all_the_same() -> None:
    rig = Rig(max_batch=4)
    gone, late, wanted = rig.submit(), rig.submit(deadline_s=1.0), rig.submit()
    gone.future.cancel()
    rig.offer("a")
    rig.run()
    assert wanted.future.result(0).faces == []
    assert isinstance(late.future.exception(0), Overloaded)
    assert len(rig.results) == 1
    assert sum(shape[0] for shape in rig.detector.batches) == 2


def test_a_picture_cannot_be_cancelled_once_it_is_computed() -> None:
    rig = Rig()
    picture = rig.submit()

    def find(index: int) -> Detections:
        assert not picture.future.cancel()
        return Detections.empty()

    rig.detector.find = find
    rig.run()
    assert picture.future.result(0).faces == []


@pytest.mark.parametrize("fault", ["", "detector", "analyzer", "decoding", "late"])
def test_a_picture_that_is_done_is_in_nobodys_memory(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # what pytest remembers of the log holds the errors
    rig = Rig()
    rig.detector.find = one_face
    rig.detector.fail, rig.reader.fail = fault == "detector", fault == "analyzer"
    pixels: list[weakref.ref[Image]] = []

    def decode() -> Decoded:
        picture = decoded()
        pixels.append(weakref.ref(picture.image))
        if fault == "decoding":
            raise PictureError("damaged", "cut short")
        return picture

    gc.disable()
    try:
        job = rig.submit(frozenset({"charm"}), picture=decode, deadline_s=999.0 if fault == "late" else 2000.0)
        future, held = job.future, weakref.ref(job)
        del job
        rig.run()
        assert held() is None
        assert (future.exception(0) is None) == (fault == "")
        del future
        rig.reader.asked.clear()
        assert [one() for one in pixels] == ([] if fault == "late" else [None])
    finally:
        gc.enable()


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_a_caller_ends_when_asked_to_and_nothing_is_left() -> None:
    rig = Rig()
    for index in range(5):
        rig.offer(time_s=1000 + index)
    picture = rig.submit()
    stopping = threading.Event()
    caller = threading.Thread(target=rig.inference.run, args=(stopping,), daemon=True)
    caller.start()
    assert picture.future.result(20).faces == []
    stopping.set()
    rig.batcher.close()
    caller.join(20)
    assert not caller.is_alive()
    assert rig.batcher.waiting() == (0, 0)


def test_a_pool_gives_the_same_canvas_again() -> None:
    pool = CanvasPool(fakes.SMALL)
    first = pool.take()
    second = pool.take()
    assert first is not second
    assert first.shape == (fakes.SMALL.height, fakes.SMALL.width, 3)
    pool.give(first)
    assert pool.take() is first
