"""The detector: canvases in, faces out.

Raw tensors become faces in one function of `DECODERS`, named by the manifest, so that networks with other heads drop
in. Decoding and non-maximum suppression in numpy cost 0.1 ms a picture; inside the graph they were slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visaged.models.errors import ModelError
from visaged.models.manifest import DetectorEntry, Manifest
from visaged.models.session import Session, SessionConfig
from visaged.models.types import Detections, FloatArray, Image

Raw = dict[str, NDArray[np.float32]]
Decoder = Callable[[Raw, Sequence[int], float], list[Detections]]


def decode_distances(raw: Raw, strides: Sequence[int], threshold: float) -> list[Detections]:
    """Decode per-cell distances, as FCOS does (Tian et al. 2019, arXiv 1904.01355).

    Args:
        raw: For every stride s: `score_s` (B, H/s, W/s) 0..1; `box_s` (B, H/s, W/s, 4) distances left, top, right,
            bottom from the cell's centre, in strides; `points_s` (B, H/s, W/s, 10) x, y offsets from it, in strides.
        strides: Of the outputs, in pixels.
        threshold: Smallest score that counts.

    Returns:
        For every picture of the batch the candidates, in canvas pixels, unsorted and still overlapping.
    """
    pictures = len(raw[f"score_{strides[0]}"])

    def cells(kind: str, *values: int) -> FloatArray:  # (B, cells of all strides, *values)
        return np.concatenate([raw[f"{kind}_{stride}"].reshape(pictures, -1, *values) for stride in strides], 1)

    score = cells("score")
    picture, cell = np.nonzero(score >= threshold)  # (N,), (N,)
    if not len(cell):
        return [Detections.empty()] * pictures
    centres, sizes = _grid(tuple(raw[f"score_{stride}"].shape[1:] for stride in strides), tuple(strides))
    centre, size = centres[cell], sizes[cell]  # (N, 2), (N, 1)
    box = cells("box", 4)[picture, cell] * size
    points = cells("points", 5, 2)[picture, cell] * size[:, None] + centre[:, None]
    corners = np.concatenate([centre - box[:, :2], centre + box[:, 2:]], 1)
    found = Detections(corners, score[picture, cell], points)
    return [found] if pictures == 1 else [found[picture == index] for index in range(pictures)]


@lru_cache(maxsize=32)
def _grid(shapes: tuple[tuple[int, int], ...], strides: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Return the centre (M, 2) and the stride (M, 1) of every cell, in pixels, for outputs of (rows, columns) each."""
    centres, sizes = [], []
    for (rows, columns), stride in zip(shapes, strides, strict=True):
        row, column = np.mgrid[:rows, :columns]
        centres.append((np.stack([column.ravel(), row.ravel()], 1) + 0.5) * stride)
        sizes.append(np.full((rows * columns, 1), stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(sizes).astype(np.float32)


# All pairs are compared at once; a picture made to look like faces all over must not take memory without bound.
_MOST_CANDIDATES = 2000

DECODERS: dict[str, Decoder] = {"distances": decode_distances}


def suppress(candidates: Detections, iou: float) -> Detections:
    """Greedy non-maximum suppression: keep the best, drop what overlaps it by more than `iou`, and so on.

    Returns:
        The kept ones, best first.
    """
    if len(candidates) < 2:
        return candidates
    candidates = candidates[np.argsort(-candidates.confidences, kind="stable")[:_MOST_CANDIDATES]]
    low, high = candidates.boxes[:, :2], candidates.boxes[:, 2:]
    overlap = np.clip(np.minimum(high[:, None], high) - np.maximum(low[:, None], low), 0, None)  # (N, N, 2)
    shared = overlap[..., 0] * overlap[..., 1]
    area = np.prod(high - low, axis=1)
    close = shared > iou * (area[:, None] + area - shared)
    kept: list[int] = []
    alive = np.ones(len(candidates), bool)
    for index in range(len(candidates)):
        if alive[index]:
            kept.append(index)
            alive &= ~close[index]
    return candidates[kept]


class Detector:
    """A loaded detector; `detect` may be called from many threads at once.

    Args:
        session: The network.
        entry: What the manifest says of it.
        floor: Smallest confidence that is reported at all; None takes the manifest's threshold of a face.

    Raises:
        ModelError: The network lacks an input or output that the manifest's decoder needs.

    Attributes:
        face_threshold: The confidence from which the manifest calls something a face.
    """

    def __init__(self, session: Session, entry: DetectorEntry, floor: float | None = None) -> None:
        self._session = session
        self._entry = entry
        self.name = entry.name
        self.provider = session.provider
        self.on_gpu = session.on_gpu
        self.multiple_of = entry.input.multiple_of
        self.face_threshold = entry.threshold
        self._floor = entry.threshold if floor is None else floor
        self._outputs = [f"{kind}_{stride}" for stride in entry.strides for kind in ("score", "box", "points")]
        require(session, entry.name, [entry.input.name], self._outputs)

    @classmethod
    def load(cls, manifest: Manifest, name: str, config: SessionConfig, floor: float | None = None) -> Detector:
        """Load a detector by its name in the manifest; raises `ModelError`."""
        entry = manifest.detector(name)
        return cls(Session(Path(manifest.file(entry)), config), entry, floor)

    def detect(self, canvases: Image) -> list[Detections]:
        """Find the faces of a batch.

        Args:
            canvases: (B, H, W, 3) uint8 BGR, sides multiples of `multiple_of`.

        Returns:
            For every picture its faces in canvas pixels, best first.
        """
        values = self._session.run(self._outputs, {self._entry.input.name: canvases})
        raw = dict(zip(self._outputs, values, strict=True))
        decoded = DECODERS[self._entry.decoder](raw, self._entry.strides, self._floor)
        return [suppress(candidates, self._entry.nms_iou) for candidates in decoded]


def require(session: Session, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raise `ModelError` unless the network has these inputs and outputs."""
    missing = [i for i in inputs if i not in session.inputs] + [o for o in outputs if o not in session.outputs]
    if missing:
        raise ModelError(
            f"model {name} lacks {', '.join(missing)}, which its manifest entry names "
            f"(it has inputs {', '.join(session.inputs)}; outputs {', '.join(session.outputs)})"
        )
