"""The link to an MQTT broker: connects, stays connected for ever, and reports what the broker has.

paho's network thread owns the socket. What matters of paho here, each with a test:

- `publish()` with QoS 1 while offline returns an error code and queues the message all the same: never publish again.
- After a reconnect it sends again what was in flight, but not before what others publish in that moment: an old status
  could follow a new one. So its queue is emptied at every connect, and the output sends again what has no answer.
- Its queue of unwritten packets has no bound of its own, so the output counts what is not settled.
- It holds its own locks while it calls back, so a callback only notes and wakes, and never publishes.
- It forgets its growing pause between two tries at every accepted connection, however short that was; so the pause is
  counted here.
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
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from visaged.pipelines.outputs.mqtt.config import LinkConfig
from visaged.pipelines.outputs.mqtt.reports import Lost, Opened, Settled, limits_of
from visaged.pipelines.outputs.mqtt.times import Times

log = logging.getLogger(__name__)

_TIMES = Times()

# Reason codes of MQTT 5's DISCONNECT that have nothing to do with a message: keep-alive timeout, server busy, shutting
# down, taken over, administrative action, another server, moved, too many connections, connected for too long.
_NOT_FOR_A_MESSAGE = {0x8D, 0x89, 0x8B, 0x8E, 0x98, 0x9C, 0x9D, 0x9F, 0xA0}
_TAKEN_OVER = 0x8E
_NOT_AUTHORIZED, _NO_RETAIN, _NO_QOS = 0x87, 0x9A, 0x9B
# Connections in a row that end before they are accepted, before one is tried without the last will.
_MOST_UNACCEPTED = 3
# Kinds of trouble that are logged while no connection works.
_MOST_SAID = 20


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
        on_change: Called from paho's thread, which may hold paho's locks, when there are new `events`; must only wake
            somebody, who must not hold what it needs while calling this object.
        clock: Monotonic seconds.
        times: How patient it is.

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
        clock: Callable[[], float] = time.monotonic,
        times: Times = _TIMES,
    ) -> None:
        self._config = config
        self._times = times
        self._client_id = client_id
        self._on_change = on_change
        self._clock = clock
        self._connected = threading.Event()
        self._closing = threading.Event()
        self._events: deque[Opened | Settled | Lost] = deque()
        self._opened_s = 0.0
        self._trouble = ""
        self._said: set[str] = set()
        self._refused = False
        self._failures = 0
        self._unaccepted = 0
        self._will, self._will_qos, self._will_retain = will, 1, True
        self._with_will = True
        self._will_reported = False
        self.connections = 0
        protocol = MQTTProtocolVersion.MQTTv5 if config.protocol == "5" else MQTTProtocolVersion.MQTTv311
        client = self._client = _Client(self._crashed, client_id, protocol)
        if username is not None:
            client.username_pw_set(username, password)
        if config.tls is not None:
            client.tls_set_context(config.tls.context())
        # The output keeps within the broker's limit; paho must not hold anything back by one of its own.
        client.max_inflight_messages = 1000
        self._set_will()
        client.reconnect_delay_set(times.reconnect_s, config.reconnect_most_s)  # type: ignore[arg-type] # fractions work
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
        """Hand a message over and return its number, which `events` returns once the broker has it.

        With QoS 0 it is settled when written to the socket. What is not settled when the link breaks never will be.
        A broker of MQTT 3.1.1 acknowledges what it throws away, for example for a rule of its access control list; that
        cannot be noticed here. With MQTT 5 it refuses the message with a reason.
        """
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def packet_bytes(self, topic: str, payload: bytes, qos: int) -> int:
        """Return the size of the packet that carries a message."""
        rest = 2 + len(topic.encode()) + len(payload) + (2 if qos else 0) + (self._config.protocol == "5")
        digits = 1
        while rest >= 128**digits:
            digits += 1
        return 1 + digits + rest

    def events(self) -> list[Opened | Settled | Lost]:
        """Return what happened since the last call, in order."""
        events = []
        while self._events:
            events.append(self._events.popleft())
        return events

    def relent(self) -> None:
        """Begin the pauses between tries anew: what made the broker hang up will not be sent again."""
        self._failures = 0

    def explain(self, text: str) -> None:
        """Log what is wrong with the connection, once, and keep it as `trouble`."""
        self._say(text)

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
        self._end(unexplained=False)
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
            self._doubt_will(reason.value)
            return
        self._client.drop_out_messages()
        self.connections += 1
        self._unaccepted = 0
        self._opened_s = self._clock()
        self._trouble = ""
        log.info("connected to the MQTT broker %s", self.address)
        if not self._with_will and not self._will_reported:
            self._will_reported = True
            log.warning(
                "the MQTT broker %s accepts this client only without a last will, so subscribers are not informed when "
                "this process dies: allow client %s to publish retained messages to %s",
                self.address,
                self._client_id,
                self._will[0],
            )
        self._events.append(Opened(self.connections, limits_of(properties)))
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
        self._space_tries()

    def _went(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        connected, refused = self._connected.is_set(), self._refused
        self._refused = False
        if connected and self._clock() - self._opened_s >= self._times.steady_s:
            self._failures = 0
            self._said.clear()
        if reason.is_failure and not self._closing.is_set():
            text = "it was closed" if str(reason) == "Unspecified error" else str(reason)
            if connected and reason.value == _TAKEN_OVER:
                self._say(self._taken_over())
            elif connected:
                self._say(f"the connection to the MQTT broker {self.address} was lost: {text}")
            elif not refused:
                self._say(f"the MQTT broker {self.address} did not accept the connection: {text}")
                self._doubt_will(None)
        by_server = getattr(flags, "is_disconnect_packet_from_server", False)
        self._end(
            str(reason) == "Unspecified error" or (by_server and reason.value not in _NOT_FOR_A_MESSAGE),
        )
        self._space_tries()

    def _taken_over(self) -> str:
        return (
            f'another client with the client id "{self._client_id}" took over the connection to the MQTT broker '
            f"{self.address}: every client needs an id of its own, set mqtt.client_id"
        )

    def _end(self, unexplained: bool) -> None:
        if self._connected.is_set():
            self._connected.clear()
            now_s = self._clock()
            lived_s = now_s - self._opened_s
            self._events.append(Lost(now_s, lived_s, unexplained))
        self._on_change()

    def _space_tries(self) -> None:
        """Set how long paho waits before the next try: 1 s, and twice as long after each failure."""
        pause_s = min(self._config.reconnect_most_s, self._times.reconnect_s * 2 ** min(self._failures, 12))
        self._failures += 1
        self._client.reconnect_delay_set(pause_s, pause_s)

    def _doubt_will(self, code: int | None) -> None:
        """After a connection that was not accepted: consider that the last will may be the reason.

        Args:
            code: The broker's reason; None when it hung up without one.
        """
        if code == _NO_RETAIN:
            self._will_retain = False
        elif code == _NO_QOS:
            self._will_qos = 0
        elif code in (None, _NOT_AUTHORIZED):
            self._unaccepted += 1
            if self._unaccepted >= _MOST_UNACCEPTED:
                self._with_will = not self._with_will
        self._set_will()

    def _set_will(self) -> None:
        if self._with_will:
            self._client.will_set(self._will[0], self._will[1], qos=self._will_qos, retain=self._will_retain)
        else:
            self._client.will_clear()

    def _published(self, client: Any, userdata: Any, number: int, reason: ReasonCode, properties: Any) -> None:
        # MQTT 3.1.1 has no way to refuse a message.
        self._events.append(Settled(number, str(reason) if reason.is_failure else ""))
        self._on_change()

    def _say(self, text: str) -> None:
        # The same trouble at every try is one line, until a connection has worked for a while.
        self._trouble = text
        if text not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(text)
            log.warning("%s; trying again for ever", text)
