"""Looks at held-out faces, and at what is none, as the product takes them: found by the detector, cut by its points.

    python -m visaged.models.training.analyzer.evaluation.looks --cache CROPS --data PACKS --videos DIR --out looks.npz

Every held-out crop is put into pictures in which its face is 10 to 112 px large, some of them blurred, noisy or
compressed; the manifest's newest detector finds it there, and its newest analyzer reads it. What the detector does not
find is left out: nobody reads it either. Looks at no face are what the detector calls one from a confidence of 0.3 on
where there is none: on heads of the pack `events` that people marked and on which no network saw a face, nearly all
from behind; in `one_by_one`, a video of people from behind; and in the held-out photos of `scenes` without a face.

`trust` fits to them, `evaluate` judges by them. Each picture is on one of two sides by the hash of its name; of the
video the first hundred seconds are on the side that is fitted to; `scenes` is judged by only.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from visaged.models import trust
from visaged.models.alignment import transform
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.manifest import AnalyzerEntry, DetectorEntry, Manifest
from visaged.models.preprocess import canvas_for, place
from visaged.models.session import SessionConfig
from visaged.models.surface import ImageSurface
from visaged.models.training.analyzer.evaluation.figures import Labels, evaluation_labels
from visaged.models.training.analyzer.evaluation.views import half_of, held_out
from visaged.models.training.analyzer.heads import SIZE
from visaged.models.training.analyzer.labelling.cache import LABELS, Pack, read_packs
from visaged.models.training.analyzer.labelling.crops import COVERED_PACKS, CROP
from visaged.models.training.analyzer.samples import FACE_SIZE
from visaged.models.training.common import command
from visaged.models.training.common.packs import is_validation, read_pack
from visaged.models.training.evaluation.evaluate import newest
from visaged.models.types import Detections, FloatArray, Image

SIZES = (10, 12, 16, 24, 32, 48, 112)
"""Sizes of faces in pixels: root of the area of a detector's box."""
LEAST_CONFIDENCE = 0.3
FITTED, JUDGED = 0, 1
"""The two sides of the looks."""
FITTED_S = 100.0
"""Seconds of the video that are fitted to; those after them are judged by."""

