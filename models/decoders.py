"""What networks' raw outputs mean: one function for each way of coding faces, named by the manifest.

Decoding in numpy costs 0.1 ms a picture; inside the graph it was slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from visaged.models.errors import ModelError
from visaged.models.types import Detections, FloatArray

Raw = Mapping[tuple[str, int], FloatArray]
"""Outputs by what they hold and by stride."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The shape of a detector's input: so many pictures of so many pixels."""

    pictures: int
    height: int
    width: int

    def grid(self, stride: int) -> tuple[int, int]:
        """Return rows and columns of the cells of a stride."""
        return self.height // stride, self.width // stride


_CELL = 15
"""Numbers of a face in `cells`: a score, four distances, five points."""

_HIGHEST = 1.001
"""A score may be above 1 by a rounding error."""

Hits = NDArray[np.intp]
_Level = tuple[FloatArray, Callable[[Hits], tuple[FloatArray, FloatArray]]]
"""What a decoder reads of one stride: scores (B, N), and a function that gathers boxes (K, 4) and
points (K, 5, 2) in pixels for flat indices (K,)."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """A way of coding faces.

    Attributes:
        numbers: The kinds of outputs of a stride, and how many numbers a face has in each; scores come first.
        levels: Reads the outputs, stride by stride.
        anchors: A cell may hold several faces.
    """

    numbers: Mapping[str, int]
    levels: Callable[[Raw, Sequence[int], Batch], Iterable[_Level]]
    anchors: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """What a stride's outputs hold; the network's names are `<kind>_<stride>` unless the manifest says others."""
        return tuple(self.numbers)

    def decode(self, raw: Raw, strides: Sequence[int], batch: Batch, threshold: float) -> list[Detections]:
        """Return the candidates of every picture, in canvas pixels, unsorted and still overlapping.

        Args:
            raw: The network's outputs, float32.
            strides: Strides of the outputs, in pixels.
            batch: Shape of the network's input.
            threshold: Smallest score that counts.

        Raises:
            ModelError: The outputs are not what this decoder reads: of another shape, no probabilities, not finite.
        """
        self._check_shapes(raw, strides, batch)
        found: list[Detections] = []
        owners: list[Hits] = []  # whose picture, for each of `found`
        for stride, (score, gather) in zip(strides, self.levels(raw, strides, batch), strict=True):
            top = float(score.max())  # NaN if any is
            if not top <= _HIGHEST:
                raise ModelError(
                    f"the scores of stride {stride} go up to {top:.3g}, but they must lie within 0..1: "
                    "the export lacks its sigmoid, or the network is damaged or overflows in half precision"
                )
            # Only what passes is gathered: copying all cells would cost more than the rest of this function.
            flat = score.ravel()
            hits = (flat >= threshold).nonzero()[0]
            if len(hits):
                boxes, points = gather(hits)
                if not (np.isfinite(boxes).all() and np.isfinite(points).all()):
                    raise ModelError(
                        f"a face of stride {stride} has a box or a point that is not finite: "
                        "the network is damaged or overflows in half precision"
                    )
                found.append(Detections(boxes, flat[hits], points))
                owners.append(hits // (len(flat) // batch.pictures))
        if not found:
            return [Detections.empty()] * batch.pictures
        everything = Detections(
            np.concatenate([part.boxes for part in found]),
            np.concatenate([part.confidences for part in found]),
            np.concatenate([part.landmarks for part in found]),
        )
        if batch.pictures == 1:
            return [everything]
        owner = np.concatenate(owners)
        return [everything[owner == index] for index in range(batch.pictures)]

    def _check_shapes(self, raw: Raw, strides: Sequence[int], batch: Batch) -> None:
        for stride in strides:
            rows, columns = batch.grid(stride)
            cells = batch.pictures * rows * columns
            first = raw[self.kinds[0], stride].size
            for kind, numbers in self.numbers.items():
                value = raw[kind, stride]
                faces = cells * max(1, first // cells) if self.anchors else cells
                if value.size != faces * numbers or (numbers > 1 and value.shape[-1] != numbers):
                    raise ModelError(
                        f"the output {kind} of stride {stride} has shape {value.shape}, but {batch.pictures} x "
                        f"{batch.width}x{batch.height} pixels need {faces} x {numbers} numbers"
                        + (", those of a face last" if numbers > 1 else "")
                        + ": check the entry's decoder, strides and outputs, and whether the file's batch is fixed"
                    )


def _distance_levels(raw: Raw, strides: Sequence[int], batch: Batch) -> Iterable[_Level]:
    """Read distances to the box's sides from each cell's centre (FCOS: Tian et al. 2019, arXiv 1904.01355).

    Per stride s: `score` (B, H/s, W/s) 0..1; `box` (B, H/s, W/s, 4) left, top, right, bottom in strides; `points`
    (B, H/s, W/s, 10) x, y offsets from the centre in strides.
    """
    for stride in strides:
        centres = _cells(*batch.grid(stride), stride, 0.5)
        yield raw["score", stride], _from_distances(raw["box", stride], raw["points", stride], centres, stride)


def _cell_levels(raw: Raw, strides: Sequence[int], batch: Batch) -> Iterable[_Level]:
    """Read what `_distance_levels` does, before its last functions: for all cells they cost a twentieth of the time.

    Per stride s: `cells` (B, H/s, W/s, 15): the score's logit, the four distances before softplus, the offsets.
    """
    for stride in strides:
        cells = raw["cells", stride].reshape(-1, _CELL)
        centres = _cells(*batch.grid(stride), stride, 0.5)

        def gather(
            hits: Hits, cells: FloatArray = cells, centres: FloatArray = centres, stride: int = stride
        ) -> tuple[FloatArray, FloatArray]:
            found = cells[hits]
            distances = np.logaddexp(np.float32(0), found[:, 1:5])
            return _in_pixels(distances, found[:, 5:], centres[hits % len(centres)], stride)

        yield 0.5 + 0.5 * np.tanh(0.5 * cells[:, 0]), gather  # the logistic function, without overflow


def _scrfd_levels(raw: Raw, strides: Sequence[int], batch: Batch) -> Iterable[_Level]:
    """Read SCRFD's outputs (Guo et al. 2021, arXiv 2105.04714; as InsightFace exports them).

    Per stride s, with A anchors a cell: `score` (B, H/s W/s A, 1) 0..1, `bbox` (..., 4) distances in strides from the
    cell's top left corner, `kps` (..., 10). A file without a batch axis has (H/s W/s A, 1) and so on, and takes one
    picture at a time (`max_batch: 1` in its entry).
    """
    for stride in strides:
        rows, columns = batch.grid(stride)
        score = raw["score", stride]
        anchors = score.size // (batch.pictures * rows * columns)
        centres = np.repeat(_cells(rows, columns, stride, 0.0), anchors, axis=0)
        yield score, _from_distances(raw["bbox", stride], raw["kps", stride], centres, stride)


def _from_distances(
    boxes: FloatArray, points: FloatArray, centres: FloatArray, stride: int
) -> Callable[[Hits], tuple[FloatArray, FloatArray]]:
    def gather(hits: Hits) -> tuple[FloatArray, FloatArray]:
        centre = centres[hits % len(centres)]
        return _in_pixels(boxes.reshape(-1, 4)[hits], points.reshape(-1, 10)[hits], centre, stride)

    return gather


def _in_pixels(
    distances: FloatArray, offsets: FloatArray, centre: FloatArray, stride: int
) -> tuple[FloatArray, FloatArray]:
    """Return boxes (K, 4) and points (K, 5, 2) for (K, 4) distances and (K, 10) offsets from (K, 2) centres."""
    box = distances * np.float32(stride)
    box[:, :2] *= -1
    box[:, :2] += centre
    box[:, 2:] += centre
    return box, offsets.reshape(-1, 5, 2) * np.float32(stride) + centre[:, None]


def _yunet_levels(raw: Raw, strides: Sequence[int], batch: Batch) -> Iterable[_Level]:
    """Read YuNet's outputs (Wu et al., "YuNet: a tiny millisecond-level face detector", 2023; as OpenCV decodes them).

    Per stride s: `cls` and `obj` (B, H/s W/s, 1) 0..1, whose geometric mean is the score; `bbox` (B, H/s W/s, 4) centre
    as an offset from the cell's top left corner and logarithm of the size, in strides; `kps` (B, H/s W/s, 10) offsets.
    """
    for stride in strides:
        corners = _cells(*batch.grid(stride), stride, 0.0)
        boxes, points = raw["bbox", stride].reshape(-1, 4), raw["kps", stride].reshape(-1, 5, 2)

        def gather(
            hits: Hits,
            boxes: FloatArray = boxes,
            points: FloatArray = points,
            corners: FloatArray = corners,
            s: int = stride,
        ) -> tuple[FloatArray, FloatArray]:
            corner, box = corners[hits % len(corners)], boxes[hits]
            centre = box[:, :2] * np.float32(s) + corner
            half = np.exp(np.minimum(box[:, 2:], 20)) * np.float32(s / 2)
            found: FloatArray = np.concatenate([centre - half, centre + half], axis=1)
            return found, points[hits] * np.float32(s) + corner[:, None]

        yield np.sqrt(raw["cls", stride].clip(0, 1) * raw["obj", stride].clip(0, 1)), gather


@lru_cache(maxsize=64)
def _cells(rows: int, columns: int, stride: int, offset: float) -> FloatArray:
    """Return (column + offset, row + offset) of every cell in pixels, (rows * columns, 2) float32."""
    row, column = np.mgrid[:rows, :columns]
    cells: FloatArray = (np.stack([column.ravel(), row.ravel()], 1).astype(np.float32) + np.float32(offset)) * stride
    return cells


DECODERS: dict[str, Decoder] = {
    "cells": Decoder({"cells": _CELL}, _cell_levels),
    "distances": Decoder({"score": 1, "box": 4, "points": 10}, _distance_levels),
    "scrfd": Decoder({"score": 1, "bbox": 4, "kps": 10}, _scrfd_levels, anchors=True),
    "yunet": Decoder({"cls": 1, "obj": 1, "bbox": 4, "kps": 10}, _yunet_levels),
}
"""Decoders by the names that the manifest uses."""
