"""The HTTP server: uvicorn's, with connections that are hardened against clients that are slow, silent, or too many.

What uvicorn's own connections do not do, and those of `wire` do:

- A client cannot hold up the others: what it sends is parsed in small steps, and the steps of all connections are
  shared out among the turns of the event loop (`wire.turns`). Bodies in tiny chunks are refused.
- What follows a request that was answered before its end is not parsed; the answer says `Connection: close`.
- A client that connects and sends nothing, or its headers a byte at a time, is cut off.
- A client that does not read its answer, or very slowly, is cut off.
- The number of open connections is bounded, in all and for an address of another machine; those that are silent give
  way to new ones, and some are kept for this machine and for questions about health (`wire.seats`).
- Headers are bounded (16 KiB, 100 lines), and what cannot be parsed is answered like other errors, and logged at a
  limited rate.
- TLS handshakes have a time limit, and count as connections. TLS settings come from outside.

Heads are parsed by h11, which is strict.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from visaged.daemon.http.sockets import Listening
from visaged.daemon.http.wire.connection import Connection, Service
from visaged.daemon.http.wire.limits import Limits
from visaged.daemon.http.wire.seats import Seats
from visaged.daemon.http.wire.turns import Turns
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

_HANDSHAKE_S = 10.0
_BACKLOG = 512


class Server(uvicorn.Server):
    """Serves an application on sockets that listen already.

    Args:
        app: The application.
        limits: Limits of each connection, and on their number.
        metrics: Counts connections.
        listener: Name of the listener in metrics.
        tls: Context for HTTPS; None for HTTP.
        turns: Shares the event loop out, also with other servers in it; None for this server alone.
        closing: Called when the server begins to shut down, to end answers that would go on for ever.
        behind_front: Whether all requests come through a server in front that says truly who the client is.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        listener: str = "http",
        tls: ssl.SSLContext | None = None,
        turns: Turns | None = None,
        closing: Callable[[], None] = lambda: None,
        behind_front: bool = False,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,  # uvicorn then loads none of its own
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                forwarded_allow_ips="*" if behind_front else None,
                timeout_graceful_shutdown=1,
            )
        )
        self._limits = limits
        self._tls = tls
        self._turns = turns or Turns()
        self._closing = closing
        self._cut = {
            cause: metrics.http_cut.labels(listener, cause) for cause in ("slow", "unread", "too_many", "malformed")
        }
        metrics.http_connections.labels(listener).set_function(lambda: len(self.server_state.connections))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        timeouts: dict[str, Any] = {}
        if self._tls is not None:
            timeouts = {"ssl_handshake_timeout": _HANDSHAKE_S}
        await self.lifespan.startup()
        too_many = self._cut["too_many"].inc
        seats = Seats(self._limits.connections, self._limits.connections_each, too_many)
        # `loaded_app` takes the client's address from a proxy on this machine.
        service = Service(
            self.config.loaded_app, self._limits, self.server_state, seats, self._turns, self._cut, LimitedLog(log)
        )
        self.servers = [
            await loop.create_server(
                lambda: Connection(service),
                sock=Listening(listener, seats.take, too_many),
                ssl=self._tls,
                backlog=_BACKLOG,
                **timeouts,
            )
            for listener in sockets or []
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End answers without an end, then wait a little for all others."""
        self._closing()
        await super().shutdown(sockets)
