"""What live pictures cost: analysed frames of a daemon at full load, with ten viewers and without, in turns.

    python -m tests.benchmarks live

Four recordings are analysed as fast as the machine can (`pace: fast`), so whatever looking takes is missing to
analysing. Rounds with and without viewers alternate in one run, as the machine's speed changes; their ratio counts.
What looking costs while nobody does is the time of the two frame sinks, measured alone, against that of a frame. The
viewers run on the same cores, in one thread that drops what it reads, and their cost counts as well. On a machine with
other programs, the daemon's processor time for each analysed frame says more than the frames a second.
"""

from __future__ import annotations

import os
import selectors
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.clip import ROOT
from tests.support.broker import free_port
from tests.support.live import Viewer
from tests.support.program import RunningDaemon
from visaged.models.preprocess import canvas_for
from visaged.models.surface import ImageSurface
from visaged.pipelines.live.pictures import LivePictures
from visaged.pipelines.live.pulse import Pulse
from visaged.pipelines.presentation import Presentation
from visaged.pipelines.records import Frame, FrameResult
from visaged.pipelines.runtime.metrics import Metrics

_CAMERAS, _VIEWERS = 4, 10
_ROUNDS, _ROUND_S, _SETTLE_S = 8, 3.0, 0.5


class _Crowd:
    """Viewers of all kinds in one thread: two pages that show all cameras, and two players of each camera."""

    def __init__(self, host: str, port: int) -> None:
        paths = ["/v1/live"] * (_VIEWERS - 2 * _CAMERAS)
        paths += [f"/v1/cameras/camera{i}/live.mjpeg?width=640" for i in range(_CAMERAS)] * 2
        self._stopping = threading.Event()
        self._selector = selectors.DefaultSelector()
        for path in paths:
            opened = socket.create_connection((host, port), 10)
            opened.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            self._selector.register(opened, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _read(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(0.2):
                key.fileobj.recv(1 << 20)  # type: ignore[union-attr]


def main() -> None:
    """Measure and print."""
    clip = ROOT / "daemon" / "demo" / "demo.mp4"
    cameras = [
        {"name": f"camera{i}", "url": str(clip), "loop": True, "fps": None, "pace": "fast"} for i in range(_CAMERAS)
    ]
    with tempfile.TemporaryDirectory() as folder:
        document = {"mqtt": {"port": free_port()}, "cameras": cameras, "log": {"level": "warning"}}
        with RunningDaemon(Path(folder), document) as daemon:
            _measure(daemon)


def _measure(daemon: RunningDaemon) -> None:
    host, port = daemon.client.base_url.host, daemon.client.base_url.port or 80
    time.sleep(5)
    rates: dict[str, list[float]] = {"nobody": [], "viewers": []}
    cpu: dict[str, list[float]] = {"nobody": [], "viewers": []}
    made = 0.0
    for number in range(2 * _ROUNDS):
        who = ("nobody", "viewers", "viewers", "nobody")[number % 4]
        crowd = _Crowd(host, port) if who == "viewers" else None
        time.sleep(_SETTLE_S)
        pictures = daemon.metric("live_pictures_total")
        cpu_s = _cpu_s(daemon)
        frames, began_s = daemon.metric("frames_analysed_total"), time.perf_counter()
        time.sleep(_ROUND_S)
        analysed, seconds = daemon.metric("frames_analysed_total") - frames, time.perf_counter() - began_s
        rates[who].append(analysed / seconds)
        cpu[who].append((_cpu_s(daemon) - cpu_s) / analysed)
        if crowd is not None:
            made += daemon.metric("live_pictures_total") - pictures
            crowd.close()
    nobody, viewers = (statistics.median(rates[who]) for who in ("nobody", "viewers"))
    nobody_cpu, viewers_cpu = (statistics.median(cpu[who]) for who in ("nobody", "viewers"))
    first = [_first_s(daemon, f"/v1/cameras/camera{i % _CAMERAS}/live.mjpeg") for i in range(8)]
    sink_s = _sink_s()
    print(f"rounds: {', '.join(f'{who} ' + ' '.join(f'{rate:.1f}' for rate in rates[who]) for who in rates)}")
    print("| What | Measured |")
    print("| --- | --- |")
    print(f"| analysed frames a second, {_CAMERAS} recordings as fast as they go, nobody looks | {nobody:.1f} |")
    print(f"| the same with {_VIEWERS} viewers of {_CAMERAS} cameras (640 px, 5 fps) | {viewers:.1f} |")
    print(f"| what they cost | {100 * (1 - viewers / nobody):.1f} % |")
    print(f"| processor time a frame, nobody looks / viewers | {1e3 * nobody_cpu:.1f} / {1e3 * viewers_cpu:.1f} ms |")
    print(f"| what they cost by that | {100 * (1 - nobody_cpu / viewers_cpu):.1f} % |")
    print(f"| live pictures a second | {made / _ROUNDS / _ROUND_S:.1f} |")
    print(f"| what it costs while nobody looks | {sink_s * 1e6:.1f} us a frame, {100 * sink_s * nobody:.3f} % |")
    print(f"| first picture after the request | median {statistics.median(first):.2f} s, longest {max(first):.2f} s |")


def _cpu_s(daemon: RunningDaemon) -> float:
    """Return the processor time of the daemon, on which other programs of the machine have little influence."""
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _first_s(daemon: RunningDaemon, path: str) -> float:
    began_s = time.perf_counter()
    with Viewer(daemon.client, path) as viewer:
        viewer.picture()
    return time.perf_counter() - began_s


def _sink_s(calls: int = 20_000) -> float:
    """Return the seconds that the two sinks take of a result that nobody looks at."""
    surface = ImageSurface(np.zeros((360, 640, 3), np.uint8))
    canvas = canvas_for(640, 360, 640)
    frame = Frame("camera", 1, canvas, canvas.blank(), surface, Presentation(640, 360), 1.0, 1.0, 1.0, "arrival", 1.0,
                  1.0, None, lambda: None)  # fmt: skip
    result = FrameResult(frame, [], [], 1.0, 1.0)
    sinks = [Pulse(), LivePictures(Metrics())]
    began_s = time.perf_counter()
    for _ in range(calls):
        for sink in sinks:
            sink(result)  # type: ignore[operator]
    return (time.perf_counter() - began_s) / calls


if __name__ == "__main__":
    main()
