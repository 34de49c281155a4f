"""Graphs that take a decoded frame as decoders of GPUs give it, NV12: luma, and chroma for blocks of 2 x 2 pixels.

They compute what the path through host memory does (`pipelines/source/picture`, `models/surface.py`), step for step and
rounded where that rounds, so that their results differ from its by 2 of 255 levels at most. Every node has a kernel in
ONNX Runtime's CUDA provider for its types (its docs/OperatorKernels.md); convolutions and matrix products are
avoided, since those would be computed with the ten bits of TF32.

All that depends on a size, a turn or a place comes in as indices and weights (`taps.py`), so there is one graph of each
kind for all cameras, and rows' padding (the pitch of a GPU's memory) is never looked at.
"""

from __future__ import annotations

import numpy as np

from visaged.models.graphs.writer import Graph

# OpenCV's conversion of YUV as BT.601 in limited range, which has these in 20 binary digits.
_LUMA = 1220542 / 2**20
_BLUE_OF_U, _GREEN_OF_U, _GREEN_OF_V, _RED_OF_V = (n / 2**20 for n in (2116026, -409993, -852492, 1673527))


def canvas_graph(*, corrected: bool) -> bytes:
    """Return the graph that puts a frame on a canvas.

    Inputs: `y` (H, P) and `uv` (H / 2, P / 2, 2) uint8, the planes with their padding; for rows and columns of the
    small picture as stored, h and w, which of the plane's they are made of and with which weights:
    `rows` (h, T) int32 and `row_weights` (h, T, 1) float32, `columns` (w, S) and `column_weights` (w, S); the same for
    chroma, `uv_rows` (h, 2), `uv_row_weights` (h, 2, 1, 1) int32, `uv_columns` (w, 2), `uv_column_weights` (w, 2, 1),
    its weights as whole numbers of 1 / 2048;
    `levels` (4,) float32, what makes limited range of luma and of chroma, a factor and a summand each; `layout`
    (CH, CW) int32, which of the small picture's h x w pixels lies where on the canvas, h x w itself for black.

    Output: `canvas` (CH, CW, 3) uint8 BGR.

    Args:
        corrected: Whether there is a last input, `correction` (3, 3, 1, 1) float32, to be applied to BGR made as
            BT.601: [i, j] says how much of channel j goes into channel i.
    """
    graph = Graph("nv12-to-canvas")
    y = graph.input("y", "uint8", "plane_rows", "plane_columns")
    uv = graph.input("uv", "uint8", "uv_plane_rows", "uv_plane_columns", 2)
    rows, row_weights = graph.input("rows", "int32", "h", "t"), graph.input("row_weights", "float32", "h", "t", 1)
    columns, column_weights = (
        graph.input("columns", "int32", "w", "s"),
        graph.input("column_weights", "float32", "w", "s"),
    )
    uv_rows = graph.input("uv_rows", "int32", "h", 2)
    uv_row_weights = graph.input("uv_row_weights", "int32", "h", 2, 1, 1)
    uv_columns = graph.input("uv_columns", "int32", "w", 2)
    uv_column_weights = graph.input("uv_column_weights", "float32", "w", 2, 1)
    levels = graph.input("levels", "float32", 4)
    layout = graph.input("layout", "int32", "canvas_rows", "canvas_columns")
    luma = _sampled(graph, _sampled(graph, y, rows, row_weights, 0), columns, column_weights, 1)  # (h, w)
    chroma = _interpolated(graph, uv, uv_rows, uv_row_weights, uv_columns, uv_column_weights)  # (h, w, 2)
    bgr = _bgr(graph, _half_up(graph, luma), chroma, levels)  # (3, h, w)
    if corrected:
        bgr = _corrected(graph, bgr, graph.input("correction", "float32", 3, 3, 1, 1))
    flat = graph.add("Reshape", _bytes_of(graph, bgr), graph.constant(np.array([3, -1])))
    pixels = graph.add("Transpose", flat, perm=(1, 0))  # (h * w, 3)
    pixels = graph.add("Concat", pixels, graph.constant(np.zeros((1, 3), np.uint8)), axis=0)
    canvas = graph.add("Gather", pixels, layout, axis=0)
    graph.output(canvas, "canvas", "uint8", "canvas_rows", "canvas_columns", 3)
    return graph.model()


