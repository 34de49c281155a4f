"""A small MQTT broker inside the daemon (amqtt), so that the first try needs nothing else installed."""

from __future__ import annotations

import asyncio
import logging
import threading

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

log = logging.getLogger(__name__)


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
        for noisy in ("amqtt", "transitions"):
            logging.getLogger(noisy).setLevel(logging.ERROR)

    def run(self, stopping: threading.Event) -> None:
        """Serve until `stopping` is set; `ready` is set when it listens, or when it cannot and `failure` says why."""
        asyncio.run(self._serve(stopping))

    async def _serve(self, stopping: threading.Event) -> None:
        listener = ListenerConfig(type=ListenerType.TCP, bind=self._bind, max_connections=100)
        plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        broker = Broker(BrokerConfig(listeners={"default": listener}, plugins=plugins))
        try:
            await broker.start()
        except Exception as error:
            self.failure = error
            return
        finally:
            self.ready.set()
        while not stopping.is_set():
            await asyncio.sleep(0.1)
        await broker.shutdown()
