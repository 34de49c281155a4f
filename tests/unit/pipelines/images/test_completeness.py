"""Pictures whose files lack rows are damaged, and say so; whole ones that look alike are pictures."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from tests.unit import fakes
from visaged.daemon.cli.main import PERSON
from visaged.pipelines.images.decode import Decoded, PictureError, load

MOST = 50_000_000
END = b"\xff\xd9"
# Factors by which libjpeg may decode smaller, for pictures of 640 pixels.
LEAST_SIDES = [None, 320, 80]


def photo(mode: str = "RGB") -> Pillow.Image:
    image = fakes.demo_image(fakes.TWO_FACES_S)
    return Pillow.fromarray(cv2.resize(image, (640, 480))[..., ::-1]).convert(mode)


def jpeg(picture: Pillow.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (picture or photo()).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def taller(data: bytes, height: int) -> bytes:
    """A JPEG whose header promises more rows than there are."""
    found = re.search(rb"\xff[\xc0\xc2]\x00[\x0b\x11\x14]\x08", data)
    assert found is not None
    return data[: found.end()] + height.to_bytes(2, "big") + data[found.end() + 2 :]


def cut(data: bytes, share: float) -> bytes:
    """A JPEG whose pixels end early, and that has an end all the same."""
    begin = data.rindex(b"\xff\xda")
    return data[: begin + int((len(data) - begin) * share)].rstrip(b"\xff") + END


def damage(data: bytes, least_side: int | None = None) -> str:
    with pytest.raises(PictureError) as caught:
        load(data, MOST, least_side)
    assert caught.value.reason == "damaged"
    return str(caught.value)


@pytest.mark.parametrize("least_side", LEAST_SIDES)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_fewer_rows_than_it_says(mode: str, progressive: bool, least_side: int | None) -> None:
    assert "93% of its rows are missing" in damage(taller(jpeg(photo(mode), progressive=progressive), 7000), least_side)


@pytest.mark.parametrize("least_side", LEAST_SIDES)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.97])
@pytest.mark.parametrize("restarts", [0, 4])
def test_a_jpeg_whose_pixels_end_early(share: float, restarts: int, least_side: int | None) -> None:
    assert "missing" in damage(cut(jpeg(restart_marker_blocks=restarts), share), least_side)


def test_a_jpeg_that_lacks_a_restart_interval_in_its_middle() -> None:
    data = jpeg(restart_marker_rows=1)
    begins = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    assert "3% of its rows" in damage(data[: begins[10] + 2] + data[begins[11] :])


def test_a_jpeg_that_says_that_more_pictures_follow() -> None:
    file = io.BytesIO()
    photo().save(file, "MPO", save_all=True, append_images=[photo()], quality=90)
    assert load(file.getvalue(), MOST).height == 480
    assert "missing" in damage(taller(file.getvalue(), 7000))


def test_a_jpeg_of_restarts_alone() -> None:
    """Its first and last intervals are there; between them are markers without pixels."""
    data = jpeg(restart_marker_rows=1)
    begins = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    markers = b"".join(data[begin : begin + 2] for begin in begins[:-1])
    assert "missing" in damage(data[: begins[0]] + markers + data[begins[-1] :])


def test_a_progressive_jpeg_without_its_last_scans_is_coarser() -> None:
    data = jpeg(progressive=True)
    scans = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    assert load(data[: scans[4]] + END, MOST).image.shape == (480, 640, 3)


@pytest.mark.parametrize("least_side", LEAST_SIDES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"optimize": True}])
def test_grey_that_is_in_the_picture(options: dict[str, Any], mode: str, least_side: int | None) -> None:
    picture = photo()
    picture.paste((128, 128, 128), (0, 320, 640, 480))
    for whole in (picture, Pillow.new("RGB", (640, 480), (128, 128, 128))):
        decoded = load(jpeg(whole.convert(mode), **options), MOST, least_side)
        assert (decoded.image[-1] == 128).all(), "as it looks where rows are missing"


def test_bytes_too_many_are_no_damage() -> None:
    """Many web cameras send a byte or two more than there are pixels."""
    data = jpeg()
    assert (load(data[:-2] + b"ab" + END, MOST).image == load(data, MOST).image).all()


def test_nothing_is_written_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    data = jpeg()
    corrupt = bytearray(data)
    corrupt[len(data) // 2 : len(data) // 2 + 40] = bytes(range(100, 140))
    for one in (cut(data, 0.5), data[:-2] + b"abc" + END, bytes(corrupt), data[: len(data) // 2]):
        try:
            load(one, MOST)
        except PictureError:
            continue
    assert capfd.readouterr() == ("", "")


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(size: tuple[int, int], pixels: bytes, *, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlace))
    palette = chunk(b"PLTE", bytes(range(48))) if colour == 3 else b""
    body = zlib.compress(pixels)
    middle = len(body) // 2
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + palette
        + chunk(b"IDAT", body[:middle])
        + chunk(b"IDAT", body[middle:])
        + chunk(b"IEND")
    )


KINDS = [(8, 2, 3), (8, 0, 1), (16, 0, 2), (16, 2, 6), (8, 6, 4), (8, 4, 2), (8, 3, 1), (1, 0, 1 / 8), (4, 3, 1 / 2)]


@pytest.mark.parametrize(("depth", "colour", "size"), KINDS)
@pytest.mark.parametrize("rows", [1, 50, 99])
def test_a_png_of_fewer_rows_than_it_says(rows: int, depth: int, colour: int, size: float) -> None:
    row = b"\0" + b"\x11" * int(80 * size)
    assert load(png((80, 100), row * 100, depth=depth, colour=colour), MOST).height == 100
    assert "its last rows are missing" in damage(png((80, 100), row * rows, depth=depth, colour=colour))


@pytest.mark.parametrize(("depth", "colour", "size"), KINDS)
def test_black_that_is_in_the_picture(depth: int, colour: int, size: float) -> None:
    assert load(png((80, 100), (b"\0" + bytes(int(80 * size))) * 100, depth=depth, colour=colour), MOST).height == 100


def interlaced(width: int, height: int) -> bytes:
    """The pixels of an interlaced grey picture."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    sizes = [(len(range(x, width, dx)), len(range(y, height, dy))) for x, y, dx, dy in passes]
    return b"".join((b"\0" + b"\x33" * columns) * rows for columns, rows in sizes if columns)


