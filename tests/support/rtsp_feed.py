"""What the test camera of rtsp_server.py sends: a clip in memory, and a thread a client that pushes it with faults."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import Any

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

SMALL = (640, 360)


@dataclass(frozen=True)
class AccessUnit:
    """One coded picture; times in nanoseconds from the clip's start, `due` is when to send it."""

    data: bytes
    pts: int
    dts: int
    due: int
    duration: int


@dataclass(frozen=True)
class Clip:
    """The clip's pictures in decoding order, its length, and how far time stamps run ahead of `due` (ns)."""

    caps: Any
    units: list[AccessUnit]
    length: int
    ahead: int


def load_clip(path: str, fps: float) -> Clip:
    """Reads an mp4, or a raw .h264 without B-pictures, which is given the constant rate `fps`."""
    is_raw = not path.endswith((".mp4", ".m4v", ".mov"))
    pipeline = Gst.parse_launch(
        f"filesrc name=file {'' if is_raw else '! qtdemux'} ! h264parse config-interval=-1"
        " ! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=out sync=false"
    )
    pipeline.get_by_name("file").set_property("location", path)
    out = pipeline.get_by_name("out")
    pipeline.set_state(Gst.State.PLAYING)
    samples = []
    while True:
        sample = out.emit("try-pull-sample", Gst.SECOND)
        if sample is not None:
            samples.append(sample)
        elif pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR) or out.get_property("eos"):
            break
    pipeline.set_state(Gst.State.NULL)
    if not samples:
        raise SystemExit(f"no H.264 pictures in {path}")
    buffers = [sample.get_buffer() for sample in samples]
    step = int(Gst.SECOND / fps)
    if is_raw:
        times = [(i * step, i * step, step) for i in range(len(buffers))]
    else:
        none = Gst.CLOCK_TIME_NONE
        times = [
            (b.pts, b.pts if b.dts == none else b.dts, step if b.duration == none else b.duration) for b in buffers
        ]
    start = min(pts for pts, _, _ in times)
    first_dts = times[0][1]  # before `start` if there are B-pictures
    units = [
        AccessUnit(
            buffers[i].extract_dup(0, buffers[i].get_size()), pts - start, dts - start, dts - first_dts, duration
        )
        for i, (pts, dts, duration) in enumerate(times)
    ]
    caps = Gst.Caps.from_string("video/x-h264,stream-format=byte-stream,alignment=au")
    return Clip(
        caps=caps,
        units=units,
        length=max(unit.pts + unit.duration for unit in units),
        ahead=max(unit.pts - unit.due for unit in units),
    )


@dataclass
class Mount:
    """The faults of one path, set in the main loop and read by its clients' feeders."""

    path: str
    is_stalled: bool = False
    is_bursting: bool = False
    damaged_share: float = 0.0
    size: tuple[int, int] = SMALL
    pictures: int = 0
    resized: list[Any] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, pictures: int) -> None:
        with self._lock:
            self.pictures += pictures

    def reset(self) -> None:
        """Sets what the path is named for."""
        self.is_stalled = False
        self.is_bursting = self.path == "/burst"
        self.damaged_share = 0.35 if self.path == "/corrupt" else 0.0
        self.size = SMALL


def damage(data: bytes, rng: random.Random) -> bytes:
    """Overwrites 1 to 20 bytes behind the picture's headers, as a bad link would."""
    if len(data) < 64:
        return data
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 20)):
        damaged[rng.randrange(48, len(data))] = rng.randrange(256)
    return bytes(damaged)


class Feeder(threading.Thread):
    """Pushes the clip into one client's pipeline, each picture at its due time, until `stop()`."""

    def __init__(self, source: Any, clip: Clip, mount: Mount) -> None:
        super().__init__(name=f"feeder {mount.path}", daemon=True)
        self._source, self._clip, self._mount = source, clip, mount
        self._stopped = threading.Event()
        self._playing = threading.Event()
        self._rng = random.Random(1)
        self._held: list[Any] = []
        self._release_at = 0
        source.set_property("caps", clip.caps)
        source.connect("need-data", lambda *_: self._playing.set())

    def stop(self) -> None:
        self._stopped.set()
        self._playing.set()

    def run(self) -> None:
        self._playing.wait()
        origin = self._start()
        is_first = True
        while not self._stopped.is_set():
            origin, is_first = self._play_once(origin, is_first)

    def _play_once(self, origin: int, is_first: bool) -> tuple[int, bool]:
        """Plays the clip once; returns when the next round starts and whether its first picture must get through."""
        for unit in self._clip.units:
            self._wait_until(origin + unit.due)
            was_stalled = False
            while self._mount.is_stalled and not is_first and not self._stopped.wait(0.01):
                was_stalled = True
            if self._stopped.is_set():
                return origin, is_first
            if was_stalled:
                # From the first key frame again: no decoder has to wait for the end of a group of pictures.
                return self._start(), True
            if not self._send(unit, origin, is_first):
                self._stopped.set()
                return origin, is_first
            is_first = False
        return origin + self._clip.length, False

    def _send(self, unit: AccessUnit, origin: int, is_first: bool) -> bool:
        data = unit.data
        if not is_first and self._rng.random() < self._mount.damaged_share:
            data = damage(data, self._rng)
        buffer = Gst.Buffer.new_wrapped(data)
        # With B-pictures a picture is sent before its time stamp. Shifted back, none waits in the sink for its time.
        buffer.pts = origin + unit.pts - self._clip.ahead
        buffer.dts = origin + unit.dts - self._clip.ahead
        buffer.duration = unit.duration
        self._held.append(buffer)
        if self._mount.is_bursting and not is_first and self._now() < self._release_at:
            return True
        self._release_at = self._now() + self._rng.randint(400, 500) * Gst.MSECOND
        is_accepted = True
        for held in self._held:
            is_accepted = self._source.emit("push-buffer", held) == Gst.FlowReturn.OK and is_accepted
        self._mount.count(len(self._held))
        self._held.clear()
        return is_accepted

    def _start(self) -> int:
        """When to start the clip so that no time stamp lies before the pipeline's start."""
        return self._now() + self._clip.ahead - min(0, self._clip.units[0].dts)

    def _now(self) -> int:
        """The pipeline's running time, ns; 0 before it runs."""
        now = self._source.get_current_running_time()
        return 0 if now == Gst.CLOCK_TIME_NONE else now

    def _wait_until(self, due: int) -> None:
        while not self._stopped.is_set():
            left = due - self._now()
            if left <= 0:
                return
            self._stopped.wait(left / Gst.SECOND)
