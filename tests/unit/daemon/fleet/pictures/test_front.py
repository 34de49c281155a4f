"""The application in front of a node: over real sockets, with servers that do as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from visaged.daemon.fleet.pictures.door import Answer, BrokenOff, Door
from visaged.daemon.fleet.pictures.doors import API, folder_of, make_folder
from visaged.daemon.fleet.pictures.front import Front
from visaged.daemon.fleet.pictures.heads import Head, head_of
from visaged.daemon.fleet.pictures.paths import Paths, Served

PATIENCE_S = 5.0
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nfull"
HERE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Request-ID: 1\r\nDate: today\r\n\r\nhere"
UNREADY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def says(answer: bytes, read_first: bool = True) -> Talk:
    """A node that gives one answer to everything, after the whole request or at once."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if read_first and b"content-length" in head.lower():
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.write(answer)
        writer.close()

    return talk


class Other:
    """Another replica, which keeps what it was asked."""

    def __init__(self, *answers: bytes | None) -> None:
        self.bodies: list[bytes] = []
        self._answers = list(answers)

    @contextlib.asynccontextmanager
    async def ask(self, door: str, head: Head, body: bytes) -> AsyncIterator[Answer | None]:
        self.bodies.append(body)
        found = self._answers.pop(0)

        async def pieces() -> AsyncIterator[bytes]:
            assert found is not None
            yield found

        yield None if found is None else Answer(200, [], pieces())


def scope(path: str = "/v1/faces", **more: Any) -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"content-length", b"6")]
    return {
        "type": "http", "method": "POST", "scheme": "http", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": headers, "client": ("192.0.2.1", 5), "root_path": "",
    } | more  # fmt: skip


class Client:
    """Sends a body in pieces, and keeps the answer."""

    def __init__(self, pieces: Iterable[bytes] = (b"abc", b"def")) -> None:
        self._left = list(pieces)
        self.messages: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self._left:
            return {"type": "http.disconnect"}
        piece = self._left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._left)}

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])


def served(kit: bool = True, oss: bool = False) -> Paths:
    return Paths(Served(kit, oss, ("oss.example",), {"pictures.example": "album"}))


@contextlib.asynccontextmanager
async def node(folder: Path, talk: Talk | None) -> AsyncIterator[Door]:
    """The door of a node; of one that is not there, if it does not talk."""
    async with contextlib.AsyncExitStack() as stack:
        if talk is not None:
            await stack.enter_async_context(await asyncio.start_unix_server(talk, str(folder / API)))
        yield Door(folder / API, PATIENCE_S)


def asked(
    folder: Path, talk: Talk | None, other: Other, client: Client, keep: int = 100, most: int = 5, look: bool = False
) -> Client:
    """A client that has asked."""

    async def ask() -> None:
        async with node(folder, talk) as door:
            front = Front({API: door}, served(), other, most, 5, keep)
            if look:
                await front.look()
            await front(scope(), client.receive, client.send)

    asyncio.run(asyncio.wait_for(ask(), 30))
    return client


def test_the_nodes_answer_goes_back_without_what_serve_adds(tmp_path: Path) -> None:
    client = asked(tmp_path, says(HERE), Other(), Client())
    assert (client.status, client.body) == (200, b"here")
    assert client.messages[0]["headers"] == [(b"content-length", b"4")]


@pytest.mark.parametrize("talk", [None, says(b""), says(b"", read_first=False)], ids=["away", "ends", "ends early"])
def test_where_the_node_gives_no_answer_another_gets_the_whole_body(tmp_path: Path, talk: Talk | None) -> None:
    other = Other(None, b"there")
    client = asked(tmp_path, talk, other, Client())
    assert (client.status, client.body) == (200, b"there")
    assert other.bodies == [b"abcdef", b"abcdef"]


def test_a_full_node_has_one_other_answer_and_else_refuses_itself(tmp_path: Path) -> None:
    other = Other(b"there")
    assert asked(tmp_path, says(FULL, read_first=False), other, Client()).body == b"there"
    assert other.bodies == [b"abcdef"]
    full = Other(None)
    client = asked(tmp_path, says(FULL), full, Client())
    assert (client.status, client.body, len(full.bodies)) == (503, b"full", 1)
    assert (b"retry-after", b"1") in client.messages[0]["headers"]


def test_a_body_too_large_to_be_kept_reaches_its_node_and_no_other(tmp_path: Path) -> None:
    assert asked(tmp_path, says(HERE), Other(), Client(), keep=4).body == b"here"
    assert asked(tmp_path, says(FULL), Other(), Client(), keep=4).body == b"full"


def test_where_nobody_answers_the_client_is_told_to_come_again(tmp_path: Path) -> None:
    client = asked(tmp_path, None, Other(None, None, None), Client())
    assert client.status == 503
    assert (b"retry-after", b"1") in client.messages[0]["headers"]
    assert orjson.loads(client.body)["type"] == "urn:visaged:problem:overloaded"


