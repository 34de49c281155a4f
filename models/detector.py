"""The detector: canvases in, faces out.

What a network's raw outputs mean is one of `visaged.models.decoders`, named by the manifest, so that foreign networks
drop in.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visaged.models.decoders import DECODERS, Batch
from visaged.models.device import Array
from visaged.models.errors import ModelError
from visaged.models.manifest import DetectorEntry, Manifest
from visaged.models.nvidia.tensorrt import Profile
from visaged.models.preprocess import is_plain, tensor
from visaged.models.session import GPU_BATCHES, Session, SessionConfig
from visaged.models.types import Detections, Image

# A picture made to look like faces all over must not take time without bound: half a second with these.
_MOST_CANDIDATES, _MOST_FACES = 30_000, 2_000


def suppress(candidates: Detections, iou: float) -> Detections:
    """Greedy non-maximum suppression: keep the best, drop what overlaps it by more than `iou`, and so on.

    Returns:
        The kept ones, best first.
    """
    if len(candidates) < 2:
        return candidates
    candidates = candidates[np.argsort(-candidates.confidences, kind="stable")[:_MOST_CANDIDATES]]
    kept: list[int] = []
    left = np.arange(len(candidates))
    low, high = candidates.boxes[:, :2], candidates.boxes[:, 2:]
    area = np.prod(high - low, axis=1)
    while len(left) and len(kept) < _MOST_FACES:
        best, left = left[0], left[1:]
        kept.append(int(best))
        overlap = np.clip(np.minimum(high[left], high[best]) - np.maximum(low[left], low[best]), 0, None)
        shared = overlap[:, 0] * overlap[:, 1]
        left = left[shared <= iou * (area[left] + area[best] - shared)]
    return candidates[kept]


class Detector:
    """A loaded detector; `detect` may be called from many threads at once.

    Args:
        session: The network.
        entry: The manifest's entry of the network.
        floor: Smallest confidence that is reported at all; None takes the manifest's threshold of a face.

    Raises:
        ModelError: The network lacks an input or output that the manifest's decoder needs.

    Attributes:
        face_threshold: The confidence from which the manifest calls something a face.
        floor: Smallest confidence that is reported at all.
        nms_iou: Two boxes that overlap by more than this intersection over union are one face.
        sides: Height and width of the pictures that the file takes, None where any will do.
        fixed_size: Whether the file takes pictures of one size only.
        precision: What OpenVINO computes in; None on other providers.
        takes_device_batches: Whether batches may be on the device on which the network runs.
        longest_batch: Most pictures that are computed at once; batches on a device need room for multiples of it.
    """

    def __init__(self, session: Session, entry: DetectorEntry, floor: float | None = None) -> None:
        self._session = session
        self._entry = entry
        self.name = entry.name
        self.provider = session.provider
        self.precision = session.precision
        self.on_gpu = session.on_gpu
        self.multiple_of = entry.input.multiple_of
        self.face_threshold = entry.threshold
        self.nms_iou = entry.nms_iou
        self.floor = entry.threshold if floor is None else floor
        self._decoder = DECODERS[entry.decoder]
        self._keys = [(kind, stride) for kind in self._decoder.kinds for stride in entry.strides]
        self._outputs = entry.output_names(self._decoder.kinds)
        shape = session.inputs.get(entry.input.name, [])
        sides = shape[1:3] if entry.input.layout == "NHWC" else shape[2:4]
        self.sides = tuple(side if isinstance(side, int) else None for side in sides)
        self.fixed_size = any(side is not None for side in self.sides)
        self.takes_device_batches = is_plain(entry.input)
        self.longest_batch = max(session.batches, default=1)
        require(session, entry.name, [entry.input.name], self._outputs)

    @classmethod
    def load(cls, manifest: Manifest, name: str, config: SessionConfig, floor: float | None = None) -> Detector:
        """Load a detector by its name in the manifest; raises `ModelError`."""
        entry = manifest.detector(name)
        most = entry.max_batch or max(GPU_BATCHES)
        batches = sorted({min(size, most) for size in GPU_BATCHES})
        return cls(Session(Path(manifest.file(entry)), config, batches), entry, floor)

    def prepare(self, canvas: Image, most: int) -> None:
        """On CUDA, get ready for batches of one shape.

        Args:
            canvas: A canvas of that shape, (1, H, W, 3) uint8, sides multiples of `multiple_of`.
            most: Length of the longest batch that is to come.

        Raises:
            ModelError: The network cannot be run; the text says why.
        """
        self._session.prepare(self._entry.input.name, tensor(canvas, self._entry.input), most)

    def shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the network's input for a batch of canvases."""
        return (batch, height, width, 3) if self._entry.input.layout == "NHWC" else (batch, 3, height, width)

    def sides_of(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return height and width of the canvases in an input of a shape, or those that the file takes."""
        height, width = shape[1:3] if self._entry.input.layout == "NHWC" else shape[2:4]
        return self.sides[0] or height, self.sides[1] or width

    def on_engine(self, profile: Profile) -> Detector:
        """Return this detector on a TensorRT engine, for canvases that the profile covers and no others.

        It may take minutes; raises `ModelError`.
        """
        other = copy.copy(self)
        other._session = self._session.build_engine(self._entry.input.name, profile)  # type: ignore[assignment]
        return other

    def use_engine(self, profile: Profile, other: Detector) -> None:
        """Detect on the engine of `on_engine` from now on, where the profile covers a batch."""
        self._session.use_engine(self._entry.input.name, profile, other._session)

    def detect(self, canvases: Array) -> list[Detections]:
        """Find the faces of a batch.

        Args:
            canvases: (B, H, W, 3) uint8 BGR, sides multiples of `multiple_of`; may be on the network's device.

        Returns:
            For every picture its faces in canvas pixels, best first.
        """
        most = self._entry.max_batch or len(canvases)
        if len(canvases) > most:
            return [d for i in range(0, len(canvases), most) for d in self.detect(canvases[i : i + most])]
        values = self._session.run(self._outputs, {self._entry.input.name: tensor(canvases, self._entry.input)})
        raw = dict(zip(self._keys, values, strict=True))
        decoded = self._decoder.decode(raw, self._entry.strides, Batch(*canvases.shape[:3]), self.floor)
        return [suppress(candidates, self.nms_iou) for candidates in decoded]


def require(session: Session, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raise `ModelError` unless the network has these inputs and outputs."""
    missing = [i for i in inputs if i not in session.inputs] + [o for o in outputs if o not in session.outputs]
    if missing:
        raise ModelError(
            f"model {name} lacks {', '.join(missing)}, which its manifest entry names "
            f"(it has inputs {', '.join(session.inputs)}; outputs {', '.join(session.outputs)})"
        )
