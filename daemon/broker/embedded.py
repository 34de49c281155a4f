"""A small MQTT broker inside the daemon, so that the first try needs nothing else installed.

It speaks MQTT 3.1.1 with QoS 0 and 1 (a message with QoS 2 is taken, and passed on with QoS 1), retained messages and
last wills, on loopback and without logins. Nothing is kept on disk, and no session outlives its connection.

It is written here because the broker libraries for Python have no bounds: amqtt waits for ever for clients that do not
send CONNECT, ignores keep-alives, and keeps packets, filters, retained messages and messages for slow clients without
limit. A guard in front of it would have to read every packet, which is most of a broker. Here, any client can use up to
`Limits` and no more; tested for some dozens of clients and some hundred messages a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import threading
from typing import Any

from visaged.daemon.broker.connection import Connection
from visaged.daemon.broker.exchange import Exchange
from visaged.daemon.broker.limits import Limits
from visaged.daemon.broker.places import Places
from visaged.daemon.broker.probe import BrokerProbe
from visaged.daemon.broker.turns import Turns
from visaged.pipelines.runtime.progress import beat
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

_CHECK_S = 0.1
# asyncio accepts as many connections before it reads those that came earlier. `Limits.strangers` is twice as many, so
# that a flood of connections does not close the daemon's own before its CONNECT was read.
_BACKLOG = 100
_FAREWELL_S = 0.7
_DEFAULT = Limits()


class EmbeddedBroker:
    """The broker and the event loop that it runs on.

    Args:
        host: Loopback address to listen on.
        port: Port to listen on.
        prefix: First part of the daemon's topics, where only the daemon may publish.
        limits: What clients may use.
        devices: Beginning of the daemon's topics for Home Assistant, where only the daemon may publish; None if there
            are none.

    Attributes:
        login: User name and password of the daemon's own clients; made anew for every broker.
        probe: Finds out whether the broker works; runs in a thread of its own, once the broker is ready.
        ready: Set when the broker listens, or has failed to.
        failure: Why the broker cannot listen; None if it can, or if that is not known yet.
    """

    def __init__(
        self, host: str, port: int, prefix: str, limits: Limits = _DEFAULT, devices: str | None = None
    ) -> None:
        self._address = host, port
        self.login = ("visaged", secrets.token_urlsafe(32))
        self.probe = BrokerProbe(self._address, self.login)
        self.ready = threading.Event()
        self.failure: Exception | None = None
        self._limits = limits
        self._exchange = Exchange(prefix, limits, devices)
        self._places = Places(self._exchange, limits, self.login)
        self._odd = LimitedLog(log, logging.ERROR)

    def run(self, stopping: threading.Event) -> None:
        """Serve until `stopping` is set; sets `ready` when it listens, or has set `failure` because it cannot."""
        asyncio.run(self._serve(stopping))

    async def _serve(self, stopping: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._report)
        host, port = self._address
        turns = Turns(self._limits, loop.call_later)

        def connect() -> Connection:
            return Connection(self._places, self._exchange, turns, self._limits, loop.time, loop.call_later)

        try:
            server = await loop.create_server(connect, host, port, backlog=_BACKLOG)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            self.failure = OSError(f"cannot listen on {host}:{port}: {reason}; set mqtt.port to a free one")
            return
        finally:
            self.ready.set()
        while not stopping.is_set():
            beat()
            await asyncio.sleep(_CHECK_S)
            for connection in self._places:
                connection.check()
        server.close()
        await self._say_farewell()

    async def _say_farewell(self) -> None:
        """Close all connections; those that do not take what was sent to them in time are cut."""
        for connection in self._places:
            connection.close(with_will=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                while len(self._places):
                    await asyncio.sleep(0.01)
        for connection in self._places:
            connection.abort()
        await asyncio.sleep(0)  # lets the ends of the connections be noted

    def _report(self, loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        """Log an exception in a callback, which asyncio would log without a limit."""
        self._odd("the embedded MQTT broker: %s: %r", details.get("message"), details.get("exception"))
