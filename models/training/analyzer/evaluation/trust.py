"""Fitting how far an analyzer can be trusted: faces of each size, angle and sharpness, and what is no face.

    python -m visaged.models.training.analyzer.evaluation.trust looks.npz

Prints what belongs into the manifest: `no_face` of the analyzer and `doubt` of each head (`visaged.models.trust` says
what they do), fitted to one side of the looks; and judged by the other side: how sure the answers are and how many of
them are right (`reliability_tables`), before and after. No slope may be negative. `no_face` is fitted by logistic
regression with faces and no faces of equal weight together, and each pack and each source of no faces of equal weight;
a temperature by the cross entropy of the right label; what a deviation grows by, by that of being within the tolerance.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from numpy.typing import NDArray
from torch import Tensor

from visaged.models.manifest import AnalyzerEntry, Doubt, Head, Manifest
from visaged.models.training.analyzer.evaluation.looks import FITTED, Looks
from visaged.models.training.analyzer.evaluation.reliability import judged_heads, reliability_tables
from visaged.models.training.common import command
from visaged.models.training.evaluation.evaluate import newest
from visaged.models.trust import SIGNS

_LEAST_LABELS = 60
_PULL = 0.5
"""Pull of slopes and base towards zero, in labels: heads with few labels stay what they are."""
_OF_A_HEAD = ("small", "turned", "tilted", "blurred")
_OF_NO_FACE = ("small", "turned", "tilted", "blurred", "poor", "askew", "unsure")
_CAUTION = {"turned": 0.7, "tilted": 0.35}
"""Least slopes of every head: too few labelled faces are turned by more than 30 degrees for a fit to see anything."""
_CAUTION_NO_FACE = {"turned": 2.0}

FloatArray = NDArray[np.float64]


def _fit(
    names: tuple[str, ...], least: Mapping[str, float], signs: FloatArray, loss: Callable[[Tensor], Tensor]
) -> Doubt:
    """Fit slopes of the named signs, none below `least`, and a base; `loss` takes doubts (N,) to a mean."""
    x = torch.from_numpy(signs[:, [SIGNS.index(name) for name in names]])
    floor = torch.tensor([least.get(name, 0.0) for name in names], dtype=torch.float64)
    raw = torch.full((len(names),), -2.0, dtype=torch.float64, requires_grad=True)
    base = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([raw, base], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        slopes = F.softplus(raw)
        value = loss(x @ (slopes + floor) + base) + _PULL / len(x) * (slopes.square().sum() + base.square())
        torch.autograd.backward(value)
        return float(value.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slopes = (F.softplus(raw) + floor).detach().numpy()
    found = {name: round(float(slope), 2) for name, slope in zip(names, slopes, strict=True)}
    return Doubt(base=round(float(base.detach()), 2), **found)


def fit_no_face(looks: Looks) -> Doubt:
    """Fit the log-odds of a look's showing no face."""
    weight = np.zeros(len(looks))
    for face in (True, False):
        packs = np.unique(looks.pack[looks.face == face])
        for pack in packs:
            part = looks.pack == pack
            weight[part] = 0.5 / len(packs) / part.sum()
    weights, none = torch.from_numpy(weight), torch.from_numpy((~looks.face).astype(np.float64))

    def loss(doubts: Tensor) -> Tensor:
        return (weights * F.binary_cross_entropy_with_logits(doubts, none, reduction="none")).sum()

    return _fit(_OF_NO_FACE, _CAUTION_NO_FACE, looks.signs, loss)


def fit_head(head: Head, looks: Looks) -> Doubt | None:
    """Fit the doubt of a head to faces; None where too few have a label."""
    known = looks.face & ~np.isnan(looks.truth[head.name])
    if known.sum() < _LEAST_LABELS:
        return None
    values = torch.from_numpy(looks.values[head.name][known].astype(np.float64))
    truth = torch.from_numpy(looks.truth[head.name][known].astype(np.float64))

    def of_classes(doubts: Tensor) -> Tensor:
        return F.cross_entropy(values.clamp(min=1e-9).log() / doubts.exp()[:, None], truth.long())

    def of_number(doubts: Tensor) -> Tensor:
        assert head.tolerance is not None
        hit = ((values[:, 0] - truth).abs() <= head.tolerance).double()
        chance = torch.erf(head.tolerance / (values[:, 1] * doubts.exp() * 2**0.5))
        return F.binary_cross_entropy(chance.clamp(1e-6, 1 - 1e-6), hit)

    return _fit(_OF_A_HEAD, _CAUTION, looks.signs[known], of_number if head.kind == "number" else of_classes)


def fitted(entry: AnalyzerEntry, looks: Looks) -> AnalyzerEntry:
    """Return an analyzer's entry with what is fitted to one side of the looks."""
    looks = looks[looks.side == FITTED]
    judged = judged_heads(entry)
    heads = [
        head.model_copy(update={"doubt": fit_head(head, looks)}) if head in judged else head for head in entry.heads
    ]
    return entry.model_copy(update={"heads": heads, "no_face": fit_no_face(looks)})


def _yaml(doubt: Doubt | None) -> str:
    values = {} if doubt is None else {name: value for name, value in doubt.model_dump().items() if value}
    return "{" + ", ".join(f"{name}: {value:g}" for name, value in values.items()) + "}"


def main() -> None:
    """Read the command line, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("looks", type=Path, help="`.npz` that `looks` wrote")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    looks, manifest = Looks.load(arguments.looks), Manifest()
    entry = newest(manifest, AnalyzerEntry)
    if entry is None:
        raise ValueError(f"{manifest.path} has no analyzer")
    heads = [head.model_copy(update={"doubt": None}) for head in entry.heads]
    believed = entry.model_copy(update={"heads": heads, "no_face": None})
    doubted = fitted(believed, looks)
    print(f"no_face: {_yaml(doubted.no_face)}")
    for head in doubted.heads:
        if head.doubt is not None:
            print(f"{head.name}: doubt: {_yaml(head.doubt)}")
    for title, one in (("as the network says", believed), ("as published", doubted)):
        print(f"\n## {title}")
        reliability_tables(one, looks)


if __name__ == "__main__":
    command.run(main)
