"""Bodies have a least rate and a share of the memory; forms are read in bounded steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

import pytest
from fastapi import Request
from pydantic import ValidationError

from visaged.daemon.http import uploads
from visaged.daemon.http.problems import Problem
from visaged.daemon.http.settings import HttpSettings
from visaged.daemon.http.uploads import read_body, read_picture
from visaged.daemon.http.wire.forms import only_file
from visaged.daemon.http.wire.memory import OVERDUE_S, BodyMemory

_Result = TypeVar("_Result")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(scene: Coroutine[Any, Any, _Result]) -> _Result:
    async def bounded() -> _Result:
        async with asyncio.timeout(30):
            return await scene

    return asyncio.run(bounded())


def request(pieces: AsyncIterator[bytes], headers: dict[str, str] | None = None) -> Request:
    """A request whose body comes as an iterator says."""

    async def receive() -> dict[str, Any]:
        piece = await anext(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": fields}, receive)


async def at_once(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def dripping(clock: Clock, bytes_s: float, size: int, then: Callable[[], None] = lambda: None) -> Any:
    for _ in range(size // 100):
        clock.now += 100 / bytes_s
        await asyncio.sleep(0.001)
        yield bytes(100)
    then()


async def never() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.Event().wait()


async def problem_of(reading: Coroutine[Any, Any, Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        await reading
    return caught.value


def test_a_body_below_the_least_rate_is_ended_and_one_above_is_not() -> None:
    clock = Clock()
    slow = run(problem_of(read_body(request(dripping(clock, 1000, 100_000)), 200_000, clock=clock)))
    assert (slow.status, slow.kind) == (HTTPStatus.REQUEST_TIMEOUT, "slow-body")
    assert 10 < clock.now < 20
    clock = Clock()
    assert len(run(read_body(request(dripping(clock, 5000, 100_000)), 200_000, clock=clock))) == 100_000


def test_a_silent_client_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_BODY_SILENCE_S", 0.02)
    assert run(problem_of(read_body(request(never()), 100))).kind == "slow-body"


def test_a_body_that_is_too_large_is_refused_before_its_end() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)

    assert run(problem_of(read_body(request(endless()), 5000))).kind == "body-too-large"
    declared = request(never(), {"content-length": "5001"})
    assert run(problem_of(read_body(declared, 5000))).kind == "body-too-large"


def test_the_bytes_of_all_bodies_are_bounded_and_given_back() -> None:
    async def scene() -> None:
        memory = BodyMemory(1000)
        with memory.upload() as first, memory.upload() as second:
            first.add(600)
            second.add(400)
            with pytest.raises(Problem) as full:
                second.add(1)
            assert full.value.status == HTTPStatus.SERVICE_UNAVAILABLE
            assert full.value.headers == {"Retry-After": "1"}
            with memory.upload() as third:
                assert (await problem_of(read_body(request(at_once(b"x")), 100, third))).kind == "overloaded"
        with memory.upload() as fourth:
            fourth.add(1000)

    run(scene())


def test_bodies_that_are_slow_give_way_to_others_and_whole_ones_do_not() -> None:
    async def scene() -> None:
        clock = Clock()
        memory = BodyMemory(1000, clock)

        async def upload(pieces: AsyncIterator[bytes], busy: asyncio.Event) -> str:
            try:
                with memory.upload() as one:
                    await read_body(request(pieces), 2000, one, clock)
                    await busy.wait()
            except Problem as problem:
                return problem.kind
            return "answered"

        async def stuck() -> AsyncIterator[bytes]:
            yield bytes(400)
            await asyncio.Event().wait()

        busy = asyncio.Event()
        whole = asyncio.create_task(upload(at_once(bytes(300)), busy))
        await asyncio.sleep(0.01)
        clock.now += 1
        slow = [asyncio.create_task(upload(stuck(), busy))]
        await asyncio.sleep(0.01)
        # While it may still be quick, the newcomer is refused.
        clock.now += OVERDUE_S - 1
        assert await upload(at_once(bytes(400)), busy) == "overloaded"
        clock.now += 1
        quick = asyncio.create_task(upload(at_once(bytes(700)), busy))
        assert await slow[0] == "overloaded"
        busy.set()
        assert await whole == await quick == "answered"
        with memory.upload() as last:
            last.add(1000)

    run(scene())


def test_the_memory_holds_the_largest_picture() -> None:
    with pytest.raises(ValidationError, match="make it at least 30"):
        HttpSettings(max_bodies_mb=29, max_body_mb=20)
    HttpSettings(max_bodies_mb=30, max_body_mb=20)


FORM = "multipart/form-data; boundary=x"


def part(name: str, data: bytes, filename: str | None = None, boundary: str = "x") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\nContent-Type: image/x\r\n\r\n'
    return head.encode() + data + b"\r\n"


PICTURE = b"\x00\r\n--\r\n--y\r\n\r\n-" * 1000


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (FORM, part("f", PICTURE, "a.jpg") + b"--x--\r\n"),
        (FORM, part("f", PICTURE, "a.jpg") + b"--x--"),
        (FORM, b"preamble\r\n" + part("f", PICTURE, "a.jpg") + b"--x--\r\nepilogue"),
        (FORM, part("a", b"text") + part("f", PICTURE, "a.jpg") + part("b", b"") + b"--x--\r\n"),
        (FORM, part("f", PICTURE, "").replace(b"--x\r\n", b"--x \t\r\n") + b"--x--\r\n"),
        ('multipart/form-data; charset=utf-8; BOUNDARY="a b"', part("f", PICTURE, "a", "a b") + b"--a b--\r\n"),
        (
            FORM,
            b"--x\r\ncontent-type: image/jpeg\r\ncontent-disposition:form-data;name=f;filename*=UTF-8''a\r\n\r\n"
            + PICTURE + b"\r\n--x--",
        ),
    ],
)  # fmt: skip
def test_the_file_of_a_form(kind: str, form: bytes) -> None:
    assert run(only_file(kind, form)) == PICTURE
    assert run(read_picture(request(at_once(form[:100], form[100:]), {"content-type": kind}), 100_000)) == PICTURE


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("multipart/form-data", part("f", PICTURE, "a") + b"--x--"),
        ("multipart/form-data; boundary=", part("f", PICTURE, "a") + b"--x--"),
        ("multipart/form-data; boundary=" + "x" * 80, part("f", PICTURE, "a", "x" * 80)),
        (FORM, b""),
        (FORM, b"garbage"),
        (FORM, b"--x--"),
        (FORM, b"--x\r\n\r\n\r\n--x--"),
        (FORM, part("f", PICTURE, "a")[:-2]),
        (FORM, part("f", PICTURE, "a").replace(b"name=\"f\"; ", b"") + b"--x--"),
        (FORM, part("a", b"text") + b"--x--"),
        (FORM, part("f", PICTURE, "a") + part("g", PICTURE, "b") + b"--x--"),
        (FORM, b"".join(part(f"f{number}", b"") for number in range(20)) + part("f", b"a", "a") + b"--x--"),
        (FORM, part("a", bytes(1_000_001)) + part("f", b"a", "a") + b"--x--"),
        (FORM, b"--x\r\nA: " + b"b" * 5000 + b"\r\n\r\n\r\n--x--"),
        (FORM, b"--xyz\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n\r\n--x--"),
    ],
)  # fmt: skip
def test_forms_that_are_wrong(kind: str, form: bytes) -> None:
    problem = run(problem_of(only_file(kind, form)))
    assert (problem.status, problem.kind) == (HTTPStatus.BAD_REQUEST, "bad-multipart")


def test_a_long_form_lets_others_have_their_turns() -> None:
    async def scene() -> None:
        searching = asyncio.create_task(only_file(FORM, part("f", b"\r\n--" * 5_000_000, "a") + b"--x--"))
        turns = 0
        while not searching.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 20_000_000 / 262_144

    run(scene())
