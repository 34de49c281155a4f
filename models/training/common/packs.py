"""Reading picture packs: `NAME.tar` of JPEGs beside `NAME.csv` with one row per face.

Columns that are read: `image`, `width`, `x, y, w, h` (pixels of the packed picture; empty on a picture without
faces), the five points `x1, y1 .. x5, y5` (may be empty), `score` and `source`. A box is *sure* when people drew it
(`source` is `human`) or a labelling network gave it at least `SURE_SCORE`. Everything else is *doubtful*: neither a
face nor background in training, neither found nor a false alarm in evaluation. Rows whose source is `head` carry a
point only (x, y): people marked a head there on which no network saw a face; they become doubtful boxes of an
estimated size.
"""

from __future__ import annotations

import csv
import hashlib
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

SURE_SCORE = 0.68
"""Below this a labelling network's boxes are often hands, ears or backs of heads."""

PART_OF_SIZE, PART_SIZE, PART_INSIDE = 80.0, 0.6, 0.8
"""A doubtful box is a part of a sure face of at least 80 px if it is at most 0.6 as large and lies to 80 % inside."""

POINT_COLUMNS = [f"{axis}{i}" for i in range(1, 6) for axis in "xy"]
VALIDATION_PERMILLE = 150

# Frames of one video or of one fixed camera look alike: they stay on one side of the split together.
_ONE_SOURCE = re.compile(r"^(tud_street|kisa_cctv_c\d+|roadscene_night_flir|roadscene_ir_flir)")


@dataclass(frozen=True, slots=True)
class Faces:
    """The labelled faces of one picture.

    Attributes:
        boxes: (N, 4) float32, left, top, right, bottom in pixels.
        points: (N, 5, 2) float32 pixels, NaN where unknown.
        sure: (N,) bool; a doubtful face is left out of loss and evaluation.
        human: (N,) bool; drawn by people.
    """

    boxes: FloatArray
    points: FloatArray
    sure: NDArray[np.bool_]
    human: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of faces, doubtful ones included."""
        return len(self.boxes)

    @classmethod
    def from_rows(cls, boxes: object, points: object, sure: object, human: object) -> Faces:
        """Build from nested lists, which may be empty."""
        return cls(
            np.asarray(boxes, np.float32).reshape(-1, 4),
            np.asarray(points, np.float32).reshape(-1, 5, 2),
            np.asarray(sure, bool).reshape(-1),
            np.asarray(human, bool).reshape(-1),
        )

    @classmethod
    def concatenate(cls, parts: list[Faces]) -> Faces:
        """Put the faces of several lists into one."""
        return cls(
            np.concatenate([p.boxes for p in parts]),
            np.concatenate([p.points for p in parts]),
            np.concatenate([p.sure for p in parts]),
            np.concatenate([p.human for p in parts]),
        )

    def sizes(self) -> FloatArray:
        """Return (N,) float32: the square root of each box's area, the `size` of a face everywhere here."""
        edges = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.sqrt(edges[:, 0] * edges[:, 1])


def without_parts(faces: Faces) -> Faces:
    """Return the faces without the doubtful boxes inside a sure, much larger one: ears, eyes and mouths of that face.

    Left in, they would keep a network from learning that such parts are background.
    """
    sizes, corners = faces.sizes(), faces.boxes
    whole = faces.sure & (sizes >= PART_OF_SIZE)
    inner = np.minimum(corners[:, None, 2:], corners[None, whole, 2:])
    inner = (inner - np.maximum(corners[:, None, :2], corners[None, whole, :2])).clip(0).prod(2)  # (N, whole)
    part = (inner >= PART_INSIDE * sizes[:, None] ** 2) & (sizes[:, None] <= PART_SIZE * sizes[whole])
    keep = faces.sure | ~part.any(1)
    return Faces(faces.boxes[keep], faces.points[keep], faces.sure[keep], faces.human[keep])


