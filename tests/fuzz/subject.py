"""The daemon that is fuzzed: everything that listens is on, and secrets are planted in its configuration."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.fuzz.health import HealthProbe, health_s
from tests.support.broker import free_port
from tests.support.process import ManagedProcess, ProcessError
from tests.support.waiting import until

PICTURE = Path(__file__).parents[2] / "daemon" / "demo" / "picture.jpg"
KEY_ID, REGION = "fuzz-key", "cn-hangzhou"
OSS_SECRET = "planted-oss-secret-7d1f"
PRIVATE = "planted-private-object-51c8"
"""What an object of a bucket holds that is for signed requests alone."""
OUTSIDE = "planted-file-outside-e07b"
"""What a file beside the bucket's folder holds."""
SECRETS = (OSS_SECRET, OUTSIDE, "planted-camera-password-93aa", "planted-url-password-b2d4")

_START_S = 90.0
_MARK_S = 5.0


class FuzzedDaemon:
    """A daemon with the HTTP API, the kit, an OSS endpoint and the embedded broker; in a `with` block.

    Args:
        folder: For its files.
    """

    def __init__(self, folder: Path) -> None:
        self.port, self.oss_port, self.mqtt_port = (free_port() for _ in range(3))
        self._config = folder / "visaged.yaml"
        self._config.write_text(yaml.safe_dump(self._document(folder)))
        self._process: ManagedProcess | None = None
        self._probe: HealthProbe | None = None
        self._lines_seen = self._marks = 0

    def restart(self) -> None:
        """Start it, and end the one before."""
        self.stop()
        self._process = ManagedProcess([sys.executable, "-m", "visaged.daemon", "run", "--config", str(self._config)])
        self._process.wait_for_line("/docs", _START_S)
        until(lambda: health_s(self.port, 5.0) is not None, _START_S)
        self._lines_seen = len(self._process.lines)
        self._probe = HealthProbe(self.port)

    def stop(self) -> None:
        """End it."""
        if self._probe is not None:
            self._probe.stop()
        if self._process is not None:
            self._process.kill()

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._running.is_running

    def health_s(self, most_s: float) -> float | None:
        """Ask /healthz; return the seconds to a good answer, None where there is none in `most_s`."""
        return health_s(self.port, most_s)

    def slowest_health_s(self) -> float:
        """Return the longest time in seconds that /healthz took since the last call."""
        assert self._probe is not None, "restart() comes first"
        return self._probe.slowest_s()

    def memory_mb(self) -> float:
        """Return the resident memory in MB."""
        try:
            status = Path(f"/proc/{self._running.pid}/status").read_text()
        except OSError:  # it has ended, or this is no Linux
            return 0.0
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return 0.0 if found is None else int(found[1]) / 1000

    def new_lines(self) -> list[str]:
        """Return what was logged since the last call, to the last line."""
        self._mark()
        lines = self._running.lines
        new, self._lines_seen = lines[self._lines_seen :], len(lines)
        return new

    def __enter__(self) -> Self:
        self.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _mark(self) -> None:
        """Cause a line in the log and wait until it is read: then those before it are read too."""
        self._marks += 1
        path = f"/mark-{self._marks}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_MARK_S)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", path)
            connection.getresponse().read()
            with contextlib.suppress(ProcessError):
                self._running.wait_for_line(f"GET {path} 404", _MARK_S, start=self._lines_seen)

    @property
    def _running(self) -> ManagedProcess:
        assert self._process is not None, "restart() comes first"
        return self._process

    def _document(self, folder: Path) -> dict[str, Any]:
        nowhere = f"127.0.0.1:{free_port()}/stream"
        camera = {"name": "door", "url": f"rtsp://{nowhere}", "username": "viewer"} | {"password": SECRETS[2]}
        return {
            "node": "fuzz",
            "state_dir": str(folder / "state"),
            "cameras": [camera, {"name": "yard", "url": f"rtsp://viewer:{SECRETS[3]}@{nowhere}"}],
            "mqtt": {"embedded": True, "port": self.mqtt_port},
            "http": {"port": self.port, "long_side": 640, "max_megapixels": 10},
            # Nothing can be fetched, but every URL is looked at.
            "fetch": {"enabled": True, "allow": ["192.0.2.0/24"], "timeout_s": 1},
            "oss": {
                "enabled": True,
                "port": self.oss_port,
                "region": REGION,
                "endpoints": ["oss.example.com"],
                "keys": [{"name": "fuzz", "access_key_id": KEY_ID, "access_key_secret": OSS_SECRET}],
                "buckets": [
                    {"name": "private", "folder": str(_bucket(folder, PRIVATE))},
                    {"name": "everybody", "folder": str(_bucket(folder, "hello")), "public_read": True},
                ],
            },
        }


def _bucket(folder: Path, text: str) -> Path:
    """Make a bucket's folder with a picture, a text, and a file that lies beside it."""
    bucket = folder / text / "bucket"
    (bucket / "sub").mkdir(parents=True)
    shutil.copy(PICTURE, bucket / "person.jpg")
    (bucket / "sub" / "hello.txt").write_text(f"{text}\n" * 20)
    (bucket.parent / "outside.txt").write_text(OUTSIDE)
    (bucket / "link.txt").symlink_to(bucket.parent / "outside.txt")
    return bucket
