"""Lines and table of `visaged watch`: hostile messages neither break nor forge them."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from visaged.daemon.cli.live import JsonLines, Lines, Screen
from visaged.daemon.watch.news import News, camera_of, decoded, event_of

SHOT = {"box": [10.0, 10.0, 96.0, 120.0], "confidence": 0.9}
EVENT: dict[str, Any] = {
    "schema": "visaged.events/1", "camera": "door", "captured_at": "2026-11-21T08:06:27.038Z", "event": "update",
    "track_id": 3, "duration_s": 3.14, "face": {"attributes": {"age": {"value": 31.4}}}, "best_shot": SHOT,
}  # fmt: skip
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def console(file: io.StringIO, is_terminal: bool = False, width: int = 100) -> Console:
    return Console(file=file, width=width, height=30, force_terminal=is_terminal, highlight=False)


def shown(*news: News, **options: Any) -> list[str]:
    file = io.StringIO()
    lines = Lines(console(file), **options)
    for one in news:
        lines.take(one)
    return file.getvalue().splitlines()


def test_an_event_has_the_line_that_run_prints() -> None:
    (text,) = shown(event_of(EVENT))
    assert text.endswith("door  face 3 update about 31, 86 px, sure 90%, seen 3.1 s")


@pytest.mark.parametrize(
    "changes",
    [
        {"captured_at": "0001-01-01T00:00:00Z"},
        {"captured_at": "9999-12-31T23:59:59Z"},
        {"captured_at": 7},
        {"captured_at": None},
        {"duration_s": 1e308},
        {"duration_s": "long"},
        {"face": []},
        {"face": {"attributes": []}},
        {"face": {"attributes": {"age": {"value": "x"}}}},
        {"face": {"attributes": {"gender": {"value": "g" * 5000}}}},
        {"face": {"attributes": {f"a{n}": {"value": f"word{n}"} for n in range(5000)}}},
        {"best_shot": {"box": [1, 2], "confidence": 1}},
        {"best_shot": {"box": [0, 0, 1e308, 1], "confidence": 1e308}},
        {"track_id": 10**17},
    ],
)
def test_an_event_of_any_form_is_one_line_of_bounded_length(changes: dict[str, Any]) -> None:
    (text,) = shown(event_of(decoded(json.dumps(EVENT | changes).encode())))
    assert len(text) <= 400


def test_no_text_of_a_message_acts_on_the_terminal_or_begins_a_line() -> None:
    evil = "happy\n08:06:22 vault  face 1 begin\x1b[2J\x1b]0;title\x07\x9b5m\r\u202e[bold red]"
    attributes = {"emotion": {"value": evil}, "hat": {"value": evil}}
    event = event_of(decoded(json.dumps(EVENT | {"face": {"attributes": attributes}}).encode()))
    status = camera_of(
        decoded(json.dumps({"camera": "door", "state": "waiting", "error": evil, "codec": evil}).encode())
    )
    file = io.StringIO()
    screen = Screen(console(file, is_terminal=True))
    screen.take(event)
    screen.take(status)
    screen.take(News("note", {"text": "something was left out"}))
    console(file, is_terminal=True).print(screen._table())
    text = SEQUENCE.sub("", file.getvalue())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "[bold red]" in text
    assert not [line for line in text.splitlines() if line.startswith("08:06:22 vault")]
    assert {found for found in SEQUENCE.findall(file.getvalue()) if not found.endswith("m")} == set()


def test_messages_as_json_are_lines_of_ascii() -> None:
    file = io.StringIO()
    lines = JsonLines(console(file), console(io.StringIO()))
    event = event_of(decoded(json.dumps(EVENT | {"note": "ä\x9b\u2028" + "y" * 300}, ensure_ascii=False).encode()))
    lines.take(event)
    (text,) = file.getvalue().splitlines()
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["track_id"] == 3


def test_filters() -> None:
    other = event_of(EVENT | {"camera": "yard"})
    end = event_of(EVENT | {"event": "end"})
    assert len(shown(event_of(EVENT), other, end)) == 3
    assert len(shown(event_of(EVENT), other, end, cameras=["yard"])) == 1
    assert len(shown(event_of(EVENT), other, end, kinds=["end"])) == 1


@pytest.mark.parametrize("width", [40, 62, 80, 200])
def test_the_table_names_state_and_faces_at_any_width(width: int) -> None:
    file = io.StringIO()
    screen = Screen(console(file, width=width))
    screen.take(News("link", {"connected": True, "text": "connected to the MQTT broker 127.0.0.1:1883"}))
    for number in range(40):
        screen.take(camera_of({"camera": f"camera{number}", "state": "streaming", "tracks": 12, "analysed_fps": 5.0}))
    screen.take(camera_of({"camera": "broken", "state": "waiting", "error": "it refused the connection " * 20}))
    file.truncate(0)
    file.seek(0)
    console(file, width=width).print(screen._table())
    rows = file.getvalue().splitlines()
    assert all(len(row) <= width for row in rows)
    assert rows[4].split()[:2] == ["broken", "waiting"], "what is broken comes first"
    assert rows[5].split()[1:4] == ["streaming", "12", "5.0"]
    assert rows[-1].strip() == "and 30 more"
