"""A live camera over HTTP that shows a still picture and is held up once: an MPEG transport stream made by PyAV."""

from __future__ import annotations

import http.server
import io
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from tests.support.odd_servers import begin

FPS = 10
_CLOCK_HZ = 90_000


def late_camera(
    picture: npt.NDArray[np.uint8], at_s: float, hold_s: float, seconds: float, stopping: threading.Event
) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """Return the answer of an `odd_servers.http_server`.

    Args:
        picture: What the camera shows, (height, width, 3) uint8 RGB, sides even.
        at_s: Seconds from the start at which the network is held up, once. The stream stays late from then on: stamps
            go on as if nothing had happened.
        hold_s: For how long nothing is sent then.
        seconds: Length of the stream in its own time; after it the connection is kept open in silence.
        stopping: Ends the answer.
    """

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        begin(handler, "video/mp2t")
        pipe = io.BytesIO()
        with av.open(pipe, "w", format="mpegts") as container:
            stream: Any = container.add_stream(
                "libx264", rate=FPS, options={"tune": "zerolatency", "preset": "ultrafast"}
            )
            stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
            stream.codec_context.gop_size = FPS
            start_s = time.monotonic()
            for index in range(round(seconds * FPS)):
                due_s = index / FPS
                if stopping.wait(max(0.0, start_s + due_s + (hold_s if due_s > at_s else 0.0) - time.monotonic())):
                    return
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = round(due_s * _CLOCK_HZ), Fraction(1, _CLOCK_HZ)
                for packet in stream.encode(frame):
                    container.mux(packet)
                handler.wfile.write(pipe.getvalue())
                handler.wfile.flush()
                pipe.seek(0)
                pipe.truncate()
            stopping.wait()

    return answer
