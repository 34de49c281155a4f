"""Reads attributes from aligned crops with the analyzer, and combines the readings of a track."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from visaged.models import geometry, trust
from visaged.models.alignment import Matrix, invert, transform
from visaged.models.analyzer import Analyzer
from visaged.models.device import Array, DeviceArray
from visaged.models.manifest import Head
from visaged.models.surface import Surface, lent_crops
from visaged.models.types import FloatArray, Image
from visaged.pipelines.records import AttributeValue, Shot
from visaged.pipelines.runtime.metrics import Metrics

# Attributes that are computed from landmarks and sharpness; a head of the analyzer with the same name has precedence.
COMPUTED = (
    Head(name="head_pose", kind="angles", output="", memory_s=0),
    Head(name="blur", kind="score", output="", memory_s=0),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A face to be read.

    Attributes:
        surface: The picture.
        landmarks: (5, 2) float32, the five points of the face in the picture's pixels.
        quality: Quality of the shot, 0..1.
        confidence: Confidence of the detection, 0..1.
        size: Square root of the area of the face's box, in the picture's pixels.
    """

    surface: Surface
    landmarks: FloatArray
    quality: float
    confidence: float = 1.0
    size: float = math.inf


@dataclass(frozen=True, slots=True)
class Reading:
    """The attributes read from one crop of a face.

    Attributes:
        values: Arrays by attribute, as `visaged.models.analyzer.Analyzer.analyze` returns them.
        to_crop: (2, 3) transform from the picture to the crop; landmarks in `values` are in crop pixels.
        quality: Quality of the shot, 0..1.
        face: Probability that the crop shows a face that can be read, 0..1; `values` take it into account already.
    """

    values: Mapping[str, FloatArray]
    to_crop: Matrix
    quality: float
    face: float = 1.0

    @property
    def trust(self) -> float:
        """Weight of the reading, 0..1."""
        return self.quality * self.face


class AttributeReader(Protocol):
    """Reads the attributes of faces."""

    heads: Mapping[str, Head]
    """The attributes that can be read, by name; empty for none."""

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        """Return a reading for every request, in order. Thread-safe."""
        ...

    def points(self, reading: Reading, landmarks: FloatArray) -> FloatArray | None:
        """Return the (N, 2) landmarks of a reading, moved to where the face's five points are now."""
        ...


class NoReader:
    """Reads nothing, where there is no analyzer: faces have boxes and five points, and no attributes."""

    heads: Mapping[str, Head] = {}

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        """Return an empty reading for every request."""
        return [Reading({}, np.eye(2, 3), request.quality) for request in requests]

    def points(self, reading: Reading, landmarks: FloatArray) -> FloatArray | None:
        """Return None."""
        return None


class AnalyzerReader:
    """Reads faces with an analyzer network.

    Args:
        analyzer: The network.
        metrics: Times the runs of the network.
        max_batch: Most faces in one run.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, analyzer: Analyzer, metrics: Metrics, max_batch: int = 8, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._analyzer = analyzer
        self._max_batch = max_batch
        self._seconds = metrics.inference.labels(analyzer.name)
        self._sizes = metrics.batch_size.labels(analyzer.name)
        self._clock = clock
        head = analyzer.points_head
        self._points = None if head is None else head.name
        self._angles = [name for name, head in analyzer.heads.items() if head.kind == "angles"]
        self._computed = [head.name for head in COMPUTED if head.name not in analyzer.heads]
        self.heads: Mapping[str, Head] = {head.name: head for head in COMPUTED} | analyzer.heads

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        """Return a reading for every request, in order."""
        aligner = self._analyzer.aligner
        readings: list[Reading] = []
        for start in range(0, len(requests), self._max_batch):
            chunk = requests[start : start + self._max_batch]
            matrices = [aligner.matrix(request.landmarks) for request in chunk]
            faces = list(zip([request.surface for request in chunk], matrices, strict=True))
            with lent_crops(faces, aligner.size, self._analyzer.longest_batch) as batch:
                began = self._clock()
                values = self._analyzer.analyze(batch)
                self._seconds.observe(self._clock() - began)
                crops = self._seen(batch)
            self._sizes.observe(len(chunk))
            seen: list[NDArray[np.float64] | None] = [None] * len(chunk)
            if self._analyzer.doubts:
                seen = [self._signs(*one) for one in zip(chunk, matrices, crops, values, strict=True)]
            for name in self._angles:
                _to_picture(name, values, matrices)
            for request, matrix, crop, found, signs in zip(chunk, matrices, crops, values, seen, strict=True):
                known, face = found | self._compute(request, matrix, crop, found), 1.0
                if signs is not None:
                    face = trust.readable(self._analyzer.no_face, signs)
                    known |= trust.trusted(self._analyzer.heads, found, signs, face)
                readings.append(Reading(known, matrix, request.quality, face))
        return readings

    def _seen(self, batch: Array) -> Sequence[Image | None]:
        """Return the crops to look at besides the network, each None where nobody looks at one on a device."""
        if not isinstance(batch, DeviceArray):
            return list(batch)
        return [None] * len(batch) if "blur" in self._analyzer.heads else list(batch.numpy())

    def points(self, reading: Reading, landmarks: FloatArray) -> FloatArray | None:
        """Return the (N, 2) landmarks of a reading, moved to where the face's five points are now."""
        if self._points is None or self._points not in reading.values:
            return None
        return transform(reading.values[self._points], invert(self._analyzer.aligner.matrix(landmarks)))

    def _signs(
        self, request: Request, matrix: Matrix, crop: Image | None, found: Mapping[str, FloatArray]
    ) -> NDArray[np.float64]:
        """Return the signs that a crop is unreliable, for `trust`; `found` has the pose relative to the crop."""
        five = transform(request.landmarks, matrix)
        return trust.signs(
            request.size,
            request.confidence,
            five,
            self._analyzer.template,
            found["head_pose"] if "head_pose" in found else geometry.head_pose(five),
            float(found["blur"][0]) if "blur" in found else _blur(crop),
            float(found["quality"][0]) if "quality" in found else None,
        )

    def _compute(
        self, request: Request, matrix: Matrix, crop: Image | None, found: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        values: dict[str, FloatArray] = {}
        if "head_pose" in self._computed:
            points = found.get(self._points) if self._points else None
            pose_points = request.landmarks if points is None else transform(points, invert(matrix))
            values["head_pose"] = np.array(geometry.head_pose(pose_points), np.float32)
        if "blur" in self._computed:
            values["blur"] = np.array([_blur(crop)], np.float32)
        return values


def _blur(crop: Image | None) -> float:
    assert crop is not None  # `AnalyzerReader._seen` brought it
    return geometry.blur(crop)


def _to_picture(name: str, values: list[dict[str, FloatArray]], to_crop: Sequence[Matrix]) -> None:
    """Convert the head poses in `values`, in place, from rotated crops to the picture."""
    back = [-math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])) for matrix in to_crop]
    for found, pose in zip(values, geometry.turned([found[name] for found in values], back), strict=True):
        found[name] = pose


