"""Blanking the code for other GPUs in a library, so that it packs small; sizes and offsets stay as they are.

A CUDA library holds its kernels once for every architecture, each in an entry of a "fat binary". The driver takes the
entry for its GPU and reads no other, so the others' bytes may as well be zeros. The layout is undocumented; this is
what `cuobjdump` and public reverse engineering (for example the headers of CUDA's clang port) agree on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_MAGIC = 0xBA55ED50
_REGION = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes of the entries after it
_ENTRY = struct.Struct("<HHIQIIHHI")  # kind, version, bytes of header, bytes of code, ..., minor, major, architecture
_SECTION = b".nv_fatbin\0"


class FatbinError(Exception):
    """The library is not laid out as expected."""


@dataclass(frozen=True, slots=True)
class Blanked:
    """What was done.

    Attributes:
        kept: Bytes of code that stay.
        blanked: Bytes of code that are zeros now.
    """

    kept: int
    blanked: int


def blank(library: bytearray, architecture: int, lean: bool = False) -> Blanked:
    """Blank the GPU code in an ELF library that is for other architectures.

    Args:
        library: The whole file; changed in place.
        architecture: What stays, as in sm_90: 90.
        lean: Blank also the regions that exist for a single architecture. In ONNX Runtime these are matrix kernels for
            language models.

    Raises:
        FatbinError: There is no GPU code, or none for that architecture, or it is laid out in another way.
    """
    start, size = _section(library)
    position, end, kept, blanked = start, start + size, 0, 0
    while position < end:
        if position + _REGION.size > end or _REGION.unpack_from(library, position)[0] != _MAGIC:
            position += 8
            continue
        _, _, header, length = _REGION.unpack_from(library, position)
        entries = _entries(library, position + header, position + header + length)
        alone = len({found for found, _, _ in entries}) == 1
        for found, begin, count in entries:
            if found == architecture and not (lean and alone):
                kept += count
            else:
                library[begin : begin + count] = bytes(count)
                blanked += count
        position += header + length
    if not kept:
        raise FatbinError(f"the library has no code for sm_{architecture}")
    return Blanked(kept, blanked)


def _entries(library: bytearray, position: int, end: int) -> list[tuple[int, int, int]]:
    """Return architecture, offset and bytes of the code of each entry of a region."""
    entries = []
    while position < end:
        _, _, header, count, *_, architecture = _ENTRY.unpack_from(library, position)
        if header < _ENTRY.size or position + header + count > end:
            raise FatbinError(f"an entry at byte {position} ends outside of its region")
        entries.append((architecture, position + header, count))
        position += header + count
    return entries


def _section(library: bytearray) -> tuple[int, int]:
    """Return offset and size of the section with GPU code."""
    if library[:5] != b"\x7fELF\x02":
        raise FatbinError("this is no 64-bit ELF library")
    (table,) = struct.unpack_from("<Q", library, 40)
    size, count, names = struct.unpack_from("<HHH", library, 58)
    rows = [struct.unpack_from("<IIQQQQ", library, table + index * size) for index in range(count)]
    for name, _, _, _, offset, length in rows:
        at = rows[names][4] + name
        if library[at : at + len(_SECTION)] == _SECTION:
            return offset, length
    raise FatbinError("the library has no section .nv_fatbin")
