"""What thousands of reconnects leave behind: memory, file descriptors and threads before and after.

Three cameras, which send some pictures and hang up within one, and a broker that dies at any byte, each run beside a
process of their own that holds what the daemon has for them: supervisors, sources, inference and tracking; the MQTT
output with what feeds it. Only the pauses between two tries are shortened. The process is measured from outside while
connections are held, once a fifth of the reconnects is over, and at the end.

`python -m tests.benchmarks.leaks [CAMERAS [BROKERS]]`: numbers of reconnects, 10000 and 1000 if left out; 0 for none.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import psutil

from tests.benchmarks.clip import ROOT
from tests.chaos.cameras import Multipart, TransportStream
from tests.chaos.clip import FPS, Clip, coded
from tests.chaos.record import Record
from tests.chaos.recorder import RecordingBroker
from tests.support import messages
from tests.support.media import pictures
from tests.support.mqtt_output import Running
from tests.support.process import ManagedProcess
from tests.support.returning import hang_up, lone_port
from tests.support.rtsp_short import RtspTalk
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.session import SessionConfig
from visaged.pipelines.attributes import NoReader
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.inference import Inference
from visaged.pipelines.outputs.mqtt.times import Times
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker
from visaged.pipelines.source.camera import Backoff, Camera, lane_policy
from visaged.pipelines.source.video import SourceConfig
from visaged.pipelines.tracking.job import FrameStage
from visaged.pipelines.tracking.tracker import TrackerConfig
from visaged.pipelines.tracking.tracks import CameraTracks, TrackingSpec

MOST_MB = 5.0
_WARM_UP = 0.2  # share of the reconnects
_SIZE = (640, 360)
_PICTURES = 3  # before a hang-up
_SETTLE_S = 3.0
_PATIENCE_S = 60.0  # for the next reconnect


@dataclass(frozen=True, slots=True)
class State:
    """What a process holds."""

    megabytes: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> State:
        """Measure a process."""
        with process.oneshot():
            return cls(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads())


class HastyCamera:
    """A camera that sends some pictures at once, hangs up within the next, and is there again; or holds on.

    Args:
        kind: `jpegs`, `ts` or `rtsp`.
        clip: What it shows.

    Attributes:
        visits: Connections so far.
        most: Connection from which on it holds.
    """

    def __init__(self, kind: str, clip: Clip) -> None:
        self.kind, self.visits, self.most = kind, 0, 0
        self._clip = clip
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", lone_port()), backlog=50)
        scheme, port = ("rtsp" if kind == "rtsp" else "http"), self._listener.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{port}/{kind}"
        threading.Thread(target=self._accept, daemon=True, name=f"camera {kind}").start()

    def run_to(self, visits: int) -> None:
        """Hang up until there were so many connections, then hold the last."""
        with self._changed:
            self.most = visits
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until it holds."""
        with self._changed:
            while self.visits < self.most:
                visits = self.visits
                if not self._changed.wait_for(lambda before=visits: self.visits > before, _PATIENCE_S):
                    raise AssertionError(f"{self.kind}: nobody connects after {self.visits} connections")

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                connection.settimeout(10.0)
                with contextlib.suppress(OSError):
                    self._serve(connection)
                hang_up(connection, reset=self.visits % 4 == 0)

    def _serve(self, connection: socket.socket) -> None:
        wrap = self._begin(connection)
        if wrap is None:
            return
        with self._changed:
            self.visits += 1
            self._changed.notify_all()
        for index in range(_PICTURES):
            connection.sendall(wrap(index, index / FPS))
        index = _PICTURES
        while self.visits >= self.most:  # hold on
            connection.sendall(wrap(index % len(self._clip.jpegs), index / FPS))
            index += 1
            time.sleep(1 / FPS)
        data = wrap(index % len(self._clip.jpegs), index / FPS)
        connection.sendall(data[: len(data) * (self.visits % 10) // 10])

    def _begin(self, connection: socket.socket) -> Callable[[int, float], bytes] | None:
        """Answer the request; return what makes a picture of its number and time, None if there is no request."""
        if self.kind == "rtsp":
            talk = RtspTalk(connection, self._clip.units[0])
            return (lambda index, at_s: talk.packets(self._clip.units[index], at_s)) if talk.begin() else None
        if not connection.recv(65536):
            return None
        wrapping = Multipart() if self.kind == "jpegs" else TransportStream()
        connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Type: {wrapping.content_type}\r\n\r\n".encode())
        return lambda index, at_s: wrapping.wrap(self._clip, index, at_s)


class HastyCameras:
    """Cameras, batcher, detector and trackers as the daemon composes them; cameras are tried again almost at once."""

    def __init__(self, sources: list[SourceConfig]) -> None:
        cv2.setNumThreads(1)  # as the daemon does
        self._metrics = Metrics()
        manifest = Manifest()
        name = manifest.default_detector(on_gpu=False).name
        detector = Detector.load(manifest, name, SessionConfig(provider="cpu"), TrackerConfig().low_confidence)
        self._batcher = Batcher(max_batch=1, max_wait_s=0, max_pictures=1)
        inference = Inference(self._batcher, detector, NoReader(), self._metrics)
        cameras = [self._camera(f"camera{index}", source) for index, source in enumerate(sources)]
        self._workers = [
            Worker(f"inference-{index}", inference.run, self._died) for index in range(os.cpu_count() or 1)
        ]
        self._workers += [Worker(camera.name, camera.run, self._died) for camera in cameras]

    def start(self) -> None:
        """Start every thread."""
        for worker in self._workers:
            worker.start()

    def _camera(self, name: str, source: SourceConfig) -> Camera:
        counters = self._metrics.camera(name)
        stage = FrameStage(CameraTracks(name, TrackingSpec(), NoReader()), counters, self._metrics, lambda result: None)
        lane = self._batcher.open_lane(*lane_policy(source.live))
        hasty = Backoff(first_s=0.002, most_s=0.002)
        return Camera(name, source, 640, 32, lane, stage.job, counters, lambda status: None, backoff=hasty)

    def _died(self, name: str, error: BaseException) -> None:
        print(f"{name} died: {error}", flush=True)
        os._exit(1)


def watch_cameras(*urls: str) -> None:
    """Look at cameras until killed; what the process of the measurement does."""
    options = {"analyzeduration": "100000"}
    sources = [
        SourceConfig(url=url, options=options if url.startswith("http") else {}, read_timeout_s=5.0) for url in urls
    ]
    HastyCameras(sources).start()
    threading.Event().wait()


def publish(port: str, folder: str) -> None:
    """Publish to a broker until killed, with the spool in a folder; what the process of the measurement does."""
    times = Times(reconnect_s=0.02, steady_s=0.0, probe_s=0.02, careful_s=0.1)
    running = Running(int(port), times=times, folder=Path(folder))
    never = threading.Event()
    number = 0
    while not never.wait(0.005):
        if running.count("waiting", kind="events") < 50:
            number += 1
            track, ends = number // 2, number % 2
            event = messages.event(track, kind="end", reason="lost") if ends else messages.event(track)
            running.publisher.submit(messages.result(events=[event]))


def cameras(count: int) -> bool:
    """Measure reconnects of cameras; return whether nothing is left behind."""
    clip = coded([cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) for picture in pictures(*_SIZE, 10)])  # type: ignore[misc]
    with ExitStack() as stack:
        hasty = [HastyCamera(kind, clip) for kind in ("jpegs", "ts", "rtsp")]
        for camera in hasty:
            stack.callback(camera.close)
        process = stack.enter_context(_process("cameras", *(camera.url for camera in hasty)))

        def run_to(share: float) -> int:
            for camera in hasty:
                camera.run_to(round(share * count / len(hasty)))
            for camera in hasty:
                camera.wait()
            return sum(camera.visits for camera in hasty)

        return _table("reconnects of three cameras", process, run_to)


def brokers(count: int) -> bool:
    """Measure reconnects of the broker; return whether nothing is left behind."""
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        record = Record(Path(folder) / "record")
        stack.callback(record.close)
        broker = RecordingBroker(record, rng)
        stack.callback(broker.close)
        process = stack.enter_context(_process("broker", str(broker.port), folder))
        done = 0

        def run_to(share: float) -> int:
            nonlocal done
            while done < share * count:
                at = rng.choice(("byte", "record", "within", "acknowledged"))
                broker.die_at(at, rng.randrange(1, 3000 if at == "byte" else 5))
                broker.up()
                done += 1
            assert record.wait_for(None, time.monotonic(), _PATIENCE_S), "nobody publishes"
            record.events.clear()
            return done

        return _table("reconnects of the broker", process, run_to)


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[psutil.Process]:
    with ManagedProcess([sys.executable, "-m", "tests.benchmarks.leaks", *arguments], cwd=str(ROOT)) as child:
        try:
            yield psutil.Process(child.pid)
        except BaseException:
            print("\n".join(child.lines[-20:]), file=sys.stderr)
            raise


def _table(what: str, process: psutil.Process, run_to: Callable[[float], int]) -> bool:
    """Print what a process holds, from time to time; return whether it is the same after the warm-up and at the end."""
    print(f"  {what:30} {'seconds':>8} {'memory':>10} {'descriptors':>12} {'threads':>8}")
    began_s = time.monotonic()
    states = []
    for step in range(1, round(1 / _WARM_UP) + 1):
        count = run_to(step * _WARM_UP)
        time.sleep(_SETTLE_S)
        now = State.of(process)
        states.append(now)
        print(f"  {count:30} {time.monotonic() - began_s:8.0f} {now.megabytes:7.1f} MB {now.descriptors:12} "
              f"{now.threads:8}", flush=True)  # fmt: skip
    first, last = states[0], states[-1]
    grown_mb = last.megabytes - first.megabytes
    good = grown_mb < MOST_MB and (last.descriptors, last.threads) == (first.descriptors, first.threads)
    print(f"  after the warm-up: memory {grown_mb:+.1f} MB, descriptors {last.descriptors - first.descriptors:+d}, "
          f"threads {last.threads - first.threads:+d}{'' if good else '  <- something is left behind'}")  # fmt: skip
    return good


def main(count: int = 10_000, broker_count: int = 1_000) -> None:
    """Measure both, or one of them where the other's number is 0; exits with 1 where something is left behind."""
    results = [measure(number) for measure, number in ((cameras, count), (brokers, broker_count)) if number]
    if not all(results):
        sys.exit("reconnects leave something behind")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["cameras", *urls]:
            watch_cameras(*urls)
        case ["broker", port, folder]:
            publish(port, folder)
        case counts:
            main(*map(int, counts))
