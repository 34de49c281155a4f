"""The cache of crops in a tenth of its bytes, for a GPU lent for minutes, and back.

    python -m visaged.models.training.analyzer.travel pack --cache CROPS --out TRAVEL [--sheets PACKS]
    python -m visaged.models.training.analyzer.travel unpack --travel TRAVEL --out CROPS

Crops travel as WebP: the grey ones, which were 48 px large, at 112 px, the others as they are. Only the training side
does, unless `--held-out` says that the GPU's machine shall judge too. Points are kept to a quarter of a pixel. The
labels that people made by eye are part of the repository.

With `--sheets` the grey packs travel as the sheets that their crops were cut from, compressed once more, and are cut
there anew: at their own 48 px they take less and lose less.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models.training.analyzer.heads import SIZE
from visaged.models.training.analyzer.labelling.cache import PACKS
from visaged.models.training.analyzer.labelling.crops import CROP, Face, KnownFinder, cut, inside, read_faces
from visaged.models.training.common import command

Arrays = dict[str, NDArray[Any]]

QUALITY = 70
POINT_UNIT = 0.25
"""Pixels; the points' teacher is wrong by more than one."""
UNKNOWN = np.iinfo(np.int16).min
"""In place of NaN among points."""
SHEET_QUALITY = 76


def compressed(image: NDArray[np.uint8], quality: int) -> bytes:
    """Return a crop, (160, 160, 3) or (160, 160, 1) uint8 BGR, as WebP."""
    small = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) if image.shape[2] == 1 else image
    return cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()


def decompressed(data: NDArray[np.uint8], *, grey: bool) -> NDArray[np.uint8]:
    """Return the crop, (160, 160, 3) or (160, 160, 1) uint8 BGR."""
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("a crop is damaged; pack the cache anew")
    image = image if image.shape[0] == CROP else cv2.resize(image, (CROP, CROP), interpolation=cv2.INTER_CUBIC)
    return np.asarray(image, np.uint8).reshape(CROP, CROP, -1)


def read_arrays(path: Path, rows: NDArray[np.bool_] | None = None) -> Arrays:
    """Read an `.npz`, whole or some rows of it."""
    with np.load(path) as file:
        return {key: file[key] if rows is None else file[key][rows] for key in file.files}


def pack_sheets(sheets: Path, name: str, out: Path) -> int:
    """Write a pack's sheets, compressed once more, and their table; return their bytes."""
    with tarfile.open(sheets / f"{name}.tar") as source, tarfile.open(out / f"{name}.tar", "w") as target:
        for member in source:
            content = source.extractfile(member)
            if content is None:
                continue
            sheet = cv2.imdecode(np.frombuffer(content.read(), np.uint8), cv2.IMREAD_GRAYSCALE)
            assert sheet is not None
            data = cv2.imencode(".webp", sheet, [cv2.IMWRITE_WEBP_QUALITY, SHEET_QUALITY])[1].tobytes()
            entry = tarfile.TarInfo(member.name)  # what is in it is seen by its first bytes, not by its name
            entry.size = len(data)
            target.addfile(entry, io.BytesIO(data))
    shutil.copyfile(sheets / f"{name}.csv", out / f"{name}.csv")
    return sum((out / f"{name}{ending}").stat().st_size for ending in (".tar", ".csv"))


def cut_again(travel: Path, name: str, known: Arrays) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the (N, 160, 160, 1) crops of a pack's sheets, and (N, 3200) which pixels these had, as `label` does."""
    faces = list(read_faces(name, travel, KnownFinder(known["name"], known["five"])))
    if [face.name for face in faces] != known["name"].tolist():
        raise ValueError(f"{travel / name}.tar holds other faces than {name}.travel.npz; pack the cache anew")
    with get_context("fork").Pool() as pool:
        found = pool.map(_crop_of, faces, chunksize=256)
    return np.stack([image for image, _ in found]), np.stack([there for _, there in found])


