"""A client for load: many connections from one process, cheap enough to leave the cores to the server."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Load:
    """What came of a load.

    Attributes:
        seconds: Latency of each good answer, from when it was due.
        refused: 503 answers that named a time to wait.
        failed: Everything else, as text.
    """

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: list[str] = field(default_factory=list)


class _Client:
    def __init__(self, port: int, path: str, body: bytes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._path, self._body = path, body

    def post(self, load: Load, due: float) -> float:
        """Send one picture; return the seconds that the server asks to wait."""
        try:
            self._connection.request("POST", self._path, self._body, {"Content-Type": "image/jpeg"})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            load.failed.append(repr(error))
            return 0.0
        wait = answer.getheader("Retry-After")
        if answer.status == 200:
            load.seconds.append(time.perf_counter() - due)
        elif answer.status == 503 and wait:
            load.refused += 1
            return float(wait)
        else:
            load.failed.append(f"{answer.status} {text[:200]!r}")
        return 0.0


def _run(load: Load, clients: list[threading.Thread]) -> Load:
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return load


def closed(port: int, path: str, body: bytes, clients: int, seconds: float) -> Load:
    """Keep `clients` connections busy: each sends its next picture when the last is answered, and waits if told to."""
    load, end = Load(), time.perf_counter() + seconds

    def work() -> None:
        client = _Client(port, path, body)
        while (now := time.perf_counter()) < end:
            time.sleep(min(client.post(load, now), max(0.0, end - time.perf_counter())))

    return _run(load, [threading.Thread(target=work) for _ in range(clients)])


def paced(port: int, path: str, body: bytes, due: list[float], clients: int) -> Load:
    """Send a picture at each time of `due` (seconds from now), whether or not earlier ones are answered.

    Latency counts from when a picture was due, so that waiting for a free connection is not left out.
    """
    load, began = Load(), time.perf_counter() + 0.1
    turn, waiting = threading.Lock(), iter(due)

    def work() -> None:
        client = _Client(port, path, body)
        while True:
            with turn:
                at = next(waiting, None)
            if at is None:
                return
            time.sleep(max(0.0, began + at - time.perf_counter()))
            client.post(load, began + at)

    return _run(load, [threading.Thread(target=work) for _ in range(clients)])
