"""What strangers send over a broker, or in a server's place, reaches the terminal cleaned or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from visaged.daemon.watch.board import MOST_CAMERAS, Board
from visaged.daemon.watch.news import MOST_BYTES, Inbox, News, Unusable, camera_of, cleaned, decoded, event_of, node_of

EVENT: dict[str, Any] = {"schema": "visaged.events/1", "camera": "door", "event": "begin", "track_id": 3}
STATUS: dict[str, Any] = {"schema": "visaged.camera-status/1", "camera": "door", "state": "streaming"}
HOSTILE = "a\x1b[2Jb\x9b31mc\nd\re\u202ef\x07"


def test_texts_keep_only_characters_that_print() -> None:
    shown = cleaned(HOSTILE)
    assert shown.isprintable()
    assert [one for one in shown if one.isascii()] == list("a[2Jb31mcdef")
    assert cleaned("ä 日本 😀") == "ä 日本 😀"
    assert len(cleaned("x" * 10_000, 50)) == 53


def test_keys_and_values_at_any_depth_are_cleaned() -> None:
    body = json.dumps({HOSTILE: [{"deep": {HOSTILE: HOSTILE}}]}).encode()
    assert "\x1b" not in repr(decoded(body)).replace("\\x1b", "\x1b")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "no JSON object|not a JSON object"),
        (b'"' + b"x" * MOST_BYTES + b'"', "MB"),
    ],
)
def test_what_is_no_message_is_said(body: bytes, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        decoded(body)


def test_a_message_of_another_version_names_what_to_do() -> None:
    with pytest.raises(Unusable, match=r"visaged\.events/2.*use the daemon's version"):
        event_of(EVENT | {"schema": "visaged.events/2"}, "door")


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": None},
        {"schema": "other/1"},
        {"camera": "yard"},
        {"camera": None},
        {"event": "explode"},
        {"track_id": "3"},
        {"track_id": None},
    ],
)
def test_an_event_that_is_none_is_left_out(changes: dict[str, Any]) -> None:
    with pytest.raises(Unusable):
        event_of(EVENT | changes, "door")


@pytest.mark.parametrize("name", ["", "a b", "door\x1b[31m", "x" * 65, "d/e", "dööör", 7, ["door"]])
def test_a_name_that_no_camera_can_have_is_refused(name: object) -> None:
    for take, document in ((event_of, EVENT), (camera_of, STATUS)):
        with pytest.raises(Unusable):
            take(document | {"camera": name})
    with pytest.raises(Unusable):
        node_of({"schema": "visaged.node-status/1", "node": name, "state": "online"})


def test_news_that_nobody_takes_are_dropped_and_counted() -> None:
    inbox = Inbox(most=10)
    for number in range(25):
        inbox.put(event_of(EVENT | {"track_id": number}))
    news, lost, failure = inbox.take(0)
    assert [one.document["track_id"] for one in news] == list(range(15, 25))
    assert (lost, failure) == (15, None)
    assert inbox.take(0) == ([], 0, None)


def test_the_board_counts_faces_by_events_and_says_what_changes() -> None:
    board = Board()
    assert board.take(News("link", {"connected": True, "text": "connected"})) == "connected"
    assert board.take(camera_of(STATUS | {"codec": "h264", "width": 640, "height": 360})) == "streaming h264 640x360"
    for number in (1, 2):
        assert board.take(event_of(EVENT | {"track_id": number})) is None
    assert board.cameras["door"].faces == 2
    board.take(event_of(EVENT | {"event": "end", "track_id": 1}))
    assert board.cameras["door"].faces == 1
    board.take(News("link", {"connected": False, "text": "lost"}))
    board.take(News("link", {"connected": True, "text": "connected"}))
    assert board.cameras["door"].faces == 0, "an end that was missed would leave a face for ever"
    board.take(News("presence", {"faces": 4}, "door"))
    assert board.cameras["door"].faces == 4
    assert board.take(News("removed", {"camera": "door"}, "door")) == "removed"
    assert board.cameras == {}


def test_a_camera_that_is_tried_again_and_again_is_told_of_once() -> None:
    board, down = Board(), STATUS | {"state": "waiting", "error": "it refuses"}
    said = [board.take(camera_of(down | {"state": state})) for state in ("waiting", "connecting", "waiting")]
    assert said == ["waiting: it refuses", None, None]
    assert board.take(camera_of(STATUS)) == "streaming"


def test_names_without_end_take_no_memory_without_end() -> None:
    board = Board()
    for number in range(MOST_CAMERAS + 10):
        board.take(camera_of(STATUS | {"camera": f"c{number}"}))
        board.take(node_of({"schema": "visaged.node-status/1", "node": f"n{number}", "state": "online"}))
    assert len(board.cameras) == len(board.nodes) == MOST_CAMERAS


@pytest.mark.parametrize("value", [-1, 1e308, 10**30, "many", None, True, [1]])
def test_numbers_that_are_none_are_not_shown(value: object) -> None:
    board = Board()
    board.take(camera_of(STATUS | {"tracks": value, "analysed_fps": value, "width": value, "height": value}))
    row = board.cameras["door"]
    assert (row.faces, row.shape) == (0, "")
    assert row.fps in (None, 1.0)
