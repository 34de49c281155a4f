"""Bodies and heads of requests, decoded in small steps; those that are made to cost time are refused."""

from __future__ import annotations

import random

import pytest

from visaged.daemon.http.wire.framing import Body, ChunkedBody, Malformed, Reads, SizedBody, body_of
from visaged.daemon.http.wire.heads import HEAD_BYTES, HEAD_LINES, HeadReader


def chunked(data: bytes, size: int, extension: bytes = b"") -> bytes:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(one), extension, one) for one in pieces) + b"0\r\n\r\n"


def taken(body: Body, coming: bytes, at_a_time: int = 1 << 20) -> tuple[bytes, bytes, int]:
    """Feed a body; return what it holds, what is left over, and the number of steps."""
    received, held, steps = bytearray(), [], 0
    for start in range(0, len(coming), at_a_time):
        received += coming[start : start + at_a_time]
        while received and not body.over:
            before = len(received)
            held.append(body.take(received))
            steps += 1
            if len(received) == before:
                break
    assert body.over
    return b"".join(held), bytes(received), steps


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 7, 1000, 1 << 20])
@pytest.mark.parametrize("size", [64, 100, 5000])
def test_bodies_come_out_as_they_went_in(size: int, at_a_time: int) -> None:
    data = random.Random(0).randbytes(5_500)
    next_request = b"GET / HTTP/1.1\r\n"
    assert taken(SizedBody(len(data)), data + next_request, at_a_time)[:1] == (data,)
    for extension in (b"", b";a=b", b';name="text"', b"  "):
        body, rest, _ = taken(ChunkedBody(), chunked(data, size, extension) + next_request, at_a_time)
        assert body == data
        assert next_request.startswith(rest)
    trailer = b"0\r\nExpires: never\r\nX-More:\r\n\r\n"
    assert taken(ChunkedBody(), chunked(data, size).removesuffix(b"0\r\n\r\n") + trailer, at_a_time)[0] == data


def test_a_body_without_bytes_is_over_at_once() -> None:
    assert SizedBody(0).over
    assert taken(ChunkedBody(), b"0\r\n\r\n") == (b"", b"", 1)
    assert taken(ChunkedBody(), b"000;x\r\nA: b\r\n\r\nrest")[1] == b"rest"


def test_a_step_takes_a_bounded_number_of_chunks_and_bytes() -> None:
    data = bytes(2_000_000)
    assert taken(SizedBody(len(data)), data)[2] >= len(data) / 65_536
    assert taken(ChunkedBody(), chunked(data, 65))[2] >= len(data) / 65 / 128
    assert taken(ChunkedBody(), chunked(data, 1_000_000))[2] >= len(data) / 2 / 65_536


def all_of(body: Body, received: bytearray) -> None:
    while received:
        body.take(received)


@pytest.mark.parametrize("size", [1, 2, 16, 63])
@pytest.mark.parametrize("extension", [b"", b";" + b"x" * 200])
def test_bodies_in_tiny_chunks_are_refused_after_a_few_hundred(size: int, extension: bytes) -> None:
    received = bytearray(chunked(bytes(50_000), size, extension))
    with pytest.raises(Malformed, match="larger chunks"):
        all_of(ChunkedBody(), received)
    assert len(received) > 50_000 - 256 * 64


def test_a_large_chunk_does_not_pay_for_tiny_ones_without_end() -> None:
    received = bytearray(chunked(bytes(100_000), 100_000).removesuffix(b"0\r\n\r\n") + b"1\r\nx\r\n" * 100_000)
    with pytest.raises(Malformed, match="larger chunks"):
        all_of(ChunkedBody(), received)
    assert len(received) > 6 * 98_000


@pytest.mark.parametrize(
    "wrong",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x10\r\n",
        b"1_0\r\nx",
        b"\r\n",
        b" 5\r\nhello\r\n",
        b"5\nhello\r\n0\r\n\r\n" + bytes(300),
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r\r\n",
        b"f" * 17 + b"\r\n",
        b"5;" + b"a" * 300,
        b"5 ;a\r\nhello\r\n",
        b"5;a\0b\r\nhello\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n: empty\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\n" + b"a:\r\n" * 2000 + b"\r\n",
        b"0\r\na:" + b"x" * 300,
        b"0\r\na: b\r\n folded\r\n\r\n",
    ],
)
@pytest.mark.parametrize("at_a_time", [1, 1000])
def test_what_are_no_chunks_is_refused(wrong: bytes, at_a_time: int) -> None:
    with pytest.raises(Malformed):
        taken(ChunkedBody(), wrong, at_a_time)


LENGTH, ENCODING = (b"content-length", b"5"), (b"transfer-encoding", b"chunked")


def test_a_length_beside_chunks_is_refused() -> None:
    for headers in ([LENGTH, ENCODING], [ENCODING, LENGTH]):
        with pytest.raises(Malformed, match="both Content-Length and Transfer-Encoding"):
            body_of(headers, b"1.1")
    with pytest.raises(Malformed, match=r"HTTP/1\.0"):
        body_of([ENCODING], b"1.0")
    assert isinstance(body_of([ENCODING], b"1.1"), ChunkedBody)
    assert not body_of([LENGTH], b"1.0").over
    assert body_of([], b"1.1").over


def test_a_body_a_byte_at_a_time_is_refused_in_the_end() -> None:
    reads = Reads()
    for _ in range(1023):
        reads.count(1)
    with pytest.raises(Malformed, match="larger ones"):
        reads.count(1)
    others = Reads()
    for _ in range(2000):
        others.count(1448)


def head(lines: int, first: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n") -> bytes:
    return first + b"a:b\r\n" * (lines - 3) + b"\r\n"


@pytest.mark.parametrize("at_a_time", [1, 5, 100_000])
def test_a_head_is_found_however_it_comes(at_a_time: int) -> None:
    coming, received, reader = head(HEAD_LINES) + b"body", bytearray(), HeadReader()
    for start in range(0, len(coming), at_a_time):
        received += coming[start : start + at_a_time]
        found = reader.take(received)
        if found is not None:
            break
    assert found is not None
    assert found[1].target == b"/"
    assert b"body".startswith(received)


@pytest.mark.parametrize(
    "wrong",
    [
        head(HEAD_LINES + 1),
        head(20_000),
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * HEAD_BYTES,
        b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /?" + b"a&" * 100 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n b\r\n" * 100 + b"\r\n",
        b"\x16\x03\x01",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b" GET",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
    ],
)
def test_heads_that_are_none_or_too_long_are_refused(wrong: bytes) -> None:
    with pytest.raises(Malformed):
        HeadReader().take(bytearray(wrong))


def test_heads_one_behind_another_are_taken_one_by_one() -> None:
    received, reader = bytearray(head(4) * 3), HeadReader()
    for left in (2, 1, 0):
        assert reader.take(received) is not None
        assert len(received) == left * len(head(4))
    assert reader.take(received) is None
