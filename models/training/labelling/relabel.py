"""Second opinions on doubtful labels: another detector's view at several scales, merged into new label files.

    python -m visaged.models.training.labelling.relabel --data DIR --pack events --teacher centerface.onnx --out LABELS

One teacher's doubtful boxes, and marked heads on which it saw no face, are the larger part of all labels in crowds.
Where a second teacher of another design finds a face at the same place, the box becomes sure; where it alone is
certain, a sure box is added; where it alone is half certain, a doubtful one. A doubtful box in which it sees nothing
at all is mostly a hand, a bag or the back of a head: it is struck out, so that training takes it as background,
unless it is too small to tell; a sure one (often a dog) becomes doubtful. Boxes that people drew are never touched.

`train --labels LABELS` uses the result.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort

from visaged.models.training.common import command
from visaged.models.training.common.packs import POINT_COLUMNS, Faces, is_validation, read_pack
from visaged.models.training.evaluation.decode import NMS_IOU, FindFaces, Found, overlap, padded, suppress
from visaged.models.types import Image

AGREE_SCORE = 0.40
"""From here on the second teacher turns the first one's doubtful box into a sure one."""

ALONE_SCORE = 0.62
"""From here on it adds a face of its own; between the two, a doubtful one."""

UNSEEN_SCORE = 0.12
"""Below this the second teacher sees nothing."""

LEAST_JUDGED = 13.0
"""Boxes smaller than this (pixels, before enlargement) stay what they are: the second teacher may be blind there."""

MATCH_IOU = 0.40


class CenterFace:
    """CenterFace: a heat map of face centres at a quarter of the picture's size."""

    def __init__(self, path: Path) -> None:
        """Open the network for pictures of any size."""
        network = onnx.load(str(path))
        for value in [network.graph.input[0], *network.graph.output]:
            for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
                value.type.tensor_type.shape.dim[axis].dim_param = f"{name}_{value.name}"
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._feed = self._session.get_inputs()[0].name

    def find(self, image: Image, least: float) -> Found:
        """Find faces in (H, W, 3) uint8 BGR."""
        pixels = padded(image)[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        heat, scale, offset, marks = self._session.run(None, {self._feed: np.ascontiguousarray(pixels)})
        row, column = np.nonzero(heat[0, 0] >= least)
        at = np.stack([column, row], 1).astype(np.float32)  # (N, 2)
        edges = np.exp(scale[0][::-1, row, column]).T * 4  # (N, 2) width, height; the map holds height first
        centre = (at + offset[0][::-1, row, column].T + 0.5) * 4
        boxes = np.concatenate([centre - edges / 2, centre + edges / 2], 1)
        # Points are fractions of the box from its left top, y before x.
        raw = marks[0][:, row, column].T.reshape(-1, 5, 2)[..., ::-1]
        points = boxes[:, None, :2] + raw * edges[:, None]
        return suppress([(boxes, heat[0, 0, row, column], points)], 0.35)


def find_at_scales(
    find: FindFaces, image: Image, scales: tuple[float, ...], least: float, iou: float = NMS_IOU
) -> Found:
    """Join a teacher's finds at several scales of a picture, in the picture's own pixels."""
    parts = []
    for scale in scales:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how) if scale != 1 else image
        boxes, scores, points = find(np.asarray(resized, np.uint8), least)
        parts.append((boxes / scale, scores, points / scale))
    return suppress(parts, iou)


def merge(faces: Faces, found: Found) -> Faces:
    """Return the first teacher's faces with what the second one adds."""
    boxes, scores, points = found
    pairs = overlap(boxes, faces.boxes)
    sure = faces.sure.copy()
    added = []
    for i in range(len(boxes)):
        best = int(pairs[i].argmax()) if len(faces) else -1
        if best >= 0 and pairs[i, best] >= MATCH_IOU:
            sure[best] |= scores[i] >= AGREE_SCORE
        elif scores[i] >= AGREE_SCORE:
            added.append(i)
    seen = (overlap(boxes, faces.boxes, of_first=True) >= 0.5).any(0)  # (N,): a find lies in the box
    too_small = faces.sizes() < LEAST_JUDGED
    keep = sure | seen | too_small
    sure &= seen | too_small | faces.human
    old = Faces(faces.boxes[keep], faces.points[keep], sure[keep], faces.human[keep])
    new = Faces(boxes[added], points[added], scores[added] >= ALONE_SCORE, np.zeros(len(added), bool))
    return Faces.concatenate([old, new])


def write_labels(path: Path, labels: dict[str, tuple[tuple[int, int], Faces]]) -> None:
    """Write faces as a pack's CSV; sure teacher boxes get score 1, doubtful ones 0."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "width", "height", *"xywh", *POINT_COLUMNS, "score", "source"])
        for name, ((width, height), faces) in labels.items():
            if not len(faces):
                writer.writerow([name, width, height, *[""] * 16])
            for box, points, sure, human in zip(faces.boxes, faces.points, faces.sure, faces.human, strict=True):
                corner, edges = box[:2].round(1).tolist(), (box[2:] - box[:2]).round(1).tolist()
                five = ["" if np.isnan(v) else round(float(v), 1) for v in points.reshape(-1)]
                source = "human" if human else "teacher"
                writer.writerow([name, width, height, *corner, *edges, *five, int(sure), source])


def main() -> None:
    """Read the command line and write new labels for one side of a pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pack", required=True)
    parser.add_argument("--teacher", type=Path, required=True, help="CenterFace as ONNX")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", action="store_true", help="label the held-out pictures, for evaluate --labels")
    parser.add_argument("--scales", type=float, nargs="+", default=(1.6,))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    teacher, labels = CenterFace(arguments.teacher), {}
    before = after = 0
    side = arguments.held_out
    for packed in read_pack(arguments.data, arguments.pack, keep=lambda n: is_validation(arguments.pack, n) == side):
        image = packed.decode()
        faces = packed.faces
        if len(faces):  # where the first teacher saw nothing, not even a doubtful face, there is hardly one
            faces = merge(faces, find_at_scales(teacher.find, image, tuple(arguments.scales), UNSEEN_SCORE, iou=0.35))
        labels[packed.name] = ((image.shape[1], image.shape[0]), faces)
        before, after = before + int(packed.faces.sure.sum()), after + int(faces.sure.sum())
    write_labels(arguments.out / f"{arguments.pack}.csv", labels)
    print(f"{arguments.pack}: {before} sure faces before, {after} now")


if __name__ == "__main__":
    command.run(main)
