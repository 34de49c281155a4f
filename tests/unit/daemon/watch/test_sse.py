"""Server-Sent Events are parsed as browsers parse them, however they are cut, and within bounds."""

from __future__ import annotations

import pytest

from visaged.daemon.watch.http import target_of
from visaged.daemon.watch.news import MOST_BYTES
from visaged.daemon.watch.sse import EventParser, ServerEvent

STREAM = (
    b": hello\r\nretry: 2000\r\n\r\n"
    b"id: 7-1\nevent: face\ndata: {\ndata:  }\n\n"
    b"data\rdata:x\r\r"
    b"event: camera\n\n"  # without data it is no event
    b": alive\n\n"
    b"id: 7-2\ndata: last\n\n"
)
EVENTS = [("face", b"{\n }", "7-1"), ("message", b"\nx", "7-1"), ("message", b"last", "7-2")]


def parsed(*pieces: bytes) -> list[ServerEvent | None]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000])
def test_a_stream_is_parsed_however_it_is_cut(length: int) -> None:
    found = parsed(*(STREAM[at : at + length] for at in range(0, len(STREAM), length)))
    assert [(one.name, one.data, one.number) for one in found if one is not None] == EVENTS
    assert found[0] is not None
    assert found[0].retry_s == 2.0


def test_an_event_that_is_too_large_is_left_out_and_the_next_one_is_not() -> None:
    piece = b"x" * 10_000
    one_line = [b"data: ", *[piece] * (MOST_BYTES // 5_000), b"\n\n"]
    many_lines = [b"data: " + piece + b"\n"] * (MOST_BYTES // 5_000)
    for large in (one_line, [*many_lines, b"\n"]):
        found = parsed(*large, b"data: small\n\n")
        assert found[0] is None
        assert found[-1] is not None
        assert found[-1].data == b"small"
        assert len(found) == 2


def test_a_stream_without_ends_of_lines_takes_no_memory() -> None:
    parser = EventParser()
    for _ in range(200):
        assert list(parser.feed(b"x" * 100_000)) == []
    assert len(parser._left) <= MOST_BYTES + 100_000


@pytest.mark.parametrize("number", [b"a\0b", b"\xff", b"x" * 300, b"\x1b[0m"])
def test_an_id_that_could_not_be_a_header_is_not_kept(number: bytes) -> None:
    (event,) = parsed(b"id: " + number + b"\ndata: x\n\n")
    assert event is not None
    assert event.number is None


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("https://cams.example/visaged/", "https://cams.example/visaged"),
    ],
)
def test_the_url_of_a_daemon(given: str, meant: str) -> None:
    assert target_of(given) == meant


@pytest.mark.parametrize(
    "given", ["", "ftp://x", "http://", "http://x:99999", "http://[::1", "http://u:secret@x", "http://x/?key=secret"]
)
def test_what_is_no_url_of_a_daemon_is_said_without_repeating_it(given: str) -> None:
    with pytest.raises(ValueError) as error:
        target_of(given)
    assert "secret" not in str(error.value)
