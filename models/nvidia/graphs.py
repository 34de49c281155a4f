"""CUDA graphs: the kernels of a run recorded once and started as a whole, for one shape of the inputs.

Without one, the processor starts some hundred kernels for each run; on an H200 the analyzer took half the time with a
graph (1.1 to 0.5 ms), detectors a tenth less. A graph reads and writes the addresses it was recorded with, so inputs
and outputs have places of their own on the GPU, and one run is in progress at a time: a second recording lets a
second caller run.

ONNX Runtime records in CUDA's global mode, in which memory that any other thread of the process takes makes the
recording fail, or that thread's call, a hardware decoder's too. So graphs are recorded at the start alone, before
cameras are opened. Each session has memory of its own: in an arena that all share, another session could write where a
graph keeps its intermediate results.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from visaged.models.errors import ModelError

_SAME = 1e-2
"""Tolerance, absolute and relative, between a graph's outputs and a plain run's: cuDNN may choose another algorithm."""


class Recorded:
    """One session whose runs are recorded; not thread-safe.

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
    """Runs of one shape by recorded sessions; thread-safe, as many at once as there are sessions.

    Args:
        recorded: The sessions, at least one.
        plain: A session of ONNX Runtime that is not recorded, for runs whose inputs and outputs have other places.
    """

    def __init__(self, recorded: Sequence[Recorded], plain: Any) -> None:
        self.io_binding = plain.io_binding
        self.run_with_iobinding = plain.run_with_iobinding
        self._free: queue.LifoQueue[Recorded] = queue.LifoQueue()
        for one in recorded:
            self._free.put(one)

    def run(self, output_names: list[str], input_feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the outputs of these names; wait for a session that is free."""
        one = self._free.get()
        try:
            return one.run(output_names, input_feed)
        finally:
            self._free.put(one)


def record(
    load: Callable[[], Any],
    plain: Any,
    inputs: Mapping[str, NDArray[Any]],
    copies: int,
    kind: str = "cuda",
    device: int = 0,
) -> GraphRuns:
    """Record sessions, and see that each gives what a plain run gives, for other inputs than it was recorded with too.

    Args:
        load: Returns a new session that can be recorded.
        plain: A session of the same network that is not recorded.
        inputs: Inputs of the shape.
        copies: How many sessions to record; where a later one fails, for want of memory say, those before do.
        kind: Kind of the device, as ONNX Runtime calls it.
        device: Number of the device.

    Raises:
        ModelError: The first gives something else.
        Exception: ONNX Runtime raised it, because the network cannot be recorded.
    """
    recorded: list[Recorded] = []
    for _ in range(copies):
        try:
            one = Recorded(load(), inputs, kind, device)
            _compare(one, plain, inputs)
        except Exception:
            if not recorded:
                raise
            break
        recorded.append(one)
    return GraphRuns(recorded, plain)


def _compare(one: Recorded, plain: Any, inputs: Mapping[str, NDArray[Any]]) -> None:
    names = list(one._outputs)
    other = {name: np.ascontiguousarray(value[..., ::-1]) for name, value in inputs.items()}
    for feed in (dict(inputs), other):
        for name, got, wanted in zip(names, one.run(names, feed), plain.run(names, feed), strict=True):
            if not np.allclose(got, wanted, _SAME, _SAME, equal_nan=True):
                raise ModelError(f"as a CUDA graph, its output {name} differs from that of a plain run")


def _options(graph: int) -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))  # -1: this run is neither recorded nor replayed
    return options
