"""Live pictures are made while somebody looks, once for all who want the same, no more often than wanted."""

from __future__ import annotations

import dataclasses
import gc
import json
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.preprocess import canvas_for
from visaged.models.surface import ImageSurface
from visaged.models.types import Image
from visaged.pipelines.live.drawing import draw_faces, label
from visaged.pipelines.live.pace import Pace
from visaged.pipelines.live.picture import WIDTHS, Picture, View, canvas_of, wide_enough
from visaged.pipelines.live.pictures import LivePictures, Watch
from visaged.pipelines.live.pulse import Pulse
from visaged.pipelines.pictures.recent import RecentFaces
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.records import AttributeValue, Face, Frame, FrameResult, Shot
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.source.picture.surface import VideoSurface

VIEW = View(320, False)
BOX = (100.0, 80.0, 180.0, 180.0)


def result_of(camera: str = "door", at_s: float = 100.0, *boxes: tuple[float, ...], surface: Any = None) -> FrameResult:
    surface = surface or ImageSurface(np.full((360, 640, 3), 90, np.uint8))
    canvas = canvas_for(surface.width, surface.height, 320)
    found = np.array(boxes, np.float32).reshape(-1, 4)
    frame = Frame(
        camera, 1, canvas, canvas.blank(), surface, Presentation(surface.width, surface.height), at_s, at_s, 1e9 + at_s,
        "arrival", at_s, at_s, None, lambda: None,
    )  # fmt: skip
    shots = [Shot(frame.captured_at, box, np.zeros((5, 2), np.float32), 0.9, 0.9) for box in found]
    return FrameResult(frame, [Face(shot, 7) for shot in shots], [], at_s, at_s + 0.05, found)


class Studio:
    """Live pictures with a thread, a clock that does not move by itself, and what each viewer got."""

    def __init__(self, blur: bool = False) -> None:
        self.clock = fakes.Clock(100.0)
        self.metrics = Metrics()
        self.live = LivePictures(self.metrics, blur, cores=8, clock=self.clock)
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self.got: dict[str, list[Picture]] = {}
        self.removed: list[str] = []
        self.thread = threading.Thread(target=self.live.run, args=(self.stopping,), daemon=True)
        self.thread.start()

    def look(self, name: str, cameras: tuple[str, ...] | None = ("door",), fps: float = 10.0, **more: Any) -> Watch:
        def take(picture: Picture) -> None:
            with self._changed:
                self.got[name].append(picture)
                self._changed.notify_all()

        view = more.pop("view", VIEW)
        chosen = None if cameras is None else frozenset(cameras)
        watch = Watch(chosen, view, 1 / fps, take, self.removed.append, **more)
        self.got[name] = []
        self.live.add(watch)
        return watch

    def wait(self, **counts: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: all(len(self.got[n]) >= c for n, c in counts.items()), 20), self.got

    def made(self, camera: str = "door") -> float:
        return self.metrics.registry.get_sample_value("visaged_live_pictures_total", {"camera": camera}) or 0.0


@pytest.fixture
def studio() -> Iterator[Studio]:
    running = Studio()
    yield running
    running.stopping.set()
    running.thread.join(10)
    assert not running.thread.is_alive()


def test_one_picture_for_all_who_want_the_same(studio: Studio) -> None:
    for name in "abc":
        studio.look(name)
    studio.look("other", view=View(160, True))
    studio.live(result_of())
    studio.wait(a=1, b=1, c=1, other=1)
    assert studio.got["a"][0] is studio.got["b"][0] is studio.got["c"][0]
    assert studio.made() == 2


def test_nothing_is_kept_where_nobody_looks(studio: Studio) -> None:
    watch = studio.look("a")
    results = [result_of("yard"), result_of("door")]
    kept = [weakref.ref(result.frame.surface) for result in results]
    for result in results:
        studio.live(result)
    studio.wait(a=1)
    del results, result
    until_gone(kept)
    studio.live.remove(watch)
    studio.live.remove(watch)
    last = result_of()
    gone = [weakref.ref(last.frame.surface)]
    studio.live(last)
    del last
    until_gone(gone)
    assert studio.made() == 1


def until_gone(references: list[weakref.ref[Any]]) -> None:
    never = threading.Event()
    for _ in range(500):
        gc.collect()
        if all(reference() is None for reference in references):
            return
        never.wait(0.01)
    raise AssertionError("a picture is still held")