class Estimate:
    """A running mean of one attribute over the readings of a track.

    Readings are weighted by their trust, and fade by the head's `memory_s`: an emotion changes, a person's age does
    not.
    """

    __slots__ = ("_head", "_known", "_sum", "_weight", "_worth", "read_s")

    def __init__(self, head: Head) -> None:
        self._head = head
        self._sum: FloatArray | None = None
        self._weight = 0.0
        self._worth = 0.0
        self._known: AttributeValue | None = None  # the mean's value, made when it is first asked for
        self.read_s = -math.inf

    def add(self, value: FloatArray, worth: float, time_s: float) -> None:
        """Add a reading that was taken at `time_s`, with a trust of `worth`, 0..1."""
        memory_s = self._head.memory_s
        keep = (
            1.0 if memory_s is None else 0.0 if memory_s == 0 else math.exp(-max(0.0, time_s - self.read_s) / memory_s)
        )
        weight = max(worth, 1e-3)
        if self._head.kind == "number" and np.isfinite(value[1]):
            weight /= max(float(value[1]), 0.1) ** 2
        if self._sum is None or keep == 0.0:
            self._sum, self._weight, self._worth = value * weight, weight, worth * weight
        else:
            self._sum = self._sum * keep + value * weight
            self._weight = self._weight * keep + weight
            self._worth = self._worth * keep + worth * weight
        self._known = None
        self.read_s = time_s

    def value(self, now_s: float) -> AttributeValue:
        """Return the mean of the readings, with its age at `now_s`; there must have been a reading."""
        known = self._known
        if known is None:
            assert self._sum is not None
            worth = min(1.0, self._worth / self._weight)
            known = self._known = _attribute(self._head, self._sum / self._weight, worth, 0.0)
        age_s = max(0.0, now_s - self.read_s)
        # Not by `replace`, which takes three times as long, for every attribute of every face of every frame.
        return AttributeValue(
            known.value, known.confidence, known.probabilities, known.deviation, age_s, known.is_score
        )


def _attribute(head: Head, mean: FloatArray, worth: float, age_s: float) -> AttributeValue:
    """Return an attribute from the mean output of its head and the mean trust in the readings, 0..1."""
    if head.kind in ("classes", "binary"):
        best = int(mean.argmax())
        probabilities = {label: float(p) for label, p in zip(head.labels, mean, strict=True)}
        return AttributeValue(head.labels[best], float(mean[best]), probabilities, age_s=age_s)
    if head.kind == "number":
        value, deviation = float(mean[0]), float(mean[1])
        if not math.isfinite(deviation) or head.tolerance is None:
            return AttributeValue(value, worth, age_s=age_s)
        confidence = math.erf(head.tolerance / (max(deviation, 1e-3) * math.sqrt(2)))
        return AttributeValue(value, confidence, deviation=deviation, age_s=age_s)
    if head.kind == "angles":
        return AttributeValue(geometry.HeadPose(*map(float, mean)), worth, age_s=age_s)
    return AttributeValue(float(mean[0]), worth, age_s=age_s, is_score=True)


def sure(attributes: Mapping[str, AttributeValue], least: Mapping[str, float]) -> dict[str, AttributeValue]:
    """Return the attributes of a face whose confidence is high enough to be published.

    Args:
        attributes: Attributes by name.
        least: Smallest confidence by name; an attribute that is not named is always returned.
    """
    return {name: value for name, value in attributes.items() if value.confidence >= least.get(name, 0.0)}


def single(heads: Mapping[str, Head], reading: Reading, wanted: frozenset[str]) -> dict[str, AttributeValue]:
    """Return the wanted attributes of a single reading, with any confidence."""
    return {
        name: _attribute(heads[name], reading.values[name], min(1.0, reading.trust), 0.0)
        for name in sorted(wanted & reading.values.keys())
        if heads[name].kind != "points"
    }


def request(shot: Shot, surface: Surface) -> Request:
    """Return the request to read a face in its picture."""
    width, height = shot.box[2] - shot.box[0], shot.box[3] - shot.box[1]
    size = math.sqrt(max(0.0, float(width * height)))
    return Request(surface, shot.landmarks, shot.quality, shot.confidence, size)
