"""The faces of one camera over time: who is there, what is known of them, and what is worth telling."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from visaged.models.alignment import Pixels
from visaged.models.geometry import shot_quality
from visaged.models.types import Detections, FloatArray
from visaged.pipelines.attributes import Estimate, FaceReader, Reading, Request, sure
from visaged.pipelines.frames import Frame
from visaged.pipelines.tracker import Tracker, TrackerConfig

EventKind = Literal["begin", "update", "end"]
EndReason = Literal["lost", "stream_ended", "shutdown"]


@dataclass(frozen=True, slots=True)
class ReadingPolicy:
    """When a tracked face is read again.

    Attributes:
        refresh_s: Its newest reading is older than this.
        better_by: Its shot is better than the best one read so far by this factor.
        min_face_px: Smaller faces are not read; there is nothing to see in them.
        max_faces: Most faces read in one frame; the longest waiting first.
    """

    refresh_s: float = 2.0
    better_by: float = 1.25
    min_face_px: float = 20.0
    max_faces: int = 16


@dataclass(frozen=True, slots=True)
class Shot:
    """A look at a face.

    Attributes:
        captured_at: Wall clock, seconds since 1970.
        box: (4,) left, top, right, bottom in square pixels of the upright picture.
        landmarks: (5, 2) in the same.
        confidence: Of the detector.
        quality: How good the look was, 0..1.
        scale: Square pixels for one stored pixel of the upright picture, across and down; what is published counts
            stored ones.
    """

    captured_at: float
    box: FloatArray
    landmarks: FloatArray
    confidence: float
    quality: float
    scale: tuple[float, float] = (1.0, 1.0)

    def request(self, pixels: Pixels) -> Request:
        """Return the request to read this face in its picture."""
        width, height = self.box[2] - self.box[0], self.box[3] - self.box[1]
        size = math.sqrt(max(0.0, float(width * height)))
        return Request(pixels, self.landmarks, self.quality, self.confidence, size)


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
    told_s: float = -math.inf
    told_quality: float = 0.0


@dataclass(frozen=True, slots=True)
class Face:
    """A face in a frame, as messages tell of it."""

    shot: Shot
    track: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    landmarks_106: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class TrackEvent:
    """Something worth telling about a track.

    Attributes:
        camera: Its camera.
        kind: `begin` when the face is confirmed, `update` now and then, `end` when it is gone.
        face: The newest look, with what is known of the face by then.
        best: The best look so far.
        started_at: Wall clock of the first sight.
        duration_s: From the first to the newest sight.
        frames: How often it was seen.
        captured_s: Monotonic seconds of capture of the frame that led to this; for the message's age.
        reason: Why it ended.
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


