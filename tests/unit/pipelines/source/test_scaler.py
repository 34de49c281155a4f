"""Frames of every pixel format lie on the canvas as swscale's area averaging would put them there."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from tests.unit import fakes
from visaged.models.preprocess import canvas_for
from visaged.models.types import Image
from visaged.pipelines.presentation import UPRIGHT
from visaged.pipelines.source.picture.scaler import Scaler, _interpolate


def scaled(frame: av.VideoFrame, long_side: int = 320) -> tuple[Image, Image]:
    """Return the picture on the canvas, and what swscale makes of it."""
    canvas = canvas_for(frame.width, frame.height, long_side)
    image = canvas.blank()
    Scaler().scale(frame, UPRIGHT, canvas, image)
    expected = frame.reformat(
        canvas.picture_width, canvas.picture_height, "bgr24", interpolation=Interpolation.AREA
    ).to_ndarray()
    rest = image.copy()
    rest[: canvas.picture_height, : canvas.picture_width] = 0
    assert not rest.any(), "the rest of the canvas stays black"
    return image[: canvas.picture_height, : canvas.picture_width], expected


@pytest.mark.parametrize("name", ["yuv420p", "yuvj420p", "nv12", "yuv422p", "yuv444p", "rgb24", "gray"])
@pytest.mark.parametrize("size", [(1280, 720), (640, 360), (962, 542), (160, 120)])
def test_any_format_and_size(name: str, size: tuple[int, int]) -> None:
    full = "JPEG" if name == "yuvj420p" else None
    frame = fakes.demo_frame(fakes.TWO_FACES_S).reformat(*size, name, dst_colorspace="itu601", dst_color_range=full)
    picture, expected = scaled(frame)
    assert np.abs(picture.astype(int) - expected).mean() < 3


def test_no_pixel_is_skipped_when_a_frame_is_much_larger() -> None:
    stripes = np.zeros((1080, 1920, 3), np.uint8)
    stripes[:, ::2] = 255
    picture, _ = scaled(av.VideoFrame.from_ndarray(stripes, format="bgr24").reformat(format="yuv420p"), 320)
    assert abs(int(picture.mean()) - 128) < 8
    assert picture.std() < 16, "fine stripes become grey, not coarse stripes"


def test_the_next_frame_of_another_kind_is_scaled_too() -> None:
    frame = fakes.demo_frame(fakes.TWO_FACES_S)
    canvas = canvas_for(frame.width, frame.height, 320)
    scaler = Scaler()
    first, second = canvas.blank(), canvas.blank()
    scaler.scale(frame, UPRIGHT, canvas, first)
    scaler.scale(frame.reformat(format="nv12"), UPRIGHT, canvas, second)
    assert np.abs(first.astype(int) - second).mean() < 3


@pytest.mark.parametrize("small", [(180, 320), (540, 960), (108, 192), (270, 480), (181, 322), (60, 960)])
def test_planes_are_scaled_linearly_to_the_last_bit(small: tuple[int, int]) -> None:
    plane = np.random.default_rng(1).integers(0, 256, (540, 1024), np.uint8)[:, :960]
    scaled = np.empty(small, np.uint8)
    _interpolate(plane, scaled)
    np.testing.assert_array_equal(scaled, cv2.resize(plane, small[::-1], interpolation=cv2.INTER_LINEAR))
