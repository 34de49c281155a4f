"""The tracks of one camera: which faces are present, their attributes, and the events to publish."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from visaged.models.geometry import shot_quality
from visaged.models.types import Detections, FloatArray
from visaged.pipelines.attributes import AttributeReader, Estimate, Reading, Request, request, sure
from visaged.pipelines.records import AttributeValue, EndReason, EventKind, Face, Frame, Shot, TrackEvent
from visaged.pipelines.tracking.tracker import Tracker, TrackerConfig


@dataclass(frozen=True, slots=True)
class ReadingPolicy:
    """When the attributes of a tracked face are read again.

    Attributes:
        refresh_s: Age of the newest reading in seconds at which a face is read again.
        better_by: Factor by which a shot must be better than the best one read so far, to be read earlier.
        min_face_px: Least height in pixels of a face that is read; smaller ones show too little.
        max_faces: Most faces that are read in one frame; those with the oldest readings first.
    """

    refresh_s: float = 2.0
    better_by: float = 1.25
    min_face_px: float = 20.0
    max_faces: int = 16


@dataclass(slots=True)
class _Track:
    number: int
    started_s: float
    started_at: float
    best: Shot
    newest: Shot
    seen_s: float
    frames: int = 0
    reading: Reading | None = None
    read_s: float = -math.inf
    read_quality: float = 0.0
    estimates: dict[str, Estimate] = field(default_factory=dict)
    published_s: float = -math.inf
    published_quality: float = 0.0


@dataclass(frozen=True, slots=True)
class TrackingSpec:
    """How the faces of a camera are tracked and read.

    Attributes:
        tracker: Settings of the tracker.
        policy: When faces are read.
        attributes: Names of the attributes that are read and published.
        min_confidence: Smallest confidence with which a face without a track is published.
        update_s: Least seconds between two `update` events of a track; without news, there is no update.
        points: Whether faces are published with the analyzer's landmarks.
        least: Smallest confidence with which each attribute is published.
        fps: Frames per second that the sampler keeps; None for all.
    """

    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    policy: ReadingPolicy = field(default_factory=ReadingPolicy)
    attributes: frozenset[str] = frozenset()
    min_confidence: float = 0.5
    update_s: float = 5.0
    points: bool = False
    least: Mapping[str, float] = field(default_factory=dict)
    fps: float | None = None


class CameraTracks:
    """The tracks of one camera.

    `observe` and `conclude` are called by the inference worker that has the camera's frame in flight, the other methods
    from any thread; a lock that is hardly ever contended protects the tracks.

    Args:
        camera: Name of the camera.
        spec: How the faces of the camera are tracked and read.
        reader: Reads attributes.
        first_number: Number of the first track.
    """

    def __init__(self, camera: str, spec: TrackingSpec, reader: AttributeReader, first_number: int = 1) -> None:
        self.camera = camera
        self._spec = spec
        self._tracker = Tracker(spec.tracker, 0.0 if spec.fps is None else 1 / spec.fps, first_number)
        self._reader = reader
        self._lock = threading.Lock()
        self._closed = False
        self._generation = 0  # frames that were observed in an earlier one have tracks of then
        self._tracks: dict[int, _Track] = {}
        self._stream = 0
        self._arrived_s = 0.0  # when the newest frame was ready, monotonic
        self._face_s = -math.inf  # when the newest frame with a face was
        self._ended: list[TrackEvent] = []  # `end` events that have not been returned yet

    def observe(self, frame: Frame, detections: Detections) -> Observation:
        """Track a frame's detections, and return them with the faces that are due for a reading.

        Args:
            frame: The frame.
            detections: Detections in square pixels of the upright frame, down to the tracker's low confidence.
        """
        with self._lock:
            if self._closed:
                return Observation(frame, [], [], [], detections.boxes, self._generation)
            self._arrived_s = frame.ready_s
            if frame.stream != self._stream:
                self._stream = frame.stream
                self._end(self._tracker.reset(), frame.captured_s, "stream_ended")
            update = self._tracker.update(detections, frame.motion_s)
            self._end(update.ended, frame.captured_s, "lost")
            quality = shot_quality(detections.boxes, detections.confidences, detections.landmarks)
            seen: list[tuple[Shot, _Track | None]] = []
            for index, number in enumerate(update.assignments):
                confidence = float(detections.confidences[index])
                if number is None and confidence < self._spec.min_confidence:
                    continue
                shot = Shot(
                    frame.captured_at,
                    detections.boxes[index],
                    detections.landmarks[index],
                    confidence,
                    float(quality[index]),
                    frame.presentation.scale,
                )
                seen.append((shot, None if number is None else self._see(number, shot, frame)))
            if seen:
                self._face_s = frame.ready_s
            due = self._due([track for _, track in seen if track is not None], frame.motion_s)
            requests = [request(track.newest, frame.surface) for track in due]
            return Observation(frame, seen, due, requests, detections.boxes, self._generation)

    def conclude(
        self, observation: Observation, readings: Sequence[Reading] = ()
    ) -> tuple[list[Face], list[TrackEvent]]:
        """Return the frame's faces and the events that it led to.

        For every `begin` event that is returned, an `end` event is returned later, here or by `expire`, `end_all` or
        `close`, whatever fails in between.

        Args:
            observation: The frame, as `observe` returned it.
            readings: One reading for each request of the observation; empty if they could not be read, and the faces
                then stay due.
        """
        with self._lock:
            frame, now_s = observation.frame, observation.frame.motion_s
            if readings:
                for due, reading in zip(observation.due, readings, strict=True):
                    self._learn(due, reading, now_s)
            if observation.generation != self._generation:
                return [Face(shot) for shot, _ in observation.seen], self._take_ended()
            # Faces first, because they may fail: a track counts as reported once its event is made.
            faces = [self._face(shot, track, now_s) for shot, track in observation.seen]
            events = self._take_ended()
            for (_, track), face in zip(observation.seen, faces, strict=True):
                if track is None or track.number not in self._tracks:  # the track ended while it was read
                    continue
                kind = self._event_kind(track, now_s)
                if kind is not None:
                    events.append(self._event(kind, track, face, frame.captured_s))
            return faces, events

    def expire(self, now_s: float, *, stall_s: float = 0.0) -> list[TrackEvent]:
        """End every track if no frame has arrived for longer than a track may be out of sight.

        Silence is measured by the arrival of frames, not by their capture: a stream that was held up once may stay late
        for ever, although its faces are present. Must not be called while a frame of the camera waits or is computed,
        because its result is not known yet.

        Args:
            now_s: Monotonic seconds on the clock of `Frame.ready_s`.
            stall_s: Seconds by which the silence must last longer, because the network may be held up.
        """
        with self._lock:
            # Without tracks there is nothing to end, and a reset would keep the tracker from measuring slow cameras.
            if self._tracks and now_s - self._arrived_s > self._tracker.lost_s + stall_s:
                self._end(self._tracker.reset(), now_s, "lost")
            return self._take_ended()

    def end_all(self, captured_s: float, reason: EndReason) -> list[TrackEvent]:
        """End every track, and return the events; later frames may begin new tracks."""
        with self._lock:
            self._end(self._tracker.reset(), captured_s, reason)
            return self._take_ended()

    def close(self, captured_s: float, reason: EndReason) -> list[TrackEvent]:
        """End every track, and return the events; a frame that is still computed begins no more tracks."""
        with self._lock:
            self._closed = True
            self._end(self._tracker.reset(), captured_s, reason)
            return self._take_ended()

    def begin_anew(self, captured_s: float, reason: EndReason, least: int) -> list[TrackEvent]:
        """End every track, and return the events; faces that are present begin new tracks in the next frames.

        Args:
            captured_s: Monotonic seconds.
            reason: Why the tracks end.
            least: Least number of the new tracks.
        """
        with self._lock:
            self._generation += 1
            self._end(self._tracker.reset(), captured_s, reason)
            self._tracker.number_from(least)
            return self._take_ended()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        with self._lock:
            return self._closed

    @property
    def next_number(self) -> int:
        """The number that the next track gets."""
        with self._lock:
            return self._tracker.next_number

    def present(self) -> int:
        """Return the number of tracks that are present."""
        with self._lock:
            return len(self._tracks)

    def face_at_s(self) -> float:
        """Return when the newest frame with a face was ready, monotonic seconds; with or without a track."""
        with self._lock:
            return self._face_s

    def _see(self, number: int, shot: Shot, frame: Frame) -> _Track:
        track = self._tracks.get(number)
        if track is None:
            track = self._tracks[number] = _Track(number, frame.motion_s, frame.captured_at, shot, shot, frame.motion_s)
        track.newest = shot
        track.seen_s = frame.motion_s
        track.frames += 1
        if shot.quality > track.best.quality:
            track.best = shot
        return track

    def _due(self, tracks: list[_Track], now_s: float) -> list[_Track]:
        if not self._spec.attributes and not self._spec.points:
            return []
        policy = self._spec.policy
        due = [
            track
            for track in tracks
            if float(track.newest.box[3] - track.newest.box[1]) >= policy.min_face_px
            and (
                now_s - track.read_s >= policy.refresh_s
                or track.newest.quality > policy.better_by * track.read_quality
                or (self._spec.points and now_s > track.read_s)
            )
        ]
        return sorted(due, key=lambda track: track.read_s)[: policy.max_faces]

    def _learn(self, track: _Track, reading: Reading, now_s: float) -> None:
        track.reading, track.read_s = reading, now_s
        track.read_quality = max(track.read_quality, reading.quality)
        for name in self._spec.attributes & reading.values.keys():
            head = self._reader.heads[name]
            if head.kind == "points":
                continue
            if name not in track.estimates:
                track.estimates[name] = Estimate(head)
            track.estimates[name].add(reading.values[name], reading.trust, now_s)

    def _face(self, shot: Shot, track: _Track | None, now_s: float) -> Face:
        if track is None:
            return Face(shot)
        points = None
        if self._spec.points and track.reading is not None:
            points = self._reader.points(track.reading, shot.landmarks)
        return Face(shot, track.number, self._known(track, now_s), points, is_best=track.best is shot)

    def _known(self, track: _Track, now_s: float) -> dict[str, AttributeValue]:
        return sure(
            {name: estimate.value(now_s) for name, estimate in sorted(track.estimates.items())}, self._spec.least
        )

    def _event_kind(self, track: _Track, now_s: float) -> EventKind | None:
        if track.published_s == -math.inf:
            kind: EventKind = "begin"
        elif now_s - track.published_s >= self._spec.update_s and (
            track.read_s > track.published_s or track.best.quality > track.published_quality
        ):
            kind = "update"
        else:
            return None
        track.published_s, track.published_quality = now_s, track.best.quality
        return kind

    def _end(self, numbers: Sequence[int], captured_s: float, reason: EndReason) -> None:
        """Drop tracks; `end` events of those whose `begin` was returned are kept for `_take_ended`."""
        for number in numbers:
            track = self._tracks.pop(number, None)
            if track is not None and track.published_s > -math.inf:
                face = Face(track.newest, number, self._known(track, track.seen_s))
                self._ended.append(self._event("end", track, face, captured_s, reason))

    def _take_ended(self) -> list[TrackEvent]:
        ended, self._ended = self._ended, []
        return ended

    def _event(
        self, kind: EventKind, track: _Track, face: Face, captured_s: float, reason: EndReason | None = None
    ) -> TrackEvent:
        return TrackEvent(
            self.camera,
            kind,
            face,
            track.best,
            track.started_at,
            max(0.0, track.seen_s - track.started_s),  # time steps back when a short file loops
            track.frames,
            captured_s,
            reason,
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """A frame that was tracked, before its faces are read.

    Attributes:
        frame: The frame.
        seen: Every face to publish, with its track; None without a track.
        due: The tracks whose faces are to be read.
        requests: The requests to read them, one for each of `due`.
        found: (N, 4) float32, the boxes of all detections.
        generation: How often the tracks had begun anew.
    """

    frame: Frame
    seen: list[tuple[Shot, _Track | None]]
    due: list[_Track]
    requests: list[Request]
    found: FloatArray
    generation: int = 0


def faces_of(detections: Detections, captured_at: float = 0.0) -> list[Shot]:
    """Return the faces of a single picture as shots."""
    quality = shot_quality(detections.boxes, detections.confidences, detections.landmarks)
    return [
        Shot(captured_at, box, landmarks, float(confidence), float(q))
        for box, landmarks, confidence, q in zip(
            detections.boxes, detections.landmarks, np.asarray(detections.confidences), quality, strict=True
        )
    ]
