"""The JSON of messages. The schemas in `schemas/` define it, and tests validate every message against them.

The body of a message is encoded once, when it is composed. Only two fields are not known until an output sends it: its
age, and whether it had to wait for the receiver. `Message.encode` puts them in front.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from visaged.pipelines.outputs.documents import (
    face_document,
    result_document,
    shot_document,
    status_document,
    timestamp,
)
from visaged.pipelines.records import CameraPresence, CameraStatus, EndReason, FrameResult, TrackEvent

Kind = Literal["faces", "events", "status", "presence", "snapshot", "discovery"]
"""`discovery` is what an output itself makes, for Home Assistant."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message, composed once for all outputs; each output chooses the topic or address.

    The node's name, `epoch`, `camera`, `kind` and `seq` together identify a message.

    Attributes:
        kind: `faces` of an analysed frame, `events` of tracks, `status` of a camera, `presence` of faces there, or a
            `snapshot`: the picture of an event's best look.
        camera: Name of the camera that the message is about.
        seq: Number of the message, counted from 1 for each camera and kind since the start of the process.
        epoch: Identifies the run of the process: milliseconds since 1970 at its start.
        body: A JSON object in UTF-8; for `faces` and `events` without `age_ms` and `replayed`, else complete. The JPEG
            of a snapshot.
        captured_s: Monotonic seconds of the capture of the frame; only valid in this process.
        captured_at: Wall clock time of the capture of the frame, in seconds since 1970.
        track: Number of the track that an event is about; None for the other kinds.
        is_end: Whether the message tells the end of that track.
    """

    kind: Kind
    camera: str
    seq: int
    epoch: int
    body: bytes
    captured_s: float
    captured_at: float
    track: int | None = None
    is_end: bool = False

    def encode(self, now_s: float, replayed: bool) -> bytes:
        """Return the JSON to send.

        Args:
            now_s: Monotonic seconds at which the message is sent.
            replayed: Whether the message had to wait until the receiver could be reached.
        """
        if self.kind not in ("faces", "events"):
            return self.body
        age_ms = max(0.0, (now_s - self.captured_s) * 1000)
        head = f'{{"age_ms":{age_ms:.1f},"replayed":{"true" if replayed else "false"},'
        return head.encode() + self.body[1:]


class Composer:
    """Makes the messages of one run of one node.

    Args:
        node: Name of the node.
        epoch: Number of this run, larger than those of earlier runs: milliseconds since 1970 at its start.
        clock: Returns monotonic seconds.
    """

    def __init__(self, node: str, epoch: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.node = node
        self.epoch = epoch
        self._clock = clock
        self._sequences: dict[tuple[str, str], Iterator[int]] = {}

    def faces(self, result: FrameResult) -> Message:
        """Return the message of an analysed frame."""
        frame = result.frame
        seq = self._next("faces", frame.camera)
        body = self._head("faces", frame.camera, seq, frame.captured_at) | result_document(result)
        return self._message("faces", frame.camera, seq, body, frame.captured_s, frame.captured_at)

    def event(self, event: TrackEvent) -> Message:
        """Return the message of a track's event."""
        track = event.face.track
        captured_at = event.face.shot.captured_at
        seq = self._next("events", event.camera)
        body = self._head("events", event.camera, seq, captured_at) | {
            "event": event.kind,
            "track_id": track,
            "started_at": timestamp(event.started_at),
            "duration_s": round(event.duration_s, 3),
            "frames": event.frames,
            "reason": event.reason,
            "face": face_document(event.face),
            "best_shot": {"captured_at": timestamp(event.best.captured_at)} | shot_document(event.best),
        }
        message = self._message("events", event.camera, seq, body, event.captured_s, captured_at)
        return replace(message, track=track, is_end=event.kind == "end")

    def node_status(self, state: Literal["online", "offline"], at: float, version: str, reason: str | None) -> bytes:
        """Return the status of the node as JSON.

        Args:
            state: Whether the process runs.
            at: When the node came into this state, seconds since 1970.
            version: Version of the program.
            reason: Why it is offline; None when online.
        """
        return orjson.dumps(
            {
                "schema": "visaged.node-status/1",
                "node": self.node,
                "epoch": self.epoch,
                "state": state,
                "since": timestamp(at),
                "version": version,
                "reason": reason,
            }
        )

    def status(self, status: CameraStatus) -> Message:
        """Return the message of a camera's status; its capture time is when the camera came into that state."""
        body = {"schema": "visaged.camera-status/1", "node": self.node, "epoch": self.epoch} | status_document(status)
        seq = self._next("status", status.camera)
        return self._message("status", status.camera, seq, body, self._clock(), status.since_at)

    def presence(self, presence: CameraPresence) -> Message:
        """Return the message of how many faces are in front of a camera."""
        body = {
            "schema": "visaged.presence/1",
            "node": self.node,
            "epoch": self.epoch,
            "camera": presence.camera,
            "faces": presence.faces,
            "since": timestamp(presence.since_at),
        }
        seq = self._next("presence", presence.camera)
        return self._message("presence", presence.camera, seq, body, self._clock(), presence.since_at)

    def _next(self, kind: Kind, camera: str) -> int:
        return next(self._sequences.setdefault((camera, kind), itertools.count(1)))

    def _head(self, kind: Kind, camera: str, seq: int, captured_at: float) -> dict[str, Any]:
        return {
            "schema": f"visaged.{kind}/1",
            "node": self.node,
            "epoch": self.epoch,
            "camera": camera,
            "seq": seq,
            "captured_at": timestamp(captured_at),
        }

    def _message(
        self, kind: Kind, camera: str, seq: int, body: dict[str, Any], captured_s: float, captured_at: float
    ) -> Message:
        encoded = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        return Message(kind, camera, seq, self.epoch, encoded, captured_s, captured_at)


def end_of(body: bytes, seq: int, reason: EndReason) -> bytes:
    """Return the body of the event that ends a track, from the body of the track's newest event.

    Args:
        body: The newest event, as `Message.body`.
        seq: Number of the new event.
        reason: Why the track ended.
    """
    return orjson.dumps(orjson.loads(body) | {"seq": seq, "event": "end", "reason": reason})
