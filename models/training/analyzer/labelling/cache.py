"""The crops that `label` cut and everything that is known about them, in one form for all packs.

Whatever label file exists is used: what the packs know (`P.npz`), what the teachers say (`P.teachers.npz`) and what
people saw (`beard.csv`, `eyes_glasses.csv`); what is unknown is NaN and takes no part in the loss.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visaged.models.training.analyzer.heads import GLASSES, QUALITY_SIZES
from visaged.models.training.analyzer.labelling.crops import COVERED_PACKS, CROP

FloatArray = NDArray[np.float32]

PACKS = ("ages", "emotions", "portraits", "street_masks", "mask_crops")
LABELS = Path(__file__).parents[2] / "labels"
"""What people saw, by picture name; part of the repository."""

SOME_GLASSES = 3.0
"""In `glasses`: a teacher says that there are glasses, but not of which kind. Below it: the index in GLASSES."""

# FERPlus' own order is neutral, happiness, surprise, sadness, anger, disgust, fear, ...; EMOTIONS' is another.
_VOTES = [4, 0, 5, 1, 3, 6, 2]
_LEAST_VOTES = 5
_MOST_POINTS_DISAGREEMENT = 9.0
_MOST_POSE_SPREAD = 10.0
_BEARDLESS_AGE = 14
_BEST_QUALITY = 0.65
"""The value that the teacher gives the sharpest portraits: its scale ends there."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One pack's crops and labels; NaN where unknown.

    Attributes:
        name: name of the pack.
        images: (N, 160, 160, 3) or (N, 160, 160, 1) uint8 BGR, mapped from the file.
        inside: (N, 3200) uint8, packed bits of which pixels lie in the picture.
        names: (N,) of the pictures.
        val: (N,) bool, held out.
        scale: (N,) pixels of the crop per pixel of the picture.
        race: (N,) the set's own word, "" where unknown.
        seen: (N,) bool, people labelled it by eye.
        labels: float32 by head: points (N, 106, 2) cache pixels; age; female; emotion (N, 7) shares of the votes;
            mask; glasses, see SOME_GLASSES; beard; hat; eyes (N, 2) the person's right and left eye open; pose (N, 3)
            degrees, of the crop; attractiveness 0..1; quality (N, 5) with the crop shrunk to QUALITY_SIZES.
        truth: (N,) or (N, K) for evaluation: `beard`, `hat`, `glasses` and `eyes` as people saw them, without what is
            taken for granted in training.
    """

    name: str
    images: NDArray[np.uint8]
    inside: NDArray[np.uint8]
    names: NDArray[np.str_]
    val: NDArray[np.bool_]
    scale: FloatArray
    race: NDArray[np.str_]
    seen: NDArray[np.bool_]
    labels: dict[str, FloatArray]
    truth: dict[str, FloatArray]

    def __len__(self) -> int:
        """Return the number of crops."""
        return len(self.names)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return (160, 160, 3) uint8 BGR, a copy."""
        image = np.array(self.images[index])
        return image if image.shape[2] == 3 else np.repeat(image, 3, 2)

    def outside(self, index: int) -> NDArray[np.bool_] | None:
        """Return (160, 160) bool, the pixels that the picture did not have, or none when it had all."""
        packed = self.inside[index]
        if packed.min() == 255:
            return None
        return np.asarray(np.unpackbits(packed).reshape(CROP, CROP) == 0)


