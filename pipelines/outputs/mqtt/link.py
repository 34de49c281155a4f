"""The link to an MQTT broker: connects, reconnects for ever, and reports which messages the broker has.

paho's network thread owns the socket. Facts about paho that matter here, each with a test:

- `publish()` with QoS 1 while offline returns an error code, but queues the message, so it must not be published again.
- After a reconnect, it resends messages that were in flight, maybe after newer ones: an old status could follow a new
  one. So its queue is emptied at every connect, and the output resends what was not acknowledged.
- Its queue of unwritten packets has no bound, so the output counts messages that are not settled.
- It holds its locks during callbacks, so a callback only adds a report and wakes the output, and never publishes.
- It resets its growing pause between tries at every accepted connection, however short; so the pause is counted here.
- Data of a server that does not speak MQTT can make its parser raise, which ends its thread; and a failed TLS handshake
  leaves a socket open. Both are handled here.
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
from visaged.pipelines.outputs.mqtt.reports import Heard, Lost, Opened, Settled, Subscribed, limits_of
from visaged.pipelines.outputs.mqtt.times import Times

log = logging.getLogger(__name__)

Report = Opened | Settled | Lost | Subscribed | Heard

_TIMES = Times()

# Reason codes of MQTT 5's DISCONNECT that have nothing to do with a message: keep-alive timeout, server busy, shutting
# down, taken over, administrative action, another server, moved, too many connections, connected for too long.
_NOT_FOR_A_MESSAGE = {0x8D, 0x89, 0x8B, 0x8E, 0x98, 0x9C, 0x9D, 0x9F, 0xA0}
_TAKEN_OVER = 0x8E
_NOT_AUTHORIZED, _NO_RETAIN, _NO_QOS = 0x87, 0x9A, 0x9B
# Connections in a row that end before they are accepted, after which one is tried without the last will.
_MOST_UNACCEPTED = 3
# Most different problems that are logged while no connection works.
_MOST_SAID = 20


class _Client(paho.Client):
    """paho's client, with a thread that goes on after an exception.

    Args:
        on_crash: Called from the thread with the exception; returns whether to go on.
    """

    def __init__(self, on_crash: Callable[[Exception], bool], client_id: str, protocol: MQTTProtocolVersion) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol)
        self._on_crash = on_crash

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """Run paho's loop; this is the body of its thread."""
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
    """A connection to a broker that reconnects by itself.

    Args:
        config: The broker, and how to reach it.
        client_id: MQTT client id.
        username: User name for the broker; None for no login.
        password: Password for the broker; None for none.
        will: Topic and payload of the last will, which is retained.
        on_change: Called when there are new `events`, from paho's thread, which may hold paho's locks. It must only
            wake another thread, and take no lock that is held during calls of this object.
        clock: Returns monotonic seconds.
        times: Seconds after which conclusions are drawn.

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
        self._events: deque[Report] = deque()
        self._awaited: tuple[str, bytes] | None = None
        self._has_heard = False
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
        # The output keeps within the broker's limit; a limit of paho's own must not hold messages back.
        client.max_inflight_messages = 1000
        self._set_will()
        client.reconnect_delay_set(times.reconnect_s, config.reconnect_most_s)  # type: ignore[arg-type] # fractions work
        client.on_connect = self._came
        client.on_connect_fail = self._failed
        client.on_disconnect = self._went
        client.on_publish = self._published
        client.on_subscribe = self._subscribed
        client.on_message = self._received

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client."""
        return self._connected.is_set()

    @property
    def trouble(self) -> str:
        """Why there is no connection; empty if there is one, or if that is not known yet."""
        return "" if self.connected else self._trouble

    @property
    def address(self) -> str:
        """Host and port of the broker, as `host:port`."""
        return f"{self._config.host}:{self._config.port}"

    def start(self) -> None:
        """Begin to connect, in paho's thread."""
        self._prepare()
        self._client.loop_start()

    def send(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> int:
        """Send a message and return its number; `events` returns a `Settled` with it once the broker has the message.

        With QoS 0, a message is settled when it is written to the socket. Messages that are not settled when the
        connection ends never are. With MQTT 3.1.1, a broker acknowledges messages that it drops, for example by its
        access control list, which cannot be noticed here; with MQTT 5, it refuses them with a reason.
        """
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def listen(self, topic: str, payload: bytes) -> None:
        """Subscribe to a topic for this connection; `events` then returns a `Heard` after messages with that payload.

        However many there are, there is one report for all since the last, so that no flood of them costs memory.
        """
        self._awaited = topic, payload
        self._client.subscribe(topic, 0)

    def packet_bytes(self, topic: str, payload: bytes, qos: int) -> int:
        """Return the size in bytes of the packet that carries a message."""
        rest = 2 + len(topic.encode()) + len(payload) + (2 if qos else 0) + (self._config.protocol == "5")
        digits = 1
        while rest >= 128**digits:
            digits += 1
        return 1 + digits + rest

    def events(self) -> list[Report]:
        """Return the reports since the last call, in order."""
        events: list[Report] = []
        while self._events:
            events.append(self._events.popleft())
        if self._has_heard:
            self._has_heard = False
            events.append(Heard())
        return events

    def relent(self) -> None:
        """Begin again with the shortest pause between tries, because the cause of the hang-ups was set aside."""
        self._failures = 0

    def explain(self, text: str) -> None:
        """Log a problem of the connection, once, and keep it as `trouble`."""
        self._say(text)

    def close(self, timeout_s: float, orderly: bool) -> None:
        """End the connection; returns after about `timeout_s` at the latest, even if paho hangs in a connect.

        Args:
            timeout_s: Longest wait in seconds for paho's thread.
            orderly: Whether to send DISCONNECT, after which the broker discards the last will.
        """
        self._closing.set()
        if orderly:
            self._client.disconnect()
        thread = threading.Thread(target=self._client.loop_stop, name="mqtt-close", daemon=True)
        thread.start()
        if orderly:
            thread.join(timeout_s)
        if thread.is_alive():
            # paho's thread goes on until everything is sent; if the broker hangs, it never ends.
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
        # paho calls this while it handles the exception, and does not pass the exception.
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
        """Set how long paho waits before the next try; the pause doubles with each failure."""
        pause_s = min(self._config.reconnect_most_s, self._times.reconnect_s * 2 ** min(self._failures, 12))
        self._failures += 1
        self._client.reconnect_delay_set(pause_s, pause_s)

    def _doubt_will(self, code: int | None) -> None:
        """Change the last will after a connection that was not accepted, because the will may be the cause.

        Args:
            code: Reason code of the broker; None if it hung up without one.
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

    def _subscribed(self, client: Any, userdata: Any, number: int, reasons: list[ReasonCode], properties: Any) -> None:
        failed = [str(reason) for reason in reasons if reason.is_failure]
        self._events.append(Subscribed(failed[0] if failed else ""))
        self._on_change()

    def _received(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        if (message.topic, message.payload) == self._awaited and not self._has_heard:
            self._has_heard = True
            self._on_change()

    def _say(self, text: str) -> None:
        # A problem is logged once, until a connection has worked for a while.
        self._trouble = text
        if text not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(text)
            log.warning("%s; trying again for ever", text)
