"""Recordings and segments behind HTTP, as web servers and restreamers give them."""

from __future__ import annotations

import contextlib
import http.server
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support import media
from tests.support.odd_servers import http_server

SEGMENT_S = 1.0


@contextlib.contextmanager
def file_server(folder: Path, *, ranges: bool = True, length: bool = True) -> Iterator[str]:
    """Serve a folder's files; yield the URL.

    Args:
        folder: What to serve.
        ranges: Whether parts can be asked for.
        length: Whether answers say how long they are.
    """

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        path = folder / handler.path.partition("?")[0].strip("/")
        if not path.is_file():
            handler.send_error(404)
            return
        data = path.read_bytes()
        part = re.match(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", "")) if ranges else None
        if part:
            first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        else:
            handler.send_response(200)
        handler.send_header(*(("Content-Length", str(len(data))) if length else ("Connection", "close")))
        handler.end_headers()
        handler.wfile.write(data)

    with http_server(answer) as url:
        yield url


def write_segments(folder: Path, seconds: float) -> list[Path]:
    """Write a clip as MPEG-TS segments of `SEGMENT_S`, each with stamps that go on from the one before."""
    count = round(seconds / SEGMENT_S)
    paths = []
    for index in range(count):
        times = [10 + index * SEGMENT_S + frame / 25 for frame in range(round(25 * SEGMENT_S))]
        paths.append(media.write_video(folder / f"s{index}.ts", size=(160, 120), times=times, gop=25))
    return paths


def playlist(first: int, count: int, *, is_complete: bool) -> str:
    """Return an HLS playlist of segments `first` to `first + count`."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{math.ceil(SEGMENT_S)}"]
    lines.append(f"#EXT-X-MEDIA-SEQUENCE:{first}")
    for index in range(first, first + count):
        lines += [f"#EXTINF:{SEGMENT_S:.3f},", f"s{index}.ts"]
    return "\n".join([*lines, *(["#EXT-X-ENDLIST"] if is_complete else [])]) + "\n"


@contextlib.contextmanager
def live_segments(folder: Path, ready: int, clock: Callable[[], float] = time.monotonic) -> Iterator[str]:
    """Serve a folder's segments as a live HLS playlist of the last five; yield its URL.

    Args:
        folder: With what `write_segments` wrote.
        ready: Segments that are there from the beginning.
        clock: Seconds.
    """
    began_s = clock()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        there = ready + int((clock() - began_s) / SEGMENT_S)
        if handler.path.endswith(".m3u8"):
            first = max(0, there - 5)
            data, kind = playlist(first, there - first, is_complete=False).encode(), "application/vnd.apple.mpegurl"
        else:
            path = folder / handler.path.strip("/")
            if not path.is_file():
                handler.send_error(404)
                return
            data, kind = path.read_bytes(), "video/mp2t"
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    with http_server(answer) as url:
        yield f"{url}/live.m3u8"
