"""Stand-ins for the daemon's own parts, and real faces to test with."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from visaged.models import geometry
from visaged.models.manifest import Head
from visaged.models.preprocess import Canvas, canvas_for
from visaged.models.search import Look
from visaged.models.surface import ImageSurface
from visaged.models.types import Detections, FloatArray, Image
from visaged.pipelines.attributes import Reading, Request
from visaged.pipelines.jobs import DropCause
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.records import Frame

DEMO = Path(__file__).parents[2] / "daemon" / "demo" / "demo.mp4"
TWO_FACES_S = 6.0
"""A moment of the demo at which two faces are fully in the picture."""
TWO_FACES = [(398, 237, 505, 377), (1088, 234, 1243, 431)]
"""Where they are then, left to right."""

ANALYZER: dict[str, Any] = {
    "name": "foreign",
    "task": "analyzer",
    "file": "foreign.onnx",
    "sha256": "0" * 64,
    "version": "1",
    "date": "2026-01-01",
    "licence": "MIT",
    "training_data": [],
    "accuracy": {},
}
"""What a manifest's entry says of any analyzer; its input and its heads are to be added."""

SMALL = canvas_for(640, 360, 320)
TALL = canvas_for(360, 640, 320)


class Clock:
    """A clock that only tests move."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@functools.cache
def demo_frame(at_s: float) -> av.VideoFrame:
    """Return the frame of the demo clip that is shown at a time."""
    with av.open(DEMO) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        container.seek(int(at_s / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            assert frame.time is not None
            if frame.time >= at_s - 1e-6:
                return frame
    raise AssertionError(f"the demo clip has no frame at {at_s} s")


@functools.cache
def demo_image(at_s: float) -> Image:
    """Return the same as (720, 1280, 3) uint8 BGR; not to be written to."""
    image: Image = demo_frame(at_s).to_ndarray(format="bgr24")  # type: ignore[assignment]
    image.flags.writeable = False
    return image


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Return the (3, 3) rotation of a head with these angles in degrees, in the geometry module's axes.

    Built from the words of `HeadPose` alone: where the face looks, and then a turn about that direction.
    """
    y, p, r = (math.radians(angle) for angle in (yaw, pitch, roll))
    looks = np.array([math.sin(y) * math.cos(p), -math.sin(p), -math.cos(y) * math.cos(p)])
    right = np.array([math.cos(y), 0.0, math.sin(y)])
    level = np.stack([right, np.cross(-looks, right), -looks], 1)
    turn = np.array([[math.cos(r), -math.sin(r), 0], [math.sin(r), math.cos(r), 0], [0, 0, 1]])
    return level @ turn


