"""The JSON of messages. The schemas in `schemas/` define it, and tests validate every message against them.

The body of a message is encoded once, when it is composed. Only two fields are not known until an output sends it: its
age, and whether it had to wait for the receiver. `Message.encode` puts them in front.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
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
        seq: Number of the message, counted from 1 for each camera, kind and epoch.
        epoch: Identifies the run of the process: milliseconds since 1970 at its start. In a fleet, the lease under
            which this node holds the camera.
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


@dataclass(frozen=True, slots=True)
class OpenTrack:
    """A track that the owner of a camera had open when it was lost.

    Attributes:
        node: Name of that owner.
        epoch: The epoch in which it held the camera.
        track: Number of the track.
        body: The newest event of the track, as JSON.
    """

    node: str
    epoch: int
    track: int
    body: bytes


class Composer:
    """Makes the messages of one run of one node.

    Messages of cameras have the run's epoch, unless they are composed in another one: a node of a fleet has one for
    each camera, of the lease under which it holds it.

    Args:
        node: Name of the node.
        epoch: Number of this run, larger than those of earlier runs: milliseconds since 1970 at its start.
        clock: Returns monotonic seconds.
    """

    def __init__(self, node: str, epoch: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.node = node
        self.epoch = epoch
        self._clock = clock
        self._sequences: dict[str, dict[tuple[int, Kind], int]] = {}

    def faces(self, result: FrameResult, epoch: int | None = None) -> Message:
        """Return the message of an analysed frame."""
        frame = result.frame
        epoch, seq = self._next("faces", frame.camera, epoch)
        body = self._head("faces", frame.camera, epoch, seq, frame.captured_at) | result_document(result)
        return self._message("faces", frame.camera, epoch, seq, body, frame.captured_s, frame.captured_at)

    def event(self, event: TrackEvent, epoch: int | None = None) -> Message:
        """Return the message of a track's event."""
        track = event.face.track
        captured_at = event.face.shot.captured_at
        epoch, seq = self._next("events", event.camera, epoch)
        body = self._head("events", event.camera, epoch, seq, captured_at) | {
            "event": event.kind,
            "track_id": track,
            "started_at": timestamp(event.started_at),
            "duration_s": round(event.duration_s, 3),
            "frames": event.frames,
            "reason": event.reason,
            "face": face_document(event.face),
            "best_shot": {"captured_at": timestamp(event.best.captured_at)} | shot_document(event.best),
        }
        message = self._message("events", event.camera, epoch, seq, body, event.captured_s, captured_at)
        return replace(message, track=track, is_end=event.kind == "end")

    def moved(self, newest: Message) -> Message:
        """Return the event that ends a track because its camera has moved, or its lease has ended.

        Args:
            newest: The track's newest event, of this node.
        """
        _, seq = self._next("events", newest.camera, newest.epoch)
        return replace(newest, seq=seq, body=end_of(newest.body, seq, "moved"), is_end=True, captured_s=self._clock())

    def orphan(self, camera: str, epoch: int, orphan: OpenTrack) -> Message:
        """Return the event that ends a track whose owner was lost, in the epoch of the camera's new owner.

        Raises:
            ValueError, KeyError, TypeError: The track's newest event is none.
        """
        _, seq = self._next("events", camera, epoch)
        moved = {"node": self.node, "epoch": epoch, "camera": camera, "track_id": orphan.track}
        moved_from = {"moved_from": {"node": orphan.node, "epoch": orphan.epoch}}
        document = orjson.loads(end_of(orphan.body, seq, "moved")) | moved | moved_from
        for key in ("age_ms", "replayed"):  # `encode` adds them
            document.pop(key, None)
        at = datetime.fromisoformat(document["captured_at"]).timestamp()
        body = orjson.dumps(document)
        return Message("events", camera, seq, epoch, body, self._clock(), at, orphan.track, is_end=True)

    def begin(self, camera: str, epoch: int) -> None:
        """Forget what was numbered for a camera in other epochs, whose messages have all been composed."""
        known = self._sequences.get(camera, {})
        self._sequences[camera] = {key: seq for key, seq in known.items() if key[0] == epoch}

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

    def status(self, status: CameraStatus, epoch: int | None = None) -> Message:
        """Return the message of a camera's status; its capture time is when the camera came into that state."""
        epoch, seq = self._next("status", status.camera, epoch)
        body = {"schema": "visaged.camera-status/1", "node": self.node, "epoch": epoch} | status_document(status)
        return self._message("status", status.camera, epoch, seq, body, self._clock(), status.since_at)

    def presence(self, presence: CameraPresence, epoch: int | None = None) -> Message:
        """Return the message of how many faces are in front of a camera."""
        epoch, seq = self._next("presence", presence.camera, epoch)
        body = {
            "schema": "visaged.presence/1",
            "node": self.node,
            "epoch": epoch,
            "camera": presence.camera,
            "faces": presence.faces,
            "since": timestamp(presence.since_at),
        }
        return self._message("presence", presence.camera, epoch, seq, body, self._clock(), presence.since_at)

    def _next(self, kind: Kind, camera: str, epoch: int | None) -> tuple[int, int]:
        """Return the epoch of a message, and its number."""
        epoch = self.epoch if epoch is None else epoch
        numbers = self._sequences.setdefault(camera, {})
        seq = numbers[epoch, kind] = numbers.get((epoch, kind), 0) + 1
        return epoch, seq

    def _head(self, kind: Kind, camera: str, epoch: int, seq: int, captured_at: float) -> dict[str, Any]:
        return {
            "schema": f"visaged.{kind}/1",
            "node": self.node,
            "epoch": epoch,
            "camera": camera,
            "seq": seq,
            "captured_at": timestamp(captured_at),
        }

    def _message(
        self, kind: Kind, camera: str, epoch: int, seq: int, body: dict[str, Any], captured_s: float, captured_at: float
    ) -> Message:
        encoded = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        return Message(kind, camera, seq, epoch, encoded, captured_s, captured_at)


def end_of(body: bytes, seq: int, reason: EndReason) -> bytes:
    """Return the body of the event that ends a track, from the body of the track's newest event.

    Args:
        body: The newest event, as `Message.body`.
        seq: Number of the new event.
        reason: Why the track ended.
    """
    return orjson.dumps(orjson.loads(body) | {"seq": seq, "event": "end", "reason": reason})
