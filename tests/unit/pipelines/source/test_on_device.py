"""Frames on a device: what the graphs make of them is what the path through host memory makes, within two levels.

The device is this machine's own memory, and the same code runs that would run on a GPU.
"""

from __future__ import annotations

import functools

import av
import numpy as np
import pytest

from tests.unit import fakes
from visaged.models.alignment import Aligner, Matrix
from visaged.models.device import Device
from visaged.models.graphs.frames import FrameGraphs, Nv12
from visaged.models.manifest import Manifest
from visaged.models.preprocess import canvas_for
from visaged.models.session import SessionConfig, open_graph
from visaged.models.types import Image
from visaged.pipelines.presentation import Presentation, Turn
from visaged.pipelines.source.picture.on_device import FrameOnDevice, Plans, downloaded
from visaged.pipelines.source.picture.planes import FROM_BT601, is_full_range, plane_rows
from visaged.pipelines.source.picture.surface import VideoSurface

TURNS = [Turn(rotation, mirrored) for rotation in (0, 90, 180, 270) for mirrored in (False, True)]
SIZES = [(1920, 1080), (1280, 720), (640, 360), (854, 480), (1366, 768), (960, 542), (160, 120), (480, 854)]


@pytest.fixture(scope="module")
def graphs() -> FrameGraphs:
    return FrameGraphs(Device("cpu"), lambda data: open_graph(data, "cpu", SessionConfig()))


