"""Writes ONNX graphs, so that the package needs neither the onnx package nor files for the few that are its own.

Only what those graphs consist of can be written: nodes, tensors and their types; see onnx.proto.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_OPSET: Final = 17
_IR_VERSION: Final = 8  # the one that came with this opset
_TYPES: Final = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7}
_ATTRIBUTE_INT, _ATTRIBUTE_STRING, _ATTRIBUTE_INTS = 2, 3, 7

Axis = int | str
"""Length of an axis, or the name of one that may have any length."""
Attribute = int | str | tuple[int, ...]


class Graph:
    """A graph that is being written. Values are named by the texts that its methods return.

    Args:
        name: Name of the graph.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._count = 0

    def input(self, name: str, dtype: str, *shape: Axis) -> str:
        """Add an input; `dtype` is numpy's name of its type."""
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: str, *shape: Axis) -> None:
        """Make a value an output."""
        self._nodes.append(_node("Identity", [value], name, {}))
        self._outputs.append(_value(name, dtype, shape))

    def constant(self, array: NDArray[np.generic]) -> str:
        """Add a constant."""
        name = self._new()
        dims = b"".join(_number(1, length) for length in array.shape)
        kind = _number(2, _TYPES[array.dtype.name])
        self._constants.append(dims + kind + _bytes(8, name.encode()) + _bytes(9, array.tobytes()))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node with one output; return that."""
        name = self._new()
        self._nodes.append(_node(operator, inputs, name, attributes))
        return name

    def model(self) -> bytes:
        """Return the file."""
        parts = [(1, self._nodes), (5, self._constants), (11, self._inputs), (12, self._outputs)]
        graph = b"".join(_bytes(number, one) for number, many in parts for one in many)
        graph += _bytes(2, self._name.encode())
        return _number(1, _IR_VERSION) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _number(2, _OPSET))

    def _new(self) -> str:
        self._count += 1
        return f"v{self._count}"


def _node(operator: str, inputs: list[str] | tuple[str, ...], output: str, attributes: dict[str, Attribute]) -> bytes:
    node = b"".join(_bytes(1, name.encode()) for name in inputs) + _bytes(2, output.encode())
    node += _bytes(3, output.encode()) + _bytes(4, operator.encode())
    for name, value in attributes.items():
        node += _bytes(5, _bytes(1, name.encode()) + _attribute(value))
    return node


def _attribute(value: Attribute) -> bytes:
    if isinstance(value, int):
        return _number(3, value) + _number(20, _ATTRIBUTE_INT)
    if isinstance(value, str):
        return _bytes(4, value.encode()) + _number(20, _ATTRIBUTE_STRING)
    return b"".join(_number(8, one) for one in value) + _number(20, _ATTRIBUTE_INTS)


def _value(name: str, dtype: str, shape: tuple[Axis, ...]) -> bytes:
    axes = (_number(1, axis) if isinstance(axis, int) else _bytes(2, axis.encode()) for axis in shape)
    tensor = _number(1, _TYPES[dtype]) + _bytes(2, b"".join(_bytes(1, axis) for axis in axes))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers take ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
