"""The geometry of `alignment` and `geometry` for batches of tensors: similarities, and poses that turn with a crop."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=1024)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return float32 numbers on a device, copied there once: a copy waits for all that the GPU still has to do."""
    return torch.tensor(values, dtype=torch.float32, device=device)


@lru_cache(maxsize=1024)
def whole_constant(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Return int64 numbers likewise."""
    return torch.tensor(values, dtype=torch.int64, device=device)


def similarity(points: Tensor, template: Tensor) -> Tensor:
    """Return (B, 2, 3) least-squares similarities that take (B, N, 2) points onto (N, 2) of a template.

    As `visaged.models.alignment.similarity`, which names the method.
    """
    source = points - points.mean(1, keepdim=True)
    target = template - template.mean(0)
    spread = source.square().sum((1, 2)).clamp(min=1e-9)
    real = (source * target).sum((1, 2)) / spread
    imaginary = (source[..., 0] * target[:, 1] - source[..., 1] * target[:, 0]).sum(1) / spread
    turn = turning(real, imaginary)
    shift = template.mean(0) - (turn @ points.mean(1)[..., None])[..., 0]
    return torch.cat([turn, shift[..., None]], 2)


def turning(real: Tensor, imaginary: Tensor) -> Tensor:
    """Return (B, 2, 2) matrices that multiply by complex numbers: turn and scale."""
    return torch.stack([torch.stack([real, -imaginary], 1), torch.stack([imaginary, real], 1)], 1)


def inverse(matrices: Tensor) -> Tensor:
    """Return the (B, 2, 3) transforms that undo similarities."""
    real, imaginary = matrices[:, 0, 0], matrices[:, 1, 0]
    length = real.square() + imaginary.square()
    turn = turning(real / length, -imaginary / length)
    return torch.cat([turn, -turn @ matrices[:, :, 2:]], 2)


def moved(points: Tensor, matrices: Tensor) -> Tensor:
    """Return (B, N, 2) points moved by (B, 2, 3) transforms."""
    return points @ matrices[:, :, :2].transpose(1, 2) + matrices[:, None, :, 2]


def turned(angles: Tensor, degrees: Tensor) -> Tensor:
    """Return (B, 3) yaw, pitch, roll after the picture is turned clockwise by (B,) degrees.

    As `visaged.models.geometry.turned`.
    """
    yaw, pitch, roll = angles.deg2rad().unbind(1)
    zero = torch.zeros_like(yaw)
    away = -torch.stack([yaw.sin() * pitch.cos(), -pitch.sin(), -yaw.cos() * pitch.cos()], 1)
    level = torch.stack([yaw.cos(), zero, yaw.sin()], 1)
    right = level * roll.cos()[:, None] + torch.linalg.cross(away, level) * roll.sin()[:, None]
    cosine, sine = degrees.deg2rad().cos(), degrees.deg2rad().sin()

    def turn(axis: Tensor) -> Tensor:
        x, y, z = axis.unbind(1)
        return torch.stack([cosine * x - sine * y, sine * x + cosine * y, z], 1)

    away, right = turn(away), turn(right)
    x, y, z = (-away).unbind(1)
    level = torch.stack([-z, zero, x], 1) / torch.hypot(x, z).clamp(min=1e-9)[:, None]
    down = torch.linalg.cross(away, level)
    roll = torch.atan2((right * down).sum(1), (right * level).sum(1))
    return torch.stack([torch.atan2(x, -z), (-y).clamp(-1, 1).asin(), roll], 1).rad2deg()
