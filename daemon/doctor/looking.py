"""Looks at one camera with the daemon's own reader and detector, for some seconds."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from visaged.daemon.doctor import measures
from visaged.daemon.doctor.limits import LIMITS
from visaged.daemon.doctor.report import CameraTime, Cost, Damage, Facts, Stream
from visaged.daemon.doctor.scenes import Scenes
from visaged.daemon.doctor.watching import DecoderLog, Notes, Watcher
from visaged.models.detector import Detector
from visaged.pipelines.presentation import UPRIGHT
from visaged.pipelines.records import Frame
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.errors import SourceError
from visaged.pipelines.source.video import VideoSource

_TURN_S = 0.2
_LAST_S = 1.0
"""Longest wait in seconds for the reading thread; one that waits for data is left behind."""
_BEHIND_S, _AHEAD_S = 1.0, 0.5
"""As `CameraClock` judges: how far a camera's clock may be behind, delay included, and ahead."""


@dataclass(frozen=True)
class Patient:
    """What is looked at, and how.

    Attributes:
        config: The source.
        login: User and password, if they are not in the URL.
        long_side: Long side of the detector's canvas in pixels.
        close_up: Whether frames are searched on smaller canvases too.
        min_confidence: Smallest confidence of a face; None for the detector's own threshold.
        seconds: How long to look from the moment at which the source is open.
    """

    config: SourceConfig
    login: tuple[str | None, str | None]
    long_side: int
    close_up: bool
    min_confidence: float | None
    seconds: float


class Look:
    """One look at a camera.

    Args:
        patient: What is looked at.
        detector: The network.

    Attributes:
        failure: Why the source could not be opened, or broke; None if neither.
        is_hanging: Whether the reading thread still waits for the camera, after `run`.
    """

    def __init__(self, patient: Patient, detector: Detector) -> None:
        self._patient = patient
        # A file of an hour is not worth an hour; its first seconds are read as fast as they can be.
        config = patient.config
        self._config = config.model_copy(update={"pace": "fast", "loop": False}) if config.is_file else config
        self._watcher = Watcher()
        self._scenes = Scenes(detector, patient.long_side, patient.close_up, patient.min_confidence)
        self._stopping = threading.Event()
        self._damaged = 0
        self._sizes: list[tuple[int, int]] = []
        self._frame: Frame | None = None
        self._waiting = ""
        self._ended = threading.Event()
        self._crash: Exception | None = None
        self._logged: DecoderLog | None = None
        self._notes = Notes()
        self._source = VideoSource(
            "doctor",
            self._config,
            patient.long_side,
            self._deliver,
            on_open=lambda codec, width, height: self._sizes.append((width, height)),
            on_received=lambda kept: None,
            on_damaged=self._damage,
            on_waiting=self._wait,
            credentials=patient.login,
            multiple_of=detector.multiple_of,
            observer=self._watcher,
        )
        self.failure: SourceError | None = None
        self.is_hanging = False

    def run(self, interrupted: threading.Event, progress: Callable[[str], None]) -> Facts:
        """Look until the time is over, the source ends, or `interrupted` is set; return what was found.

        Args:
            interrupted: Set by the user's Ctrl-C.
            progress: Called several times a second with what is going on, one short line.
        """
        self._began_s = time.monotonic()
        with contextlib.ExitStack() as listeners:
            listeners.enter_context(self._notes)
            if self._config.decoder_threads == 1 and self._config.hardware == "off":
                self._logged = listeners.enter_context(DecoderLog())
            reader = threading.Thread(target=self._read, name="doctor camera", daemon=True)
            reader.start()
            while not (self._ended.wait(_TURN_S) or interrupted.is_set() or self._is_over()):
                progress(self._state())
            ended_s = time.monotonic()
            self._stopping.set()
            reader.join(_LAST_S)
            self.is_hanging = reader.is_alive()
            self._scenes.stop(_LAST_S)
        if self._crash is not None:
            raise self._crash
        if self._scenes.failure is not None:
            raise self._scenes.failure
        return self._facts(ended_s, interrupted.is_set())

    def _read(self) -> None:
        try:
            self._source.run(self._stopping)
        except SourceError as error:
            self.failure = error
        except Exception as error:
            self._crash = error
        self._ended.set()

    def _is_over(self) -> bool:
        opened_s = self._watcher.opened_s
        return opened_s is not None and time.monotonic() - opened_s >= self._patient.seconds

    def _state(self) -> str:
        opened_s, now_s = self._watcher.opened_s, time.monotonic()
        if opened_s is None:
            return f"opening, {now_s - self._began_s:.0f} s"
        text = f"{now_s - opened_s:.0f} of {self._patient.seconds:.0f} s, {len(self._watcher.packets)} pictures"
        return f"{text}; {self._waiting}" if self._waiting and not self._watcher.frames else text

    def _deliver(self, frame: Frame, stopping: threading.Event) -> bool:
        self._frame = frame
        first_s = self._watcher.frames[0].stamp_s if self._watcher.frames else 0.0
        self._scenes.take(frame, not self._source.live, stopping)
        if self._config.is_file:
            return self._watcher.frames[-1].stamp_s - first_s < self._patient.seconds
        return True

    def _damage(self) -> None:
        self._damaged += 1

    def _wait(self, reason: str) -> None:
        self._waiting = "waits for a key frame"

    def _facts(self, ended_s: float, interrupted: bool) -> Facts:
        watcher = self._watcher
        looked_s = 0.0 if watcher.opened_s is None else ended_s - watcher.opened_s
        frames = measures.frames(watcher, looked_s)
        return Facts(
            looked_s=round(looked_s, 2),
            interrupted=interrupted,
            reach=measures.reach(watcher, self._began_s),
            stream=self._stream(),
            frames=frames,
            bits=measures.bits(watcher),
            arrival=measures.arrival(watcher, ended_s),
            damage=self._losses(),
            stamps=measures.stamps(watcher),
            camera_time=self._camera_time(),
            cost=self._cost(frames.true_fps),
            faces=self._scenes.faces(),
            light=self._scenes.light(),
            notes=list(self._notes.texts),
        )

    def _stream(self) -> Stream | None:
        opened, picture = self._watcher.stream, self._watcher.picture
        if opened is None:
            return None
        shown = self._frame.presentation if self._frame is not None else None
        width, height = self._sizes[-1] if self._sizes else (None, None)
        is_still = opened.is_still and self._watcher.rounds > 1
        return Stream(
            kind="recording" if opened.is_recording else "pictures" if is_still else "live",
            transport=transport_of(self._config),
            container=opened.container,
            codec=opened.codec,
            profile=opened.profile,
            level=level_of(opened.codec, opened.level),
            width=width,
            height=height,
            pixel_aspect=None if shown is None else round(shown.pixel_aspect, 4),
            turned=shown is not None and shown.turn != UPRIGHT,
            sizes=len(set(self._sizes)),
            pixel_format=picture.pixel_format if picture is not None else None,
            full_range=picture.is_full_range if picture is not None else None,
            interlaced=picture is not None and picture.is_interlaced,
        )

    def _losses(self) -> Damage:
        log = self._logged
        is_rtp = self._config.address.scheme in ("rtsp", "rtsps", "rtp") or self._config.address.kind == "sdp"
        mended = 0 if log is None else log.mended
        return Damage(
            damaged_packets=self._damaged - self._watcher.corrupt,
            corrupt_frames=max(self._watcher.corrupt, mended),
            lost_rtp_packets=log.lost if log is not None and is_rtp else None,
        )

    def _camera_time(self) -> CameraTime:
        behind_s = self._watcher.clock_behind_s
        if behind_s is None or not self._watcher.clock_is_sent:
            return CameraTime(is_sent=self._watcher.clock_is_sent)
        return CameraTime(
            is_sent=True, behind_ms=round(behind_s * 1000, 1), is_plausible=-_AHEAD_S <= behind_s <= _BEHIND_S
        )

    def _cost(self, true_fps: float | None) -> Cost:
        watcher, detector, cores = self._watcher, self._scenes.detector, core_count()
        detect_ms = self._scenes.detect_ms
        wanted = self._config.fps
        fps = true_fps if wanted is None else wanted if true_fps is None else min(wanted, true_fps)
        known = Cost(cores=cores, detector=detector.name, provider=detector.provider, fps=fps)
        seconds = measures.span_s(watcher, watcher.packets)
        if seconds < 1.0 or not watcher.decode_s or detect_ms is None or fps is None:
            return known
        used_s = max(0.0, watcher.busy_s[1] - watcher.busy_s[0] - self._scenes.busy_s)
        is_single = self._config.decoder_threads == 1 and not (watcher.stream and watcher.stream.is_hardware)
        return estimate(
            known.model_copy(
                update={
                    "decode_ms": round(sum(watcher.decode_s) / len(watcher.decode_s) * 1000, 2) if is_single else None,
                    "read_ms_per_s": round(used_s / seconds * 1000, 1),
                    "detect_ms": round(detect_ms, 2),
                }
            ),
            detector.on_gpu,
        )


