"""All crops and labels of a cache as tensors on one device, and what a trained analyzer says where nobody has.

Labels of people are few beside what the network is to tell. Where training has none, the shipped network's own answers
for the clean crop and its mirror image are learnt: what it knows is kept, and costs seconds on a GPU.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from visaged.models.training.analyzer.gpu.camera import enlarging, filtered, shrinking
from visaged.models.training.analyzer.heads import GLASSES, MIRROR_106, POSE_UNIT, QUALITY_SIZES, SIZE
from visaged.models.training.analyzer.labelling.cache import SOME_GLASSES, Pack
from visaged.models.training.analyzer.labelling.crops import COVERED_PACKS, CROP, MARGIN
from visaged.models.training.analyzer.samples import picture_weights

_CHUNK = 512
_SURE = 0.85
"""From this probability on, an answer about glasses is taken."""


@dataclass
class Faces:
    """N crops, pack after pack.

    Attributes:
        images: (N, 4, 160, 160) uint8: blue, green, red, and 255 where the picture had the pixel.
        targets: (N, ...) float32 by head, as in `Pack.labels`.
        scale: (N,) float32, pixels of the crop per pixel of the picture.
        weights: by pack, (n,) float32: how often each of its crops is drawn; 0 for those that are held out.
        starts: by pack, the place of its first crop.
        grey: (N,) bool.
        val: (N,) bool.
    """

    images: Tensor
    targets: dict[str, Tensor]
    scale: Tensor
    grey: Tensor
    val: Tensor
    weights: dict[str, Tensor] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)

    def clean(self, places: Tensor) -> Tensor:
        """Return (n, 3, 112, 112) float32, aligned by the labelled points, black outside of the picture."""
        edge = slice(MARGIN, CROP - MARGIN)
        images = self.images[places, :, edge, edge]
        return images[:, :3].float() * (images[:, 3:] > 0)


def in_share(name: str, share: float) -> bool:
    """Return whether a picture belongs to a share of all, by its name; a larger share has all of a smaller one."""
    return zlib.crc32(name.encode()) % 1000 < 1000 * share


def on_device(packs: dict[str, Pack], device: torch.device, share: float = 1.0) -> Faces:
    """Copy packs to a device.

    Args:
        packs: as `read_packs` gives them.
        device: where.
        share: of the pictures to train on, for a learning curve; the others are never drawn.
    """
    total = sum(len(pack) for pack in packs.values())
    images = torch.empty((total, 4, CROP, CROP), dtype=torch.uint8, device=device)
    starts, weights, start = {}, {}, 0
    for name, pack in packs.items():
        for first in range(0, len(pack), _CHUNK):
            part = slice(first, min(first + _CHUNK, len(pack)))
            at = slice(start + part.start, start + part.stop)
            images[at, :3] = torch.from_numpy(np.array(pack.images[part])).to(device).permute(0, 3, 1, 2)
            inside = np.unpackbits(pack.inside[part], axis=1).reshape(-1, CROP, CROP)
            images[at, 3] = torch.from_numpy(inside).to(device) * 255
        often = picture_weights(pack) * [in_share(str(n), share) for n in pack.names]
        weights[name] = torch.from_numpy((often / often.sum()).astype(np.float32)).to(device)
        starts[name] = start
        start += len(pack)

    def joined(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(device)

    every = list(packs.values())
    return Faces(
        images=images,
        targets={key: joined([pack.labels[key] for pack in every]) for key in every[0].labels},
        scale=joined([pack.scale for pack in every]),
        grey=joined([np.full(len(pack), pack.images.shape[3] == 1) for pack in every]),
        val=joined([pack.val for pack in every]),
        weights=weights,
        starts=starts,
    )


def fill(faces: Faces, packs: dict[str, Pack], network: nn.Module) -> None:
    """Put a network's answers where the training side has no labels, in place; what is held out stays as it is."""
    network.eval()
    wanted = ~faces.val
    covered = torch.zeros_like(wanted)
    for name, start in faces.starts.items():
        covered[start : start + len(packs[name])] = name in COVERED_PACKS
    bare = wanted & (~covered | (faces.targets["mask"] == 0))
    targets = faces.targets
    for places, said in _answers(faces, network, wanted):
        glasses = said["glasses"].softmax(1)
        kind = torch.full_like(glasses[:, 0], torch.nan)
        kind[glasses[:, 0] < 1 - _SURE] = SOME_GLASSES
        for index in range(len(GLASSES)):
            kind[glasses[:, index] > _SURE] = float(index)
        for key, values, which in (
            ("pose", said["pose"] * POSE_UNIT, wanted),
            ("points", said["points"] + MARGIN, bare),
            ("eyes", said["eyes"].sigmoid(), bare),
            ("glasses", kind, bare),
            ("beard", said["beard"][:, 0].sigmoid(), bare),
            ("hat", said["hat"][:, 0].sigmoid(), wanted),
            ("quality", said["quality_at"], bare),
        ):
            known = targets[key][places]
            missing = known.isnan() & which[places].view(-1, *(1,) * (known.ndim - 1))
            targets[key][places] = torch.where(missing, values, known)


@torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
def _answers(faces: Faces, network: nn.Module, wanted: Tensor) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Yield places and the network's raw outputs, the mean of crop and mirror image; `quality_at` (n, 5) as labels."""
    mirror = torch.from_numpy(MIRROR_106).to(wanted.device)
    for places in wanted.nonzero()[:, 0].split(_CHUNK):
        images = faces.clean(places)
        said, other = network(images), network(images.flip(3))
        points = other["points"][:, mirror]
        other["points"] = torch.stack([SIZE - 1 - points[..., 0], points[..., 1]], 2)
        other["eyes"] = other["eyes"].flip(1)
        other["pose"] = other["pose"] * other["pose"].new_tensor([-1.0, 1.0, -1.0])
        both = {name: (said[name] + other[name]) / 2 for name in said}
        quality = []
        for size in QUALITY_SIZES:
            small = torch.full((len(places),), float(size), device=wanted.device)
            near = torch.zeros(len(places), dtype=torch.bool, device=wanted.device)
            shrunk = filtered(filtered(images, shrinking(small, near)), enlarging(small, near))
            quality.append(network(shrunk)["quality"][:, 0].sigmoid())
        yield places, both | {"quality_at": torch.stack(quality, 1)}
