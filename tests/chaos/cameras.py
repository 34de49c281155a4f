"""Live cameras over HTTP that die, stall, flood, hang up within a picture, send rubbish, and change their size."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from types import TracebackType
from typing import Self

import av
from av.stream import Stream

from tests.chaos.clip import CLOCK_HZ, FPS, Clip
from tests.support.returning import hang_up, listen, lone_port
from tests.support.rtsp import RtspServer

_FLOOD = 8  # times the usual rate
KILLS = ("dies", "hangs up")
"""Faults that end a camera's connection at once."""


class Camera(ABC):
    """A camera of one daemon.

    Attributes:
        name: Name of the camera.
        url: Where the daemon finds it.
    """

    def __init__(self, name: str) -> None:
        self.name, self.url = name, ""

    @property
    @abstractmethod
    def faults(self) -> dict[str, Callable[[random.Random], None]]:
        """The faults by name; each is called with a source of chance, and returns when the camera is well again."""

    @abstractmethod
    def close(self) -> None:
        """End it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class HttpCamera(Camera):
    """A camera of our own: JPEGs in a multipart answer, or H.264 in an MPEG transport stream.

    Args:
        name: Name of the camera.
        kind: `mjpeg` or `ts`.
        clips: What it shows, in its usual size and in others.
    """

    def __init__(self, name: str, kind: str, clips: list[Clip]) -> None:
        super().__init__(name)
        self._wrapping = {"mjpeg": Multipart, "ts": TransportStream}[kind]
        self._clips = clips
        self._clip = clips[0]
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._stalled = self._mute = False
        self._rate = 1
        self._cut: tuple[float, bytes] | None = None  # share of the next picture that is sent, and what follows it
        self.port = lone_port()
        self._listener = self._listen()
        self.url = f"http://127.0.0.1:{self.port}/{kind}"
        self.pictures = 0

    @property
    def faults(self) -> dict[str, Callable[[random.Random], None]]:
        """The faults by name."""
        return {
            "dies": self._die,
            "hangs up": self._hang_up,
            "stalls": lambda rng: self._while(rng.uniform(0.5, 6.0), _stalled=True),
            "floods": lambda rng: self._while(rng.uniform(1.0, 3.0), _rate=_FLOOD),
            "resizes": lambda rng: self._while(rng.uniform(0.3, 3.0), _clip=rng.choice(self._clips[1:])),
            "garbles": self._garble,
            "is mute": self._be_mute,
        }

    def close(self) -> None:
        """End it; connections are reset."""
        self._close_listener()
        self._drop(reset=True)

    def _die(self, rng: random.Random) -> None:
        self._close_listener()
        self._drop(reset=rng.random() < 0.5)
        time.sleep(rng.uniform(0.1, 3.0))
        self._listener = self._listen()

    def _hang_up(self, rng: random.Random) -> None:
        self._cut_next(rng.random(), b"")

    def _garble(self, rng: random.Random) -> None:
        self._cut_next(rng.random(), rng.randbytes(rng.choice((40, 4_000, 40_000))))

    def _be_mute(self, rng: random.Random) -> None:
        """Lose all connections, and take new ones without a word."""
        with self._changed:
            self._mute = True
        self._drop(reset=False)
        time.sleep(rng.uniform(0.5, 4.0))
        with self._changed:
            self._mute = False
        self._drop(reset=False)

    def _while(self, seconds: float, **state: object) -> None:
        usual = {name: getattr(self, name) for name in state}
        self._set(**state)
        time.sleep(seconds)
        self._set(**usual)

    def _set(self, **state: object) -> None:
        with self._changed:
            for name, value in state.items():
                setattr(self, name, value)
            self._changed.notify_all()

    def _cut_next(self, share: float, rest: bytes) -> None:
        with self._changed:
            self._cut = share, rest
            self._changed.wait_for(lambda: self._cut is None, 5.0)
            self._cut = None

    def _listen(self) -> socket.socket:
        listener = listen(self.port)
        threading.Thread(target=self._accept, args=(listener,), daemon=True, name=f"camera {self.name}").start()
        return listener

    def _close_listener(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _drop(self, *, reset: bool) -> None:
        with self._changed:
            connections = list(self._connections)
        for connection in connections:
            hang_up(connection, reset=reset)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                threading.Thread(target=self._serve, args=(connection,), daemon=True, name="camera client").start()

    def _serve(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.add(connection)
        try:
            connection.settimeout(10.0)
            with contextlib.suppress(OSError):
                while b"\r\n\r\n" not in connection.recv(65536):  # the request is one segment
                    pass
                self._stream(connection)
        finally:
            with self._changed:
                self._connections.discard(connection)
            hang_up(connection, reset=False)

    def _stream(self, connection: socket.socket) -> None:
        while self._mute:
            time.sleep(0.1)
        wrapping = self._wrapping()
        connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Type: {wrapping.content_type}\r\n\r\n".encode())
        due_s = began_s = time.monotonic()
        while True:
            with self._changed:
                clip, rate = self._clip, self._rate
                if self._stalled:
                    self._changed.wait(1.0)
                    continue
            # A clock for all connections: who comes back sees what is there now, not where he left.
            now_s = time.monotonic()
            data = wrapping.wrap(clip, int(now_s * FPS) % len(clip.jpegs), now_s - began_s)
            with self._changed:
                cut, self._cut = self._cut, None
                self._changed.notify_all()
            if cut is not None:
                connection.sendall(data[: int(cut[0] * len(data))] + cut[1])
                if not cut[1]:
                    return
            else:
                connection.sendall(data)
                self.pictures += 1
            due_s = max(due_s + 1 / (FPS * rate), now_s - 1 / FPS)
            time.sleep(max(0.0, due_s - time.monotonic()))


class RtspCamera(Camera):
    """GStreamer's RTSP server.

    Args:
        name: Name of the camera.
        server: The server, started; the camera ends with it.
    """

    def __init__(self, name: str, server: RtspServer) -> None:
        super().__init__(name)
        self._server = server
        self.url = server.url("/stall")

    @property
    def faults(self) -> dict[str, Callable[[random.Random], None]]:
        """The faults by name."""
        return {"dies": self._die, "hangs up": lambda rng: self._drop(), "stalls": self._stall, "freezes": self._freeze}

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    def _die(self, rng: random.Random) -> None:
        self._server.kill()
        time.sleep(rng.uniform(0.1, 2.0))
        self._server.start()

    def _drop(self) -> None:
        self._server.drop()

    def _stall(self, rng: random.Random) -> None:
        self._server.stall()
        time.sleep(rng.uniform(0.5, 6.0))
        self._server.resume()

    def _freeze(self, rng: random.Random) -> None:
        self._server.process.freeze()
        time.sleep(rng.uniform(0.5, 6.0))
        self._server.process.thaw()


class Multipart:
    """JPEGs in a multipart answer."""

    content_type = "multipart/x-mixed-replace; boundary=picture"

    def wrap(self, clip: Clip, index: int, at_s: float) -> bytes:
        """Return a picture as it is sent."""
        head = b"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(clip.jpegs[index])
        return head + clip.jpegs[index] + b"\r\n"


class TransportStream:
    """H.264 in an MPEG transport stream, of one connection."""

    content_type = "video/mp2t"

    def __init__(self) -> None:
        self._pipe = io.BytesIO()
        self._out = av.open(self._pipe, "w", format="mpegts", options={"flush_packets": "1"})
        self._stream: Stream | None = None

    def wrap(self, clip: Clip, index: int, at_s: float) -> bytes:
        """Return a picture as it is sent, with a stamp of `at_s`."""
        if self._stream is None:
            width, height = clip.size
            self._stream = self._out.add_mux_stream("h264", rate=FPS, width=width, height=height)
        packet = av.Packet(clip.units[index])
        packet.pts = packet.dts = round(at_s * CLOCK_HZ)
        packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, CLOCK_HZ), self._stream, True
        self._out.mux(packet)
        data = self._pipe.getvalue()
        self._pipe.seek(0)
        self._pipe.truncate()
        return data
