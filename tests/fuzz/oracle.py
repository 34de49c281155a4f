"""Says what is wrong with a daemon that was sent strange things."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from tests.fuzz.findings import Complaint, Kind

DOCUMENTED = frozenset({501, 503, 504})
"""Statuses of 5xx that are documented: not implemented, too busy, another server was too slow."""

_STATUS = re.compile(rb"(?:\A|\n)HTTP/1\.[01] (\d{3}) ")
# Many inputs have this name as their Host; an answer that leads there leads wherever a stranger wants.
_LED_AWAY = re.compile(rb"\nlocation:[^\n]*attacker\.example", re.IGNORECASE)
_LOGGED_STATUS = re.compile(r" (5\d\d) [\d.]+ ms, key ")
_LOGGED_ERROR = re.compile(r"Traceback \(most recent call last\)|\b(?:ERROR|CRITICAL)\b")

_TIMED = re.compile(r"\d{4}-\d\d-\d\dT")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is still well.

    Attributes:
        health_s: Longest time in seconds that /healthz may take in a pause.
        held_s: Longest time in seconds that /healthz may take while inputs come.
        memory_mb: Most resident memory in MB.
    """

    health_s: float = 5.0
    held_s: float = 0.5
    memory_mb: float = 1500.0


class Subject(Protocol):
    """What is fuzzed, seen from outside."""

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""

    def health_s(self, most_s: float) -> float | None:
        """Ask /healthz; return the seconds to a good answer, None where there is none in `most_s`."""

    def slowest_health_s(self) -> float:
        """Return the longest time in seconds that /healthz took since the last call."""

    def memory_mb(self) -> float:
        """Return the resident memory in MB."""

    def new_lines(self) -> list[str]:
        """Return what was logged since the last call."""


class NoSubject:
    """For targets that judge every input by themselves: always well."""

    is_running = True

    def health_s(self, most_s: float) -> float | None:
        """Return no time at all."""
        return 0.0

    def slowest_health_s(self) -> float:
        """Return no time at all."""
        return 0.0

    def memory_mb(self) -> float:
        """Return no memory at all."""
        return 0.0

    def new_lines(self) -> list[str]:
        """Return no lines."""
        return []


class Oracle:
    """Looks at a subject after every batch.

    Args:
        subject: What is fuzzed.
        bounds: What is still well.
        secrets: Texts that no log line and no answer may hold.
    """

    def __init__(self, subject: Subject, bounds: Bounds, secrets: Collection[str] = ()) -> None:
        self._subject = subject
        self._bounds = bounds
        self._secrets = secrets

    def look(self) -> list[Complaint]:
        """Return what is wrong now, or was since the last look."""
        complaints = [complaint for entry in _entries(self._subject.new_lines()) for complaint in self._entry(entry)]
        if not self._subject.is_running:
            return [*complaints, Complaint(Kind.DIED, "the process has ended")]
        slowest_s = self._subject.slowest_health_s()
        if self._subject.health_s(self._bounds.health_s) is None:
            complaints.append(Complaint(Kind.UNWELL, f"no good answer of /healthz in {self._bounds.health_s} s"))
        elif slowest_s > self._bounds.held_s:
            complaints.append(Complaint(Kind.HELD, f"/healthz took {slowest_s:.2f} s while inputs came"))
        memory_mb = self._subject.memory_mb()
        if memory_mb > self._bounds.memory_mb:
            complaints.append(Complaint(Kind.MEMORY, f"{memory_mb:.0f} MB of memory"))
        return complaints

    def _entry(self, entry: str) -> list[Complaint]:
        complaints = []
        if _LOGGED_ERROR.search(entry):
            complaints.append(Complaint(Kind.LOG, entry))
        status = _LOGGED_STATUS.search(entry)
        if status is not None and int(status[1]) not in DOCUMENTED:
            complaints.append(Complaint(Kind.STATUS, entry))
        if any(secret in entry for secret in self._secrets):
            complaints.append(Complaint(Kind.SECRET, f"logged: {entry}"))
        return complaints


def _entries(lines: list[str]) -> list[str]:
    """Join the lines of an entry of the log: those without a time belong to the one before."""
    entries: list[str] = []
    for line in lines:
        if entries and not _TIMED.match(line):
            entries[-1] += f"\n{line}"
        else:
            entries.append(line)
    return entries


def judge_answer(answer: bytes, secrets: Collection[str] = ()) -> list[Complaint]:
    """Return what is wrong with the bytes that a connection over HTTP answered, in however many answers."""
    complaints = [
        Complaint(Kind.STATUS, f"answered with {status.decode()}")
        for status in _STATUS.findall(answer)
        if status[:1] == b"5" and int(status) not in DOCUMENTED
    ]
    if _LED_AWAY.search(answer):
        complaints.append(Complaint(Kind.ANSWER, "redirected to the host that the client named"))
    if any(secret.encode() in answer for secret in secrets):
        complaints.append(Complaint(Kind.SECRET, "a planted secret is in the answer"))
    return complaints
