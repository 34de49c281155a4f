"""The figures of held-out crops, asked of a network on the device that trains it.

The crops are those of the tables' first view, aligned by the labelled points; what a table says of the product is
measured by `analyzer.evaluation.evaluate` from the exported file.

    python -m visaged.models.training.analyzer.gpu.judge --cache CROPS --out held_out.npz

looks once for the held-out crops of which training saw no copy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visaged.models.training.analyzer.evaluation.figures import FIGURES, Labels, Outputs, evaluation_labels
from visaged.models.training.analyzer.evaluation.views import held_out
from visaged.models.training.analyzer.export import ExportedOutputs
from visaged.models.training.analyzer.gpu.faces import Faces
from visaged.models.training.analyzer.heads import SIZE
from visaged.models.training.analyzer.labelling.cache import Pack, read_packs
from visaged.models.training.analyzer.labelling.crops import COVERED_PACKS
from visaged.models.training.analyzer.network import Analyzer
from visaged.models.training.common import command
from visaged.models.training.common.pixels import MEAN, SCALE

_CHUNK = 1024
_LEAST_CROPS = 25
SHORT = {
    "emotion, winner of seven, %": "emotion",
    "emotion, winner with more than half, %": "majority",
    "emotion, mean recall of the seven, %": "recall",
    "emotion, divergence from the votes' shares, nats": "divergence",
    "age, mean absolute error, years": "age",
    "gender over 5 years, %": "gender",
    "attractiveness, Pearson r": "attractiveness",
}
"""Figures that are reported while training goes on."""


def places_of(packs: dict[str, Pack]) -> dict[str, NDArray[np.intp]]:
    """Return by pack the held-out crops of which training saw no copy."""
    return {name: held_out(pack) for name, pack in packs.items() if pack.val.any()}


def read_places(path: Path) -> dict[str, NDArray[np.intp]]:
    """Return what the command wrote."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


class Judge:
    """Knows the held-out crops of all packs and their labels.

    Args:
        faces: all crops.
        packs: the same as packs.
        places: by pack, the held-out crops of which training saw no copy, as `views.held_out` says; found if not given,
            which takes some ten seconds.
    """

    def __init__(self, faces: Faces, packs: dict[str, Pack], places: dict[str, NDArray[np.intp]] | None = None) -> None:
        at = places or places_of(packs)
        self._faces = faces
        every = np.concatenate([faces.starts[name] + where for name, where in at.items()])
        self._places = torch.from_numpy(every).to(faces.images.device)
        parts = []
        for name, where in at.items():
            pack = packs[name]
            labels, truth = ({k: v[where] for k, v in values.items()} for values in (pack.labels, pack.truth))
            parts.append(evaluation_labels(labels, truth, surely_bare=name not in COVERED_PACKS, size=SIZE))
        self._labels: Labels = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    @torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
    def figures(self, model: Analyzer) -> dict[str, float]:
        """Return every figure of which there are enough crops, by its title."""
        outputs = ExportedOutputs(model.eval(), 1.0)
        parts = [
            [value.cpu().numpy() for value in outputs(self._pixels(places))] for places in self._places.split(_CHUNK)
        ]
        said: Outputs = dict(zip(outputs.names, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        found = {}
        for figure in FIGURES:
            known = figure.known(self._labels)
            if known.sum() >= _LEAST_CROPS:
                some = [{key: value[known] for key, value in values.items()} for values in (said, self._labels)]
                found[figure.title] = round(figure.value(*some), 4)
        return found

    def _pixels(self, places: Tensor) -> Tensor:
        return (self._faces.clean(places) - MEAN) * SCALE


def short(figures: dict[str, float]) -> str:
    """Return the figures of SHORT as a line."""
    return " ".join(f"{name} {figures[title]:g}" for title, name in SHORT.items() if title in figures)


def main() -> None:
    """Read the command line and look for the held-out crops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="directory of crops and labels")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    part = arguments.out.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **places_of(read_packs(arguments.cache)))
    part.replace(arguments.out)


if __name__ == "__main__":
    command.run(main)
