"""Runs the graphs on decoded frames: which places and weights go in, for a canvas and for a face."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from visaged.models.alignment import Matrix, invert
from visaged.models.device import Array, Device, DeviceArray, run_into
from visaged.models.graphs.nv12 import canvas_graph, crops_graph
from visaged.models.graphs.taps import halved_and_linear, linear
from visaged.models.preprocess import Canvas
from visaged.models.surface import Cut, cut_of

Stored = Callable[[NDArray[np.int64], NDArray[np.int64], int, int], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Returns where pixels of the upright picture lie in the stored one: of their x and y, its width and its height."""

_MOST_PIXELS: Final = 4_000_000
"""Pixels of the regions of faces that are cut out at once: as floats, and for three channels, 48 MB."""

_LIMITED = (1.0, 0.0, 1.0, 0.0)
_FULL = (219 / 255, 16.0, 224 / 255, 128 - 128 * 224 / 255)


@dataclass(frozen=True, slots=True)
class Nv12:
    """A decoded frame on a device.

    Attributes:
        y: (H, P) uint8, luma, whose rows end in padding.
        uv: (H / 2, P / 2, 2) uint8, chroma for blocks of 2 x 2 pixels, padded too.
        width: Pixels across as stored; even.
        height: Pixels down as stored; even.
        full_range: Whether luma goes from 0 to 255, and not from 16 to 235.
        correction: (3, 3) float32, from BGR made as BT.601 to the frame's standard.
    """

    y: DeviceArray
    uv: DeviceArray
    width: int
    height: int
    full_range: bool
    correction: NDArray[np.float32]

    @property
    def levels(self) -> NDArray[np.float32]:
        """What makes limited range of luma and of chroma: a factor and a summand each."""
        return np.array(_FULL if self.full_range else _LIMITED, np.float32)


