"""What training minimises: one term per head, over the samples that have its label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from torch import Tensor

from visaged.models.training.analyzer.heads import AGES, GLASSES, POSE_UNIT
from visaged.models.training.analyzer.labelling.cache import SOME_GLASSES
from visaged.models.training.analyzer.samples import Sample

WEIGHTS = {
    "points": 0.5,
    "age": 0.4,
    "age_error": 0.1,
    "female": 1.0,
    "emotion": 1.4,
    "mask": 1.2,
    "glasses": 1.0,
    "beard": 1.0,
    "hat": 0.6,
    "eyes": 1.0,
    "pose": 1.5,
    "attractiveness": 20.0,
    "quality": 2.0,
    "blur": 2.0,
}

TAUGHT_WEIGHTS = {"taught_age": 0.8, "taught_emotion": 2.0, "taught_female": 1.5, "taught_attractiveness": 30.0}
"""For a network that learns from a larger one too: what `taught_losses` adds to the terms of WEIGHTS."""

_LEAST_SEX_AGE = 4
"""Younger faces say too little of it."""
_SMOOTHING = 0.01
_FEW = 4.0
"""A term is a sum over the labelled samples divided by their number plus this, so that one alone counts little."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples as tensors.

    Attributes:
        images: (B, 3, 112, 112) uint8 BGR, channels last in memory.
        targets: (B, ...) float32 by head, NaN where unknown.
    """

    images: Tensor
    targets: dict[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device, copied only where it lies on another."""
        return Batch(
            self.images.to(device, non_blocking=True, memory_format=torch.channels_last),
            {name: value.to(device, non_blocking=True) for name, value in self.targets.items()},
        )


def collate(samples: list[Sample]) -> Batch:
    """Put samples together."""
    images = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2)
    names = samples[0].targets
    return Batch(images, {name: torch.from_numpy(np.stack([s.targets[name] for s in samples])) for name in names})


def analyzer_losses(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the unweighted terms by the names of WEIGHTS.

    Args:
        outputs: float32, raw, as `Analyzer` gives them.
        targets: as in `Batch`.
    """
    distance = _distance(outputs["points"], targets["points"])
    losses = {"points": _mean(_huber(distance, 2.0), targets["points"])}
    losses |= people_losses(outputs, targets)
    for name in ("mask", "beard", "hat"):
        losses[name] = _binary(outputs[name][:, 0], targets[name])
    losses["eyes"] = _binary(outputs["eyes"], targets["eyes"])
    losses["glasses"] = _glasses(outputs["glasses"], targets["glasses"])
    pose = _distance(outputs["pose"], targets["pose"] / POSE_UNIT)
    losses["pose"] = _mean(_huber(pose, 0.3), targets["pose"])
    for name in ("quality", "blur"):
        losses[name] = _score(outputs[name], targets[name])
    return losses


def people_losses(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the terms that people's labels are for: age, gender, emotion, attractiveness.

    Of two faces laid over each other, these can be told for both ("mixup: Beyond empirical risk minimization", Zhang et
    al., ICLR 2018): the loss is that of either face by its share.
    """
    losses = _age(outputs["age"], targets["age"])
    sex = torch.where(targets["age"] < _LEAST_SEX_AGE, torch.nan, targets["female"])
    losses["female"] = _binary(outputs["female"][:, 0], sex)
    votes = targets["emotion"]
    known = ~votes[:, 0].isnan()
    entropy = -(votes.nan_to_num() * F.log_softmax(outputs["emotion"], 1)).sum(1)
    losses["emotion"] = (entropy * known).sum() / (known.sum() + _FEW)
    losses["attractiveness"] = _score(outputs["attractiveness"], targets["attractiveness"])
    return losses


def taught_losses(outputs: dict[str, Tensor], taught: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return how far a network is from what a larger one says of the same crops, by the names of TAUGHT_WEIGHTS.

    Every crop counts, whatever labels it has: a grey 48 px face learns an age, and a portrait an emotion. The classes'
    probabilities are compared as they are, not softened by a temperature (after "Knowledge distillation: A good teacher
    is patient and consistent", Beyer et al., 2022, whose student also sees the teacher's very crops).

    Args:
        outputs: float32, raw, as `Analyzer` gives them.
        taught: the same of the larger network, without gradients.
    """
    losses = {
        f"taught_{name}": F.kl_div(
            F.log_softmax(outputs[name], 1), F.log_softmax(taught[name], 1), reduction="batchmean", log_target=True
        )
        for name in ("age", "emotion")
    }
    losses["taught_female"] = F.binary_cross_entropy_with_logits(outputs["female"], taught["female"].sigmoid())
    apart = (outputs["attractiveness"].sigmoid() - taught["attractiveness"].sigmoid()).abs()
    return losses | {"taught_attractiveness": _huber(apart, 0.1).mean()}


def total(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Return the weighted sum."""
    return torch.stack([weights[name] * value for name, value in losses.items()]).sum()


def _distance(values: Tensor, targets: Tensor) -> Tensor:
    """Return the absolute difference, 0 where unknown: NaN would spoil the gradient even of what is left out later."""
    return (values - torch.where(targets.isnan(), values.detach(), targets)).abs()


def _mean(values: Tensor, targets: Tensor) -> Tensor:
    """Average what is known; samples count, not their numbers."""
    known = ~targets.isnan()
    share = known.numel() / len(targets)
    return torch.where(known, values, 0.0).sum() / (known.sum() + _FEW * share)


def _huber(distance: Tensor, turn: float) -> Tensor:
    """Return a square that becomes a line of slope 1 at `turn`."""
    return torch.where(distance < turn, distance.square() / (2 * turn), distance - turn / 2)


def _score(logits: Tensor, targets: Tensor) -> Tensor:
    return _mean(_huber(_distance(logits[:, 0].sigmoid(), targets), 0.1), targets)


def _binary(logits: Tensor, targets: Tensor) -> Tensor:
    smooth = targets.nan_to_num() * (1 - 2 * _SMOOTHING) + _SMOOTHING
    return _mean(F.binary_cross_entropy_with_logits(logits, smooth, reduction="none"), targets)


def _glasses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy; where only "some glasses" is known, both kinds together are the right answer."""
    chances = F.log_softmax(logits, 1)
    some = torch.logsumexp(chances[:, 1:], 1, keepdim=True)
    choices = torch.cat([chances, some], 1)  # columns: GLASSES, then SOME_GLASSES
    assert choices.shape[1] == len(GLASSES) + 1 == SOME_GLASSES + 1
    index = targets.nan_to_num().long()[:, None]
    return _mean(-choices.gather(1, index)[:, 0], targets)


def _age(logits: Tensor, years: Tensor) -> dict[str, Tensor]:
    """Cross entropy with a bell around the true age, wider for older faces, and the error of the mean."""
    bins = torch.arange(float(AGES), device=logits.device)
    age = years.nan_to_num(30.0)[:, None]
    bell = torch.exp(-0.5 * ((bins - age) / (1.5 + 0.04 * age)).square())
    chances = F.log_softmax(logits, 1)
    entropy = -(bell / bell.sum(1, keepdim=True).clamp(min=1e-6) * chances).sum(1)
    error = ((chances.exp() * bins).sum(1) - age[:, 0]).abs()
    return {"age": _mean(entropy, years), "age_error": _mean(error, years)}
