"""A small MQTT broker inside the daemon (amqtt), so that the first try needs nothing else installed.

What it is good for, as tested: a handful of clients, some hundred messages a second, MQTT 3.1.1. A message with QoS 0
goes out with QoS 1 to who subscribed so. A subscriber with QoS 1 that does not acknowledge within 5 s loses the
message. Nothing is kept on disk. amqtt has no bound for what waits for a client that does not read, and its end waits
for such clients without a bound; both bounds are put around it here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

log = logging.getLogger(__name__)

# How long the socket of a client may be full before the client is disconnected.
_PATIENCE_S = 5.0
# Bytes beyond what the kernel takes; with less asyncio writes on (its default), so more of them show that others wait.
_FULL_BYTES = 16 * 1024


class EmbeddedBroker:
    """The broker and the event loop that it runs on.

    Args:
        host: Loopback address to listen on.
        port: To listen on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._bind = f"{host}:{port}"
        self.ready = threading.Event()
        self.failure: Exception | None = None
        # What amqtt says of clients that come and go wrong, with tracebacks, is of no use here; what ends it is raised.
        for noisy in ("amqtt", "transitions"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)

    def run(self, stopping: threading.Event) -> None:
        """Serve until `stopping` is set; `ready` is set when it listens, or when it cannot and `failure` says why."""
        asyncio.run(self._serve(stopping))

    async def _serve(self, stopping: threading.Event) -> None:
        # Tasks of amqtt that fail because their client went away have nobody who asks for their result.
        asyncio.get_running_loop().set_exception_handler(lambda loop, details: log.debug("amqtt: %s", details))
        listener = ListenerConfig(type=ListenerType.TCP, bind=self._bind, max_connections=100)
        plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        broker = _Broker(BrokerConfig(listeners={"default": listener}, plugins=plugins))
        try:
            await broker.start()
        except Exception as error:
            self.failure = error
            if isinstance(error.__cause__, OSError):
                reason = os.strerror(error.__cause__.errno or 0)
                self.failure = OSError(f"cannot listen on {self._bind}: {reason}; set mqtt.port to a free one")
            return
        finally:
            self.ready.set()
        while not stopping.is_set():
            await asyncio.sleep(0.1)
            broker.check()
        ending = asyncio.create_task(broker.shutdown())
        await asyncio.wait({ending}, timeout=0.7)
        broker.hang_up()
        await asyncio.wait({ending}, timeout=0.5)


class _Broker(Broker):  # type: ignore[misc]
    """amqtt's broker with an eye on its connections."""

    def __init__(self, config: BrokerConfig) -> None:
        super().__init__(config)
        self._writers: dict[asyncio.StreamWriter, float] = {}  # and since when it is full

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Serve a client to the end of its connection."""
        self._writers[writer] = float("inf")
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:
            del self._writers[writer]
            writer.transport.abort()  # what could be said was said; the rest would wait for a client that does not read

    def check(self) -> None:
        """Disconnect clients that do not read; raises `RuntimeError` when the broker does not work any more."""
        now_s = asyncio.get_running_loop().time()
        for writer, since_s in self._writers.items():
            is_full = writer.transport.get_write_buffer_size() > _FULL_BYTES
            self._writers[writer] = min(since_s, now_s) if is_full else float("inf")
            if now_s - self._writers[writer] > _PATIENCE_S:
                log.warning("the embedded MQTT broker disconnects %s, which does not read", _peer(writer))
                writer.transport.abort()
        if self._broadcast_task is None or self._broadcast_task.done():
            raise RuntimeError("the embedded MQTT broker does not pass on messages any more")

    def hang_up(self) -> None:
        """Close every connection at once."""
        for writer in self._writers:
            writer.transport.abort()


def _peer(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if peer else "a client"
