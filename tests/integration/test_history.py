"""What happened, asked of a real daemon with a camera that shows faces: events, pictures, the stream, and their end."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from tests.conftest import DEMO_CLIP
from tests.support.broker import MosquittoBroker
from tests.support.messages import valid
from tests.support.program import RunningDaemon
from tests.support.requirements import MOSQUITTO, needs
from tests.support.subscriber import Message, Subscriber
from tests.support.waiting import until

PATIENCE_S = 60.0
CAMERA = "door-of-the-history"
Document = dict[str, Any]


class Told(NamedTuple):
    """What a listener was told."""

    event: str
    id: str
    data: Any


class Stream:
    """A listener on a socket of its own.

    Args:
        daemon: Whom to listen to.
        last: Id of the last event that it has; empty for none.
    """

    def __init__(self, daemon: RunningDaemon, last: str = "") -> None:
        url = daemon.client.base_url
        self._socket = socket.create_connection((url.host, url.port), PATIENCE_S)
        head = f"GET /v1/events/stream HTTP/1.0\r\nHost: {url.host}:{url.port}\r\n"
        head += f"Last-Event-ID: {last}\r\n" if last else ""
        self._socket.sendall(f"{head}\r\n".encode())
        self._file = self._socket.makefile("rb")
        self.head = b"".join(iter(self._file.readline, b"\r\n")).decode()
        self.told: list[Told] = []

    def read(self) -> Told | None:
        """The next event; None at the end."""
        fields: dict[str, str] = {}
        while line := self._file.readline():
            text = line.decode().rstrip("\n")
            if not text and "event" in fields:
                self.told.append(Told(fields["event"], fields.get("id", ""), json.loads(fields["data"])))
                return self.told[-1]
            name, _, value = text.partition(": ")
            fields[name] = value
        return None

    def faces(self, count: int) -> list[Told]:
        """Reads on until there are so many events of faces."""
        while sum(told.event == "face" for told in self.told) < count:
            assert self.read() is not None
        return [told for told in self.told if told.event == "face"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._socket.close()


def configuration(broker: MosquittoBroker | None = None, **more: Any) -> Document:
    camera = {"name": CAMERA, "url": str(DEMO_CLIP), "loop": True, "fps": 8}
    mqtt = {"port": broker.port, "snapshots": True} if broker is not None else {"port": 1}
    return {"cameras": [camera], "mqtt": mqtt, "inference": {"update_s": 0.5}, "history": {"pictures": True}} | more


def kept(daemon: RunningDaemon, query: str = "limit=500") -> list[Document]:
    answer = daemon.client.get(f"/v1/events?{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["events"])


def faces_in(daemon: RunningDaemon, picture: bytes) -> int:
    answer = daemon.client.post("/v1/faces?attributes=", content=picture)
    assert answer.status_code == 200, answer.text
    return len(answer.json()["faces"])


def disk(daemon: RunningDaemon) -> bytes:
    return b"".join(path.read_bytes() for path in daemon.state.glob("history*"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon without a broker, which has told of some faces."""
    with RunningDaemon(tmp_path_factory.mktemp("history"), configuration()) as daemon:
        until(lambda: len(kept(daemon)) >= 12, PATIENCE_S)
        yield daemon


def test_events_are_told_as_they_come_and_found_later(running: RunningDaemon) -> None:
    with Stream(running) as stream:
        assert "200 OK" in stream.head
        assert "content-type: text/event-stream" in stream.head.lower()
        told = stream.faces(3)
        assert stream.told[0].event == "camera"
        assert stream.told[0].data["camera"] == CAMERA
        assert stream.told[0].data.keys() >= {"state", "tracks", "source"}
    for one in told:
        assert one.id == one.data["id"]
        found = running.client.get(f"/v1/events/{one.id}").json()
        assert found == one.data
        document = {key: value for key, value in found.items() if key not in ("id", "picture")}
        valid(Message(f"visaged/{CAMERA}/events", json.dumps(document).encode(), 1, False, 0.0))
    until(lambda: {one.id for one in told} <= {event["id"] for event in kept(running)}, PATIENCE_S)
    ids = [event["id"] for event in kept(running)]
    assert len(set(ids)) == len(ids)


def test_the_picture_of_an_event_shows_its_face(running: RunningDaemon) -> None:
    events = [event for event in kept(running) if event["picture"] and event["best_shot"]["confidence"] > 0.8]
    assert events
    for event in events[:3]:
        answer = running.client.get(f"/v1/events/{event['id']}/best.jpg")
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["x-content-type-options"] == "nosniff"
        image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert max(image.shape) <= 320
        assert faces_in(running, answer.content) >= 1


