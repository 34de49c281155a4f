"""Small files that take long: refused before they do."""

from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import pytest
from PIL import Image

from visaged.pipelines.images.decode import PictureError, load

PIXELS = 50_000_000


def jpeg(**options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2000, 2000), (90, 120, 150)).save(file, "JPEG", **options)
    return file.getvalue()


def last_scan(data: bytes) -> bytes:
    return data[data.rindex(b"\xff\xda") : -2]


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(before: bytes = b"", after: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress((b"\0" + bytes(24)) * 8))
    return b"\x89PNG\r\n\x1a\n" + head + before + rows + after + chunk(b"IEND")


def test_jpegs_of_many_scans_are_refused() -> None:
    data = jpeg(progressive=True)
    scan = last_scan(data)
    assert load(data[:-2] + 20 * scan + b"\xff\xd9", PIXELS).width == 2000
    began_s = time.monotonic()
    with pytest.raises(PictureError) as caught:
        load(data[:-2] + 2000 * scan + b"\xff\xd9", PIXELS)
    assert caught.value.reason == "damaged"
    assert "scans" in str(caught.value)
    assert time.monotonic() - began_s < 1


def test_what_looks_like_a_scan_is_none() -> None:
    data, looks = jpeg(), b"\xff\xda" * 20_000
    comment = b"\xff\xfe" + struct.pack(">H", len(looks) + 2) + looks
    assert load(data[:2] + comment * 3 + data[2:], PIXELS).width == 2000
    assert load(data + looks * 9, PIXELS).width == 2000  # a film behind the picture, as telephones make


@pytest.mark.parametrize(
    "data",
    [
        png(before=chunk(b"abCd") * 400_000),
        png(before=chunk(b"tEXt", b"a\0b") * 400_000),
        png(before=chunk(b"IDAT") * 400_000),
        png(after=chunk(b"abCd") * 400_000),
        b"\xff\xd8" + b"\xff\xe5\0\x02" * 400_000 + jpeg()[2:],
        b"\xff\xd8" + b"\xff" * 400_000 + jpeg()[2:],
    ],
    ids=["chunks", "texts", "idats", "after", "segments", "fill"],
)
def test_files_of_many_pieces_are_refused(data: bytes) -> None:
    with pytest.raises(PictureError) as caught:
        load(data, PIXELS)
    assert caught.value.reason == "damaged"
    assert "save it anew" in str(caught.value)
