"""News of a daemon over its MQTT broker.

The loop is this thread's own, and not paho's: each connection has a new client, so that nothing of a broken one lasts.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from visaged.daemon.watch.news import MOST_BYTES, Inbox, News, Unusable, camera_of, decoded, event_of, node_of
from visaged.pipelines.outputs.mqtt.config import LinkConfig

_CONNECT_S = 5.0
_KEEPALIVE_S = 15
_QUIET_S = 5.0
"""Seconds after which there is a remark if nothing has come: a node's state is retained, and comes at once."""
_FIRST_PAUSE_S, _MOST_PAUSE_S = 1.0, 15.0
_ELSEWHERE = ("+/+/status", "+/+/+/status")
"""Where the state of nodes may be found if the prefix is another one."""


@dataclass(frozen=True, slots=True)
class MqttTarget:
    """A broker and what to look for on it.

    Attributes:
        link: The broker, and how to reach it.
        prefix: First part of the daemon's topics.
        username: User for the broker; None for no login.
        password: Password for the broker; None for none.
    """

    link: LinkConfig
    prefix: str = "visaged"
    username: str | None = None
    password: str | None = None

    @property
    def address(self) -> str:
        """Host and port of the broker."""
        host = f"[{self.link.host}]" if ":" in self.link.host else self.link.host
        return f"{host}:{self.link.port}"


