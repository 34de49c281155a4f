"""What a campaign found, and the files that show it again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """What can be wrong."""

    DIED = "died"
    """The process has ended."""
    UNWELL = "unwell"
    """/healthz, or another service beside the one that was fuzzed, does not answer."""
    HELD = "held"
    """/healthz was answered late, so that something held the event loop."""
    STATUS = "status"
    """A status of 5xx that is not documented."""
    ANSWER = "answer"
    """An answer that is not what the documents promise, or none in time."""
    LOG = "log"
    """A traceback or an error in the log."""
    SECRET = "secret"
    """A planted secret in an answer or in the log."""
    MEMORY = "memory"
    """More memory than is reasonable."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that is wrong."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong after certain inputs: one, or a batch in which no input does it alone."""

    target: str
    complaint: Complaint
    inputs: tuple[bytes, ...]

    def save(self, folder: Path) -> list[Path]:
        """Write the inputs to files in a folder and return them; the same inputs have the same names in every run."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.target}-{self.complaint.kind}-{hashlib.sha256(b'|'.join(self.inputs)).hexdigest()[:10]}"
        paths = []
        for number, data in enumerate(self.inputs):
            path = folder / (name if len(self.inputs) == 1 else f"{name}-{number:03}")
            path.write_bytes(data)
            paths.append(path)
        return paths
