"""`visaged run` as a process, with a client of its HTTP API."""

from __future__ import annotations

import os
import re
import signal
import ssl
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.process import ManagedProcess, ProcessError
from tests.support.waiting import until

START_S = 60.0


class RunningDaemon:
    """A daemon that runs with a configuration, and can be started again with the same files.

    Args:
        folder: For the configuration and the state folder.
        document: The configuration; HTTP is on a free port, and the state folder in `folder`, unless it says otherwise.
        options: More of the command line.
        headers: Of every request.
        trust: Trusts the certificate of a daemon that speaks TLS.

    Attributes:
        url: Where its HTTP side is, without a slash at the end.
    """

    def __init__(
        self,
        folder: Path,
        document: dict[str, Any],
        *options: str,
        headers: dict[str, str] | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.config, self.state = folder / "visaged.yaml", folder / "state"
        self.kept = self.state / "cameras.yaml"
        self._base = {"node": "tester", "http": {"port": 0}, "state_dir": str(self.state)} | document
        self._options = options
        self._headers = headers
        self._trust = trust
        self.configure()
        self._start()

    def configure(self, **changes: Any) -> None:
        """Write the configuration with other values of some keys."""
        self.config.write_text(yaml.safe_dump(self._base | changes))

    def start(self) -> None:
        """Start the daemon after its end."""
        self._start()

    def kill(self) -> None:
        """End the daemon without warning."""
        self.process.kill()
        self.client.close()

    def restart(self) -> None:
        """End the daemon and start it again."""
        self.end()
        self._start()

    def end(self) -> None:
        """End the daemon in order."""
        self.process.send(signal.SIGTERM)
        assert self.process.wait(30.0) == 0, self.text
        assert "Traceback" not in self.text
        self.client.close()

    @property
    def text(self) -> str:
        """All that it has written."""
        return "\n".join(self.process.lines)

    def cameras(self) -> list[str]:
        """Names of the cameras that run."""
        return [camera["camera"] for camera in self.client.get("/v1/cameras").json()["cameras"]]

    def state_of(self, name: str) -> str:
        """State of a camera."""
        return str(self.client.get(f"/v1/cameras/{name}").json()["state"])

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a series' samples with some labels."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == f"visaged_{name}"]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.close()
        if self.process.is_running:
            self.process.kill()

    def _start(self) -> None:
        command = [str(Path(sys.executable).with_name("visaged")), "run", "--config", str(self.config), *self._options]
        environment = os.environ | {"PYTHONWARNINGS": "error", "NO_COLOR": "1"}
        self.process = ManagedProcess(command, env=environment)
        try:
            found = re.search(r"https?://\S+(?=/docs)", self.process.wait_for_line("/docs", START_S))
        except ProcessError:
            self.process.kill()
            raise
        assert found is not None
        self.url = found[0].rstrip("/")
        self.client = httpx.Client(
            base_url=self.url, timeout=30, trust_env=False, headers=self._headers, verify=self._trust or True
        )
        until(lambda: self.client.get("/healthz").status_code == 200, START_S)
