"""NVDEC alone, by PyAV as the daemon uses it: frames a second of 1080p25 H.264, against decoding in software."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from dataclasses import dataclass, field

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from tests.gpu.report import Options, Report, Value
from tests.gpu.sections.machine import gpu_state
from visaged.pipelines.source.opening.hardware import Hardware

# As the daemon does it, in CUDA's one primary context, which ONNX Runtime uses too; in a context for each camera; and
# without copying frames to the host.
_DAEMON, _OWN, _STAYS = "cuda, downloaded, primary context", "cuda, downloaded", "cuda, stays, primary context"
_OPEN_S = 40.0


def decoding(report: Report, options: Options) -> None:
    """Decode in each way, in one container and in several at once."""
    for name in ("libnvcuvid.so.1", "libcuda.so.1"):
        report.attempt(name, lambda name=name: {"loads": bool(ctypes.CDLL(name)._handle)})
    on_gpu = options.provider == "cuda"
    modes = ("software", _DAEMON, _STAYS, _OWN) if on_gpu else ("software",)
    for mode in modes:
        with report.guarded(f"{mode}, one frame"):
            report.row(f"{mode}, one frame", **_one_frame(mode, options))
    if on_gpu:
        report.attempt("pixels as decoded in software", lambda: _difference(options))
        report.attempt("planes by DLPack into PyTorch", lambda: _dlpack(options))
    for mode in modes:
        for containers in (1, 4, 16, 32) if not options.quick else (1, 2):
            with report.guarded(f"{mode}, containers {containers}"):
                report.row(f"{mode}, containers {containers}", **_rate(mode, containers, options))


def sessions(report: Report, options: Options) -> None:
    """Open decoders until one fails, and see what memory they take."""
    if options.provider == "cuda":
        for mode in (_DAEMON, _OWN):
            report.attempt(f"decoders open at once, {mode}", lambda mode=mode: _open_many(mode, options))
        report.attempt("as cameras, until software decodes one", lambda: _until_software(options))


def _open(mode: str, options: Options) -> InputContainer:
    hardware = None
    if mode != "software":
        context = {"primary_ctx": "1"} if "primary" in mode else {}
        hardware = HWAccel("cuda", allow_software_fallback=False, options=context, is_hw_owned="stays" in mode)
    container = av.open(str(options.clip), hwaccel=hardware)
    if mode == "software":
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "NONE", 1
    return container


def _one_frame(mode: str, options: Options) -> dict[str, Value]:
    began = time.perf_counter()
    with _open(mode, options) as container:
        frame = next(container.decode(video=0))
        spent = time.perf_counter() - began
        return {
            "open and decode s": spent,
            "on hardware": container.streams.video[0].codec_context.is_hwaccel,
            "format": frame.format.name,
            "size": f"{frame.width}x{frame.height}",
            "planes": len(frame.planes),
        }


@dataclass
class _Counts:
    """What one thread decoded."""

    frames: int = 0
    hardware: bool = False
    errors: list[str] = field(default_factory=list)


def _decode(mode: str, options: Options, ready: threading.Barrier, stopping: threading.Event, counts: _Counts) -> None:
    """Decode a clip over and over; opening it, which takes CUDA a while, is not timed."""
    waited = False
    try:
        with _open(mode, options) as container:
            stream = container.streams.video[0]
            next(container.decode(stream))
            counts.hardware = stream.codec_context.is_hwaccel
            waited = True
            ready.wait()
            while not stopping.is_set():
                for _ in container.decode(stream):
                    counts.frames += 1
                    if stopping.is_set():
                        break
                container.seek(0)
    except Exception as error:  # shown in the table
        counts.errors.append(f"{type(error).__name__}: {error}")
        if not waited:
            ready.wait()


def _rate(mode: str, containers: int, options: Options) -> dict[str, Value]:
    counts = [_Counts() for _ in range(containers)]
    ready, stopping = threading.Barrier(containers + 1, timeout=_OPEN_S), threading.Event()
    threads = [
        threading.Thread(target=_decode, args=(mode, options, ready, stopping, one), daemon=True) for one in counts
    ]
    opening = time.perf_counter()
    for thread in threads:
        thread.start()
    ready.wait()
    began, cpu, before = time.perf_counter(), time.process_time(), sum(one.frames for one in counts)
    time.sleep(options.seconds(1.2))
    frames = sum(one.frames for one in counts) - before
    spent, cpu = time.perf_counter() - began, time.process_time() - cpu
    used = gpu_state("memory.used,utilization.decoder") if options.provider == "cuda" and mode != "software" else {}
    stopping.set()
    for thread in threads:
        thread.join(10)
    values: dict[str, Value] = {
        "fps": frames / spent,
        "cameras of 25 fps": frames / spent / 25,
        "cpu ms/frame": 1000 * cpu / max(1, frames),
        "cores": cpu / spent,
        "of cores": os.cpu_count(),
        "opened in s": began - opening,
        "on hardware": all(one.hardware for one in counts),
        **used,
    }
    if errors := [error for one in counts for error in one.errors]:
        values |= {"failed": len(errors), "error": errors[0]}
    return values


def _luma(mode: str, options: Options, number: int) -> np.ndarray:
    with _open(mode, options) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == number:
                return frame.to_ndarray(format="gray").astype(int)
    raise AssertionError(f"the clip has no frame {number}")


def _difference(options: Options) -> dict[str, Value]:
    difference = np.abs(_luma("software", options, 30) - _luma(_DAEMON, options, 30))
    return {"luma differs at most": int(difference.max()), "mean": float(difference.mean())}


def _dlpack(options: Options) -> dict[str, Value]:
    """Take a frame's planes to PyTorch where they are."""
    import torch

    with _open(_STAYS, options) as container:
        frame = next(container.decode(video=0))
        torch.cuda.synchronize()  # PyAV takes no stream to wait on, and wants all work done before
        planes = [torch.from_dlpack(plane.__dlpack__()) for plane in frame.planes]
        began = time.perf_counter()
        values: dict[str, Value] = {"mean of Y": float(planes[0].float().mean()), "s": time.perf_counter() - began}
        for index, plane in enumerate(planes):
            values[f"plane {index}"] = f"{tuple(plane.shape)} {plane.dtype} {plane.device} stride {plane.stride()}"
    values["in software"] = float(_luma("software", options, 0).mean())
    return values


