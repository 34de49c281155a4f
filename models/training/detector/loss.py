"""How far off the network is from what its cells should say (`assignment`).

Scores learn by quality focal loss with the box's IoU as target: a score then says how good the box is, and non-maximum
suppression keeps the best one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visaged.models.training.common.running import to_device
from visaged.models.training.detector.assignment import BatchTargets

SCORE_WEIGHT, BOX_WEIGHT, POINT_WEIGHT = 1.5, 2.0, 0.8

LEAST_TARGET = 0.2
"""A face's cell aims at this score at least, also while its box is still bad."""


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


def detection_loss(raw: Tensor, targets: BatchTargets, centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weighted losses of scores, boxes and points, each a scalar.

    Args:
        raw: (B, cells, 15) float32, as `flatten` returns it.
        targets: what the cells of the batch's pictures should say.
        centres: (cells, 3) float32, as `cell_centres` returns it.
    """
    picture, cell = to_device(targets.pictures, raw.device), to_device(targets.cells, raw.device)
    boxes, points = to_device(targets.boxes, raw.device), to_device(targets.points, raw.device)
    weight = to_device(targets.weight, raw.device)

    at, found = centres[cell], raw[picture, cell]  # (P, 3), (P, 15)
    iou, penalty = iou_and_distance_penalty(boxes_from_raw(found[:, 1:5], at), boxes)
    quality = iou.detach().clamp(LEAST_TARGET)

    target = torch.zeros(raw.shape[:2], device=raw.device)
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
