"""Web servers on loopback that do as a test says, and names and routes that lead to them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpcore2

from visaged.daemon.fetch.errors import FetchError

Answer = Callable[["Visit"], None]
"""What a server does with a request; the connection is closed after it."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request.

    Attributes:
        line: Its first line.
        headers: By their names in lower case.
        connection: Where the answer goes.
        stopping: Set when the test is over.
    """

    line: str
    headers: dict[str, str]
    connection: socket.socket
    stopping: threading.Event

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def answer(self, status: str, body: bytes = b"", **headers: str) -> None:
        """Answer with a length; `Content_Type` stands for `Content-Type`."""
        fields = {"Content-Length": str(len(body))} | {name.replace("_", "-"): v for name, v in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)


def serves(body: bytes) -> Answer:
    """Answer 200 and a body."""
    return lambda visit: visit.answer("200 OK", body)


def redirects(location: str, status: str = "302 Found") -> Answer:
    """Answer with a redirect."""
    return lambda visit: visit.answer(status, Location=location)


def silent(visit: Visit) -> None:
    """Never answer."""
    visit.stopping.wait(20.0)


@dataclass(slots=True)
class WebServer:
    """A running server.

    Attributes:
        port: TCP port on loopback.
        visits: All requests so far.
        connections: How many there were, those without a request included.
        server_names: What clients that speak TLS asked for.
    """

    port: int
    visits: list[Visit] = field(default_factory=list)
    connections: int = 0
    server_names: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def web_server(
    answer: Answer | dict[str, Answer],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[WebServer]:
    """Serve every connection in a thread of its own, by one answer or by the request's path (else 404)."""
    stopping = threading.Event()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=50)
    listener.settimeout(0.05)
    server = WebServer(listener.getsockname()[1])
    if tls is not None:
        tls.sni_callback = lambda connection, name, context: server.server_names.append(name)
    threads: list[threading.Thread] = []

    def chosen(visit: Visit) -> Answer:
        if callable(answer):
            return answer
        return answer.get(visit.path.partition("?")[0], lambda visit: visit.answer("404 Not Found"))

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(10.0)
            with tls.wrap_socket(connection, server_side=True) if tls is not None else connection as stream:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = stream.recv(65536)
                    if not piece:
                        return
                    head += piece
                line, *fields = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
                pairs = [text.split(": ", 1) for text in fields]
                visit = Visit(line, {name.lower(): value for name, value in pairs}, stream, stopping)
                server.visits.append(visit)
                chosen(visit)(visit)

    def serve() -> None:
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                server.connections += 1
                threads.append(threading.Thread(target=talk, args=(connection,), daemon=True, name="web visit"))
                threads[-1].start()

    thread = threading.Thread(target=serve, name="web server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        stopping.set()
        for waited in [thread, *threads]:
            waited.join(10.0)
        listener.close()


class Names:
    """A resolver with names of its own: for each a list of answers, one a question, the last repeated.

    Attributes:
        asked: All questions.
    """

    def __init__(self, answers: dict[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(lists) for name, lists in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[IPv4Address | IPv6Address]:
        self.asked.append(host)
        if host not in self._answers:
            raise FetchError("unreachable", f"the name {host} cannot be looked up: it is not known here")
        answers = self._answers[host]
        return [ip_address(text) for text in (answers.pop(0) if len(answers) > 1 else answers[0])]


class Routes(httpcore2.AnyIOBackend):
    """A network in which public addresses lead to servers on loopback; others are dialled as they are.

    Attributes:
        dialled: All addresses and ports that connections were asked for.
    """

    def __init__(self, ports: dict[str, int] | None = None) -> None:
        self._ports = ports or {}
        self.dialled: list[tuple[str, int]] = []

    async def connect_tcp(self, host: str, port: int, *args: object, **kwargs: object) -> httpcore2.AsyncNetworkStream:
        self.dialled.append((host, port))
        if host in self._ports:
            host, port = "127.0.0.1", self._ports[host]
        return await super().connect_tcp(host, port, *args, **kwargs)  # type: ignore[arg-type]
