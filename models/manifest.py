"""The manifest: what every network file is, what goes in, what comes out, and where it comes from.

A network is used only through its entry here, so a better or a foreign one drops in by a new file and a new entry,
without a change of code. The heads of an analyzer are data too: a new attribute is a new head in the manifest.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from visaged.models.decoders import DECODERS
from visaged.models.documents import MOST_BYTES, DocumentError, parse
from visaged.models.errors import ModelError
from visaged.models.onnx_file import external_files

WEIGHTS = Path(__file__).parent / "weights"
"""The folder of the networks that come with the package."""
PACKAGED = WEIGHTS / "manifest.yaml"
"""The manifest of those networks."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Input(_Frozen):
    """How pixels enter a network; the networks of this project do all of it inside and take them as they are."""

    name: str
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    dtype: Literal["uint8", "float32"] = "uint8"
    colour: Literal["BGR", "RGB"] = "BGR"
    mean: float = 0.0
    """With float32: what is subtracted from every value of 0..255, before `scale`."""
    scale: float = 1.0
    """With float32: what every value is then multiplied by."""

    @model_validator(mode="after")
    def _scaled_as_float(self) -> Self:
        if self.dtype == "uint8" and (self.mean, self.scale) != (0.0, 1.0):
            raise ValueError("mean and scale need dtype float32")
        return self


class DetectorInput(_Input):
    """Pictures in: (B, H, W, 3) or (B, 3, H, W), both sides multiples of `multiple_of`."""

    multiple_of: Annotated[int, Field(ge=1, le=1024)] = 32


class AnalyzerInput(_Input):
    """Aligned crops in: (B, size, size, 3) or (B, 3, size, size), the five points by similarity onto `template`."""

    size: Annotated[int, Field(ge=16, le=512)]
    template: Annotated[list[tuple[float, float]], Field(min_length=5, max_length=5)]
    """Where right eye, left eye, nose, right and left mouth corner (of the person) go, in crop pixels."""

    @field_validator("template")
    @classmethod
    def _eyes_apart(cls, template: list[tuple[float, float]]) -> list[tuple[float, float]]:
        if math.dist(template[0], template[1]) < 1:
            raise ValueError("the two eyes, its first two points, are less than a pixel apart")
        return template


_Slope = Annotated[float, Field(ge=0, le=100)]


class Doubt(_Frozen):
    """How much each sign of `visaged.models.trust` speaks against an answer: `base` plus the signs by their slopes.

    No slope is negative: a face that is smaller, more turned or more blurred is never believed more for it.
    """

    base: Annotated[float, Field(ge=-100, le=100)] = 0.0
    small: _Slope = 0.0
    turned: _Slope = 0.0
    tilted: _Slope = 0.0
    blurred: _Slope = 0.0
    poor: _Slope = 0.0
    askew: _Slope = 0.0
    unsure: _Slope = 0.0


