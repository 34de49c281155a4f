"""One arena of a GPU's memory for all sessions of this process, so that a bound holds for all of them together."""

from __future__ import annotations

import logging
import threading

import onnxruntime

log = logging.getLogger(__name__)

AS_REQUESTED = 1
"""ONNX Runtime's number of the strategy kSameAsRequested."""

_lock = threading.Lock()
_shared: dict[int, bool] = {}  # by the GPU's number


def shares_arena(device: int, memory_mb: int) -> bool:
    """Return whether the sessions of this process have one arena of a GPU's memory, which the first call makes.

    ONNX Runtime keeps it until the process ends. Without it, each session of each shape would have the whole bound.
    """
    with _lock:
        if device not in _shared:
            kind, place = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
            try:
                onnxruntime.create_and_register_allocator_v2(
                    "CUDAExecutionProvider",
                    onnxruntime.OrtMemoryInfo("Cuda", kind, device, place),
                    {"device_id": str(device)} if device else {},
                    onnxruntime.OrtArenaCfg({"max_mem": memory_mb * 2**20, "arena_extend_strategy": AS_REQUESTED}),
                )
                _shared[device] = True
            except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
                log.warning("inference.gpu_memory_mb bounds each shape's memory alone, not their sum: %s", error)
                _shared[device] = False
        return _shared[device]
