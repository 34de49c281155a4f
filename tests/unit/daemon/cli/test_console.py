"""What a person at a terminal sees, and that no terminal can hold up the daemon."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import threading
import time

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from rich.console import Console

from visaged.daemon.cli.console import EventLines, describe, give_up, line, show
from visaged.pipelines.outputs.messages import Composer, Message
from visaged.pipelines.records import AttributeValue, EventKind, Face, Shot, TrackEvent
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker

WAIT_S = 30.0


def event(kind: EventKind = "begin", track: int = 1, **attributes: str | float) -> Message:
    box = np.array([100, 100, 186, 200], dtype=np.float32)
    shot = Shot(1_700_000_000.0, box, np.zeros((5, 2), dtype=np.float32), 0.9, 0.8)
    known = {name: AttributeValue(value, 0.9) for name, value in attributes.items()}
    happened = TrackEvent("door", kind, Face(shot, track, known), shot, 1_700_000_000.0, 3.14159, 7, 0.0)
    return Composer("node", 1).event(happened)


class Printing:
    """Lines with the thread that prints them."""

    def __init__(self, file: object, most_waiting: int = 1000) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.lines = EventLines(console(file), self.metrics, most_waiting)
        self.deaths: list[BaseException] = []
        self.worker = Worker("terminal", self.lines.run, lambda name, error: self.deaths.append(error))
        self.worker.start()

    def stop(self, timeout_s: float) -> bool:
        """Return whether everything was printed in time."""
        self.worker.stop()
        return self.worker.join(timeout_s) and not self.deaths

    def lost(self) -> float:
        labels = {"output": "terminal", "kind": "events", "cause": "overflow"}
        return self.metrics.registry.get_sample_value("visaged_output_lost_total", labels) or 0.0


def console(file: object) -> Console:
    return Console(file=file, width=40, force_terminal=False)  # type: ignore[arg-type]


class Blocked(io.StringIO):
    """A terminal that is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.go_on.wait(WAIT_S)
        return super().write(text)


class Full(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_line_tells_what_is_known() -> None:
    known = event("update", age=31.4, gender="female", mask="none", glasses="glasses", attractiveness=0.4)
    text = line(known.body).plain
    assert text.endswith("door  face 1 update about 31, female, glasses, 86 px, sure 90%, seen 3.1 s")
    assert line(event().body).plain.endswith("face 1 begin  86 px, sure 90%")


def test_open_eyes_and_what_is_not_worn_go_without_saying() -> None:
    worn = {"glasses": {"value": "sunglasses"}, "mask": {"value": "none"}, "hat": {"value": "hat"}}
    eyes = {"left_eye": {"value": "open"}, "right_eye": {"value": "open"}}
    assert describe(eyes | worn) == ["sunglasses", "hat"]
    shut = {"value": "closed"}
    assert describe({"left_eye": shut, "right_eye": {"value": "open"}}) == ["an eye closed"]
    assert describe({"left_eye": shut, "right_eye": shut}) == ["eyes closed"]


def test_structured_values_are_not_described() -> None:
    pose = {"yaw": 1.0, "pitch": 2.0, "roll": 3.0}
    assert describe({"head_pose": {"value": pose}, "blur": {"value": 0.3}, "emotion": {"value": "calm"}}) == ["calm"]


def test_lines_are_printed_in_order_and_whole() -> None:
    file = io.StringIO()
    printing = Printing(file)
    for number in range(100):
        printing.lines.offer(event("end", number, age=30, gender="female", emotion="happy", glasses="glasses"))
    assert printing.stop(WAIT_S)
    printed = file.getvalue().splitlines()
    assert [text.split()[3] for text in printed] == [str(number) for number in range(100)]


def test_a_camera_name_is_not_markup() -> None:
    file = io.StringIO()
    assert show(console(file), "[bold]door[/bold] [/]")
    assert file.getvalue() == "[bold]door[/bold] [/]\n"


def test_a_paused_terminal_holds_up_nobody() -> None:
    file = Blocked()
    printing = Printing(file, most_waiting=10)
    printing.lines.offer(event())
    assert file.reached.wait(WAIT_S)
    for number in range(1000):
        printing.lines.offer(event(track=number))
    began = time.monotonic()
    assert not printing.stop(0.05)
    assert time.monotonic() - began < WAIT_S / 2
    file.go_on.set()
    assert printing.stop(WAIT_S)
    printed = file.getvalue().splitlines()
    assert len(printed) == 11
    assert " face 999 " in printed[-1]
    assert printing.lost() == 990


def test_an_event_of_another_kind_has_a_plain_line_and_ends_nothing() -> None:
    file = io.StringIO()
    printing = Printing(file)
    other = b'{"camera": "door", "captured_at": "2026-11-21T08:06:18.638Z", "event": "line_crossed", "track_id": 7}'
    printing.lines.offer(dataclasses.replace(event(), body=other))
    printing.lines.offer(event())
    assert printing.stop(WAIT_S)
    first, second = file.getvalue().splitlines()
    assert first.endswith("door  event line_crossed track_id 7")
    assert " begin" in second


def test_a_line_that_cannot_be_made_ends_nothing() -> None:
    file = io.StringIO()
    printing = Printing(file)
    for body in (b"{}", b"[]", b"no JSON", b'{"camera": "door", "captured_at": "x"}', b'{"event": "begin"}'):
        printing.lines.offer(dataclasses.replace(event(), body=body))
    printing.lines.offer(event())
    assert printing.stop(WAIT_S)
    assert len(file.getvalue().splitlines()) == 6


def test_a_full_disk_ends_the_printing_only() -> None:
    file = Full()
    printing = Printing(file)
    for _ in range(5):
        printing.lines.offer(event())
    assert printing.stop(WAIT_S)
    printing.lines.offer(event())
    assert file.tries == 1


def test_a_file_that_cannot_be_written_is_given_up_for_good() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as file:
        file.write("buffered")
        give_up(console(file))
        file.write("and more")  # closing would raise if it still led to the broken pipe


def test_a_closed_stdout_is_an_error_for_nobody() -> None:
    file = io.StringIO()
    file.close()
    assert not show(console(file), "text")


@pytest.mark.parametrize("kind", ["begin", "update", "end"])
def test_every_kind_has_a_line(kind: EventKind) -> None:
    assert f" {kind}" in line(event(kind).body).plain