class Head(_Frozen):
    """One attribute that an analyzer reads from a face, or its landmarks."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """The attribute's name in messages; the head of kind `points` gives the landmarks."""
    kind: Literal["points", "number", "classes", "binary", "score", "angles"]
    """`points` (B, N, 2) crop pixels; `number` (B,) in `unit`; `classes` (B, K) probabilities of `labels`; `binary`
    (B,) probability of the second of two labels; `score` (B,) 0..1; `angles` (B, 3) yaw, pitch, roll
    in degrees as the crop shows them, with the signs of `visaged.models.geometry.HeadPose`."""
    output: str
    """The name of the network's output."""
    labels: list[str] = []
    deviation: str | None = None
    """For `number`: the output (B,) with the standard deviation, in the same unit."""
    unit: str | None = None
    tolerance: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    """For `number`: the confidence of a value is the chance that the truth lies within +- this."""
    count: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """For `points`: how many."""
    memory_s: Annotated[float, Field(ge=0, le=1e6)] | None = None
    """Over a track, a reading's weight falls to 1/e in this time; absent: never (age), 0: only the newest (points)."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The attribute is published from this confidence on, unless the configuration sets another; 0: always."""
    doubt: Doubt | None = None
    """For probabilities, and numbers with a deviation: ln of the temperature that draws the probabilities together, or
    of what the deviation grows by. Absent: the network is believed."""

    @model_validator(mode="after")
    def _complete(self) -> Head:
        need = {"binary": 2, "classes": 1}.get(self.kind, 0)
        if need and (len(self.labels) < need or (self.kind == "binary" and len(self.labels) != 2)):
            raise ValueError(f"a head of kind {self.kind} needs {'two' if need == 2 else 'its'} labels")
        if self.kind == "points" and self.count is None:
            raise ValueError("a head of kind points needs its count")
        if self.kind == "points" and self.min_confidence:
            raise ValueError("a head of kind points has no confidence, and takes no min_confidence")
        if self.doubt is not None and self.kind not in ("binary", "classes") and self.deviation is None:
            raise ValueError(f"doubt is for probabilities and deviations; a head of kind {self.kind} has none")
        if self.deviation is not None and self.tolerance is None:
            raise ValueError("a head with a deviation needs a tolerance")
        return self


class TrainingData(_Frozen):
    """A set of pictures that a network was trained on."""

    name: str
    terms: str


class _Entry(_Frozen):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$")]
    """How the configuration names this network."""
    file: str
    """The ONNX file, relative to the manifest."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    version: str
    date: datetime.date
    licence: str
    training_data: list[TrainingData]
    accuracy: dict[str, Any]
    """Measured figures, by data set."""
    card: str | None = None
    """The model card, relative to the manifest."""


class DetectorEntry(_Entry):
    """A network that finds faces."""

    task: Literal["detector"]
    input: DetectorInput
    decoder: Literal["cells", "distances", "scrfd", "yunet"]
    """How its raw outputs become faces: `visaged.models.decoders` says what each expects."""
    strides: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=1)]
    outputs: dict[str, list[str]] = {}
    """The network's names of what the decoder expects, each a list by stride; `<kind>_<stride>` unless given here."""
    max_batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Most pictures that the file takes at once; 1 for one without a batch axis, null for any number."""
    threshold: Annotated[float, Field(ge=1e-6, lt=1)] = 0.5
    """A sane smallest confidence."""
    nms_iou: Annotated[float, Field(ge=1e-6, lt=1)] = 0.45
    gpu: bool = False
    """Made for a GPU and too slow for a CPU: `Manifest.default_detector` returns it for a GPU alone."""

    @model_validator(mode="after")
    def _outputs_fit(self) -> Self:
        if any(self.input.multiple_of % stride for stride in self.strides):
            # Otherwise a network rounds its last row of cells up, and every later cell is read at a wrong place.
            raise ValueError(f"input.multiple_of {self.input.multiple_of} must be a multiple of every stride")
        kinds = DECODERS[self.decoder].kinds
        for kind, names in self.outputs.items():
            if kind not in kinds:
                raise ValueError(f"outputs: decoder {self.decoder} knows {', '.join(kinds)}, not {kind}")
            if len(names) != len(self.strides):
                raise ValueError(f"outputs.{kind}: needs a name for each of the {len(self.strides)} strides")
        return self

    def output_names(self, kinds: Sequence[str]) -> list[str]:
        """Return the network's names of its outputs, kind after kind, each by stride."""
        given = {kind: [f"{kind}_{stride}" for stride in self.strides] for kind in kinds} | self.outputs
        return [name for kind in kinds for name in given[kind]]


