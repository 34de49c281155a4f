"""Servers on 127.0.0.1 that are no camera, or a strange one."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

Talk = Callable[[socket.socket, threading.Event], None]
"""What a server does with a connection until it returns or the event is set; the connection is closed after it."""


@contextlib.contextmanager
def tcp_server(talk: Talk) -> Iterator[int]:
    """Serve connections one after another; yield the port."""
    stopping = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)

    def serve() -> None:
        while not stopping.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(0.5)
                    talk(connection, stopping)

    thread = threading.Thread(target=serve, name="odd server", daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stopping.set()
        thread.join(10.0)
        listener.close()


def says(text: bytes) -> Talk:
    """Say something at once, then listen for ever."""

    def talk(connection: socket.socket, stopping: threading.Event) -> None:
        connection.sendall(text)
        stopping.wait(60.0)

    return talk


def answers(text: bytes) -> Talk:
    """Answer the first request, and close."""

    def talk(connection: socket.socket, stopping: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(text)

    return talk


def drips(connection: socket.socket, stopping: threading.Event) -> None:
    """Send a byte every half second: no timeout for silence ever strikes."""
    while not stopping.wait(0.5):
        connection.sendall(b"R")


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """Yield a port whose queue of connections is full: what connects there waits, as for a host that is gone."""
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(20):
            client = clients.enter_context(socket.socket())
            client.settimeout(0.5)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        else:
            raise AssertionError("the listener's queue does not fill")
        yield listener.getsockname()[1]


class HttpServer(http.server.ThreadingHTTPServer):
    """Answers every GET with `answer(handler)`, each in a thread of its own."""

    daemon_threads = True

    def __init__(self, answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@contextlib.contextmanager
def http_server(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Yield the server's URL."""
    with HttpServer(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="http server", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10.0)


def begin(handler: http.server.BaseHTTPRequestHandler, content_type: str, status: int = 200) -> None:
    """Send the headers of an answer without a length."""
    handler.send_response(status)
    handler.send_header("Content-Type", content_type)
    handler.end_headers()
