"""What a batch teaches: the labels of its faces, those of faces laid over each other, and what larger networks say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visaged.models.training.analyzer.gpu.camera import Chance
from visaged.models.training.analyzer.loss import Batch, analyzer_losses, people_losses, taught_losses, total
from visaged.models.training.analyzer.network import Analyzer

Raw = dict[str, Tensor]

MIXED_SHARE = 0.5
_MIXED_TERMS = ("age", "female", "emotion", "attractiveness")
_EVEN = 0.4
"""Both parameters of the beta distribution of a face's share: mostly one face and a shadow of another."""


class Mixing:
    """Lays faces of one pack over each other, which have the same kinds of labels.

    Args:
        counts: samples of each pack in a batch, in the batch's order.
        chance: source of chance; all of a batch are mixed by one share, drawn from `seed`.
        share: of each pack's samples that are mixed, the last ones; things are drawn over the first.
        seed: of the faces' shares.
    """

    def __init__(self, counts: dict[str, int], chance: Chance, share: float, seed: int) -> None:
        self._chance, self._rng = chance, np.random.default_rng(seed)
        firsts, numbers, start = [], [], 0
        for count in counts.values():
            start += count
            mixed = int(share * count)
            firsts += [start - mixed] * mixed
            numbers += [mixed] * mixed
        self._first, self._number = (torch.tensor(v, dtype=torch.long, device=chance.device) for v in (firsts, numbers))
        places = [first + i for first in sorted(set(firsts)) for i in range(firsts.count(first))]
        self.mixed = torch.tensor(places, dtype=torch.long, device=chance.device)
        plain = np.setdiff1d(np.arange(start), places)
        self.plain = torch.from_numpy(plain).to(chance.device)

    def draw(self, batch: Batch) -> Lesson:
        """Mix a batch."""
        images = batch.images.float()
        if not len(self.mixed):
            return Lesson(images, batch.targets, None, None, 1.0)
        share = float(self._rng.beta(_EVEN, _EVEN))
        share = max(share, 1 - share)
        step = 1 + (self._chance.uniform(1) * (self._number - 1)).long()
        partner = self._first + (self.mixed - self._first + step) % self._number
        images[self.mixed] = share * images[self.mixed] + (1 - share) * images[partner]
        plain, one, other = (
            {name: value[places] for name, value in batch.targets.items()}
            for places in (self.plain, self.mixed, partner)
        )
        return Lesson(images, plain, one, other, share, self.plain, self.mixed)


@dataclass(frozen=True, slots=True)
class Lesson:
    """A batch as it is learnt from.

    Attributes:
        images: (B, 3, 112, 112) float32 BGR.
        targets: of the faces that are not mixed.
        one: of the mixed faces, or None where there are none.
        other: of the faces that are laid over these.
        share: how much of `one` is seen.
        plain: places of the faces that are not mixed, or None for all.
        mixed: places of those that are.
    """

    images: Tensor
    targets: Raw
    one: Raw | None
    other: Raw | None
    share: float
    plain: Tensor | None = None
    mixed: Tensor | None = None

    def loss(self, outputs: Raw, weights: dict[str, float], taught: Raw | None) -> tuple[Tensor, Raw]:
        """Return the scalar to minimise, and unweighted terms by name.

        Args:
            outputs: float32, raw, of all images.
            weights: by the names of `loss.WEIGHTS` and `loss.TAUGHT_WEIGHTS`.
            taught: what a larger network says, or None.
        """
        plain = outputs if self.plain is None else {name: value[self.plain] for name, value in outputs.items()}
        terms = analyzer_losses(plain, self.targets)
        if taught is not None:
            terms |= taught_losses(outputs, taught)
        loss = total(terms, weights)
        if self.one is not None and self.other is not None:
            mixed = {name: value[self.mixed] for name, value in outputs.items()}
            for targets, share in ((self.one, self.share), (self.other, 1 - self.share)):
                found = people_losses(mixed, targets)
                loss = loss + share * total({name: found[name] for name in _MIXED_TERMS}, weights)
        return loss, terms


@torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
def said_by(teachers: list[Analyzer], images: Tensor) -> Raw | None:
    """Return the mean of what networks say, as raw outputs; only what `taught_losses` reads."""
    if not teachers:
        return None
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
        raw = [teacher(images) for teacher in teachers]
    found = {}
    for name in ("age", "emotion"):
        found[name] = torch.stack([one[name].float().log_softmax(1) for one in raw]).logsumexp(0)
    for name in ("female", "attractiveness"):
        chance = torch.stack([one[name].float().sigmoid() for one in raw]).mean(0).clamp(1e-5, 1 - 1e-5)
        found[name] = chance.logit()
    return found