@functools.cache
def detailed() -> av.VideoFrame:
    """Return a frame of the demo with fine detail and strong colours."""
    image = fakes.demo_image(fakes.TWO_FACES_S)
    noise = np.random.default_rng(1).normal(0, 12, image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    image[:80, :80], image[:80, -80:] = (0, 0, 255), (255, 0, 0)
    image[-80:, :80:2], image[-80:, 1:80:2] = (255, 255, 255), (0, 0, 0)
    return av.VideoFrame.from_ndarray(image, format="bgr24")


def decoded(width: int, height: int, colours: int = 1, full: bool = False) -> av.VideoFrame:
    """Return that frame as a software decoder gives it."""
    frame = detailed().reformat(width, height, "yuv420p", dst_color_range="JPEG" if full else None)
    frame.colorspace, frame.color_range = colours, 2 if full else 1
    return frame


def on_device(graphs: FrameGraphs, frame: av.VideoFrame, shown: Presentation, pitch: int = 0) -> FrameOnDevice:
    """Return a software decoder's frame as a GPU's decoder would give it: chroma in one plane, rows with padding."""
    pitch = pitch or frame.width
    luma, u, v = (plane_rows(plane)[:, : plane.width] for plane in frame.planes)
    y = np.full((len(luma), pitch), 170, np.uint8)
    uv = np.full((len(u), pitch // 2, 2), 85, np.uint8)
    y[:, : frame.width] = luma
    uv[:, : frame.width // 2] = np.stack([u, v], 2)
    correction = FROM_BT601.get(int(frame.colorspace), np.eye(3, dtype=np.float32))
    planes = [graphs.device.at(plane.ctypes.data, plane.shape, np.uint8, plane) for plane in (y, uv)]
    nv12 = Nv12(*planes, frame.width, frame.height, is_full_range(frame), correction)
    return FrameOnDevice(nv12, shown, Plans(graphs, shown))


def difference(one: Image, other: Image) -> int:
    return int(np.abs(one.astype(int) - other).max())


def matrices(width: int, height: int) -> list[Matrix]:
    """Return the transforms of faces of many sizes, tilted, and at the picture's edges."""
    entry = Manifest().analyzer("analyzer-v1")
    aligner = Aligner(entry.input.template, entry.input.size)
    template = np.array(entry.input.template) / entry.input.size
    draws = np.random.default_rng(2)
    found = []
    for side in (20, 70, 111, 113, 150, 240, 500, 900):
        angle = draws.uniform(-0.6, 0.6)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        corner = draws.uniform(-0.3, 0.9, 2) * (width, height)
        found.append(aligner.matrix((template @ turn * side + corner).astype(np.float32)))
    return found


@pytest.mark.parametrize("size", SIZES)
def test_canvases_of_any_size(graphs: FrameGraphs, size: tuple[int, int]) -> None:
    frame, shown = decoded(*size), Presentation(*size)
    canvas = canvas_for(*size, 320 if size[0] == 1366 else 640)
    expected, found = canvas.blank(), canvas.blank()
    VideoSurface(frame, shown).scale_onto(canvas, expected)
    on_device(graphs, frame, shown, 2048).scale_onto(canvas, found)
    assert difference(expected, found) <= 2


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_turns(graphs: FrameGraphs, turn: Turn) -> None:
    frame, shown = decoded(1280, 720), Presentation(1280, 720, turn)
    canvas = canvas_for(shown.square_width, shown.square_height, 640, margin=16)
    host, device = VideoSurface(frame, shown), on_device(graphs, frame, shown)
    assert (device.width, device.height) == (host.width, host.height)
    expected, found = canvas.blank(), canvas.blank()
    host.scale_onto(canvas, expected)
    device.scale_onto(canvas, found)
    assert difference(expected, found) <= 2
    wanted = matrices(host.width, host.height)
    assert difference(host.crops(wanted, 112), device.crops(wanted, 112)) <= 2


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("colours", [1, 5, 7, 9])
def test_colours(graphs: FrameGraphs, colours: int, full: bool) -> None:
    frame, shown = decoded(1920, 1080, colours, full), Presentation(1920, 1080)
    canvas = canvas_for(1920, 1080, 640)
    host, device = VideoSurface(frame, shown), on_device(graphs, frame, shown, 2048)
    expected, found = canvas.blank(), canvas.blank()
    host.scale_onto(canvas, expected)
    device.scale_onto(canvas, found)
    assert difference(expected, found) <= 2
    assert difference(host.picture(canvas), device.picture(canvas)) <= (2 if colours == 5 else 3)
    wanted = matrices(1920, 1080)
    assert difference(host.crops(wanted, 112), device.crops(wanted, 112)) <= 2


@pytest.mark.parametrize(
    ("size", "aspect", "pixel_format"),
    [((640, 360), 1.2, "nv12"), ((641, 360), 1.0, "nv12"), ((640, 361), 1.0, "nv12"), ((640, 360), 1.0, "yuv420p")],
)
def test_other_frames_are_left_to_host_memory(
    graphs: FrameGraphs, size: tuple[int, int], aspect: float, pixel_format: str
) -> None:
    frame = detailed().reformat(*size, pixel_format)
    assert Plans(graphs, Presentation(*size, stored_aspect=aspect)).surface(frame) is None
    assert downloaded(frame) is frame


def test_a_decoded_frame_is_taken_where_it_lies(graphs: FrameGraphs) -> None:
    planar, shown = detailed().reformat(854, 480, "yuv420p"), Presentation(854, 480)
    surface = Plans(graphs, shown).surface(planar.reformat(format="nv12"))
    assert surface is not None
    canvas = canvas_for(854, 480, 320)
    expected, found = canvas.blank(), canvas.blank()
    VideoSurface(planar, shown).scale_onto(canvas, expected)
    surface.scale_onto(canvas, found)
    assert difference(expected, found) <= 2


def test_faces_outside_of_the_picture_are_black(graphs: FrameGraphs) -> None:
    frame, shown = decoded(640, 360), Presentation(640, 360)
    outside, inside = np.array([[1.0, 0, 2000], [0, 1, 0]]), np.array([[1.0, 0, -100], [0, 1, -100]])
    matrices = [outside, inside, outside]
    expected, found = VideoSurface(frame).crops(matrices, 96), on_device(graphs, frame, shown).crops(matrices, 96)
    assert not found[0].any()
    assert not found[2].any()
    assert difference(expected, found) <= 2
