"""Loads the graphs for a device, and shows before the first frame comes that they compute there what they should."""

from __future__ import annotations

import numpy as np

from visaged.models.device import Device
from visaged.models.errors import ModelError
from visaged.models.graphs.frames import FrameGraphs, Nv12
from visaged.models.preprocess import canvas_for
from visaged.models.session import SessionConfig, open_graph
from visaged.models.types import Image

_WIDTH, _HEIGHT, _PITCH = 1280, 720, 1536
_MOST_LEVELS = 2
_CROP = 112


def checked_graphs(device: Device, config: SessionConfig) -> FrameGraphs:
    """Return the graphs on a device.

    Args:
        device: The device.
        config: How networks run.

    Raises:
        ModelError: They cannot be loaded or run there, or compute something else than on the CPU.
    """
    graphs = FrameGraphs(device, lambda data: open_graph(data, device.kind, config))
    if device.kind == "cpu":
        return graphs
    reference = FrameGraphs(Device("cpu"), lambda data: open_graph(data, "cpu", SessionConfig("cpu")))
    try:
        pairs = zip(_results(graphs), _results(reference), strict=True)
        worst = max(int(np.abs(one.astype(int) - other).max()) for one, other in pairs)
    except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
        raise ModelError(f"graphs cannot be run on {device}: {error}") from error
    if worst > _MOST_LEVELS:
        raise ModelError(f"graphs on {device} give pixels that are {worst} of 255 levels off")
    return graphs


def _results(graphs: FrameGraphs) -> list[Image]:
    """Return a canvas, a picture in true colours and crops of a small and a large face, by way of the device."""
    device = graphs.device
    down, across = np.mgrid[:_HEIGHT, :_PITCH]
    luma = (128 + 100 * np.sin(across / 9) * np.cos(down / 7)).astype(np.uint8)
    chroma = np.stack([across % 256, down % 256], 2)[: _HEIGHT // 2, : _PITCH // 2].astype(np.uint8)
    correction = np.eye(3, dtype=np.float32) * np.float32(0.9)
    frame = Nv12(device.upload(luma), device.upload(chroma), _WIDTH, _HEIGHT, True, correction)
    canvas = canvas_for(_WIDTH, _HEIGHT, 640)
    plan = graphs.plan(_WIDTH, _HEIGHT, canvas, False, lambda x, y, width, height: (x, y))
    picture = canvas.blank()
    graphs.put(frame, plan, picture, true_colours=True)
    faces = [np.array([[1.1, 0.2, -400.0], [-0.2, 1.1, -50.0]]), np.array([[0.3, 0.0, -90.0], [0.0, 0.3, -20.0]])]
    with (
        device.borrowed((canvas.height, canvas.width, 3), np.uint8) as slot,
        device.borrowed((len(faces), _CROP, _CROP, 3), np.uint8) as crops,
    ):
        graphs.put(frame, plan, slot)
        graphs.cut(frame, (_WIDTH, _HEIGHT), lambda x, y, width, height: (x, y), faces, crops)
        return [slot.numpy(), picture, crops.numpy()]
