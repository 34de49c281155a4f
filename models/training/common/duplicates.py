"""Held-out pictures that training sees a copy of, in the same pack or in another.

    python -m visaged.models.training.common.duplicates --data DIR --out copies.txt

`evaluate --leave-out copies.txt` leaves them out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models.training.common import command
from visaged.models.training.common.packs import is_validation, read_pack

PACKS = ("street_masks", "events", "portraits", "scenes")
GRID = 16
MOST_DIFFERENT = 22
"""Copies differ in at most this many of the 256 comparisons; scaling and compression flip a few."""


def fingerprint(jpeg: bytes) -> NDArray[np.bool_]:
    """Compare neighbouring cells of a coarse grid: (256,) bool."""
    grey = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_4)
    assert grey is not None
    cells = np.asarray(cv2.resize(grey, (GRID + 1, GRID), interpolation=cv2.INTER_AREA))
    return (cells[:, 1:] > cells[:, :-1]).reshape(-1)


def main(command_line: list[str] | None = None) -> None:
    """Read the command line and write one `pack/name` per line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(command_line)
    cv2.setNumThreads(1)
    prints, held_out, names = [], [], []
    for pack in PACKS:
        for packed in read_pack(arguments.data, pack):
            prints.append(fingerprint(packed.jpeg))
            held_out.append(is_validation(pack, packed.name))
            names.append(f"{pack}/{packed.name}")
    signs, mask = np.array(prints, np.float32) * 2 - 1, np.array(held_out)
    differences = (GRID * GRID - signs[mask] @ signs[~mask].T) / 2  # (held out, trained on)
    copies = [
        name for name, least in zip(np.array(names)[mask], differences.min(1), strict=True) if least <= MOST_DIFFERENT
    ]
    arguments.out.write_text("".join(f"{name}\n" for name in copies))
    print(f"{len(copies)} of {mask.sum()} held-out pictures have a copy among those trained on")


if __name__ == "__main__":
    command.run(main)
