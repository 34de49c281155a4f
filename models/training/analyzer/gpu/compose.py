"""Training samples composed on the device that learns: the like of `samples.Sampler`, thousands at a time.

A batch holds a fixed number of each pack, one pack after the other, so that what is done to a share of the samples is
done to known places, and nothing waits for the GPU to say which ones these are.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from torch import Tensor

from visaged.models.training.analyzer.gpu import cover
from visaged.models.training.analyzer.gpu.camera import Chance, camera
from visaged.models.training.analyzer.gpu.faces import Faces
from visaged.models.training.analyzer.gpu.plane import (
    constant,
    inverse,
    moved,
    similarity,
    turned,
    turning,
    whole_constant,
)
from visaged.models.training.analyzer.heads import GLASSES, MIRROR_106, QUALITY_SIZES, SIZE
from visaged.models.training.analyzer.labelling.crops import CROP, FIVE, MARGIN
from visaged.models.training.analyzer.loss import Batch
from visaged.models.training.analyzer.samples import BLUR_UNIT, POINT_ERROR, SHIFT_ERROR

_OFTEN_COVERED = ("ages", "portraits")
_COVERED = {True: (0.10, 0.05, 0.03), False: (0.03, 0.02, 0.01)}
"""Shares of masks, sunglasses, hands: of packs that are often covered, and of the others; as in `samples`."""

_LEAST_FACE = 22
"""Edge in pixels to which crops are shrunk at most."""

_UNSEEN = {  # labels that are not known any more
    "mask": ("beard", "attractiveness", "quality"),
    "sunglasses": ("eyes", "attractiveness", "quality"),
    "hand": ("beard", "eyes", "attractiveness", "quality"),
}


def counts(shares: dict[str, float], batch: int) -> dict[str, int]:
    """Return how many samples of each pack make up a batch; raises `ValueError` if it is too small for one of each."""
    total = sum(shares.values())
    found = {name: round(batch * share / total) for name, share in shares.items()}
    largest = max(found, key=lambda name: found[name])
    found[largest] += batch - sum(found.values())
    if min(found.values()) < 1:
        raise ValueError(f"a batch of {batch} holds not one crop of {min(found, key=lambda name: found[name])}")
    return found


@dataclass(frozen=True, slots=True)
class _Crops:
    """A batch before the camera: images (B, 4, 160, 160) float32, targets in pixels and angles of the cached crop."""

    images: Tensor
    targets: dict[str, Tensor]
    scale: Tensor


class Composer:
    """Draws batches from the training side of all packs.

    Args:
        faces: the crops.
        shares: how often each pack is drawn.
        batch: samples of a batch.
        chance: source of chance.
    """

    def __init__(self, faces: Faces, shares: dict[str, float], batch: int, chance: Chance) -> None:
        shares = {name: share for name, share in shares.items() if share and name in faces.starts}
        self.counts = counts(shares, batch)
        self._faces, self._chance, self._batch = faces, chance, batch
        self._canvas = cover.Canvas(chance.device)
        self._mirror = torch.from_numpy(MIRROR_106).to(chance.device)
        self._five = torch.from_numpy(FIVE).float().to(chance.device)
        pixels = torch.arange(float(SIZE), device=chance.device)
        self._pixels = torch.stack(torch.meshgrid(pixels, pixels, indexing="xy"), -1).view(1, -1, 2)

    @torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
    def draw(self) -> Batch:
        """Draw a batch: images (B, 3, 112, 112) uint8, channels last in memory, and targets as `samples.Sample`."""
        crops = self._covered(self._tinted(self._crops()))
        images, targets, sizes = self._seen_by_detector(crops)
        images, sigma = camera(images, sizes, self._chance)
        own = 0.5 * crops.scale.clamp(min=1)
        targets["blur"] = 1 - torch.exp(-(torch.hypot(own, sigma) - 0.5).clamp(min=0) / BLUR_UNIT)
        targets["quality"] = _quality_at(targets["quality"], SIZE * 0.5 / (sigma.square() + 0.25).sqrt())
        images = cover.draw_block(images, self._chance, 0.10)
        return Batch(images.to(torch.uint8).contiguous(memory_format=torch.channels_last), targets)

    def _places(self) -> Tensor:
        faces = self._faces
        return torch.cat(
            [faces.starts[name] + self._chance.weighted(faces.weights[name], n) for name, n in self.counts.items()]
        )

    def _crops(self) -> _Crops:
        """Draw crops, with something in place of what their pictures did not have."""
        chance, count = self._chance, self._batch
        places = self._places()
        packed = self._faces.images[places]
        images, inside = packed[:, :3].float(), packed[:, 3:] > 0
        kind = chance.uniform(count, 1, 1, 1)
        others = self._faces.images[self._places()[chance.order(count)], :3].flip(3)
        filler = torch.where(kind < 0.65, chance.below(256, count, 3, 1, 1), others)
        filler = torch.where(kind < 0.55, 0, filler)
        images = torch.where(inside | (kind >= 0.85), images, filler.float())
        whole = inside.all(3).all(2)[:, :, None, None]
        depth = 1 + chance.below(49, count, 1, 1, 1)
        depth = torch.where(whole & (chance.uniform(count, 1, 1, 1) < 0.12), depth, 0)
        side = chance.below(4, count, 1, 1, 1)
        edge = torch.arange(CROP, device=chance.device)
        x, y = edge[None, None, None, :], edge[None, None, :, None]
        near = torch.where(side < 2, torch.where(side == 0, x, CROP - 1 - x), torch.where(side == 2, y, CROP - 1 - y))
        images = torch.where(near < depth, 0.0, images)
        targets = {name: value[places].clone() for name, value in self._faces.targets.items()}
        targets["grey"] = self._faces.grey[places]
        return _Crops(images, targets, self._faces.scale[places])

    def _tinted(self, crops: _Crops) -> _Crops:
        """Give some grey pictures the colours of skin under some light."""
        chance, count = self._chance, self._batch
        grey = crops.targets.pop("grey") & (chance.uniform(count) < 0.45)
        warmth = chance.uniform(count, 1, high=0.5)
        exponents = 1 + warmth * constant((1.0, 0.35, -0.3), warmth.device)
        exponents = exponents * (0.06 * chance.normal(count, 3)).exp()
        tinted = 255 * (crops.images / 255) ** exponents[:, :, None, None]
        return _Crops(torch.where(grey[:, None, None, None], tinted, crops.images), crops.targets, crops.scale)

    def _covered(self, crops: _Crops) -> _Crops:
        """Draw something over some faces and let the labels say so."""
        start, places = 0, dict[str, list[int]]({what: [] for what in _UNSEEN})
        for name, count in self.counts.items():
            first = start
            for what, share in zip(places, _COVERED[name in _OFTEN_COVERED], strict=True):
                some = int(share * count + random.random())
                places[what].extend(range(first, min(first + some, start + count)))
                first += some
            start += count
        for what, at in places.items():
            if at:
                self._cover(crops, what, whole_constant(tuple(at), self._chance.device))
        return crops

    def _cover(self, crops: _Crops, what: str, at: Tensor) -> None:
        """Draw one kind of thing, in place."""
        chance, targets = self._chance, crops.targets
        points = targets["points"][at]
        may = ~points[:, 0, 0].isnan() & ~(targets["mask"][at] == 1)
        draw = {"mask": cover.draw_mask, "sunglasses": cover.draw_sunglasses, "hand": cover.draw_hand}[what]
        images = crops.images[at]
        drawn = draw(images, points.nan_to_num(80.0), self._canvas, chance)
        crops.images[at] = torch.where(may[:, None, None, None], drawn.round().clamp(0, 255), images)

        def say(key: str, value: float, which: Tensor) -> None:
            known = targets[key][at]
            targets[key][at] = torch.where(which.view(-1, *(1,) * (known.ndim - 1)), value, known)

        for key in _UNSEEN[what]:
            say(key, torch.nan, may)
        if what == "mask":
            say("mask", 1.0, may)
            say("points", torch.nan, may & (chance.uniform(len(at)) < 0.5))
        elif what == "sunglasses":
            say("glasses", float(GLASSES.index("sunglasses")), may)

    def _seen_by_detector(self, crops: _Crops) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Mirror half of the crops and warp all as a detector's points would; return the faces' sizes too."""
        chance, count, targets = self._chance, self._batch, dict(crops.targets)
        mirrored = chance.uniform(count) < 0.5
        points = targets["points"][:, self._mirror]
        points = torch.stack([CROP - 1 - points[..., 0], points[..., 1]], 2)
        points = torch.where(mirrored[:, None, None], points, targets["points"])
        targets["eyes"] = torch.where(mirrored[:, None], targets["eyes"].flip(1), targets["eyes"])
        pose = targets["pose"]
        pose = torch.where(mirrored[:, None], pose * constant((-1.0, 1.0, -1.0), pose.device), pose)

        sizes = chance.uniform(count, low=math.log(_LEAST_FACE), high=math.log(SIZE)).exp()
        sizes = torch.where(chance.uniform(count) < 0.4, float(SIZE), sizes)
        matrices = self._jitter(sizes)
        targets["points"] = moved(points, matrices)
        targets["pose"] = turned(pose, torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]).rad2deg())
        source = moved(self._pixels.expand(count, -1, -1), inverse(matrices))
        x = torch.where(mirrored[:, None], CROP - 1 - source[..., 0], source[..., 0])
        grid = torch.stack([x, source[..., 1]], 2).view(count, SIZE, SIZE, 2) * (2 / (CROP - 1)) - 1
        images = F.grid_sample(crops.images, grid, "bilinear", "zeros", align_corners=True)
        return images, targets, sizes

    def _jitter(self, sizes: Tensor) -> Tensor:
        """Return (B, 2, 3) transforms from cached crops to inputs whose five points a detector found."""
        chance, count = self._chance, len(sizes)
        strength = chance.uniform(count, low=0.3, high=1.25) * (SIZE / sizes) ** 0.2
        errors = POINT_ERROR * chance.normal(count, 5, 2) + SHIFT_ERROR * chance.normal(count, 1, 2)
        matrix = similarity(self._five + strength[:, None, None] * errors, self._five)
        wide = chance.uniform(count, low=-25, high=25)
        angle = torch.where(chance.uniform(count) < 0.85, 3 * chance.normal(count), wide).deg2rad()
        factor = (0.04 * chance.normal(count)).exp()
        turn = turning(factor * angle.cos(), factor * angle.sin())
        middle = constant((56.0, 62.0), sizes.device)
        linear = turn @ matrix[:, :, :2]
        shift = (turn @ (matrix[:, :, 2] - middle)[..., None])[..., 0] + middle
        shift = shift - (linear @ constant((float(MARGIN),) * 2, sizes.device)[:, None])[..., 0]
        return torch.cat([linear, shift[..., None]], 2)


def _quality_at(values: Tensor, sizes: Tensor) -> Tensor:
    """Return (B,): (B, 5) values at QUALITY_SIZES, read at (B,) sizes by straight lines over the logarithm."""
    at = constant(tuple(map(float, QUALITY_SIZES[::-1])), sizes.device).log()
    values = values.flip(1)
    place = sizes.log().clamp(at[0], at[-1])
    left = (torch.searchsorted(at, place, right=True) - 1).clamp(0, len(at) - 2)
    share = (place - at[left]) / (at[left + 1] - at[left])
    low, high = (values.gather(1, (left + i)[:, None])[:, 0] for i in (0, 1))
    return low + share * (high - low)