class MqttNews:
    """Takes what the daemon publishes; connects again for ever once a connection has worked.

    Args:
        target: The broker.
        inbox: Takes the news.
        clock: Returns monotonic seconds.

    Raises:
        OSError: A TLS file cannot be used.
    """

    def __init__(self, target: MqttTarget, inbox: Inbox, clock: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._inbox = inbox
        self._clock = clock
        self._tls = None if target.link.tls is None else target.link.tls.context()
        self._said: set[str] = set()
        self._worked = False
        self._connected_s: float | None = None
        self._anything = False
        self._refusal: str | None = None

    def run(self, stopping: threading.Event) -> None:
        """Take news until `stopping` is set, or until it is of no use to go on."""
        pause_s = _FIRST_PAUSE_S
        while not stopping.is_set():
            self._connected_s, self._refusal = None, None
            trouble, hopeless = self._connection(stopping)
            if stopping.is_set():
                return
            if hopeless and not self._worked:
                self._inbox.fail(trouble)
                return
            if self._connected_s is not None:
                pause_s = _FIRST_PAUSE_S
            self._inbox.link(False, trouble)
            if stopping.wait(pause_s):
                return
            pause_s = min(_MOST_PAUSE_S, 2 * pause_s)

    def _connection(self, stopping: threading.Event) -> tuple[str, bool]:
        """Hold one connection until it ends; return why it did, and whether another try would end the same way."""
        address = self._target.address
        client = self._client()
        try:
            client.connect(self._target.link.host, self._target.link.port, _KEEPALIVE_S)
            while not stopping.is_set():
                code = client.loop(0.25)
                if self._refusal is not None:
                    return self._refusal, True
                if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    break
                self._remark_on_silence(client)
        except ssl.SSLCertVerificationError as error:
            return (
                f"the certificate of the MQTT broker {address} was not accepted: {error.verify_message}; name the "
                "authority it comes from with --ca-file, and the broker by the name in its certificate",
                True,
            )
        except ssl.SSLError as error:
            reason = error.reason or error
            return f"the MQTT broker {address} does not speak TLS: {reason}; is it the port for TLS (often 8883)?", True
        except ConnectionResetError as error:
            hint = "is it the port for TLS (often 8883)?" if self._tls else "if it wants TLS, say --tls"
            return f"the MQTT broker {address} hung up at once: {error.strerror}; {hint}", self._tls is not None
        except TimeoutError:
            return f"the MQTT broker {address} does not answer; check host and port, and what is between", False
        except OSError as error:
            return f"the MQTT broker {address} cannot be reached: {error.strerror or error}; {self._advice()}", False
        except Exception as error:  # data that is not MQTT makes paho's parser raise anything
            return f"{address} does not speak MQTT as it should ({type(error).__name__}); is it an MQTT broker?", False
        finally:
            _close(client)
        if self._connected_s is None:
            hint = "" if self._tls else "; if it wants TLS, say --tls"
            return f"the MQTT broker {address} closed the connection before it was accepted{hint}", False
        return f"the connection to the MQTT broker {address} was lost", False

    def _advice(self) -> str:
        if self._worked:
            return "trying again"
        return "start one (`make run`, or visaged run), or name yours (--host, --port, --config, --http)"

    def _client(self) -> paho.Client:
        target = self._target
        is_5 = target.link.protocol == "5"
        protocol = MQTTProtocolVersion.MQTTv5 if is_5 else MQTTProtocolVersion.MQTTv311
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="", protocol=protocol)
        client.connect_timeout = _CONNECT_S
        if target.username is not None:
            client.username_pw_set(target.username, target.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = self._came
        client.on_message = self._message
        client.on_subscribe = self._subscribed
        return client

    def _came(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        address = self._target.address
        if reason.is_failure:
            who = "without a login" if self._target.username is None else f"as {self._target.username}"
            self._refusal = (
                f"the MQTT broker {address} refused the connection {who} ({reason}); give --username, and the password "
                "by --password env:VARIABLE or file:PATH"
            )
            return
        self._worked, self._anything, self._connected_s = True, False, self._clock()
        client.subscribe([(f"{self._target.prefix}/+/{kind}", 1) for kind in ("status", "events", "presence")])
        self._inbox.link(True, f"connected to the MQTT broker {address}, topics {self._target.prefix}/#")

    def _subscribed(self, client: Any, userdata: Any, number: int, reasons: list[ReasonCode], properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._remark(
                f"the MQTT broker does not let this client read {self._target.prefix}/#: its access rules forbid it"
            )

    def _message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            levels = message.topic.split("/")
        except UnicodeDecodeError:
            return
        prefix = "/".join(levels[:-2])
        if prefix != self._target.prefix:
            self._elsewhere(prefix, bytes(message.payload))
            return
        self._anything = True
        if not message.payload:  # a retained state that was cleared
            if levels[-1] == "status":
                self._inbox.put(News("removed", {"camera": levels[-2]}, levels[-2]))
            return
        if levels[-1] == "events" and message.retain:
            return  # the daemon retains none, so somebody else wrote it at some time
        try:
            news = self._news(levels[-2], levels[-1], decoded(bytes(message.payload)))
        except Unusable as error:
            self._remark(f"something was left out: {error}")
            return
        if news is not None:
            self._inbox.put(news)

    @staticmethod
    def _news(name: str, kind: str, document: dict[str, Any]) -> News | None:
        if kind == "events":
            return event_of(document, name)
        if kind == "presence":
            return News("presence", document, name)
        if "camera" in document:
            return camera_of(document, name)
        news = node_of(document)
        if news.name != name:
            raise Unusable("a status names another node than its topic")
        return news

    def _remark_on_silence(self, client: paho.Client) -> None:
        if self._anything or self._connected_s is None or self._clock() - self._connected_s < _QUIET_S:
            return
        self._anything = True
        self._remark(
            f"nothing has come on {self._target.prefix}/# so far: does a daemon use this broker, and is its "
            "mqtt.prefix the one here (--prefix)?"
        )
        client.subscribe([(topic, 0) for topic in _ELSEWHERE])

    def _elsewhere(self, prefix: str, payload: bytes) -> None:
        if len(payload) > MOST_BYTES:
            return
        try:
            document = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return
        if isinstance(document, dict) and str(document.get("schema", "")).startswith("visaged.node-status/"):
            self._remark(f"there is a visaged with the prefix {prefix}: try --prefix {prefix}")

    def _remark(self, text: str) -> None:
        # Each once: whoever publishes nonsense must not fill the screen.
        if text not in self._said and len(self._said) < 20:
            self._said.add(text)
            self._inbox.note(text)


def _close(client: paho.Client) -> None:
    try:
        client.disconnect()
        sock = client.socket()
        if sock is not None:
            sock.close()
    except (OSError, ValueError):
        pass
