"""The link to an MQTT broker: connects, stays connected for ever, and says what the broker has.

paho's network thread owns the socket. What matters of paho here, each with a test:

- `publish()` with QoS 1 while offline returns an error code and queues the message all the same: never publish again.
- Messages in flight when the connection breaks are sent again by paho itself.
- Its queue of unwritten packets has no bound of its own, so the number of unwritten messages is counted here.
- It holds its own locks while it calls back, so a callback only notes and wakes, and never publishes.
"""

from __future__ import annotations

import logging
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import BaseModel, ConfigDict, Field, model_validator

log = logging.getLogger(__name__)


class TlsConfig(BaseModel):
    """TLS to the broker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_file: Path | None = None
    """Certificates of the authorities that may sign the broker's; null for the system's."""
    cert_file: Path | None = None
    """This client's certificate, where the broker asks for one."""
    key_file: Path | None = None
    """Its key."""

    @model_validator(mode="after")
    def _complete(self) -> TlsConfig:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: give both or none")
        return self

    def context(self) -> ssl.SSLContext:
        """Return the TLS settings; raises `OSError` or `ssl.SSLError` when a file is not what it should be."""
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


class LinkConfig(BaseModel):
    """A broker and how to reach it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """The broker's name or address."""
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    """The broker's port; 8883 is usual with TLS."""
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    """MQTT version."""
    client_id: str | None = None
    """MQTT client id; null for `visaged-` and the node's name."""
    tls: TlsConfig | None = None
    """Null for no TLS."""
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    """A broker that is silent for 1.5 times this is lost."""
    reconnect_most_s: Annotated[int, Field(ge=1, le=3600)] = 30
    """Longest wait between two tries to connect; it starts at 1 s and doubles."""


class BrokerLink:
    """A connection that comes back by itself.

    Args:
        config: Where to.
        client_id: How this client calls itself.
        username: For the broker; None for none.
        password: For the broker.
        will: Topic and payload of the last will, retained.
        on_change: Called from paho's thread when the connection comes or goes or something is acknowledged; must only
            wake somebody.

    Raises:
        OSError: A TLS file cannot be used.
    """

    def __init__(
        self,
        config: LinkConfig,
        client_id: str,
        username: str | None,
        password: str | None,
        will: tuple[str, bytes],
        on_change: Callable[[], None],
    ) -> None:
        self._config = config
        self._on_change = on_change
        self._connected = threading.Event()
        self._settled: deque[int] = deque()
        self._trouble = ""
        self.connections = 0
        protocol = MQTTProtocolVersion.MQTTv5 if config.protocol == "5" else MQTTProtocolVersion.MQTTv311
        client = self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol)
        if username is not None:
            client.username_pw_set(username, password)
        if config.tls is not None:
            client.tls_set_context(config.tls.context())
        client.will_set(will[0], will[1], qos=1, retain=True)
        client.reconnect_delay_set(1, config.reconnect_most_s)
        client.on_connect = self._came
        client.on_connect_fail = self._failed
        client.on_disconnect = self._went
        client.on_publish = self._published

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client."""
        return self._connected.is_set()

    @property
    def trouble(self) -> str:
        """Why there is no connection; empty when there is one."""
        return "" if self.connected else self._trouble

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self._config.host}:{self._config.port}"

    def start(self) -> None:
        """Begin to connect, in paho's thread."""
        self._client.connect_async(self._config.host, self._config.port, self._config.keepalive_s)
        self._client.loop_start()

    def send(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> int:
        """Hand a message over and return its number, which `settled` gives back once the broker has it.

        With QoS 0 it is settled when written to the socket; written or not, it is gone when the link breaks.
        """
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def settled(self) -> list[int]:
        """Return the numbers of messages settled since the last call."""
        numbers = []
        while self._settled:
            numbers.append(self._settled.popleft())
        return numbers

    def close(self, timeout_s: float) -> None:
        """Disconnect; waits no longer than `timeout_s`, though paho may hang in a connect."""
        self._client.disconnect()
        thread = threading.Thread(target=self._client.loop_stop, name="mqtt-close", daemon=True)
        thread.start()
        thread.join(timeout_s)

    def _came(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._say(f"the broker {self.address} refused the login: {reason}")
            return
        self.connections += 1
        self._trouble = ""
        log.info("connected to the MQTT broker %s", self.address)
        self._connected.set()
        self._on_change()

    def _failed(self, client: Any, userdata: Any) -> None:
        # paho calls this while it handles the exception, which it does not pass on.
        error = sys.exc_info()[1]
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = f"its certificate was not accepted: {error.verify_message}"
        elif isinstance(error, ssl.SSLError):
            reason = f"TLS failed: {error.reason or error}"
        elif isinstance(error, TimeoutError):
            reason = "it did not answer in time"
        else:
            reason = getattr(error, "strerror", None) or str(error)
        self._say(f"the MQTT broker {self.address} cannot be reached: {reason}")

    def _went(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if self._connected.is_set():
            self._connected.clear()
            if reason.is_failure:
                self._say(f"the connection to the MQTT broker {self.address} was lost: {reason}")
        self._on_change()

    def _published(self, client: Any, userdata: Any, number: int, reason: ReasonCode, properties: Any) -> None:
        if reason is not None and reason.is_failure:
            self._say(f"the MQTT broker {self.address} refused a message: {reason}")
        self._settled.append(number)
        self._on_change()

    def _say(self, text: str) -> None:
        # The same trouble at every try is one line.
        if text != self._trouble:
            log.warning("%s; trying again for ever", text)
        self._trouble = text
