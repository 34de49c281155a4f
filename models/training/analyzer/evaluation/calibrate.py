"""Making an analyzer's probabilities mean what they say, on held-out crops.

    python -m visaged.models.training.analyzer.evaluation.calibrate RUN/last.pt --cache CROPS --out RUN/calibrated.pt

Per head one temperature and one bias per class (Guo et al., "On calibration of modern neural networks", ICML 2017), and
one factor for the spread of the age. All are folded into the last layers, so the exported file needs nothing more.
Fitted on all held-out crops, with a detector's errors and as small faces; the printed figures before and after are
honest: fitted on one half of the pictures and measured on the other, both ways.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from torch import Tensor

from visaged.models.training.analyzer.evaluation.figures import evaluation_labels, reliability
from visaged.models.training.analyzer.evaluation.views import VIEWS, crops, half_of, held_out
from visaged.models.training.analyzer.heads import AGES
from visaged.models.training.analyzer.labelling.cache import LABELS, Pack, read_packs
from visaged.models.training.analyzer.labelling.crops import COVERED_PACKS
from visaged.models.training.analyzer.network import Analyzer, load_checkpoint
from visaged.models.training.common import command
from visaged.models.training.common.running import save

_LEAST_LABELS = 60
_PULL = 0.5
"""Pull of the fitted scale's logarithm and biases towards zero, in labels: heads with few labels stay what they are."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """What is done to a head's raw outputs: multiplied by `scale`, then `bias` is added."""

    scale: float
    bias: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the calibrated outputs."""
        return logits * self.scale + self.bias


Loss = Callable[[Tensor, Tensor], Tensor]


def _binary(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets)


