"""Starts and drives the test camera of `rtsp_server.py`, whose head describes the mounts and faults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.process import ManagedProcess, ProcessError
from tests.support.requirements import SYSTEM_PYTHON

ANSWER_TIMEOUT_S = 30.0
USER, PASSWORD = "user", "password"


@dataclass(frozen=True, slots=True)
class Stats:
    """What the server knows, by mount: clients that asked to play and are connected; pictures sent to clients."""

    clients: dict[str, int]
    pictures: dict[str, int]


class RtspServer:
    """The server's process and its commands. `start()` before anything else, or use it in a `with` block."""

    def __init__(self, clip: Path, *, port: int = 0, fps: float = 25.0) -> None:
        """Serves `clip`: H.264 in an mp4, or raw .h264 at `fps`. Port 0: chosen by the system, kept by `restart()`."""
        self._clip, self._fps = clip, fps
        self._port = port
        self._process: ManagedProcess | None = None

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; 0 before the first start."""
        return self._port

    @property
    def process(self) -> ManagedProcess:
        """The running process; `process.freeze()` makes a camera that is hung."""
        if self._process is None:
            raise AssertionError("start() the server first")
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_running

    def start(self) -> Self:
        """Starts the process and waits until it listens."""
        script = Path(__file__).with_name("rtsp_server.py")
        self._process = ManagedProcess(
            [SYSTEM_PYTHON, str(script), str(self._clip), "--port", str(self._port), "--fps", str(self._fps)]
        )
        try:
            self._port = int(json.loads(self._process.read_line(ANSWER_TIMEOUT_S))["port"])
        except BaseException:
            self._process.kill()
            raise
        return self

    def kill(self) -> None:
        """The camera loses its power: SIGKILL, connections end."""
        self.process.kill()

    def restart(self) -> Self:
        """Kills it if it runs; starts it on the same port, without faults."""
        if self.is_running:
            self.kill()
        return self.start()

    def stop(self) -> None:
        """Ends the process, if it runs."""
        if self._process is not None:
            self._process.stop()

    def url(self, mount: str, *, user: str | None = None, password: str | None = None) -> str:
        """The RTSP URL of a mount, such as "/normal"."""
        login = "" if user is None else f"{user}:{password or ''}@"
        return f"rtsp://{login}127.0.0.1:{self._port}{mount}"

    def stall(self, mount: str = "/stall") -> None:
        """Pictures stop; connections and RTCP stay."""
        self.command("stall", mount=mount)

    def resume(self, mount: str = "/stall") -> None:
        """Pictures go on, from the clip's first key frame."""
        self.command("resume", mount=mount)

    def drop(self, mount: str | None = None) -> int:
        """Closes the connections of a mount, or all; returns how many there were."""
        return int(self.command("drop", mount=mount)["dropped"])

    def resize(self, width: int = 1280, height: int = 720) -> None:
        """Changes the picture size of `/resize`, for its present clients too."""
        self.command("resize", width=width, height=height)

    def auth_method(self, method: str) -> None:
        """Sets what `/auth` asks for: "basic" (default) or "digest"."""
        self.command("auth", method=method)

    def stats(self) -> Stats:
        """Clients and pictures, by mount."""
        answer = self.command("stats")
        return Stats(clients=answer["clients"], pictures=answer["pictures"])

    def reset(self) -> None:
        """All faults off, all connections closed."""
        self.command("reset")

    def command(self, name: str, **fields: Any) -> dict[str, Any]:
        """Sends one command and returns its answer."""
        self.process.write_line(json.dumps({"cmd": name, **fields}))
        answer: dict[str, Any] = json.loads(self.process.read_line(ANSWER_TIMEOUT_S))
        if not answer["ok"]:
            raise ProcessError(f"the RTSP server refused {name}: {answer['error']}")
        return answer

    def __enter__(self) -> Self:
        return self if self.is_running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
