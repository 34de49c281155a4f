"""Runs on a GPU: a session for each shape, few sizes of batches, and smaller ones where memory ends.

cuDNN's plans belong to a shape. A session that meets another shape than in its last run makes them again: on an H200,
three shapes in turns took 270 ms a round in one session (detector-m1) and 9 ms in three. So each shape has a session of
its own, made when the shape is first met, which takes a tenth of a second or two; of more than `most`, the one that was
not used for longest is dropped. A session takes the network's weights (2 to 6 MB for those that come with the package)
and keeps what its runs took: detector-m1 some 45 MB for each picture of 640x640 in a batch.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from visaged.models.device import Array, DeviceArray, run
from visaged.models.errors import OutOfMemory

log = logging.getLogger(__name__)

Shape = tuple[tuple[int, ...], ...]
"""Shapes of a network's inputs, in the order in which a run is given them."""

MOST_SESSIONS = 32
"""A canvas has one of five shapes for each long side, and pictures have three long sides mostly, one at a time: 15.
Cameras have one or two canvases, in four sizes of batches."""
MOST_VALUES = 64 * 640 * 640 * 3
"""Values of the inputs of all sessions: 3 GB of a GPU's memory with detector-m1."""

# How ONNX Runtime, CUDA, cuDNN and cuBLAS say that memory has ended.
_NO_MEMORY = (
    "is smaller than requested bytes",
    "Failed to allocate memory",
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class Runnable(Protocol):
    """What a session must do: `onnxruntime.InferenceSession.run`."""

    def run(self, output_names: list[str], input_feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the outputs of these names."""
        ...


class SessionSet:
    """Sessions by the shapes of their inputs, the least recently used ones dropped; thread-safe.

    A session that is dropped while it runs goes on until its runs end. Callers that want a shape that is being built
    wait for it; others do not.

    Args:
        build: Returns a new session; called outside of the lock, once for each shape that is not there.
        most: Most sessions kept.
        most_values: Most values in the inputs of all of them; the one used last stays, however large it is.
    """

    def __init__(self, build: Callable[[], Runnable], most: int, most_values: int) -> None:
        self._build = build
        self._most = most
        self._most_values = most_values
        self._lock = threading.Lock()
        self._kept: OrderedDict[Shape, Future[Runnable]] = OrderedDict()

    def get(self, shape: Shape) -> Runnable:
        """Return the session of a shape, which is built unless it is there; raises what building raises."""
        with self._lock:
            found = self._kept.get(shape)
            session = found or Future[Runnable]()
            self._kept[shape] = session
            self._kept.move_to_end(shape)
            dropped = self._shrink()
        del dropped  # freeing a session takes a while, so without the lock
        if found is None:
            try:
                session.set_result(self._build())
            except BaseException as error:
                with self._lock:
                    if self._kept.get(shape) is session:
                        del self._kept[shape]
                session.set_exception(error)
        return session.result()

    def put(self, shape: Shape, session: Runnable) -> None:
        """Replace the session of a shape."""
        made = Future[Runnable]()
        made.set_result(session)
        with self._lock:
            before, self._kept[shape] = self._kept.get(shape), made
            self._kept.move_to_end(shape)
        del before

    def clear(self) -> None:
        """Drop all sessions, so that their memory is free once their runs have ended."""
        with self._lock:
            dropped, self._kept = self._kept, OrderedDict()
        del dropped

    def shapes(self) -> list[Shape]:
        """Return the shapes that have a session, the one used last at the end."""
        with self._lock:
            return list(self._kept)

    def _shrink(self) -> list[Future[Runnable]]:
        dropped = []
        values = sum(map(_values, self._kept))
        while len(self._kept) > 1 and (len(self._kept) > self._most or values > self._most_values):
            shape, session = self._kept.popitem(last=False)
            values -= _values(shape)
            dropped.append(session)
        return dropped


class ShapedRuns:
    """Runs of one network on a GPU; thread-safe.

    Args:
        name: The network, for texts.
        sessions: Its sessions.
        sizes: The sizes of batches that are run, ascending: others are filled up, longer ones cut.
        memory_mb: The bound that is set to the GPU's memory, for texts; None for none.
        engine: Returns what runs a shape instead of a session of that shape; None for nothing.
    """

    def __init__(
        self,
        name: str,
        sessions: SessionSet,
        sizes: Sequence[int],
        memory_mb: int | None,
        engine: Callable[[Shape], Runnable | None] = lambda shape: None,
    ) -> None:
        self._name = name
        self._sessions = sessions
        self._sizes = tuple(sizes)
        self._memory_mb = memory_mb
        self._engine = engine
        self._most: dict[Shape, int] = {}  # by the shape without the batch, where memory ended

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        """Run the network on a batch of any size.

        Args:
            outputs: Names of the outputs wanted; all have the batch as their first axis.
            inputs: The inputs by name, all with the batch as their first axis.

        Raises:
            OutOfMemory: The GPU's memory does not do for a batch of the smallest size.
        """
        total = len(next(iter(inputs.values())))
        item = tuple(value.shape[1:] for value in inputs.values())
        parts: list[list[NDArray[np.float32]]] = []
        begin, tried_again = 0, False
        while begin < total:
            size = self._size(item, total - begin)
            part = {name: value[begin : begin + size] for name, value in inputs.items()}
            try:
                parts.append(self._run_part(outputs, part, size))
            except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
                if not is_out_of_memory(error):
                    raise
                # What other shapes keep may be all that is lacking.
                self._sessions.clear()
                if tried_again:
                    self._make_smaller(item, size, error)
                tried_again = not tried_again
                continue
            begin += size
        return parts[0] if len(parts) == 1 else [np.concatenate(values) for values in zip(*parts, strict=True)]

    def _run_part(self, outputs: Sequence[str], part: Mapping[str, Array], size: int) -> list[NDArray[np.float32]]:
        padded = {name: pad_batch(value, size) for name, value in part.items()}
        shape = tuple(value.shape for value in padded.values())
        session = self._engine(shape) or self._sessions.get(shape)
        got = min(size, len(next(iter(part.values()))))
        return [value[:got] for value in run(session, outputs, padded)]

    def _size(self, item: Shape, wanted: int) -> int:
        """Return the smallest size of a batch that holds as many as wanted, or the largest that memory does for."""
        most = self._most.get(item, self._sizes[-1])
        sizes = [size for size in self._sizes if size <= most]
        return next((size for size in sizes if size >= wanted), sizes[-1])

    def _make_smaller(self, item: Shape, size: int, error: Exception) -> None:
        """Let batches of a shape be smaller than one that did not fit; raises `OutOfMemory` if there is no such."""
        bound = "not set" if self._memory_mb is None else f"{self._memory_mb}"
        shape = " and ".join("x".join(map(str, one)) for one in item)
        smaller = [other for other in self._sizes if other < size]
        if not smaller:
            smaller_ones = "lower inference.long_side or http.long_side, or name a smaller models.detector"
            what = f"{smaller_ones}, or free memory that other programs take"
            if self._memory_mb is not None:
                what = f"raise it or set it to null, {smaller_ones}"
            raise OutOfMemory(
                f"{self._name}: the GPU's memory does not do for a batch of {size} x {shape} "
                f"(inference.gpu_memory_mb is {bound}); {what}"
            ) from error
        if smaller[-1] < self._most.get(item, size):
            self._most[item] = smaller[-1]
            log.warning(
                "%s: the GPU's memory does not do for a batch of %d x %s (inference.gpu_memory_mb is %s); from now on "
                "batches of %d at most are computed at once",
                self._name, size, shape, bound, smaller[-1],
            )  # fmt: skip


def pad_batch(value: Array, size: int) -> Array:
    """Return a batch (B, ...) filled up to (size, ...): with zeros, or on a device with whatever is behind it there."""
    if size <= len(value):
        return value
    if isinstance(value, DeviceArray):
        return value.lengthened(size)
    return np.concatenate([value, np.zeros((size - len(value), *value.shape[1:]), value.dtype)])


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of ONNX Runtime says that memory has ended."""
    text = str(error)
    return any(sign in text for sign in _NO_MEMORY)


def _values(shape: Shape) -> int:
    return sum(map(math.prod, shape))
