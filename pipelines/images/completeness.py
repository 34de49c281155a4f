"""Finds rows that a picture's file does not have, where decoders put grey or black without a word.

libjpeg fills what is missing with zero coefficients, which is mid-grey, and Pillow leaves the rows of a PNG black when
its pixels end early. Both are also what a whole picture may have. So what looks missing is looked at once more: bytes
that are put behind the pixels of a JPEG change nothing if the pixels were all there, and are taken for the missing ones
otherwise; the bytes of a PNG are counted.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image as Pillow

from visaged.models.types import Image

# What zero coefficients become; of CMYK after the conversion to BGR.
_GREY, _CMYK_GREY = 128, 64
# Pixels at the right end of a row by which it looks missing: few enough for a part of a row, and more than noise has.
_TAIL = 8
# ITU-T T.81, B.1.1.2: FF 00 is the byte FF, and FF FF a fill byte.
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SCAN, _END, _WITHOUT_LENGTH = 0xDA, 0xD9, frozenset({0x01, 0xD8})
_MOST_RESTARTS = 100_000
# Codes of any Huffman table, without the byte FF.
_JUNK = bytes((37 * i * i + 91 * i + 13) % 251 for i in range(1, 49))

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column and row, and steps between columns and rows, of the passes of an interlaced PNG (PNG specification, 8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE = 1 << 20


def grey_rows(image: Image, is_cmyk: bool) -> int:
    """Return how many rows of a decoded JPEG look missing, at least in part.

    Args:
        image: (H, W, 3) uint8 BGR, as stored.
        is_cmyk: Whether the file has the colours of print.
    """
    return int((image[:, -_TAIL:] == (_CMYK_GREY if is_cmyk else _GREY)).all(axis=(1, 2)).sum())


def with_junk(data: bytes) -> bytes:
    """Return a JPEG with bytes behind the pixels of every scan and restart interval.

    A decoder skips them if the pixels are all there (ITU-T T.81 has it look for the next marker).
    """
    pieces, at, done = [], 0, 0
    while (found := _MARKER.search(data, at)) is not None and (code := data[found.end() - 1]) != _END:
        at = found.end()
        if code not in _WITHOUT_LENGTH and not 0xD0 <= code <= 0xD7:
            at += int.from_bytes(data[at : at + 2], "big")
        if code == _SCAN:
            end = _END_OF_SCAN.search(data, at)
            last = len(data) if end is None else end.start()
            pixels = _RESTART.sub(lambda restart: _JUNK + restart[0], data[at:last], _MOST_RESTARTS)
            pieces += [data[done:at], pixels, _JUNK]
            at = done = last
    return b"".join([*pieces, data[done:]])


def png_lacks_rows(data: bytes, picture: Pillow.Image) -> bool:
    """Return whether the pixels of a PNG end before its last row.

    Args:
        data: Bytes of the file, which Pillow has decoded.
        picture: The decoded picture.
    """
    width, height, depth, colour, _, _, is_interlaced = struct.unpack(">IIBBBBB", data[16:29])
    last_row = np.asarray(picture.crop((0, picture.height - 1, picture.width, picture.height)))
    if last_row.any() and not is_interlaced:
        return False
    bits = depth * _CHANNELS[colour]
    passes = _ADAM7 if is_interlaced else ((0, 0, 1, 1),)
    wanted = 0
    for left, top, across, down in passes:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0:
            wanted += max(0, rows) * (1 + (columns * bits + 7) // 8)  # a byte in front of a row names its filter
    # Damaged data can be inflated to as many bytes as those of the picture; the checksums know it.
    return _inflated(data, wanted) < wanted or not _has_true_checksums(data)


def _has_true_checksums(data: bytes) -> bool:
    return all(zlib.crc32(body, zlib.crc32(b"IDAT")) == checksum for body, checksum in _pixel_chunks(data))


def _inflated(data: bytes, most: int) -> int:
    """Return how many bytes the pixels of a PNG have, up to about `most`."""
    inflate = zlib.decompressobj()
    count = 0
    try:
        for body, _ in _pixel_chunks(data):
            while body and count < most:
                count += len(inflate.decompress(body, _PIECE))
                body = inflate.unconsumed_tail
            if count >= most:
                break
    except zlib.error:
        return count
    return count


def _pixel_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the chunks with pixels, and the checksums that are written behind them."""
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            end = at + 8 + length
            yield data[at + 8 : end], int.from_bytes(data[end : end + 4], "big")
        at += 12 + length
