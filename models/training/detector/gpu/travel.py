"""Packs that travel: what training draws and what evaluation judges by, in few bytes, for a GPU lent for minutes.

    python -m visaged.models.training.detector.gpu.travel --data PACKS --labels LABELS --hard hard.csv --out TRAVEL

The packs have the form that `packs` describes, and the names of their pictures, which say what is held out; so `train`
and `evaluate` take the folder in place of the packs themselves. What neither would use stays behind: pictures beyond
`feed.PACK_LIMITS` and `PLANS`, the held-out side of packs that no table is made from, held-out copies of pictures
trained on (listed in `copies.txt`), points of doubtful faces. The training side has the labels of `--labels`, without
parts of faces; the held-out side has the pack's own.

Pictures are made smaller, as `PLANS` says, and compressed anew as WebP, which needs two thirds of JPEG's bytes at these
sizes; the quality is the best at which everything fits. A picture whose own file is smaller still keeps it. The tar
files are compressed with gzip, since headers are an eighth of a pack of small pictures, which their reader finds out by
itself. Held-out crowds and street photos keep their own files (at a quality of 54 crowds lost four points of AP), so
their figures compare with those of the packs; those of portraits compare with one another only.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import tarfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from visaged.models.training.common import command
from visaged.models.training.common.packs import POINT_COLUMNS, Faces, PackedPicture, is_validation, read_pack
from visaged.models.training.detector.feed import read_hard, training_pictures
from visaged.models.training.evaluation.evaluate import copied_pictures

QUALITIES = tuple(range(90, 39, -2))
SAMPLE_EVERY = 8
"""One picture in so many is compressed at each quality to find the one that fits."""

COLUMNS = ["image", *"xywh", "score", "source", *POINT_COLUMNS]
HEADER_BYTES = 100
"""Bytes of a picture's header in a tar file, compressed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a pack travels.

    Attributes:
        longest: pictures are shrunk to this longer side in pixels; None leaves their size.
        most: at most so many pictures of the training side, those drawn more often first and others evenly; None: all.
        finer: added to the quality: more for small faces, less for backgrounds.
        held_out: which pictures of its held-out side evaluation judges by.
        exact: these keep their own files, so that figures compare with those of the packs themselves.
    """

    longest: int | None = None
    most: int | None = None
    finer: int = 0
    held_out: Literal["all", "faceless", "none"] = "all"
    exact: bool = False


PLANS = {
    # Faces of a few pixels: the size stays.
    "events": Plan(finer=4, most=400, exact=True),
    "street_masks": Plan(finer=4, most=380, exact=True),
    "clips": Plan(most=120, held_out="none"),
    # Backgrounds are drawn at the scale of the canvas, and faces of portraits at any scale from theirs down.
    "scenes": Plan(longest=320, most=700, finer=-6, held_out="faceless"),
    "portraits": Plan(longest=320, most=500),
    "ages": Plan(most=1000, held_out="none"),
}
POINTS = "points68"
"""A pack of another form, wholly held out: its table is copied, and its pictures keep their size."""


def shrunk(packed: PackedPicture, longest: int | None) -> tuple[np.ndarray, Faces]:
    """Return a picture, (H, W, 3) uint8 BGR, and its faces, shrunk together to a longer side in pixels."""
    image, faces = packed.decode(), packed.faces
    height, width = image.shape[:2]
    if longest is None or max(height, width) <= longest:
        return image, faces
    scale = longest / max(height, width)
    size = (round(width * scale), round(height * scale))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    ratio = np.array([size[0] / width, size[1] / height], np.float32)  # whole pixels make the two differ
    return small, replace(faces, boxes=faces.boxes * np.tile(ratio, 2), points=faces.points * ratio)


def is_exact(plan: Plan, packed: PackedPicture) -> bool:
    """Return whether a picture keeps its own file."""
    return plan.exact and is_validation(packed.pack, packed.name)


def compressed(packed: PackedPicture, plan: Plan, quality: int) -> PackedPicture:
    """Return a picture as it travels."""
    if is_exact(plan, packed):
        return packed
    image, faces = shrunk(packed, plan.longest)
    done, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, min(quality + plan.finer, 100)])
    assert done
    same_size = faces is packed.faces
    return replace(
        packed, jpeg=packed.jpeg if same_size and len(packed.jpeg) <= len(data) else data.tobytes(), faces=faces
    )


def rows(packed: PackedPicture) -> Iterator[list[object]]:
    """Yield the rows of a picture in a pack's CSV, in hundredths of a pixel, without what a reader assumes anyway."""

    def short(value: float) -> str:
        return "" if np.isnan(value) else f"{value:.2f}".rstrip("0").rstrip(".")

    faces = packed.faces
    if not len(faces):
        yield [packed.name]
    for box, points, sure, human in zip(faces.boxes, faces.points, faces.sure, faces.human, strict=True):
        corners = [short(value) for value in (*box[:2], *(box[2:] - box[:2]))]
        source = ["", "human" if human else ""] if sure else ["0"]
        yield [packed.name, *corners, *source, *(short(value) for value in points.reshape(-1) if sure)]


def thinned(pictures: list[PackedPicture], most: int | None, hard: frozenset[str]) -> list[PackedPicture]:
    """Return at most so many pictures in their order: those of `hard` (`pack/name`) first, of the others evenly."""
    if most is None or len(pictures) <= most:
        return pictures
    first = [i for i, packed in enumerate(pictures) if f"{packed.pack}/{packed.name}" in hard][:most]
    others = [i for i in range(len(pictures)) if i not in set(first)]
    evenly = np.linspace(0, len(others) - 1, most - len(first)).astype(int)
    return [pictures[i] for i in sorted([*first, *(others[i] for i in evenly)])]