@pytest.mark.parametrize("size", [(80, 100), (33, 17), (1, 1), (3, 2)])
def test_an_interlaced_png(size: tuple[int, int]) -> None:
    pixels = interlaced(*size)
    decoded: Decoded = load(png(size, pixels, colour=0, interlace=1), MOST)
    assert (decoded.image == 0x33).all()
    if len(pixels) > 10:
        whole_passes = len(pixels) - (1 + size[0]) * (size[1] // 2)
        assert "missing" in damage(png(size, pixels[:whole_passes], colour=0, interlace=1))


def test_side_by_side() -> None:
    """The rows of a picture take memory, however narrow it is."""
    for size in ((1, 49_999_999), (49_999_999, 1), (1, 65_536)):
        with pytest.raises(PictureError) as caught:
            load(png(size, b""), MOST)
        assert caught.value.reason == "too_large"
        assert f"{size[0]} x {size[1]} pixels; at most 65535 a side" in str(caught.value)
    assert load(png((1, 65_535), b"\0abc" * 65_535), MOST).image.shape == (65_535, 1, 3)
    assert np.array_equal(load(png((65_535, 1), b"\0" + b"abc" * 65_535), MOST).image[0, 0], [99, 98, 97])


def test_a_png_whose_data_end_in_zeros() -> None:
    """Zeros are symbols of the compression too, so that the rows are all there, and black."""
    stored = io.BytesIO()
    with Pillow.open(PERSON) as person:
        person.convert("RGBA").resize((640, 480)).save(stored, "PNG")
    data = stored.getvalue()
    for part in (0.875, 0.9, 0.95):
        kept = int(len(data) * part)
        assert "last rows" in damage(data[:kept] + bytes(len(data) - kept))
