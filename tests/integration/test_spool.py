"""Events over the end of the daemon and of the broker, by the messages that a subscriber gets."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.support.broker import MosquittoBroker, free_port
from tests.support.messages import valid
from tests.support.process import ProcessError
from tests.support.program import RunningDaemon
from tests.support.requirements import MOSQUITTO, needs
from tests.support.subscriber import Subscriber
from tests.support.waiting import until
from visaged.daemon.errors import StartError
from visaged.daemon.management.folder import StateFolder

PATIENCE_S = 60.0
Document = dict[str, Any]


@pytest.fixture
def daemon(tmp_path: Path, broker: MosquittoBroker, demo_clip: Path) -> Iterator[RunningDaemon]:
    """A daemon whose one camera shows faces that come and go."""
    camera = {"name": "door", "url": str(demo_clip), "loop": True, "fps": 10}
    document = {"cameras": [camera], "mqtt": {"port": broker.port, "reconnect_most_s": 1}}
    document |= {"inference": {"update_s": 0.2}, "models": {"analyzer": None}}
    with RunningDaemon(tmp_path, document) as running:
        yield running


def events(subscriber: Subscriber) -> list[Document]:
    """All events so far, each as its schema says."""
    return [valid(message) for message in subscriber.messages if message.topic.endswith("/events")]


def look_that_nothing_is_missing(received: list[Document]) -> None:
    """In each run the numbers go on without a gap, repeated ones apart, and every track that begins ends once."""
    epochs = sorted({event["epoch"] for event in received})
    for epoch in epochs:
        first = dict.fromkeys(event["seq"] for event in received if event["epoch"] == epoch)
        assert list(first) == list(range(1, len(first) + 1))
    once = {(event["epoch"], event["seq"]): event for event in received}.values()
    ends = Counter((event["epoch"], event["track_id"]) for event in once if event["event"] == "end")
    begun = {(e["epoch"], e["track_id"]) for e in once if e["event"] == "begin" and e["epoch"] != epochs[-1]}
    assert begun == {key for key in ends if key[0] != epochs[-1]}
    assert set(ends.values()) <= {1}


@needs(MOSQUITTO)
def test_a_kill_while_the_broker_is_away_loses_nothing(daemon: RunningDaemon, broker: MosquittoBroker) -> None:
    with Subscriber(broker) as before:
        before.wait_for(lambda m: m.topic.endswith("/events"), PATIENCE_S)
        broker.kill()
        until(lambda: daemon.metric("spool_events") >= 10, PATIENCE_S)
        assert daemon.client.get("/readyz").json()["spool"] == {"events": daemon.metric("spool_events"), "error": None}
        daemon.kill()
        seen = events(before)
    broker.start()
    with Subscriber(broker) as after:
        after.wait_for_subscriptions(1)
        daemon.start()
        after.wait_for(lambda m: m.topic.endswith("/events") and m.json()["epoch"] > seen[0]["epoch"], PATIENCE_S)
        until(lambda: daemon.metric("spool_events") < 3, PATIENCE_S)
        daemon.end()
        late = events(after)
    look_that_nothing_is_missing(seen + late)
    old = [event for event in late if event["epoch"] == seen[0]["epoch"]]
    assert all(event["replayed"] for event in old)
    assert [event["reason"] for event in old if event["event"] == "end"][-1] == "restart"
    assert late[len(old)]["epoch"] > old[0]["epoch"]  # all that is old comes first


@needs(MOSQUITTO)
def test_an_orderly_end_while_the_broker_is_away_loses_nothing(daemon: RunningDaemon, broker: MosquittoBroker) -> None:
    with Subscriber(broker) as before:
        before.wait_for(lambda m: m.topic.endswith("/events"), PATIENCE_S)
        broker.kill()
        until(lambda: daemon.metric("spool_events") >= 3, PATIENCE_S)
        daemon.end()
        seen = events(before)
    assert "are lost" not in daemon.text
    broker.start()
    with Subscriber(broker) as after:
        daemon.start()
        after.wait_for(lambda m: m.topic.endswith("/events") and m.json()["epoch"] > seen[0]["epoch"], PATIENCE_S)
        daemon.end()
        late = events(after)
    look_that_nothing_is_missing(seen + late)
    assert {e["reason"] for e in late if e["event"] == "end"} <= {"lost", "shutdown", "stream_ended"}


@needs(MOSQUITTO)
def test_cameras_and_nodes_that_are_gone_leave_nothing_retained(daemon: RunningDaemon, broker: MosquittoBroker) -> None:
    with Subscriber(broker) as first:
        first.wait_for(lambda m: m.topic == "visaged/door/status", PATIENCE_S)
        first.wait_for(lambda m: m.topic == "visaged/tester/status", PATIENCE_S)
    daemon.end()
    daemon.configure(node="renamed", cameras=[])
    daemon.start()

    def retained() -> set[str]:
        with Subscriber(broker) as fresh:
            fresh.wait_for(lambda m: m.topic == "visaged/renamed/status", PATIENCE_S)
            return {message.topic for message in fresh.messages if message.is_retained and message.payload}

    until(lambda: retained() == {"visaged/renamed/status"}, PATIENCE_S)
    daemon.end()
    with sqlite3.connect(daemon.state / "spool.sqlite3") as database:
        assert database.execute("SELECT topic FROM topics").fetchall() == [("visaged/renamed/status",)]


def refused(folder: Path, document: Document) -> tuple[int, str]:
    """Exit code and output of a daemon that does not start."""
    config = folder / "other.yaml"
    config.write_text(yaml.safe_dump({"http": {"port": 0}, "mqtt": {"port": free_port()}} | document))
    command = [str(Path(sys.executable).with_name("visaged")), "run", "--config", str(config)]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"NO_COLOR": "1"}, check=False
    )
    return found.returncode, re.sub(r"\s+", " ", found.stdout + found.stderr)


def test_a_second_daemon_is_refused_while_the_first_one_runs(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"mqtt": {"port": free_port()}}) as daemon:
        code, text = refused(tmp_path, {"state_dir": str(daemon.state)})
        assert code == 3
        assert f"{daemon.state} is in use by another visaged, process {daemon.process.pid};" in text
        daemon.kill()
        daemon.start()  # nothing of the killed one is in the way


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_is_no_state_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    code, text = refused(tmp_path, {"state_dir": str(tmp_path / place)})
    assert code in (2, 3)
    assert f"state_dir: {tmp_path / place}" in text
    assert "Traceback" not in text
    assert (tmp_path / "file").read_text() == "mine"


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"mqtt": {"port": free_port()}}) as daemon:
        daemon.end()
        with sqlite3.connect(daemon.state / "spool.sqlite3") as database:
            database.execute("PRAGMA user_version = 99")
        with pytest.raises(ProcessError, match="was written by a newer visaged"):
            daemon.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_folder_of_another_user_is_refused_if_it_was_chosen(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from visaged.daemon.management.folder import StateFolder\n"
        "os.setegid(65534); os.seteuid(65534)\n"
        "print(StateFolder(Path(sys.argv[1]), is_default=sys.argv[2] == 'default').path)\n"
    )

    def tried(kind: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(folder), kind]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    assert "state_dir: " in tried("chosen").stderr
    assert "cannot be written by user 65534 (Permission denied: " in tried("chosen").stderr
    assert tried("default").stdout == "None\n"


def test_a_held_folder_names_the_holder(tmp_path: Path) -> None:
    held = StateFolder(tmp_path, is_default=True)
    assert held.path == tmp_path
    with pytest.raises(StartError, match=f"is in use by another visaged, process {os.getpid()};"):
        StateFolder(tmp_path, is_default=True)


def test_the_readme_shows_how_to_take_each_event_once() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(newest = .*?)```", readme, re.DOTALL)
    taken: list[Document] = []
    space: dict[str, Any] = {"json": json, "handle": taken.append}
    exec(code, space)
    for epoch, camera, seq in [
        (1, "a", 1),
        (1, "a", 2),
        (1, "b", 1),
        (1, "a", 1),
        (1, "a", 3),
        (2, "a", 1),
        (1, "a", 3),
    ]:
        payload = json.dumps({"node": "n", "epoch": epoch, "camera": camera, "seq": seq}).encode()
        space["on_message"](None, None, SimpleNamespace(payload=payload))
    assert [(e["epoch"], e["camera"], e["seq"]) for e in taken] == [
        (1, "a", 1), (1, "a", 2), (1, "b", 1), (1, "a", 3), (2, "a", 1),
    ]  # fmt: skip
