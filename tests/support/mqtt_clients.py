"""The embedded broker and its clients without a network, in a time that only tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.support.mqtt_bytes import CONNACK, connect
from tests.unit.fakes import Clock
from visaged.daemon.broker.connection import Connection
from visaged.daemon.broker.exchange import Exchange
from visaged.daemon.broker.limits import Limits
from visaged.daemon.broker.places import Places
from visaged.daemon.broker.turns import Turns

LOGIN = ("visaged", "not a secret")
LIMITS = Limits()


class Socket(asyncio.Transport):
    """The client's end of a connection: it takes what is written, or does not read."""

    def __init__(self, broker: Broker) -> None:
        super().__init__({"peername": ("127.0.0.1", 5000)})
        self.heard = bytearray()
        self.is_deaf = self.is_paused = self.is_over = False
        self._broker = broker
        self.connection = Connection(
            broker.places, broker.exchange, broker.turns, broker.limits, broker.clock, broker.call_later
        )
        self.connection.connection_made(self)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None

    def write(self, data: Any) -> None:
        assert not self.is_over
        if self.is_deaf:
            self.connection.pause_writing()
        self.heard += data

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        if not self.is_deaf:
            self.abort()
        self.is_over = True

    def abort(self) -> None:
        self.is_over = True
        self._broker.lost(self)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def sends(self, *data: bytes) -> bytearray:
        """Sends to the broker, as far as it reads, and returns all that was heard from it since the last call."""
        for one in data:
            if not self.is_over:
                self.connection.data_received(one)
        self._broker.settle()
        heard, self.heard = self.heard, bytearray()
        return heard


class Broker:
    """A broker without a network, whose time only tests move."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.clock, self.limits = Clock(), limits
        self.exchange = Exchange("visaged", limits)
        self.places = Places(self.exchange, limits, LOGIN)
        self.turns = Turns(limits, self.call_later)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._lost: list[Socket] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        self._later.append((self.clock() + seconds, call))

    def lost(self, socket: Socket) -> None:
        if socket not in self._lost:
            self._lost.append(socket)
            self.call_later(0.0, lambda: socket.connection.connection_lost(None))

    def settle(self) -> None:
        """Does what is due now, to the end."""
        while due := [one for one in self._later if one[0] <= self.clock()]:
            self._later = [one for one in self._later if one not in due]
            for _, call in due:
                call()

    def passes(self, seconds: float) -> None:
        """Lets time pass: does what becomes due, and looks for deadlines four times a second."""
        for _ in range(int(seconds / 0.25)):
            check_s = self.clock() + 0.25
            while self._later and min(self._later, key=_due)[0] <= check_s:
                self.clock.now_s = max(self.clock(), min(self._later, key=_due)[0])
                self.settle()
            self.clock.now_s = check_s
            for connection in self.places:
                connection.check()
            self.settle()

    def socket(self) -> Socket:
        socket = Socket(self)
        self.settle()
        return socket

    def client(self, client_id: str = "client", **options: Any) -> Socket:
        socket = self.socket()
        assert socket.sends(connect(client_id, **options)) == CONNACK
        return socket

    def daemon(self, client_id: str = "visaged-node") -> Socket:
        return self.client(client_id, login=LOGIN)


def _due(one: tuple[float, Callable[[], None]]) -> float:
    return one[0]
