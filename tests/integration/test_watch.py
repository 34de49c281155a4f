"""`visaged watch` at a real broker, a real daemon and a real terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BrokerFactory
from tests.support.broker import MosquittoBroker, free_port
from tests.support.certificates import Certificates
from tests.support.program import RunningDaemon
from tests.support.requirements import MOSQUITTO, needs
from tests.support.subscriber import Subscriber
from visaged.daemon.watch.http import HttpNews, HttpTarget
from visaged.daemon.watch.mqtt import MqttNews, MqttTarget
from visaged.daemon.watch.news import Inbox, News
from visaged.pipelines.outputs.mqtt.config import LinkConfig, TlsConfig

PATIENCE_S = 40.0
STYLE = re.compile(r"\x1b\[[0-9;]*m")
NODE = {"schema": "visaged.node-status/1", "node": "shop", "state": "online", "reason": None}
STATUS = {"schema": "visaged.camera-status/1", "camera": "door", "state": "streaming", "codec": "h264",
          "width": 640, "height": 360, "error": None}  # fmt: skip
EVENT: dict[str, Any] = {
    "schema": "visaged.events/1", "camera": "door", "captured_at": "2026-11-21T08:06:27.038Z", "event": "begin",
    "track_id": 3, "face": {"attributes": {}}, "best_shot": {"box": [10.0, 10.0, 96.0, 120.0], "confidence": 0.9},
}  # fmt: skip


class Watching:
    """News that a thread takes."""

    def __init__(self, run: Callable[[threading.Event], None], inbox: Inbox) -> None:
        self.news: list[News] = []
        self.failure: str | None = None
        self._inbox = inbox
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=run, args=(self._stopping,))
        self._thread.start()

    def wait_for(self, wanted: Callable[[News], bool], ask: Callable[[], object] = lambda: None) -> News:
        """Return the first of the news that is wanted, and forget those before it; `ask` is called until it comes."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.failure is None:
            ask()
            while self.news:
                one = self.news.pop(0)
                if wanted(one):
                    return one
            news, _, self.failure = self._inbox.take(0.1)
            self.news += news
        raise AssertionError(f"it did not come; failure: {self.failure}")

    def link(self, part: str) -> str:
        return str(self.wait_for(lambda one: one.kind == "link" and part in one.document["text"]).document["text"])

    def note(self, part: str) -> str:
        return str(self.wait_for(lambda one: one.kind == "note" and part in one.document["text"]).document["text"])

    def failed(self) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while self.failure is None and time.monotonic() < deadline:
            _, _, self.failure = self._inbox.take(0.1)
        assert self.failure is not None
        return self.failure

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def watching(
    port: int, prefix: str = "visaged", login: tuple[str, str] | None = None, **link: Any
) -> Iterator[Watching]:
    inbox = Inbox()
    target = MqttTarget(LinkConfig(port=port, **link), prefix, *(login or (None, None)))
    found = Watching(MqttNews(target, inbox).run, inbox)
    try:
        yield found
    finally:
        found.stop()


@needs(MOSQUITTO)
def test_what_a_daemon_publishes_comes_and_what_strangers_do_not(make_broker: BrokerFactory) -> None:
    broker = make_broker()
    with Subscriber(broker, "#") as publisher, watching(broker.port) as watch:
        publisher.publish("visaged/shop/status", json.dumps(NODE), retain=True)
        publisher.publish("visaged/door/status", json.dumps(STATUS), retain=True)
        watch.link("connected")
        assert watch.wait_for(lambda one: one.kind == "node").name == "shop"
        assert watch.wait_for(lambda one: one.kind == "camera").name == "door"
        for payload in (b"{", b"\xff" * 300_000, json.dumps(EVENT | {"camera": "yard"}).encode(), b"[" * 10_000):
            publisher.publish("visaged/door/events", payload)
        publisher.publish("visaged/door/events", json.dumps(EVENT | {"schema": "visaged.events/9"}))
        publisher.publish("visaged/door/events", json.dumps(EVENT))
        assert watch.wait_for(lambda one: one.kind != "note").document["track_id"] == 3
        publisher.publish("visaged/door/status", b"", retain=True)
        assert watch.wait_for(lambda one: one.kind == "removed").name == "door"


@needs(MOSQUITTO)
def test_a_broker_that_goes_and_comes_back(make_broker: BrokerFactory) -> None:
    broker = make_broker()
    with watching(broker.port) as watch:
        watch.link("connected")
        broker.kill()
        assert "lost" in watch.link("lost")
        broker.start()
        watch.link("connected")
        with Subscriber(broker, "#") as publisher:
            # Connected is not yet subscribed, and what is published before that goes nowhere.
            watch.wait_for(
                lambda one: one.kind == "event", lambda: publisher.publish("visaged/door/events", json.dumps(EVENT))
            )


def test_no_broker_is_waited_for_and_told_what_to_do() -> None:
    with watching(free_port()) as watch:
        said = watch.link("cannot be reached")
        assert "make run" in said
        assert "--host" in said