def estimate(cost: Cost, on_gpu: bool) -> Cost:
    """Return the cost with the number of such cameras that the machine carries, and how it was computed."""
    assert cost.read_ms_per_s is not None
    assert cost.detect_ms is not None
    assert cost.fps is not None
    search_ms = cost.fps * cost.detect_ms
    each_ms = cost.read_ms_per_s + (0.0 if on_gpu else search_ms)
    carried = LIMITS.load * cost.cores * 1000 / max(each_ms, 0.01)
    where = f"{cost.read_ms_per_s:.0f} ms a second to read and decode"
    searched = f"{cost.fps:g} x {cost.detect_ms:.1f} ms to search"
    text = f"{LIMITS.load} x {cost.cores} cores x 1000 ms / ({where} + {searched})"
    if on_gpu:
        text = f"the smaller of {LIMITS.load} x {cost.cores} cores x 1000 ms / {where}, and {LIMITS.load} x 1000 ms / "
        text += f"({searched}) on the GPU"
        carried = min(carried, LIMITS.load * 1000 / max(search_ms, 0.01))
    return cost.model_copy(update={"cameras": int(carried), "computed": text})


def core_count() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def transport_of(config: SourceConfig) -> str:
    """Return how a source comes, in words."""
    address = config.address
    if address.kind != "stream":
        return {"device": "USB camera", "file": "file", "sdp": "RTP over UDP, described by a file"}[address.kind]
    if address.scheme in ("rtsp", "rtsps"):
        chosen = config.options.get("rtsp_transport", config.transport).upper()
        return "RTSP over TLS" if address.scheme == "rtsps" else f"RTSP over {chosen}"
    return address.scheme.upper()


def level_of(codec: str, level: int) -> str | None:
    """Return a codec's level as its specification writes it; None if it has none."""
    if level <= 0:
        return None
    if codec == "h264":
        return f"{level / 10:g}"
    if codec == "hevc":
        return f"{level / 30:g}"
    return str(level) if codec in ("vp9", "av1") else None
