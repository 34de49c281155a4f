"""Who looks on while a source is read, for example to say how good a camera is.

All methods are called in the thread that reads the source, and return at once: while they run, nothing is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from visaged.pipelines.source.times.camera_clock import CameraClock
from visaged.pipelines.source.times.timeline import Timeline


class SourceObserver:
    """Looks on, and does nothing: the base of observers, and the one of sources that nobody observes."""

    def connected(self, connect_s: float) -> None:
        """Note that there is a connection to the camera, which took `connect_s` seconds; known for RTSP alone."""

    def opened(self, container: InputContainer, stream: VideoStream, is_recording: bool, is_still: bool) -> None:
        """Note that the source is open; it is opened again for each round of a loop, and each single picture.

        Args:
            container: The open source; valid during the call alone, as is the stream.
            stream: Its video, before the first packet is decoded.
            is_recording: Whether it has an end.
            is_still: Whether it may be a single picture.
        """

    def packet(self, packet: Packet[VideoStream], asked_s: float, arrived_s: float) -> None:
        """Note a packet of the video, which is about to be decoded.

        Args:
            packet: The packet.
            asked_s: Monotonic seconds when the reader was ready for it.
            arrived_s: Monotonic seconds when it had been read.
        """

    def decoded(self, frames: Sequence[av.VideoFrame], error: Exception | None) -> None:
        """Note what became of the last packet: its frames, or why there are none."""

    def frame(
        self, frame: av.VideoFrame, stamp_s: float, arrived_s: float, timeline: Timeline, clock: CameraClock
    ) -> None:
        """Note a frame, after its times have been worked out.

        Args:
            frame: The frame.
            stamp_s: Its stamp on the stream's time line, in seconds.
            arrived_s: Monotonic seconds of its arrival.
            timeline: What is known of the stream's stamps; to be read only.
            clock: What is known of the camera's clock; to be read only.
        """
