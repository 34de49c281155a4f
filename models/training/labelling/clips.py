"""Frames of videos as a pack, where a person has said of each stretch of a clip what faces it shows.

    python -m visaged.models.training.labelling.clips --videos DIR --teacher yunet.onnx --out PACKS/clips

`labels/clips.csv` holds the stretches (clip, from_s, to_s, faces) with one of three words: `none`, nobody shows a face,
so that backs of heads are background; `one`, the teacher's surest find is a face and everything else, hands above
all, is background; `doubtful`, somebody turns: what the teacher finds is left out of the loss. What no stretch covers
is not cut; the ends of clips, and whole clips, are kept away from training that way.
"""

from __future__ import annotations

import argparse
import csv
import io
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from visaged.models.training.common import command
from visaged.models.training.common.packs import Faces
from visaged.models.training.evaluation.decode import Found, open_detector
from visaged.models.training.labelling.relabel import find_at_scales, write_labels

STRETCHES = Path(__file__).parents[1] / "labels" / "clips.csv"
SCALES = (0.5, 1.0, 1.6)
LEAST_SCORE = 0.3
WORDS = ("none", "one", "doubtful")


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a clip shows from one second to another."""

    from_s: float
    to_s: float
    faces: str


def read_stretches(path: Path) -> dict[str, list[Stretch]]:
    """Read the stretches by clip; raises `ValueError` with the line that is wrong."""
    stretches = defaultdict(list)
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                stretch = Stretch(float(row["from_s"]), float(row["to_s"]), row["faces"])
                if stretch.faces not in WORDS:
                    raise ValueError(f"faces is {stretch.faces!r}, not one of {', '.join(WORDS)}")
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
            stretches[row["clip"]].append(stretch)
    return dict(stretches)


def label(word: str, found: Found) -> Faces:
    """Return the faces of a frame of a stretch."""
    boxes, _, points = found
    chosen = np.arange(len(boxes))
    if word == "none":
        chosen = chosen[:0]
    elif word == "one" and len(boxes):
        chosen = chosen[:1]  # the finds come best first
    sure = np.full(len(chosen), word == "one")
    return Faces(boxes[chosen], points[chosen], sure, np.zeros(len(chosen), bool))


def main() -> None:
    """Read the command line and write the pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="directory of the clips")
    parser.add_argument("--stretches", type=Path, default=STRETCHES, help="CSV of what they show")
    parser.add_argument("--teacher", type=Path, required=True, help="detector that says where faces are")
    parser.add_argument("--every-s", type=float, default=0.4, help="seconds between two frames")
    parser.add_argument("--out", type=Path, required=True, help="the pack, without .tar and .csv")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    stretches, find = read_stretches(arguments.stretches), open_detector(arguments.teacher)
    labels: dict[str, tuple[tuple[int, int], Faces]] = {}
    with tarfile.open(arguments.out.with_suffix(".tar"), "w") as tar:
        for clip, wanted in stretches.items():
            files = sorted(arguments.videos.glob(f"{clip}.*"))
            if not files:
                raise ValueError(f"{arguments.videos} has no clip named {clip}")
            video, number = cv2.VideoCapture(str(files[0])), -1
            fps, next_s = video.get(cv2.CAP_PROP_FPS) or 25.0, 0.0
            while video.grab():
                number += 1
                at_s = number / fps
                stretch = next((s for s in wanted if s.from_s <= at_s < s.to_s), None)
                if at_s < next_s or stretch is None:
                    continue
                next_s = at_s + arguments.every_s
                frame = np.asarray(video.retrieve()[1], np.uint8)
                name = f"{clip}_{number:05d}.jpg"
                jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
                member = tarfile.TarInfo(name)
                member.size = len(jpeg)
                tar.addfile(member, io.BytesIO(jpeg))
                height, width = frame.shape[:2]
                labels[name] = (width, height), label(stretch.faces, find_at_scales(find, frame, SCALES, LEAST_SCORE))
    write_labels(arguments.out.with_suffix(".csv"), labels)
    print(f"{len(labels)} frames of {len(stretches)} clips")


if __name__ == "__main__":
    command.run(main)
