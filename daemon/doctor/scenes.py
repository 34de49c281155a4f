"""Searches the frames that a camera's sampler keeps, and measures light and blur; no picture is kept."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.daemon.doctor.report import Faces, Light
from visaged.models.detector import Detector
from visaged.models.geometry import blur
from visaged.models.search import Look, Scales, find
from visaged.models.surface import DeviceCanvas
from visaged.models.types import Detections, FloatArray
from visaged.pipelines.records import Frame

_CROP = 112
"""Pixels: what the analyzer sees of a face."""
_SHARP_FROM_PX = 60.0
"""Height of a face below which it is blurred by being enlarged, whatever the camera does."""
_COMPARE_S = 1.5
"""A closer look takes some five times as long as one of the usual ones; seconds between two."""
_DARK, _BRIGHT = 20, 250
"""Grey values, 0..255, at and below or above which nothing can be told apart: 8 and 98 %."""
_SAME_IOU = 0.3
_FILLS = 0.4
"""Height of a face relative to the picture from which it counts as a large one."""


@dataclass
class _Seen:
    """What was seen so far; lists have one value for each searched frame, or face."""

    searched: int = 0
    with_faces: int = 0
    heights: list[float] = field(default_factory=list)
    blurs: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    darks: list[float] = field(default_factory=list)
    brights: list[float] = field(default_factory=list)
    compared: int = 0
    compared_faces: int = 0
    missed_small: int = 0
    missed_large: int = 0
    detect_s: list[float] = field(default_factory=list)


class Scenes:
    """A thread that searches frames.

    Args:
        detector: The network.
        long_side: Long side of the canvas of the frames, in pixels.
        close_up: Whether frames are searched on smaller canvases too.
        min_confidence: Smallest confidence of a face; None for the detector's own threshold.

    Attributes:
        busy_s: Processor time that the thread has used.
        failure: What ended it; None if nothing did.
    """

    def __init__(self, detector: Detector, long_side: int, close_up: bool, min_confidence: float | None) -> None:
        self.detector = detector
        self._least = detector.face_threshold if min_confidence is None else min_confidence
        self._closely = Scales.of(detector, long_side, 2 * long_side)
        self._close_up = Scales.of(detector, long_side) if close_up else None
        self._frames: queue.Queue[Frame] = queue.Queue(maxsize=1)
        self._seen = _Seen()
        self._compared_s = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="doctor scenes", daemon=True)
        self.busy_s = 0.0
        self.failure: Exception | None = None
        self._thread.start()

    def take(self, frame: Frame, waits: bool, stopping: threading.Event) -> None:
        """Search a frame; while another one is searched it is left out, or waited with."""
        while not stopping.is_set():
            with contextlib.suppress(queue.Full):
                self._frames.put(frame, timeout=0.1 if waits else None, block=waits)
                return
            if not waits:
                break
        frame.release()

    def stop(self, timeout_s: float) -> None:
        """Finish the frame that is being searched."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                with contextlib.suppress(queue.Empty):
                    frame = self._frames.get(timeout=0.1)
                    try:
                        self._search(frame)
                    finally:
                        frame.release()
                self.busy_s = time.thread_time()
        except Exception as error:
            self.failure = error

    def _search(self, frame: Frame) -> None:
        seen, shown = self._seen, frame.presentation
        look = Look(frame.image, frame.canvas)
        now = time.monotonic if self.detector.on_gpu else time.thread_time
        began_s = now()
        looks = [look]
        if self._close_up is not None:
            looks = self._close_up.close_up(look, shown.square_width, shown.square_height)
        faces = self._believed(find(self.detector, [looks])[0])
        seen.detect_s.append(now() - began_s)
        seen.searched += 1
        seen.with_faces += len(faces) > 0
        seen.heights += (_heights(faces) / shown.scale[1]).tolist()
        self._measure_light(look)
        seen.blurs += [_blur(frame, box) for box in faces.boxes[:3] if box[3] - box[1] >= _SHARP_FROM_PX]
        if frame.arrived_s - self._compared_s >= _COMPARE_S and not self.detector.fixed_size:
            self._compared_s = frame.arrived_s
            self._compare(frame, faces)

    def _believed(self, found: Detections) -> Detections:
        return found[found.confidences >= self._least]

    def _measure_light(self, look: Look) -> None:
        image = look.image.on_host() if isinstance(look.image, DeviceCanvas) else look.image
        grey = cv2.cvtColor(look.canvas.part(image), cv2.COLOR_BGR2GRAY)
        self._seen.means.append(float(grey.mean()) / 2.55)
        self._seen.darks.append(float((grey <= _DARK).mean()) * 100)
        self._seen.brights.append(float((grey >= _BRIGHT).mean()) * 100)

    def _compare(self, frame: Frame, faces: Detections) -> None:
        """Search a frame on a larger and a smaller canvas too, and count what is found there alone."""
        closely = self._believed(find(self.detector, [self._closely.looks(frame.surface)])[0])
        heights = _heights(closely)
        missed = ~_shared(closely.boxes, faces.boxes)
        large = heights >= _FILLS * frame.surface.height
        self._seen.compared += 1
        self._seen.compared_faces += len(closely)
        self._seen.missed_small += int((missed & ~large).sum())
        self._seen.missed_large += int((missed & large).sum())

    @property
    def detect_ms(self) -> float | None:
        """Median time to search a frame, of a core, or on a GPU as time passes."""
        times = list(self._seen.detect_s)
        return None if not times else median(times) * 1000

    def faces(self) -> Faces:
        """Return the faces that were seen."""
        seen = self._seen
        heights = np.array(seen.heights or [np.nan])
        known = bool(seen.heights)
        return Faces(
            searched=seen.searched,
            with_faces=seen.with_faces,
            height_min_px=round(float(heights.min()), 1) if known else None,
            height_median_px=round(float(np.median(heights)), 1) if known else None,
            height_max_px=round(float(heights.max()), 1) if known else None,
            compared=seen.compared,
            compared_faces=seen.compared_faces,
            missed_small=seen.missed_small,
            missed_large=seen.missed_large,
            blur=round(median(seen.blurs), 2) if seen.blurs else None,
        )

    def light(self) -> Light:
        """Return how bright the pictures were."""
        seen = self._seen
        if not seen.brights:
            return Light()
        return Light(
            mean_percent=round(median(seen.means), 1),
            dark_percent=round(median(seen.darks), 1),
            bright_percent=round(median(seen.brights), 1),
        )


def _heights(faces: Detections) -> FloatArray:
    return faces.boxes[:, 3] - faces.boxes[:, 1]


def _blur(frame: Frame, box: FloatArray) -> float:
    """Return how blurred a face is at the size at which it is read."""
    left, top, right, bottom = map(float, box)
    scale = _CROP / max(right - left, bottom - top)
    matrix = np.array([[scale, 0.0, -left * scale], [0.0, scale, -top * scale]])
    return blur(frame.surface.crops([matrix], _CROP)[0])


def _shared(boxes: FloatArray, others: FloatArray) -> NDArray[np.bool_]:
    """Return which of the boxes (N, 4) overlap one of the others (M, 4), (N,) bool."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None] + (others[:, 2:] - others[:, :2]).prod(1) - shared
    same: NDArray[np.bool_] = (shared >= _SAME_IOU * area).any(1)
    return same
