"""Configuration files: used, or refused with an error that names the key, and never with a traceback."""

from __future__ import annotations

import json
import os
import random
import re
import select
import struct
import subprocess
import sys
import threading
from pathlib import Path

from tests.fuzz.findings import Complaint, Kind
from tests.fuzz.kept import words

SECRET = "planted-yaml-secret-c61d"
_ANSWER_S = 20.0
_MOST_BYTES = 32 * 1024
# Where the secret may stand; elsewhere it is no secret any more, and an error may repeat it.
_PLACES = re.compile(rb"(?:password|secret)\w*: *\"?" + SECRET.encode() + rb"|//\w+:" + SECRET.encode() + rb"@")


class SettingsTarget:
    """Has a process read configuration files, one after another."""

    name = "yaml"
    words = words(name)

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def finish(self, data: bytes, rng: random.Random) -> bytes:
        """Cut an input short: large files take PyYAML seconds, and show no more."""
        return data[:_MOST_BYTES]

    def send(self, data: bytes) -> list[Complaint]:
        """Have a file read, when those before it are."""
        with self._turn:
            answer = self._ask(data)
        return answer if isinstance(answer, list) else judge_settings(data, answer)

    def settle(self) -> list[Complaint]:
        """Return nothing: every file is judged by itself."""
        return []

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, data: bytes) -> dict[str, str] | list[Complaint]:
        process = self._worker()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(struct.pack(">I", len(data)) + data)
        process.stdin.flush()
        if not select.select([process.stdout], [], [], _ANSWER_S)[0]:
            self.stop()
            return [Complaint(Kind.UNWELL, f"a configuration was not read within {_ANSWER_S} s")]
        line = process.stdout.readline()
        if not line:
            self.stop()
            return [Complaint(Kind.DIED, "the process that reads configurations has ended")]
        answer: dict[str, str] = json.loads(line)
        return answer

    def _worker(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.settings_worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[3], env=os.environ | {"PYTHONHASHSEED": "0"},
            )  # fmt: skip
        return self._process


def judge_settings(data: bytes, answer: dict[str, str]) -> list[Complaint]:
    """Return what is wrong with how a file was read.

    Args:
        data: The file.
        answer: `problems`, the text of the error, empty for a file that is good; or `traceback`.
    """
    if "traceback" in answer:
        return [Complaint(Kind.LOG, answer["traceback"])]
    if SECRET in answer["problems"] and len(_PLACES.findall(data)) == data.count(SECRET.encode()):
        return [Complaint(Kind.SECRET, f"an error repeats a password: {answer['problems'][:500]}")]
    return []
