"""Signals that end the program, and its end though it hangs."""

from __future__ import annotations

import os
import queue
import signal

import pytest

from visaged.daemon.cli.ending import EXIT_HUNG, Ending

WAIT_S = 30.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")


def test_a_signal_before_the_start_ends_the_program() -> None:
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    with pytest.raises(SystemExit) as asked, Ending(1000.0, left.put):
        signal.raise_signal(signal.SIGTERM)
    assert asked.value.code == 0
    assert left.empty()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_hangs_after_a_signal_is_cut_short(number: signal.Signals) -> None:
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    stops: list[int] = []
    with Ending(0.01, left.put) as ending:
        ending.lead_to(lambda: stops.append(1))
        signal.raise_signal(number)
        assert left.get(timeout=WAIT_S) == EXIT_HUNG
    assert stops == [1]


def test_other_signals_do_not_count() -> None:
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        with Ending(0.0, left.put) as ending:
            ending.lead_to(lambda: None)
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(queue.Empty):
                left.get(timeout=0.05)
            signal.raise_signal(signal.SIGTERM)
            assert left.get(timeout=WAIT_S) == EXIT_HUNG
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Ending(1000.0, lambda code: None):
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