def _crop_of(face: Face) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    matrix = face.matrix()
    return cut(face.image, matrix, CROP)[..., :1], inside(face, matrix)


def pack(cache: Path, name: str, out: Path, quality: int, *, held_out: bool = False, sheets: Path | None = None) -> int:
    """Write one pack as it travels, its training side or all of it; return its bytes."""
    with np.load(cache / f"{name}.npz") as file:
        training = ~file["val"] | held_out
    known = read_arrays(cache / f"{name}.npz", training)
    images = np.load(cache / f"{name}.npy", mmap_mode="r")
    known["points"] = np.nan_to_num(np.round(known["points"] / POINT_UNIT), nan=UNKNOWN).astype(np.int16)
    known["grey"] = np.array(images.shape[3] == 1)
    total = 0
    if known["grey"] and sheets:
        if not held_out:
            raise ValueError("--sheets needs --held-out: a sheet has faces of both sides")
        del known["inside"]
        total = pack_sheets(sheets, name, out)
    else:
        with ThreadPoolExecutor() as pool:
            webp = list(pool.map(lambda at: compressed(np.asarray(images[at]), quality), np.flatnonzero(training)))
        known["crops"] = np.frombuffer(b"".join(webp), np.uint8)
        known["ends"] = np.cumsum([len(data) for data in webp])
    np.savez_compressed(out / f"{name}.travel.npz", allow_pickle=False, **known)
    total += (out / f"{name}.travel.npz").stat().st_size
    if (teachers := cache / f"{name}.teachers.npz").exists():
        np.savez_compressed(out / teachers.name, allow_pickle=False, **read_arrays(teachers, training))
        total += (out / teachers.name).stat().st_size
    print(f"{name}: {int(training.sum())} crops, {total / 1e6:.1f} MB", flush=True)
    return total


def unpack(travel: Path, name: str, out: Path) -> None:
    """Write one pack as `label` does."""
    known = read_arrays(travel / f"{name}.travel.npz")
    grey, points = bool(known.pop("grey")), known["points"]
    known["points"] = np.where(points == UNKNOWN, np.nan, points * POINT_UNIT).astype(np.float32)
    if "crops" in known:
        crops, ends = known.pop("crops"), known.pop("ends")
        with ThreadPoolExecutor() as pool:
            images = np.stack(list(pool.map(partial(decompressed, grey=grey), np.split(crops, ends[:-1]))))
    else:
        images, known["inside"] = cut_again(travel, name, known)
    np.save(out / f"{name}.npy", images)
    np.savez(out / f"{name}.npz", allow_pickle=False, **known)
    if (teachers := travel / f"{name}.teachers.npz").exists():
        np.savez(out / teachers.name, allow_pickle=False, **read_arrays(teachers))
    print(f"{name}: {len(images)} crops", flush=True)


def main() -> None:
    """Pack or unpack every pack that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("--cache", type=Path, required=True, help="directory of crops and labels, by `label`")
    packing.add_argument("--quality", type=int, default=QUALITY, help="of WebP, 1 to 100")
    packing.add_argument("--sheets", type=Path, help="directory of packs, to take the grey ones' sheets from")
    packing.add_argument("--held-out", action="store_true", help="pack what is held out too")
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("--travel", type=Path, required=True, help="what `pack` wrote")
    for one in (packing, unpacking):
        one.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    source, ending = (arguments.cache, ".npz") if arguments.command == "pack" else (arguments.travel, ".travel.npz")
    names = [name for name in PACKS if (source / f"{name}{ending}").exists()]
    if not names:
        raise ValueError(f"{source} holds no {'crops' if arguments.command == 'pack' else 'packed crops'}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    for name in names:
        if arguments.command == "pack":
            options = {"held_out": arguments.held_out, "sheets": arguments.sheets}
            pack(source, name, arguments.out, arguments.quality, **options)
        else:
            unpack(source, name, arguments.out)


if __name__ == "__main__":
    command.run(main)
