"""Gives every face of one camera a number that stays with it from frame to frame.

Problem: cameras are analysed at 1 to 30 fps. At 5 fps a walking face moves by its own size and more between two frames,
where plain IoU sees nothing in common, and trackers that were made for full rate lose every second face.

Two stages, as in ByteTrack (Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV
2022, arXiv 2110.06864): confident detections are matched first, and tracks that are left over may continue with
detections of low confidence, which never start a track. The buffered IoU of C-BIoU (Yang et al., WACV 2023, arXiv
2211.14317) decides which pairs are considered, with a buffer that grows with the filter's uncertainty about the face's
position. The filter's likelihood decides which pair is best: with buffers wide enough for low rates, overlap does not
distinguish a face that moved on from one that passes where another was lost. On the sequences that the defaults were
tuned on (synthetic, 5 and 20 faces at 25, 5 and 2.5 fps; tests/benchmarks/bench_tracker.py reports others) ranking by
buffered IoU alone reached a mean IDF1 of 83.4 % with 647 switches in the best of five settings, and ranking by
likelihood, with the same motion, 87.0 % with 273 (88.1 % with 223 as shipped).

All times are seconds of capture, and no rule counts frames; but no rule can be shorter than what the frames show. A
camera analysed once in four seconds, by its settings or because the machine is overloaded, would lose every face
between two frames with a lifetime of two seconds. The tracker therefore measures the interval at which frames really
come (`_Intervals`), and extends its times in proportion:

- A track lives for at least `_LIFETIME_INTERVALS` intervals, so that one missed detection does not end it.
- Beyond `_LONGEST_INTERVAL_S` an interval counts as that long for the motion and for the penalty on absence. The motion
  model would otherwise spread over many face sizes, and a face that never moved would fit its own track no better
  than chance: with the defaults it stops to match at intervals a little above two seconds.

With 5 faces of tests/benchmarks/bench_tracker.py this raises the mean IDF1 from 68.6 to 70.7 % at 1 fps, from 29.6 to
57.1 % at 0.5 fps and from 0 to 49.9 % at 0.25 fps; without the second rule it stays what it was at each of them.
With the default `lost_s` neither rule changes anything at 1.25 frames a second and above.

This module returns no boxes: callers use those of the detections.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from visaged.models.types import Detections
from visaged.pipelines.runtime.config import StrictConfig
from visaged.pipelines.tracking.association import Floats, Indices, assign, buffered_iou
from visaged.pipelines.tracking.kalman import BoxFilters, MotionConfig

_SMALLEST_SIDE_PX = 1.0
_LIFETIME_INTERVALS = 2.5  # two missed frames, and half an interval for uneven ones
_LONGEST_INTERVAL_S = 0.8  # seconds; the default lifetime divided by the number above
_TENTATIVE = 0  # number of a track that is not confirmed; confirmed ones start at 1
_TRACK = np.dtype([("id", "i8"), ("born_s", "f8"), ("seen_s", "f8"), ("hits", "i8"), ("confidence", "f8")])


_Confidence = Annotated[float, Field(ge=0, le=1)]
_Seconds = Annotated[float, Field(ge=0, le=3600)]


class TrackerConfig(StrictConfig):
    """When the tracker begins, continues and ends tracks."""

    high_confidence: _Confidence = 0.5
    """Detections with at least this confidence are matched to tracks first."""
    low_confidence: _Confidence = 0.35
    """Detections with at least this confidence may continue a track, but not start one. Nothing is detected below it,
    neither in cameras' frames nor in single pictures."""
    new_confidence: _Confidence = 0.6
    """Detections with at least this confidence may start a track."""
    confirm_hits: Annotated[int, Field(ge=1, le=1000)] = 2
    """Number of detections with which a track is confirmed and gets its number, if one has `confirm_confidence`."""
    confirm_s: _Seconds = 1.0
    """A track is also confirmed by two detections that are this many seconds apart, for cameras with few frames."""
    confirm_confidence: _Confidence = 0.6
    """Least confidence that one of its detections must have before a track is confirmed."""
    tentative_s: _Seconds = 0.5
    """Seconds after its last detection at which an unconfirmed track that misses a frame is dropped."""
    lost_s: Annotated[float, Field(ge=0.001, le=3600)] = 2.0
    """Seconds after its last detection at which a confirmed track ends, but at least 2.5 intervals between frames."""
    first_buffer_ratio: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Buffer of the buffered IoU for detections with `high_confidence`, in widths and heights of the boxes."""
    second_buffer_ratio: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Buffer of the buffered IoU for detections below `high_confidence`, in widths and heights of the boxes."""
    buffer_deviations: Annotated[float, Field(ge=0, le=100)] = 2.0
    """Standard deviations of the predicted centre, in face sizes, by which the buffer grows."""
    min_similarity: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Buffered IoU below which a track and a detection are not considered a pair."""
    min_log_likelihood: Annotated[float, Field(ge=-1000, le=1000)] = -4.0
    """Logarithm of the likelihood below which a track and a detection are not considered a pair."""
    absence_penalty_per_s: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """Amount that each second of absence takes off the log likelihood: after a long absence, a face is likelier to be
    another one."""
    low_noise_scale: Annotated[float, Field(ge=0.001, le=1000)] = 2.0
    """Factor on the noise of detections below `high_confidence`."""
    motion: MotionConfig = MotionConfig()
    """Motion of faces, and noise of detections."""

    @model_validator(mode="after")
    def _in_order(self) -> TrackerConfig:
        if not self.low_confidence <= self.high_confidence <= self.new_confidence:
            raise ValueError("low_confidence <= high_confidence <= new_confidence must hold")
        return self


@dataclass(frozen=True, slots=True)
class TrackerUpdate:
    """The changes that one frame made.

    Attributes:
        assignments: For each detection, in order, the number of its track; None without a confirmed track.
        began: Numbers of the tracks that were confirmed with this frame; each is among the assignments.
        ended: Numbers of the tracks that ended before this frame.
    """

    assignments: list[int | None]
    began: list[int]
    ended: list[int]


class _Intervals:
    """Measures the seconds from one analysed frame to the next.

    The estimate is the second longest of the newest intervals. The longest alone would take a single stall for the
    camera's rate; a mean or a median would miss an overload under which only every few frames are far apart. A camera
    that becomes slow is noticed after two slow intervals, one that becomes fast again after `_KEPT` frames.

    Args:
        least_s: Least estimate in seconds, and the estimate before there are intervals.
    """

    _KEPT = 16
    # Longer intervals count as this long: a gap in a recording may last hours, and no camera worth tracking is slower.
    _LONGEST_S = 60.0

    def __init__(self, least_s: float) -> None:
        self._newest: deque[float] = deque(maxlen=self._KEPT)
        self._least_s = least_s
        self.usual_s = least_s

    def add(self, seconds: float) -> None:
        """Add an interval; intervals that are not positive are ignored."""
        if 0 < seconds < math.inf:
            self._newest.append(min(seconds, self._LONGEST_S))
            if len(self._newest) > 1:
                self.usual_s = max(self._least_s, sorted(self._newest)[-2])


class Tracker:
    """The faces of one camera. Not thread-safe, and without a clock: time comes with the frames.

    Numbers count up, and one tracker never uses a number twice, whatever happens to its camera.

    Args:
        config: Settings of the tracker; None for the defaults.
        interval_s: Seconds between two frames if none is dropped; 0 if not known.
        first_number: Number of the first track.
    """

    def __init__(self, config: TrackerConfig | None = None, interval_s: float = 0.0, first_number: int = 1) -> None:
        """Start without tracks."""
        self._config = config or TrackerConfig()
        self._filters = BoxFilters(self._config.motion)
        self._tracks: NDArray[np.void] = np.zeros(0, _TRACK)  # rows as in the filters
        self._time_s = -math.inf
        self._intervals = _Intervals(interval_s)
        self._next_id = first_number

    @property
    def next_number(self) -> int:
        """The number that the next track to be confirmed gets."""
        return self._next_id

    def number_from(self, least: int) -> None:
        """Give the tracks to come numbers that are not smaller than this one."""
        self._next_id = max(self._next_id, least)

    @property
    def lost_s(self) -> float:
        """Seconds after its last detection at which a confirmed track ends, at the rate at which frames come now."""
        return max(self._config.lost_s, _LIFETIME_INTERVALS * self._intervals.usual_s)

    @property
    def _slowdown(self) -> float:
        """Factor, at least 1, by which motion and absence are slowed down for long intervals."""
        return max(1.0, self._intervals.usual_s / _LONGEST_INTERVAL_S)

    def update(self, detections: Detections, time_s: float) -> TrackerUpdate:
        """Match a frame's detections to the tracks.

        Args:
            detections: The frame's detections, down to `low_confidence`; boxes that are not finite, or less than a
                pixel wide or high, are ignored.
            time_s: Time of the frame in seconds, on the camera's monotonic clock. Intervals may vary. After a step back
                of up to `lost_s`, tracks go on as if no time had passed; a larger step back ends all tracks.

        Raises:
            ValueError: The time is not a finite number.
        """
        ended = self._advance(time_s)
        boxes = detections.boxes.astype(np.float64).reshape(-1, 4)
        confidences = detections.confidences.astype(np.float64)
        rows = np.full(len(boxes), -1, np.intp)  # each detection's track

        config = self._config
        usable = _usable(boxes, confidences)
        confident = confidences >= config.high_confidence
        unsure = (confidences >= config.low_confidence) & ~confident
        self._match(boxes, usable & confident, rows, config.first_buffer_ratio, 1.0)
        self._match(boxes, usable & unsure, rows, config.second_buffer_ratio, config.low_noise_scale)

        matched = (rows >= 0).nonzero()[0]
        noise_scale = np.where(confident[matched], 1.0, config.low_noise_scale)
        self._filters.correct(rows[matched], boxes[matched], noise_scale)
        self._record(rows[matched], confidences[matched])
        born = (usable & (rows < 0) & (confidences >= config.new_confidence)).nonzero()[0]
        rows[born] = self._start(boxes[born], confidences[born])

        began = self._confirm()
        ids = np.where(rows >= 0, self._tracks["id"][rows], _TENTATIVE) if len(self._tracks) else rows * _TENTATIVE
        assignments = [None if i == _TENTATIVE else i for i in ids.tolist()]
        self._drop_tentative()
        return TrackerUpdate(assignments, began, ended)

    def reset(self) -> list[int]:
        """End all tracks, as after a restart of the stream, and return their numbers. Numbering continues."""
        self._time_s = -math.inf
        return self._drop(np.ones(len(self._tracks), np.bool_))

    def _advance(self, time_s: float) -> list[int]:
        """Predict the tracks at a frame's time, and return the numbers of those that ended before it."""
        if not math.isfinite(time_s):
            raise ValueError(f"the time of a frame must be finite, got {time_s}")
        ended: list[int] = []
        interval_s = time_s - self._time_s  # infinite at the first frame
        self._intervals.add(interval_s)
        if interval_s < -self._config.lost_s:
            ended = self.reset()
        elif interval_s < 0:
            self._tracks["born_s"] += interval_s
            self._tracks["seen_s"] += interval_s
        else:
            ended = self._drop(time_s - self._tracks["seen_s"] > self.lost_s)
            self._filters.predict(interval_s / self._slowdown)
        self._time_s = time_s
        return ended

    def _match(
        self, boxes: Floats, eligible: NDArray[np.bool_], rows: Indices, buffer_ratio: float, noise_scale: float
    ) -> None:
        """Match free tracks with eligible detections, and enter them in `rows`."""
        config, filters = self._config, self._filters
        candidates = eligible.nonzero()[0]
        is_free = np.ones(len(filters), np.bool_)
        is_free[rows[rows >= 0]] = False
        free = is_free.nonzero()[0]
        if not len(candidates) or not len(free):
            return
        predicted = filters.boxes(free)
        buffers = buffer_ratio + config.buffer_deviations * filters.centre_deviations(free)
        similarity = buffered_iou(predicted, boxes[candidates], buffers)
        absent_s = (self._time_s - self._tracks["seen_s"][free]) / self._slowdown
        fit = filters.log_likelihoods(free, boxes[candidates], noise_scale)
        fit -= config.absence_penalty_per_s * absent_s[:, None] + config.min_log_likelihood
        fit[similarity < config.min_similarity] = 0
        track, candidate = assign(fit)
        rows[candidates[candidate]] = free[track]

    def _record(self, rows: Indices, confidences: Floats) -> None:
        self._tracks["seen_s"][rows] = self._time_s
        self._tracks["hits"][rows] += 1
        self._tracks["confidence"][rows] = np.maximum(self._tracks["confidence"][rows], confidences)

    def _start(self, boxes: Floats, confidences: Floats) -> Indices:
        """Start a track at each box and return their rows."""
        if not len(boxes):
            return np.zeros(0, np.intp)
        before = len(self._tracks)
        born = np.zeros(len(boxes), _TRACK)
        born["born_s"] = born["seen_s"] = self._time_s
        born["hits"] = 1
        born["confidence"] = confidences
        self._filters.append(boxes)
        self._tracks = np.concatenate((self._tracks, born))
        return np.arange(before, len(self._tracks))

    def _confirm(self) -> list[int]:
        """Give numbers to the tracks that are confirmed now, and return the numbers."""
        tracks, config = self._tracks, self._config
        if not len(tracks) or tracks["id"].all():
            return []
        enough = tracks["hits"] >= config.confirm_hits
        enough |= (tracks["hits"] >= 2) & (tracks["seen_s"] - tracks["born_s"] >= config.confirm_s)
        enough &= (tracks["id"] == _TENTATIVE) & (tracks["confidence"] >= config.confirm_confidence)
        rows = enough.nonzero()[0]
        began = list(range(self._next_id, self._next_id + len(rows)))
        tracks["id"][rows] = began
        self._next_id += len(rows)
        return began

    def _drop_tentative(self) -> None:
        absent_s = self._time_s - self._tracks["seen_s"]
        self._drop((self._tracks["id"] == _TENTATIVE) & (absent_s > 0) & (absent_s >= self._config.tentative_s))

    def _drop(self, gone: NDArray[np.bool_]) -> list[int]:
        """Drop tracks, and return the numbers of those that were confirmed."""
        if not gone.any():
            return []
        ids = self._tracks["id"][gone]
        self._tracks = self._tracks[~gone]
        self._filters.keep(~gone)
        numbered: list[int] = ids[ids != _TENTATIVE].tolist()
        return numbered


def _usable(boxes: Floats, confidences: Floats) -> NDArray[np.bool_]:
    """Return which boxes a filter can take: finite, and at least a pixel wide and high. NaN compares as False."""
    finite = np.isfinite(boxes)
    if not finite.all():
        boxes = np.where(finite, boxes, 0)  # infinity minus infinity would warn
    large = boxes[:, 2:] - boxes[:, :2] >= _SMALLEST_SIDE_PX
    usable: NDArray[np.bool_] = np.isfinite(confidences)
    for needed in (large, finite):
        usable &= needed.all(axis=1)
    return usable
