"""Decoded frames: the colours of their regions, their crops, and the detector's canvas."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.alignment import Aligner
from visaged.models.manifest import AnalyzerEntry, Manifest
from visaged.models.preprocess import canvas_for
from visaged.models.surface import ImageSurface
from visaged.models.types import Image
from visaged.pipelines.presentation import Presentation, Turn
from visaged.pipelines.source.picture.scaler import Scaler
from visaged.pipelines.source.picture.surface import VideoSurface


def in_format(name: str, width: int = 640, height: int = 360) -> av.VideoFrame:
    return fakes.demo_frame(fakes.TWO_FACES_S).reformat(width, height, name)


def full_range() -> av.VideoFrame:
    return fakes.demo_frame(fakes.TWO_FACES_S).reformat(640, 360, "yuvj420p", dst_color_range="JPEG")


def tagged_full_range() -> av.VideoFrame:
    frame = fakes.demo_frame(fakes.TWO_FACES_S).reformat(640, 360, "yuv420p", dst_color_range="JPEG")
    frame.color_range = 2
    return frame


def tagged(colours: int) -> av.VideoFrame:
    """Return a frame that says of itself which standard its colours follow: 1 BT.709, 5 BT.601, 9 BT.2020."""
    frame = in_format("yuv420p")
    frame.colorspace = colours
    return frame


def odd_size() -> av.VideoFrame:
    image = np.ascontiguousarray(fakes.demo_image(fakes.TWO_FACES_S)[100:401, 300:703])
    return av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")


REGIONS = [(0, 0, 400, 300), (101, 51, 232, 200), (100, 50, 331, 201), (7, 3, 8, 4), (398, 298, 403, 301), (0, 0, 1, 1)]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: in_format("yuv420p"), id="yuv420p"),
        pytest.param(lambda: in_format("nv12"), id="nv12"),
        pytest.param(lambda: in_format("gray"), id="gray"),
        pytest.param(lambda: in_format("yuv422p"), id="yuv422p"),
        pytest.param(lambda: in_format("yuv420p10le"), id="10 bits"),
        pytest.param(lambda: in_format("bgr24"), id="bgr24"),
        pytest.param(lambda: tagged(1), id="BT.709"),
        pytest.param(lambda: tagged(5), id="BT.601"),
        pytest.param(lambda: tagged(9), id="BT.2020"),
        pytest.param(full_range, id="yuvj420p"),
        pytest.param(tagged_full_range, id="yuv420p tagged as full range"),
        pytest.param(odd_size, id="odd size"),
    ],
)
def test_a_region_of_a_frame_equals_the_whole_converted(make: Callable[[], av.VideoFrame]) -> None:
    frame = make()
    whole = frame.to_ndarray(format="bgr24").astype(int)
    surface = VideoSurface(frame)
    assert (surface.width, surface.height) == (frame.width, frame.height)
    for left, top, right, bottom in REGIONS:
        right, bottom = min(right, frame.width), min(bottom, frame.height)
        region = surface.region(left, top, right, bottom)
        assert region.shape == (bottom - top, right - left, 3)
        assert region.dtype == np.uint8
        difference = np.abs(region - whole[top:bottom, left:right])
        assert difference.mean() < 2
        assert np.percentile(difference, 99.5) <= 6


def test_ranges_are_not_mixed_up() -> None:
    for make in (lambda: in_format("yuv420p"), full_range, tagged_full_range):
        frame = make()
        whole = frame.to_ndarray(format="bgr24").astype(int)
        # Taking one range for the other would stretch contrasts by 16 %.
        assert abs(VideoSurface(frame).region(0, 0, 640, 360).mean() - whole.mean()) < 2
        assert VideoSurface(frame).region(0, 0, 640, 360).std() == pytest.approx(whole.std(), rel=0.03)


def test_black_and_white_stay_what_they_are() -> None:
    grey = np.zeros((64, 64, 3), np.uint8)
    grey[:, 32:] = 255
    for name, full in (("yuv420p", None), ("yuvj420p", "JPEG")):
        frame = av.VideoFrame.from_ndarray(grey, format="bgr24").reformat(format=name, dst_color_range=full)
        region = VideoSurface(frame).region(0, 0, 64, 64)
        assert region[:, :30].max() <= 2
        assert region[:, 34:].min() >= 252


def test_a_crop_of_a_frame_equals_that_of_its_picture() -> None:
    entry = next(entry for entry in Manifest().entries if isinstance(entry, AnalyzerEntry))
    aligner = Aligner(entry.input.template, entry.input.size)
    matrix = aligner.matrix(fakes.five_points(460, 315, 120, roll=12))
    of_frame = VideoSurface(fakes.demo_frame(fakes.TWO_FACES_S)).crops([matrix], aligner.size)
    of_picture = ImageSurface(fakes.demo_image(fakes.TWO_FACES_S)).crops([matrix], aligner.size)
    assert np.abs(of_frame.astype(int) - of_picture).mean() < 4


def alone(frame: av.VideoFrame, presentation: Presentation, long_side: int) -> Image:
    """Return a frame on a canvas as a scaler that has scaled nothing else puts it there."""
    canvas = canvas_for(presentation.square_width, presentation.square_height, long_side)
    slot = canvas.blank()
    VideoSurface(frame, presentation).scale_onto(canvas, slot)
    return slot


@pytest.mark.parametrize("name", ["yuv420p", "nv12"])
def test_frames_that_share_a_scaler_may_differ_in_everything(name: str) -> None:
    scaler = Scaler()
    for size, turn, long_side in [
        ((640, 360), Turn(), 320),
        ((640, 360), Turn(90), 320),
        ((360, 640), Turn(), 320),
        ((640, 360), Turn(180, True), 160),
        ((1280, 720), Turn(), 320),
        ((640, 360), Turn(), 320),
    ]:
        frame, presentation = in_format(name, *size), Presentation(*size, turn)
        surface = VideoSurface(frame, presentation, scaler)
        canvas = canvas_for(surface.width, surface.height, long_side)
        slot = canvas.blank()
        surface.scale_onto(canvas, slot)
        np.testing.assert_array_equal(slot, alone(frame, presentation, long_side))


def test_threads_may_scale_frames_of_one_stream() -> None:
    scaler, turns = Scaler(), [Turn(), Turn(90), Turn(180), Turn(270)] * 10
    frame = in_format("yuv420p")
    presentations = [Presentation(640, 360, turn) for turn in turns]

    def scaled(presentation: Presentation) -> Image:
        surface = VideoSurface(frame, presentation, scaler)
        canvas = canvas_for(surface.width, surface.height, 320)
        slot = canvas.blank()
        surface.scale_onto(canvas, slot)
        return slot

    with ThreadPoolExecutor(4) as pool:
        for presentation, slot in zip(presentations, pool.map(scaled, presentations), strict=True):
            np.testing.assert_array_equal(slot, alone(frame, presentation, 320))