def test_the_fastest_viewer_says_how_many_are_made_and_each_gets_his_own_rate(studio: Studio) -> None:
    studio.look("fast", fps=5)
    studio.look("slow", fps=1)
    studio.look("every", fps=1000, view=View(160, False))
    for turn in range(50):  # 25 frames a second for 2 s
        studio.live(result_of(at_s=studio.clock.now_s))
        studio.wait(every=turn + 1)  # what is due of a frame is decided at once for all
        studio.clock.advance(0.04)
    studio.wait(fast=10, slow=2)
    assert len(studio.got["fast"]) in (10, 11)
    assert len(studio.got["slow"]) in (2, 3)
    assert studio.made() == 50 + len(studio.got["fast"])


def test_all_cameras_are_those_that_come_later_too(studio: Studio) -> None:
    studio.look("a", cameras=None)
    for camera in ("door", "yard"):
        studio.live(result_of(camera))
    studio.wait(a=2)
    assert {picture.camera for picture in studio.got["a"]} == {"door", "yard"}


def test_one_picture_is_enough_for_a_snapshot(studio: Studio) -> None:
    studio.look("a", once=True)
    studio.look("b", fps=30)
    for _ in range(2):
        studio.live(result_of())
        studio.wait(b=len(studio.got["b"]) + 1)
        studio.clock.advance(1)
    assert len(studio.got["a"]) == 1


def test_a_camera_that_is_removed(studio: Studio) -> None:
    studio.look("a")
    studio.look("b", cameras=None)
    studio.live.forget("door")
    assert studio.removed == ["door"], "who looks at all cameras goes on"


def test_a_frame_that_fails_does_not_end_the_others(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ImageSurface):
        def picture(self, canvas: Any) -> Image:
            raise ValueError("no pixels")

    studio.look("a", cameras=None)
    studio.live(result_of("door", surface=Broken(np.zeros((36, 64, 3), np.uint8))))
    studio.live(result_of("yard"))
    studio.wait(a=1)
    assert studio.got["a"][0].camera == "yard"
    assert "no live picture of a frame of camera door: ValueError: no pixels" in caplog.text


def test_a_face_that_one_frame_misses_stays_blurred() -> None:
    studio = Studio(blur=True)
    noise = np.random.default_rng(1).integers(0, 256, (360, 640, 3), np.uint8)
    studio.live(result_of("door", 100.0, BOX))  # before anybody looks
    studio.look("a", view=View(640, False))
    for number, (at_s, is_blurred) in enumerate([(100.5, True), (101.5, False)], 1):
        studio.clock.now_s = at_s
        studio.live(result_of("door", at_s, surface=ImageSurface(noise)))
        studio.wait(a=number)
        jpeg = np.frombuffer(studio.got["a"][-1].jpeg, np.uint8)
        face = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[80:180, 100:180].astype(int)  # type: ignore[index]
        assert bool(np.abs(np.diff(face, axis=1)).mean() < 5) is is_blurred
    studio.stopping.set()


def test_what_is_too_unsure_to_be_a_face_is_hidden_too() -> None:
    recent = RecentFaces()
    result = dataclasses.replace(result_of("door", 100.0, BOX), faces=[])
    recent.note(result)
    assert len(recent.boxes(result)) == 1
    for step in range(1, 26):  # at rest, it is one box, and not one for every frame
        result = result_of("door", 100 + step / 25, BOX)
        recent.note(result)
    assert len(recent.boxes(result)) == 1
    moved = result_of("door", 101.2, (300, 80, 380, 180))
    assert len(recent.boxes(moved)) == 2
    assert len(recent.boxes(result_of("door", 50.0))) == 0, "a recording begins again"
    recent.forget("door")
    assert len(recent.boxes(result_of("door", 101.0))) == 0


def test_the_document_has_boxes_in_stored_pixels() -> None:
    studio = Studio()
    studio.look("a")
    frame = fakes.demo_frame(fakes.TWO_FACES_S)
    squeezed = Presentation(frame.width, frame.height, stored_aspect=4 / 3)
    result = result_of("door", 100.0, BOX, surface=VideoSurface(frame, squeezed))
    shot = dataclasses.replace(result.faces[0].shot, scale=squeezed.scale)
    frame_record = dataclasses.replace(result.frame, presentation=squeezed)
    studio.live(dataclasses.replace(result, frame=frame_record, faces=[Face(shot, 7)]))
    studio.wait(a=1)
    document = json.loads(studio.got["a"][0].document)
    assert document["picture"] == {"width": 320, "height": 134}
    assert document["faces"][0]["box"] == pytest.approx([75, 80, 135, 180], abs=0.2)
    studio.stopping.set()


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [
        ((1920, 1080), 640, (640, 360)),
        ((641, 361), 3840, (640, 360)),
        ((1, 1), 160, (2, 2)),
        ((3000, 4000), 3840, (2880, 3840)),
        ((100, 65535), 160, (6, 3840)),
        ((65535, 10), 160, (160, 2)),
        ((1080, 1920), 320, (320, 568)),
    ],
)
def test_sizes(size: tuple[int, int], width: int, expected: tuple[int, int]) -> None:
    canvas = canvas_of(*size, width)
    assert (canvas.width, canvas.height) == expected
    image = ImageSurface(np.zeros((size[1], size[0], 3), np.uint8)).picture(canvas)
    assert image.shape[1::-1] == expected