@needs(MOSQUITTO)
def test_a_wrong_password_ends_it_with_what_to_give(make_broker: BrokerFactory) -> None:
    broker = make_broker(login=("user", "right"))
    for login in (None, ("user", "wrong-secret")):
        with watching(broker.port, login=login) as watch:
            said = watch.failed()
            assert "refused" in said
            assert "--password env:VARIABLE" in said
            assert "wrong-secret" not in said
    with watching(broker.port, login=("user", "right")) as watch:
        watch.link("connected")


@needs(MOSQUITTO)
def test_tls_that_fails_says_what_to_change(tmp_path: Path, make_broker: BrokerFactory) -> None:
    made = Certificates.create(tmp_path / "tls")
    with MosquittoBroker(tmp_path / "tls-broker", certificates=made) as broker:
        with watching(broker.port, tls=TlsConfig(ca_file=made.ca)) as watch:
            watch.link("connected")
        with watching(broker.port, tls=TlsConfig()) as watch:
            assert "--ca-file" in watch.failed()
        with watching(broker.port) as watch:
            assert "--tls" in watch.link("closed the connection")
    with watching(make_broker().port, tls=TlsConfig()) as watch:
        assert "port for TLS" in watch.failed()


def test_a_server_that_is_no_broker_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stopping = threading.Event()

        def answer() -> None:
            while not stopping.is_set():
                with contextlib.suppress(OSError):
                    client, _ = server.accept()
                    with client:
                        client.recv(1000)
                        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with watching(server.getsockname()[1]) as watch:
                watch.wait_for(lambda one: one.kind == "link" and not one.document["connected"])
        finally:
            stopping.set()
            with socket.create_connection(server.getsockname()):
                pass
            thread.join(PATIENCE_S)


@needs(MOSQUITTO)
def test_a_wrong_prefix_names_the_right_one(make_broker: BrokerFactory) -> None:
    broker = make_broker()
    with Subscriber(broker, "#") as publisher:
        publisher.publish("site/cams/shop/status", json.dumps(NODE), retain=True)
        with watching(broker.port) as watch:
            assert "--prefix" in watch.note("nothing has come")
            assert "--prefix site/cams" in watch.note("there is a visaged")


class Terminal:
    """`visaged watch` on a terminal."""

    def __init__(self, *options: str, rows: int = 24, columns: int = 100) -> None:
        self.text = ""
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = os.environ | {"TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        command = [sys.executable, "-m", "visaged.daemon", "watch", *options]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self._ours = ours
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *of_error: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def wait_for(self, pattern: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: pattern in STYLE.sub("", self.text), PATIENCE_S), self.text[-3000:]

    def end(self) -> int:
        """End it as Ctrl-C does; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE_S)
        self._thread.join(PATIENCE_S)
        os.close(self._ours)
        return code

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._ours, 65536)
            except OSError:
                return
            if not piece:
                return
            with self._changed:
                self.text += piece.decode(errors="replace")
                self._changed.notify_all()


@needs(MOSQUITTO)
def test_lines_and_a_table_on_a_terminal(make_broker: BrokerFactory) -> None:
    broker = make_broker()
    with Subscriber(broker, "#") as publisher:
        publisher.publish("visaged/door/status", json.dumps(STATUS), retain=True)
        with Terminal("--port", str(broker.port)) as terminal:
            terminal.wait_for("1 of 1 cameras stream, 0 faces in view")
            publisher.publish("visaged/door/events", json.dumps(EVENT))
            terminal.wait_for("door  face 3 begin")
            terminal.wait_for("1 of 1 cameras stream, 1 faces in view")
            broker.kill()
            terminal.wait_for("trying again")
            assert terminal.end() == 0
            assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l"), "the cursor is hidden"


def test_a_daemon_over_http(tmp_path: Path, demo_clip: Path) -> None:
    document = {
        "cameras": [{"name": "demo", "url": str(demo_clip), "loop": True, "fps": 5}],
        "mqtt": {"embedded": True, "port": free_port()},
    }
    with RunningDaemon(tmp_path, document) as daemon:
        url, inbox = str(daemon.client.base_url).rstrip("/"), Inbox()
        watch = Watching(HttpNews(HttpTarget(url), inbox, ["demo"], ["begin", "end"]).run, inbox)
        try:
            watch.link("connected")
            assert watch.wait_for(lambda one: one.kind == "camera").name == "demo"
            assert watch.wait_for(lambda one: one.kind == "event").document["event"] == "begin"
            daemon.kill()
            assert watch.link(url) != ""
            watch.wait_for(lambda one: one.kind == "link" and "cannot be reached" in one.document["text"])
        finally:
            watch.stop()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "--key env:VARIABLE"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "as new as this one"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x\r\nContent-Length: 0\r\n\r\n", "redirects"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n", "is it a visaged daemon"),
        (b'HTTP/1.1 403 No\r\nContent-Length: 28\r\n\r\n{"detail":"not you\\u001b[m"}', "not you"),
    ],
)
def test_answers_that_are_no_stream_say_what_to_do(answer: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(10_000)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        inbox = Inbox()
        watch = Watching(HttpNews(HttpTarget(f"http://127.0.0.1:{server.getsockname()[1]}"), inbox).run, inbox)
        try:
            text = watch.failed()
            assert said in text
            assert "\x1b" not in text
        finally:
            watch.stop()
            thread.join(PATIENCE_S)
