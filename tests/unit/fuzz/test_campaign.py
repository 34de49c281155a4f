"""Campaigns against a small server with planted faults: each is found, and the input that causes it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fuzz.campaign import Campaign
from tests.fuzz.findings import Complaint, Finding, Kind
from tests.fuzz.kept import CORPUS, load
from tests.fuzz.oracle import Bounds, Oracle, judge_answer
from tests.fuzz.session import TARGETS


class FaultyServer:
    """Both subject and target; what is sent to it is put to its faults."""

    name = "faulty"
    words: Sequence[bytes] = (b"crash", b"slow", b"log", b"late", b"fail", b"leak", b"break", b"all")

    def __init__(self, *faults: str) -> None:
        self._faults = faults
        self.is_running = True
        self.starts = 0
        self._is_broken = False
        self._lines: list[str] = []
        self._later: list[str] = []
        self._slowest_s = 0.0
        self._times_slow = 0

    def restart(self) -> None:
        self.starts += 1
        self.is_running, self._is_broken = True, False

    def finish(self, data: bytes, rng: random.Random) -> bytes:
        return data

    def send(self, data: bytes) -> list[Complaint]:
        def has(fault: str) -> bool:
            return fault in self._faults and fault.encode() in data

        if has("crash"):
            self.is_running = False
        if has("log"):
            self._lines.append("Traceback (most recent call last):")
        if has("late"):  # its client does not wait for it
            self._later.append("Traceback (most recent call last):")
        if has("break"):
            self._is_broken = True
        if has("slow"):
            self._slowest_s = 2.0
        if "busy machine" in self._faults and self._times_slow == 0:
            self._times_slow, self._slowest_s = 1, 2.0
        status = 500 if has("fail") else 200
        return judge_answer(b"HTTP/1.1 %d Status\r\n\r\n" % status + (b"s3cr3t" if has("leak") else b""), ("s3cr3t",))

    def settle(self) -> list[Complaint]:
        return [Complaint(Kind.ANSWER, "broken")] if self._is_broken else []

    def health_s(self, most_s: float) -> float | None:
        return 0.001

    def slowest_health_s(self) -> float:
        slowest_s, self._slowest_s = self._slowest_s, 0.0
        return slowest_s

    def memory_mb(self) -> float:
        return 100.0

    def new_lines(self) -> list[str]:
        lines, self._lines, self._later = self._lines, self._later, []
        return lines


class Turns:
    """A clock that ends a campaign after some batches."""

    def __init__(self, batches: int) -> None:
        self._left = batches + 1

    def __call__(self) -> float:
        self._left -= 1
        return 0.0 if self._left > 0 else 100.0


def run(server: FaultyServer, corpus: Sequence[bytes] = (b"hello", b"world"), batches: int = 6) -> list[Finding]:
    campaign = Campaign(server, Oracle(server, Bounds()), corpus, 1, server.restart, Turns(batches))
    report = campaign.run(50.0)
    assert report.inputs > 0
    return report.findings


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("crash", Kind.DIED),
        ("slow", Kind.HELD),
        ("log", Kind.LOG),
        ("fail", Kind.STATUS),
        ("leak", Kind.SECRET),
        ("break", Kind.ANSWER),
    ],
)
def test_a_planted_fault_is_found_with_its_input(fault: str, kind: Kind) -> None:
    server = FaultyServer(fault)
    findings = run(server)
    assert findings
    for finding in findings:
        assert finding.complaint.kind == kind
        assert len(finding.inputs) == 1
        assert fault.encode() in finding.inputs[0]
    assert bool(server.starts) == (fault in ("crash", "break")), "what stays wrong takes a new start"


def test_a_server_without_faults_is_found_nothing_of() -> None:
    assert run(FaultyServer()) == []


def test_what_a_busy_machine_shows_once_is_no_finding() -> None:
    assert run(FaultyServer("busy machine")) == []


def test_what_shows_after_the_next_batch_is_found_too() -> None:
    findings = run(FaultyServer("late"), [b"late", b"hello"], batches=2)
    assert findings
    assert any(b"late" in data for finding in findings for data in finding.inputs)


def test_replay_sends_certain_inputs_alone() -> None:
    server = FaultyServer("fail")
    campaign = Campaign(server, Oracle(server, Bounds()), [], 1, server.restart)
    report = campaign.replay([b"fail", b"hello"])
    assert report.inputs == 2
    assert [finding.inputs for finding in report.findings] == [(b"fail",)]


def test_findings_are_written_to_files(tmp_path: Path) -> None:
    one = Finding("http", Complaint(Kind.STATUS, "500"), (b"input",)).save(tmp_path / "findings")
    assert [path.read_bytes() for path in one] == [b"input"]
    assert one[0].name.startswith("http-status-")
    batch = Finding("http", Complaint(Kind.LOG, "Traceback"), (b"a", b"b")).save(tmp_path / "findings")
    assert [path.read_bytes() for path in batch] == [b"a", b"b"]


def test_every_target_has_a_corpus_and_it_is_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(load(name) for name in TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 300_000
