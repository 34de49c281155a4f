"""The records that stages pass on: frames, faces, events, results and states. All are frozen, plain data.

Values are not rounded here; `visaged.pipelines.outputs.documents` rounds them and makes JSON. This module imports no
stage, so that every stage and output can import it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from visaged.models.geometry import HeadPose
from visaged.models.preprocess import Canvas
from visaged.models.surface import DeviceCanvas, Surface
from visaged.models.types import FloatArray, Image
from visaged.pipelines.presentation import Presentation

Clock = Literal["camera", "arrival"]
Answer = Literal["nothing", "doubtful", "face", "lost"]
WakeCause = Literal["face", "doubtful", "motion", "sizes", "shape", "key_frames", "ended"]
WAKE_CAUSES: tuple[WakeCause, ...] = ("face", "doubtful", "motion", "sizes", "shape", "key_frames", "ended")


@dataclass(slots=True, eq=False)
class Lookout:
    """The question that a key frame of an idle camera carries: is there something?

    The frame was decoded ahead of those before it. If there is something, all of them are decoded and come in their
    order, and the frame comes again, without a question.

    Attributes:
        answer: None until it is known; `lost` if the frame was dropped, or could not be searched. A frame that has the
            answer when it is made needs no search.
    """

    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a camera that the sampler kept.

    Attributes:
        camera: Name of the camera.
        stream: Number of the camera's connection; tracks end with their connection.
        canvas: Where the picture lies in `image`.
        image: The detector's input, (canvas.height, canvas.width, 3) uint8 BGR, which belongs to a pool, and must not
            be read after `release`; or what makes it on a device.
        surface: The full picture, upright and with square pixels; stays valid after `release`.
        presentation: Size and turn of the picture as stored and as shown.
        captured_s: Monotonic seconds of capture, for the frame's age.
        motion_s: Seconds on a clock that runs as the scene does, for tracking: it goes by the stream's stamps, however
            late or fast the frames come (`Timeline.scene_s`).
        captured_at: Wall clock of capture, seconds since 1970.
        clock: Whether `captured_at` is the camera's clock or this machine's at arrival.
        arrived_s: Monotonic seconds when the packet came.
        ready_s: Monotonic seconds when the frame was decoded, scaled and handed over.
        position_s: The frame's time stamp on the stream's own time line; None if it has none.
        release: Gives `image` back to its pool; must be called exactly once.
        lookout: What is asked about a key frame of an idle camera; None for all other frames.
    """

    camera: str
    stream: int
    canvas: Canvas
    image: Image | DeviceCanvas
    surface: Surface
    presentation: Presentation
    captured_s: float
    motion_s: float
    captured_at: float
    clock: Clock
    arrived_s: float
    ready_s: float
    position_s: float | None
    release: Callable[[], None]
    lookout: Lookout | None = None


@dataclass(frozen=True, slots=True)
class Shot:
    """One look at a face: where it was in a picture, and how good the look was.

    Attributes:
        captured_at: Wall clock of capture, seconds since 1970; 0 for a single picture.
        box: (4,) float32, left, top, right, bottom in square pixels of the upright picture.
        landmarks: (5, 2) float32 in the same pixels, in the order of `visaged.models.types.Detections`.
        confidence: The detector's confidence, 0..1.
        quality: How well attributes can be read from the look, 0..1.
        scale: Square pixels per stored pixel of the upright picture, across and down. Published coordinates are in
            stored pixels.
    """

    captured_at: float
    box: FloatArray
    landmarks: FloatArray
    confidence: float
    quality: float
    scale: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class AttributeValue:
    """The value of one attribute of a face, with its confidence.

    Attributes:
        value: A label, a number in the attribute's unit, or the angles of a head.
        confidence: Confidence of the value, 0..1. For a label, its probability; for a number with a known deviation,
            the probability that the true value is within the attribute's tolerance; else the trust in the readings.
        probabilities: Probability of each label; None if the value is no label.
        deviation: Standard deviation of a number; None if it is not known.
        age_s: Seconds from the newest reading to the look with which the value is reported.
        is_score: Whether the value is a score of 0..1, and not a number with a unit.
    """

    value: str | float | HeadPose
    confidence: float
    probabilities: Mapping[str, float] | None = None
    deviation: float | None = None
    age_s: float = 0.0
    is_score: bool = False