def decoded_on(device: int, options: Options) -> dict[str, Value]:
    """Decode a picture on one GPU of several, as the daemon does it."""
    began = time.perf_counter()
    container, by_hardware = _as_camera(options, str(device))
    container.close()
    return {"by hardware": by_hardware, "open and decode s": time.perf_counter() - began}


def _as_camera(options: Options, device: str | None = None) -> tuple[InputContainer, bool]:
    """Open the clip as a camera with `hardware: cuda` is opened; return whether hardware decoded its first picture."""
    told: list[bool] = []
    hardware = Hardware("kit", "cuda", device, told.append)
    container = av.open(str(options.clip), hwaccel=hardware.decoder())
    next(container.decode(video=0))
    hardware.decoded(container.streams.video[0].codec_context)
    return container, told[0]


def _until_software(options: Options) -> dict[str, Value]:
    """Return how many cameras hardware decodes at once, up to 128: FFmpeg leaves the next one to software silently."""
    opened: list[InputContainer] = []
    began, by_hardware = time.perf_counter(), True
    while by_hardware and len(opened) < 128 and time.perf_counter() - began < 15:
        container, by_hardware = _as_camera(options)
        opened.append(container)
    values: dict[str, Value] = {
        "cameras": len(opened), "last by hardware": by_hardware, "s": time.perf_counter() - began,
        **gpu_state("memory.used"),
    }  # fmt: skip
    for container in opened:
        container.close()
    return values


def _open_many(mode: str, options: Options) -> dict[str, Value]:
    """Return how many decoders can be open at once, up to 64, and what the next one says."""
    opened: list[InputContainer] = []
    began, said = time.perf_counter(), "all that were tried"
    before = gpu_state("memory.used").get("memory.used")
    try:
        while len(opened) < 64 and time.perf_counter() - began < 20:
            opened.append(_open(mode, options))
            next(opened[-1].decode(video=0))
    except Exception as error:  # shown in the table
        said = f"{type(error).__name__}: {error}"
    used = gpu_state("memory.used").get("memory.used")
    values: dict[str, Value] = {"opened": len(opened), "then": said, "s": time.perf_counter() - began,
                                "memory before": before, "memory then": used}  # fmt: skip
    for container in opened:
        container.close()
    return values
