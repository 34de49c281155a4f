"""Cameras: what their supervisor does when they go and come, and how their frames reach a consumer."""

from __future__ import annotations

import gc
import http.server
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import pytest

from tests.integration.test_sources import joined_between_key_frames
from tests.support import media
from tests.support.broker import free_port
from tests.support.odd_servers import begin, http_server
from tests.support.process import ManagedProcess
from tests.support.rtsp import RtspServer
from tests.support.sources import PATIENCE_S
from visaged.pipelines.attributes import NoReader
from visaged.pipelines.batcher import Batcher, WhenFull
from visaged.pipelines.records import CameraStatus, Frame
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.worker import Worker
from visaged.pipelines.source.camera import Backoff, Camera
from visaged.pipelines.source.video import SourceConfig
from visaged.pipelines.tracking.job import FrameJob, FrameStage
from visaged.pipelines.tracking.tracks import CameraTracks, TrackingSpec

pytestmark = pytest.mark.timed

ROOT = Path(__file__).parents[2]


class Rig:
    """Cameras with a batcher and one consumer, which spends `work_s` on every frame."""

    def __init__(self, work_s: float = 0.0) -> None:
        self.batcher = Batcher(max_batch=1, max_wait_s=0.0, max_pictures=1)
        self.metrics = Metrics()
        self.statuses: list[CameraStatus] = []
        self.frames: list[Frame] = []
        self.taken_s: list[float] = []
        self.deaths: list[BaseException] = []
        self.cameras: dict[str, Camera] = {}
        self._work_s = work_s
        self._changed = threading.Condition()
        self._workers: list[Worker] = []
        self._consumer = Worker("consumer", self._consume, self._died)

    def add(
        self,
        url: object,
        name: str = "door",
        backoff: Backoff | None = None,
        on_status: Callable[[CameraStatus], None] = lambda status: None,
        **options: Any,
    ) -> Camera:
        """Start a camera."""

        def heard(status: CameraStatus) -> None:
            on_status(status)
            with self._changed:
                self.statuses.append(status)
                self._changed.notify_all()

        settings: dict[str, Any] = {"open_timeout_s": 10.0, "read_timeout_s": 5.0, "fps": None} | options
        backoff = backoff or Backoff(0.05, 0.2)
        config = SourceConfig(url=str(url), **settings)
        lane = self.batcher.open_lane(*((WhenFull.DROP_OLDEST, 1) if config.live else (WhenFull.WAIT, 2)))
        counters = self.metrics.camera(name)
        tracks = CameraTracks(name, TrackingSpec(), NoReader())
        stage = FrameStage(tracks, counters, self.metrics, lambda result: None)
        camera = Camera(name, config, 320, 32, lane, stage.job, counters, heard, backoff=backoff)
        worker = Worker(f"camera {name}", camera.run, self._died)
        self.cameras[name] = camera
        self._workers.append(worker)
        worker.start()
        return camera

    def wait_for(self, condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        """Wait until statuses or frames bring something about."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), f"not within {timeout_s} s: {self.statuses[-5:]}"

    def wait_for_state(self, state: str, after: int = 0) -> CameraStatus:
        """Wait for the first status with that state from number `after` on."""
        self.wait_for(lambda: any(status.state == state for status in self.statuses[after:]))
        return next(status for status in self.statuses[after:] if status.state == state)

    def sample(self, name: str, **labels: str) -> float:
        """Return a series' value."""
        return self.metrics.registry.get_sample_value(f"visaged_{name}", {"camera": "door"} | labels) or 0.0

    def __enter__(self) -> Self:
        self._consumer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.stop()
        assert all(worker.join(PATIENCE_S) for worker in self._workers), "a camera did not stop"
        self._consumer.stop()
        assert self._consumer.join(PATIENCE_S)

    def _consume(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            batch = self.batcher.take(0.1)
            for job in batch:
                assert isinstance(job, FrameJob)
                stopping.wait(self._work_s)
                job.release()
                with self._changed:
                    self.frames.append(job.frame)
                    self.taken_s.append(time.monotonic())
                    self._changed.notify_all()
            self.batcher.done(batch)

    def _died(self, name: str, error: BaseException) -> None:
        self.deaths.append(error)


def states(statuses: list[CameraStatus]) -> list[str]:
    return [state for state, _ in itertools.groupby(status.state for status in statuses)]


def test_status_says_that_it_waits_for_a_key_frame(tmp_path: Path) -> None:
    with joined_between_key_frames(tmp_path, 40.0) as url, Rig() as rig:
        rig.add(url, read_timeout_s=1.0, open_timeout_s=8.0)
        rig.wait_for(lambda: any("key frame" in status.error for status in rig.statuses))
        waiting = next(status for status in rig.statuses if status.error)
        assert (waiting.state, waiting.cause) == ("connecting", "")
        assert rig.wait_for_state("streaming").error == ""
    assert states(rig.statuses)[:2] == ["connecting", "streaming"]
    assert rig.sample("reconnects_total") == 0.0


# Going and coming


def test_camera_that_loses_its_power_comes_back_by_itself(
    rtsp_server: RtspServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Rig() as rig:
        camera = rig.add(rtsp_server.url("/normal"))
        rig.wait_for_state("streaming")
        rig.wait_for(lambda: len(rig.frames) >= 5)
        rtsp_server.kill()
        rig.wait_for_state("waiting")
        rig.wait_for(lambda: rig.statuses[-1].cause == "refused")
        rig.wait_for(lambda: rig.sample("camera_failures_total", cause="refused") >= 4)
        gone = len(rig.statuses)
        frames = len(rig.frames)
        rtsp_server.restart()
        back = rig.wait_for_state("streaming", gone)
        rig.wait_for(lambda: len(rig.frames) >= frames + 5)
        assert back.error == back.cause == ""
        assert back.codec == "h264"
        assert back.reconnects >= 3
        assert rig.sample("camera_reconnects_total") == camera.status.reconnects
        assert rig.sample("camera_state", state="streaming") == 1.0
        assert rig.sample("camera_state", state="waiting") == 0.0
        assert rig.frames[0].stream == 1
        assert rig.frames[-1].stream > rig.frames[0].stream, "tracks do not outlive a connection"
    sequence = states(rig.statuses)
    assert sequence[:3] == ["streaming", "waiting", "connecting"]
    assert sequence[-2:] == ["streaming", "stopped"]
    assert set(sequence[3:-2]) <= {"waiting", "connecting"}
    assert camera.status.state == "stopped"
    # One line for the loss, one for the first refusal, none for the tries after it.
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(warnings) <= 3, warnings
    assert len([r for r in caplog.records if "streaming h264" in r.getMessage()]) == 2
    assert not rig.deaths


def test_camera_that_stays_away_is_tried_ever_less_often_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    waits: list[float] = []

    class Recording(Backoff):
        def next_s(self) -> float:
            waits.append(super().next_s())
            return waits[-1]

    with Rig() as rig:
        rig.add(f"rtsp://127.0.0.1:{free_port()}/x", backoff=Recording(0.01, 0.16, jitter=0.0))
        rig.wait_for(lambda: len(waits) >= 8)
    assert waits[:8] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.16, 0.16, 0.16, 0.16])
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1, lines
    assert "refused the connection" in lines[0]
    assert not rig.deaths


def test_backoff_begins_anew_only_after_pictures_came_for_a_while(rtsp_server: RtspServer) -> None:
    """A camera that is stalled whenever it is opened stays `streaming` for two read timeouts each time."""
    waits: list[float] = []

    class Recording(Backoff):
        def next_s(self) -> float:
            waits.append(super().next_s())
            return waits[-1]

    rtsp_server.stall()
    with Rig() as rig:
        Camera._GOOD_S, good_s = 0.5, Camera._GOOD_S
        try:
            backoff = Recording(0.01, 1.0, jitter=0.0)
            rig.add(rtsp_server.url("/stall"), backoff=backoff, open_timeout_s=1.5, read_timeout_s=0.5)
            rig.wait_for(lambda: len(waits) >= 2)
        finally:
            Camera._GOOD_S = good_s
    assert waits[:2] == pytest.approx([0.01, 0.02])


@pytest.mark.parametrize("fault", ["stall", "drop"])
def test_stalls_and_drops_are_recovered_from(rtsp_server: RtspServer, fault: str) -> None:
    with Rig() as rig:
        rig.add(rtsp_server.url(f"/{fault}"), read_timeout_s=1.0)
        rig.wait_for(lambda: len(rig.frames) >= 5)
        if fault == "stall":
            rtsp_server.stall()
        else:
            rtsp_server.drop("/drop")
        waiting = rig.wait_for_state("waiting")
        assert waiting.cause == {"stall": "timeout", "drop": "ended"}[fault]
        assert waiting.error
        if fault == "stall":
            rtsp_server.resume()
        gone = len(rig.frames)
        rig.wait_for(lambda: len(rig.frames) >= gone + 10)
        assert rig.cameras["door"].status.state == "streaming"


def test_nothing_is_left_behind_by_reconnects(rtsp_server: RtspServer) -> None:
    def counts() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with Rig() as rig:
        rig.add(rtsp_server.url("/normal"))
        measured: list[tuple[int, int]] = []
        for _ in range(3):
            rig.wait_for(lambda: rig.cameras["door"].status.state == "streaming")
            seen = len(rig.frames)
            rig.wait_for(lambda seen=seen: len(rig.frames) >= seen + 3)
            measured.append(counts())
            rtsp_server.kill()
            refused = rig.sample("camera_failures_total", cause="refused")
            rig.wait_for(lambda refused=refused: rig.sample("camera_failures_total", cause="refused") >= refused + 5)
            rtsp_server.restart()
    # The server's own pipes are new with every start, and as many as before.
    assert measured[-1][0] <= measured[0][0]
    assert measured[-1][1] <= measured[0][1]


def test_a_waiting_camera_holds_no_decoder(rtsp_server: RtspServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error's traceback would, with some pictures, for as long as the error is kept."""
    containers: list[Any] = []
    open_it = av.open

    def remember(*arguments: Any, **options: Any) -> Any:
        containers.append(open_it(*arguments, **options))
        return containers[-1]

    def held() -> int:
        """Count the references to the first container besides the list's."""
        others = [object()]
        return sys.getrefcount(containers[0]) - sys.getrefcount(others[0])

    monkeypatch.setattr("visaged.pipelines.source.opening.opener.av.open", remember)
    gc.disable()
    try:
        with Rig() as rig:
            rig.add(rtsp_server.url("/stall"), backoff=Backoff(60.0, 60.0), read_timeout_s=0.5)
            rig.wait_for(lambda: len(rig.frames) >= 5)
            assert held() > 0
            rtsp_server.stall()
            assert rig.wait_for_state("waiting").cause == "timeout"
            until = time.monotonic() + 5.0  # the status is told a moment before the thread rests
            while held() and time.monotonic() < until:
                time.sleep(0.02)
            assert held() == 0
    finally:
        gc.enable()


def test_new_size_is_in_the_status(rtsp_server: RtspServer) -> None:
    with Rig() as rig:
        rig.add(rtsp_server.url("/resize"))
        status = rig.wait_for_state("streaming")
        assert (status.codec, status.width, status.height) == ("h264", 640, 360)
        rtsp_server.resize(1280, 720)
        rig.wait_for(lambda: rig.frames and rig.frames[-1].surface.width == 1280)
        status = rig.cameras["door"].status
        assert (status.state, status.width, status.height) == ("streaming", 1280, 720)
        assert status.reconnects == 0


@pytest.mark.parametrize("pid", [256, 512], ids=["same-pid", "other-pid"])
def test_camera_that_changes_its_codec_goes_on(tmp_path: Path, pid: int) -> None:
    """Somebody switches it to H.265 in its menu, while it streams."""
    old = media.write_video(tmp_path / "old.ts", size=(320, 180), seconds=2, gop=10).read_bytes()
    new = _hevc(tmp_path / "new.ts", pid).read_bytes()
    connections = itertools.count()

    def camera(handler: http.server.BaseHTTPRequestHandler) -> None:
        begin(handler, "video/mp2t")
        if next(connections) == 0:
            handler.wfile.write(old)
        while True:
            for start in range(0, len(new), 188 * 7):
                handler.wfile.write(new[start : start + 188 * 7])
                time.sleep(0.02)

    with http_server(camera) as url, Rig() as rig:
        rig.add(f"{url}/live.ts", read_timeout_s=1.0)
        rig.wait_for(lambda: rig.statuses and rig.statuses[-1].codec == "h264")
        rig.wait_for(lambda: rig.statuses[-1].codec == "hevc" and rig.statuses[-1].state == "streaming")
        seen = len(rig.frames)
        rig.wait_for(lambda: len(rig.frames) > seen + 5)
    assert not rig.deaths


def _hevc(path: Path, pid: int) -> Path:
    with av.open(path, "w", options={"mpegts_start_pid": str(pid)}) as container:
        stream = container.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.options = {"x265-params": "log-level=none:keyint=10:bframes=0"}
        for index, picture in enumerate(media.pictures(320, 180, 50)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_missing_usb_camera_waits_for_it() -> None:
    with Rig() as rig:
        rig.add("/dev/video99")
        status = rig.wait_for_state("waiting")
        assert status.cause in ("not_found", "device")
        assert status.error.startswith("/dev/video99")
        rig.wait_for(lambda: rig.cameras["door"].status.reconnects >= 3)
    assert not rig.deaths


def test_bug_in_our_own_code_is_not_hidden_as_a_bad_camera(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "clip.mp4", size=(160, 120), seconds=1)

    def fail(_status: CameraStatus) -> None:
        raise OSError("a bug")

    with Rig() as rig:
        rig.add(clip, on_status=fail)
        deadline = time.monotonic() + PATIENCE_S
        while not rig.deaths and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [str(death) for death in rig.deaths] == ["a bug"]


# Stopping


def test_hung_camera_stops_within_its_bound_and_without_a_crash(rtsp_server: RtspServer) -> None:
    """In a process of its own: closing the container from another thread is a segmentation fault."""
    script = """
import sys, threading, time
from tests.integration.test_cameras import Rig
with Rig() as rig:
    rig.add(sys.argv[1], read_timeout_s=1.0)
    rig.wait_for(lambda: len(rig.frames) >= 5)
    print("streaming", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
print("stopped in", time.monotonic() - began, flush=True)
"""
    argv = [sys.executable, "-c", script, rtsp_server.url("/stall")]
    with ManagedProcess(argv, cwd=str(ROOT)) as process:
        process.wait_for_line("streaming")
        rtsp_server.stall()
        process.write_line("stop")
        line = process.wait_for_line("stopped in")
        assert process.wait(30.0) == 0
    assert float(line.split()[-1]) < 2 * 1.0 + 4.0


def test_stop_while_waiting_is_immediate() -> None:
    with Rig() as rig:
        rig.add(f"rtsp://127.0.0.1:{free_port()}/x", backoff=Backoff(60.0, 60.0))
        rig.wait_for_state("waiting")
        began = time.monotonic()
    assert time.monotonic() - began < 5.0


# Hand-over


def test_slow_consumer_sees_the_newest_frame(rtsp_server: RtspServer) -> None:
    with Rig(work_s=0.3) as rig:
        rig.add(rtsp_server.url("/normal"))
        rig.wait_for(lambda: len(rig.frames) >= 10)
        dropped = rig.sample("frames_dropped_total", cause="overtaken")
        received = rig.sample("frames_received_total")
    # 25 a second come, 3 are taken.
    assert dropped > 30
    assert rig.sample("frames_sampled_total") >= received
    waits = sorted(taken - 0.3 - frame.ready_s for frame, taken in zip(rig.frames, rig.taken_s, strict=True))
    assert waits[len(waits) // 2] < 0.15, "what was taken had just come"
    order = [frame.motion_s for frame in rig.frames]
    assert order == sorted(order)


def test_slow_consumer_gets_every_frame_of_a_file(tmp_path: Path) -> None:
    clip = media.write_video(tmp_path / "clip.mp4", size=(160, 120), seconds=2)
    with Rig(work_s=0.02) as rig:
        camera = rig.add(clip, pace="fast")
        rig.wait_for_state("ended")
        rig.wait_for(lambda: len(rig.frames) == 50)
        assert rig.sample("frames_received_total") == 50
        assert rig.sample("frames_dropped_total", cause="overtaken") == 0
    steps = [b.motion_s - a.motion_s for a, b in itertools.pairwise(rig.frames)]
    assert steps == pytest.approx([0.04] * 49, abs=1e-3)
    lead = [index for index, frame in enumerate(rig.frames) if frame.ready_s > rig.taken_s[0] + 0.2]
    assert lead, "the reader waited for the consumer"
    assert camera.status.error == ""


def test_dead_camera_does_not_delay_another(rtsp_server: RtspServer) -> None:
    with Rig() as rig:
        rig.add(rtsp_server.url("/stall"), name="hung", read_timeout_s=5.0)
        rig.add(f"rtsp://127.0.0.1:{free_port()}/x", name="gone")
        rig.add(rtsp_server.url("/normal"), name="door")
        rig.wait_for(lambda: {"hung", "door"} <= {frame.camera for frame in rig.frames})
        rtsp_server.stall()
        start = len(rig.frames)
        rig.wait_for(lambda: sum(frame.camera == "door" for frame in rig.frames[start:]) >= 40)
        good = [(f, t) for f, t in zip(rig.frames[start:], rig.taken_s[start:], strict=True) if f.camera == "door"]
        assert rig.cameras["hung"].status.state == "streaming", "not yet noticed"
    delays = sorted(taken - frame.ready_s for frame, taken in good)
    assert delays[len(delays) * 9 // 10] < 0.1
    gaps = [b - a for (_, a), (_, b) in itertools.pairwise(good)]
    assert max(gaps) < 1.0
