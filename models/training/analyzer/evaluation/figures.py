"""What is measured of an analyzer: one figure per head, over those held-out crops whose label is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visaged.models.training.analyzer.heads import QUALITY_SIZES
from visaged.models.training.analyzer.labelling.cache import FloatArray
from visaged.models.training.analyzer.labelling.crops import EYE_DISTANCE, MARGIN

Outputs = dict[str, FloatArray]
Labels = dict[str, FloatArray]
Mask = NDArray[np.bool_]

BINS = 15


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the tables.

    Attributes:
        title: name and unit of the number.
        head: the output that must be there.
        known: labels to the crops that count.
        value: outputs and labels, of those alone, to the number.
        digits: digits after the point.
        by_group: also printed for groups of people.
        when_covered: also printed of faces with things drawn over them.
    """

    title: str
    head: str
    known: Callable[[Labels], Mask]
    value: Callable[[Outputs, Labels], float]
    digits: int = 1
    by_group: bool = False
    when_covered: bool = False


def _has(name: str) -> Callable[[Labels], Mask]:
    return lambda labels: np.asarray(~np.isnan(labels[name].reshape(len(labels[name]), -1)).any(1))


def _percent(hits: NDArray[np.bool_]) -> float:
    return 100 * float(hits.mean())


def _binary(head: str, label: str) -> Callable[[Outputs, Labels], float]:
    return lambda o, t: _percent((o[head] >= 0.5) == (t[label] >= 0.5))


def _balanced(head: str, label: str) -> Callable[[Outputs, Labels], float]:
    def value(o: Outputs, t: Labels) -> float:
        hits, yes = (o[head] >= 0.5) == (t[label] >= 0.5), t[label] >= 0.5
        return 50 * float(hits[yes].mean() + hits[~yes].mean()) if yes.any() and (~yes).any() else float("nan")

    return value


def _pearson(head: str, label: str) -> Callable[[Outputs, Labels], float]:
    return lambda o, t: float(np.corrcoef(o[head], t[label])[0, 1])


def _sex_known(labels: Labels) -> Mask:
    return ~np.isnan(labels["female"]) & ~(labels["age"] <= 5)


def _winner(labels: Labels) -> Mask:
    return ~np.isnan(labels["emotion"][:, 0])


def _clear_winner(labels: Labels) -> Mask:
    return np.asarray(_winner(labels) & (np.nan_to_num(labels["emotion"]).max(1) > 0.5))


def _emotion(o: Outputs, t: Labels) -> float:
    return _percent(o["emotion"].argmax(1) == t["emotion"].argmax(1))


def _emotion_recall(o: Outputs, t: Labels) -> float:
    hit, truth = o["emotion"].argmax(1) == t["emotion"].argmax(1), t["emotion"].argmax(1)
    return 100 * float(np.mean([hit[truth == c].mean() for c in np.unique(truth)]))


def _emotion_entropy(o: Outputs, t: Labels) -> float:
    """Cross entropy in nats against the shares of the votes, less what the votes' own spread leaves at least.

    That is the Kullback-Leibler divergence: 0 for an answer that says how many of those who labelled say what.
    """
    votes, said = t["emotion"], np.clip(o["emotion"], 1e-6, 1)
    return float((votes * (np.log(np.clip(votes, 1e-6, 1)) - np.log(said))).sum(1).mean())


def _glasses3(outputs: Outputs) -> FloatArray:
    """Return (B, 3); a network without kinds of glasses never says sunglasses."""
    value = outputs["glasses"]
    return value if value.ndim == 2 else np.stack([1 - value, value, np.zeros_like(value)], 1)


def _glasses_seen(o: Outputs, t: Labels) -> float:
    return _percent(_glasses3(o).argmax(1) == t["seen_glasses"])


def _glasses_teacher(o: Outputs, t: Labels) -> float:
    return _percent((_glasses3(o)[:, 0] < 0.5) == (t["glasses"] > 0))