def five_points(x: float, y: float, size: float, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> FloatArray:
    """Return the five points (5, 2) of an average head of `size` px around (x, y)."""
    points = geometry._MODEL_5 @ rotation(yaw, pitch, roll).T
    flat = (points - points.mean(0))[:, :2] * (size / 16.0) + (x, y)
    return flat.astype(np.float32)


def faces(*seen: tuple[float, ...], confidence: float = 0.9) -> Detections:
    """Return faces given as (centre x, centre y, size[, yaw[, confidence]])."""
    boxes, confidences, landmarks = [], [], []
    for x, y, size, *more in seen:
        boxes.append((x - size / 2, y - size / 2, x + size / 2, y + size / 2))
        landmarks.append(five_points(x, y, size, more[0] if more else 0.0))
        confidences.append(more[1] if len(more) > 1 else confidence)
    if not seen:
        return Detections.empty()
    return Detections(np.array(boxes, np.float32), np.array(confidences, np.float32), np.stack(landmarks))


def frame(
    time_s: float = 1000.0,
    camera: str = "door",
    *,
    stream: int = 1,
    canvas: Canvas = SMALL,
    image: Image | None = None,
    width: int = 640,
    height: int = 360,
    position_s: float | None = None,
    presentation: Presentation | None = None,
    release: Callable[[], None] = lambda: None,
) -> Frame:
    """Return a frame captured at a time; its wall clock is the same plus 1.7e9 s."""
    return Frame(
        camera=camera,
        stream=stream,
        canvas=canvas,
        image=canvas.blank() if image is None else image,
        surface=ImageSurface(np.zeros((height, width, 3), np.uint8)),
        presentation=Presentation(width, height) if presentation is None else presentation,
        captured_s=time_s,
        motion_s=time_s,
        captured_at=1.7e9 + time_s,
        clock="arrival",
        arrived_s=time_s + 0.01,
        ready_s=time_s + 0.02,
        position_s=position_s,
        release=release,
    )


class Job:
    """A job on a canvas; notes what is done with it in `steps`, and raises in the step `broken`.

    Args:
        name: What it is of.
        time_s: When it was captured.
        canvas: What is searched; None where it is not known yet.
        is_large: Whether it is searched alone.
        on_drop: Called with this job and the cause when it is dropped.
    """

    def __init__(
        self,
        name: str = "picture",
        time_s: float = 0.0,
        canvas: Canvas | None = SMALL,
        is_large: bool = False,
        on_drop: Callable[[Job, DropCause], None] = lambda job, cause: None,
    ) -> None:
        self.name, self.time_s, self.is_large = name, time_s, is_large
        self.steps: list[str] = []
        self.broken = ""
        self._canvas = canvas
        self._on_drop = on_drop

    @property
    def shape(self) -> tuple[int, int] | None:
        return None if self._canvas is None else (self._canvas.height, self._canvas.width)

    def start(self, now_s: float) -> bool:
        self._step("start")
        return True

    def looks(self) -> Sequence[Look]:
        self._step("looks")
        canvas = self._canvas or SMALL
        return [Look(canvas.blank(), canvas)]

    def release(self) -> None:
        self._step("release")

    def observe(self, found: Detections) -> Sequence[Request]:
        self._step("observe")
        return []

    def conclude(self, readings: Sequence[Reading] | None, started_s: float) -> None:
        self._step("conclude")

    def fail(self) -> None:
        self._step("fail")

    def drop(self, cause: DropCause) -> None:
        self._step(f"drop: {cause}")
        self._on_drop(self, cause)

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.broken:
            raise ValueError(f"a bug in {name}")


class Threads:
    """Runs calls in threads of their own, which do not keep a failed test from ending."""

    def submit(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(call(*args))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future


class Reader:
    """Tells every face the same: `values`, with the heads given; notes what it was asked."""

    def __init__(self, *heads: Head, values: Mapping[str, Sequence[Any]] | None = None) -> None:
        self.heads: Mapping[str, Head] = {head.name: head for head in heads}
        self.values = {name: np.array(value, np.float32) for name, value in (values or {}).items()}
        self.asked: list[Request] = []
        self.fail = False

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        if self.fail:
            raise RuntimeError("the analyzer broke")
        self.asked += requests
        return [Reading(dict(self.values), np.eye(2, 3), request.quality) for request in requests]

    def points(self, reading: Reading, landmarks: FloatArray) -> FloatArray | None:
        """Return 106 points around the middle of the five."""
        if not any(head.kind == "points" for head in self.heads.values()):
            return None
        return landmarks.mean(0) + np.arange(212, dtype=np.float32).reshape(106, 2) / 100


class Detector:
    """Finds what `find` says, on the canvas; fails while `fail` is set."""

    name = "fake-detector"
    provider = "cpu"
    nms_iou = 0.45
    multiple_of = 32
    longest_batch = 16

    def __init__(self, find: Callable[[int], Detections] = lambda index: Detections.empty()) -> None:
        self.find = find
        self.fail = False
        self.batches: list[tuple[int, ...]] = []

    def detect(self, canvases: Image) -> list[Detections]:
        self.batches.append(canvases.shape)
        if self.fail:
            raise RuntimeError("the detector broke")
        return [self.find(index) for index in range(len(canvases))]


class Session:
    """A network that returns what it is told to: `outputs` maps names to a function of the batch."""

    provider = "cpu"
    precision = None
    on_gpu = False

    def __init__(self, inputs: Sequence[str], outputs: Mapping[str, Callable[[Image], NDArray[Any]]]) -> None:
        self.inputs: dict[str, list[int | str | None]] = {name: [] for name in inputs}
        self.outputs = list(outputs)
        self._results = outputs
        self.batches: list[int] = []

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        (batch,) = inputs.values()
        self.batches.append(len(batch))
        return [np.asarray(self._results[name](batch), np.float32) for name in outputs]