def read_pack(directory: Path, name: str, labels: Path = LABELS) -> Pack:
    """Read a pack of the cache.

    Args:
        directory: the cache, where `label` wrote.
        name: name of the pack.
        labels: the directory of the CSVs; those that are missing are done without.
    """
    with np.load(directory / f"{name}.npz") as file:
        known = {key: file[key] for key in file.files}
    teachers: dict[str, NDArray[np.float32]] = {}
    if (directory / f"{name}.teachers.npz").exists():
        with np.load(directory / f"{name}.teachers.npz") as file:
            teachers = {key: file[key] for key in file.files}
    count = len(known["name"])

    def values(source: dict[str, NDArray[np.float32]], key: str, *shape: int) -> FloatArray:
        if key not in source:
            return np.full((count, *shape), np.nan, np.float32)
        return np.array(source[key], np.float32)

    votes = values(known, "votes", 10)[:, _VOTES]
    enough = votes.sum(1, keepdims=True) >= _LEAST_VOTES
    mask = values(known, "mask")
    covered = name in COVERED_PACKS
    bare = mask == 0 if covered else np.ones(count, bool)
    if not covered:
        mask[:] = 0.0  # nearly all of them are bare
    points = values(known, "points", 106, 2)
    points[values(teachers, "points_disagreement") > _MOST_POINTS_DISAGREEMENT] = np.nan
    pose = values(teachers, "crop_pose", 3)
    pose[~(values(teachers, "pose_spread") <= _MOST_POSE_SPREAD)] = np.nan
    eyes = values(teachers, "eye_open", 2)
    eyes[~bare] = np.nan
    glasses = values(teachers, "glasses") * SOME_GLASSES
    glasses[~bare] = np.nan
    female, age = values(known, "female"), values(known, "age")
    found = {
        "points": points,
        "age": age,
        "female": female,
        "emotion": np.where(enough, votes / np.maximum(votes.sum(1, keepdims=True), 1), np.nan).astype(np.float32),
        "mask": mask,
        "glasses": glasses,
        "beard": np.where((female == 1) | (age < _BEARDLESS_AGE), 0.0, np.nan).astype(np.float32),
        "hat": np.full(count, np.nan, np.float32),
        "eyes": eyes,
        "pose": pose,
        "attractiveness": (values(known, "attractiveness") - 1) / 9,
        "quality": (values(teachers, "quality", len(QUALITY_SIZES)) / _BEST_QUALITY).clip(max=1),
    }
    truth = {key: np.full_like(found[key], np.nan) for key in ("beard", "hat", "glasses", "eyes")}
    seen = _read_by_eye(labels, name, known["name"], truth)
    for key, value in truth.items():
        found[key] = np.where(np.isnan(value), found[key], value)
    dark = found["glasses"] == GLASSES.index("sunglasses")
    found["eyes"][dark & np.isnan(truth["eyes"]).all(1)] = np.nan
    return Pack(
        name=name,
        images=np.load(directory / f"{name}.npy", mmap_mode="r"),
        inside=known["inside"],
        names=known["name"],
        val=known["val"],
        scale=values(known, "scale"),
        race=known["race"] if "race" in known else np.full(count, "", np.str_),
        seen=seen,
        labels=found,
        truth=truth,
    )


def _read_by_eye(labels: Path, pack: str, names: NDArray[np.str_], truth: dict[str, FloatArray]) -> NDArray[np.bool_]:
    """Fill `truth` from the CSVs; return (N,) bool, which faces they have. Pictures of several faces are left out."""
    unique, first, counts = np.unique(names, return_index=True, return_counts=True)
    place = {str(name): int(i) for name, i, n in zip(unique, first, counts, strict=True) if n == 1}
    seen = np.zeros(len(names), bool)
    for file in ("beard.csv", "eyes_glasses.csv"):
        if not (labels / file).exists():
            continue
        with (labels / file).open(newline="") as rows:
            for row in csv.DictReader(rows):
                index = place.get(row["name"]) if row["pack"] == pack else None
                if index is None:
                    continue
                seen[index] = True
                for key in ("beard", "hat"):
                    if row.get(key):
                        truth[key][index] = float(row[key])
                if row.get("glasses"):
                    truth["glasses"][index] = GLASSES.index(row["glasses"])
                for side, key in enumerate(("right_eye", "left_eye")):
                    if row.get(key):
                        truth["eyes"][index, side] = float(row[key] == "open")
    return seen


def read_packs(directory: Path, labels: Path = LABELS) -> dict[str, Pack]:
    """Read all packs that the cache has; `ValueError` if it has none."""
    found = {name: read_pack(directory, name, labels) for name in PACKS if (directory / f"{name}.npz").exists()}
    if not found:
        raise ValueError(f"{directory} holds no crops; `visaged.models.training.analyzer.labelling.label` makes them")
    return found
