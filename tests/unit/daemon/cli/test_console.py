"""What a person at a terminal sees, and that no terminal can hold up the daemon."""

from __future__ import annotations

import errno
import io
import os
import threading
import time

import numpy as np
import pytest
from rich.console import Console

from visaged.daemon.cli.console import EventLines, describe, flush, line, show
from visaged.models.geometry import HeadPose
from visaged.pipelines.records import AttributeValue, EventKind, Face, Shot, TrackEvent

WAIT_S = 30.0


def event(kind: EventKind = "begin", track: int = 1, **attributes: str | float) -> TrackEvent:
    box = np.array([100, 100, 186, 200], dtype=np.float32)
    shot = Shot(1_700_000_000.0, box, np.zeros((5, 2), dtype=np.float32), 0.9, 0.8)
    known = {name: AttributeValue(value, 0.9) for name, value in attributes.items()}
    return TrackEvent("door", kind, Face(shot, track, known), shot, 1_700_000_000.0, 3.14159, 7, 0.0)


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
    text = line(event("update", age=31.4, gender="female", mask="none", glasses="glasses", attractiveness=0.4)).plain
    assert text.endswith("door  face 1 update about 31, female, glasses, 86 px, sure 90%, seen 3.1 s")
    assert line(event()).plain.endswith("face 1 begin  86 px, sure 90%")


def test_open_eyes_and_what_is_not_worn_go_without_saying() -> None:
    open_, shut = AttributeValue("open", 0.9), AttributeValue("closed", 0.9)
    worn = {
        name: AttributeValue(value, 0.9)
        for name, value in {"glasses": "sunglasses", "mask": "none", "hat": "hat"}.items()
    }
    assert describe({"left_eye": open_, "right_eye": open_} | worn) == ["sunglasses", "hat"]
    assert describe({"left_eye": shut, "right_eye": open_}) == ["an eye closed"]
    assert describe({"left_eye": shut, "right_eye": shut}) == ["eyes closed"]


def test_structured_values_are_not_described() -> None:
    pose, blur = AttributeValue(HeadPose(1.0, 2.0, 3.0), 0.9), AttributeValue(0.3, 0.9, is_score=True)
    assert describe({"head_pose": pose, "blur": blur, "emotion": AttributeValue("calm", 0.9)}) == ["calm"]


def test_lines_are_printed_in_order_and_whole() -> None:
    file = io.StringIO()
    lines = EventLines(console(file))
    for number in range(100):
        lines(event("end", number, age=30, gender="female", emotion="happy", glasses="glasses"))
    assert lines.close(WAIT_S)
    printed = file.getvalue().splitlines()
    assert [text.split()[3] for text in printed] == [str(number) for number in range(100)]


def test_a_camera_name_is_not_markup() -> None:
    file = io.StringIO()
    assert show(console(file), "[bold]door[/bold] [/]")
    assert file.getvalue() == "[bold]door[/bold] [/]\n"


def test_a_paused_terminal_holds_up_nobody() -> None:
    file = Blocked()
    lines = EventLines(console(file), most_waiting=10)
    lines(event())
    assert file.reached.wait(WAIT_S)
    for number in range(1000):
        lines(event(track=number))
    began = time.monotonic()
    assert not lines.close(0.05)
    assert time.monotonic() - began < WAIT_S / 2
    file.go_on.set()
    assert lines.close(WAIT_S)
    printed = file.getvalue().splitlines()
    assert len(printed) == 11
    assert " face 999 " in printed[-1]


def test_a_full_disk_ends_the_printing_only() -> None:
    file = Full()
    lines = EventLines(console(file))
    for _ in range(5):
        lines(event())
    assert lines.close(WAIT_S)
    lines(event())
    assert file.tries == 1


def test_a_file_that_cannot_be_written_is_given_up_for_good() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as file:
        file.write("buffered")
        flush(console(file))
        file.write("and more")  # closing would raise if it still led to the broken pipe


def test_a_closed_stdout_is_an_error_for_nobody() -> None:
    file = io.StringIO()
    file.close()
    assert not show(console(file), "text")


@pytest.mark.parametrize("kind", ["begin", "update", "end"])
def test_every_kind_has_a_line(kind: EventKind) -> None:
    assert f" {kind}" in line(event(kind)).plain
