"""Average precision, false alarms and point error over a set of pictures.

Doubtful labels, and faces smaller than the size that is asked about, are neither to be found nor false alarms: a
detection that overlaps one is left out of the count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visaged.models.training.common.packs import Faces, FloatArray
from visaged.models.training.evaluation.decode import Found, overlap

MATCH_IOU = 0.5
LEFT_OUT_SHARE = 0.5
"""A detection of which this much lies in a doubtful box is left out."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Detections of one or more pictures, after matching.

    Attributes:
        scores: (N,) float32 of the detections that count.
        hits: (N,) bool, those that found a face.
        faces: number of faces that were to be found.
    """

    scores: FloatArray
    hits: NDArray[np.bool_]
    faces: int

    def average_precision(self) -> float:
        """Return the area under the precision envelope over recall, 0..1."""
        if not self.faces:
            return float("nan")
        order = np.argsort(-self.scores, kind="stable")
        found = np.cumsum(self.hits[order])
        precision = found / np.arange(1, len(order) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        steps = np.diff(np.concatenate([[0], found / self.faces]))
        return float((steps * envelope).sum())


def match(found: Found, faces: Faces, least_size: float) -> Scored:
    """Match one picture's detections, best first, each to the free face that it overlaps most."""
    boxes, scores, _ = found
    sizes = faces.sizes()
    wanted = faces.sure & (sizes >= least_size)
    pairs = overlap(boxes, faces.boxes)  # (detections, faces)
    covered = overlap(boxes, faces.boxes[~faces.sure], of_first=True)
    free = np.ones(len(faces), bool)
    counts, hits = np.ones(len(boxes), bool), np.zeros(len(boxes), bool)
    own_sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1))
    for i in range(len(boxes)):
        choice = np.where(wanted & free, pairs[i], 0)
        best = int(choice.argmax()) if len(choice) else -1
        if best >= 0 and choice[best] >= MATCH_IOU:
            hits[i], free[best] = True, False
            continue
        in_small = (pairs[i][~wanted] >= MATCH_IOU).any()
        in_doubt = covered.shape[1] > 0 and covered[i].max() >= LEFT_OUT_SHARE
        counts[i] = not (in_small or in_doubt or own_sizes[i] < least_size)
    return Scored(scores[counts], hits[counts], int(wanted.sum()))


def join(parts: list[Scored]) -> Scored:
    """Put the pictures of a set together."""
    return Scored(
        np.concatenate([p.scores for p in parts]), np.concatenate([p.hits for p in parts]), sum(p.faces for p in parts)
    )


def point_errors(found: Found, faces: Faces, least_size: float) -> FloatArray:
    """Return per face the mean distance of the five points in percent of the face's size, NaN where not found."""
    boxes, _, points = found
    errors = np.full(len(faces), np.nan, np.float32)
    if not len(boxes):
        return errors
    pairs = overlap(faces.boxes, boxes)
    for i, size in enumerate(faces.sizes()):
        best = int(pairs[i].argmax())
        if faces.sure[i] and size >= least_size and pairs[i, best] >= MATCH_IOU:
            errors[i] = 100 * np.linalg.norm(points[best] - faces.points[i], axis=1).mean() / size
    return errors
