"""The ASGI application of a replica: each request goes to the node beside it, or, where that cannot, to another's.

Networks, keys, limits and errors stay those of the nodes' daemons. A request goes on to another replica where its node
is away, or has refused it for want of a place (503); never once a part of an answer was sent. That takes the whole
body, which is kept while there is room for it.

A daemon refuses pictures beyond `http.max_waiting`, and this application requests beyond a multiple of that; so Serve's
own queue, whose refusals have no problem details, is hardly ever reached.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from http import HTTPStatus
from typing import Protocol

from fastapi import Request
from starlette.types import Receive, Scope, Send

from visaged.daemon.fleet.pictures.body import Body, ClientGone, Room
from visaged.daemon.fleet.pictures.door import Answer, Asking, Away, Malformed
from visaged.daemon.fleet.pictures.doors import API
from visaged.daemon.fleet.pictures.heads import Head, head_of
from visaged.daemon.fleet.pictures.paths import Paths
from visaged.daemon.http.problems import Problem, answer, shown_path

_TRIES = 3
"""Most other replicas that are asked where the node is away. One that is full hands on to one: if all are full, more
would only multiply the load."""
_REST_S = 10.0
"""Longest time in seconds for the rest of a body that its node has refused for want of a place."""

_LOOK_S = 2.0
"""Longest time in seconds for a node to say whether it is ready. One that starts has doors already, and is silent."""

_READY = Head(b"GET", b"/readyz", ((b"host", b"localhost"), (b"connection", b"close")))


class Peers(Protocol):
    """The other replicas."""

    def ask(self, door: str, head: Head, body: bytes) -> contextlib.AbstractAsyncContextManager[Answer | None]:
        """Ask one of them, which asks its own node alone; None if that could not answer."""
        ...


class Front:
    """The application.

    Args:
        doors: The doors of the node beside it, by name.
        paths: Says by which door a request goes.
        peers: The other replicas.
        most: Most requests at a time.
        most_passed: Most requests at a time that wait for other replicas. Less than `most`, so that replicas that wait
            for each other always have places left to answer.
        keep_bytes: Most bytes of bodies that are kept, in sum.
        is_ready: Whether the node counts as ready before the first look at it.
    """

    def __init__(
        self,
        doors: Mapping[str, Asking],
        paths: Paths,
        peers: Peers,
        most: int,
        most_passed: int,
        keep_bytes: int,
        is_ready: bool = True,
    ) -> None:
        self._doors = doors
        self._paths = paths
        self._peers = peers
        self._most = most
        self._most_passed = most_passed
        self._room = Room(keep_bytes)
        self._busy = 0
        self._passed = 0
        self._is_ready = is_ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            try:
                await self._http(scope, receive, send)
            except Problem as problem:
                await answer(problem, Request(scope))(scope, receive, send)
            except ClientGone:
                pass
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def pass_on(self, door: str, head: Head, body: bytes) -> AsyncIterator[Answer | None]:
        """Ask the node for another replica; yields its answer, or None if it cannot answer."""
        if not self._is_ready or self._busy >= self._most:
            yield None
            return
        self._busy += 1
        try:
            async with self._doors[door].ask(head, _once(body)) as found:
                yield None if found.status == HTTPStatus.SERVICE_UNAVAILABLE else found
        except Away:
            self._is_ready = False
            yield None
        except Malformed:
            yield None
        finally:
            self._busy -= 1

    async def look(self) -> None:
        """Ask the node whether it is ready. Until the next time, requests go to others first if it is not."""
        try:
            async with asyncio.timeout(_LOOK_S), self._doors[API].ask(_READY, _once(b"")) as found:
                self._is_ready = found.status == HTTPStatus.OK
        except (Away, TimeoutError):
            self._is_ready = False

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = self._paths.door(scope)
        if door is None:
            detail = (
                f"there is nothing at {shown_path(scope['path'])}: only single pictures are served here, all else by "
                "the nodes themselves"
            )
            raise Problem(HTTPStatus.NOT_FOUND, "not-found", detail)
        if self._busy >= self._most:
            raise _overloaded("too many requests are in progress; try again")
        body = Body(receive, self._room)
        self._busy += 1
        try:
            await self._answer(door, head_of(scope), body, send)
        except Malformed as error:
            raise Problem(HTTPStatus.BAD_REQUEST, "malformed-request", f"this is not HTTP/1.1 ({error})") from None
        finally:
            body.release()
            self._busy -= 1

    async def _answer(self, door: str, head: Head, body: Body, send: Send) -> None:
        was_ready = self._is_ready
        if was_ready:
            try:
                async with self._doors[door].ask(head, body.pieces()) as found:
                    is_full = found.status == HTTPStatus.SERVICE_UNAVAILABLE
                    if not (is_full and await self._answered_elsewhere(1, door, head, body, send)):
                        await _tell(found, send)
                    return
            except Away:
                self._is_ready = False  # until `look` finds it again
        if await self._answered_elsewhere(_TRIES, door, head, body, send):
            return
        data = None if was_ready else await body.whole()
        if data is not None:  # one that is not ready may still do what nobody else can
            with contextlib.suppress(Away):
                async with self._doors[door].ask(head, _once(data)) as found:
                    await _tell(found, send)
                    return
        raise _overloaded("no node can answer now; try again")

    async def _answered_elsewhere(self, tries: int, door: str, head: Head, body: Body, send: Send) -> bool:
        """Have another replica answer, and return whether one did."""
        if self._passed >= self._most_passed:
            return False
        self._passed += 1
        try:
            async with asyncio.timeout(_REST_S):
                data = await body.whole()
            if data is None:
                return False
            for _ in range(tries):
                async with self._peers.ask(door, head, data) as found:
                    if found is not None:
                        await _tell(found, send)
                        return True
        except TimeoutError:
            return False
        finally:
            self._passed -= 1
        return False


async def _tell(found: Answer, send: Send) -> None:
    await send({"type": "http.response.start", "status": found.status, "headers": found.headers})
    async for piece in found.pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _once(data: bytes) -> AsyncIterable[bytes]:
    yield data


async def _live(receive: Receive, send: Send) -> None:
    """Answer the questions of ASGI's lifespan: there is nothing to start or to end."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _overloaded(detail: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", detail, {"Retry-After": "1"})