def _winner(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy with the winner of the votes, so that the winner's probability is the chance that it is right."""
    return F.cross_entropy(logits, targets.argmax(1))


def _some_glasses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy where 3 means glasses or sunglasses."""
    chances = F.log_softmax(logits, 1)
    choices = torch.cat([chances, torch.logsumexp(chances[:, 1:], 1, keepdim=True)], 1)
    return -choices.gather(1, targets.long()[:, None]).mean()


def fit(logits: Tensor, targets: Tensor, loss: Loss) -> Scaling:
    """Fit one scale and a bias per output; logits (N, K), targets as `loss` takes them."""
    log_scale = torch.zeros((), requires_grad=True)
    bias = torch.zeros(logits.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([log_scale, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        pull = _PULL / len(logits) * (log_scale.square() + bias.square().sum())
        value = loss(logits * log_scale.exp() + bias, targets) + pull
        torch.autograd.backward(value)
        return float(value.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Scaling(float(log_scale.detach().exp()), bias.detach())


def winners(logits: Tensor, targets: Tensor, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
    """Return the winner's probability and whether it is right, for the reliability of a head."""
    if loss is _binary:
        chance = logits.sigmoid().reshape(-1)
        return torch.maximum(chance, 1 - chance).numpy(), ((chance >= 0.5) == (targets.reshape(-1) >= 0.5)).numpy()
    chance = logits.softmax(1)
    if loss is _winner:
        return chance.max(1).values.numpy(), (chance.argmax(1) == targets.argmax(1)).numpy()
    some = 1 - chance[:, 0]
    return torch.maximum(some, 1 - some).numpy(), ((some >= 0.5) == (targets > 0)).numpy()


def read(model: Analyzer, packs: dict[str, Pack], most: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Return raw outputs and labels of the held-out crops in three sizes, and which half each picture belongs to."""
    outputs: dict[str, list[Tensor]] = {}
    labels: dict[str, list[Tensor]] = {}
    halves = []
    for pack in packs.values():
        places = held_out(pack)[:most]
        sides = torch.tensor([half_of(str(name)) for name in pack.names[places]])
        for view in VIEWS[1:]:
            known = evaluation_labels(
                {name: value[places] for name, value in pack.labels.items()},
                {name: value[places] for name, value in pack.truth.items()},
                surely_bare=pack.name not in COVERED_PACKS,
                size=view.size,
            )
            for images, _ in crops(pack, places, view):
                with torch.no_grad():
                    found = model(torch.from_numpy(images).permute(0, 3, 1, 2).float())
                for name, value in found.items():
                    outputs.setdefault(name, []).append(value)
            for name, label in known.items():
                labels.setdefault(name, []).append(torch.from_numpy(np.asarray(label, np.float32)))
            halves.append(sides)
    return (
        {name: torch.cat(parts) for name, parts in outputs.items()},
        {name: torch.cat(parts) for name, parts in labels.items()},
        torch.cat(halves),
    )


def targets_of(head: str, labels: dict[str, Tensor]) -> tuple[Tensor, Tensor, Loss]:
    """Return a head's targets, which of them are known, and its loss."""
    if head == "emotion":
        return labels["emotion"], ~labels["emotion"][:, 0].isnan(), _winner
    if head == "glasses":
        return labels["glasses"], ~labels["glasses"].isnan(), _some_glasses
    if head == "eyes":
        eyes = labels["eyes"]
        return eyes, ((eyes < 0.2) | (eyes > 0.8)).all(1), _binary
    label = labels[head if head == "female" else f"seen_{head}"]
    known = ~label.isnan()
    if head == "female":
        known = known & ~(labels["age"] <= 5)
    return label[:, None], known, _binary


def one_deviation(ratio: Tensor) -> float:
    """Return what 68.3 % of (N,) errors, in parts of the spread, stay below.

    Few gross errors would stretch a mean square: the share within one deviation is what is read as confidence.
    """
    return float(ratio.sort().values[int(0.683 * len(ratio))])


def calibrate(model: Analyzer, outputs: dict[str, Tensor], labels: dict[str, Tensor], halves: Tensor) -> float:
    """Fold the fitted scalings into the model, print reliabilities, and return the factor for the age's spread."""
    print("| head | labels | reliability before, % | after, % | scale |\n|---|---|---|---|---|")
    for head in ("female", "emotion", "mask", "glasses", "beard", "hat", "eyes"):
        targets, known, loss = targets_of(head, labels)
        logits, truth, half = outputs[head][known], targets[known], halves[known]
        if len(truth) < _LEAST_LABELS:
            continue
        after = []
        for side in (0, 1):
            scaling = fit(logits[half != side], truth[half != side], loss)
            after.append(winners(scaling(logits[half == side]), truth[half == side], loss))
        before = reliability(*winners(logits, truth, loss))
        crossed = reliability(*(np.concatenate(part) for part in zip(*after, strict=True)))
        scaling = fit(logits, truth, loss)
        layer = model.heads[head]
        layer.weight.data *= scaling.scale  # type: ignore[union-attr,operator]
        layer.bias.data = layer.bias.data * scaling.scale + scaling.bias  # type: ignore[union-attr,operator]
        print(f"| {head} | {len(truth)} | {before:.2f} | {crossed:.2f} | {scaling.scale:.2f} |")
    known = ~labels["age"].isnan()
    chances, years = outputs["age"][known].softmax(1), labels["age"][known]
    bins = torch.arange(float(AGES))
    mean = (chances * bins).sum(1)
    spread = (chances * (bins - mean[:, None]).square()).sum(1).clamp(min=0.25).sqrt()
    ratio, half = (mean - years).abs() / spread, halves[known]
    crossed = torch.cat([ratio[half == side] / one_deviation(ratio[half != side]) for side in (0, 1)])
    share, crossed_share = (100 * float((values <= 1).float().mean()) for values in (ratio, crossed))
    factor = one_deviation(ratio)
    print(f"age within one deviation: {share:.1f} % before, {crossed_share:.1f} % after (68.3); factor {factor:.2f}")
    return factor


def main() -> None:
    """Read the command line and calibrate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="directory of crops and labels")
    parser.add_argument("--labels", type=Path, default=LABELS, help="directory of labels made by eye")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write, without the optimizer's state")
    parser.add_argument("--most", type=int, default=10**9, help="crops of each pack, for a quick look")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, checkpoint = load_checkpoint(arguments.checkpoint)
    model.eval()
    outputs, labels, halves = read(model, read_packs(arguments.cache, arguments.labels), arguments.most)
    factor = calibrate(model, outputs, labels, halves)
    content = {name: checkpoint[name] for name in ("network", "training", "seen")}
    save(arguments.out, content | {"averaged": model.state_dict(), "deviation_scale": factor})


if __name__ == "__main__":
    command.run(main)