def test_steps_of_width() -> None:
    assert [wide_enough(width) for width in (1, 64, 160, 161, 3840, 9999)] == [160, 160, 160, 320, 3840, WIDTHS[-1]]


def test_live_pictures_have_true_colours() -> None:
    frame = fakes.demo_frame(fakes.TWO_FACES_S)
    assert int(frame.colorspace) == 1, "BT.709"
    surface = VideoSurface(frame)
    image = surface.picture(canvas_of(frame.width, frame.height, 640))
    exact = cv2.resize(fakes.demo_image(fakes.TWO_FACES_S), (640, 360), interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - exact).mean() < 3


@pytest.mark.parametrize(
    "box",
    [
        (-50, -50, 10, 10),
        (600, 340, 900, 500),
        (0, 0, 640, 360),
        (300, 0, 340, 5),
        (5, 5, 5, 5),
        (900, 900, 1000, 1000),
    ],
)
@pytest.mark.parametrize("size", [(640, 360), (160, 90), (2, 2), (16, 2)])
def test_boxes_at_any_place_are_drawn(box: tuple[float, ...], size: tuple[int, int]) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    draw_faces(image, result_of("door", 1.0, box).faces, (1.0, 1.0))
    assert image.any()


def test_labels_are_short_and_ascii() -> None:
    face = result_of("door", 1.0, BOX).faces[0]
    assert label(face) == "7"
    attributes = {"age": AttributeValue(30.4, 0.5), "emotion": AttributeValue("fröhlich", 0.9)}
    assert label(dataclasses.replace(face, attributes=attributes)) == "7 ~30 fr?hlich"
    assert label(dataclasses.replace(face, track=None)) == ""


def test_pace_lets_uneven_frames_through_and_no_more_than_wanted() -> None:
    def passed(times: list[float], interval_s: float) -> int:
        pace, count = Pace(), 0
        for now_s in times:
            if pace.wait_s(now_s, interval_s) <= 0:
                pace.passed(now_s, interval_s)
                count += 1
        return count

    uneven = [index / 5 + (0.04 if index % 2 else 0.0) for index in range(100)]
    assert passed(uneven, 0.2) == 100
    assert passed([index / 25 for index in range(250)], 0.2) in (50, 51)
    assert passed([index / 5 for index in range(50)], 10.0) in (1, 2)


def test_pulse_counts_the_last_ten_seconds() -> None:
    clock = fakes.Clock(100.0)
    pulse = Pulse(clock)
    assert pulse.of("door").document() == {"analysed_fps": 0.0, "age_ms": None, "last_face_at": None}
    for step in range(100):
        pulse(result_of("door", 100 + step / 5, *([BOX] if step == 50 else [])))
    clock.now_s = 120.0
    beat = pulse.of("door")
    assert beat.analysed_fps == pytest.approx(5.0, abs=0.2)
    assert beat.age_s == pytest.approx(0.05)
    assert beat.face_at == pytest.approx(1e9 + 110)
    clock.now_s = 125.0
    assert pulse.of("door").analysed_fps == pytest.approx(2.5, abs=0.2)
    clock.now_s = 1000.0
    assert pulse.of("door").analysed_fps == 0
    pulse.forget("door")
    assert pulse.of("door").age_s is None


def test_pulse_of_a_fast_recording_and_of_the_first_moments() -> None:
    clock = fakes.Clock(100.5)
    pulse = Pulse(clock)
    pulse(result_of("door", 100.4))
    assert pulse.of("door").analysed_fps == 1.0
    for step in range(5000):
        pulse(result_of("door", 100.5 + step / 500))
    clock.now_s = 110.55
    assert pulse.of("door").analysed_fps == pytest.approx(500, rel=0.03)
