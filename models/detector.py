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
    found: list[Detections] = []
    owners: list[NDArray[np.intp]] = []  # whose picture, for each of `found`
    for stride in strides:
        # Only what passes is gathered: copying all cells would cost more than the rest of this function.
        score = raw[f"score_{stride}"].ravel()
        hits = (score >= threshold).nonzero()[0]  # (N,) among (B, rows, columns)
        if not len(hits):
            continue
        _, rows, columns = raw[f"score_{stride}"].shape
        cell = hits % (rows * columns)
        centre = _centres(rows, columns, stride)[cell]  # (N, 2)
        box = raw[f"box_{stride}"].reshape(-1, 4)[hits] * stride
        points = raw[f"points_{stride}"].reshape(-1, 5, 2)[hits] * stride + centre[:, None]
        box[:, :2] *= -1
        box[:, :2] += centre
        box[:, 2:] += centre
        found.append(Detections(box, score[hits], points))
        owners.append(hits // (rows * columns))
    if not found:
        return [Detections.empty()] * pictures
    everything = Detections(
        np.concatenate([part.boxes for part in found]),
        np.concatenate([part.confidences for part in found]),
        np.concatenate([part.landmarks for part in found]),
    )
    if pictures == 1:
        return [everything]
    owner = np.concatenate(owners)
    return [everything[owner == index] for index in range(pictures)]


@lru_cache(maxsize=64)
def _centres(rows: int, columns: int, stride: int) -> FloatArray:
    """Return the centre of every cell in pixels, (rows * columns, 2) float32 x, y."""
    row, column = np.mgrid[:rows, :columns]
    centres: FloatArray = (np.stack([column.ravel(), row.ravel()], 1).astype(np.float32) + np.float32(0.5)) * stride
    return centres


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
