"""The daemon as a process, asked as any client asks it: pictures over HTTP, clips as cameras over MQTT.

Nothing of it is imported, so what answers is what is shipped, from the bytes of a picture to the JSON of its faces. It
is started by the Python that runs this, and so from the same installation or checkout.
"""

from __future__ import annotations

import http.client
import json
import queue
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import paho.mqtt.client as mqtt
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from visaged.models.training.evaluation.decode import Found

FLOOR = 0.05
"""The detector's floor in the daemon that answers pictures: precision curves want what is hardly a face. What counts as
a face by default, and what tracks of clips live on, stays as shipped."""

HOST = "127.0.0.1"
WATCHED = "watched"
"""First part of the topics of the daemons that watch clips; another than that of the daemon whose broker they use."""
START_S, STOP_S, ANSWER_S, CLIP_S = 120.0, 10.0, 90.0, 1800.0
"""Longest times to start, to end, to answer a picture and to see a clip; long, for a machine that is busy."""

_LAST_LINES = 12


_HTTP_KEPT = frozenset({"long_side", "max_megapixels"})
"""What a configuration may say of how pictures are looked at, beside the networks and the tracker."""


class ProductError(ValueError):
    """The daemon did not do what it was asked; the text says so for a person, with its last lines where it ended."""


@dataclass(frozen=True, slots=True)
class Track:
    """A face that was followed through a clip, as the daemon's messages describe it.

    Attributes:
        start_s: where in the clip it was seen first as a track, seconds.
        duration_s: seconds from its first to its last sight.
        attributes: names of the attributes in its last message.
    """

    start_s: float
    duration_s: float
    attributes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Watched:
    """A clip as a camera saw it.

    Attributes:
        name: name of the clip's file, without its ending.
        seconds: length of the clip.
        tracks: all that began, in the order of their numbers.
    """

    name: str
    seconds: float
    tracks: tuple[Track, ...]


def faces_of(document: Mapping[str, Any]) -> Found:
    """Read an answer of `POST /v1/faces`: boxes (N, 4), scores (N,), points (N, 5, 2), float32 pixels; best first."""
    faces = document["faces"]
    return (
        np.array([face["box"] for face in faces], np.float32).reshape(-1, 4),
        np.array([face["confidence"] for face in faces], np.float32),
        np.array([face["landmarks_5"] for face in faces], np.float32).reshape(-1, 5, 2),
    )


def tracks_of(events: list[Mapping[str, Any]], frames: list[Mapping[str, Any]]) -> tuple[Track, ...]:
    """Put the tracks of a clip together from its messages.

    Args:
        events: all messages of the topic `events`, in order.
        frames: messages of the topic `faces`; the first ones may be missing, sent before the daemon had its broker.

    Raises:
        ProductError: An event is missing.
    """
    if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
        raise ProductError("events were lost between the daemon and its broker")
    starts: dict[int, float] = {}
    for frame in frames:
        for face in frame["faces"]:
            if face["track_id"] is not None:
                starts.setdefault(face["track_id"], float(frame["position_s"]))
    ends = {event["track_id"]: event for event in events if event["event"] == "end"}
    if began := {event["track_id"] for event in events} - set(ends):
        raise ProductError(f"no event ended the tracks {', '.join(map(str, sorted(began)))}")
    return tuple(
        Track(starts.get(number, 0.0), float(end["duration_s"]), frozenset(end["face"]["attributes"]))
        for number, end in sorted(ends.items())
    )


def read_configuration(path: Path) -> dict[str, Any]:
    """Read a configuration of the daemon, which says itself what is wrong with its keys; raises `ProductError`."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProductError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ProductError(f"{path} holds no keys of a configuration")
    return document


def seconds_of(clip: Path) -> float:
    """Return a clip's length; raises `ProductError` if it is none."""
    video = cv2.VideoCapture(str(clip))
    frames, fps = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
    video.release()
    if not (frames > 0 and fps > 0):
        raise ProductError(f"{clip} is no clip that can be read")
    return float(frames / fps)