class FrameGraphs:
    """The graphs on one device; all methods are thread-safe.

    Args:
        device: Where frames, canvases and crops lie.
        load: Returns a session of ONNX Runtime for a graph, which computes on that device.

    Raises:
        ModelError: A graph cannot be loaded there.
    """

    def __init__(self, device: Device, load: Callable[[bytes], Any]) -> None:
        self.device = device
        self._canvas = load(canvas_graph(corrected=False))
        self._picture = load(canvas_graph(corrected=True))
        self._crops = load(crops_graph())

    def plan(self, width: int, height: int, canvas: Canvas, sideways: bool, stored: Stored) -> CanvasPlan:
        """Return what puts frames of one size on a canvas.

        Args:
            width: Pixels of the frame across, as stored; even.
            height: Pixels of the frame down, as stored; even.
            canvas: Place of the upright picture on the canvas.
            sideways: Whether width and height are swapped when the picture is upright.
            stored: How the upright picture is stored.
        """
        across, down = canvas.picture_width, canvas.picture_height
        columns, rows = (down, across) if sideways else (across, down)
        # The host's path scales chroma to blocks of 2 x 2 pixels too.
        luma = halved_and_linear(height, rows), halved_and_linear(width, columns)
        chroma = [linear(now // 2, new // 2).repeated(2) for now, new in ((height, rows), (width, columns))]
        x, y = stored(np.arange(across)[None], np.arange(down)[:, None], across, down)
        layout = np.full((canvas.height, canvas.width), rows * columns, np.int32)
        canvas.part(layout)[:] = y * columns + x
        values = {
            "rows": luma[0].places,
            "row_weights": luma[0].weights[:, :, None],
            "columns": luma[1].places,
            "column_weights": luma[1].weights,
            "uv_rows": chroma[0].places,
            "uv_row_weights": np.round(chroma[0].weights[:, :, None, None] * 2048).astype(np.int32),
            "uv_columns": chroma[1].places,
            "uv_column_weights": np.round(chroma[1].weights[:, :, None] * 2048),
            "layout": layout,
        }
        return CanvasPlan({name: self.device.upload(value) for name, value in values.items()})

    def put(self, frame: Nv12, plan: CanvasPlan, target: Array, true_colours: bool = False) -> None:
        """Put a frame on a canvas.

        Args:
            frame: The frame.
            plan: Made for its size.
            target: (canvas.height, canvas.width, 3) uint8, on the device or not; all of it is set, as BGR.
            true_colours: Whether the frame's standard counts; else it is taken for BT.601.
        """
        inputs: dict[str, Array] = {"y": frame.y, "uv": frame.uv, "levels": frame.levels, **plan.inputs}
        if true_colours:
            inputs["correction"] = frame.correction.reshape(3, 3, 1, 1)
        run_into(self._picture if true_colours else self._canvas, {"canvas": target}, inputs)

    def cut(
        self, frame: Nv12, upright: tuple[int, int], stored: Stored, matrices: Sequence[Matrix], target: Array
    ) -> None:
        """Cut faces out of a frame.

        Args:
            frame: The frame.
            upright: Width and height of the upright picture.
            stored: How it is stored.
            matrices: The transform from the upright picture to the crop of each of N faces.
            target: (N, size, size, 3) uint8, on the device or not; is set, as BGR.
        """
        size = target.shape[1]
        cuts = [cut_of(matrix, size, *upright) for matrix in matrices]
        for begin, end in _groups(cuts):
            inputs = _crop_inputs(frame, upright, stored, cuts[begin:end], size)
            run_into(self._crops, {"crops": target[begin:end]}, inputs)


@dataclass(frozen=True, slots=True)
class CanvasPlan:
    """What puts frames of one size on one canvas, as `canvas_graph` documents it."""

    inputs: dict[str, DeviceArray]


def _groups(cuts: Sequence[Cut | None]) -> list[tuple[int, int]]:
    """Return from where to where faces are cut out at once: neighbours with blocks of one size, as many as fit."""
    groups: list[tuple[int, int]] = []
    begin = 0
    for _, same in itertools.groupby(cuts, key=lambda cut: 1 if cut is None else cut.factor):
        members = list(same)
        largest = max((cut.rows * cut.columns * cut.factor**2 for cut in members if cut is not None), default=1)
        step = max(1, _MOST_PIXELS // largest)
        for start in range(0, len(members), step):
            groups.append((begin + start, begin + min(start + step, len(members))))
        begin += len(members)
    return groups


def _crop_inputs(
    frame: Nv12, upright: tuple[int, int], stored: Stored, cuts: Sequence[Cut | None], size: int
) -> dict[str, Array]:
    """Return the inputs of `crops_graph` for faces with blocks of one size."""
    known = [cut for cut in cuts if cut is not None]
    factor = known[0].factor if known else 1
    rows, columns = max([2, *(cut.rows for cut in known)]), max([2, *(cut.columns for cut in known)])
    lengths = {"rows": rows, "columns": columns, "uv_rows": rows, "uv_columns": columns}
    places = {name: np.zeros((len(cuts), length, factor), np.int32) for name, length in lengths.items()}
    row_weights = np.zeros((len(cuts), rows, factor), np.float32)
    column_weights = np.zeros((len(cuts), columns, factor), np.float32)
    theta = np.zeros((len(cuts), 2, 3), np.float32)
    pitch = frame.y.shape[1]
    for index, cut in enumerate(cuts):
        if cut is None:
            continue
        block = np.arange(factor)
        across = cut.left + np.arange(cut.columns)[:, None] * factor + block
        down = cut.top + np.arange(cut.rows)[:, None] * factor + block
        # Each axis of the stored picture goes with one of the upright one, so places are sums of two parts.
        for axis, x, y in (("rows", np.zeros_like(down), down), ("columns", across, np.zeros_like(across))):
            x, y = stored(x, y, *upright)
            places[axis][index, : len(x)] = y * pitch + x
            places[f"uv_{axis}"][index, : len(x)] = y // 2 * (pitch // 2) + x // 2
        first_x, first_y = (int(value) for value in stored(np.array(0), np.array(0), *upright))  # in both parts so far
        places["columns"][index, : cut.columns] -= first_y * pitch + first_x
        places["uv_columns"][index, : cut.columns] -= first_y // 2 * (pitch // 2) + first_x // 2
        row_weights[index, : cut.rows] = column_weights[index, : cut.columns] = 1 / factor
        theta[index] = invert(cut.matrix) * [[2 / (columns - 1)], [2 / (rows - 1)]] - [[0, 0, 1], [0, 0, 1]]
    return {
        "y": frame.y.flat(1),
        "uv": frame.uv.flat(2),
        "rows": places["rows"][:, :, None, :, None],
        "columns": places["columns"][:, None, :, None],
        "uv_rows": places["uv_rows"][:, :, None, :, None],
        "uv_columns": places["uv_columns"][:, None, :, None],
        "row_weights": row_weights[:, :, None, :, None],
        "column_weights": column_weights[:, None, :, None],
        "levels": frame.levels,
        "correction": frame.correction.reshape(3, 3, 1, 1, 1, 1),
        "steps": _steps(size),
        "theta": theta[:, None, None],
    }


@functools.lru_cache(maxsize=8)
def _steps(size: int) -> NDArray[np.float32]:
    """Return x, y and 1 for each pixel of a crop, (size, size, 1, 3) float32."""
    y, x = np.mgrid[:size, :size]
    return np.stack([x, y, np.ones_like(x)], -1).astype(np.float32)[:, :, None]
