"""Which cells must find which face.

A face belongs to the 3x3 cells about its centre that lie inside it, at every stride whose range holds its size; the
ranges overlap, so the change from one stride to the next leaves no gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visaged.models.training.common.packs import FloatArray
from visaged.models.training.detector.shapes import STRIDES

SIZE_RANGE = {8: (0.0, 44.0), 16: (32.0, 120.0), 32: (88.0, np.inf)}
"""Face sizes in pixels that each stride answers for."""

FEW_CELLS = 0.35
"""Each of a face's n cells weighs (9 / n) to this power."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What one picture's cells should say; cells of the strides 8, 16, 32 are counted through, row by row.

    Attributes:
        cells: (P,) int64, cells that hold a face.
        boxes: (P, 4) float32 pixels, the box of each such cell.
        points: (P, 10) float32 pixels, NaN where unknown.
        weight: (cells of all strides,) float32: 0 where a doubtful face lies, 1 on background, more on the few cells of
            a small face, which would else be learned less than a large one's many.
    """

    cells: NDArray[np.int64]
    boxes: FloatArray
    points: FloatArray
    weight: FloatArray


def cell_centres(height: int, width: int) -> FloatArray:
    """Return (cells, 3) float32: each cell's centre x, y in pixels and its stride."""
    parts = []
    for stride in STRIDES:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride].reshape(2, -1)
        parts.append(np.stack([(x + 0.5) * stride, (y + 0.5) * stride, np.full(len(x), stride)], 1))
    return np.concatenate(parts).astype(np.float32)


def assign(boxes: FloatArray, points: FloatArray, doubtful: FloatArray, height: int, width: int) -> Targets:
    """Give each face its cells; where two claim one, the face whose centre is nearer (in face sizes) has it.

    Args:
        boxes: (N, 4) float32 pixels of sure faces.
        points: (N, 5, 2) float32 pixels, NaN where unknown.
        doubtful: (M, 4) float32 pixels of boxes to leave out.
        height: pixels of the picture, down.
        width: pixels of the picture, across.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # (N, 2)
    edges = boxes[:, 2:] - boxes[:, :2]
    sizes = np.sqrt(edges.prod(1))
    all_cells, all_faces, weights = [], [], []
    first = 0
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        weight = np.ones((rows, columns), np.float32)
        for left, top, right, bottom in doubtful:
            top_row, left_column = int(max(top, 0) // stride), int(max(left, 0) // stride)
            weight[top_row : int(np.ceil(bottom / stride)), left_column : int(np.ceil(right / stride))] = 0
        low, high = SIZE_RANGE[stride]
        faces = np.nonzero((sizes >= low) & (sizes < high))[0]
        home = np.floor(centres[faces] / stride).astype(np.int64)  # (n, 2) column, row
        cost, cell, face = [], [], []
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                at = home + np.array([dx, dy])
                offset = (at + 0.5) * stride - centres[faces]
                inside = (np.abs(offset) < 0.4 * edges[faces]).all(1) | (dx == dy == 0)
                inside &= ((at >= 0) & (at < (columns, rows))).all(1)
                cost.append((offset**2).sum(1)[inside] / sizes[faces][inside] ** 2)
                cell.append((at[:, 1] * columns + at[:, 0])[inside])
                face.append(faces[inside])
        order = np.argsort(-np.concatenate(cost), kind="stable")  # the nearest is written last and stays
        owner = np.full(rows * columns, -1)
        owner[np.concatenate(cell)[order]] = np.concatenate(face)[order]
        cells = np.nonzero(owner >= 0)[0]
        share = np.bincount(owner[cells], minlength=len(boxes))[owner[cells]]
        weight.reshape(-1)[cells] = (9 / share) ** FEW_CELLS
        all_cells.append(cells + first)
        all_faces.append(owner[cells])
        weights.append(weight.reshape(-1))
        first += rows * columns
    owners = np.concatenate(all_faces)
    return Targets(np.concatenate(all_cells), boxes[owners], points.reshape(-1, 10)[owners], np.concatenate(weights))


@dataclass(frozen=True, slots=True)
class BatchTargets:
    """The targets of a batch's B pictures, one after the other.

    Attributes:
        pictures: (P,) int64, to which picture each of the other rows belongs.
        cells: (P,) int64.
        boxes: (P, 4) float32 pixels.
        points: (P, 10) float32 pixels, NaN where unknown.
        weight: (B, cells of all strides) float32.
    """

    pictures: NDArray[np.int64]
    cells: NDArray[np.int64]
    boxes: FloatArray
    points: FloatArray
    weight: FloatArray

    @classmethod
    def of(cls, targets: list[Targets]) -> BatchTargets:
        """Join the targets of pictures of one size."""
        return cls(
            np.repeat(np.arange(len(targets)), [len(t.cells) for t in targets]),
            np.concatenate([t.cells for t in targets]),
            np.concatenate([t.boxes for t in targets]),
            np.concatenate([t.points for t in targets]),
            np.stack([t.weight for t in targets]),
        )