class Product:
    """A running daemon with a broker and without cameras, for the length of a `with` block.

    Args:
        base: a configuration to start from, for networks or a tracker of one's own; where it listens and what it looks
            at is never taken from there.

    Attributes:
        detector: name of the network that finds faces.
        threshold: the confidence from which something is a face unless a request says otherwise.
        least: the confidence below which the detector reports nothing.
    """

    detector: str
    threshold: float
    least = FLOOR

    def __init__(self, base: Mapping[str, Any] | None = None) -> None:
        self._base = dict(base or {})
        self._folder = tempfile.TemporaryDirectory(prefix="visaged-")
        self._port = 0
        self._mqtt_port = _free_port()
        self._process: DaemonProcess | None = None
        self._listener: _Listener | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def ask(self, picture: bytes, name: str, least: float | None = None) -> Found:
        """Return the faces of a picture, in its own pixels.

        Args:
            picture: a file's bytes.
            name: what messages call it.
            least: smallest confidence wanted; None leaves it to the daemon.
        """
        # Attributes cost much and change no box.
        query = "attributes=" if least is None else f"attributes=&min_confidence={least}"
        status, document = self._request("POST", f"/v1/faces?{query}", picture)
        if status != http.client.OK:
            raise ProductError(f"{name}: the daemon answers {status}, {document.get('detail', 'without saying why')}")
        return faces_of(document)

    def watch(self, clip: Path, fps: float | None = None) -> Watched:
        """Let a second daemon, whose tracker is as configured, see a clip as a camera to its end.

        Args:
            clip: the file.
            fps: frames to analyse a second, 0 for all; None leaves it to the daemon.
        """
        seconds = seconds_of(clip)
        if self._listener is None:
            self._listener = _Listener(self._mqtt_port)
        camera, node = "clip", "watching"
        # As fast as the machine can: the tracker lives on the clip's own clock, and no frame is dropped.
        source: dict[str, Any] = {"name": camera, "url": str(clip.resolve()), "pace": "fast"}
        document = self._base | {
            "node": node,
            "cameras": [source if fps is None else source | {"fps": fps or None}],
            "mqtt": {"host": HOST, "port": self._mqtt_port, "prefix": WATCHED, "faces_qos": 1},
            "http": {"host": HOST, "port": 0},
            "oss": {"enabled": False},
            "state_dir": None,
        }
        with DaemonProcess(Path(self._folder.name), clip.stem, document, "--once") as process:
            code = process.wait(CLIP_S)
            if code != 0:
                raise ProductError(process.with_last_lines(f"the daemon ended with exit code {code} on {clip}"))
            heard = self._listener.until_offline(f"{WATCHED}/{node}/status")
        by_topic: dict[str, list[Mapping[str, Any]]] = {"events": [], "faces": []}
        for topic, message in heard:
            if topic.startswith(f"{WATCHED}/{camera}/"):
                by_topic.setdefault(topic.rpartition("/")[2], []).append(message)
        return Watched(clip.stem, seconds, tracks_of(by_topic["events"], by_topic["faces"]))

    def _start(self) -> None:
        document = self._base | {
            "node": "evaluated",
            "cameras": [],
            "mqtt": {"embedded": True, "host": HOST, "port": self._mqtt_port},
            "http": {key: value for key, value in (self._base.get("http") or {}).items() if key in _HTTP_KEPT}
            | {"host": HOST, "port": 0, "max_waiting": 64, "deadline_s": ANSWER_S / 2, "access_log": False},
            "oss": {"enabled": False},
            "state_dir": None,
            "tracker": (self._base.get("tracker") or {}) | {"low_confidence": FLOOR},
        }
        self._process = process = DaemonProcess(Path(self._folder.name), "evaluated", document)
        deadline_s = time.monotonic() + START_S
        address = process.wait_for(re.compile(r"http://[\d.]+:(\d+)(?=/docs)"), deadline_s)
        self._port = int(address[1])
        while True:
            status, ready = self._request("GET", "/readyz")
            if status == http.client.OK and ready["mqtt"]["connected"]:
                break
            if time.monotonic() > deadline_s:
                raise ProductError(process.with_last_lines(f"the daemon was not ready within {START_S:.0f} s"))
            time.sleep(0.1)
        self.detector, self.threshold = ready["models"]["detector"], float(ready["models"]["threshold"])

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        # A connection each: one that is kept may have been closed while pictures were read from the disk.
        connection = http.client.HTTPConnection(HOST, self._port, timeout=ANSWER_S)
        try:
            connection.request(method, path, body, {} if body is None else {"Content-Type": "application/octet-stream"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            what = f"the daemon gave no answer to {method} {path}: {error or type(error).__name__}"
            raise ProductError(what if self._process is None else self._process.with_last_lines(what)) from error
        finally:
            connection.close()

    def _close(self) -> None:
        try:
            if self._listener is not None:
                self._listener.close()
        finally:
            if self._process is not None:
                self._process.close()
            self._folder.cleanup()


class DaemonProcess:
    """A `visaged run` with a configuration, which is over when its `with` block is."""

    def __init__(self, folder: Path, name: str, document: Mapping[str, Any], *options: str) -> None:
        config, self._log = folder / f"{name}.yaml", folder / f"{name}.log"
        config.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
        line = [sys.executable, "-m", "visaged.daemon", "run", "--config", str(config), *options]
        # A file, not a pipe: nobody has to read along, and the daemon never waits for a reader.
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own program)
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def wait(self, seconds: float) -> int:
        """Return its exit code; raises `ProductError` if it goes on for longer."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProductError(self.with_last_lines(f"the daemon did not end within {seconds:.0f} s")) from None

    def wait_for(self, pattern: re.Pattern[str], deadline_s: float) -> re.Match[str]:
        """Return where it says something; raises `ProductError` if it ends, or monotonic time `deadline_s` passes."""
        while True:
            code = self._process.poll()
            if found := pattern.search(self._text()):
                return found
            if code is not None:
                raise ProductError(self.with_last_lines(f"the daemon does not start, exit code {code}"))
            if time.monotonic() > deadline_s:
                raise ProductError(self.with_last_lines("the daemon does not start"))
            time.sleep(0.1)

    def with_last_lines(self, what: str) -> str:
        """Return a text, followed by the last lines that the daemon wrote."""
        lines = self._text().splitlines()[-_LAST_LINES:]
        return "\n  ".join([f"{what}; its last lines:", *lines]) if lines else what

    def close(self) -> None:
        """End it, if it has not ended."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


class _Listener:
    """Hears everything that is published on a broker."""

    def __init__(self, port: int) -> None:
        self._heard: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda client, data, message: self._heard.put((message.topic, bytes(message.payload)))
        self._client.on_subscribe = _calls(subscribed.set)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{WATCHED}/#", qos=1)
        self._client.connect(HOST, port)
        self._client.loop_start()
        if not subscribed.wait(START_S):
            self.close()
            raise ProductError("the daemon's broker takes no subscription")

    def until_offline(self, topic: str) -> list[tuple[str, Any]]:
        """Return all messages, topic and JSON, up to the one on `topic` that says that its node has ended."""
        messages = []
        while True:
            try:
                name, payload = self._heard.get(timeout=ANSWER_S)
            except queue.Empty:
                raise ProductError(f"{topic} never said that the daemon went offline") from None
            messages.append((name, json.loads(payload)))
            if name == topic and messages[-1][1]["state"] == "offline":
                return messages

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def _calls(function: Callable[[], None]) -> Callable[..., None]:
    return lambda *_: function()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        number: int = probe.getsockname()[1]
        return number