def _eyes(label: str, balanced: bool) -> Callable[[Outputs, Labels], float]:
    def value(o: Outputs, t: Labels) -> float:
        chance = np.stack([o["right_eye"], o["left_eye"]], 1).reshape(-1)
        truth = t[label].reshape(-1)
        pick = (truth < 0.2) | (truth > 0.8)
        both = {"eye": chance[pick]}, {"eye": truth[pick]}
        return (_balanced if balanced else _binary)("eye", "eye")(*both)

    return value


def _eyes_known(label: str) -> Callable[[Labels], Mask]:
    return lambda t: np.asarray(((t[label] < 0.2) | (t[label] > 0.8)).all(1))


def _points(o: Outputs, t: Labels) -> float:
    return 100 * float(np.linalg.norm(o["points"] - t["points"], axis=2).mean()) / EYE_DISTANCE


def _pose(axis: int) -> Callable[[Outputs, Labels], float]:
    return lambda o, t: float(np.abs(o["pose"][:, axis] - t["pose"][:, axis]).mean())


def _age_error(o: Outputs, t: Labels) -> float:
    return float(np.abs(o["age"] - t["age"]).mean())


FIGURES = (
    Figure("age, mean absolute error, years", "age", _has("age"), _age_error, 2, by_group=True, when_covered=True),
    Figure("age, 18 to 60 years", "age", lambda t: (t["age"] >= 18) & (t["age"] <= 60), _age_error, 2),
    Figure(
        "gender over 5 years, %", "female", _sex_known, _binary("female", "female"), by_group=True, when_covered=True
    ),
    Figure("emotion, winner of seven, %", "emotion", _winner, _emotion, when_covered=True),
    Figure("emotion, winner with more than half, %", "emotion", _clear_winner, _emotion),
    Figure("emotion, mean recall of the seven, %", "emotion", _winner, _emotion_recall),
    Figure("emotion, divergence from the votes' shares, nats", "emotion", _winner, _emotion_entropy, 3),
    Figure(
        "attractiveness, Pearson r",
        "attractiveness",
        _has("attractiveness"),
        _pearson("attractiveness", "attractiveness"),
        3,
    ),
    Figure("mask, %", "mask", _has("seen_mask"), _binary("mask", "seen_mask")),
    Figure("glasses, three kinds by eye, %", "glasses", _has("seen_glasses"), _glasses_seen),
    Figure("glasses or none, teacher or by eye, %", "glasses", _has("glasses"), _glasses_teacher),
    Figure("beard by eye, %", "beard", _has("seen_beard"), _binary("beard", "seen_beard"), by_group=True),
    Figure("hat by eye, %", "hat", _has("seen_hat"), _binary("hat", "seen_hat")),
    Figure("hat by eye, mean of both answers, %", "hat", _has("seen_hat"), _balanced("hat", "seen_hat")),
    Figure("eyes by eye, %", "right_eye", _eyes_known("seen_eyes"), _eyes("seen_eyes", False)),
    Figure("eyes by eye, mean of both answers, %", "right_eye", _eyes_known("seen_eyes"), _eyes("seen_eyes", True)),
    Figure("eyes, teacher where sure or by eye, %", "right_eye", _eyes_known("eyes"), _eyes("eyes", False)),
    Figure("eyes, teacher or by eye, mean of both answers, %", "right_eye", _eyes_known("eyes"), _eyes("eyes", True)),
    Figure("yaw, mean absolute error, degrees", "pose", _has("pose"), _pose(0)),
    Figure("pitch, mean absolute error, degrees", "pose", _has("pose"), _pose(1)),
    Figure("roll in the crop, mean absolute error, degrees", "pose", _has("pose"), _pose(2)),
    Figure("points, % of the eye distance from the teacher", "points", _has("points"), _points, 2, when_covered=True),
    Figure("quality, Pearson r with the teacher", "quality", _has("quality"), _pearson("quality", "quality"), 3),
)


