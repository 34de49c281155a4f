"""The API of events on a history that a test fills, without a daemon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple

import httpx
import orjson
from fastapi import FastAPI
from starlette.types import Message

from tests.support.history_bench import Bench
from visaged.daemon.api.viewers import Viewers
from visaged.daemon.events.api import install_events
from visaged.daemon.http import problems
from visaged.daemon.http.head import HeadAsGet
from visaged.daemon.http.settings import HttpSettings
from visaged.models.manifest import Head

HEADS = {
    head.name: head
    for head in (
        Head(name="age", kind="number", output="", memory_s=0),
        Head(name="gender", kind="binary", output="", labels=["male", "female"]),
        Head(name="emotion", kind="classes", output="", labels=["calm", "happy", "sad"]),
        Head(name="glasses", kind="classes", output="", labels=["none", "glasses"]),
        Head(name="head_pose", kind="angles", output=""),
    )
}


class View:
    """Cameras whose state a test sets."""

    def __init__(self, *names: str) -> None:
        self.documents = {name: {"camera": name, "state": "streaming", "tracks": 0, "age_ms": 1} for name in names}

    def cameras(self) -> list[dict[str, Any]]:
        return [dict(document) for document in self.documents.values()]


class EventsApi:
    """The API, and a client of it."""

    def __init__(self, bench: Bench, most_viewers: int = 4, settings: HttpSettings | None = None) -> None:
        self.bench = bench
        self.view = View("door", "yard")
        self.viewers = Viewers(most_viewers, bench.metrics)
        app = FastAPI()
        problems.install(app)
        app.add_middleware(HeadAsGet)
        self.ask = install_events(app, self.view, bench.history, self.viewers, settings or HttpSettings(), HEADS)
        self.app = app
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080")

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=headers)

    async def delete(self, path: str, **headers: str) -> httpx.Response:
        """Deletes, while the history writes as it does in its own thread."""
        task = asyncio.create_task(self.client.delete(path, headers=headers))
        while not task.done():
            await asyncio.sleep(0.01)
            if self.bench.history.store is not None:
                self.bench.write(0.01)
        return await task

    @contextlib.asynccontextmanager
    async def listening(self, path: str = "/v1/events/stream", **headers: str) -> AsyncIterator[Listening]:
        """Listens until the block ends."""
        listening = Listening()
        plain, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": plain, "raw_path": plain.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 5),
        }  # fmt: skip
        listening.task = asyncio.create_task(self.app(scope, listening.receive, listening.send))
        try:
            yield listening
        finally:
            listening.gone.set()
            listening.taking.set()
            with contextlib.suppress(asyncio.CancelledError):
                await listening.task


class Told(NamedTuple):
    """What a listener was told."""

    event: str
    id: str
    data: Any


class Listening:
    """The listener's side of an answer without an end."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.status = 0
        self.text = b""
        self.over = False
        self.gone = asyncio.Event()
        self.taking = asyncio.Event()
        self.taking.set()
        self._changed = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.taking.wait()
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"")
        self.over = message["type"] == "http.response.body" and not message.get("more_body", False)
        self._changed.set()

    @property
    def told(self) -> list[Told]:
        """All that it was told so far."""
        told = []
        for block in self.text.decode().split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if "event" in fields:
                told.append(Told(fields["event"], fields.get("id", ""), orjson.loads(fields["data"])))
        return told

    def of(self, event: str) -> list[Told]:
        """All that it was told of a kind."""
        return [one for one in self.told if one.event == event]

    async def until(self, event: str, count: int) -> list[Told]:
        """Wait until it was told so often of a kind."""
        async with asyncio.timeout(10):
            while len(self.of(event)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.of(event)

    async def end(self) -> None:
        """Wait until the answer is over, one way or another."""
        async with asyncio.timeout(10):
            await asyncio.wait([self.task])


Test = Callable[[EventsApi], Coroutine[Any, Any, None]]


def talk(bench: Bench, test: Test, **options: Any) -> None:
    """Runs a test with the API, in an event loop."""

    async def run() -> None:
        api = EventsApi(bench, **options)
        try:
            await test(api)
        finally:
            api.ask.close()

    asyncio.run(run())