def test_statistics_are_what_counting_the_events_gives(running: RunningDaemon) -> None:
    until_ = quote(datetime.now(UTC).isoformat())
    numbers = running.client.get(f"/v1/statistics?until={until_}").json()
    newest = kept(running, "limit=500&latest=true")
    began = [event for event in newest if event["started_at"] < numbers["until"]]
    assert sum(step["tracks"] for step in numbers["tracks"]) == len(began) > 2
    by_page = {(event["camera"], event["track_id"]) for event in kept(running)}
    assert by_page >= {(event["camera"], event["track_id"]) for event in began}
    assert sum(numbers["emotions"].values()) <= len(began)
    assert sum(group["tracks"] for group in numbers["ages"]) <= len(began)


def test_readiness_and_metrics_tell_of_the_history(running: RunningDaemon) -> None:
    state = running.client.get("/readyz").json()["history"]
    assert state["events"] >= 12
    assert state["error"] is None
    assert running.metric("history_events") >= 12
    assert running.metric("history_bytes") > 10_000
    assert running.metric("history_writable") == 1
    with Stream(running) as stream:
        stream.read()
        assert running.metric("live_viewers", kind="events") == 1
    until(lambda: running.metric("live_viewers", kind="events") == 0, PATIENCE_S)


def test_a_deleted_event_is_gone_from_the_disk(running: RunningDaemon) -> None:
    ended = [event for event in kept(running, "kind=end&limit=500") if event["picture"]]
    until(lambda: any(event["picture"] for event in kept(running, "kind=end")), PATIENCE_S)
    event = (ended or kept(running, "kind=end"))[0]
    picture = running.client.get(f"/v1/events/{event['id']}/best.jpg").content
    sample = picture[len(picture) // 2 :][:64]
    assert sample in disk(running)
    since = quote(event["started_at"])
    answer = running.client.delete(f"/v1/events?camera={CAMERA}&since={since}")
    assert answer.json()["deleted"] >= 1
    assert running.client.get(f"/v1/events/{event['id']}").status_code == 404
    assert sample not in disk(running)


def test_the_stream_goes_on_over_a_restart_without_a_gap(running: RunningDaemon) -> None:
    with Stream(running) as stream:
        last = stream.faces(2)[-1]
        running.end()
        while stream.read() is not None:  # ends at once, and not after a time limit
            pass
        before = stream.faces(0)
    running.start()
    with Stream(running, last.id) as again:
        after = again.faces(len(before) + 3)
    assert not [told for told in again.told if told.event == "gap"]
    ids = [tuple(map(int, told.id.split("-"))) for told in after]
    assert ids == sorted(set(ids))
    assert min(ids) > tuple(map(int, last.id.split("-")))
    missed = [told for told in before if tuple(map(int, told.id.split("-"))) > tuple(map(int, last.id.split("-")))]
    assert [told.id for told in after][: len(missed)] == [told.id for told in missed]
    old = [told.data for told in after if told.data["epoch"] == last.data["epoch"]]
    assert [event["seq"] for event in old] == list(range(last.data["seq"] + 1, last.data["seq"] + 1 + len(old)))
    assert {event["reason"] for event in old if event["event"] == "end"} >= {"shutdown"}


def test_a_kill_loses_no_more_than_the_last_moment(running: RunningDaemon) -> None:
    until(lambda: len([e for e in kept(running, "latest=true") if e["event"] != "end"]) >= 1, PATIENCE_S)
    time.sleep(0.5)
    seen = kept(running)
    running.kill()
    running.start()
    found = {event["id"] for event in kept(running)}
    assert {event["id"] for event in seen} <= found
    epochs = {event["epoch"] for event in seen}
    still = [event for event in kept(running, "latest=true&limit=500") if event["epoch"] in epochs]
    assert {event["event"] for event in still} == {"end"}
    assert "restart" in {event["reason"] for event in still}


@needs(MOSQUITTO)
def test_blurred_pictures_show_no_face_are_published_and_are_gone_in_time(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    history = {"keep_hours": 0.0015, "pictures": True}
    more: Document = {"privacy": {"blur_faces": True}, "models": {"analyzer": None}}
    document = configuration(broker, history=history, **more)
    with Subscriber(broker, "visaged/+/snapshot") as subscriber, RunningDaemon(tmp_path, document) as daemon:
        snapshot = subscriber.wait_for(lambda message: message.topic == f"visaged/{CAMERA}/snapshot", PATIENCE_S)
        assert (snapshot.qos, snapshot.is_retained) == (0, False)
        until(lambda: any(event["picture"] for event in kept(daemon)), PATIENCE_S)
        first = next(event for event in reversed(kept(daemon)) if event["picture"])
        picture = daemon.client.get(f"/v1/events/{first['id']}/best.jpg").content
        assert picture in [message.payload for message in subscriber.messages]
        assert faces_in(daemon, picture) == 0
        until(lambda: first["id"] not in [event["id"] for event in kept(daemon)], PATIENCE_S)
        daemon.end()
        assert picture[len(picture) // 2 :][:64] not in disk(daemon)