class CameraTracks:
    """The tracks of one camera.

    `observe` and `conclude` are called by the inference caller that has the camera's frame in flight, `expire` and
    `end_all` by others; a lock that is hardly ever contended keeps them apart.

    Args:
        camera: Its name.
        tracker: Settings of its tracker.
        policy: When faces are read.
        reader: What can be read.
        attributes: What is read and told; others are absent everywhere.
        min_confidence: Faces without a track are told from this confidence on.
        update_s: Least time between two updates of a track; updates follow new knowledge, not the clock.
        points: Whether faces are told with all their landmarks.
        least: Smallest confidence of each attribute that is told; until then it is added up, and absent.
    """

    def __init__(
        self,
        camera: str,
        tracker: TrackerConfig,
        policy: ReadingPolicy,
        reader: FaceReader,
        attributes: frozenset[str],
        min_confidence: float = 0.5,
        update_s: float = 5.0,
        points: bool = False,
        least: Mapping[str, float] | None = None,
    ) -> None:
        self.camera = camera
        self._tracker = Tracker(tracker)
        self._policy = policy
        self._reader = reader
        self._attributes = attributes
        self._min_confidence = min_confidence
        self._update_s = update_s
        self._points = points
        self._least = least or {}
        self._lock = threading.Lock()
        self._tracks: dict[int, _Track] = {}
        self._stream = 0
        self._newest_s = 0.0
        self._lost_s = tracker.lost_s

    def observe(self, frame: Frame, detections: Detections) -> Observation:
        """Take in a frame's detections and say which faces are due for a reading.

        Args:
            frame: The frame.
            detections: In square pixels of the upright frame, down to the tracker's low confidence.
        """
        with self._lock:
            events: list[TrackEvent] = []
            if frame.stream != self._stream:
                self._stream = frame.stream
                events += self._end(self._tracker.reset(), frame.captured_s, "stream_ended")
            update = self._tracker.update(detections, frame.motion_s)
            events += self._end(update.ended, frame.captured_s, "lost")
            self._newest_s = frame.motion_s
            quality = shot_quality(detections.boxes, detections.confidences, detections.landmarks)
            seen: list[tuple[Shot, _Track | None]] = []
            for index, number in enumerate(update.assignments):
                confidence = float(detections.confidences[index])
                if number is None and confidence < self._min_confidence:
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
            due = self._due([track for _, track in seen if track is not None], frame.motion_s)
            requests = [track.newest.request(frame.pixels) for track in due]
            return Observation(frame, seen, due, requests, set(update.began), events)

    def conclude(self, observation: Observation, readings: Sequence[Reading]) -> tuple[list[Face], list[TrackEvent]]:
        """Add the readings of the due faces; return the frame's faces and the events that it led to."""
        with self._lock:
            frame, now_s = observation.frame, observation.frame.motion_s
            for due, reading in zip(observation.due, readings, strict=True):
                self._learn(due, reading, now_s)
            faces, events = [], list(observation.events)
            for shot, track in observation.seen:
                face = self._face(shot, track, now_s)
                faces.append(face)
                if track is None or track.number not in self._tracks:  # it ended while it was read
                    continue
                kind = self._worth_telling(track, track.number in observation.began, now_s)
                if kind is not None:
                    events.append(self._event(kind, track, face, frame.captured_s))
            return faces, events

    def expire(self, now_s: float, captured_s: float) -> list[TrackEvent]:
        """End tracks of a camera from which no frame comes any more.

        Args:
            now_s: On the clock of `Frame.motion_s`.
            captured_s: Monotonic now.
        """
        with self._lock:
            if not self._tracks or now_s - self._newest_s <= self._lost_s:
                return []
            return self._end(self._tracker.expire(now_s), captured_s, "lost")

    def end_all(self, captured_s: float, reason: EndReason) -> list[TrackEvent]:
        """End every track."""
        with self._lock:
            return self._end(self._tracker.reset(), captured_s, reason)

    def present(self) -> int:
        """Return how many tracks there are."""
        with self._lock:
            return len(self._tracks)

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
        if not self._attributes and not self._points:
            return []
        policy = self._policy
        due = [
            track
            for track in tracks
            if float(track.newest.box[3] - track.newest.box[1]) >= policy.min_face_px
            and (
                now_s - track.read_s >= policy.refresh_s
                or track.newest.quality > policy.better_by * track.read_quality
                or (self._points and now_s > track.read_s)
            )
        ]
        return sorted(due, key=lambda track: track.read_s)[: policy.max_faces]

    def _learn(self, track: _Track, reading: Reading, now_s: float) -> None:
        track.reading, track.read_s = reading, now_s
        track.read_quality = max(track.read_quality, reading.quality)
        for name in self._attributes & reading.values.keys():
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
        if self._points and track.reading is not None:
            points = self._reader.points(track.reading, shot.landmarks)
        return Face(shot, track.number, self._known(track, now_s), points)

    def _known(self, track: _Track, now_s: float) -> dict[str, Any]:
        documents = {name: estimate.document(now_s) for name, estimate in sorted(track.estimates.items())}
        return sure(documents, self._least)

    def _worth_telling(self, track: _Track, began: bool, now_s: float) -> EventKind | None:
        if began:
            kind: EventKind = "begin"
        elif now_s - track.told_s >= self._update_s and (
            track.read_s > track.told_s or track.best.quality > track.told_quality
        ):
            kind = "update"
        else:
            return None
        track.told_s, track.told_quality = now_s, track.best.quality
        return kind

    def _end(self, numbers: Sequence[int], captured_s: float, reason: EndReason) -> list[TrackEvent]:
        events = []
        for number in numbers:
            track = self._tracks.pop(number, None)
            if track is not None and track.told_s > -math.inf:  # who never began does not end
                face = Face(track.newest, number, self._known(track, track.seen_s))
                events.append(self._event("end", track, face, captured_s, reason))
        return events

    def _event(
        self, kind: EventKind, track: _Track, face: Face, captured_s: float, reason: EndReason | None = None
    ) -> TrackEvent:
        return TrackEvent(
            self.camera,
            kind,
            face,
            track.best,
            track.started_at,
            max(0.0, track.seen_s - track.started_s),  # a short file that loops steps back in time
            track.frames,
            captured_s,
            reason,
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """A frame between tracking and reading.

    Attributes:
        frame: The frame.
        seen: Every face to tell of, with its track.
        due: The tracks to be read.
        requests: What to read, one for each of `due`.
        began: The tracks that were confirmed by this frame.
        events: What has ended.
    """

    frame: Frame
    seen: list[tuple[Shot, _Track | None]]
    due: list[_Track]
    requests: list[Request]
    began: set[int]
    events: list[TrackEvent]


def faces_of(detections: Detections, captured_at: float = 0.0) -> list[Shot]:
    """Return the faces of a single picture as shots."""
    quality = shot_quality(detections.boxes, detections.confidences, detections.landmarks)
    return [
        Shot(captured_at, box, landmarks, float(confidence), float(q))
        for box, landmarks, confidence, q in zip(
            detections.boxes, detections.landmarks, np.asarray(detections.confidences), quality, strict=True
        )
    ]