def chosen(
    directory: Path,
    pack: str,
    plan: Plan,
    labels: Path | None = None,
    copies: frozenset[str] = frozenset(),
    hard: frozenset[str] = frozenset(),
) -> list[PackedPicture]:
    """Return what of a pack travels, still as it was packed.

    Args:
        directory: where the packs lie.
        pack: the pack's name.
        plan: what travels of it.
        labels: a directory with CSVs of other labels for the training side, or none.
        copies: `pack/name` of held-out pictures to leave out.
        hard: `pack/name` of pictures that are drawn more often.
    """
    pictures = thinned(list(training_pictures(directory, pack, labels)), plan.most, hard)
    if plan.held_out != "none":
        for packed in read_pack(directory, pack, keep=lambda name: is_validation(pack, name)):
            if f"{pack}/{packed.name}" not in copies and not (plan.held_out == "faceless" and len(packed.faces)):
                pictures.append(packed)
    return pictures


def write_pack(directory: Path, pack: str, pictures: Iterable[PackedPicture], *, table: bool = True) -> None:
    """Write a pack's tar file and, unless `table` is false, its CSV."""
    lines: list[list[object]] = [list(COLUMNS)]
    with tarfile.open(directory / f"{pack}.tar", "w:gz") as tar:
        for packed in pictures:
            member = tarfile.TarInfo(packed.name)
            member.size = len(packed.jpeg)
            tar.addfile(member, io.BytesIO(packed.jpeg))
            lines += rows(packed)
    if table:
        with (directory / f"{pack}.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)


def size_of(directory: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(path.stat().st_size for path in directory.iterdir())


def travel(packs: dict[str, list[PackedPicture]], points: list[PackedPicture], out: Path, most_bytes: int) -> int:
    """Write packs at the best quality at which they and what is in the folder already fit; return that quality.

    Args:
        packs: the pictures by pack.
        points: the pictures of the pack `POINTS`.
        out: the folder, which may hold the tables that are merely copied.
        most_bytes: upper bound of the size of the whole folder.

    Raises:
        ValueError: even the worst quality is too large.
    """
    plans = [(PLANS.get(name, Plan()), picture) for name, pictures in packs.items() for picture in pictures]
    plans += [(Plan(), picture) for picture in points]
    fixed = size_of(out) + HEADER_BYTES * len(plans)
    fixed += sum(len(",".join(map(str, row))) + 1 for pictures in packs.values() for p in pictures for row in rows(p))
    fixed += sum(len(picture.jpeg) for plan, picture in plans if is_exact(plan, picture))
    changed = [(plan, picture) for plan, picture in plans if not is_exact(plan, picture)]
    sample = changed[:: max(1, min(SAMPLE_EVERY, len(changed) // SAMPLE_EVERY))]

    def too_large(quality: int) -> bool:
        sizes = [len(compressed(picture, plan, quality).jpeg) for plan, picture in sample]
        return fixed + sum(sizes) / max(len(sample), 1) * len(changed) > most_bytes

    first = bisect_left(QUALITIES, True, key=lambda quality: not too_large(quality))
    for quality in QUALITIES[min(first, len(QUALITIES) - 1) :]:
        for name, pictures in packs.items():
            plan = PLANS.get(name, Plan())
            write_pack(out, name, (compressed(picture, plan, quality) for picture in pictures))
        if points:
            write_pack(out, POINTS, (compressed(p, Plan(), quality) for p in points), table=False)
        if size_of(out) <= most_bytes:
            return quality
    raise ValueError(f"the packs do not fit into {most_bytes / 1e6:.1f} MB at quality {QUALITIES[-1]}")


def main(command_line: list[str] | None = None) -> None:
    """Read the command line and write the packs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of packs")
    parser.add_argument(
        "--labels", type=Path, help="directory of CSVs to use in place of the packs' own, as in `train`"
    )
    parser.add_argument("--hard", type=Path, help="CSV of pictures to draw more often: goes along")
    parser.add_argument("--leave-out", type=Path, help="list of held-out pictures with a copy, by `duplicates`")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--most-mb", type=float, default=54, help="of the whole directory, in millions of bytes")
    arguments = parser.parse_args(command_line)
    cv2.setNumThreads(1)
    out: Path = arguments.out
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty")
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name in PLANS if (arguments.data / f"{name}.tar").exists()]
    if not names:
        raise ValueError(f"{arguments.data} has none of the packs {', '.join(PLANS)}")
    copies = copied_pictures(arguments.data, arguments.leave_out)
    (out / "copies.txt").write_text("".join(f"{name}\n" for name in sorted(copies)), encoding="utf-8")
    hard: frozenset[str] = frozenset()
    if arguments.hard:
        shutil.copyfile(arguments.hard, out / "hard.csv")
        hard = frozenset(f"{pack}/{name}" for pack, name in read_hard(arguments.hard))
    packs = {name: chosen(arguments.data, name, PLANS[name], arguments.labels, copies, hard) for name in names}
    points = []
    if (arguments.data / f"{POINTS}.tar").exists():
        points = list(read_pack(arguments.data, POINTS))
        shutil.copyfile(arguments.data / f"{POINTS}.csv", out / f"{POINTS}.csv")
    quality = travel(packs, points, out, round(1e6 * arguments.most_mb))
    for name, pictures in packs.items():
        held_out = sum(is_validation(name, packed.name) for packed in pictures)
        size = (out / f"{name}.tar").stat().st_size / 1e6
        print(f"{name}: {len(pictures) - held_out} to train on, {held_out} held out, {size:.1f} MB")
    print(f"{size_of(out) / 1e6:.1f} MB at quality {quality}")


if __name__ == "__main__":
    command.run(main)
