"""A small MQTT broker inside the daemon (amqtt), so that the first try needs nothing else installed.

Tested for a handful of clients, some hundred messages a second, and MQTT 3.1.1. A message published with QoS 0 is
delivered with QoS 1 to clients that subscribed with QoS 1. A subscriber with QoS 1 that does not acknowledge a message
within 5 s loses it. Nothing is kept on disk. amqtt buffers without bound for a client that does not read, and waits for
such clients without bound when it stops; this module adds both bounds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

log = logging.getLogger(__name__)

# Longest time in seconds that a client may leave its socket full before it is disconnected.
_PATIENCE_S = 5.0
# Bytes that asyncio buffers beyond the kernel's. It resumes writing below this (its default), so more bytes than this
# show that a write waits for the client.
_FULL_BYTES = 16 * 1024


class EmbeddedBroker:
    """The broker and the event loop that it runs on.

    Args:
        host: Loopback address to listen on.
        port: Port to listen on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._bind = f"{host}:{port}"
        self.ready = threading.Event()
        self.failure: Exception | None = None
        # amqtt logs useless tracebacks for clients that misbehave; errors that end the broker are raised.
        for noisy in ("amqtt", "transitions"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)

    def run(self, stopping: threading.Event) -> None:
        """Serve until `stopping` is set; sets `ready` when it listens, or has set `failure` because it cannot."""
        asyncio.run(self._serve(stopping))

    async def _serve(self, stopping: threading.Event) -> None:
        # Tasks of amqtt fail when their client goes away, and are not awaited; asyncio would log each as an error.
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
    """amqtt's broker, which disconnects clients that do not read."""

    def __init__(self, config: BrokerConfig) -> None:
        super().__init__(config)
        self._writers: dict[asyncio.StreamWriter, float] = {}  # since when the buffer is full; inf if it is not

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Serve a client to the end of its connection."""
        self._writers[writer] = float("inf")
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:
            del self._writers[writer]
            writer.transport.abort()  # what is still buffered would wait for a client that does not read

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
