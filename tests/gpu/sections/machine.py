"""What the machine is, and what of CUDA it has."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path

import av
import onnxruntime
from av.codec.hwaccel import hwdevices_available

from tests.gpu.report import Options, Report, Value
from visaged.models.session import nvidia_driver_present

_QUERY = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,pcie.link.gen.current,compute_cap"
_LIBRARIES = (
    "libcudart.so.13", "libcublas.so.13", "libcudnn.so.9", "libcufft.so.12", "libcurand.so.10", "libnvrtc.so.13",
    "libcudart.so.12", "libcublas.so.12", "libnvinfer.so.10", "libnvonnxparser.so.10", "libnvcuvid.so.1",
    "libnvidia-encode.so.1",
)  # fmt: skip


def machine(report: Report, options: Options) -> None:
    """Report processor, GPU, libraries and packages."""
    del options
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "?")  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    report.row("cpu", model=model, cores=os.cpu_count(), memory_gib=memory, kernel=platform.release())
    report.row("python", version=platform.python_version(), **_versions())
    report.row("gpu", **gpu_state(_QUERY))
    report.row(
        "onnxruntime",
        version=onnxruntime.__version__,
        providers=", ".join(onnxruntime.get_available_providers()),
        cuda=getattr(onnxruntime, "cuda_version", "") or "",
        driver_found=nvidia_driver_present(),
    )
    report.row(
        "pyav",
        version=av.__version__,
        hwdevices=", ".join(hwdevices_available()),
        cuvid=", ".join(sorted(name for name in av.codecs_available if "cuvid" in name)),
    )
    report.row("libraries before onnxruntime loads any", **{name: _loads(name) for name in _LIBRARIES})
    began = time.perf_counter()
    with report.guarded("preload_dlls"):
        onnxruntime.preload_dlls()
        report.row("libraries after preload_dlls", seconds=time.perf_counter() - began,
                   **{name: _loads(name) for name in _LIBRARIES})  # fmt: skip


def gpu_state(fields: str) -> dict[str, Value]:
    """Return fields of `nvidia-smi --query-gpu`, or why there are none."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"nvidia-smi": str(error)}
    if done.returncode:
        return {"nvidia-smi": f"status {done.returncode}: {done.stdout[-300:]} {done.stderr[-300:]}"}
    return dict(zip(fields.split(","), (value.strip() for value in done.stdout.strip().split(",")), strict=False))


def _versions() -> dict[str, Value]:
    names = ("numpy", "opencv-python-headless", "torch", "onnxruntime", "onnxruntime-gpu", "nvidia-cudnn-cu13",
             "nvidia-cublas", "nvidia-cuda-runtime", "tensorrt-cu13-libs", "prometheus-client")  # fmt: skip
    versions: dict[str, Value] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "-"
    return versions


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
