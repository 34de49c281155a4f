"""A live camera that sends an MPEG transport stream over HTTP, with stamps and a network that are not always right."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import av
from av.video.stream import VideoStream

from tests.support.http_server import Visit, web_server


@dataclass(frozen=True, slots=True)
class _Camera:
    clip: Path
    factor: float
    at: float
    hold: float

    def serve(self, visit: Visit) -> None:
        visit.send(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
        pipe = io.BytesIO()
        with av.open(self.clip) as clip, av.open(pipe, "w", format="mpegts") as out:
            stream = out.add_stream_from_template(clip.streams.video[0])
            began, round_began = monotonic(), 0.0
            while not visit.stopping.is_set():
                round_began = self._round(visit, clip, out, stream, pipe, began, round_began)
                clip.seek(0)

    def _round(
        self,
        visit: Visit,
        clip: av.container.InputContainer,
        out: av.container.OutputContainer,
        stream: VideoStream,
        pipe: io.BytesIO,
        began: float,
        round_began: float,
    ) -> float:
        """Send the clip once; return when it ends, seconds after the connection's begin."""
        end = round_began
        for packet in clip.demux(clip.streams.video[0]):
            if packet.pts is None or packet.time_base is None:
                continue
            due = round_began + float(packet.pts * packet.time_base)
            end = due + 0.04
            late = self.hold if due > self.at else 0.0
            if visit.stopping.wait(max(0.0, began + due + late - monotonic())):
                break
            packet.pts = packet.dts = round(due * self.factor / packet.time_base)
            packet.stream = stream
            out.mux(packet)
            visit.send(pipe.getvalue())
            pipe.seek(0)
            pipe.truncate()
        return end


@contextlib.contextmanager
def ts_camera(clip: Path, *, factor: float = 1.0, at: float = 5.0, hold: float = 0.0) -> Iterator[str]:
    """Serve a clip without B-frames in a loop, live, to each client from its begin; yield the URL.

    Args:
        clip: An MP4.
        factor: Seconds of the stream's stamps in a real second.
        at: Seconds after which the stream is held up once.
        hold: For how long; it goes on that much late.
    """
    with web_server(_Camera(clip, factor, at, hold).serve) as server:
        yield f"http://127.0.0.1:{server.port}/"
