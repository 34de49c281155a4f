"""CUDA graphs: the kernels of a run recorded once and started as a whole, for one shape of the inputs.

Without one, the processor starts some hundred kernels for each run; on an H200 detector-m1 took 1.4 ms for a picture in
place of 1.9, and no less for eight; the analyzer 1.2 in place of 2.3 for a face. A graph reads and writes the addresses
it was recorded with, so inputs and outputs have places of their own on the GPU, and one run is in progress at a time; a
second caller meanwhile runs without a graph. Graphs take memory: for four sizes of batches of detector-m1 5.9 GB where
plain sessions took 2.0.

ONNX Runtime keeps a graph for the thread that recorded it, and another thread's first run would record anew. It records
in CUDA's global mode, in which what another thread of the process asks of the GPU makes the recording fail, or that
thread's call, a hardware decoder's too. So a recorded session has a thread of its own, and is recorded at the start
alone, before cameras are opened. Each session has memory of its own: in an arena that all share, another session could
write where a graph keeps its intermediate results.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from visaged.models.errors import ModelError

_SAME = 1e-2
"""Tolerance, absolute and relative, between a graph's outputs and a plain run's: cuDNN may choose another algorithm."""


class Recorded:
    """One session whose runs are recorded; one thread must make it and run it.

    Args:
        session: A session with the provider option `enable_cuda_graph`, which has not run yet.
        inputs: What it is recorded with; later runs have the same shapes and types.
        kind: Kind of the device, as ONNX Runtime calls it.
        device: Number of the device.

    Raises:
        Exception: ONNX Runtime raised it, because the network cannot be recorded.
    """

    def __init__(self, session: Any, inputs: Mapping[str, NDArray[Any]], kind: str = "cuda", device: int = 0) -> None:
        self._session = session
        self._binding = binding = session.io_binding()
        new = onnxruntime.OrtValue.ortvalue_from_numpy
        # On the CPU, a value and its array are one memory, which on a GPU they are not.
        self._own: Callable[[NDArray[Any]], NDArray[Any]] = np.copy if kind == "cpu" else np.asarray
        self._inputs = {name: new(self._own(value), kind, device) for name, value in inputs.items()}
        for name, value in self._inputs.items():
            binding.bind_ortvalue_input(name, value)
        names = [output.name for output in session.get_outputs()]
        for name in names:
            binding.bind_output(name, kind, device)
        session.run_with_iobinding(binding, _options(-1))  # only to learn the shapes of the outputs
        binding.synchronize_outputs()
        shown = [np.zeros_like(value.numpy()) for value in binding.get_outputs()]
        self._outputs = {name: new(value, kind, device) for name, value in zip(names, shown, strict=True)}
        for name, value in self._outputs.items():
            binding.bind_ortvalue_output(name, value)
        self._options = _options(1)
        session.run_with_iobinding(binding, self._options)

    def run(self, output_names: Sequence[str], input_feed: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the outputs of these names."""
        for name, value in self._inputs.items():
            value.update_inplace(np.ascontiguousarray(input_feed[name]))
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        return [self._own(self._outputs[name].numpy()) for name in output_names]


class GraphRuns:
    """Runs of one shape by a recorded session, or by a plain one for who comes while that is busy; thread-safe.

    Args:
        recorded: The recorded session.
        thread: Its only thread is the one in which it was recorded.
        plain: A session of ONNX Runtime that is not recorded. Runs whose inputs have places of their own are its too.
    """

    def __init__(self, recorded: Recorded, thread: ThreadPoolExecutor, plain: Any) -> None:
        self._recorded = recorded
        self._thread = thread
        self._plain = plain
        self._busy = threading.Lock()
        self.io_binding = plain.io_binding
        self.run_with_iobinding = plain.run_with_iobinding

    def run(self, output_names: list[str], input_feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the outputs of these names."""
        if not self._busy.acquire(blocking=False):
            result: list[NDArray[np.float32]] = self._plain.run(output_names, input_feed)
            return result
        try:
            return self._thread.submit(self._recorded.run, output_names, input_feed).result()
        finally:
            self._busy.release()


def record(
    session: Any, plain: Any, inputs: Mapping[str, NDArray[Any]], kind: str = "cuda", device: int = 0
) -> GraphRuns:
    """Record a session, and see that it gives what a plain one gives, for other inputs than it was recorded with too.

    Args:
        session: A new session with the provider option `enable_cuda_graph`.
        plain: A session of the same network that is not recorded.
        inputs: Inputs of the shape.
        kind: Kind of the device, as ONNX Runtime calls it.
        device: Number of the device.

    Raises:
        ModelError: It gives something else.
        Exception: ONNX Runtime raised it, because the network cannot be recorded.
    """
    thread = ThreadPoolExecutor(1, "cuda-graph")
    runs = GraphRuns(thread.submit(Recorded, session, inputs, kind, device).result(), thread, plain)
    names = [output.name for output in session.get_outputs()]
    other = {name: np.ascontiguousarray(value[..., ::-1]) for name, value in inputs.items()}
    for feed in (dict(inputs), other):
        for name, got, wanted in zip(names, runs.run(names, feed), plain.run(names, feed), strict=True):
            if not np.allclose(got, wanted, _SAME, _SAME, equal_nan=True):
                raise ModelError(f"as a CUDA graph, its output {name} differs from that of a plain run")
    return runs


def _options(graph: int) -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))  # -1: this run is neither recorded nor replayed
    return options
