"""The MQTT output against a real broker that is absent, dies, hangs, refuses, or is not a broker at all."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.support.broker import MosquittoBroker, free_port
from tests.support.certificates import Authority, Certificates
from tests.support.messages import event, result, status, valid
from tests.support.mqtt_output import EPOCH, PATIENCE_S, Start, cut, starting, wait_for_node
from tests.support.process import ManagedProcess
from tests.support.requirements import MOSQUITTO, require
from tests.support.subscriber import Message, Subscriber
from tests.support.waiting import until
from visaged.pipelines.outputs.messages import Composer
from visaged.pipelines.outputs.mqtt.config import PublisherConfig, TlsConfig
from visaged.pipelines.outputs.mqtt.output import MqttOutput
from visaged.pipelines.outputs.outbox import MemoryOutbox
from visaged.pipelines.runtime.metrics import Metrics


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts outputs; they end with the test."""
    with starting() as make:
        yield make


@pytest.fixture
def heard(broker: MosquittoBroker) -> Iterator[Subscriber]:
    """Hears everything on `broker`."""
    with Subscriber(broker) as subscriber:
        yield subscriber


def of(messages: list[Message], kind: str) -> list[Any]:
    """The valid documents of all messages of a kind (faces, events, status), in order."""
    return [valid(message) for message in messages if message.topic.endswith(f"/{kind}")]


def wait_for_events(subscriber: Subscriber, count: int, camera: str = "door") -> list[Any]:
    topic = f"v/{camera}/events"
    messages = subscriber.wait_for_all(lambda seen: sum(m.topic == topic for m in seen) >= count, PATIENCE_S)
    return [valid(message) for message in messages if message.topic == topic]


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize("faces_qos", [0, 1])
def test_messages_arrive_in_order_with_their_topics_and_flags(
    broker: MosquittoBroker, heard: Subscriber, start: Start, protocol: str, faces_qos: int
) -> None:
    running = start(broker.port, protocol=protocol, faces_qos=faces_qos)
    wait_for_node(heard, "online")
    running.publisher.submit_status(status())
    heard.wait_for(lambda m: m.topic == "v/door/status", PATIENCE_S)
    for number in range(1, 51):
        running.publisher.submit(result(events=[event(number)]))
        running.publisher.submit(result("yard", faces=0))
    here = heard.wait_for(lambda m: m.topic == "v/door/presence" and m.json()["faces"] == 50, PATIENCE_S)
    everything = heard.wait_for_all(
        lambda seen: sum(m.topic != "v/door/presence" for m in seen) >= 152 and here in seen, PATIENCE_S
    )
    assert not any(message.is_retained for message in everything)
    assert {(m.topic, m.qos) for m in everything} == {
        ("v/node/status", 1),
        ("v/door/status", 1),
        ("v/door/presence", 1),
        ("v/door/events", 1),
        ("v/door/faces", faces_qos),
        ("v/yard/faces", faces_qos),
    }
    for kind, camera in (("events", "door"), ("faces", "door"), ("faces", "yard")):
        told = [document for document in of(everything, kind) if document["camera"] == camera]
        assert [document["seq"] for document in told] == list(range(1, 51))
        assert not any(document["replayed"] for document in told)
    assert [document["track_id"] for document in of(everything, "events")] == list(range(1, 51))
    running.settled(50)
    until(lambda: running.count("acknowledged_total", kind="faces") == 100 * faces_qos, PATIENCE_S)
    assert running.count("published_total", kind="faces") == 100
    with Subscriber(broker) as late:
        late.publish("v/end", b"")
        late.wait_for(lambda m: m.topic == "v/end", PATIENCE_S)
        kept = late.messages[:-1]
    assert sorted(m.topic for m in kept) == ["v/door/presence", "v/door/status", "v/node/status"]
    assert all(m.is_retained for m in kept)
    assert running.lost() == {}


