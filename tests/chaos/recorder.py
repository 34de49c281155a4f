"""An MQTT 3.1.1 broker that writes every PUBLISH down before it acknowledges it, and can die at any byte."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.chaos.record import Record
from tests.support.mqtt_bytes import CONNACK, PINGRESP
from tests.support.returning import hang_up, listen, lone_port

_CONNECT, _PUBLISH, _PINGREQ, _DISCONNECT = 1, 3, 12, 14
_PATIENCE_S = 20.0


@dataclass(slots=True)
class _Trap:
    """Where the broker dies next: at a byte that it receives, or at an acknowledgement.

    Attributes:
        at: `byte`, `record` (written down, not acknowledged), `within` (a part of the acknowledgement was sent) or
            `acknowledged`.
        left: Bytes or acknowledgements until then.
    """

    at: str
    left: int


@dataclass(eq=False, slots=True)
class _Session:
    socket: socket.socket
    number: int
    client: bytes = b""
    opened_s: float = 0.0
    data: bytearray = field(default_factory=bytearray)
    is_deaf: bool = False
    is_over: bool = False

    def packets(self) -> Iterator[tuple[int, bytes]]:
        """Yield the first byte and the body of every packet that is complete."""
        while len(self.data) >= 2:
            length = shift = 0
            start = 1
            while True:
                if start == len(self.data):
                    return
                digit = self.data[start]
                length |= (digit & 127) << shift
                start, shift = start + 1, shift + 7
                if digit < 128:
                    break
            if len(self.data) < start + length:
                return
            first, body = self.data[0], bytes(self.data[start : start + length])
            del self.data[: start + length]
            yield first, body


class _Died(Exception):
    pass


class RecordingBroker:
    """The broker; it listens from the start.

    Args:
        record: Takes every message.
        rng: Chooses between FIN and RST.

    Attributes:
        port: TCP port on loopback, kept over deaths.
    """

    host = "127.0.0.1"

    def __init__(self, record: Record, rng: random.Random) -> None:
        self._record = record
        self._rng = rng
        self._changed = threading.Condition()
        self._sessions: list[_Session] = []
        self._connections = 0
        self._trap: _Trap | None = None
        self._frozen = self._closed = False
        self._refusals: list[bytes] = []  # what the next clients are sent in place of CONNACK
        self._listener: socket.socket | None = None
        self.port = lone_port()
        self.up()

    @property
    def faults(self) -> dict[str, Callable[[random.Random], None]]:
        """The faults by name; each returns when the broker is well again."""
        return {
            "dies at a byte": lambda rng: self._die_at("byte", rng.randrange(1, 6_000), rng),
            "dies before PUBACK": lambda rng: self._die_at("record", rng.randrange(1, 5), rng),
            "dies within PUBACK": lambda rng: self._die_at("within", rng.randrange(1, 5), rng),
            "dies after PUBACK": lambda rng: self._die_at("acknowledged", rng.randrange(1, 5), rng),
            "dies before CONNACK": self._refuse,
            "freezes": self._freeze,
            "loses a connection": lambda rng: self._go_deaf(),
        }

    def down(self) -> None:
        """Die now."""
        with self._changed:
            self._die()

    def up(self) -> None:
        """Come back on the same port."""
        listener = listen(self.port)
        with self._changed:
            self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True, name="recorder").start()

    def settle(self) -> None:
        """Do nothing: what was acknowledged is in the record."""

    def close(self) -> None:
        """End it."""
        with self._changed:
            self._closed, self._frozen = True, False
            self._die()

    def die_at(self, at: str, left: int) -> None:
        """Die at a byte (`byte`), or before, within or after an acknowledgement (`record`, `within`, `acknowledged`).

        Args:
            at: Where.
            left: How many bytes or acknowledgements from now; where so many do not come, it dies after some seconds.
        """
        with self._changed:
            self._trap = _Trap(at, left)
            if not self._changed.wait_for(lambda: self._listener is None, 5.0):
                self._die()

    def _die_at(self, at: str, left: int, rng: random.Random) -> None:
        self.die_at(at, left)
        time.sleep(rng.choice((0.0, rng.uniform(0.0, 1.5), rng.uniform(1.0, 4.0))))
        self.up()

    def _refuse(self, rng: random.Random) -> None:
        """Die, and once back hang up on the first clients before they are accepted."""
        with self._changed:
            self._die()
            self._refusals = [rng.choice((b"", CONNACK[:2], b"\x20\x02\x00\x03")) for _ in range(rng.randrange(1, 3))]
        self.up()
        with self._changed:
            self._changed.wait_for(lambda: not self._refusals, _PATIENCE_S)
            self._refusals.clear()

    def _freeze(self, rng: random.Random) -> None:
        with self._changed:
            self._frozen = True
        time.sleep(rng.choice((rng.uniform(0.5, 4.0), rng.uniform(4.0, 12.0))))
        with self._changed:
            self._frozen = False
            self._changed.notify_all()

    def _go_deaf(self) -> None:
        """The connections that there are lead nowhere from now on, and nobody is told; new ones work."""
        with self._changed:
            connections = self._connections
            for session in self._sessions:
                session.is_deaf = True
            self._changed.wait_for(lambda: self._connections > connections, _PATIENCE_S)

    def _die(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for session in self._sessions:
            session.is_over = True
            hang_up(session.socket, reset=self._rng.random() < 0.5)
        self._sessions.clear()
        self._trap = None
        self._changed.notify_all()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(client,), daemon=True, name="recorder client").start()

    def _serve(self, client: socket.socket) -> None:
        with self._changed:
            if self._listener is None:
                hang_up(client, reset=True)
                return
            session = _Session(client, 0)
            self._sessions.append(session)
        with contextlib.suppress(OSError, _Died):
            while data := client.recv(65536):
                with self._changed:
                    self._changed.wait_for(lambda: not (self._frozen or session.is_deaf) or session.is_over)
                    if session.is_over:
                        break
                    self._take(session, data)
        with self._changed:
            session.is_over = True
            if session in self._sessions:
                self._sessions.remove(session)
        hang_up(client, reset=False)

    def _take(self, session: _Session, data: bytes) -> None:
        trap = self._trap
        dies = False
        if trap is not None and trap.at == "byte":
            dies, data = trap.left <= len(data), data[: trap.left]
            trap.left -= len(data)
        session.data += data
        for first, body in session.packets():
            self._handle(session, first, body)
        if dies:
            self._die()
            raise _Died

    def _handle(self, session: _Session, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == _CONNECT:
            self._connect(session, body)
        elif kind == _PUBLISH:
            self._publish(session, first, body)
        elif kind == _PINGREQ:
            session.socket.sendall(PINGRESP)
        elif kind == _DISCONNECT:
            raise _Died

    def _connect(self, session: _Session, body: bytes) -> None:
        if self._refusals:
            session.socket.sendall(self._refusals.pop())
            self._changed.notify_all()
            raise _Died
        session.client = body[10 : 12 + int.from_bytes(body[10:12], "big")]
        for other in [one for one in self._sessions if one.client == session.client and one is not session]:
            other.is_over = True
            self._sessions.remove(other)
            hang_up(other.socket, reset=False)
        self._connections += 1
        session.number, session.opened_s = self._connections, time.monotonic()
        session.socket.sendall(CONNACK)
        self._changed.notify_all()

    def _publish(self, session: _Session, first: int, body: bytes) -> None:
        end = 2 + int.from_bytes(body[:2], "big")
        topic, has_ack = body[2:end].decode(), bool(first >> 1 & 3)
        self._record.write(topic, body[end + 2 * has_ack :], session.number, session.opened_s)
        if not has_ack:
            return
        acknowledgement = b"\x40\x02" + body[end : end + 2]
        trap = self._trap
        if trap is not None and trap.at != "byte":
            trap.left -= 1
            if trap.left == 0:
                sent = {"record": 0, "within": self._rng.randrange(1, 4), "acknowledged": 4}[trap.at]
                with contextlib.suppress(OSError):
                    session.socket.sendall(acknowledgement[:sent])
                self._die()
                raise _Died
        session.socket.sendall(acknowledgement)
