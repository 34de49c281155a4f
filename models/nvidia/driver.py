"""Which NVIDIA GPUs this machine has, asked through the driver's own libraries: CUDA's toolkit is not needed."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from visaged.models.errors import ProviderError

log = logging.getLogger(__name__)

# Attributes of cuDeviceGetAttribute.
_MAJOR, _MINOR = 75, 76
# CU_CTX_SCHED_BLOCKING_SYNC of cuDevicePrimaryCtxSetFlags.
_WAITS_BLOCKED = 4
_NAME_BYTES = 128


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU.

    Attributes:
        number: Its number, from 0, as CUDA counts the GPUs that this process may use.
        name: What its maker calls it.
        capability: Its compute capability, major and minor.
    """

    number: int
    name: str
    capability: tuple[int, int]


def nvidia_driver_present() -> bool:
    """Return whether the NVIDIA driver's library loads; without it ONNX Runtime only prints errors while trying."""
    try:
        _cuda()
    except OSError:
        return False
    return True


@functools.cache
def devices() -> tuple[Device, ...]:
    """Return the GPUs that this process may use; none where no driver answers. The answer is kept."""
    try:
        cuda, count = _cuda(), ctypes.c_int()
        if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
            return ()
        return tuple(_device(cuda, number) for number in range(count.value))
    except (OSError, AttributeError):  # not there, or not what it is called
        return ()


@functools.cache
def driver_version() -> str:
    """Return the driver's version, such as 580.95.05, or the CUDA version it is for; empty where none answers."""
    with contextlib.suppress(OSError, AttributeError):
        nvml = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(_NAME_BYTES)
        if not nvml.nvmlInit_v2() and not nvml.nvmlSystemGetDriverVersion(text, _NAME_BYTES):
            return text.value.decode(errors="replace")
    with contextlib.suppress(OSError, AttributeError):
        version = ctypes.c_int()
        if not _cuda().cuDriverGetVersion(ctypes.byref(version)):
            return f"CUDA {version.value}"
    return ""


@functools.cache
def share_context(number: int) -> None:
    """Set how threads wait in a GPU's primary context to what FFmpeg demands of a context that it is to share.

    FFmpeg's decoders refuse a primary context that is in use with other flags (`av_hwdevice_ctx_create` answers
    ENOTSUP), and ONNX Runtime, which comes first, sets none. With them, threads sleep until the GPU is done, which
    costs less processor time than asking again and again. Must be called before ONNX Runtime uses the GPU.

    Args:
        number: Number of the GPU.
    """
    try:
        cuda, handle = _cuda(), ctypes.c_int()
        if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(handle), number):
            return
        error = cuda.cuDevicePrimaryCtxSetFlags_v2(handle, _WAITS_BLOCKED)
        if error:
            log.debug("the context of GPU %d keeps its flags: CUDA error %d", number, error)
    except (OSError, AttributeError):  # not there, or not what it is called
        return


def check_devices(wanted: Sequence[int], there: Sequence[Device]) -> None:
    """Raise `ProviderError` if a GPU that is wanted is not there; the text names those that are."""
    missing = [str(number) for number in wanted if number not in {device.number for device in there}]
    if missing:
        have = ", ".join(f"{device.number} ({device.name})" for device in there) or "none"
        raise ProviderError(
            f"inference.devices names GPU {' and '.join(missing)}, but {len(there)} can be used here: {have}; "
            "CUDA_VISIBLE_DEVICES or the container may hide others"
        )


def _cuda() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _device(cuda: ctypes.CDLL, number: int) -> Device:
    handle, name, value = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(handle), number)
    cuda.cuDeviceGetName(name, _NAME_BYTES, handle)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        capability.append(value.value)
    return Device(number, name.value.decode(errors="replace"), (capability[0], capability[1]))
