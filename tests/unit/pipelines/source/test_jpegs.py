"""JPEGs found in a stream of bytes, whatever stands between them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from visaged.pipelines.source.opening.jpegs import JpegSplitter


def jpeg(seed: int, *, is_progressive: bool = False, restart: int = 0) -> bytes:
    image = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(is_progressive), cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def with_thumbnail(data: bytes, inside: bytes) -> bytes:
    return data[:2] + b"\xff\xe1" + (len(inside) + 2).to_bytes(2, "big") + inside + data[2:]


PLAIN = [jpeg(1), jpeg(2, is_progressive=True), jpeg(3, restart=2), with_thumbnail(jpeg(4), jpeg(5))]


@pytest.mark.parametrize("step", [1, 2, 7, 1000, 10**6])
@pytest.mark.parametrize("between", [b"", b"\r\n--next\r\nContent-Type: image/jpg\r\n\r\n", b"\xff", b"\xff\xd8\x00"])
def test_pictures_are_found_however_they_come(step: int, between: bytes) -> None:
    data = between + between.join(PLAIN) + between
    splitter = JpegSplitter()
    found = [picture for at in range(0, len(data), step) for picture in splitter.feed(data[at : at + step])]
    assert found == PLAIN
    assert splitter.finish() is None


def test_a_picture_is_there_with_its_last_byte() -> None:
    splitter = JpegSplitter()
    assert splitter.feed(PLAIN[0][:-1]) == []
    assert splitter.feed(PLAIN[0][-1:]) == [PLAIN[0]]


def test_a_picture_that_is_cut_short_is_returned_as_far_as_it_goes() -> None:
    cut = PLAIN[0][: len(PLAIN[0]) * 2 // 3].rstrip(b"\xff")
    splitter = JpegSplitter()
    assert splitter.feed(cut + PLAIN[1]) == [cut, PLAIN[1]]
    assert splitter.feed(cut) == []
    assert splitter.finish() == cut


def test_what_is_no_picture_is_skipped_and_costs_no_memory() -> None:
    splitter = JpegSplitter()
    for _ in range(1000):
        assert splitter.feed(bytes(1000)) == []
    assert splitter.skipped >= 999_990
    assert splitter.size == 0
    assert len(splitter._data) < 10
    assert splitter.feed(PLAIN[0]) == [PLAIN[0]]
    assert splitter.skipped == 0


def test_markers_that_make_no_sense() -> None:
    splitter = JpegSplitter()
    rng = np.random.default_rng(0)
    for _ in range(300):
        splitter.feed(b"\xff\xd8\xff" + rng.integers(0, 256, 300, np.uint8).tobytes())
    assert splitter.size < 70_000
    found = [picture for _ in range(300) for picture in splitter.feed(PLAIN[0])]
    assert PLAIN[0] in found
