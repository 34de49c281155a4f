"""Which cells must find which face, and how far off the network is.

A face belongs to the 3x3 cells about its centre that lie inside it, at every stride whose range holds its size; the
ranges overlap, so the change from one stride to the next leaves no gap. Scores learn by quality focal loss with the
box's IoU as target: a score then says how good the box is, and non-maximum suppression keeps the best one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from visaged.models.training.network import STRIDES
from visaged.models.training.packs import FloatArray

SIZE_RANGE = {8: (0.0, 44.0), 16: (32.0, 120.0), 32: (88.0, np.inf)}
"""Face sizes in pixels that each stride answers for."""

SCORE_WEIGHT, BOX_WEIGHT, POINT_WEIGHT = 1.5, 2.0, 0.8
FEW_CELLS = 0.35
"""Each of a face's n cells weighs (9 / n) to this power."""

LEAST_TARGET = 0.2
"""A face's cell aims at this score at least, also while its box is still bad."""


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
        height: of the picture, pixels.
        width: of the picture, pixels.
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


def flatten(maps: list[Tensor]) -> Tensor:
    """Put the raw maps of all strides into one (B, cells, 15) float32."""
    return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1).float()


def boxes_from_raw(raw: Tensor, centres: Tensor) -> Tensor:
    """Turn raw distances (P, 4) at cells (P, 3: x, y, stride) into boxes (P, 4) in pixels."""
    distances = F.softplus(raw) * centres[:, 2:3]
    return torch.cat([centres[:, :2] - distances[:, :2], centres[:, :2] + distances[:, 2:]], 1)


def iou_and_distance_penalty(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the IoU of box pairs (P, 4) and the squared distance of their centres over the joint diagonal's square."""
    inner = (torch.min(a[:, 2:], b[:, 2:]) - torch.max(a[:, :2], b[:, :2])).clamp(0).prod(1)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    iou = inner / (area_a + area_b - inner + 1e-6)
    outer = torch.max(a[:, 2:], b[:, 2:]) - torch.min(a[:, :2], b[:, :2])
    centre_distance = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]).square().sum(1) / 4
    return iou, centre_distance / (outer.square().sum(1) + 1e-6)


def detection_loss(raw: Tensor, targets: list[Targets], centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weighted losses of scores, boxes and points, each a scalar.

    Args:
        raw: (B, cells, 15) float32, of `flatten`.
        targets: one per picture.
        centres: (cells, 3) float32, of `cell_centres`.
    """
    picture = torch.from_numpy(np.repeat(np.arange(len(targets)), [len(t.cells) for t in targets]))
    cell = torch.from_numpy(np.concatenate([t.cells for t in targets]))
    boxes = torch.from_numpy(np.concatenate([t.boxes for t in targets]))
    points = torch.from_numpy(np.concatenate([t.points for t in targets]))
    weight = torch.from_numpy(np.stack([t.weight for t in targets]))

    at, found = centres[cell], raw[picture, cell]  # (P, 3), (P, 15)
    iou, penalty = iou_and_distance_penalty(boxes_from_raw(found[:, 1:5], at), boxes)
    quality = iou.detach().clamp(LEAST_TARGET)

    target = torch.zeros(raw.shape[:2])
    target[picture, cell] = quality
    logits = raw[..., 0]
    focal = (target - logits.sigmoid()).square() * weight
    importance = weight[picture, cell]  # (P,)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    score_loss = (entropy * focal).sum() / importance.sum().clamp(1)

    importance = importance * quality
    total = importance.sum().clamp(1e-6)
    box_loss = ((1 - iou + penalty) * importance).sum() / total

    stride = at[:, 2:3]
    aim = (points - at[:, :2].repeat(1, 5)) / stride  # (P, 10)
    known = ~aim.isnan()
    size = (boxes[:, 2:] - boxes[:, :2]).prod(1, keepdim=True).sqrt() / stride
    miss = F.smooth_l1_loss(found[:, 5:], torch.where(known, aim, 0.0), reduction="none", beta=0.2)
    point_loss = ((miss * known / size.clamp(1)).sum(1) * importance).sum() / total
    return SCORE_WEIGHT * score_loss, BOX_WEIGHT * box_loss, POINT_WEIGHT * point_loss
