"""Finds the other files that an ONNX file refers to, without loading it.

The hash in a manifest covers one file. ONNX lets a network keep its weights in others, anywhere on the machine, and
ONNX Runtime would load whatever lies there. The few messages of the format that can refer to files are walked here,
because the onnx package is not needed otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_DEPTH = 100  # protobuf's own

# The fields, by number, whose messages may refer to files, and the kinds of these messages; see onnx.proto.
_INNER = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
# Tags and enums have so many bits; ONNX Runtime ignores those beyond.
_32_BITS = 0xFFFFFFFF
_OP_TYPE = 4
_DATA_LOCATION, _EXTERNAL = 14, 1
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


def external_files(data: bytes) -> list[str]:
    """Return the names of the files that an ONNX file refers to; one without a name is an empty text.

    Raises:
        ValueError: The data is no ONNX file.
    """
    found: set[str] = set()
    _walk(memoryview(data), "model", found, _MOST_DEPTH)
    return sorted(found)


def _walk(data: memoryview, kind: str, found: set[str], depth: int) -> None:
    if not depth:
        raise ValueError("it is nested too deeply")
    inner = _INNER[kind]
    for number, value in _fields(data):
        if isinstance(value, int):
            if (kind, number, value & _32_BITS) == ("tensor", _DATA_LOCATION, _EXTERNAL):
                found.add("")
        elif number in inner:
            if inner[number] == "entry":
                found.add(_location(value))
            else:
                _walk(value, inner[number], found, depth - 1)
        elif (kind, number) == ("node", _OP_TYPE) and bytes(value) == b"EPContext":
            found.add("EPContext")  # the compiled network of one provider, which may lie in a file


def _location(entry: memoryview) -> str:
    texts = {n: bytes(value).decode(errors="replace") for n, value in _fields(entry) if not isinstance(value, int)}
    return texts.get(_ENTRY_VALUE, "") if texts.get(_ENTRY_KEY) == "location" else ""


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of every field of a message: a number, or bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = (tag & _32_BITS) >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            size, at = _varint(data, at)
        if size is None or at + size > end or not number:
            raise ValueError("it is no ONNX file")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise ValueError("it is no ONNX file")
