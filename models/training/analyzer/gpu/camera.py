"""What cameras do to pictures, for a batch on a GPU: the like of `samples._camera` and `photometric`, same ranges.

Whatever a sample needs is computed for all or for a fixed number of them, so that nothing waits for the GPU. To shrink,
enlarge and blur are products with one matrix per sample, from both sides. A shrunk picture lies in the upper left of
the canvas, and its last row and column go on to the canvas's end, as JPEG continues a picture.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from torch import Generator, Tensor

from visaged.models.training.analyzer.gpu.plane import constant
from visaged.models.training.analyzer.heads import SIZE

_GREY = (0.114, 0.587, 0.299)
_LEAST_SMALL = 12
_COMPRESSED = 0.18
_MOTION = 0.10
"""Of which 18 % are blurred or sharpened instead."""
_LONGEST = 9

# The quantization tables of JPEG (ITU-T T.81, annex K), luminance and chrominance.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29),
    *(51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121),
    *(120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99),
    *(99, 99, 99, 99, *(99,) * 32),
)


class Chance:
    """Draws for a batch, all on one device."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device = device
        self._generator = Generator(device).manual_seed(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return evenly spread numbers."""
        return torch.rand(shape, generator=self._generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """Return numbers of mean 0 and deviation 1."""
        return torch.randn(shape, generator=self._generator, device=self.device)

    def below(self, end: int, *shape: int) -> Tensor:
        """Return whole numbers from 0 to `end` - 1."""
        return torch.randint(end, shape, generator=self._generator, device=self.device)

    def order(self, count: int) -> Tensor:
        """Return 0 to `count` - 1 in any order."""
        return torch.randperm(count, generator=self._generator, device=self.device)

    def weighted(self, weights: Tensor, count: int) -> Tensor:
        """Return places of `weights`, drawn as often as these say."""
        return torch.multinomial(weights, count, replacement=True, generator=self._generator)


def filtered(images: Tensor, matrices: Tensor) -> Tensor:
    """Return images (B, C, S, S) whose columns and rows were resampled by (B, S, S) matrices."""
    return matrices[:, None] @ images @ matrices[:, None].transpose(2, 3)


def shrinking(small: Tensor, linear: Tensor) -> Tensor:
    """Return (B, SIZE, SIZE) matrices to (B,) whole edges: by areas, or where `linear` by two neighbours."""
    places = torch.arange(float(SIZE), device=small.device)
    ratio = (SIZE / small)[:, None, None]
    row = torch.minimum(places[None], small[:, None] - 1)[:, :, None]
    area = torch.minimum((row + 1) * ratio, places + 1) - torch.maximum(row * ratio, places)
    centre = ((row + 0.5) * ratio - 0.5).clamp(0, SIZE - 1)
    near = 1 - (places - centre).abs()
    weights = torch.where(linear[:, None, None], near, area).clamp(min=0)
    return weights / weights.sum(2, keepdim=True)


def enlarging(small: Tensor, cubic: Tensor) -> Tensor:
    """Return (B, SIZE, SIZE) matrices back from (B,) whole edges, linear or cubic as OpenCV's."""
    places = torch.arange(float(SIZE), device=small.device)
    edge = small[:, None, None]
    centre = (places[None, :, None] + 0.5) * edge / SIZE - 0.5
    centre = torch.minimum(centre.clamp(min=0), edge - 1)
    apart = (places - centre).abs()
    a = -0.75
    inner = ((a + 2) * apart - (a + 3)) * apart.square() + 1
    outer = ((a * apart - 5 * a) * apart + 8 * a) * apart - 4 * a
    curve = torch.where(apart < 1, inner, torch.where(apart < 2, outer, 0.0))
    weights = torch.where(cubic[:, None, None], curve, (1 - apart).clamp(min=0))
    weights = torch.where(places < edge, weights, 0.0)
    return weights / weights.sum(2, keepdim=True)


def smoothing(sigma: Tensor) -> Tensor:
    """Return (B, SIZE, SIZE) matrices that smooth by (B,) pixels."""
    places = torch.arange(float(SIZE), device=sigma.device)
    apart = places[:, None] - places
    weights = torch.exp(-0.5 * (apart / sigma[:, None, None]).square())
    return weights / weights.sum(2, keepdim=True)


def grey_of(images: Tensor) -> Tensor:
    """Return (B, 1, H, W)."""
    return (images * constant(_GREY, images.device)[:, None, None]).sum(1, keepdim=True)


def tone(images: Tensor, chance: Chance) -> Tensor:
    """Change brightness, contrast, gamma and white balance."""
    count = len(images)
    gain, gamma = (chance.normal(count, 1, 1, 1) * 0.22).exp(), (chance.normal(count, 1, 1, 1) * 0.25).exp()
    balance = (chance.normal(count, 3, 1, 1) * 0.06).exp()
    offset = chance.normal(count, 1, 1, 1) * 14
    return (255 * (images / 255).clamp(0, 1) ** gamma * gain * balance + offset).clamp(0, 255)


def colours(images: Tensor, small: Tensor, chance: Chance) -> Tensor:
    """Make some images grey, as if lit by an infrared lamp, or pale or gaudy."""
    count = len(images)
    kind = chance.uniform(count, 1, 1, 1)
    grey = grey_of(images)
    amount = chance.uniform(count, 1, 1, 1, low=0.2, high=1.5)
    strong = (images * amount + grey * (1 - amount)).clamp(0, 255)
    # Dirichlet (1, 2, 2) as sums of exponential numbers.
    parts = -chance.uniform(count, 5, low=1e-6).log()
    weights = torch.stack([parts[:, 0], parts[:, 1] + parts[:, 2], parts[:, 3] + parts[:, 4]], 1)
    lit = (images * (weights / weights.sum(1, keepdim=True))[..., None, None]).sum(1, keepdim=True)
    places = torch.arange(float(SIZE), device=images.device) / small[:, None]
    away = [(places - chance.uniform(count, 1, low=0.3, high=0.7)).square() for _ in range(2)]
    strength, fall = chance.uniform(count, 1, 1, low=0.9, high=1.4), chance.uniform(count, 1, 1, low=1, high=4)
    lamp = (strength * torch.exp(-fall * (away[0][:, :, None] + away[1][:, None])))[:, None]
    lit = torch.where(chance.uniform(count, 1, 1, 1) < 0.5, (lit * lamp).clamp(0, 255), lit)
    changed = torch.where(kind < 0.15, grey, torch.where(kind < 0.22, lit, strong))
    return torch.where(kind < 0.32, changed, images)


def light(images: Tensor, chance: Chance) -> Tensor:
    """Take light away from some images, and add a sensor's noise to some."""
    count = len(images)
    kind = chance.uniform(count, 1, 1, 1)
    dark = kind < 0.06
    share = chance.uniform(count, 1, 1, 1, low=0.12, high=0.5)
    sigma = torch.where(
        dark, chance.uniform(count, 1, 1, 1, low=1, high=6), chance.uniform(count, 1, 1, 1, low=2, high=10)
    )
    noise = chance.normal(*images.shape)
    noise = torch.where(chance.uniform(count, 1, 1, 1) < 0.4, noise[:, :1], noise)
    noisy = (torch.where(dark, images * share, images) + sigma * noise).clamp(0, 255)
    gain = 1 + (0.9 / share - 1) * chance.uniform(count, 1, 1, 1)
    lifted = dark & (chance.uniform(count, 1, 1, 1) < 0.6)
    noisy = torch.where(lifted, (noisy * gain).clamp(0, 255), noisy)
    return torch.where(kind < 0.22, noisy, images)


def compression(images: Tensor, chance: Chance) -> Tensor:
    """Lose what JPEG loses at a quality of 12 to 75: half of the colours' resolution, rounded cosine coefficients."""
    quality = chance.uniform(len(images), 1, 1, 1, 1, low=12, high=75)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    blue, green, red = images.unbind(1)
    bright = 0.299 * red + 0.587 * green + 0.114 * blue
    colour = torch.stack([0.564 * (blue - bright), 0.713 * (red - bright)], 1)
    bright = _rounded(bright[:, None] - 128, _LUMINANCE, scale) + 128
    colour = _rounded(F.avg_pool2d(colour, 2), _CHROMINANCE, scale)
    colour = F.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
    blue, red = bright + colour[:, :1] / 0.564, bright + colour[:, 1:] / 0.713
    green = (bright - 0.114 * blue - 0.299 * red) / 0.587
    return torch.cat([blue, green, red], 1).round().clamp(0, 255)


def _rounded(planes: Tensor, table: tuple[int, ...], scale: Tensor) -> Tensor:
    """Round the cosine coefficients of blocks of 8 x 8 of (B, C, H, W)."""
    count, channels, height, width = planes.shape
    k = torch.arange(8.0, device=planes.device)
    basis = torch.cos(math.pi / 8 * (k + 0.5) * k[:, None]) / 2
    basis[0] /= math.sqrt(2)
    steps = (constant(table, planes.device).view(8, 8) * scale).clamp(1, 255)[:, :, None]  # (B, 1, 1, 1, 8, 8)
    blocks = planes.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ ((coefficients / steps).round() * steps) @ basis
    return blocks.transpose(3, 4).reshape(count, channels, height, width)


def motion(images: Tensor, longest: Tensor, chance: Chance) -> Tensor:
    """Smear (n, 3, H, W) along lines of 3 to (n,) `longest` pixels in any direction."""
    count = len(images)
    length = 3 + (chance.uniform(count) * (longest - 2)).floor()
    middle, angle = (length - 1) / 2, chance.uniform(count, high=math.pi)
    along = torch.linspace(-1, 1, 2 * _LONGEST, device=images.device) * middle[:, None]  # (n, 18)
    centre = _LONGEST // 2 - (length / 2).floor()
    at = [((middle[:, None] + along * f[:, None]).round() + centre[:, None]).long() for f in (angle.sin(), angle.cos())]
    kernel = images.new_zeros(count, _LONGEST * _LONGEST).scatter_(1, at[0] * _LONGEST + at[1], 1.0)
    kernel = (kernel / kernel.sum(1, keepdim=True)).view(count, 1, _LONGEST, _LONGEST).repeat_interleave(3, 0)
    half = _LONGEST // 2
    flat = F.pad(images, (half, half, half, half), mode="replicate").flatten(0, 1)[None]
    return F.conv2d(flat, kernel, groups=3 * count).view_as(images)


def camera(images: Tensor, sizes: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
    """Apply what cameras do.

    Args:
        images: (B, 3, SIZE, SIZE) float32 BGR 0..255.
        sizes: (B,) edges in pixels to which they are shrunk on the way; SIZE where they are not.
        chance: source of chance.

    Returns:
        Whole numbers of the same shape, and (B,) by how many pixels (standard deviation) each was smoothed.
    """
    count = len(images)
    small = torch.where(sizes < SIZE - 1, sizes.round().clamp(min=_LEAST_SMALL), float(SIZE))
    images = filtered(images, shrinking(small, chance.uniform(count) >= 0.6)).round()
    images = torch.where(chance.uniform(count, 1, 1, 1) < 0.65, tone(images, chance), images)
    images = light(colours(images, small, chance), chance)
    compressed = round(_COMPRESSED * count)
    order = chance.order(count)
    before, after = order[:compressed], order[count - compressed :]
    if compressed:
        shrunk = (small < SIZE)[before, None, None, None]
        images[before] = torch.where(shrunk, compression(images[before], chance), images[before])
    images = filtered(images, enlarging(small, chance.uniform(count) >= 0.7)).round().clamp(0, 255)
    variance = torch.where(small < SIZE, (0.5 * SIZE / sizes).square() - 0.25, 0.0)

    kind = chance.uniform(count)
    blurred, sharpened = kind < 0.12, kind > 0.94
    sigma = torch.where(sharpened, 1.2, chance.uniform(count, low=0.4, high=2.4))
    amount = torch.where(sharpened, chance.uniform(count, low=0.3, high=1.2), torch.where(blurred, -1.0, 0.0))
    amount = amount[:, None, None, None]
    images = (images * (1 + amount) - amount * filtered(images, smoothing(sigma))).clamp(0, 255)
    variance = variance + torch.where(blurred, sigma.square(), 0.0)
    moving = chance.order(count)[: round(_MOTION * count)]
    if len(moving):
        still = blurred | sharpened  # one of the three at most
        longest = 3.0 + chance.below(_LONGEST - 2, len(moving))
        images[moving] = torch.where(
            still[moving, None, None, None], images[moving], motion(images[moving], longest, chance)
        )
        variance[moving] += torch.where(still[moving], 0.0, longest.square() / 24)
    if compressed:
        images[after] = compression(images[after].round(), chance)
    return images.round().clamp(0, 255), variance.clamp(min=0).sqrt()
