"""Hard negatives: which pictures without a face fool the present network, and how often each should be drawn.

    python -m visaged.models.training.labelling.mine --data DIR --pack scenes --model detector.onnx --out hard.csv

`train --hard hard.csv` draws each picture that often for every time that it would have drawn it before.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np

from visaged.models.training.common import command
from visaged.models.training.common.packs import is_validation, read_pack
from visaged.models.training.evaluation.decode import open_detector

LEAST_SCORE = 0.3
SCALES = (0.5, 0.8, 1.25)
MOST = 8


def main() -> None:
    """Read the command line and write how often to draw each fooling picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pack", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    find, times = open_detector(arguments.model), {}
    for packed in read_pack(arguments.data, arguments.pack, keep=lambda name: not is_validation(arguments.pack, name)):
        if len(packed.faces):
            continue
        image = packed.decode()
        alarms = 0.0
        for scale in SCALES:
            view = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            alarms += float(find(np.asarray(view, np.uint8), LEAST_SCORE)[1].sum())
        if alarms:
            times[packed.name] = min(MOST, 2 + round(2 * alarms))
    with arguments.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["pack", "image", "times"])
        writer.writerows([arguments.pack, name, count] for name, count in times.items())
    print(f"{len(times)} pictures of {arguments.pack} fool {arguments.model}")


if __name__ == "__main__":
    command.run(main)