def crops_graph() -> bytes:
    """Return the graph that cuts N faces out of a frame: averages blocks of F x F pixels, then samples bilinearly.

    Inputs: `y` (n,) and `uv` (m, 2) uint8, the planes with their padding. Each face's region has R x C blocks, upright;
    where one has less, its weights are 0. `rows` (N, R, 1, F, 1) and `columns` (N, 1, C, 1, F) int32 add up to places
    in `y`, `uv_rows` and `uv_columns` to places in `uv`; `row_weights` (N, R, 1, F, 1) and `column_weights`
    (N, 1, C, 1, F) float32; `levels` (4,) and `correction` (3, 3, 1, 1, 1, 1) float32 as for `canvas_graph`;
    `steps` (S, S, 1, 3) float32, x, y and 1 for each pixel of a crop; `theta` (N, 1, 1, 2, 3) float32, from there to
    the region, whose outermost blocks are at -1 and 1.

    Output: `crops` (N, S, S, 3) uint8 BGR; what lies outside of the region is black.
    """
    graph = Graph("crops")
    y, uv = graph.input("y", "uint8", "n"), graph.input("uv", "uint8", "m", 2)
    rows, columns = (
        graph.input("rows", "int32", "N", "R", 1, "F", 1),
        graph.input("columns", "int32", "N", 1, "C", 1, "F"),
    )
    uv_rows = graph.input("uv_rows", "int32", "N", "R", 1, "F", 1)
    uv_columns = graph.input("uv_columns", "int32", "N", 1, "C", 1, "F")
    row_weights = graph.input("row_weights", "float32", "N", "R", 1, "F", 1)
    column_weights = graph.input("column_weights", "float32", "N", 1, "C", 1, "F")
    levels = graph.input("levels", "float32", 4)
    correction = graph.input("correction", "float32", 3, 3, 1, 1, 1, 1)
    steps, theta = graph.input("steps", "float32", "S", "S", 1, 3), graph.input("theta", "float32", "N", 1, 1, 2, 3)
    # The F x F pixels of a block become one axis: few axes are fast, and ONNX Runtime takes eight at most.
    together, together_uv = (graph.constant(np.array(shape)) for shape in ([0, 0, 0, -1], [0, 0, 0, -1, 2]))
    luma = graph.add("Gather", y, graph.add("Add", rows, columns), axis=0)
    luma = _float(graph, graph.add("Reshape", luma, together))  # (N, R, C, F * F)
    chroma = graph.add("Gather", uv, graph.add("Add", uv_rows, uv_columns), axis=0)
    chroma = _float(graph, graph.add("Reshape", chroma, together_uv))  # (N, R, C, F * F, 2)
    weights = graph.add("Reshape", graph.add("Mul", row_weights, column_weights), together)
    bgr = _corrected(graph, _bgr(graph, luma, chroma, levels), correction)  # (3, N, R, C, F * F)
    averaged = graph.add("ReduceSum", graph.add("Mul", bgr, weights), graph.constant(np.array([4])), keepdims=0)
    averaged = graph.add("Round", averaged)
    region = graph.add("Transpose", averaged, perm=(1, 0, 2, 3))  # (N, 3, R, C)
    grid = graph.add("ReduceSum", graph.add("Mul", steps, theta), graph.constant(np.array([4])), keepdims=0)
    sampled = graph.add("GridSample", region, grid, mode="bilinear", padding_mode="zeros", align_corners=1)
    crops = graph.add("Transpose", _bytes_of(graph, graph.add("Round", sampled)), perm=(0, 2, 3, 1))
    graph.output(crops, "crops", "uint8", "N", "S", "S", 3)
    return graph.model()


