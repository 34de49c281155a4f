"""The link to an MQTT broker: connects, stays connected for ever, and says what the broker has.

paho's network thread owns the socket. What matters of paho here, each with a test:

- `publish()` with QoS 1 while offline returns an error code and queues the message all the same: never publish again.
- After a reconnect it sends again what was in flight, but not before what others publish in that moment: an old status
  could follow a new one. So its queue is emptied at every connect, and the publisher sends again what has no answer.
- Its queue of unwritten packets has no bound of its own, so the publisher counts what is not settled.
- It holds its own locks while it calls back, so a callback only notes and wakes, and never publishes.
- What a server that speaks something else makes its parser raise ends its thread, and what a failed TLS handshake
  leaves behind is an open socket. Both are mended here.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
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
        context.sslsocket_class = _ClosingSocket
        if self.cert_file is not None:
            # A key with a password is refused; OpenSSL would ask the terminal for it and wait.
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        return context


class _ClosingSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which paho forgets."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class LinkConfig(BaseModel):
    """A broker and how to reach it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
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


class _Client(paho.Client):
    """paho's client, whose thread lives until it is stopped.

    Args:
        on_crash: Called from the thread with what it raised; returns whether to go on.
    """

    def __init__(self, on_crash: Callable[[Exception], bool], client_id: str, protocol: MQTTProtocolVersion) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol)
        self._on_crash = on_crash

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """What paho's thread runs."""
        try:
            while True:
                try:
                    return super().loop_forever(timeout, retry_first_connection)
                except Exception as error:
                    if not self._on_crash(error):
                        return MQTTErrorCode.MQTT_ERR_UNKNOWN
        finally:
            self._reset_sockets()  # paho leaves them to the garbage collector


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
        self._closing = threading.Event()
        self._settled: deque[tuple[int, bool]] = deque()
        self._trouble = ""
        self._refused = False
        self.connections = 0
        protocol = MQTTProtocolVersion.MQTTv5 if config.protocol == "5" else MQTTProtocolVersion.MQTTv311
        client = self._client = _Client(self._crashed, client_id, protocol)
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
        self._prepare()
        self._client.loop_start()

    def send(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> int:
        """Hand a message over and return its number, which `settled` gives back once the broker has it.

        With QoS 0 it is settled when written to the socket. What is not settled when the link breaks never will be.
        """
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def settled(self) -> list[tuple[int, bool]]:
        """Return the messages settled since the last call: their numbers, and whether the broker took them."""
        numbers = []
        while self._settled:
            numbers.append(self._settled.popleft())
        return numbers

    def close(self, timeout_s: float, orderly: bool) -> None:
        """End the connection; waits no longer than `timeout_s`, though paho may hang in a connect.

        Args:
            timeout_s: Longest wait for paho's thread.
            orderly: Take leave of the broker, which then forgets the last will; else just hang up.
        """
        self._closing.set()
        if orderly:
            self._client.disconnect()
        thread = threading.Thread(target=self._client.loop_stop, name="mqtt-close", daemon=True)
        thread.start()
        if orderly:
            thread.join(timeout_s)
        if thread.is_alive():
            # paho's thread goes on until everything is sent, which is never if the broker hangs.
            with contextlib.suppress(OSError, AttributeError):
                self._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
            thread.join(0.1 if orderly else timeout_s)

    def _prepare(self) -> None:
        self._client.connect_async(self._config.host, self._config.port, self._config.keepalive_s)

    def _crashed(self, error: Exception) -> bool:
        self._connected.clear()
        self._on_change()
        reason = f"{type(error).__name__}: {error}"
        log.debug("paho's thread raised", exc_info=error)
        self._say(f"the MQTT broker {self.address} cannot be used, is it one? {reason}")
        if self._closing.wait(self._config.reconnect_most_s):
            return False
        self._prepare()
        return True

    def _came(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._refused = True
            self._say(f"the MQTT broker {self.address} refused the login: {reason}")
            return
        self._client.drop_out_messages()
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
        connected, refused = self._connected.is_set(), self._refused
        self._connected.clear()
        self._refused = False
        if reason.is_failure and not self._closing.is_set():
            text = "it was closed" if str(reason) == "Unspecified error" else str(reason)
            if connected:
                self._say(f"the connection to the MQTT broker {self.address} was lost: {text}")
            elif not refused:
                self._say(f"the MQTT broker {self.address} did not accept the connection: {text}")
        self._on_change()

    def _published(self, client: Any, userdata: Any, number: int, reason: ReasonCode, properties: Any) -> None:
        # MQTT 3.1.1 has no way to refuse a message.
        self._settled.append((number, not reason.is_failure))
        self._on_change()

    def _say(self, text: str) -> None:
        # The same trouble at every try is one line.
        if text != self._trouble:
            log.warning("%s; trying again for ever", text)
        self._trouble = text
