"""Decodes the packets of one connection: all of them, or key frames alone.

A key frame is decoded by itself and comes out at once: B-frames and frame threads would hold it back until the frames
that follow. So the decoder is drained and flushed after each, which with one thread costs nothing that can be measured.
After a flush decoding can only begin at a key frame; the pictures from there on are the same as without the pause, also
where groups are open: FFmpeg leaves out the pictures in front of such a key frame, which refer to the group before.

Some streams mark packets as key frames that are none, such as those that refresh the picture stripe by stripe. They
cannot be reduced.
"""

from __future__ import annotations

import logging

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from visaged.pipelines.source.demand import Decode

log = logging.getLogger(__name__)

# Key frames in a row that give no picture by themselves, after which a stream counts as one that cannot be reduced.
_MOST_EMPTY = 3


class Decoding:
    """Feeds one connection's packets to its decoder, by the demand of the moment.

    Args:
        camera: Name of the camera, for the log.
        context: The decoder.

    Attributes:
        context: The decoder.
        is_whole: Whether the decoder has all packets since a key frame, so that the next one can be decoded too.
        can_reduce: Whether key frames can be decoded alone, as far as is known.
    """

    def __init__(self, camera: str, context: VideoCodecContext) -> None:
        self._camera = camera
        self.context = context
        self._empty = 0
        self._leaves_out = False
        self.is_whole = True
        self.can_reduce = True

    def decode(
        self, packet: Packet[VideoStream], decode: Decode = "all", is_wanted: bool = True
    ) -> list[av.VideoFrame]:
        """Return the frames that are ready, in the order in which they are shown; empty if the packet is left out.

        Args:
            packet: The next packet, or the empty one at the end of a recording.
            decode: What is wanted now. From key frames to all, decoding goes on at the next key frame, or at once after
                `rewind`.
            is_wanted: Whether the packet's own picture may be wanted. If not, it is decoded only if others refer to it.

        Raises:
            Exception: PyAV raised it, because of a bad packet.
        """
        if decode != "all" and self.can_reduce:
            return self._decode_key(packet, is_wanted and decode == "key_frames")
        if not self.is_whole:
            if not packet.is_keyframe:
                return []
            self.is_whole = True
        self._leave_out(not is_wanted)
        return self.context.decode(packet)

    def rewind(self) -> None:
        """Forget all packets: the next one is a key frame from which on all are to be decoded."""
        self.context.flush_buffers()
        self.is_whole = True

    def _decode_key(self, packet: Packet[VideoStream], is_wanted: bool) -> list[av.VideoFrame]:
        rest: list[av.VideoFrame] = []
        if self.is_whole:  # what the decoder still holds comes first
            self.is_whole = False
            rest = self._drain(packet)
        if not packet.is_keyframe or not is_wanted:
            return rest
        self._leave_out(False)
        frames: list[av.VideoFrame] = []
        try:
            frames = self.context.decode(packet)
            frames += self._drain(packet)
        except Exception:
            self.context.flush_buffers()
            raise
        finally:
            self._note(bool(frames))
        return rest + frames

    def _note(self, has_picture: bool) -> None:
        self._empty = 0 if has_picture else self._empty + 1
        if self._empty == _MOST_EMPTY:
            self.can_reduce = False
            log.info(
                "camera %s: its key frames cannot be decoded alone (gradual refresh?), so it is always decoded whole",
                self._camera,
            )

    def _leave_out(self, leaves_out: bool) -> None:
        """Set whether to decode no pictures that no other refers to."""
        if leaves_out != self._leaves_out:
            self._leaves_out = leaves_out
            self.context.skip_frame = "NONREF" if leaves_out else "DEFAULT"

    def _drain(self, packet: Packet[VideoStream]) -> list[av.VideoFrame]:
        try:
            frames = self.context.decode(None)
        finally:
            self.context.flush_buffers()
        for frame in frames:
            frame.time_base = packet.time_base  # PyAV takes it from a packet, and here is none
        return frames
