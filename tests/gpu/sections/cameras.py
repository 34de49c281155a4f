"""The whole path: the daemon with 1080p25 cameras at 5 analysed frames a second, more and more of them.

The cameras are files that keep their own speed and loop, so that a network has no share in it.
"""

from __future__ import annotations

import time

from tests.gpu.report import Options, Report, Value
from tests.gpu.sections.daemon import Daemon, mean, network_means, quantile, running
from tests.gpu.sections.machine import gpu_state

FPS = 5
_STEPS = (16, 32, 48, 64, 96)
_SETTLE_S, _MEASURE_S = 3.0, 5.0


def software(report: Report, options: Options) -> None:
    """Cameras that are decoded on the processor, as configured by default."""
    _steps(report, options, "off")


def hardware(report: Report, options: Options) -> None:
    """Cameras that NVDEC decodes, whose frames are copied to the host's memory."""
    _steps(report, options, "cuda", stays=False)


def stays(report: Report, options: Options) -> None:
    """Cameras that NVDEC decodes, whose frames stay on the GPU."""
    _steps(report, options, "cuda")


def graphs(report: Report, options: Options) -> None:
    """Cameras that are decoded on the processor, where CUDA graphs are recorded."""
    _steps(report, options, "off", graphs=True)


def _steps(report: Report, options: Options, decoder: str, *, stays: bool = True, graphs: bool = False) -> None:
    inference = {"provider": options.provider, "gpu_frames": stays, "cuda_graphs": graphs}
    with running(options.scratch, options.provider, inference=inference) as daemon:
        for count in (1, 2) if options.quick else _STEPS:
            cameras = [
                {"name": f"camera{index}", "url": str(options.clip), "loop": True, "fps": FPS, "hardware": decoder}
                for index in range(count)
            ]
            daemon.reload(cameras=cameras)
            time.sleep(options.seconds(_SETTLE_S) + count * 0.03)
            values = _measure(daemon, count, options)
            report.row(f"{count} cameras, decoder {decoder}", **values)
            if float(values["analysed fps each"] or 0) < FPS / 2:  # it will not get better with more
                break
        warned = [
            line
            for line in daemon.process.lines
            if "not usable" in line or "error" in line.lower() or "on the GPU" in line
        ]
        report.row("said", lines=len(warned), first=warned[0][-400:] if warned else "")


def _measure(daemon: Daemon, cameras: int, options: Options) -> dict[str, Value]:
    before, began = daemon.sums(), time.perf_counter()
    time.sleep(options.seconds(_MEASURE_S))
    gpu: dict[str, Value] = {}
    if options.provider == "cuda":
        gpu = gpu_state("memory.used,utilization.gpu,utilization.decoder")
    after, seconds = daemon.sums(), time.perf_counter() - began

    def gained(name: str) -> float:
        return sum(value - before.get(key, 0.0) for key, value in after.items() if key.partition("{")[0] == name)

    values: dict[str, Value] = {
        "decoded fps each": gained("visaged_frames_received_total") / seconds / cameras,
        "analysed fps each": gained("visaged_frames_analysed_total") / seconds / cameras,
        "dropped": gained("visaged_frames_dropped_total"),
        "age p50 ms": 1000 * quantile(before, after, "visaged_result_age_seconds", 0.5),
        "age p95 ms": 1000 * quantile(before, after, "visaged_result_age_seconds", 0.95),
        "cores": gained("process_cpu_seconds_total") / seconds,
        "resident mb": after["process_resident_memory_bytes"] / 1e6,
        "faces/s": gained("visaged_faces_detected_total") / seconds,
        "decoded by hardware": after.get("visaged_camera_hardware", 0),
        "failed batches": gained("visaged_failed_batches_total"),
    }
    for stage in ("decode", "queue", "inference", "publish"):
        values[f"{stage} ms"] = 1000 * mean(before, after, "visaged_stage_seconds", f'{{stage="{stage}"}}')
    return values | network_means(before, after) | gpu
