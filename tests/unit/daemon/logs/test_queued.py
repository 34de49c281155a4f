"""Whoever logs never waits, whatever the log is written to."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from visaged.daemon.logs.destinations import Descriptor
from visaged.daemon.logs.queued import QueuedHandler

WAIT_S = 30.0


class Blocked:
    """A destination that takes nothing until it is opened."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, text: str) -> None:
        self.reached.set()
        assert self.opened.wait(WAIT_S)
        self.lines.append(text)


class Counter:
    def __init__(self) -> None:
        self.value = 0

    def __call__(self) -> None:
        self.value += 1


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    destination = Blocked()
    yield destination
    destination.opened.set()


def record(text: object, *values: object) -> logging.LogRecord:
    return logging.LogRecord("test", logging.INFO, "", 0, text, values, None)


def test_lines_that_do_not_fit_are_counted_and_reported_where_they_are_missing(blocked: Blocked) -> None:
    dropped = Counter()
    handler = QueuedHandler("stderr", blocked, dropped, Counter(), most_lines=10)
    handler.handle(record("first"))
    assert blocked.reached.wait(WAIT_S)
    for number in range(1000):
        handler.handle(record("line %d", number))
    assert dropped.value == 990
    blocked.opened.set()
    assert handler.finish(WAIT_S)
    missing = "990 log lines are missing here: they were dropped, because stderr took no more"
    assert blocked.lines == ["first", *(f"line {n}" for n in range(10)), missing]


def test_the_report_stands_before_the_lines_that_come_later() -> None:
    written, go_on, lines = threading.Semaphore(0), threading.Semaphore(0), []

    def write(text: str) -> None:
        lines.append(text)
        written.release()
        assert go_on.acquire(timeout=WAIT_S)

    handler = QueuedHandler("file", write, Counter(), Counter(), most_lines=4)
    for number in range(10):
        handler.put(f"line {number}")
        if not number:
            assert written.acquire(timeout=WAIT_S)
    for _ in range(3):  # until less than half of the queue is taken
        go_on.release()
        assert written.acquire(timeout=WAIT_S)
    handler.put("afterwards")
    go_on.release(100)
    assert handler.finish(WAIT_S)
    kept, missing, last = lines[:-2], lines[-2], lines[-1]
    assert kept == [f"line {n}" for n in range(5)]
    assert missing.startswith("5 log lines are missing here")
    assert last == "afterwards"


def test_the_memory_for_lines_is_bounded(blocked: Blocked) -> None:
    dropped = Counter()
    handler = QueuedHandler("stderr", blocked, dropped, Counter(), most_characters=1_000_000)
    handler.put("first")
    assert blocked.reached.wait(WAIT_S)
    for _ in range(100):
        handler.put("x" * 100_000)
    assert dropped.value >= 80
    blocked.opened.set()
    assert handler.finish(WAIT_S)
    assert sum(map(len, blocked.lines)) < 1_100_000
    assert "more characters)" in blocked.lines[1]


def test_the_end_does_not_wait_for_ever(blocked: Blocked) -> None:
    handler = QueuedHandler("stderr", blocked, Counter(), Counter())
    handler.put("never written")
    assert not handler.finish(0.01)


def test_a_destination_that_fails_costs_its_line_alone() -> None:
    lines: list[str] = []
    errors = Counter()

    def write(text: str) -> None:
        if "bad" in text:
            raise OSError("No space left on device")
        lines.append(text)

    handler = QueuedHandler("file", write, Counter(), errors)
    for text in ("one", "bad", "two"):
        handler.put(text)
    assert handler.finish(WAIT_S)
    assert (lines, errors.value) == (["one", "two"], 1)


def test_a_record_that_cannot_be_formatted_is_reported() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RecursionError

    lines: list[str] = []
    handler = QueuedHandler("file", lines.append, Counter(), Counter())
    handler.handle(record("%s", Broken()))
    handler.handle(record("%d", "no number"))
    assert handler.finish(WAIT_S)
    assert lines == [
        "a record of logger test could not be formatted: RecursionError",
        "a record of logger test could not be formatted: TypeError",
    ]


@pytest.mark.skipif(os.name != "posix", reason="needs non-blocking pipes")
def test_a_descriptor_that_another_program_made_non_blocking_is_written_whole() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    text = "x" * 1_000_000
    received: list[bytes] = []

    def receive() -> None:
        with open(read, "rb") as pipe:
            received.append(pipe.read())

    thread = threading.Thread(target=receive)
    thread.start()
    Descriptor(write)(text)
    os.close(write)
    thread.join(WAIT_S)
    assert received == [text.encode() + b"\n"]
