"""The oracle sees each thing that can be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.fuzz.findings import Kind
from tests.fuzz.oracle import Bounds, Oracle, judge_answer
from tests.fuzz.targets.mqtt import judge_status
from tests.fuzz.targets.pictures import judge_picture
from tests.fuzz.targets.settings import SECRET, judge_settings

SECRETS = ("s3cr3t",)
LINE = "2026-11-26T18:39:24.472Z INFO    request_log: PATCH /x {} 160.7 ms, key -, 0 B in, 167 B out, request 3a84"


@dataclass
class FakeSubject:
    is_running: bool = True
    health: float | None = 0.001
    slowest: float = 0.002
    memory: float = 200.0
    lines: list[str] = field(default_factory=list)

    def health_s(self, most_s: float) -> float | None:
        return self.health

    def slowest_health_s(self) -> float:
        return self.slowest

    def memory_mb(self) -> float:
        return self.memory

    def new_lines(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


def kinds(subject: FakeSubject) -> list[Kind]:
    return [complaint.kind for complaint in Oracle(subject, Bounds(), SECRETS).look()]


def test_a_daemon_that_is_well_is_nothing_to_complain_of() -> None:
    lines = [LINE.format(status) for status in (200, 400, 404, 501, 503, 504, "none")]
    assert kinds(FakeSubject(lines=[*lines, "2026-11-26T18:39:24.472Z WARNING http: a bad request"])) == []


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        (FakeSubject(is_running=False), Kind.DIED),
        (FakeSubject(health=None), Kind.UNWELL),
        (FakeSubject(slowest=0.9), Kind.HELD),
        (FakeSubject(memory=5000.0), Kind.MEMORY),
        (FakeSubject(lines=[LINE.format(500)]), Kind.STATUS),
        (FakeSubject(lines=[LINE.format(502)]), Kind.STATUS),
        (FakeSubject(lines=["2026-11-26T18:39:24.472Z ERROR   web: no"]), Kind.LOG),
        (FakeSubject(lines=["Traceback (most recent call last):"]), Kind.LOG),
        (FakeSubject(lines=["2026-11-26T18:39:24.472Z INFO    camera: rtsp://u:s3cr3t@h"]), Kind.SECRET),
    ],
    ids=lambda value: str(value) if isinstance(value, Kind) else "",
)
def test_each_fault_is_seen(subject: FakeSubject, kind: Kind) -> None:
    assert kinds(subject) == [kind]


def test_a_traceback_is_one_complaint_with_all_its_lines() -> None:
    lines = ["2026-11-26T18:39:24.472Z ERROR   web: failed", "Traceback (most recent call last):", "ValueError: x"]
    (complaint,) = Oracle(FakeSubject(lines=[*lines, LINE.format(200)]), Bounds()).look()
    assert complaint.text == "\n".join(lines)


def test_answers_over_http() -> None:
    good = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 503 Service Unavailable\r\n\r\n"
    assert judge_answer(good, SECRETS) == []
    bad = good.replace(b"\r\n\r\nHTTP/1.1 503", b"\r\n\r\n\nHTTP/1.1 500")
    assert [complaint.kind for complaint in judge_answer(bad, SECRETS)] == [Kind.STATUS]
    assert [complaint.kind for complaint in judge_answer(good + b"s3cr3t", SECRETS)] == [Kind.SECRET]
    away = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://attacker.example/healthz\r\n\r\n"
    assert [complaint.kind for complaint in judge_answer(away)] == [Kind.ANSWER]
    assert judge_answer(away.replace(b"http://attacker.example", b"")) == []


@pytest.mark.parametrize(
    ("status", "content_type", "body", "wrong"),
    [
        (200, "application/json", b'{"faces": []}', False),
        (422, "application/problem+json", b'{"status": 422, "detail": "it is damaged"}', False),
        (503, "application/problem+json", b'{"status": 503, "detail": "too busy"}', False),
        (200, "application/json", b"{}", True),
        (200, "application/json", b"<html>", True),
        (422, "application/json", b'{"status": 422, "detail": "it is damaged"}', True),
        (422, "application/problem+json", b'{"status": 400, "detail": "it is damaged"}', True),
        (422, "application/problem+json", b'{"status": 422}', True),
        (500, "application/problem+json", b'{"status": 500, "detail": "an error"}', True),
    ],
)
def test_answers_to_pictures(status: int, content_type: str, body: bytes, wrong: bool) -> None:
    assert bool(judge_picture(status, content_type, body)) == wrong


def test_the_status_of_the_daemon_on_the_broker() -> None:
    topic = "visaged/fuzz/status"
    assert judge_status((topic, b'{"node": "fuzz", "state": "online"}')) == []
    for message in (None, (topic, b"hello"), (topic, b'{"state": "offline"}'), ("other", b'{"state": "online"}')):
        assert judge_status(message), message


def test_errors_of_configurations() -> None:
    data = f"password: {SECRET}\nusername: 5".encode()
    assert judge_settings(data, {"problems": "username: is no text"}) == []
    assert judge_settings(data, {"problems": "", "traceback": "ValueError"})[0].kind == Kind.LOG
    assert judge_settings(data, {"problems": f"password: no (got {SECRET})"})[0].kind == Kind.SECRET
    assert judge_settings(f"{SECRET}: 5".encode(), {"problems": f"{SECRET}: is not a known key"}) == []
