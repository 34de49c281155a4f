"""The packets of an open source, up to its end."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream


def packets(
    container: InputContainer, stream: VideoStream, *, is_recording: bool, is_still: bool
) -> Iterator[Packet[VideoStream]]:
    """Yield packets until the end, which FFmpeg may report as an error.

    Args:
        container: The open source.
        stream: Video stream of the source. For a live source, packets of other streams are yielded too, so that the
            caller sees time pass.
        is_recording: Whether the source has an end.
        is_still: Whether the source may be a single picture.

    Raises:
        Exception: PyAV raised it.
    """
    source: Iterator[Any] = container.demux(stream) if is_recording else container.demux()
    count = 0
    while True:
        try:
            packet = next(source, None)
        except av.error.FFmpegError as error:
            # An HTTP answer without a length ends in an input/output error, and a multipart answer in data that is no
            # part. The index of a recording has the number of frames.
            has_all = stream.frames <= count if is_recording else is_still
            is_end = error.errno == errno.EIO or (is_still and isinstance(error, av.error.InvalidDataError))
            if not (count and has_all and is_end):
                raise
            return
        if packet is None:
            return
        count += packet.stream_index == stream.index
        yield packet