@dataclass(frozen=True, slots=True)
class Face:
    """A face in a frame or a single picture.

    Attributes:
        shot: Box, landmarks and quality of the face.
        track: Number of the face's track; None without a track.
        attributes: Values by name of attribute.
        landmarks_106: (106, 2) float32 in the pixels of `shot`; None if they are not wanted.
        is_best: Whether `shot` is the best look at its track so far.
    """

    shot: Shot
    track: int | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    landmarks_106: FloatArray | None = None
    is_best: bool = False


EventKind = Literal["begin", "update", "end"]
EndReason = Literal["lost", "stream_ended", "removed", "shutdown", "restart", "moved"]


@dataclass(frozen=True, slots=True)
class TrackEvent:
    """An event of a track: a face appeared, was updated, or is gone.

    Attributes:
        camera: Name of the camera.
        kind: `begin` when the face is confirmed, `update` when there is a new reading or a better look, `end` when it
            is gone.
        face: The newest look, with the attributes known at that time.
        best: The best look so far.
        started_at: Wall clock of the look that confirmed the face, seconds since 1970.
        duration_s: Seconds from that look to the newest one.
        frames: Number of analysed frames that show the face, from the look that confirmed it.
        captured_s: Monotonic seconds of capture of the frame that led to this event; for the message's age.
        reason: Why the track ended; None for the other kinds.
    """

    camera: str
    kind: EventKind
    face: Face
    best: Shot
    started_at: float
    duration_s: float
    frames: int
    captured_s: float
    reason: EndReason | None = None


@dataclass(frozen=True, slots=True)
class FrameResult:
    """The result of an analysed frame.

    Attributes:
        frame: The frame. Its `image` has been released; its `surface` is valid.
        faces: The faces in the frame.
        events: Events of tracks that the frame led to.
        started_s: Monotonic seconds when computing began.
        finished_s: Monotonic seconds when computing ended.
        found: (N, 4) float32, the boxes of all that the detector found, also of what is too unsure to count as a face,
            in the pixels of `Shot.box`. They say what may not be shown where faces are blurred.
    """

    frame: Frame
    faces: Sequence[Face]
    events: Sequence[TrackEvent]
    started_s: float
    finished_s: float
    found: FloatArray = field(default_factory=lambda: np.empty((0, 4), np.float32))


CameraState = Literal["connecting", "streaming", "waiting", "ended", "stopped"]
CAMERA_STATES: tuple[CameraState, ...] = ("connecting", "streaming", "waiting", "ended", "stopped")


@dataclass(frozen=True, slots=True)
class CameraPresence:
    """How many faces are in front of a camera.

    Attributes:
        camera: Name of the camera.
        faces: Number of its tracks that have begun and not ended.
        since_at: When that number changed last, seconds since 1970.
    """

    camera: str
    faces: int
    since_at: float


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """The status of a camera.

    Attributes:
        camera: Name of the camera.
        state: `connecting`, `streaming`, `waiting` (for the next try), `ended` (a file), `stopped`.
        since_at: When the camera came into this state, seconds since 1970.
        source: URL of the camera without credentials.
        codec: Codec of the stream; empty before the first frame.
        width: Width of the upright frames in stored pixels; 0 before the first frame.
        height: Height of the upright frames in stored pixels; 0 before the first frame.
        reconnects: How often the camera was opened again.
        error: Why the camera is not streaming; empty while it streams.
        cause: One word for `error`, see `visaged.pipelines.source.errors.SourceError`.
    """

    camera: str
    state: CameraState
    since_at: float
    source: str
    codec: str = ""
    width: int = 0
    height: int = 0
    reconnects: int = 0
    error: str = ""
    cause: str = ""
