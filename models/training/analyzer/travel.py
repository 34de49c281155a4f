"""The cache of crops in a tenth of its bytes, for a GPU lent for minutes, and back.

    python -m visaged.models.training.analyzer.travel pack --cache CROPS --out TRAVEL
    python -m visaged.models.training.analyzer.travel unpack --travel TRAVEL --out CROPS

Crops travel as WebP: the grey ones, which were 48 px large, at 112 px, the others as they are. Only the training side
does: what is held out is judged where the packs themselves are. Points are kept to a quarter of a pixel. The labels
that people made by eye are part of the repository.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models.training.analyzer.heads import SIZE
from visaged.models.training.analyzer.labelling.cache import PACKS
from visaged.models.training.analyzer.labelling.crops import CROP
from visaged.models.training.common import command

Arrays = dict[str, NDArray[Any]]

QUALITY = 70
POINT_UNIT = 0.25
"""Pixels; the points' teacher is wrong by more than one."""
UNKNOWN = np.iinfo(np.int16).min
"""In place of NaN among points."""


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


def pack(cache: Path, name: str, out: Path, quality: int) -> int:
    """Write one pack as it travels; return its bytes."""
    with np.load(cache / f"{name}.npz") as file:
        training = ~file["val"]
    known = read_arrays(cache / f"{name}.npz", training)
    images = np.load(cache / f"{name}.npy", mmap_mode="r")
    with ThreadPoolExecutor() as pool:
        webp = list(pool.map(lambda place: compressed(np.asarray(images[place]), quality), np.flatnonzero(training)))
    known["points"] = np.nan_to_num(np.round(known["points"] / POINT_UNIT), nan=UNKNOWN).astype(np.int16)
    crops = {
        "crops": np.frombuffer(b"".join(webp), np.uint8),
        "ends": np.cumsum([len(data) for data in webp]),
        "grey": np.array(images.shape[3] == 1),
    }
    np.savez_compressed(out / f"{name}.travel.npz", allow_pickle=False, **known, **crops)
    total = (out / f"{name}.travel.npz").stat().st_size
    if (teachers := cache / f"{name}.teachers.npz").exists():
        np.savez_compressed(out / teachers.name, allow_pickle=False, **read_arrays(teachers, training))
        total += (out / teachers.name).stat().st_size
    print(f"{name}: {len(webp)} crops to train on, {total / 1e6:.1f} MB", flush=True)
    return total


def unpack(travel: Path, name: str, out: Path) -> None:
    """Write one pack as `label` does."""
    known = read_arrays(travel / f"{name}.travel.npz")
    crops, ends, grey = known.pop("crops"), known.pop("ends"), bool(known.pop("grey"))
    points = known["points"]
    known["points"] = np.where(points == UNKNOWN, np.nan, points * POINT_UNIT).astype(np.float32)
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(partial(decompressed, grey=grey), np.split(crops, ends[:-1])))
    np.save(out / f"{name}.npy", np.stack(images))
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
            pack(source, name, arguments.out, arguments.quality)
        else:
            unpack(source, name, arguments.out)


if __name__ == "__main__":
    command.run(main)
