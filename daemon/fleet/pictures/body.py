"""The body of a request: handed on piece by piece, and kept, where there is room, to be sent a second time."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.types import Receive


class ClientGone(Exception):
    """The client hung up."""


class Room:
    """Bounds the bytes that are kept of all requests, for one event loop.

    Args:
        most_bytes: Most bytes.
    """

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def take(self, size: int) -> bool:
        """Keep some more bytes; returns whether there was room."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Keep some bytes no longer."""
        self._left += size


class Body:
    """The body of a request.

    Args:
        receive: Gives messages of ASGI.
        room: Bounds what is kept.
    """

    def __init__(self, receive: Receive, room: Room) -> None:
        self._receive = receive
        self._room = room
        self._kept: list[bytes] | None = []
        self._size = 0
        self._is_over = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what has not been taken yet, as it comes; raises `ClientGone`."""
        while not self._is_over:
            yield await self._next()

    async def whole(self) -> bytes | None:
        """Return all of the body once it is there; None if it was too large to be kept. Raises `ClientGone`."""
        while self._kept is not None and not self._is_over:
            await self._next()
        return None if self._kept is None else b"".join(self._kept)

    def release(self) -> None:
        """Keep nothing any more."""
        self._room.give_back(self._size)
        self._kept, self._size = None, 0

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        self._is_over = not message.get("more_body", False)
        if self._kept is not None:
            if self._room.take(len(piece)):
                self._kept.append(piece)
                self._size += len(piece)
            else:
                self.release()
        return piece
