"""Named threads that stop when asked to, and never die unnoticed."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

import pytest

from visaged.pipelines.runtime.worker import Worker


def no_death(name: str, error: BaseException) -> None:
    pytest.fail(f"{name} died: {error}")


def wait(stopping: threading.Event) -> None:
    assert stopping.wait(20)


def test_a_worker_works_until_it_is_stopped() -> None:
    worker = Worker("waiter", wait, no_death)
    worker.start()
    assert not worker.join(0.05)
    worker.stop()
    assert worker.join(5)


def test_stop_may_be_called_again_and_before_the_start_and_after_the_end() -> None:
    worker = Worker("waiter", wait, no_death)
    worker.stop()
    worker.stop()
    worker.start()
    assert worker.join(5)
    worker.stop()
    assert worker.join(0)


def test_stop_returns_at_once_though_the_thread_hangs() -> None:
    release = threading.Event()
    worker = Worker("hanging", lambda stopping: release.wait(20) and None, no_death)
    worker.start()
    began = time.monotonic()
    worker.stop()
    assert not worker.join(0.1)
    assert not worker.join(-5)
    assert time.monotonic() - began < 2
    release.set()
    assert worker.join(5)


def test_a_worker_that_was_never_started_is_joined() -> None:
    assert Worker("idle", wait, no_death).join(5)


def test_work_that_ends_by_itself_is_no_death() -> None:
    worker = Worker("done", lambda stopping: None, no_death)
    worker.start()
    assert worker.join(5)


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyboardInterrupt()])
def test_a_death_is_reported_with_its_name(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    deaths: list[tuple[str, BaseException, str]] = []

    def die(stopping: threading.Event) -> None:
        raise error

    worker = Worker("mortal", die, lambda name, why: deaths.append((name, why, threading.current_thread().name)))
    with caplog.at_level(logging.ERROR):
        worker.start()
        assert worker.join(5)
    assert deaths == [("mortal", error, "mortal")]
    assert "thread mortal died" in caplog.text


def test_threads_have_names_and_do_not_keep_the_process() -> None:
    seen: list[threading.Thread] = []
    worker = Worker("camera-door", lambda stopping: seen.append(threading.current_thread()), no_death)
    worker.start()
    assert worker.join(5)
    assert (seen[0].name, seen[0].daemon, worker.name) == ("camera-door", True, "camera-door")


def test_a_death_is_reported_though_the_log_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise SystemExit("no log")

    deaths: list[str] = []

    def die(stopping: threading.Event) -> None:
        raise ValueError("broken")

    logger = logging.getLogger("visaged.pipelines.runtime.worker")
    monkeypatch.setattr(logger, "handlers", [Failing()])
    worker = Worker("mortal", die, lambda name, why: deaths.append(name))
    worker.start()
    assert worker.join(5)
    assert deaths == ["mortal"]


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux alone")
def test_a_nice_worker_steps_back_and_its_process_does_not() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)

    inside: list[int] = []
    before = priority()
    worker = Worker("nice", lambda stopping: inside.append(priority()), no_death, nice=1)
    worker.start()
    assert worker.join(5)
    assert inside == [min(19, before + 1)]
    assert priority() == before