_SHEET = 640
_LONG_SIDE = 704
_GREY = 110
_EVERY = 2  # frames of the video
_LEAST_HEAD_PX = 12.0
_BLURRED, _SPOILT = 0.3, 0.5
"""Shares of the crops that are blurred, of the sheets that are noisy and compressed."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What the product has at hand of N looks, and the truth.

    Attributes:
        pack: (N,) the pack or video of each look; `events`, `one_by_one` and `scenes` are the looks at no face.
        side: (N,) 0 to fit to, 1 to judge by.
        face: (N,) bool, whether there is a face.
        size: (N,) pixels, root of the area of the detector's box.
        yaw: (N,) degrees, as the analyzer reads it, without sign.
        signs: (N, 7) as `visaged.models.trust.signs`.
        values: (N, ...) what the network says, by attribute.
        truth: (N,) by attribute: the index of the right label, or the number; NaN where unknown.
    """

    pack: NDArray[np.str_]
    side: NDArray[np.int64]
    face: NDArray[np.bool_]
    size: FloatArray
    yaw: FloatArray
    signs: NDArray[np.float64]
    values: dict[str, FloatArray]
    truth: dict[str, FloatArray]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.pack)

    def __getitem__(self, pick: NDArray[Any]) -> Looks:
        """Return those that a mask or an index array picks."""
        return Looks(
            self.pack[pick],
            self.side[pick],
            self.face[pick],
            self.size[pick],
            self.yaw[pick],
            self.signs[pick],
            {name: value[pick] for name, value in self.values.items()},
            {name: value[pick] for name, value in self.truth.items()},
        )

    def save(self, path: Path) -> None:
        """Write an `.npz`."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("values", "truth")}
        arrays |= {f"values.{name}": value for name, value in self.values.items()}
        arrays |= {f"truth.{name}": value for name, value in self.truth.items()}
        np.savez(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Looks:
        """Read what `save` wrote."""
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        parts: dict[str, Any] = {"values": {}, "truth": {}}
        for name, array in arrays.items():
            group, _, attribute = name.partition(".")
            if attribute:
                parts[group][attribute] = array
            else:
                parts[group] = array
        return cls(**parts)


class Looker:
    """The networks as the product puts them together."""

    def __init__(self, detector: Detector, analyzer: Analyzer) -> None:
        self._detector = detector
        self._analyzer = analyzer

    def find(self, image: Image, long_side: int = _SHEET) -> Detections:
        """Find the faces of a picture (H, W, 3), in its own pixels."""
        canvas = canvas_for(image.shape[1], image.shape[0], long_side, self._detector.multiple_of)
        return canvas.to_picture(self._detector.detect(place(image, canvas)[None])[0])

    def read(self, image: Image, found: Detections, batch: int = 16) -> dict[str, NDArray[Any]]:
        """Read faces; return `size`, `yaw`, `signs` and the values by attribute of each."""
        aligner = self._analyzer.aligner
        matrices = [aligner.matrix(points) for points in found.landmarks]
        crops = ImageSurface(image).crops(matrices, aligner.size)
        values = [v for i in range(0, len(crops), batch) for v in self._analyzer.analyze(crops[i : i + batch])]
        sizes = sizes_of(found)
        signs = [
            trust.signs(
                float(size),
                float(confidence),
                transform(points, matrix),
                self._analyzer.template,
                value["head_pose"],
                float(value["blur"][0]),
                float(value["quality"][0]),
            )
            for size, confidence, points, matrix, value in zip(
                sizes, found.confidences, found.landmarks, matrices, values, strict=True
            )
        ]
        heads = [name for name, head in self._analyzer.heads.items() if head.kind != "points"]
        given: dict[str, NDArray[Any]] = {
            "size": sizes,
            "yaw": np.array([abs(value["head_pose"][0]) for value in values], np.float32),
            "signs": np.stack(signs),
        }
        return given | {name: np.stack([value[name] for value in values]) for name in heads}


def sizes_of(found: Detections) -> FloatArray:
    """Return (N,) the roots of the areas of boxes."""
    edges = found.boxes[:, 2:] - found.boxes[:, :2]
    return np.asarray(np.sqrt(edges[:, 0] * edges[:, 1]), np.float32)


def truths(labels: Labels) -> dict[str, FloatArray]:
    """Return the truth by attribute: what the packs know and what people saw, and nothing that a network labelled."""
    emotion = labels["emotion"]
    right_eye, left_eye = labels["seen_eyes"].T
    return {
        "age": labels["age"],
        "gender": np.where(labels["age"] <= 5, np.nan, labels["female"]).astype(np.float32),
        "emotion": np.where(np.isnan(emotion[:, 0]), np.nan, emotion.argmax(1)).astype(np.float32),
        "glasses": labels["seen_glasses"],
        "mask": labels["seen_mask"],
        "beard": labels["seen_beard"],
        "hat": labels["seen_hat"],
        "right_eye": right_eye,
        "left_eye": left_eye,
    }


def sheets(
    pack: Pack, places: NDArray[np.intp], size: int, rng: Generator
) -> Iterator[tuple[Image, NDArray[np.intp], FloatArray]]:
    """Yield pictures (640, 640, 3) full of faces of `size` pixels, which crops they are, and (n, 2) their centres."""
    cell = int(np.ceil(CROP * size / FACE_SIZE))
    across = _SHEET // cell
    how = cv2.INTER_AREA if cell < CROP else cv2.INTER_LINEAR
    for start in range(0, len(places), across * across):
        chunk = places[start : start + across * across]
        sheet, centres = np.full((_SHEET, _SHEET, 3), _GREY, np.uint8), []
        for number, index in enumerate(chunk):
            image = pack.image(int(index))
            if rng.random() < _BLURRED:
                image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 5.0)), np.uint8)
            row, column = divmod(number, across)
            top, left = row * cell, column * cell
            sheet[top : top + cell, left : left + cell] = cv2.resize(image, (cell, cell), interpolation=how)
            centres.append((left + cell / 2, top + cell / 2))
        if rng.random() < _SPOILT:
            sheet = spoilt(sheet, rng)
        yield sheet, chunk, np.array(centres, np.float32)


def spoilt(image: Image, rng: Generator) -> Image:
    """Return a picture as a cheap camera sends it: noisy and compressed."""
    noisy = image + rng.normal(0, rng.uniform(0, 8), image.shape)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 85))]
    jpeg = cv2.imencode(".jpg", noisy.clip(0, 255).astype(np.uint8), quality)[1]
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)


def nearest(found: Detections, centres: FloatArray, size: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which finds are the faces at (n, 2) centres, and of which of these; the rest was missed."""
    sizes = sizes_of(found)
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    pairs = []
    for which, centre in enumerate(centres):
        near = np.linalg.norm(middles - centre, axis=1) < 0.4 * size
        hits = np.flatnonzero(near & (sizes > size / 2) & (sizes < 2 * size))  # best first
        if len(hits):
            pairs.append((hits[0], which))
    finds, faces = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(finds, np.intp), np.array(faces, np.intp)


