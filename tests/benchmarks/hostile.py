"""What clients that try to hold the daemon up do to the others: how long `/healthz` and a picture take meanwhile.

Each attack runs in a process of its own for some seconds, from this machine. Printed are the median, 99th percentile
and longest time of `/healthz`, asked 50 times a second on connections of their own, and of pictures, asked one after
another; `nobody` is the daemon alone, before and after. The attackers compute on the same cores, which is in the
figures.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from threading import Thread

from tests.benchmarks.daemon import percentile
from tests.benchmarks.pictures import picture, visaged

SECONDS = 6.0
ASK_EVERY_S = 0.02
HEAD = "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n{length}\r\n\r\n"
CHUNKED, LONG = "Transfer-Encoding: chunked", "Content-Length: 19000000"

Attack = Callable[[socket.socket], None]


def flood(line: str, piece: bytes, path: str = "/v1/faces") -> Attack:
    """Return an attack that sends a head, and the same piece of a body again and again."""

    def attack(connection: socket.socket) -> None:
        connection.sendall(HEAD.format(path=path, length=line).encode())
        while True:
            connection.sendall(piece)

    return attack


def one_byte(connection: socket.socket) -> None:
    """Send a head, and a byte of the body every 5 s."""
    connection.sendall(HEAD.format(path="/v1/faces", length=LONG).encode())
    while True:
        connection.sendall(b"x")
        time.sleep(5)


def silence(connection: socket.socket) -> None:
    """Send nothing."""
    connection.settimeout(None)
    connection.recv(1)


def query(connection: socket.socket) -> None:
    """Ask with a parameter of 15 kB of blanks."""
    head = HEAD.format(path=f"/v1/faces?attributes=a{'+' * 15_000}b", length="Content-Length: 0")
    connection.sendall(head.encode())
    while connection.recv(65536):
        pass


ATTACKS: dict[str, tuple[int, Attack]] = {
    "chunks of one byte": (1, flood(CHUNKED, b"1\r\nx\r\n" * 40_000)),
    "chunks of one byte, 4 connections": (4, flood(CHUNKED, b"1\r\nx\r\n" * 40_000)),
    "chunks of one byte, 32 connections": (32, flood(CHUNKED, b"1\r\nx\r\n" * 40_000)),
    "chunks of one byte after a refusal": (4, flood(CHUNKED, b"1\r\nx\r\n" * 40_000, "/nothing")),
    "a body of 19 MB": (4, flood(LONG, bytes(65_536))),
    "a byte in 5 s, 16 connections": (16, one_byte),
    "nothing, 600 connections": (600, silence),
    "15 kB of blanks in a parameter": (4, query),
}


def _attack(port: int, count: int, attack: Attack) -> None:
    """Attack on so many connections at a time until the process is ended."""

    def again() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as connection:
                attack(connection)
            time.sleep(count / 600)  # what is cut off comes again, but there is no flood of new connections

    for _ in range(count):
        Thread(target=again, daemon=True).start()
    time.sleep(3600)


def _ask(port: int, request: bytes) -> tuple[float, int]:
    """Return the milliseconds that an answer took, and its status."""
    began = time.perf_counter()
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(request)
        while piece := connection.recv(65536):
            answer += piece
    return 1000 * (time.perf_counter() - began), int(answer.split()[1])


def _measure(port: int, jpeg: bytes) -> str:
    """Return the row of a table: times of health, then of pictures."""
    health = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head = f"POST /v1/faces HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    found: dict[str, list[tuple[float, int]]] = {"health": [], "picture": []}
    end = time.monotonic() + SECONDS

    def ask(name: str, request: bytes, every_s: float) -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                found[name].append(_ask(port, request))
            except (OSError, IndexError):
                found[name].append((1000 * (time.monotonic() - began), 0))
            time.sleep(max(0.0, every_s - (time.monotonic() - began)))

    threads = [
        Thread(target=ask, args=("health", health, ASK_EVERY_S)),
        Thread(target=ask, args=("picture", head.encode() + jpeg, 0.2)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cells = []
    for answers in found.values():
        times = [took for took, _ in answers] * 2
        good = sum(status == 200 for _, status in answers)
        others = sorted({status for _, status in answers} - {200})
        share = f"{good}/{len(answers)}{f', also {others}' if others else ''}"
        cells.append(f"{statistics.median(times):7.1f} {percentile(times, 99):7.1f} {max(times):7.1f} ({share})")
    return "   ".join(cells)


def main() -> None:
    """Print the table."""
    jpeg = picture()
    context = multiprocessing.get_context("fork")
    with visaged() as (port, _):
        print(f"  {'milliseconds, and answers with 200':36} {'/healthz: median, 99 %, longest':37}   a picture")
        print(f"  {'nobody':36} {_measure(port, jpeg)}", flush=True)
        for name, (count, attack) in ATTACKS.items():
            attacker = context.Process(target=_attack, args=(port, count, attack), daemon=True)
            attacker.start()
            time.sleep(1)
            print(f"  {name:36} {_measure(port, jpeg)}", flush=True)
            attacker.kill()
            attacker.join()
            time.sleep(3)
        print(f"  {'nobody':36} {_measure(port, jpeg)}", flush=True)


if __name__ == "__main__":
    main()
