"""A daemon under test: a real process with a state folder of its own, which may lie on a disk that fills up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.cameras import Camera
from tests.chaos.record import Record
from tests.support.process import ManagedProcess
from tests.support.returning import lone_port

START_S, END_S = 60.0, 15.0
_DISK_MB = 12
_CLONE_NEWNS = 0x20000


class Broker(Protocol):
    """What a daemon's broker can do."""

    host: str
    port: int

    def down(self) -> None:
        """Die now."""

    def up(self) -> None:
        """Come back on the same port."""


def own_mounts() -> bool:
    """Give this process mounts that end with it; return whether that is allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() or not hasattr(libc, "unshare") or libc.unshare(_CLONE_NEWNS):
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False).returncode == 0


class Disk:
    """A small file system in memory, to be filled and freed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._ballast = folder / "ballast"
        self.folder = folder
        options = f"size={_DISK_MB}m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chaos", str(folder)], check=True)

    def fill(self) -> None:
        """Leave no room."""
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink()

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


class Subject:
    """The daemon.

    Args:
        node: Name of the node, and prefix of its topics.
        folder: For its files.
        broker: Where it publishes.
        cameras: Its cameras.
        record: What comes in at the broker.
        disk: Where its state lies; None for a folder on an ordinary disk.
        clock: Library of libfaketime; None for the machine's clock.

    Attributes:
        lost: Events that it counted as lost itself, by cause, over all its runs.
        failures: What it must not do: end by itself, or not end.
    """

    def __init__(
        self,
        node: str,
        folder: Path,
        broker: Broker,
        cameras: Sequence[Camera],
        record: Record,
        disk: Disk | None = None,
        clock: Path | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.node, self.broker, self.cameras, self.record = node, broker, cameras, record
        self.disk, self.clock = disk, clock
        self.state = folder / "state" if disk is None else disk.folder / "state"
        self.lost: dict[str, float] = {}
        self.failures: list[str] = []
        self._port = lone_port()
        self._log = folder / "log"
        self._offset = folder / "offset"
        self.shift_clock(0)
        self._config = folder / "visaged.yaml"
        self._config.write_text(yaml.safe_dump(self._document()))
        self._process: ManagedProcess | None = None
        self._starting = threading.Lock()
        self._closed = False

    def start(self) -> float:
        """Start it; return monotonic seconds when the process was there. It may not be ready yet."""
        environment = os.environ | {"NO_COLOR": "1"}
        if self.clock is not None:
            environment |= {
                "LD_PRELOAD": str(self.clock),
                "FAKETIME_TIMESTAMP_FILE": str(self._offset),
                "FAKETIME_CACHE_DURATION": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }
        command = [sys.executable, "-m", "visaged.daemon", "run", "--config", str(self._config)]
        with self._starting:
            if self._closed:
                raise AssertionError("the run is over")
            self._process = ManagedProcess(command, env=environment)
        return time.monotonic()

    def wait_until_up(self) -> None:
        """Wait until it says that it runs."""
        self.process.wait_for_line("/docs", START_S)

    @property
    def process(self) -> ManagedProcess:
        """The running process."""
        assert self._process is not None, "start() comes first"
        return self._process

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._look()
        self.process.kill()
        self._keep_log()

    def end(self) -> None:
        """End it with SIGTERM."""
        self._look()
        self.process.send(signal.SIGTERM)
        try:
            status = self.process.wait(END_S)
            if status:
                self.failures.append(f"ended with status {status} after SIGTERM")
        except AssertionError:
            self.failures.append(f"did not end within {END_S:g} s after SIGTERM")
            self.process.kill()
        for line in self.process.lines:  # what is known only when its metrics cannot be asked any more
            if said := re.search(r"(\d+) events .* are lost", line):
                self._lose("shutdown", float(said[1]))
        self._keep_log()

    def shift_clock(self, seconds: int) -> None:
        """Set its wall clock so far before or behind the machine's; it looks within a second."""
        new = self._offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._offset)

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the sum of a metric's samples with some labels; None if there are none, or it does not answer."""
        return next(iter(self._metrics(name, "", **labels).values()), None)

    def close(self) -> None:
        """End it at once, and for good."""
        with self._starting:
            self._closed = True
        if self._process is not None and self._process.is_running:
            self._process.kill()
            self._keep_log()

    def _metrics(self, name: str, by: str, **labels: str) -> dict[str, float]:
        try:
            text = httpx.get(f"http://127.0.0.1:{self._port}/metrics", timeout=5, trust_env=False).text
        except httpx.HTTPError:
            return {}
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"visaged_{name}" and labels.items() <= sample.labels.items():
                    key = sample.labels.get(by, "")
                    sums[key] = sums.get(key, 0.0) + sample.value
        return sums

    def _look(self) -> None:
        """Note what a run that is about to end has lost, as it says itself."""
        if not self.process.is_running:
            self.failures.append(f"ended by itself with status {self.process.wait(1.0)}")
            return
        for cause, count in self._metrics("output_lost_total", "cause", kind="events").items():
            self._lose(cause, count)

    def _lose(self, cause: str, count: float) -> None:
        if count:
            self.lost[cause] = self.lost.get(cause, 0.0) + count

    def _keep_log(self) -> None:
        if any(line.startswith("Traceback") for line in self.process.lines):
            self.failures.append("a traceback in its log")
        with self._log.open("a") as file:
            file.write("\n".join([*self.process.lines, "----", ""]))

    def _document(self) -> dict[str, Any]:
        options = {"analyzeduration": "500000"}  # a stream of five pictures a second has few to be looked at
        return {
            "node": self.node,
            "state_dir": str(self.state),
            "cameras": [
                {"name": camera.name, "url": camera.url, "fps": 10, "open_timeout_s": 5, "read_timeout_s": 2}
                | ({"options": options} if camera.url.startswith("http") else {})
                for camera in self.cameras
            ],
            "mqtt": {
                "host": self.broker.host,
                "port": self.broker.port,
                "prefix": self.node,
                "keepalive_s": 5,
                "reconnect_most_s": 2,
            },
            "http": {"port": self._port, "access_log": False},
            # Faces are large, and what they look like is of no interest.
            "models": {"analyzer": None},
            "inference": {"long_side": 320, "workers": 1, "update_s": 1},
            "tracker": {"lost_s": 0.5},
        }
