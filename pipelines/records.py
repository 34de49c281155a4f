"""What travels through the pipeline: frames, faces, events, results and states. Plain data, all of it frozen.

Nothing here is rounded and nothing here is JSON: `visaged.pipelines.outputs.documents` makes documents of it. No stage
is imported, so that every stage and every output can import this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from visaged.models.geometry import HeadPose
from visaged.models.preprocess import Canvas
from visaged.models.surface import Surface
from visaged.models.types import FloatArray, Image
from visaged.pipelines.presentation import Presentation

Clock = Literal["camera", "arrival"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a camera that the sampler kept.

    Attributes:
        camera: Name of the camera.
        stream: Counts the camera's connections; tracks do not outlive one.
        canvas: Where the picture lies in `image`.
        image: The detector's input, (canvas.height, canvas.width, 3) uint8 BGR. It belongs to a pool: nobody may read
            it after `release`.
        surface: The full picture, upright and with square pixels; stays valid after `release`.
        presentation: How it is stored and shown.
        captured_s: Monotonic seconds of capture, for the frame's age.
        motion_s: Seconds on a clock that runs as the scene does, for tracking: capture time from the stream's smooth
            stamps for live cameras, the position in it for files read as fast as possible.
        captured_at: Wall clock of capture, seconds since 1970.
        clock: Whether `captured_at` is the camera's clock or this machine's at arrival.
        arrived_s: Monotonic seconds when the packet came.
        ready_s: Monotonic seconds when the frame was decoded, scaled and handed over.
        position_s: The frame's time stamp on the stream's own time line; None where it has none.
        release: Gives `image` back to its pool; to be called once, when nobody needs it any more.
    """

    camera: str
    stream: int
    canvas: Canvas
    image: Image
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


@dataclass(frozen=True, slots=True)
class Shot:
    """One look at a face: where it was in a picture, and how good the look was.

    Attributes:
        captured_at: Wall clock of capture, seconds since 1970; 0 for a single picture.
        box: (4,) float32, left, top, right, bottom in square pixels of the upright picture.
        landmarks: (5, 2) float32 in the same pixels, in the order of `visaged.models.types.Detections`.
        confidence: The detector's confidence, 0..1.
        quality: How much can be read from the look, 0..1.
        scale: Square pixels for one stored pixel of the upright picture, across and down. What is published counts
            stored ones.
    """

    captured_at: float
    box: FloatArray
    landmarks: FloatArray
    confidence: float
    quality: float
    scale: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class AttributeValue:
    """What is known of one attribute of a face.

    Attributes:
        value: A label, a number in the attribute's unit, or the angles of a head.
        confidence: How sure it is, 0..1. Of a label its probability; of a number with a known deviation the chance that
            the truth is within the attribute's tolerance; of anything else what the looks at the face are worth.
        probabilities: Probability of each label; None where the value is no label.
        deviation: Standard deviation of a number; None where it is not known.
        age_s: Seconds from the newest look that was read to the look that this is reported with.
        is_score: Whether the value is a score of 0..1, and not a number in a unit of its own.
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
        shot: Where it is.
        track: Number of its track; None without one.
        attributes: What is known of it, by attribute.
        landmarks_106: (106, 2) float32 in the pixels of `shot`; None where they were not asked for.
    """

    shot: Shot
    track: int | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    landmarks_106: FloatArray | None = None


EventKind = Literal["begin", "update", "end"]
EndReason = Literal["lost", "stream_ended", "removed", "shutdown"]


@dataclass(frozen=True, slots=True)
class TrackEvent:
    """A change in what is known of a face that a camera follows.

    Attributes:
        camera: Name of the camera.
        kind: `begin` when the face is confirmed, `update` when more is known of it, `end` when it is gone.
        face: The newest look, with what was known of the face by then.
        best: The best look so far.
        started_at: Wall clock of the look that confirmed the face, seconds since 1970.
        duration_s: Seconds from that look to the newest one.
        frames: In how many analysed frames it was seen.
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
    """What a frame showed.

    Attributes:
        frame: The frame. Its `image` has been released; its `surface` is valid.
        faces: The faces in it.
        events: The events that it led to.
        started_s: Monotonic seconds when computing began.
        finished_s: Monotonic seconds when computing ended.
    """

    frame: Frame
    faces: Sequence[Face]
    events: Sequence[TrackEvent]
    started_s: float
    finished_s: float


CameraState = Literal["connecting", "streaming", "waiting", "ended", "stopped"]
CAMERA_STATES: tuple[CameraState, ...] = ("connecting", "streaming", "waiting", "ended", "stopped")


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """What is known of a camera at a moment.

    Attributes:
        camera: Name of the camera.
        state: `connecting`, `streaming`, `waiting` (for the next try), `ended` (a file), `stopped`.
        since_at: When it came into this state, seconds since 1970.
        source: Its URL without credentials.
        codec: Codec of the stream; empty before the first frame.
        width: Width of its frames in pixels; 0 before the first.
        height: Height of its frames in pixels; 0 before the first.
        reconnects: How often it was opened again.
        error: Why it is not streaming; empty when it is.
        cause: The same as one word, see `visaged.pipelines.source.errors.SourceError`.
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