def _sampled(graph: Graph, plane: str, places: str, weights: str, axis: int) -> str:
    """Return weighted sums of a plane's rows (axis 0) or columns (axis 1)."""
    weighted = graph.add("Mul", _float(graph, graph.add("Gather", plane, places, axis=axis)), weights)
    return graph.add("ReduceSum", weighted, graph.constant(np.array([axis + 1])), keepdims=0)


def _interpolated(graph: Graph, uv: str, rows: str, row_weights: str, columns: str, column_weights: str) -> str:
    """Return chroma as `cv2.resize` interpolates it, whose integers lose an eighth of a level on average.

    Blue changes by two levels with one of chroma, so that rounding otherwise would cost more than is allowed.
    """
    across = graph.add("Mul", _sampled(graph, uv, columns, column_weights, 1), _number(graph, 1 / 16))
    taken = graph.add("Gather", graph.add("Cast", across, to=6), rows, axis=0)  # (h, 2, w, 2), less what is behind 1
    parts = graph.add("Div", graph.add("Mul", taken, row_weights), graph.constant(np.array(65536, np.int32)))
    quarters = graph.add("ReduceSum", _float(graph, parts), graph.constant(np.array([1])), keepdims=0)
    return _half_up(graph, graph.add("Mul", quarters, _number(graph, 1 / 4)))


def _bgr(graph: Graph, luma: str, chroma: str, levels: str) -> str:
    """Return BGR, (3, ...) float32 with whole numbers of 0..255, of luma (...) and chroma (..., 2)."""
    factor, summand, uv_factor, uv_summand = (_part(graph, levels, index, 0) for index in range(4))
    luma = graph.add("Round", graph.add("Add", graph.add("Mul", luma, factor), summand))
    chroma = graph.add("Round", graph.add("Add", graph.add("Mul", chroma, uv_factor), uv_summand))
    luma = graph.add("Relu", graph.add("Sub", luma, _number(graph, 16)))
    chroma = graph.add("Sub", chroma, _number(graph, 128))
    u, v = (_part(graph, chroma, index, -1) for index in range(2))
    ours = ((0.0, _BLUE_OF_U), (_GREEN_OF_V, _GREEN_OF_U), (_RED_OF_V, 0.0))
    channels = []
    for of_v, of_u in ours:
        channel = graph.add("Mul", luma, _number(graph, _LUMA))
        for value, weight in ((u, of_u), (v, of_v)):
            if weight:
                added = graph.add("Mul", value, _number(graph, weight))
                channel = graph.add("Add", channel, added)
        channels.append(graph.add("Unsqueeze", channel, graph.constant(np.array([0]))))
    return _rounded(graph, graph.add("Concat", *channels, axis=0))


def _corrected(graph: Graph, bgr: str, correction: str) -> str:
    """Return BGR (3, ...) by another standard than BT.601; `correction` is (3, 3, 1, ...)."""
    weighted = graph.add("Mul", correction, bgr)  # (3, 3, ...)
    return _rounded(graph, graph.add("ReduceSum", weighted, graph.constant(np.array([1])), keepdims=0))


def _half_up(graph: Graph, value: str) -> str:
    """Return whole numbers as OpenCV makes them when it scales; `Round` takes a half to the next even one."""
    return graph.add("Floor", graph.add("Add", value, _number(graph, 0.5)))


def _rounded(graph: Graph, value: str) -> str:
    low, high = (_number(graph, level) for level in (0, 255))
    return graph.add("Clip", graph.add("Round", value), low, high)


def _number(graph: Graph, value: float) -> str:
    return graph.constant(np.array(value, np.float32))


def _bytes_of(graph: Graph, value: str) -> str:
    return graph.add("Cast", value, to=2)


def _float(graph: Graph, value: str) -> str:
    return graph.add("Cast", value, to=1)


def _part(graph: Graph, value: str, index: int, axis: int) -> str:
    """Return one place of an axis, which goes."""
    return graph.add("Gather", value, graph.constant(np.array(index)), axis=axis)
