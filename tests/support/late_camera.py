"""A live camera over HTTP that shows a still picture and is held up once: an MPEG transport stream made by PyAV."""

from __future__ import annotations

import http.server
import io
import itertools
import threading
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from tests.support.odd_servers import begin

FPS = 10


class LateCamera:
    """The answer of an `odd_servers.http_server`.

    Args:
        picture: What the camera shows, (height, width, 3) uint8 RGB, sides even.
        hold_s: For how long nothing is sent once `held` is set. The stream stays late from then on: stamps go on as if
            nothing had happened.
        after_s: Seconds of the stream that come after that; then the connection is kept open in silence.
        most_s: Longest stream.

    Attributes:
        held: Set it to have the network held up, once in each connection.
        stopping: Set it to end the answers.
        silent_since_s: When the last frame was sent, monotonic seconds.
    """

    def __init__(self, picture: npt.NDArray[np.uint8], hold_s: float, after_s: float, most_s: float = 60.0) -> None:
        self.held, self.stopping = threading.Event(), threading.Event()
        self.silent_since_s = 0.0
        self._hold_s, self._after_s = hold_s, after_s
        # Before, so that every connection is served in time.
        self._chunks = _encoded(picture, round(most_s))

    def __call__(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        begin(handler, "video/mp2t")
        start_s = time.monotonic()
        left: int | None = None
        for index, chunk in enumerate(self._chunks):
            if left is None and self.held.is_set():
                left = round(self._after_s * FPS)
                start_s += self._hold_s
            if left == 0 or self.stopping.wait(max(0.0, start_s + index / FPS - time.monotonic())):
                break
            if left is not None:
                left -= 1
            handler.wfile.write(chunk)
            handler.wfile.flush()
            self.silent_since_s = time.monotonic()
        self.stopping.wait()


def _encoded(picture: npt.NDArray[np.uint8], seconds: int) -> list[bytes]:
    """Return what is sent for each frame: a second of the stream, encoded once and sent again with later stamps."""
    pipe = io.BytesIO()
    ends = [0]
    with av.open(pipe, "w", format="mpegts") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"tune": "zerolatency", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
        stream.codec_context.gop_size = FPS
        second = []
        for _ in range(FPS):
            second += stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        for index, packet in enumerate(second * seconds):
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = index
            container.mux(packet)
            ends.append(pipe.tell())
    whole = pipe.getvalue()
    return [whole[start:end] for start, end in itertools.pairwise(ends)]
