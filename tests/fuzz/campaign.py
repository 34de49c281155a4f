"""Sends inputs to one target, in batches, and finds the input that something wrong comes from."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from tests.fuzz.findings import Complaint, Finding, Kind
from tests.fuzz.mutator import Mutator
from tests.fuzz.oracle import Oracle

# Clients at a time: most inputs are incomplete, so that most of the time is spent waiting for more answers.
_CLIENTS = 8
_BATCH = 32
# A campaign that finds more than this has shown enough.
_MOST_FINDINGS = 20
# What a busy machine shows too; it counts only where an input brings it about again.
_SHY = frozenset({Kind.HELD, Kind.MEMORY})


class Target(Protocol):
    """A place where bytes come in."""

    name: str
    words: Sequence[bytes]
    """Words that mean something there."""

    def finish(self, data: bytes, rng: random.Random) -> bytes:
        """Return a mutated input with what has to fit put right, such as sums, now and then."""

    def send(self, data: bytes) -> list[Complaint]:
        """Send an input, perhaps beside others, and return what is wrong with the answer."""

    def settle(self) -> list[Complaint]:
        """Return what is wrong with the target itself after a batch."""


@dataclass
class Report:
    """How a campaign went."""

    target: str
    inputs: int = 0
    findings: list[Finding] = field(default_factory=list)


class Campaign:
    """Fuzzes one target.

    Args:
        target: Where to.
        oracle: Looks at the subject after every batch.
        corpus: Inputs to begin with.
        seed: The same seed makes the same inputs in the same order.
        revive: Starts the subject anew where something is wrong that stays: it would be blamed on every later input.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        target: Target,
        oracle: Oracle,
        corpus: Sequence[bytes],
        seed: int,
        revive: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target, self._oracle, self._corpus = target, oracle, list(corpus)
        self._rng = random.Random(f"{seed} {target.name}")
        self._mutator = Mutator(self._rng, target.words)
        self._revive = revive
        self._before: list[bytes] = []
        self._clock = clock

    def run(self, seconds: float) -> Report:
        """Send the corpus as it is, then mutations until the time is over."""
        report = Report(self._target.name)
        end_s = self._clock() + seconds
        with ThreadPoolExecutor(_CLIENTS, "fuzz") as pool:
            for batch in self._batches():
                report.inputs += len(batch)
                report.findings += self._judge(batch, pool)
                if self._clock() > end_s or len(report.findings) >= _MOST_FINDINGS:
                    return report
        return report

    def replay(self, inputs: Sequence[bytes]) -> Report:
        """Send certain inputs, each alone."""
        findings = [finding for data in inputs for finding in self._alone(data)]
        return Report(self._target.name, len(inputs), findings)

    def _batches(self) -> Iterator[list[bytes]]:
        for begin in range(0, len(self._corpus), _BATCH):
            yield self._corpus[begin : begin + _BATCH]
        while True:
            yield [self._target.finish(self._mutator.mutate(self._corpus), self._rng) for _ in range(_BATCH)]

    def _judge(self, batch: list[bytes], pool: ThreadPoolExecutor) -> list[Finding]:
        findings = [
            Finding(self._target.name, complaint, (data,))
            for data, complaints in zip(batch, pool.map(self._target.send, batch), strict=True)
            for complaint in complaints
        ]
        general = self._look()
        # What takes longer than its client waited shows after the batch that follows.
        before, self._before = self._before, batch
        if not general:
            return findings
        alone = [finding for data in before + batch for finding in self._alone(data)]
        known = {finding.complaint.kind for finding in findings + alone} | _SHY
        rest = [Finding(self._target.name, one, tuple(batch)) for one in general if one.kind not in known]
        return findings + alone + rest

    def _alone(self, data: bytes) -> list[Finding]:
        """Return what is wrong after one input; what a busy machine may show too has to come twice."""
        complaints = self._target.send(data) + self._look()
        if complaints and all(complaint.kind in _SHY for complaint in complaints):
            complaints = self._target.send(data) + self._look()
        return [Finding(self._target.name, complaint, (data,)) for complaint in complaints]

    def _look(self) -> list[Complaint]:
        complaints, lasting = self._oracle.look(), self._target.settle()
        if lasting or any(complaint.kind in (Kind.DIED, Kind.UNWELL, Kind.MEMORY) for complaint in complaints):
            self._revive()
        return complaints + lasting
