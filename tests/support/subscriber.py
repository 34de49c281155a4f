"""An MQTT client for tests that keeps what it hears and waits for it without sleeping."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.support.broker import MosquittoBroker


class RefusedError(AssertionError):
    """The broker refused the connection; the text is its reason."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came in."""

    topic: str
    payload: bytes
    qos: int
    is_retained: bool
    """Whether the broker had kept it from before the subscription."""
    received_at: float
    """time.monotonic() seconds."""

    def json(self) -> Any:
        """The payload as JSON."""
        return json.loads(self.payload)


class _ClosingSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which paho forgets: a ResourceWarning, and so a failed test."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class Subscriber:
    """Subscribes to `topic` when it connects, again after each reconnect, and collects all messages in order."""

    def __init__(
        self,
        broker: MosquittoBroker,
        topic: str = "#",
        *,
        qos: int = 1,
        login: tuple[str, str] | None = None,
        ca: Path | None = None,
        client_certificate: tuple[Path, Path] | None = None,
        client_id: str = "",
        clean_session: bool = True,
    ) -> None:
        """Does not connect yet.

        Args:
            broker: Where to connect; with TLS if it has certificates.
            topic: What to subscribe to.
            qos: At which quality of service.
            login: User and password.
            ca: The authority to trust instead of the broker's own.
            client_certificate: Files of certificate and key.
            client_id: Needed if `clean_session` is false.
            clean_session: False lets the broker keep messages (QoS 1) while this subscriber is away.
        """
        self._broker, self._topic, self._qos = broker, topic, qos
        self._changed = threading.Condition()
        self._messages: list[Message] = []
        self._subscriptions = 0
        self._refusal: str | None = None
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean_session,
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        self._client.reconnect_delay_set(1, 1)
        if login is not None:
            self._client.username_pw_set(*login)
        if broker.certificates is not None or ca is not None:
            trusted = ca or (broker.certificates.ca if broker.certificates else None)
            context = ssl.create_default_context(cafile=trusted)
            context.sslsocket_class = _ClosingSocket
            if client_certificate is not None:
                context.load_cert_chain(*client_certificate)
            self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    @property
    def messages(self) -> list[Message]:
        """All messages so far."""
        with self._changed:
            return list(self._messages)

    def start(self, timeout_s: float = 30.0) -> Self:
        """Connects and waits until the broker has acknowledged the subscription.

        Raises:
            RefusedError: The broker refused, or closed the connection, as with TLS 1.3 and a bad client certificate.
            ssl.SSLError: The TLS handshake failed.
            OSError: There is no broker.
        """
        try:
            self._client.connect(self._broker.host, self._broker.port, keepalive=30)
            self._client.loop_start()
            with self._changed:
                is_settled = self._changed.wait_for(lambda: self._subscriptions or self._refusal, timeout_s)
                if self._refusal is not None:
                    raise RefusedError(self._refusal)
                if not is_settled:
                    raise AssertionError(f"no subscription within {timeout_s} s")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Disconnects."""
        self._client.disconnect()
        self._client.loop_stop()
        # paho closes the socket pair that wakes its thread only when it is collected, in an order that may first warn
        # of unclosed sockets.
        self._client._reset_sockets()

    def publish(self, topic: str, payload: bytes | str, *, qos: int = 1, retain: bool = False) -> None:
        """Publishes with the same connection and waits for the acknowledgement (QoS 0: for the sending)."""
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        info.wait_for_publish(30.0)
        if not info.is_published():
            raise AssertionError(f"the broker did not acknowledge a message on {topic}")

    def clear(self) -> None:
        """Forgets the messages so far."""
        with self._changed:
            self._messages.clear()

    def wait_for(self, predicate: Callable[[Message], bool], timeout_s: float = 30.0) -> Message:
        """The first message, of those so far or to come, that satisfies the predicate."""
        seen = 0
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for message in self._messages[seen:]:
                    if predicate(message):
                        return message
                seen = len(self._messages)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no such message within {timeout_s} s; {self._summary()}")
                self._changed.wait(left)

    def wait_for_all(self, predicate: Callable[[list[Message]], bool], timeout_s: float = 30.0) -> list[Message]:
        """All messages, as soon as the list of them satisfies the predicate."""
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(list(self._messages)), timeout_s):
                raise AssertionError(f"not satisfied within {timeout_s} s; {self._summary()}")
            return list(self._messages)

    def wait_for_subscriptions(self, count: int, timeout_s: float = 60.0) -> None:
        """Waits until it has subscribed `count` times: 2 after the broker's first restart."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._subscriptions >= count, timeout_s):
                raise AssertionError(f"{self._subscriptions} subscriptions within {timeout_s} s, not {count}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _summary(self) -> str:
        topics = [message.topic for message in self._messages]
        return f"{len(topics)} messages, the last on {topics[-5:]}"

    def _on_connect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason_code.is_failure:
            with self._changed:
                self._refusal = str(reason_code)
                self._changed.notify_all()
        else:
            client.subscribe(self._topic, self._qos)

    def _on_disconnect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._changed:
            if not self._subscriptions and self._refusal is None:
                self._refusal = f"connection closed: {reason_code}"
                self._changed.notify_all()

    def _on_subscribe(
        self,
        client: mqtt.Client,
        userdata: Any,
        mid: int,
        reason_codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        with self._changed:
            if any(code.is_failure for code in reason_codes):
                self._refusal = f"subscription refused: {reason_codes[0]}"
            else:
                self._subscriptions += 1
            self._changed.notify_all()

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        received = Message(message.topic, bytes(message.payload), message.qos, message.retain, time.monotonic())
        with self._changed:
            self._messages.append(received)
            self._changed.notify_all()