def test_a_node_that_is_not_ready_is_asked_only_if_no_other_can_answer(tmp_path: Path) -> None:
    async def unready(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(UNREADY if b"/readyz" in head else HERE)
        writer.close()

    assert asked(tmp_path, unready, Other(b"there"), Client(), look=True).body == b"there"
    (tmp_path / API).unlink(missing_ok=True)
    assert asked(tmp_path, unready, Other(None, None, None), Client(), look=True).body == b"here"


def test_a_node_that_is_silent_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visaged.daemon.fleet.pictures.front._LOOK_S", 0.01)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    assert asked(tmp_path, silent, Other(b"there"), Client(), look=True).body == b"there"


def test_too_many_requests_are_refused_before_their_bodies_are_read(tmp_path: Path) -> None:
    client = asked(tmp_path, says(HERE), Other(), Client(), most=0)
    assert client.status == 503
    assert orjson.loads(client.body)["instance"] == "/v1/faces"


def test_a_client_that_hangs_up_ends_the_nodes_request(tmp_path: Path) -> None:
    ended: list[bytes] = []

    async def until_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            ended.append(await reader.read(-1))
        writer.close()

    class Gone(Client):
        async def receive(self) -> dict[str, Any]:
            found = await super().receive()
            return found | {"more_body": True}

    client = asked(tmp_path, until_the_end, Other(), Gone())
    assert client.messages == []


def test_an_answer_that_breaks_off_is_cut_off(tmp_path: Path) -> None:
    broken = says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    client = Client()
    with pytest.raises(BrokenOff):
        asked(tmp_path, broken, Other(), client)
    assert client.messages[-1].get("more_body")


def test_a_replica_answers_others_from_its_own_node_alone(tmp_path: Path) -> None:
    async def statuses(talk: Talk | None, most: int = 5) -> list[int | None]:
        async with node(tmp_path, talk) as door:
            front = Front({API: door}, served(), Other(), most, 5, 100)
            head = head_of(scope())
            return [None if one is None else one.status async for one in front.pass_on(API, head, b"abcdef")]

    assert asyncio.run(statuses(says(HERE))) == [200]
    (tmp_path / API).unlink(missing_ok=True)
    assert asyncio.run(statuses(says(FULL))) == [None]
    (tmp_path / API).unlink(missing_ok=True)
    assert asyncio.run(statuses(None)) == [None]
    assert asyncio.run(statuses(says(HERE), most=0)) == [None]


def test_a_malformed_head_is_the_clients_fault(tmp_path: Path) -> None:
    async def ask() -> Client:
        client = Client()
        async with node(tmp_path, says(HERE)) as door:
            two = scope(headers=[(b"host", b"a"), (b"host", b"b")])
            await Front({API: door}, served(), Other(), 5, 5, 100)(two, client.receive, client.send)
        return client

    assert asyncio.run(ask()).status == 400


def test_what_is_not_of_the_pictures_is_not_served(tmp_path: Path) -> None:
    async def ask(path: str) -> int:
        client = Client()
        front = Front({}, served(), Other(), 5, 5, 100)
        await front(scope(path), client.receive, client.send)
        return client.status

    for path in ("/", "/metrics", "/v1/cameras", "/v1/facesx", "/v1/reload"):
        assert asyncio.run(ask(path)) == 404


def test_which_door_a_request_takes() -> None:
    def door(paths: Paths, path: str, host: bytes = b"localhost") -> str | None:
        return paths.door(scope(path, headers=[(b"host", host)]))

    with_oss, without = served(oss=True), served(kit=False)
    assert [door(with_oss, path) for path in ("/v1/faces", "/prod/face-detection", "/album/a.jpg")] == [
        "api.sock", "api.sock", "oss.sock"
    ]  # fmt: skip
    assert door(with_oss, "/v1/faces", b"album.oss.example:8000") == "oss.sock"
    assert door(with_oss, "/a.jpg", b"pictures.example") == "oss.sock"
    assert door(without, "/v1/faces") == "api.sock"
    assert door(without, "/face_detection") is None
    assert door(without, "/album/a.jpg") is None


def test_a_head_goes_on_with_the_clients_address_and_without_what_clients_say_of_it() -> None:
    headers = [
        (b"Host", b"fleet.example"), (b"X-Forwarded-For", b"10.0.0.1"), (b"X-Forwarded-Host", b"evil"),
        (b"Forwarded", b"for=10.0.0.1"), (b"X-Real-IP", b"10.0.0.1"), (b"Via", b"1.1 proxy"),
        (b"Connection", b"X-API-Key, close, x-odd"), (b"X-Odd", b"1"), (b"X-API-Key", b"k"),
        (b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"6"), (b"Expect", b"100-continue"),
        (b"Authorization", b"Bearer k"),
    ]  # fmt: skip
    head = head_of(scope("/v1/f%20aces", headers=headers, query_string=b"a=%2F&b", scheme="https"))
    assert (head.method, head.target) == (b"POST", b"/v1/f%20aces?a=%2F&b")
    assert head.headers == (
        (b"host", b"fleet.example"), (b"x-api-key", b"k"), (b"authorization", b"Bearer k"),
        (b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-proto", b"https"), (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
    )  # fmt: skip
    assert (b"x-forwarded-for", b"unknown") in head_of(scope(client=None)).headers


def test_doors_lie_in_a_folder_of_their_user(tmp_path: Path) -> None:
    folder = folder_of("campus", "ab" * 28)
    assert folder != folder_of("campus", "cd" * 28)
    assert folder != folder_of("shops", "ab" * 28)
    assert len(str(folder / API)) < 100
    make_folder(tmp_path / "doors" / "one")
    make_folder(tmp_path / "doors" / "one")
    (tmp_path / "doors").chmod(0o755)
    with pytest.raises(PermissionError, match="user alone"):
        make_folder(tmp_path / "doors" / "one")