def test_what_happens_before_the_broker_is_there(
    tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    require(MOSQUITTO)
    broker = MosquittoBroker(tmp_path)
    broker.port = free_port()
    running = start(broker.port)
    until(lambda: "refused" in running.link.trouble, PATIENCE_S)
    running.publisher.submit_status(status(state="waiting"))
    running.publisher.submit_status(status())
    for number in range(1, 31):
        running.publisher.submit(result(events=[event(number)]))
    until(lambda: running.lost().get(("faces", "offline")) == 30, PATIENCE_S)
    until(lambda: running.count("waiting", kind="events") == 30, PATIENCE_S)
    turns = running.turns
    threading.Event().wait(0.5)
    assert running.turns - turns < 20, "it spins while it waits"
    with broker, Subscriber(broker) as heard:
        wait_for_node(heard, "online")
        running.settled(30)
        if not of(heard.messages, "events"):  # they may have come before the subscription
            running.publisher.submit_event(event(31))
            assert [document["seq"] for document in wait_for_events(heard, 1)] == [31]
        running.stop()
    assert running.lost() == {("faces", "offline"): 30}
    assert len([line for line in caplog.messages if "refused" in line]) == 1


def test_events_wait_for_the_broker_in_order_and_say_so(tmp_path: Path, start: Start) -> None:
    require(MOSQUITTO)
    with MosquittoBroker(tmp_path, is_persistent=True) as broker:
        with Subscriber(broker, client_id="keeper", clean_session=False):
            pass
        broker.save()
        broker.kill()
        running = start(broker.port)
        until(lambda: bool(running.link.trouble), PATIENCE_S)
        for number in range(1, 101):
            running.publisher.submit_event(event(number))
        until(lambda: running.count("waiting", kind="events") == 100, PATIENCE_S)
        broker.start()
        running.connected()
        running.settled(100)
        running.publisher.submit_event(event(101))
        with Subscriber(broker, client_id="keeper", clean_session=False) as heard:
            told = wait_for_events(heard, 101)
            assert [document["seq"] for document in told] == list(range(1, 102))
            assert [document["replayed"] for document in told] == [True] * 100 + [False]
            assert all(document["age_ms"] > 0 for document in told)
            wait_for_node(heard, "online")


def test_killed_broker_loses_no_event(tmp_path: Path, start: Start) -> None:
    """It dies with events on their way that it never looked at, and comes back; twice."""
    require(MOSQUITTO)
    with (
        MosquittoBroker(tmp_path, is_persistent=True) as broker,
        Subscriber(broker, client_id="keeper", clean_session=False) as heard,
    ):
        running = start(broker.port)
        wait_for_node(heard, "online")
        sent = 0
        for death in (1, 2):
            for _ in range(30):
                sent += 1
                running.publisher.submit_event(event(sent))
            wait_for_events(heard, sent)
            running.settled(sent)
            broker.save()
            broker.freeze()
            for _ in range(30):  # more than may be on their way
                sent += 1
                running.publisher.submit_event(event(sent))
            until(lambda expected=sent: running.count("published_total", kind="events") == expected - 10, PATIENCE_S)
            broker.kill()
            running.disconnected()
            for _ in range(30):
                sent += 1
                running.publisher.submit_event(event(sent))
            broker.start()
            heard.wait_for(lambda m, last=sent: m.topic == "v/door/events" and m.json()["seq"] == last, PATIENCE_S)  # type: ignore[misc]
            told = of(heard.messages, "events")
            running.settled(sent)
            # It may itself repeat what this subscriber had before, but not had acknowledged when it died.
            replayed = {document["seq"]: document["replayed"] for document in told}
            assert list(replayed) == list(range(1, sent + 1))
            assert list(replayed.values())[-90:] == [False] * 30 + [True] * 60
            assert running.count("reconnects_total") == death
        assert running.lost() == {}


def test_broker_killed_while_events_stream(tmp_path: Path, start: Start) -> None:
    """All are acknowledged in the end; what it acknowledged and then forgot is beyond MQTT's promise."""
    require(MOSQUITTO)
    with MosquittoBroker(tmp_path) as broker:
        running = start(broker.port)
        running.connected()
        count = itertools.count(1)
        sent = 0
        for death in (1, 2):
            before = running.count("acknowledged_total", kind="events")
            for _ in range(2000):
                running.publisher.submit_event(event(next(count)))
                sent += 1
            until(lambda before=before: running.count("acknowledged_total", kind="events") > before + 100, PATIENCE_S)
            broker.kill()
            running.disconnected()
            broker.start()
            running.settled(sent)
            assert running.count("reconnects_total") == death
        assert running.lost() == {}


def test_nothing_is_sent_twice_when_an_event_meets_a_breaking_connection(
    broker: MosquittoBroker, heard: Subscriber, start: Start
) -> None:
    running = start(broker.port)
    wait_for_node(heard, "online")
    for cuts in range(1, 4):
        threads = [
            threading.Thread(target=lambda: [running.publisher.submit_event(event()) for _ in range(50)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        running.settled(201 * cuts - 1)
        cut(running)  # with nothing on its way, so that nothing has to be repeated
        running.publisher.submit_event(event())
        until(lambda cuts=cuts: running.count("reconnects_total") == cuts, PATIENCE_S)  # type: ignore[misc]
        running.settled(201 * cuts)
    running.stop()
    wait_for_node(heard, "offline")
    assert [document["seq"] for document in of(heard.messages, "events")] == list(range(1, 604))


def test_state_is_told_anew_after_a_reconnect(broker: MosquittoBroker, heard: Subscriber, start: Start) -> None:
    running = start(broker.port)
    wait_for_node(heard, "online")
    running.publisher.submit_status(status())
    heard.wait_for(lambda m: m.topic == "v/door/status", PATIENCE_S)
    heard.clear()
    broker.restart()  # without persistence it has forgotten everything
    running.publisher.submit_status(status("yard", "waiting", error="no"))
    heard.wait_for_subscriptions(2)
    for camera, state in (("door", "streaming"), ("yard", "waiting")):
        told = heard.wait_for(lambda m, camera=camera: m.topic == f"v/{camera}/status", PATIENCE_S)  # type: ignore[misc]
        assert valid(told)["state"] == state
    wait_for_node(heard, "online")


def test_refused_login_is_said_once_and_tried_again(
    tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    require(MOSQUITTO)
    caplog.set_level(logging.DEBUG)
    with MosquittoBroker(tmp_path, login=("visaged", "right")) as broker:
        running = start(broker.port, login=("visaged", "hunter2!"))
        until(lambda: "refused the login" in running.link.trouble, PATIENCE_S)
        broker.process.wait_for_line(tries(2), PATIENCE_S)
        running.publisher.submit_event(event())
        broker.kill()
    until(lambda: "refused the login" not in running.link.trouble, PATIENCE_S)
    assert len([line for line in caplog.messages if "refused the login" in line]) == 1
    assert f"127.0.0.1:{broker.port}" in next(line for line in caplog.messages if "refused the login" in line)
    broker._login = ("visaged", "hunter2!")
    with broker:
        running.connected()
        running.settled(1)
    assert "hunter2!" not in caplog.text


def tries(wanted: int) -> Callable[[str], bool]:
    """A condition on mosquitto's log: the line of the n-th connection."""
    seen = itertools.count(1)
    return lambda line: "New connection" in line and next(seen) == wanted


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_message_refused_by_the_broker(tmp_path: Path, start: Start, protocol: str) -> None:
    """MQTT 5 can refuse one message; 3.1.1 acknowledges what is thrown away."""
    require(MOSQUITTO)
    rules = tmp_path / "acl"
    rules.write_text("topic write v/node/status\n")
    with MosquittoBroker(tmp_path, extra_config=[f"acl_file {rules}"]) as broker:
        running = start(broker.port, protocol=protocol, faces_qos=1)
        running.connected()
        running.publisher.submit(result(events=[event()]))
        refused = int(protocol == "5")
        until(lambda: all(running.count("published_total", kind=kind) for kind in ("faces", "events")), PATIENCE_S)
        until(lambda: all(running.count("waiting", kind=kind) == 0 for kind in ("faces", "events")), PATIENCE_S)
        expected = {(kind, "not_authorized"): 1.0 for kind in ("faces", "events")} if refused else {}
        assert running.lost() == expected
        assert running.count("acknowledged_total", kind="events") == 1 - refused
        assert running.link.connected


def test_tls_with_and_without_a_client_certificate(tmp_path: Path, start: Start) -> None:
    require(MOSQUITTO)
    made = Certificates.create(tmp_path / "tls")
    for number, asks in enumerate((False, True)):
        with MosquittoBroker(tmp_path / str(number), certificates=made, requires_client_certificate=asks) as broker:
            pair = (made.client.certificate, made.client.key) if asks else (None, None)
            tls = TlsConfig(ca_file=made.ca, cert_file=pair[0], key_file=pair[1])
            with Subscriber(broker, client_certificate=pair if asks else None) as heard:  # type: ignore[arg-type]
                running = start(broker.port, tls=tls)
                running.publisher.submit_event(event())
                assert len(wait_for_events(heard, 1)) == 1
                running.settled(1)
                running.stop()
                assert valid(wait_for_node(heard, "offline"))["reason"] == "shutdown"
            if asks:
                stranger = start(broker.port, tls=TlsConfig(ca_file=made.ca))
                until(lambda: "did not accept" in stranger.link.trouble, PATIENCE_S)  # noqa: B023


@pytest.mark.parametrize("fault", ["expired", "unknown authority"])
def test_untrusted_broker_is_refused(
    tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    require(MOSQUITTO)
    made = Certificates.create(tmp_path / "tls", is_server_expired=fault == "expired")
    authority = made.ca if fault == "expired" else Authority(tmp_path / "other").certificate
    with MosquittoBroker(tmp_path, certificates=made) as broker:
        running = start(broker.port, tls=TlsConfig(ca_file=authority))
        until(lambda: bool(running.link.trouble), PATIENCE_S)
        broker.process.wait_for_line(tries(2), PATIENCE_S)
        running.stop()
    said = [line for line in caplog.messages if "certificate" in line]
    assert len(said) == 1
    assert f"127.0.0.1:{broker.port}" in said[0]
    assert re.search("expired" if fault == "expired" else "local issuer|self.signed", said[0])


def output(config: PublisherConfig) -> MqttOutput:
    return MqttOutput(config, Composer("node", EPOCH), Metrics(CollectorRegistry()), "1", MemoryOutbox(10, 1000))


def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    made = Certificates.create(tmp_path / "tls")
    pair = made.client
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", str(pair.key), "-out", str(locked)]
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    for tls in (
        TlsConfig(ca_file=tmp_path / "missing.pem"),
        TlsConfig(ca_file=pair.key),
        TlsConfig(ca_file=made.ca, cert_file=pair.certificate, key_file=tmp_path / "missing.key"),
        TlsConfig(ca_file=made.ca, cert_file=pair.certificate, key_file=made.server.key),
        TlsConfig(ca_file=made.ca, cert_file=pair.certificate, key_file=locked),
    ):
        with pytest.raises(OSError, match=r"^\["):  # a reason, and no question at the terminal
            output(PublisherConfig(tls=tls))


PROGRAM = """
import sys, threading
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.outputs.messages import Composer
from visaged.pipelines.outputs.mqtt.output import MqttOutput
from visaged.pipelines.outputs.mqtt.config import PublisherConfig
from visaged.pipelines.outputs.outbox import MemoryOutbox
config = PublisherConfig(port=int(sys.argv[1]), protocol=sys.argv[2], prefix="v")
publisher = MqttOutput(config, Composer("node", 1), Metrics(), "1.2.3", MemoryOutbox(10, 1000))
publisher.run(threading.Event())
"""


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_last_will_tells_of_a_sudden_end(
    broker: MosquittoBroker, heard: Subscriber, start: Start, protocol: str
) -> None:
    with ManagedProcess([sys.executable, "-c", PROGRAM, str(broker.port), protocol]) as process:
        assert valid(wait_for_node(heard, "online"))["reason"] is None
        process.kill()
        assert valid(wait_for_node(heard, "offline"))["reason"] == "connection lost"
    heard.clear()
    running = start(broker.port, protocol=protocol)
    wait_for_node(heard, "online")
    assert running.stop() < PATIENCE_S
    assert valid(wait_for_node(heard, "offline"))["reason"] == "shutdown"
    with Subscriber(broker) as late:
        kept = late.wait_for(lambda m: m.topic == "v/node/status", PATIENCE_S)
        assert kept.is_retained
        assert valid(kept)["reason"] == "shutdown"


@pytest.mark.parametrize("faces_qos", [0, 1])
def test_hung_broker_costs_faces_but_no_event(
    broker: MosquittoBroker, heard: Subscriber, start: Start, faces_qos: int
) -> None:
    running = start(broker.port, faces_qos=faces_qos)
    wait_for_node(heard, "online")
    broker.freeze()
    longest_s = 0.0
    sent = 0
    # The kernel takes some megabytes before anybody notices; 20 faces with their points are 40 kB.
    while not running.lost().get(("faces", "broker_slow"), 0) > 100:
        assert sent < 5000
        for _ in range(50):
            sent += 1
            news = [event(sent)] if sent % 10 == 0 else []
            one = result(faces=20, events=news, has_points=True)
            began_s = time.monotonic()
            running.publisher.submit(one)
            longest_s = max(longest_s, time.monotonic() - began_s)
        until(lambda: not (running.publisher._results or running.output._inbox.count("faces")), PATIENCE_S)
        assert running.count("waiting", kind="faces") <= 200
    assert longest_s < 1.0
    assert running.link.connected
    broker.thaw()
    running.settled(sent // 10)
    assert [document["seq"] for document in wait_for_events(heard, sent // 10)] == list(range(1, sent // 10 + 1))
    until(lambda: running.count("waiting", kind="faces") == 0, PATIENCE_S)
    lost = running.lost()[("faces", "broker_slow")]
    assert running.lost() == {("faces", "broker_slow"): lost}
    assert running.count("published_total", kind="faces") == sent - lost


def test_too_many_waiting_events_push_out_the_oldest(tmp_path: Path, start: Start) -> None:
    require(MOSQUITTO)
    with MosquittoBroker(tmp_path, is_persistent=True) as broker:
        with Subscriber(broker, client_id="keeper", clean_session=False):
            pass
        broker.save()
        broker.kill()
        running = start(broker.port, max_waiting_events=5)
        for number in range(1, 21):
            running.publisher.submit_event(event(number))
        until(lambda: running.lost() == {("events", "overflow"): 15}, PATIENCE_S)
        broker.start()
        running.settled(5)
        with Subscriber(broker, client_id="keeper", clean_session=False) as heard:
            assert [document["seq"] for document in wait_for_events(heard, 5)] == [16, 17, 18, 19, 20]


@pytest.fixture
def blackhole() -> Iterator[int]:
    """The port of a host that does not answer: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_stop_does_not_wait_for_an_absent_broker(start: Start, blackhole: int) -> None:
    for port in (free_port(), blackhole):
        running = start(port)
        running.publisher.submit_status(status())
        running.publisher.submit(result(events=[event(), event()]))
        running.publisher.submit_event(event())
        assert running.stop(drain_s=20) < 5.0
        assert running.lost() == {("faces", "offline"): 1, ("events", "shutdown"): 3}


def test_stop_does_not_wait_for_a_hung_broker(broker: MosquittoBroker, heard: Subscriber, start: Start) -> None:
    running = start(broker.port)
    wait_for_node(heard, "online")
    broker.freeze()
    for number in range(1, 31):
        running.publisher.submit_event(event(number))
    until(lambda: running.count("waiting", kind="events") == 30, PATIENCE_S)
    assert running.stop(drain_s=1.0) < 6.0
    assert running.lost() == {("events", "shutdown"): 30}
    broker.thaw()
    # It was not told of the end, and so must not forget the last will.
    assert valid(wait_for_node(heard, "offline"))["reason"] == "connection lost"


def test_stop_sees_everything_off(broker: MosquittoBroker, heard: Subscriber, start: Start) -> None:
    running = start(broker.port)
    wait_for_node(heard, "online")
    for number in range(1, 501):
        running.publisher.submit_event(event(number))
    running.stop()
    wait_for_node(heard, "offline")
    assert [document["seq"] for document in of(heard.messages, "events")] == list(range(1, 501))
    assert running.count("acknowledged_total", kind="events") == 500
    assert running.lost() == {}


class Impostor:
    """A server that says `words` to everybody and then, if so asked, hangs up."""

    def __init__(self, words: bytes, hangs_up: bool) -> None:
        self._words, self._hangs_up = words, hangs_up
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.visits = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Impostor:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (self._listener, *self._clients):
            each.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._clients.append(client)
                self.visits += 1
                client.recv(1000)
                client.sendall(self._words)
                if self._hangs_up:
                    client.close()


EMPTY = b"\x20\x00"  # an acceptance without content
SHORT_5 = b"\x20\x03\x00\x00\x00\x40\x01\x00"  # an acceptance, and an acknowledgement that is too short


@pytest.mark.parametrize(
    ("protocol", "words", "hangs_up"),
    [
        ("3.1.1", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", True),
        ("3.1.1", b"\xff" * 100, False),
        ("3.1.1", EMPTY, False),
        ("5", SHORT_5, False),
    ],
    ids=["http", "noise", "empty", "short-5"],
)
def test_server_that_is_no_broker(tmp_path: Path, start: Start, protocol: str, words: bytes, hangs_up: bool) -> None:
    require(MOSQUITTO)
    with Impostor(words, hangs_up) as impostor:
        running = start(impostor.port, protocol=protocol)
        running.publisher.submit_event(event())
        until(lambda: str(impostor.port) in running.link.trouble, PATIENCE_S)
    broker = MosquittoBroker(tmp_path)
    broker.port = impostor.port
    with broker:
        running.settled(1)


def test_broker_that_never_answers_is_given_up(start: Start) -> None:
    with Impostor(b"", hangs_up=False) as impostor:
        running = start(impostor.port, keepalive_s=5)
        until(lambda: "did not accept the connection" in running.link.trouble, PATIENCE_S)


def test_result_that_cannot_be_told_costs_itself_alone(
    broker: MosquittoBroker, heard: Subscriber, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    running = start(broker.port)
    wait_for_node(heard, "online")
    good = result(events=[event()])
    bad_event = dataclasses.replace(event(), duration_s=None)  # type: ignore[arg-type]
    for _ in range(5):
        running.publisher.submit(dataclasses.replace(good, started_s=None, events=[bad_event]))  # type: ignore[arg-type]
    running.publisher.submit_status(status(error="\udcff"))
    running.publisher.submit_status(status("yard"))
    running.publisher.submit(good)
    wait_for_events(heard, 1)
    heard.wait_for(lambda m: m.topic == "v/yard/status", PATIENCE_S)
    heard.wait_for(lambda m: m.topic == "v/door/faces", PATIENCE_S)
    assert running.lost() == {("faces", "failed"): 5, ("events", "failed"): 5, ("status", "failed"): 1}
    assert len([line for line in caplog.messages if "cannot be composed" in line]) == 1


def test_callback_that_raises_does_not_end_the_connection_for_good(
    broker: MosquittoBroker, heard: Subscriber, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start(broker.port)
    wait_for_node(heard, "online")
    once = iter([True])
    wake = running.output._inbox.wake

    def fail_once() -> None:
        if next(once, False):
            raise RuntimeError("a bug")
        wake()

    monkeypatch.setattr(running.link, "_on_change", fail_once)
    running.publisher.submit_event(event())
    until(lambda: running.count("reconnects_total") == 1, PATIENCE_S)
    running.publisher.submit_event(event())
    until(lambda: running.count("acknowledged_total", kind="events") == 2, PATIENCE_S)
    assert Counter(document["seq"] for document in wait_for_events(heard, 2)).keys() == {1, 2}


def test_submit_from_many_threads(broker: MosquittoBroker, heard: Subscriber, start: Start) -> None:
    running = start(broker.port)
    wait_for_node(heard, "online")

    def work(camera: str) -> None:
        for number in range(1, 101):
            running.publisher.submit(result(camera, events=[event(number, camera)]))
            running.publisher.submit_event(event(number, camera, "end", "lost"))
            running.publisher.submit_status(status(camera))

    names = [f"c{number}" for number in range(8)]
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.settled(1600)
    for name in names:
        told = wait_for_events(heard, 200, name)
        assert [document["seq"] for document in told] == list(range(1, 201))
        assert [document["track_id"] for document in told] == [n for n in range(1, 101) for _ in range(2)]
        assert [document["event"] for document in told] == ["begin", "end"] * 100
    faces = running.count("published_total", kind="faces")
    assert faces + sum(running.lost().values()) == 800


def test_overdue_results_keep_their_events_in_order(
    broker: MosquittoBroker, heard: Subscriber, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start(broker.port)
    wait_for_node(heard, "online")
    held, entered = threading.Event(), threading.Event()
    turn = running.publisher._turn

    def hang() -> None:
        entered.set()
        held.wait(PATIENCE_S)
        turn()

    monkeypatch.setattr(running.publisher, "_turn", hang)
    assert entered.wait(PATIENCE_S)
    for number in range(1, 701):
        running.publisher.submit(result(events=[event(number)]))
    held.set()
    running.settled(700)
    assert [document["track_id"] for document in wait_for_events(heard, 700)] == list(range(1, 701))
    assert running.lost()[("faces", "busy")] >= 200
