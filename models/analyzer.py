"""The analyzer: aligned crops in, attributes and landmarks of the faces out.

The manifest alone says which heads there are and how their numbers are to be read.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visaged.models.alignment import Aligner
from visaged.models.detector import require
from visaged.models.device import Array
from visaged.models.manifest import AnalyzerEntry, Head, Manifest
from visaged.models.nvidia.tensorrt import Profile
from visaged.models.preprocess import is_plain, tensor
from visaged.models.session import Session, SessionConfig
from visaged.models.types import FloatArray

_GPU_BATCHES = (1, 8, 32)
"""On an H200, 32 crops take a tenth longer than one."""


class Analyzer:
    """A loaded analyzer; `analyze` may be called from many threads at once.

    Args:
        session: The network.
        entry: The manifest's entry of the network.

    Raises:
        ModelError: The network lacks an input or output that the manifest names.

    Attributes:
        heads: The heads by the names of their attributes.
        aligner: Says where the crops that the network takes lie in a picture.
        template: Where the five points go, in crop pixels.
        no_face: How much each sign speaks against a crop's being a face; None where the manifest says nothing of it.
        doubts: Whether the manifest has `no_face`, or a `doubt` for any head.
        takes_device_batches: Whether batches may be on the device on which the network runs.
        longest_batch: Most crops that are computed at once; batches on a device need room for multiples of it.
    """

    def __init__(self, session: Session, entry: AnalyzerEntry) -> None:
        self._session = session
        self._input = entry.input
        self.name = entry.name
        self.provider = session.provider
        self.precision = session.precision
        self.heads: dict[str, Head] = {head.name: head for head in entry.heads}
        self.no_face = entry.no_face
        self.doubts = entry.no_face is not None or any(head.doubt is not None for head in entry.heads)
        self.template = entry.input.template
        self.aligner = Aligner(entry.input.template, entry.input.size)
        self._outputs = [head.output for head in entry.heads] + [
            head.deviation for head in entry.heads if head.deviation is not None
        ]
        self.takes_device_batches = is_plain(entry.input)
        self.longest_batch = max(session.batches, default=1)
        require(session, entry.name, [self._input.name], self._outputs)

    @classmethod
    def load(cls, manifest: Manifest, name: str, config: SessionConfig) -> Analyzer:
        """Load an analyzer by its name in the manifest; raises `ModelError`."""
        entry = manifest.analyzer(name)
        return cls(Session(Path(manifest.file(entry)), config, _GPU_BATCHES), entry)

    def prepare(self) -> None:
        """On CUDA, get ready for crops in any batch.

        Raises:
            ModelError: The network cannot be run; the text says why.
        """
        blank = np.zeros((1, self.aligner.size, self.aligner.size, 3), np.uint8)
        self._session.prepare(self._input.name, tensor(blank, self._input), max(_GPU_BATCHES))

    def profile(self) -> Profile:
        """Return the shapes of the network's input for batches of any length that a GPU is given."""
        blank = np.zeros((1, self.aligner.size, self.aligner.size, 3), np.uint8)
        crop = tensor(blank, self._input).shape[1:]
        return Profile((1, *crop), (_GPU_BATCHES[1], *crop), (max(_GPU_BATCHES), *crop))

    def on_engine(self, profile: Profile) -> Analyzer:
        """Return this analyzer on a TensorRT engine for the profile. It may take minutes; raises `ModelError`."""
        other = copy.copy(self)
        other._session = self._session.build_engine(self._input.name, profile)  # type: ignore[assignment]
        return other

    def use_engine(self, profile: Profile, other: Analyzer) -> None:
        """Read on the engine of `on_engine` from now on, where the profile covers a batch."""
        self._session.use_engine(self._input.name, profile, other._session)

    @property
    def points_head(self) -> Head | None:
        """The head that gives landmarks, if there is one."""
        return next((head for head in self.heads.values() if head.kind == "points"), None)

    def analyze(self, crops: Array) -> list[dict[str, FloatArray]]:
        """Read a batch of faces.

        Args:
            crops: (B, size, size, 3) uint8 BGR; may be on the network's device.

        Returns:
            For every crop, by attribute name, what the head gave in a form that can be averaged: `points` (N, 2) crop
            pixels; `classes` and `binary` (K,) probabilities; `score` (1,); `angles` (3,); `number` (2,) value and
            standard deviation (NaN where the network gives none).
        """
        values = dict(
            zip(
                self._outputs,
                self._session.run(self._outputs, {self._input.name: tensor(crops, self._input)}),
                strict=True,
            )
        )
        columns = {name: _readings(head, values) for name, head in self.heads.items()}
        return [{name: column[index] for name, column in columns.items()} for index in range(len(crops))]


def _readings(head: Head, values: dict[str, NDArray[np.float32]]) -> FloatArray:
    value = values[head.output]
    if head.kind == "binary":
        value = value.reshape(-1)
        return np.stack([1 - value, value], 1)
    if head.kind == "number":
        value = value.reshape(-1)
        deviation = values[head.deviation].reshape(-1) if head.deviation else np.full_like(value, np.nan)
        return np.stack([value, deviation], 1)
    if head.kind == "score":
        return value.reshape(-1, 1)
    return value