def looks_at_faces(looker: Looker, pack: Pack, most: int) -> Looks:
    """Look at a pack's held-out crops, some `most` times in all: at each in some of the sizes, in turn."""
    places = held_out(pack)
    times = int(np.clip(most // len(places), 1, len(SIZES)))
    rng = np.random.default_rng(len(places))
    parts, indices = [], []
    for number, size in enumerate(SIZES):
        wanted = places[(np.arange(len(places)) * times + number) % len(SIZES) < times]
        for sheet, chunk, centres in sheets(pack, wanted, size, rng):
            found = looker.find(sheet)
            finds, faces = nearest(found, centres, size)
            if len(finds):
                parts.append(looker.read(sheet, found[finds]))
                indices.append(chunk[faces])
    index = np.concatenate(indices)
    labels = evaluation_labels(
        {name: value[index] for name, value in pack.labels.items()},
        {name: value[index] for name, value in pack.truth.items()},
        surely_bare=pack.name not in COVERED_PACKS,
        size=SIZE,
    )
    sides = np.array([half_of(str(name)) for name in pack.names[index]])
    print(f"{pack.name}: {len(places)} crops, {times} sizes each, {len(index)} found", flush=True)
    return _looks(pack.name, sides, True, parts, truths(labels))


def looks_at_heads(looker: Looker, data: Path) -> Looks:
    """Look at what is found on marked heads of `events` without a face, and touches no labelled face."""
    parts, sides = [], []
    for packed in read_pack(data, "events"):
        image, faces = packed.decode(), packed.faces
        marks = np.isnan(faces.points[:, 0, 0]) & ~faces.human
        heads = faces.boxes[marks].reshape(-1, 2, 2).mean(1)
        found = looker.find(image, _LONG_SIDE)
        found = found[(sizes_of(found) >= _LEAST_HEAD_PX) & ~overlapping(found.boxes, faces.boxes[~marks])]
        inside = (heads[None] > found.boxes[:, None, :2]) & (heads[None] < found.boxes[:, None, 2:])
        found = found[(inside.sum(2) == 2).any(1)]
        if len(found):
            parts.append(looker.read(image, found))
            sides += [half_of(packed.name)] * len(found)
    print(f"events: {len(sides)} heads without a face", flush=True)
    return _looks("events", np.array(sides), False, parts, {})


def looks_at_scenes(looker: Looker, data: Path) -> Looks:
    """Look at what is found in photos without a face."""
    parts, count = [], 0
    for packed in read_pack(data, "scenes", keep=lambda name: is_validation("scenes", name)):
        if len(packed.faces):
            continue
        image = packed.decode()
        found = looker.find(image)
        found = found[sizes_of(found) >= _LEAST_HEAD_PX]
        if len(found):
            parts.append(looker.read(image, found))
            count += len(found)
    print(f"scenes: {count} finds in photos without a face", flush=True)
    return _looks("scenes", np.full(count, JUDGED), False, parts, {})


def overlapping(boxes: FloatArray, others: FloatArray) -> NDArray[np.bool_]:
    """Return of (N, 4) boxes whether they share a pixel with any of the others."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(((high > low).sum(2) == 2).any(1))


def looks_at_backs(looker: Looker, videos: Path) -> Looks:
    """Look at what is found in the video of people from behind."""
    files = sorted(videos.glob("one_by_one.*"))
    if not files:
        raise ValueError(f"{videos} has no clip named one_by_one")
    video, number = cv2.VideoCapture(str(files[0])), -1
    fps, parts, sides = video.get(cv2.CAP_PROP_FPS) or 25.0, [], []
    while video.grab():
        number += 1
        if number % _EVERY:
            continue
        frame = np.asarray(video.retrieve()[1], np.uint8)
        found = looker.find(frame)
        if len(found):
            parts.append(looker.read(frame, found))
            sides += [int(number / fps >= FITTED_S)] * len(found)
    print(f"one_by_one: {len(sides)} finds, {sum(sides)} of them to judge by", flush=True)
    return _looks("one_by_one", np.array(sides), False, parts, {})


def _looks(
    pack: str, sides: NDArray[np.int64], face: bool, parts: list[dict[str, NDArray[Any]]], truth: dict[str, FloatArray]
) -> Looks:
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    count = len(sides)
    size, yaw, signs = (values.pop(name) for name in ("size", "yaw", "signs"))
    unknown = np.full(count, np.nan, np.float32)
    truth = {name: truth.get(name, unknown) for name in values}
    return Looks(np.full(count, pack), sides, np.full(count, face), size, yaw, signs, values, truth)


def joined(parts: list[Looks]) -> Looks:
    """Put the looks of several packs together."""
    names = parts[0].values
    whole = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])
        for f in fields(Looks)
        if f.name not in ("values", "truth")
    }
    return Looks(
        **whole,
        values={name: np.concatenate([part.values[name] for part in parts]) for name in names},
        truth={name: np.concatenate([part.truth[name] for part in parts]) for name in names},
    )


def newest_looker() -> Looker:
    """Return the manifest's newest networks; the detector reports finds from LEAST_CONFIDENCE on."""
    manifest, config = Manifest(), SessionConfig(provider="cpu")
    detector, analyzer = newest(manifest, DetectorEntry), newest(manifest, AnalyzerEntry)
    if detector is None or analyzer is None:
        raise ValueError(f"{manifest.path} lacks a detector or an analyzer")
    return Looker(
        Detector.load(manifest, detector.name, config, LEAST_CONFIDENCE), Analyzer.load(manifest, analyzer.name, config)
    )


def main() -> None:
    """Read the command line and look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="directory of crops and labels")
    parser.add_argument("--labels", type=Path, default=LABELS, help="directory of labels made by eye")
    parser.add_argument("--data", type=Path, required=True, help="directory of packs, for `events`")
    parser.add_argument("--videos", type=Path, required=True, help="directory of the clips, for `one_by_one`")
    parser.add_argument("--most", type=int, default=8000, help="looks at the faces of each pack")
    parser.add_argument("--out", type=Path, required=True, help="`.npz` to write")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    looker = newest_looker()
    parts = [looks_at_backs(looker, arguments.videos), looks_at_heads(looker, arguments.data)]
    parts.append(looks_at_scenes(looker, arguments.data))
    for pack in read_packs(arguments.cache, arguments.labels).values():
        parts.append(looks_at_faces(looker, pack, arguments.most))
    joined(parts).save(arguments.out)


if __name__ == "__main__":
    command.run(main)