class AnalyzerEntry(_Entry):
    """A network that reads an aligned face."""

    task: Literal["analyzer"]
    input: AnalyzerInput
    heads: Annotated[list[Head], Field(min_length=1)]
    no_face: Doubt | None = None
    """Log-odds that a crop shows no face to be read, but the back of a head or nothing of the kind: what all answers
    about it are worth falls with them. Absent: every crop is taken for a face."""

    @model_validator(mode="after")
    def _unique(self) -> AnalyzerEntry:
        names = [head.name for head in self.heads]
        if len(set(names)) != len(names):
            raise ValueError("two heads have one name")
        return self


Entry = DetectorEntry | AnalyzerEntry
EntryT = TypeVar("EntryT", DetectorEntry, AnalyzerEntry)


class _Document(_Frozen):
    models: list[Annotated[Entry, Field(discriminator="task")]]

    @model_validator(mode="after")
    def _unique(self) -> _Document:
        names = [entry.name for entry in self.models]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"more than one model is named {', '.join(double)}")
        return self


class Manifest:
    """The networks that a folder offers.

    Args:
        path: The manifest file; the networks' files are relative to it.

    Raises:
        ModelError: The file cannot be read or is not a manifest; the text names the key.
    """

    def __init__(self, path: Path = PACKAGED) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                document = parse(file.read(MOST_BYTES + 1))
        except OSError as error:
            raise ModelError(f"cannot read the model manifest {path}: {error.strerror}") from error
        except DocumentError as error:
            raise ModelError(f"the model manifest {path} {error}") from error
        try:
            self.entries: Sequence[Entry] = _Document.model_validate(document).models
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()
            )
            raise ModelError(f"the model manifest {path} is wrong: {problems}") from error

    def detector(self, name: str) -> DetectorEntry:
        """Return the detector of that name; `ModelError` if there is none."""
        return self._find(name, DetectorEntry)

    def default_detector(self, *, on_gpu: bool) -> DetectorEntry:
        """Return the first detector that is made for a GPU, or for a CPU; the first of all where none is.

        Raises:
            ModelError: There is no detector.
        """
        detectors = [entry for entry in self.entries if isinstance(entry, DetectorEntry)]
        if not detectors:
            raise ModelError(f"there is no detector in {self.path}")
        return next((entry for entry in detectors if entry.gpu == on_gpu), detectors[0])

    def analyzer(self, name: str) -> AnalyzerEntry:
        """Return the analyzer of that name; `ModelError` if there is none."""
        return self._find(name, AnalyzerEntry)

    def _find(self, name: str, kind: type[EntryT]) -> EntryT:
        task = "detector" if kind is DetectorEntry else "analyzer"
        fitting = [entry for entry in self.entries if isinstance(entry, kind)]
        for entry in fitting:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in fitting) or "none"
        raise ModelError(f"there is no {task} named {name!r} in {self.path} (there: {known})")

    def file(self, entry: Entry) -> Path:
        """Return the network's file after comparing its hash.

        Raises:
            ModelError: The file is missing, unreadable, not the one that the manifest describes, or has weights in
                other files, which its hash does not cover.
        """
        path = self.path.parent / entry.file
        try:
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
        except OSError as error:
            raise ModelError(f"cannot read the file of model {entry.name}, {path}: {error.strerror}") from error
        if digest != entry.sha256:
            raise ModelError(
                f"the file of model {entry.name}, {path}, has sha256 {digest}, but the manifest says {entry.sha256}: "
                "the file is damaged or another version; restore it, or correct the manifest if you changed it"
            )
        _check_alone(f"the file of model {entry.name}, {path},", data)
        return path


def _check_alone(what: str, data: bytes) -> None:
    """Raise `ModelError` if an ONNX file refers to other files."""
    try:
        others = external_files(data)
    except ValueError as error:
        raise ModelError(f"{what} cannot be loaded as a network: {error}") from None
    if others:
        names = ", ".join(name for name in others if name) or "one without a name"
        raise ModelError(
            f"{what} keeps weights in other files ({names}), which its sha256 does not cover; save it as one file: "
            "onnx.save(onnx.load(FILE), NEW)"
        )