def _age_group(low: float, high: float) -> Callable[[Labels], Mask]:
    return lambda t: (t["age"] >= low) & (t["age"] < high)


GROUPS: dict[str, Callable[[Labels], Mask]] = {
    "women": lambda t: t["female"] == 1,
    "men": lambda t: t["female"] == 0,
    "0 to 5": _age_group(0, 6),
    "6 to 17": _age_group(6, 18),
    "18 to 29": _age_group(18, 30),
    "30 to 44": _age_group(30, 45),
    "45 to 59": _age_group(45, 60),
    "60 to 74": _age_group(60, 75),
    "75 and more": _age_group(75, 200),
}
"""Groups of people; those by the sets' race labels are added by `evaluate`."""


def reliability(confidence: FloatArray, hit: NDArray[np.bool_]) -> float:
    """Return the expected calibration error in percent over BINS equal bins."""
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    total = 0.0
    for b in range(BINS):
        inside = index == b
        if inside.any():
            total += inside.mean() * abs(float(confidence[inside].mean()) - float(hit[inside].mean()))
    return 100 * total


def reliabilities(o: Outputs, t: Labels) -> dict[str, float]:
    """Return the expected calibration error in percent of each head with a probability."""
    found = {}
    for head, label in (("female", "female"), ("mask", "seen_mask"), ("beard", "seen_beard"), ("hat", "seen_hat")):
        known = _sex_known(t) if head == "female" else ~np.isnan(t[label])
        if head in o and known.any():
            chance = o[head][known]
            hit = (chance >= 0.5) == (t[label][known] >= 0.5)
            found[head] = reliability(np.maximum(chance, 1 - chance), hit)
    known = _winner(t)
    if known.any():
        found["emotion"] = reliability(
            o["emotion"][known].max(1), o["emotion"][known].argmax(1) == t["emotion"][known].argmax(1)
        )
    known = ~np.isnan(t["glasses"])
    if known.any():
        some = 1 - _glasses3(o)[known][:, 0]
        found["glasses or none"] = reliability(np.maximum(some, 1 - some), (some >= 0.5) == (t["glasses"][known] > 0))
    known = _eyes_known("eyes")(t)
    if "right_eye" in o and known.any():
        chance = np.stack([o["right_eye"], o["left_eye"]], 1)[known].reshape(-1)
        hit = (chance >= 0.5) == (t["eyes"][known].reshape(-1) >= 0.5)
        found["eyes"] = reliability(np.maximum(chance, 1 - chance), hit)
    known = ~np.isnan(t["age"])
    if known.any():
        # The share of ages within one deviation, of which a normal error would have 68.3 %.
        inside = np.abs(o["age"][known] - t["age"][known]) <= o["age_deviation"][known]
        found["age within one deviation, % (68.3)"] = 100 * float(inside.mean())
    return found


def quality_at(values: FloatArray, size: float) -> FloatArray:
    """Return (N,) the quality of crops shrunk to `size` pixels, from (N, 5) values at QUALITY_SIZES."""
    at = np.log(QUALITY_SIZES[::-1])
    return np.array([np.interp(math.log(size), at, row[::-1]) for row in values], np.float32)


def evaluation_labels(labels: Labels, truth: Labels, surely_bare: bool, size: float) -> Labels:
    """Return the labels with what people saw beside them as `seen_*`, points in pixels of an aligned input.

    Args:
        labels: labels of the crops in question, of one pack, as in `Pack.labels`.
        truth: what people saw on the same crops, as in `Pack.truth`.
        surely_bare: the pack is not one of masks: its faces, taken to be bare, cannot show how well masks are found.
        size: edge in pixels to which the view shrinks the crops, on which their quality hangs.
    """
    found = dict(labels) | {f"seen_{name}": value for name, value in truth.items()}
    found["points"] = labels["points"] - MARGIN
    found["quality"] = quality_at(labels["quality"], size)
    found["seen_mask"] = np.full_like(labels["mask"], np.nan) if surely_bare else labels["mask"]
    return found
