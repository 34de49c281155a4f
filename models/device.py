"""Arrays in the memory of what computes: a GPU, or this machine's own, where the same code is tested.

Networks and graphs that get such arrays are run with bound inputs and outputs: nothing is copied that stays there.
Every run ends with all its work done, so what a run wrote may be read by any thread afterwards, and what it read may be
freed.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import DTypeLike, NDArray

Kind = Literal["cpu", "cuda"]

_MOST_SHAPES = 32
"""Shapes of buffers that are kept. Cameras have few; each long side of single pictures would bring its own."""


class DeviceArray:
    """A contiguous array in a device's memory, or a part of one along its first axis.

    Args:
        device: Where it lies.
        shape: Its shape.
        dtype: The type of its values.
        pointer: The address of its first value there.
        owner: What keeps the memory.
        room: How many rows there are from `pointer` on; None for those of `shape`.
    """

    __slots__ = ("_owner", "_room", "device", "dtype", "pointer", "shape")

    def __init__(
        self,
        device: Device,
        shape: Sequence[int],
        dtype: DTypeLike,
        pointer: int,
        owner: object,
        room: int | None = None,
    ) -> None:
        self.device = device
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.pointer = pointer
        self._owner = owner
        self._room = self.shape[0] if room is None else room

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, part: slice) -> DeviceArray:
        """Return some rows that follow each other, without copying."""
        begin, end, _ = part.indices(len(self))
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        shape = (max(0, end - begin), *self.shape[1:])
        return DeviceArray(self.device, shape, self.dtype, self.pointer + begin * row, self._owner, self._room - begin)

    def row(self, index: int) -> DeviceArray:
        """Return one row as an array with an axis less, without copying."""
        one = self[index : index + 1]
        return self.device.at(one.pointer, self.shape[1:], self.dtype, self._owner)

    def flat(self, last: int) -> DeviceArray:
        """Return all values as an array with a last axis of that length, or with a single axis for 1."""
        count = math.prod(self.shape) // last
        return self.device.at(self.pointer, (count,) if last == 1 else (count, last), self.dtype, self._owner)

    def lengthened(self, rows: int) -> DeviceArray:
        """Return the same array with rows behind it, whatever these hold.

        Raises:
            ValueError: There is no room for so many.
        """
        if rows > self._room:
            raise ValueError(f"a buffer has room for {self._room} rows, not for {rows}")
        return DeviceArray(self.device, (rows, *self.shape[1:]), self.dtype, self.pointer, self._owner, self._room)

    def numpy(self) -> NDArray[Any]:
        """Return a copy in this machine's own memory.

        Raises:
            TypeError: The memory belongs to something else than a `Device`.
        """
        if not isinstance(self._owner, onnxruntime.OrtValue):
            raise TypeError("only what a device made is copied back")
        whole = np.ascontiguousarray(self._owner.numpy()).reshape(-1).view(np.uint8)
        begin = self.pointer - self._owner.data_ptr()
        return whole[begin : begin + self.nbytes].copy().view(self.dtype).reshape(self.shape)


class Device:
    """A device on which networks and graphs run; all methods are thread-safe.

    Args:
        kind: `cuda`, or `cpu` for this machine's own memory.
        index: Number of the GPU.
    """

    def __init__(self, kind: Kind, index: int = 0) -> None:
        self.kind: Kind = kind
        self.index = index
        self._lock = threading.Lock()
        self._free: dict[tuple[tuple[int, ...], np.dtype[Any]], list[onnxruntime.OrtValue]] = {}
        self._synchronize = _default_stream(index) if kind == "cuda" else lambda: None

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}"

    def is_of(self, hardware: str, device: str | None) -> bool:
        """Return whether it is what a hardware decoder uses.

        Args:
            hardware: FFmpeg's name of the decoder.
            device: FFmpeg's name of the decoder's device; None for its first.
        """
        return hardware == self.kind and (device or "0") == str(self.index)

    def at(self, pointer: int, shape: Sequence[int], dtype: DTypeLike, owner: object) -> DeviceArray:
        """Return an array over memory that somebody else keeps, for as long as `owner` lives."""
        return DeviceArray(self, shape, dtype, pointer, owner)

    def upload(self, values: NDArray[Any]) -> DeviceArray:
        """Return a copy of an array on the device."""
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), self.kind, self.index)
        # On the CPU ONNX Runtime takes the array's own memory, and the value keeps it.
        return DeviceArray(self, values.shape, values.dtype, value.data_ptr(), value)

    @contextlib.contextmanager
    def borrowed(self, shape: Sequence[int], dtype: DTypeLike, room: int | None = None) -> Iterator[DeviceArray]:
        """Lend a buffer, which holds anything; new memory would cost a GPU a pause.

        Args:
            shape: Shape of the array.
            dtype: Type of its values.
            room: Rows to have room for, see `DeviceArray.lengthened`; None for those of `shape`.
        """
        rows = shape[0] if room is None else room
        key = ((rows, *shape[1:]), np.dtype(dtype))
        with self._lock:
            free = self._free.get(key)
            value = free.pop() if free else None
        if value is None:
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(key[0]), key[1], self.kind, self.index)
        yield DeviceArray(self, shape, dtype, value.data_ptr(), value, rows)
        # One that a failed run may still write to is not lent again.
        with self._lock:
            if key not in self._free and len(self._free) >= _MOST_SHAPES:
                self._free.clear()
            self._free.setdefault(key, []).append(value)

    def wait(self) -> None:
        """Wait until all is done that a decoder has begun: FFmpeg copies frames on the default stream of the GPU.

        Raises:
            RuntimeError: The driver says that it failed.
        """
        self._synchronize()


Array = NDArray[Any] | DeviceArray


def run(
    session: Any,
    outputs: Sequence[str],
    inputs: Mapping[str, Array],
    options: onnxruntime.RunOptions | None = None,
) -> list[NDArray[Any]]:
    """Run a session of ONNX Runtime; return the outputs in this machine's own memory.

    Args:
        session: The session.
        outputs: Names of the outputs.
        inputs: The inputs by name, wherever they are.
        options: ONNX Runtime's options of the run.
    """
    if not any(isinstance(value, DeviceArray) for value in inputs.values()):
        result: list[NDArray[Any]] = session.run(list(outputs), dict(inputs), *([] if options is None else [options]))
        return result
    binding = _bound(session, inputs)
    for name in outputs:
        binding.bind_output(name)
    session.run_with_iobinding(binding, options)
    return [value.numpy() for value in binding.get_outputs()]


def run_into(session: Any, targets: Mapping[str, Array], inputs: Mapping[str, Array]) -> None:
    """Run a session of ONNX Runtime whose outputs have their places.

    Args:
        session: The session.
        targets: Where each output goes, by name: contiguous, of the output's own shape and type.
        inputs: The inputs by name, wherever they are.
    """
    binding = _bound(session, inputs)
    for name, value in targets.items():
        binding.bind_output(name, *_place(value))
    session.run_with_iobinding(binding)


def _bound(session: Any, inputs: Mapping[str, Array]) -> Any:
    binding = session.io_binding()
    for name, value in inputs.items():
        if isinstance(value, DeviceArray):
            binding.bind_input(name, *_place(value))
        else:
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
    return binding


def _place(value: Array) -> tuple[str, int, Any, tuple[int, ...], int]:
    """Return device, its number, type, shape and address, as ONNX Runtime's bindings want them."""
    if isinstance(value, DeviceArray):
        return value.device.kind, value.device.index, value.dtype.type, value.shape, value.pointer
    if not value.flags.c_contiguous:
        raise ValueError("an output's place must be contiguous")
    return "cpu", 0, value.dtype.type, value.shape, value.ctypes.data


def _default_stream(index: int) -> Callable[[], None]:
    """Return what waits for the default stream of a GPU's primary context.

    ONNX Runtime's own streams do not wait for that one, and it has no function for it.

    Raises:
        RuntimeError: The driver says that there is no such GPU.
        OSError: There is no driver.
    """
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

    def call(name: str, *arguments: Any) -> None:
        status = getattr(driver, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} of the NVIDIA driver failed with error {status}")

    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)

    def wait() -> None:
        call("cuCtxPushCurrent_v2", context)
        try:
            call("cuStreamSynchronize", None)
        finally:
            call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    return wait
