"""Notifications to a real socket: what is told, and that no receiver holds the daemon up."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from visaged.daemon.supervision.notify import Notifier

Make = Callable[..., Notifier]
FromEnvironment = Callable[[dict[str, str]], Notifier]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sockets as on Linux")


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        one.setblocking(False)
        yield one


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes notifiers, and closes them after the test."""
    made: list[Notifier] = []

    def remembered(*values: Any, **names: Any) -> Notifier:
        made.append(Notifier(*values, **names))
        return made[-1]

    yield remembered
    for notifier in made:
        notifier.close()


@pytest.fixture
def from_environment() -> Iterator[FromEnvironment]:
    made: list[Notifier] = []

    def remembered(environment: dict[str, str]) -> Notifier:
        made.append(Notifier.from_environment(environment))
        return made[-1]

    yield remembered
    for notifier in made:
        notifier.close()
        notifier.ready()


def received(receiver: socket.socket) -> list[str]:
    texts = []
    while True:
        try:
            texts.append(receiver.recv(4096).decode())
        except BlockingIOError:
            return texts


def test_what_is_told(receiver: socket.socket, make: Make) -> None:
    notifier = make(receiver.getsockname(), watchdog_s=10)
    before_us = time.monotonic_ns() // 1000
    notifier.ready()
    with notifier.reloading():
        pass
    notifier.feed()
    notifier.stopping()
    ready, reloading, again, fed, stopping = received(receiver)
    assert [ready, again, fed, stopping] == ["READY=1", "READY=1", "WATCHDOG=1", "STOPPING=1"]
    first, _, second = reloading.partition("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(value) <= time.monotonic_ns() // 1000


def test_an_abstract_socket(make: Make) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0visaged-test-of-notifications")
        receiver.setblocking(False)
        make("@visaged-test-of-notifications").ready()
        assert received(receiver) == ["READY=1"]


def test_a_status_is_one_line_without_secrets_and_is_not_repeated(receiver: socket.socket, make: Make) -> None:
    notifier = make(receiver.getsockname())
    for text in ("one\nREADY=1\x1b", "one\nREADY=1\x1b", "rtsp://admin:hunter2@camera/1", "ü" * 1000):
        notifier.status(text)
    one, url, long = received(receiver)
    assert one == "STATUS=one READY=1 "
    assert url.startswith("STATUS=rtsp://")
    assert "hunter2" not in url
    assert len(long) < 400


def test_without_a_watchdog_none_is_fed(receiver: socket.socket, make: Make) -> None:
    make(receiver.getsockname()).feed()
    assert received(receiver) == []


def test_without_a_receiver_nothing_happens(tmp_path: Path, make: Make) -> None:
    for notifier in (make(), make(str(tmp_path / "nobody")), make("/" + "long" * 100)):
        notifier.ready()
        notifier.status("well")
        with notifier.reloading():
            notifier.feed()
        notifier.stopping()


def test_a_receiver_that_cannot_be_reached_is_said_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    notifier = make("/" + "long" * 100, watchdog_s=10)
    with caplog.at_level(logging.WARNING):
        notifier.ready()
        notifier.feed()
    (record,) = caplog.records
    assert "NOTIFY_SOCKET cannot be told anything: AF_UNIX path too long" in record.getMessage()


def test_a_receiver_that_is_replaced_gets_what_it_missed(tmp_path: Path, make: Make) -> None:
    notifier = make(str(tmp_path / "notify"))
    notifier.ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        notifier.status("well")
        assert received(receiver) == ["READY=1", "STATUS=well"]


def test_a_receiver_that_takes_nothing_blocks_nobody(receiver: socket.socket, make: Make) -> None:
    notifier = make(receiver.getsockname(), watchdog_s=10)
    for number in range(1000):  # far more than a socket's queue has room for
        notifier.status(str(number))
        notifier.feed()
    notifier.ready()
    before = received(receiver)
    assert len(before) < 1000
    rest: list[str] = []
    for _ in range(10):  # as many times as it takes with a queue of two
        notifier.flush()
        rest += received(receiver)
    assert rest[-2:] == ["STATUS=999", "READY=1"]


def test_the_variables_are_taken_from_the_environment(from_environment: FromEnvironment) -> None:
    environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    assert from_environment(environment).watchdog_s == 30
    assert environment == {"A": "b"}
    assert from_environment(environment).watchdog_s is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"WATCHDOG_PID": "1"}, None),  # meant for the process that started this one
        ({"WATCHDOG_USEC": "soon"}, "WATCHDOG_USEC is 'soon', not a number of microseconds"),
        ({"WATCHDOG_USEC": "0"}, "WATCHDOG_USEC is '0'"),
        ({"WATCHDOG_USEC": "-1"}, "WATCHDOG_USEC is '-1'"),
        ({"WATCHDOG_USEC": "1"}, "WATCHDOG_USEC is '1', not a number of microseconds from 100000 on"),
        ({"WATCHDOG_USEC": "1" + "0" * 400}, "WATCHDOG_USEC is '1000"),
        ({"WATCHDOG_USEC": "1" + "0" * 5000}, "WATCHDOG_USEC is '1000"),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, "NOTIFY_SOCKET is 'vsock:2:1234', not a path"),
        ({"NOTIFY_SOCKET": "@"}, "NOTIFY_SOCKET is '@'"),
        ({"NOTIFY_SOCKET": ""}, None),
    ],
)
def test_variables_that_cannot_be_right(
    changes: dict[str, str], said: str | None, caplog: pytest.LogCaptureFixture, from_environment: FromEnvironment
) -> None:
    with caplog.at_level(logging.WARNING):
        notifier = from_environment({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000"} | changes)
    assert notifier.watchdog_s is None
    assert (said is None) == (not caplog.text)
    assert said is None or said in caplog.text
    notifier.ready()
