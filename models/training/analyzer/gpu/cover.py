"""Masks, sunglasses, hands and plain blocks over a batch of faces on a GPU: the like of `occlusion`, same ranges.

Shapes are drawn by asking of every pixel whether it lies inside; smoothed afterwards, as there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from torch import Tensor

from visaged.models.training.analyzer.gpu.camera import Chance
from visaged.models.training.analyzer.gpu.plane import constant, whole_constant
from visaged.models.training.analyzer.labelling.crops import CROP
from visaged.models.training.analyzer.occlusion import MASK_COLOURS

_CHEEK = 27
_COLOURS = tuple(float(value) for value in MASK_COLOURS.ravel())
_TARGETS = (16, 10, 22, 87, 93, 54)
_FINGERS = 4


class Canvas:
    """Where the pixels of cached crops are, and shapes among them; all are (n, 1, CROP, CROP), 0 or 1."""

    def __init__(self, device: torch.device) -> None:
        places = torch.arange(float(CROP), device=device)
        self.x, self.y = places[None, None, None, :], places[None, None, :, None]

    def polygon(self, corners: Tensor) -> Tensor:
        """Return which pixels lie inside of (n, V, 2) corners, by the crossings of a ray."""
        x0, y0 = (corners[..., i, None, None] for i in (0, 1))
        x1, y1 = (corners.roll(-1, 1)[..., i, None, None] for i in (0, 1))
        crosses = (y0 > self.y) != (y1 > self.y)
        slope = (x1 - x0) / torch.where(y1 == y0, 1.0, y1 - y0)
        left = self.x < x0 + (self.y - y0) * slope
        return ((crosses & left).sum(1, keepdim=True) % 2).float()

    def line(self, start: Tensor, end: Tensor, width: Tensor) -> Tensor:
        """Return lines with round ends from (n, 2) to (n, 2), (n,) pixels wide."""
        along = (end - start)[..., None, None]
        x, y = self.x - start[:, 0, None, None, None], self.y - start[:, 1, None, None, None]
        length = along.square().sum(1, keepdim=True).clamp(min=1e-6)
        share = ((x * along[:, :1] + y * along[:, 1:]) / length).clamp(0, 1)
        apart = torch.hypot(x - share * along[:, :1], y - share * along[:, 1:])
        return (width[:, None, None, None] / 2 + 0.5 - apart).clamp(0, 1)

    def oval(self, centre: Tensor, wide: Tensor, high: Tensor, angle: Tensor, square: Tensor) -> Tensor:
        """Return ellipses, or where `square` rectangles, of (n,) half axes, turned by (n,) radians."""
        x, y = self.x - centre[:, 0, None, None, None], self.y - centre[:, 1, None, None, None]
        cosine, sine, wide, high = (v[:, None, None, None] for v in (angle.cos(), angle.sin(), wide, high))
        across, down = (cosine * x + sine * y) / wide, (cosine * y - sine * x) / high
        box = (across.abs() <= 1) & (down.abs() <= 1)
        round_ = across.square() + down.square() <= 1
        return torch.where(square[:, None, None, None], box, round_).float()

    def shaded(self, colour: Tensor, chance: Chance) -> Tensor:
        """Return (n, 3, CROP, CROP): (n, 3) colours under light from one side, half of them with folds across."""
        count = len(colour)
        x, y = self.x / CROP - 0.5, self.y / CROP - 0.5
        angle = chance.uniform(count, 1, 1, 1, high=2 * math.pi)
        bright = 1 + chance.uniform(count, 1, 1, 1, high=0.5) * (x * angle.cos() + y * angle.sin())
        waves = 2 * math.pi * chance.uniform(count, 1, 1, 1, low=12, high=30)
        folds = chance.uniform(count, 1, 1, 1, low=0.01, high=0.05)
        folds = folds * (waves * (y + 0.1 * chance.normal(count, 1, 1, 1) * x)).sin()
        folds = torch.where(chance.uniform(count, 1, 1, 1) < 0.5, folds, 0.0)
        return ((bright + folds) * colour[:, :, None, None]).clamp(0, 255)


def smoothed(values: Tensor, sigma: float) -> Tensor:
    """Return (n, C, H, W) smoothed by so many pixels."""
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=values.device) / sigma).square())
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    flat = values.flatten(0, 1)[:, None]
    flat = F.conv2d(F.pad(flat, (reach, reach, reach, reach), mode="replicate"), kernel)
    return F.conv2d(flat, kernel.transpose(2, 3)).view_as(values)


def pasted(images: Tensor, patch: Tensor, weight: Tensor) -> Tensor:
    """Return images with a patch laid over them where (n, 1, H, W) weights say so."""
    return images + (patch - images) * weight


def draw_mask(images: Tensor, points: Tensor, canvas: Canvas, chance: Chance) -> Tensor:
    """Put masks over noses, mouths and chins.

    Args:
        images: (n, 3, CROP, CROP) float32 BGR.
        points: (n, 106, 2) pixels of it.
        canvas: of the same size and device.
        chance: source of chance.
    """
    count = len(images)
    first = 3 + chance.below(5, count, 1)
    place = torch.minimum(first + torch.arange(_CHEEK, device=images.device), 32 - first)
    outline = points.gather(1, place[..., None].expand(-1, -1, 2))  # from cheek to cheek over the chin
    # The last corner comes several times: it must not pull the centre.
    fresh = (place < 32 - first)[..., None].float()
    fresh[:, -1] = 1
    centre = (outline * fresh).sum(1, keepdim=True) / fresh.sum(1, keepdim=True)
    outline = centre + (outline - centre) * chance.uniform(count, 1, 1, low=1.0, high=1.1)
    outline = outline + torch.cat([torch.zeros_like(centre[..., :1]), chance.uniform(count, 1, 1, high=4)], 2)
    share = chance.uniform(count, 1, low=0.1, high=0.75)  # how high on the nose it sits
    bridge = points[:, 44] * (1 - share) + points[:, 46] * share
    right, left = points[:, 82:84].mean(1), points[:, 78:80].mean(1)
    above = constant((0.0, 3.0), points.device)
    top = torch.stack([(right + outline[:, -1]) / 2 - above, bridge, (left + outline[:, 0]) / 2 - above], 1)
    top = torch.where((top[:, 0, 0] < top[:, 2, 0])[:, None, None], top.flip(1), top)
    cover = canvas.polygon(torch.cat([outline, top], 1))
    known = constant(_COLOURS, images.device).view(-1, 3)[chance.below(len(MASK_COLOURS), count)]
    known = known * chance.uniform(count, 1, low=0.75, high=1.05)
    colour = torch.where(chance.uniform(count, 1) < 0.6, known, chance.uniform(count, 3, low=20, high=240))
    brightness = images[:, :, 40:120, 40:120].mean((1, 2, 3))[:, None] / 130
    patch = canvas.shaded((colour * brightness.clamp(0.4, 1.2)).clamp(0, 255), chance)
    images = pasted(images, patch, smoothed(cover, 0.8))
    tone = (colour * brightness).clamp(0, 255)[:, :, None, None]
    strapped = (chance.uniform(count) < 0.6).float()[:, None, None, None]
    up, thin = constant((0.0, 6.0), points.device), torch.ones(count, device=images.device)
    for cheek, ear in ((outline[:, 0], points[:, 0]), (outline[:, -1], points[:, 32])):
        images = pasted(images, tone, strapped * canvas.line(cheek, ear - up, thin))
    return images


def draw_sunglasses(images: Tensor, points: Tensor, canvas: Canvas, chance: Chance) -> Tensor:
    """Put dark glasses over eyes; arguments as for `draw_mask`."""
    count = len(images)
    right, left = points[:, 52:58].mean(1), points[:, 58:64].mean(1)
    apart = left - right
    distance = apart.norm(dim=1).clamp(min=1)
    angle = torch.atan2(apart[:, 1], apart[:, 0])
    wide = distance * chance.uniform(count, low=0.36, high=0.47)
    high = distance * chance.uniform(count, low=0.24, high=0.40)
    down = torch.stack([-apart[:, 1], apart[:, 0]], 1) * chance.uniform(count, 1, high=0.12)
    square = chance.uniform(count) < 0.5
    cover = torch.zeros_like(images[:, :1])
    for eye, side in ((right, -1), (left, 1)):
        centre = eye + down + side * apart * 0.02
        cover = torch.maximum(cover, canvas.oval(centre, wide, high, angle, square))
    thickness = [1.0 + chance.below(3, count) for _ in range(3)]
    cover = torch.maximum(cover, canvas.line(right - down / 2, left - down / 2, thickness[0]))
    for eye, ear, width in ((right, points[:, 1], thickness[1]), (left, points[:, 31], thickness[2])):
        end = torch.stack([ear[:, 0], eye[:, 1] + down[:, 1]], 1)
        cover = torch.maximum(cover, canvas.line(eye, end, width))
    patch = canvas.shaded(chance.uniform(count, 1, high=70) + chance.uniform(count, 3, high=25), chance)
    one = torch.where(chance.uniform(count, 1) < 0.5, right, left) + 4 * chance.normal(count, 2)
    shine = canvas.oval(one, wide / 2, high * 0.35, chance.uniform(count, high=math.pi), torch.zeros_like(square))
    shine = smoothed(shine, 3.0) * constant((160.0, 150.0, 140.0), images.device)[:, None, None]
    lit = (chance.uniform(count) < 0.5).float()[:, None, None, None]
    patch = (patch + lit * shine).clamp(0, 255)
    far = (distance >= 8).float()[:, None, None, None]
    strength = far * chance.uniform(count, 1, 1, 1, low=0.85, high=1.0)
    return pasted(images, patch, strength * smoothed(cover, 0.6))


def draw_hand(images: Tensor, points: Tensor, canvas: Canvas, chance: Chance) -> Tensor:
    """Put some fingers in a face's own colour over mouth, chin, cheek or an eye; arguments as for `draw_mask`."""
    count, every = len(images), torch.arange(len(images), device=images.device)
    cheek = points[:, 78:80].mean(1).clamp(4, CROP - 5)
    near = (canvas.x - cheek[:, 0, None, None, None]).abs().maximum((canvas.y - cheek[:, 1, None, None, None]).abs())
    near = (near <= 4.5).float()
    skin = (images * near).sum((2, 3)) / near.sum((2, 3)).clamp(min=1)
    patch = canvas.shaded(skin * chance.uniform(count, 1, low=0.75, high=1.15), chance)
    target = points[every, whole_constant(_TARGETS, images.device)[chance.below(len(_TARGETS), count)]]
    target = target + 5 * chance.normal(count, 2)
    direction = chance.uniform(count, low=-0.35 * math.pi, high=0.35 * math.pi) + math.pi / 2  # from below
    along = torch.stack([direction.cos(), direction.sin()], 1)
    across = torch.stack([-along[:, 1], along[:, 0]], 1)
    thick = chance.uniform(count, low=9, high=14)
    fingers = 2 + chance.below(_FINGERS - 1, count)
    for finger in range(_FINGERS):
        base = target + across * thick[:, None] * (finger - 1.5)
        tip = base - along * chance.uniform(count, 1, high=12)
        cover = canvas.line(tip, base + along * 90, thick.floor())
        cover = cover * (fingers > finger).float()[:, None, None, None]
        shade = (patch * chance.uniform(count, 1, 1, 1, low=0.85, high=1.1)).clamp(0, 255)
        images = pasted(images, shade, smoothed(cover, 1.0))
    return images


def draw_block(images: Tensor, chance: Chance, share: float) -> Tensor:
    """Put plain rectangles anywhere on a share of (B, 3, S, S)."""
    count, _, size, _ = images.shape
    edges = size // 10 + chance.below(size // 3 - size // 10, count, 2)
    corner = chance.below(size, count, 2)
    places = torch.arange(size, device=images.device)
    inside = (places >= corner[..., None]) & (places < (corner + edges)[..., None])  # (B, 2, S)
    block = inside[:, 0, None, None, :] & inside[:, 1, None, :, None]
    block &= chance.uniform(count, 1, 1, 1) < share
    return torch.where(block, chance.below(256, count, 3, 1, 1).to(images.dtype), images)
