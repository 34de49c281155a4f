"""The HTTP server with its guard before a small application, in a thread beside a test."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import httpx
from fastapi import FastAPI, Request, Response
from starlette.responses import PlainTextResponse, StreamingResponse

from tests.support.waiting import until
from visaged.daemon.api.docs import install_docs
from visaged.daemon.http import problems, request_log
from visaged.daemon.http.access import KeyGuard, is_unknown
from visaged.daemon.http.keys import hash_key, make_key
from visaged.daemon.http.problems import Problem
from visaged.daemon.http.request_log import RequestLog
from visaged.daemon.http.server import Limits, Server
from visaged.daemon.http.settings import ApiKeySettings, HttpSettings
from visaged.pipelines.runtime.metrics import Metrics

PATIENCE_S = 30.0
KEY, OTHER = make_key(), make_key()
MUCH = bytes(range(250)) * 80_000
"""20 MB: more than any socket takes at once."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def small_app(gate: threading.Event) -> FastAPI:
    """What stands behind the guard: an echo, something that takes long, something that goes wrong."""
    app = FastAPI(title="small", version="1", docs_url=None)
    problems.install(app)
    install_docs(app, with_keys=True)

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @app.get("/readyz")
    async def readyz(request: Request) -> dict[str, bool]:
        return {"details": not is_unknown(request)}

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse("metrics")

    @app.get("/id")
    def in_a_thread() -> Response:
        return PlainTextResponse(request_log.request_id.get())

    @app.get("/wait")
    async def wait() -> Response:
        while not gate.is_set():
            await asyncio.sleep(0.005)
        return PlainTextResponse("waited")

    @app.get("/stream")
    async def stream() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            while not gate.is_set():
                await asyncio.sleep(0.005)
            yield b"last"

        return StreamingResponse(pieces())

    @app.get("/much")
    async def much() -> Response:
        return Response(MUCH)

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("boom")

    @app.get("/own-id")
    async def own_id() -> Response:
        return Response(headers={"X-Request-ID": "inner"})

    return app


class Running:
    """A server in a thread.

    Args:
        keys: Of `HttpSettings`; by default one named shop, for `KEY`.
        limits: Of the server.
        tls: Of the server.
        refuse: Of the guard.
        http: More of `HttpSettings`.
    """

    def __init__(
        self,
        keys: list[ApiKeySettings] | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        refuse: Callable[[Problem, Request], Response] = problems.answer,
        app: Any = None,
        **http: Any,
    ) -> None:
        self.gate, self.clock, self.metrics = threading.Event(), Clock(), Metrics()
        settings = HttpSettings(keys=[key("shop", KEY)] if keys is None else keys, **http)
        guarded = KeyGuard(app or small_app(self.gate), settings, self.metrics, refuse, self.clock)
        logged = RequestLog(guarded, self.metrics, settings.access_log)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.server = Server(logged, limits or Limits(), self.metrics, tls=tls)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.address[1]}", timeout=PATIENCE_S, trust_env=False)

    def __enter__(self) -> Self:
        self.thread.start()
        until(lambda: self.server.started, PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self.client.close()
        self.server.should_exit = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def raw(self) -> socket.socket:
        return socket.create_connection(self.address, PATIENCE_S)

    def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes as they are; return status, headers and body of an answer with a length."""
        with self.raw() as connection:
            connection.sendall(request)
            return answer(connection)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"visaged_{name}", labels) or 0.0


def key(name: str, text: str, **limits: Any) -> ApiKeySettings:
    return ApiKeySettings(name=name, sha256=hash_key(text.encode()), **limits)


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = {}
        while line := file.readline().strip().decode("latin-1"):
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return status, headers, file.read(int(headers["content-length"]))


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def is_problem(response: httpx.Response, status: int, kind: str) -> str:
    assert response.status_code == status
    assert response.headers["content-type"] == problems.MEDIA_TYPE
    document = response.json()
    assert document["type"] == f"urn:visaged:problem:{kind}"
    return str(document["detail"])
