"""BMP pictures with a palette, raw or run-length encoded (RLE4, RLE8), which Pillow reads slowly or not at all.

Pillow reads a picture with a palette of black and white as one bit a pixel, whatever its depth, refuses pictures whose
last rows are left out, and reads run lengths byte by byte. OpenCV reads raw pixels rightly, but neither rows that are
encoded longer than the picture is wide, which ImageMagick writes (it encodes the padding too), nor deltas in RLE4. So
OpenCV reads raw pixels, and this module decodes run lengths.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from visaged.models.types import Image

_RLE8, _RLE4 = 1, 2
_END_OF_ROW, _END, _DELTA = 0, 1, 2
_CUT_SHORT = "the run-length encoded pixels end before the last row does"
_MOST_RUNS = 2_000_000
"""Most runs that are decoded, which takes about a second; a file of 20 MB could hold ten million."""


def read_palette_bitmap(data: bytes, width: int, height: int) -> Image | None:
    """Return the pixels of a BMP file with 1, 4 or 8 bits a pixel.

    Args:
        data: Bytes of the file; its header must have been checked already.
        width: Width in pixels, from the header.
        height: Height in pixels, from the header.

    Returns:
        (height, width, 3) uint8 BGR; None for a raw bitmap that OpenCV cannot read, for which another reader may give
        the reason.

    Raises:
        ValueError: The file is run-length encoded, and damaged or cut short.
    """
    compression = 0 if _number(data, 14) == 12 else _number(data, 30)
    if compression not in (_RLE8, _RLE4):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return image if image is not None and image.shape[1::-1] == (width, height) else None  # type: ignore[return-value]
    if int.from_bytes(data[22:26], "little", signed=True) < 0:
        raise ValueError("a run-length encoded bitmap cannot be stored from top to bottom")
    indices = _decode_runs(data, _number(data, 10), width, height, compression == _RLE4)
    return _palette(data)[indices[::-1]]


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _palette(data: bytes) -> NDArray[np.uint8]:
    """Return the palette as (256, 3) uint8 BGR; entries that the file does not have are black."""
    begin = 14 + _number(data, 14)
    count = min(_number(data, 46) or 256, 256)
    stored = data[begin : min(begin + 4 * count, _number(data, 10))]
    colours = np.zeros((256, 3), np.uint8)
    entries = np.frombuffer(stored[: len(stored) // 4 * 4], np.uint8).reshape(-1, 4)
    colours[: len(entries)] = entries[:, :3]
    return colours


def _decode_runs(data: bytes, at: int, width: int, height: int, four_bits: bool) -> NDArray[np.uint8]:
    """Return the palette indices of run-length encoded pixels, (height, width) uint8, lowest row first.

    Pixels of a row beyond the picture's width are dropped, as Windows does; pixels that no run covers have index 0.

    Args:
        data: Bytes of the file.
        at: Offset of the first run in the file.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        four_bits: Whether the runs are RLE4, and not RLE8.

    Raises:
        ValueError: The data end before the last row does, or have very many runs.
    """
    out = bytearray(width * height)
    x, row = 0, 0  # `row` is where in `out` the row begins
    last = width * (height - 1)
    runs = [_run(value, four_bits) for value in range(256)]
    for _ in range(_MOST_RUNS):
        if row > last or (row == last and x >= width):
            break
        if at + 2 > len(data):
            raise ValueError(_CUT_SHORT)
        count, value, at = data[at], data[at + 1], at + 2
        if count:
            pixels = runs[value]
        elif value == _END_OF_ROW:
            x, row = 0, row + width
            continue
        elif value == _END:
            break
        else:
            size = 2 if value == _DELTA else (value + 1) // 2 if four_bits else value
            pixels = data[at : at + size]
            if len(pixels) < size:
                raise ValueError(_CUT_SHORT)
            at += size + size % 2
            if value == _DELTA:
                x, row = x + pixels[0], row + pixels[1] * width
                continue
            count, pixels = value, _nibbles(pixels) if four_bits else pixels
        end = min(x + count, width)
        if x < end:
            out[row + x : row + end] = pixels[: end - x]
        x += count
    else:
        raise ValueError("the run-length encoded pixels have too many runs; save the picture anew")
    return np.frombuffer(out, np.uint8).reshape(height, width)


def _run(value: int, four_bits: bool) -> bytes:
    """Return the pixels of the longest run of a value; in RLE4 it alternates between two of them."""
    return bytes((value >> 4, value & 15) if four_bits else (value, value)) * 128


def _nibbles(data: bytes) -> bytes:
    return bytes(nibble for byte in data for nibble in (byte >> 4, byte & 15))