@dataclass(frozen=True, slots=True)
class PackedPicture:
    """One picture of a pack, still compressed."""

    pack: str
    name: str
    jpeg: bytes
    faces: Faces

    def decode(self) -> NDArray[np.uint8]:
        """Return the picture, (H, W, 3) uint8 BGR."""
        image = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{self.pack}/{self.name} is not a readable picture")
        return np.asarray(image, np.uint8)


def is_validation(pack: str, name: str) -> bool:
    """Return whether a picture is held out: a fixed 15 % by the hash of its name, whole videos together."""
    source = _ONE_SOURCE.match(name)
    key = f"{pack}/{source.group(1) if source else name}"
    return (
        int.from_bytes(hashlib.sha1(key.encode(), usedforsecurity=False).digest()[:4], "big") % 1000
        < VALIDATION_PERMILLE
    )


def read_labels(path: Path) -> dict[str, Faces]:
    """Read a pack's CSV into the faces of each picture; pictures without a face get an empty list."""
    rows: dict[str, list[tuple[list[float], list[float], bool, bool]]] = defaultdict(list)
    heads: dict[str, list[tuple[float, float]]] = defaultdict(list)
    widths: dict[str, float] = {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                name = row["image"]
                widths.setdefault(name, float(row.get("width") or 128))
                if not row.get("x"):
                    continue
                if row.get("source") == "head":
                    heads[name].append((float(row["x"]), float(row["y"])))
                    continue
                x, y, w, h = (float(row[c]) for c in "xywh")
                points = [float(row[c]) if row.get(c) else np.nan for c in POINT_COLUMNS]
                human = row.get("source") == "human"
                sure = human or float(row.get("score") or 1.0) >= SURE_SCORE
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}; `packs` says what belongs there") from error
            rows[name].append(([x, y, x + w, y + h], points, sure, human))
    labels = {}
    for name, width in widths.items():
        columns = zip(*rows[name], strict=True) if rows[name] else ((), (), (), ())
        faces = Faces.from_rows(*(list(c) for c in columns))
        if heads[name]:
            faces = Faces.concatenate([faces, _doubtful_heads(heads[name], faces, width)])
        labels[name] = faces
    return labels


def _doubtful_heads(heads: list[tuple[float, float]], faces: Faces, width: float) -> Faces:
    """Give marked heads a size: a straight line over the row of the picture, fitted to its sure faces."""
    sizes, rows = faces.sizes()[faces.sure], faces.boxes[faces.sure][:, [1, 3]].mean(1)
    if len(sizes) >= 8:
        slope, offset = np.polyfit(rows, sizes, 1)
    else:
        slope, offset = 0.0, float(np.median(sizes)) if len(sizes) else 0.018 * width
    centres = np.asarray(heads, np.float32)
    # 1.7: the mark is anywhere on the head, and a head is larger than its face.
    half = 0.5 * 1.7 * np.clip(slope * centres[:, 1] + offset, 0.008 * width, 0.1 * width)[:, None]
    count = len(heads)
    return Faces.from_rows(
        np.concatenate([centres - half, centres + half], 1),
        np.full((count, 5, 2), np.nan),
        np.zeros(count, bool),
        np.zeros(count, bool),
    )


def read_pack(
    directory: Path,
    pack: str,
    *,
    labels: Path | None = None,
    keep: Callable[[str], bool] = lambda name: True,
    limit: int | None = None,
) -> Iterator[PackedPicture]:
    """Yield a pack's pictures in the order of its tar file.

    Args:
        directory: where `PACK.tar` and `PACK.csv` lie.
        pack: the pack's name.
        labels: another CSV to use in place of the pack's own, for labels made anew.
        keep: called with each picture's name; false leaves it out.
        limit: stop after this many pictures.
    """
    faces = read_labels(labels or directory / f"{pack}.csv")
    nothing = Faces.from_rows([], [], [], [])
    count = 0
    with tarfile.open(directory / f"{pack}.tar") as tar:
        for member in tar:
            if not member.isfile() or not keep(member.name):
                continue
            content = tar.extractfile(member)
            assert content is not None
            yield PackedPicture(pack, member.name, content.read(), faces.get(member.name, nothing))
            count += 1
            if count == limit:
                return
