"""Fuzz the HTTP API of a running daemon from its own OpenAPI document: `python -m tests.fuzz.openapi [REQUESTS]`.

Schemathesis (`pip install schemathesis`) makes requests that fit the document and such that do not; no answer may be an
error of the server but a documented 503, and every answer must be as documented. Ends with the exit code of
schemathesis. Not part of the tests: 10,000 requests take minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import yaml

from tests.support.broker import free_port
from tests.support.process import ManagedProcess

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,allow_header_conformance"
)


def main() -> None:
    """Start a daemon and fuzz it."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "visaged.yaml"
        document = {"node": "fuzz", "mqtt": {"embedded": True, "port": free_port()}, "http": {"port": port}}
        document |= {"state_dir": str(folder / "state")}
        config.write_text(yaml.safe_dump(document))
        with ManagedProcess([sys.executable, "-m", "visaged.daemon", "run", "--config", str(config)]) as daemon:
            url = f"http://127.0.0.1:{port}/openapi.json"
            operations = _operations(url)
            (folder / "schemathesis.toml").write_text(
                f"[generation]\nmax-examples = {max(1, requests // operations)}\n"
                '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "501", "503"]\n'
            )
            program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml")]
            # Answers without an end would hold the fuzzer for ever; tests/integration/test_live.py asks for them.
            options = [
                "--exclude-path-regex",
                r"/(live\.mjpeg|live|stream)$",
                "--checks",
                CHECKS,
                "--phases",
                "examples,coverage,fuzzing",
                "--continue-on-failure",
            ]
            done = subprocess.run([*program, "run", url, *options], check=False)
            if not daemon.is_running:
                sys.exit("the daemon has ended:\n" + "\n".join(daemon.lines[-20:]))
            wrong = [line for line in daemon.lines if "Traceback" in line or " ERROR " in line]
            if wrong:
                sys.exit("the daemon complained:\n" + "\n".join(wrong[:20]))
    sys.exit(done.returncode)


def _operations(url: str) -> int:
    """Return how many operations take parameters or a body."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                operations = [one for path in json.load(answer)["paths"].values() for one in path.values()]
                # The others have nothing to vary, and are asked once or twice.
                return sum(bool("parameters" in one or "requestBody" in one) for one in operations)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main()
