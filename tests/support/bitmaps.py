"""Writes BMP files in the dialects that programs have made since 1988, which Pillow does not write."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.uint8]
"""(H, W) uint8, numbers of palette entries, top row first."""
Colours = NDArray[np.uint8]
"""(N, 3) or (H, W, 3) uint8 BGR."""

RAW, RLE8, RLE4, BITFIELDS = 0, 1, 2, 3
RGB565, RGB555 = (0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)


def bitmap(
    size: tuple[int, int],
    bits: int,
    pixels: bytes,
    compression: int = RAW,
    palette: Colours | None = None,
    masks: tuple[int, ...] = (),
    header: int = 40,
    top_down: bool = False,
    gap: int = 0,
) -> bytes:
    """Return a BMP file.

    Args:
        size: Width and height.
        bits: Of a pixel.
        pixels: Its pixel data as stored, the lowest row first unless `top_down`.
        compression: How the pixels are stored.
        palette: (N, 3) BGR.
        masks: Of red, green, blue and, in headers of 56 bytes and more, alpha.
        header: Bytes of the second header: 12 and 64 are OS/2's, 40 to 124 Windows'.
        top_down: Whether the first row is the top one.
        gap: Bytes between palette and pixels.
    """
    width, height = size
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII",
            header, width, -height if top_down else height, 1, bits, compression, len(pixels), 2835, 2835,
            0 if palette is None else len(palette), 0,
        )  # fmt: skip
        if masks and header > 40:
            info += struct.pack(f"<{len(masks)}I", *masks)
        info = info.ljust(header, b"\0")
        if masks and header == 40:
            info += struct.pack(f"<{len(masks)}I", *masks)
    colours = b""
    if palette is not None:
        padding = b"" if header == 12 else b"\0"
        colours = b"".join(bytes(colour.tolist()) + padding for colour in palette)
    offset = 14 + len(info) + len(colours) + gap
    head = struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset)
    return head + info + colours + bytes(gap) + pixels


def packed(rows: NDArray[np.uint8], top_down: bool = False) -> bytes:
    """Return rows of bytes (H, N), each padded to a multiple of four, in the order of the file."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    return (padded if top_down else padded[::-1]).tobytes()


def nibbles(indices: Indices) -> NDArray[np.uint8]:
    """Return 4-bit pixels as rows of bytes."""
    even = np.pad(indices, ((0, 0), (0, indices.shape[1] % 2)))
    return (even[:, ::2] << 4 | even[:, 1::2]).astype(np.uint8)


def run_lengths(indices: Indices, four_bits: bool = False, absolute: bool = False, end: bool = True) -> bytes:
    """Return pixels as RLE8 or RLE4 has them.

    Args:
        indices: The pixels.
        four_bits: RLE4 instead of RLE8.
        absolute: Whether pixels that differ are written as such, where there are three and more, instead of as runs.
        end: Whether the end of the bitmap is marked.
    """
    out = bytearray()
    for row in indices[::-1].tolist():
        at = 0
        while at < len(row):
            run = 1
            while at + run < len(row) and run < 255 and row[at + run] == row[at]:
                run += 1
            if absolute and run < 3 and len(row) - at >= 3:
                count = min(len(row) - at, 251)
                out += bytes((0, count)) + _literal(row[at : at + count], four_bits)
                at += count
                continue
            out += bytes((run, row[at] * 17 if four_bits else row[at]))
            at += run
        out += b"\0\0"
    if end:
        out[-2:] = b"\0\1"
    return bytes(out)


def _literal(pixels: list[int], four_bits: bool) -> bytes:
    data = bytes(nibbles(np.array([pixels], np.uint8))[0].tolist()) if four_bits else bytes(pixels)
    return data + b"\0" * (len(data) % 2)
