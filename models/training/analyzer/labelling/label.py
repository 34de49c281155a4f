"""Cut aligned crops of every face of the packs and label them.

    python -m visaged.models.training.analyzer.labelling.label --data DIR --teachers DIR --out DIR

For each pack P of `crops.PACKS`, N faces, in two passes, so that training can begin with the first:

`P.npy` (N, 160, 160, 3) uint8 BGR, or (N, 160, 160, 1) when the pack is grey; see `crops`.

`P.npz`
    name (N,) str; val (N,) bool, held out; scale (N,) crop pixels per pixel of the picture; five (N, 5, 2) the points
    that the crop was aligned by, in pixels of the picture; inside (N, 3200) uint8, `packbits` of where the crop lies
    in the picture; points (N, 106, 2) pixels of the crop, NaN where a mask is or may be; and what the pack knows, NaN
    or "" where it does not: age in years, female, race, votes (N, 10) of FERPlus in the order of `crops.VOTES`,
    attractiveness 1..10, mask.

`P.teachers.npz`
    points_disagreement (N,) mean distance between 90 of the 106 points and their like of another network
    (`teachers.Landmarks98`), in percent of the distance of the eyes. pose (N, 3) yaw, pitch, roll in degrees as
    `visaged.models.geometry.head_pose` has them, in the picture; crop_pose (N, 3) the same in the crop, which a
    further turn of the crop changes by `geometry.turned`; pose_spread (N,) degrees between both sources. eye_open
    (N, 2) probability, the person's right eye first. glasses (N,) 0 or 1. quality (N, 5) at `heads.QUALITY_SIZES`.
    NaN wherever the teachers contradict each other or a mask is or may be in the way.
    Raw numbers behind them: lid_opening, eye_state (N, 2), glasses_score, lens_ratio, mesh_presence (N,).

With `--held-out-only` the networks label the held-out faces, a seventh of all, and the others stay NaN: enough to judge
by, and to train by where a shipped analyzer fills the gaps (`analyzer.gpu`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models.geometry import head_pose, turned
from visaged.models.training.analyzer.heads import POINTS
from visaged.models.training.analyzer.labelling import judge
from visaged.models.training.analyzer.labelling import teachers as networks
from visaged.models.training.analyzer.labelling.crops import (
    COVERED_PACKS,
    CROP,
    EYE_DISTANCE,
    MARGIN,
    PACKS,
    VOTES,
    Face,
    Finder,
    FloatArray,
    KnownFinder,
    YuNetFinder,
    cut,
    inside,
    matrix_scale,
    read_faces,
)
from visaged.models.training.common import command
from visaged.models.training.common.packs import is_validation

Array = NDArray[Any]

CHUNK = 256
NUMBERS = ("age", "female", "attractiveness", "mask")


def chunks(faces: Iterator[Face]) -> Iterator[list[Face]]:
    """Yield lists of up to `CHUNK` faces."""
    while chunk := list(islice(faces, CHUNK)):
        yield chunk


def save(path: Path, arrays: dict[str, Array]) -> None:
    """Write an `.npz` under another name first: who waits for the file never sees half of it."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(part, path)


def joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    """Put the arrays of all chunks together."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def pack_labels(faces: list[Face]) -> dict[str, Array]:
    """Return what the pack knows about each face, NaN or "" where nothing."""
    unknown = [np.nan] * len(VOTES)
    return {
        **{key: np.array([face.labels.get(key, np.nan) for face in faces], np.float32) for key in NUMBERS},
        "race": np.array([face.labels.get("race", "") for face in faces], np.str_),
        "votes": np.array([face.labels.get("votes", unknown) for face in faces], np.float32),
    }


def uncovered(pack: str, mask: Array) -> NDArray[np.bool_]:
    """Return (N,) bool: the face surely wears no mask. Only the mask packs show any."""
    return np.asarray(mask == 0) if pack in COVERED_PACKS else np.ones(len(mask), bool)


def of_some(
    label: Callable[[list[Face]], FloatArray], faces: list[Face], pick: NDArray[np.bool_], shape: tuple[int, ...]
) -> FloatArray:
    """Return (N, *shape): the labels of the faces that are picked, NaN for the others."""
    found = np.full((len(faces), *shape), np.nan, np.float32)
    if pick.any():
        found[pick] = label([face for face, picked in zip(faces, pick, strict=True) if picked])
    return found


def first_pass(
    pack: str, data: Path, find: Finder, landmarks: networks.Landmarks106, out: Path, *, held_out_only: bool = False
) -> None:
    """Write `P.npy` and `P.npz`."""
    crops, parts = [], []
    for faces in chunks(read_faces(pack, data, find)):
        matrices = [face.matrix() for face in faces]
        images = np.stack([cut(face.image, m, CROP) for face, m in zip(faces, matrices, strict=True)])
        crops.append(images[..., :1] if faces[0].grey else images)
        val = np.array([is_validation(pack, face.name) for face in faces])
        parts.append(
            {
                "name": np.array([face.name for face in faces], np.str_),
                "val": val,
                "inside": np.stack([inside(face, m) for face, m in zip(faces, matrices, strict=True)]),
                "scale": np.array([matrix_scale(m) for m in matrices], np.float32),
                "five": np.stack([face.five for face in faces]),
                "points": of_some(landmarks, faces, val | (not held_out_only), (POINTS, 2)),
                **pack_labels(faces),
            }
        )
    arrays = joined(parts)
    arrays["points"][~uncovered(pack, arrays["mask"])] = np.nan
    part = out / f"{pack}.npy.part"
    with part.open("wb") as file:
        np.save(file, np.concatenate(crops))
    os.replace(part, out / f"{pack}.npy")
    save(out / f"{pack}.npz", arrays)
    print(f"{pack}: {len(arrays['name'])} crops, {int(arrays['val'].sum())} held out", flush=True)


class Teachers:
    """All networks of the second pass."""

    def __init__(self, path: Path, threads: int) -> None:
        self._landmarks_106 = networks.Landmarks106(path, threads)
        self._landmarks_98 = networks.Landmarks98(path, threads)
        self._mesh = networks.FaceMesh(path, threads)
        self._eyes = networks.EyeState(path, threads)
        self._glasses = networks.Glasses(path, threads)
        self._quality = networks.Quality(path, threads)

    def label(self, faces: list[Face], crops: NDArray[np.uint8], points: FloatArray) -> dict[str, Array]:
        """Label faces with their (N, 160, 160, 3) crops and (N, 106, 2) points, NaN where covered."""
        covered = np.asarray(np.isnan(points).any((1, 2)), bool)
        if covered.any():  # half a face is enough for a pose, if the sources agree
            points = points.copy()
            points[covered] = self._landmarks_106([f for f, c in zip(faces, covered, strict=True) if c])
        second = self._landmarks_98(faces)
        same_106, same_98 = networks.Landmarks98.SAME_106, networks.Landmarks98.SAME_98
        apart = np.linalg.norm(points[:, same_106] - second[:, same_98], axis=2)
        mesh, mirrored, presence = self._mesh(faces)
        by_mesh = (judge.mesh_pose(mesh) + judge.mesh_pose(mirrored) * np.array([-1, 1, -1], np.float32)) / 2
        by_106 = np.array([head_pose(p) for p in points], np.float32)
        by_106[:, 1] += judge.PITCH_OF_106
        pose = ((by_mesh + by_106) / 2).astype(np.float32)
        matrices = np.stack([face.matrix() for face in faces])
        alignment = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
        lids = [judge.lid_opening(points, judge.LIDS_106), judge.lid_opening(second, judge.LIDS_98)]
        state = self._eyes(faces, points)
        middle = crops[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        arrays = {
            "points_disagreement": apart.mean(1) / EYE_DISTANCE * 100,
            "pose": turned(pose, -alignment),
            "crop_pose": pose,
            "pose_spread": judge.spread(by_mesh.astype(np.float32), by_106),
            "eye_open": judge.eye_open(lids[0], lids[1], state, pose),
            "quality": self._quality(middle),
            "lid_opening": np.stack(lids).mean(0),
            "eye_state": state,
            "glasses_score": self._glasses(faces),
            "lens_ratio": judge.lens_ratio(crops),
            "mesh_presence": presence,
        }
        judge.doubt(arrays, covered)
        if faces[0].grey:  # among grey chips of 48 px, half of the sure glasses were frowns
            arrays["glasses"][:] = np.nan
        return {key: value.astype(np.float32) for key, value in arrays.items()}


def second_pass(pack: str, data: Path, teachers: Teachers, out: Path, *, held_out_only: bool = False) -> None:
    """Write `P.teachers.npz`."""
    crops = np.load(out / f"{pack}.npy", mmap_mode="r")
    with np.load(out / f"{pack}.npz") as file:
        first = {key: file[key] for key in ("name", "five", "points", "val")}
    asked = first["val"] | (not held_out_only)
    parts, start = [], 0
    for faces in chunks(read_faces(pack, data, KnownFinder(first["name"], first["five"]))):
        part = slice(start, start + len(faces))
        if [face.name for face in faces] != first["name"][part].tolist():
            raise ValueError(f"{pack}: the faces are not those of {out / pack}.npz; make the first pass anew")
        pick = asked[part]
        if pick.any():
            some = [face for face, picked in zip(faces, pick, strict=True) if picked]
            images = np.broadcast_to(crops[part][pick], (len(some), CROP, CROP, 3))
            parts.append(teachers.label(some, images, first["points"][part][pick]))
        start += len(faces)
    found = {key: np.full((start, *values.shape[1:]), np.nan, np.float32) for key, values in joined(parts).items()}
    for key, values in joined(parts).items():
        found[key][asked] = values
    save(out / f"{pack}.teachers.npz", found)
    print(f"{pack}: {int(asked.sum())} of {start} faces labelled", flush=True)


def main() -> None:
    """Read the command line and label packs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teachers", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packs", nargs="+", choices=list(PACKS), default=list(PACKS))
    parser.add_argument("--passes", nargs="+", type=int, choices=(1, 2), default=(1, 2))
    parser.add_argument("--threads", type=int, default=1, help="for the networks")
    parser.add_argument("--held-out-only", action="store_true", help="the networks label no face to train on")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    if 1 in arguments.passes:
        find = YuNetFinder(arguments.teachers / "yunet.onnx")
        landmarks = networks.Landmarks106(arguments.teachers, arguments.threads)
        for pack in arguments.packs:
            first_pass(pack, arguments.data, find, landmarks, arguments.out, held_out_only=arguments.held_out_only)
    if 2 in arguments.passes:
        teachers = Teachers(arguments.teachers, arguments.threads)
        for pack in arguments.packs:
            second_pass(pack, arguments.data, teachers, arguments.out, held_out_only=arguments.held_out_only)


if __name__ == "__main__":
    command.run(main)
