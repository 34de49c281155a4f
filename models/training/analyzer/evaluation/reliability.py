"""How many of an analyzer's answers are right, by their confidence, by size and by yaw, and how many are of no face."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from visaged.models.manifest import AnalyzerEntry, Doubt, Head
from visaged.models.training.analyzer.evaluation.looks import JUDGED, LEAST_CONFIDENCE, Looks
from visaged.models.trust import LEAST_CHANCE, SIGNS, doubt_of

SIZE_EDGES = (0, 11, 14, 20, 28, 40, 80, 10_000)
YAW_EDGES = (0, 15, 30, 45, 180)
BINS = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0001)

_LARGE_PX = 20.0
_SURE = 0.5

FloatArray = NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[float])


def faces_of(no_face: Doubt | None, looks: Looks) -> FloatArray:
    """Return (N,) the chances that there is a face; like `visaged.models.trust.readable`, of many."""
    if no_face is None:
        return np.ones(len(looks))
    return np.asarray(1 / (1 + np.exp(np.minimum(doubt_of(no_face, looks.signs), 50.0))))


def _tempered(chances: NDArray[np.float32], temperatures: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return probabilities (N, K) drawn together by temperatures (N,), as `visaged.models.trust` does for one crop."""
    logits = np.log(np.maximum(np.asarray(chances, np.float64), LEAST_CHANCE)) / temperatures[:, None]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)


def _guessed(chances: NDArray[np.float32], faces: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the probabilities (N, K) of many crops, that are a guess with the chances 1 - faces (N,)."""
    return np.asarray(faces[:, None] * chances + (1.0 - faces[:, None]) / chances.shape[1], np.float32)


def confidences(head: Head, looks: Looks, face: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return (N,) how sure a head's answers are, and whether they are right; of no face none is."""
    value, truth = looks.values[head.name], looks.truth[head.name]
    growth = np.ones(len(looks)) if head.doubt is None else np.exp(np.minimum(doubt_of(head.doubt, looks.signs), 50.0))
    if head.kind == "number":
        assert head.tolerance is not None
        deviation = value[:, 1] * growth / np.maximum(face, 1e-3)
        sure = _erf(head.tolerance / (np.maximum(deviation, 1e-3) * math.sqrt(2)))
        right = np.abs(value[:, 0] - truth) <= head.tolerance
    else:
        sure = _guessed(_tempered(value, growth), face).max(1)
        right = value.argmax(1) == truth
    return np.asarray(sure, np.float64), np.asarray(right & looks.face, np.bool_)


def judged_heads(entry: AnalyzerEntry) -> list[Head]:
    """Return the heads whose confidence is a chance of being right."""
    return [head for head in entry.heads if head.kind in ("classes", "binary") or head.deviation is not None]


def _row(title: str, sure: FloatArray, right: NDArray[np.bool_]) -> str:
    cells = []
    for low, high in itertools.pairwise(BINS):
        inside = (sure >= low) & (sure < high)
        cells.append(f"{100 * right[inside].mean():.0f} ({inside.sum()})" if inside.any() else "-")
    return f"| {title} | {len(sure)} | {100 * sure.mean():.0f} / {100 * right.mean():.0f} | " + " | ".join(cells) + " |"


def _spans(edges: tuple[int, ...], unit: str) -> list[tuple[str, int, int]]:
    spans = list(itertools.pairwise(edges))
    named = [(f"{low} to {high} {unit}", low, high) for low, high in spans[:-1]]
    return [*named, (f"{spans[-1][0]} {unit} and more", *spans[-1])]


def reliability_tables(entry: AnalyzerEntry, looks: Looks) -> None:
    """Print how many answers are right, by confidence, by size and by yaw, and what is published of no face."""
    looks = looks[looks.side == JUDGED]
    face = faces_of(entry.no_face, looks)
    percents = " | ".join(
        f"{100 * low:.0f} to {min(100.0, 100 * high):.0f} %" for low, high in itertools.pairwise(BINS)
    )
    for what, values, edges, unit in (("size", looks.size, SIZE_EDGES, "px"), ("yaw", looks.yaw, YAW_EDGES, "degrees")):
        print(f"\n### Right answers in %, and how many looks, by confidence and {what}\n")
        print(f"| {what} | looks | confidence / right, % | {percents} |\n|---|---|---|" + "---|" * (len(BINS) - 1))
        for head in judged_heads(entry):
            sure, right = confidences(head, looks, face)
            known = looks.face & ~np.isnan(looks.truth[head.name])
            if what == "yaw":  # the analyzer reads the yaw of smaller faces too small
                known &= looks.size >= _LARGE_PX
            for title, low, high in _spans(edges, unit):
                pick = known & (values >= low) & (values < high)
                if pick.any():
                    print(_row(f"{head.name}, {title}", sure[pick], right[pick]))
    print_published(entry, looks, face)


def print_published(entry: AnalyzerEntry, looks: Looks, face: FloatArray) -> None:
    """Print how many answers are sure enough to be published, of no face and of faces."""
    sure_of = np.exp(-looks.signs[:, SIGNS.index("unsure")])
    print(f"\n### Answers published, %, of finds of which the detector is sure from {LEAST_CONFIDENCE} / {_SURE} on\n")
    parts = {str(pack): looks.pack == pack for pack in np.unique(looks.pack[~looks.face])}
    parts["faces of 20 px and more"] = looks.face & (looks.size >= _LARGE_PX)
    titles = [f"{name}, {part.sum()} / {(part & (sure_of >= _SURE)).sum()}" for name, part in parts.items()]
    print("| head | from | " + " | ".join(titles) + " |\n|---|---|" + "---|" * len(titles))
    for head in judged_heads(entry):
        published = confidences(head, looks, face)[0] >= head.min_confidence
        picks = [(part, part & (sure_of >= _SURE)) for part in parts.values()]
        cells = [" / ".join(f"{100 * published[p].mean():.1f}" if p.any() else "-" for p in pair) for pair in picks]
        print(f"| {head.name} | {head.min_confidence:g} | " + " | ".join(cells) + " |")
