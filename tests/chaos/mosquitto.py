"""A real mosquitto that is killed and frozen, with a subscriber that writes down what comes.

The subscriber has a session that mosquitto keeps on disk. mosquitto hands a message to the subscriber's socket before
it acknowledges it to the publisher, and the subscriber's window has no bound; so a kill loses nothing that was
acknowledged as long as the subscriber is connected, for which `up` waits, and reads all that came before the kill.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.chaos.record import Record
from tests.support.broker import MosquittoBroker
from tests.support.returning import lone_port

_PATIENCE_S = 30.0
_NO_BOUNDS = ("max_inflight_messages 0", "max_queued_messages 0")


class _Subscriber(mqtt.Client):
    """Reads what has come before it gives a connection up.

    paho acknowledges each message before it reads the next one. Where the broker was killed, the second such write
    fails, and paho closes the connection with all that lies unread in it.
    """

    def _loop_rc_handle(self, rc: mqtt.MQTTErrorCode) -> mqtt.MQTTErrorCode:
        if rc:
            while self._sock is not None and self._packet_read() == mqtt.MQTT_ERR_SUCCESS:
                pass
        return super()._loop_rc_handle(rc)


class Mosquitto:
    """The broker and its subscriber, both started.

    Args:
        folder: For the broker's files.
        record: Takes every message.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, record: Record) -> None:
        self._record = record
        self._subscriptions = 0
        self._changed = threading.Condition()
        self._starting = threading.Lock()
        self._closed = False
        self._broker = MosquittoBroker(folder, is_persistent=True, extra_config=_NO_BOUNDS)
        self._broker.port = self.port = lone_port()
        client = _Subscriber(CallbackAPIVersion.VERSION2, client_id="recorder", clean_session=False)
        client.reconnect_delay_set(0.1, 0.1)  # type: ignore[arg-type] # fractions work
        client.on_connect = lambda client, *rest: client.subscribe("#", qos=1)
        client.on_subscribe = self._subscribed
        client.on_message = lambda client, userdata, message: record.write(message.topic, message.payload)
        self._client = client
        self._broker.start()
        # Longer than mosquitto is ever frozen: what it acknowledges while the subscriber is away, a kill loses.
        client.connect_async(self.host, self.port, keepalive=60)
        client.loop_start()
        try:
            self._wait_for_subscriber(0)
            self._broker.save()
        except BaseException:
            self.close()
            raise

    @property
    def faults(self) -> dict[str, Callable[[random.Random], None]]:
        """The faults by name; each returns when the broker is well again."""
        return {"is killed": self._kill, "ends in order": self._end, "freezes": self._freeze}

    def down(self) -> None:
        """Die now (SIGKILL)."""
        self._broker.kill()

    def up(self) -> None:
        """Come back on the same port."""
        before = self._subscriptions
        with self._starting:
            if self._closed:
                raise AssertionError("the run is over")
            self._broker.start()
        self._wait_for_subscriber(before)

    def settle(self) -> None:
        """Wait until the subscriber has what the broker has."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while self._record.quiet_s() < 1.5 and time.monotonic() < deadline_s:
            time.sleep(0.1)

    def close(self) -> None:
        """End both, for good."""
        with self._starting:
            self._closed = True
        self._client.disconnect()
        self._client.loop_stop()
        self._broker.stop()

    def _kill(self, rng: random.Random) -> None:
        self.down()
        time.sleep(rng.choice((0.0, rng.uniform(0.0, 1.5), rng.uniform(1.0, 4.0))))
        self.up()

    def _end(self, rng: random.Random) -> None:
        self._broker.stop()
        time.sleep(rng.uniform(0.0, 1.5))
        self.up()

    def _freeze(self, rng: random.Random) -> None:
        self._broker.freeze()
        time.sleep(rng.choice((rng.uniform(0.5, 4.0), rng.uniform(4.0, 12.0))))
        self._broker.thaw()

    def _subscribed(self, *arguments: object) -> None:
        with self._changed:
            self._subscriptions += 1
            self._changed.notify_all()

    def _wait_for_subscriber(self, before: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._subscriptions > before, _PATIENCE_S):
                raise AssertionError("the recording subscriber does not come back to mosquitto")
