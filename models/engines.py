"""Which TensorRT engines the networks need, and their test before they are used: the same faces as in float32 on CUDA.

Cameras' canvases have an engine for each shape, for all batches: tuned for one shape it is fastest. Single pictures
come in hundreds of shapes; one more engine takes any canvas up to the largest, a few at once. What no engine covers
runs on CUDA, and so does everything until its engine is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from visaged.models.agreement import Pair, difference, face_difference
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.errors import ModelError
from visaged.models.nvidia.tensorrt import Profile
from visaged.models.preprocess import canvas_for, round_up
from visaged.models.search import MOST_PIXELS, Scales
from visaged.models.types import Image

_ASPECTS = ((16, 9), (4, 3))
"""Width to height of nearly all cameras' pictures."""


@dataclass(frozen=True, slots=True)
class Task:
    """An engine to build.

    Attributes:
        text: Which it is, for people.
        build: Builds it, tests it, and has the network use it from then on. Takes minutes unless the engine is kept
            from an earlier run of the program. Raises `ModelError`: it cannot be built, or does not tell the same.
    """

    text: str
    build: Callable[[], None]


def detector_profiles(detector: Detector, scales: Scales, close_up: bool, most: int) -> list[Profile]:
    """Return the shapes for which a detector gets engines, the most wanted first.

    Args:
        detector: The detector.
        scales: The sizes at which pictures are searched.
        close_up: Whether cameras' frames are searched on a small canvas too.
        most: Most frames in a batch.
    """
    sides = list[tuple[int, int]]()  # height and width
    for width, height in _ASPECTS:
        canvas = canvas_for(width, height, scales.usual, scales.multiple_of)
        canvases = [canvas, *(scales.smaller(canvas, width, height) if close_up else ())]
        sides += [(one.height, one.width) for one in canvases]
    profiles = []
    for height, width in dict.fromkeys(sides):
        batch = max(1, min(most, MOST_PIXELS // (height * width)))
        profiles.append(Profile(*(detector.shape(count, height, width) for count in (1, max(1, batch // 2), batch))))
    if detector.fixed_size:
        return profiles[:1]
    least, largest = scales.multiple_of, round_up(max(scales.usual, scales.large), scales.multiple_of)
    usual = canvas_for(4, 3, scales.usual, scales.multiple_of)
    most_of_any = max(1, min(most, MOST_PIXELS // largest**2))
    any_canvas = Profile(
        detector.shape(1, least, least),
        detector.shape(1, usual.height, usual.width),
        detector.shape(most_of_any, largest, largest),
    )
    return [*profiles, any_canvas]


def build_one(model: Detector | Analyzer, long_side: int, most: int) -> None:
    """Have a network on TensorRT run one kind of batch on an engine, untested; it may take minutes.

    Args:
        model: The network.
        long_side: Long side in pixels of a detector's canvases, of 16:9.
        most: Most pictures in a batch of a detector.

    Raises:
        ModelError: It cannot be built.
    """
    if isinstance(model, Analyzer):
        model.use_engine(model.profile(), model.on_engine(model.profile()))
    else:
        profile = detector_profiles(model, Scales.of(model, long_side), close_up=False, most=most)[0]
        model.use_engine(profile, model.on_engine(profile))


def tasks(
    detector: Detector,
    analyzer: Analyzer | None,
    scales: Scales,
    close_up: bool,
    most: int,
    picture: Image,
) -> Iterator[Task]:
    """Yield the engines that a detector and an analyzer need, the most wanted first.

    Args:
        detector: The detector, on TensorRT.
        analyzer: The analyzer, on TensorRT; None for none.
        scales: The sizes at which pictures are searched.
        close_up: Whether cameras' frames are searched on a small canvas too.
        most: Most frames in a batch of the detector.
        picture: (H, W, 3) uint8 BGR with a large face, for the tests.
    """
    first, *others = detector_profiles(detector, scales, close_up, most)
    yield Task(f"{detector.name}, {first}", lambda: _detects(detector, first, picture))
    if analyzer is not None:
        yield Task(f"{analyzer.name}, {analyzer.profile()}", lambda: _reads(detector, analyzer, scales.usual, picture))
    for profile in others:
        yield Task(f"{detector.name}, {profile}", lambda profile=profile: _detects(detector, profile, picture))  # type: ignore[misc]


def _detects(detector: Detector, profile: Profile, picture: Image) -> None:
    fast = detector.on_engine(profile)
    canvas = _shown(picture, *detector.sides_of(profile.usual))[None]
    canvases, threshold = np.repeat(canvas, profile.largest[0], 0), detector.face_threshold
    for faces, others in zip(detector.detect(canvases), fast.detect(canvases), strict=True):
        found = face_difference(faces, others, threshold) or face_difference(others, faces, threshold)
        if found:
            raise ModelError(f"{detector.name} on TensorRT does not tell what it tells on CUDA: {found}")
    detector.use_engine(profile, fast)


def _reads(detector: Detector, analyzer: Analyzer, long_side: int, picture: Image) -> None:
    profile = analyzer.profile()
    fast = analyzer.on_engine(profile)
    found = difference(Pair(detector, analyzer), Pair(detector, fast), picture, long_side)
    if found:
        raise ModelError(f"{analyzer.name} on TensorRT does not tell what it tells on CUDA: {found}")
    analyzer.use_engine(profile, fast)


def _shown(picture: Image, height: int, width: int) -> Image:
    """Return a canvas of height x width with the picture in its upper left corner."""
    canvas = np.zeros((height, width, 3), np.uint8)
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = (max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale)))
    canvas[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return canvas
