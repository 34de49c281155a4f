"""Debian's real Prometheus for tests: the repository's rules, one daemon to scrape, and questions over its HTTP API."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.support.broker import free_port
from tests.support.process import ManagedProcess
from tests.support.requirements import find_program

FOLDER = Path(__file__).parents[2] / "configs" / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
START_S = 60.0

Sample = tuple[dict[str, str], float]


def promtool(*arguments: str | Path) -> str:
    """Runs promtool in the folder of the configuration and returns what it says; fails where it does."""
    command = [find_program("promtool") or "promtool", *map(str, arguments)]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """A Prometheus with the repository's scrape job and rules, on a free port of 127.0.0.1.

    Args:
        folder: For its configuration and data.
        target: Host and port of the daemon.
        interval_s: Between two scrapes, and between two evaluations of the rules.
    """

    def __init__(self, folder: Path, target: str, interval_s: int = 1) -> None:
        document = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        document["global"] = {"scrape_interval": f"{interval_s}s", "evaluation_interval": f"{interval_s}s"}
        document["rule_files"] = [str(path) for path in RULES]
        document["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(document))
        port = free_port()
        self.process = ManagedProcess(
            [
                find_program("prometheus") or "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            # Else it takes as many threads as there are cores, which other tests need.
            env=os.environ | {"GOMAXPROCS": "1"},
        )
        try:
            self.process.wait_for_line("Server is ready to receive web requests", START_S)
        except BaseException:
            self.process.kill()
            raise
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30, trust_env=False)

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer; fails at an error, with its text."""
        answer = self._client.get(path, params=parameters).json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]

    def samples(self, expression: str) -> list[Sample]:
        """What an expression gives now: labels and value of each series, without those that are not a number."""
        data = self.ask("/query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        values = [(entry["metric"], float(entry["value"][1])) for entry in data["result"]]
        return [(labels, value) for labels, value in values if value == value]

    def series(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[tuple[dict[str, str], Any]]:
        """What an expression gave: labels of each series, and its times and values as strings."""
        data = self.ask("/query_range", query=expression, start=f"{start_s}", end=f"{end_s}", step=f"{step_s}")
        return [(entry["metric"], entry["values"]) for entry in data["result"]]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()
        self.process.kill()
