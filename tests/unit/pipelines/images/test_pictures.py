"""Pictures from outside: all sorts of good ones, and worse."""

from __future__ import annotations

import io
import random
import resource
import struct
import sys
import threading
import time
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from tests.unit import fakes
from visaged.models.detector import Detector
from visaged.models.manifest import WEIGHTS, Head, Manifest
from visaged.models.preprocess import canvas_for, place
from visaged.models.search import Scales
from visaged.models.session import SessionConfig
from visaged.models.types import Detections, Image
from visaged.pipelines.batcher import Batcher
from visaged.pipelines.images.analyze import PictureAnalyzer, SlowToDecode
from visaged.pipelines.images.decode import Decoded, PictureError, load
from visaged.pipelines.images.job import PictureJob, PictureQuery
from visaged.pipelines.jobs import InferenceFailed, Overloaded
from visaged.pipelines.records import Face
from visaged.pipelines.tracking.tracks import faces_of

MOST = 50_000_000
QUADRANTS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
"""Of the test picture, 48 x 32 px: upper left, upper right, lower left, lower right. RGB."""


def picture(width: int = 48, height: int = 32) -> Pillow.Image:
    rgb = np.zeros((height, width, 3), np.uint8)
    upper, left = slice(0, height // 2), slice(0, width // 2)
    lower, right = slice(height // 2, None), slice(width // 2, None)
    for (rows, columns), colour in zip(
        ((upper, left), (upper, right), (lower, left), (lower, right)), QUADRANTS.values(), strict=True
    ):
        rgb[rows, columns] = colour
    return Pillow.fromarray(rgb)


def encoded(image: Pillow.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG made by hand; `rows` are raw, each with its filter byte in front."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    middle = b"".join(chunk(name, body) for name, body in chunks)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + middle
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def assert_quadrants(image: Image, tolerance: int = 3) -> None:
    assert image.shape == (32, 48, 3)
    assert image.dtype == np.uint8
    found = [image[8, 12], image[8, 36], image[24, 12], image[24, 36]]
    for bgr, rgb in zip(found, QUADRANTS.values(), strict=True):
        np.testing.assert_allclose(bgr[::-1], rgb, atol=tolerance)


def decode(data: bytes, max_pixels: int) -> Image:
    return load(data, max_pixels).image


def refusal(data: bytes, max_pixels: int = MOST) -> PictureError:
    with pytest.raises(PictureError) as caught:
        decode(data, max_pixels)
    return caught.value


# --- good ones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("WEBP", {"quality": 95}),
    ],
)
def test_formats(format_name: str, options: dict[str, Any]) -> None:
    assert_quadrants(decode(encoded(picture(), format_name, **options), MOST), 12)


def test_a_real_photo_is_as_opencv_reads_it() -> None:
    good, data = cv2.imencode(".jpg", fakes.demo_image(fakes.TWO_FACES_S))
    assert good
    expected = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert expected is not None
    difference = np.abs(decode(data.tobytes(), MOST).astype(int) - expected)
    assert difference.mean() < 0.5


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_are_as_pillow_reads_them(mode: str, factor: int, progressive: bool) -> None:
    photo = Pillow.fromarray(fakes.demo_image(fakes.TWO_FACES_S)[:-3, :-5]).convert(mode)  # odd sides
    data = encoded(photo, "JPEG", progressive=progressive)
    read = Pillow.open(io.BytesIO(data))
    read.draft(None, (photo.width // factor, photo.height // factor))
    expected = np.asarray(read.convert("RGB"))[..., ::-1]
    found = load(data, MOST, photo.width // factor).image
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


# How a camera that is held so stores the upright picture.
STORED = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_90,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_270,
}


def stored_as(upright: Pillow.Image, orientation: int, format_name: str = "JPEG", **options: Any) -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    stored = upright if orientation == 1 else upright.transpose(STORED[orientation])
    return encoded(stored, format_name, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_pictures_come_upright(orientation: int, format_name: str) -> None:
    lossless: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "PNG": {},
        "WEBP": {"lossless": True},
    }
    options = lossless[format_name]
    assert_quadrants(decode(stored_as(picture(), orientation, format_name, **options), MOST), 12)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0"])
def test_a_broken_orientation_is_no_orientation(exif: bytes) -> None:
    assert_quadrants(decode(encoded(picture(), "JPEG", quality=95, subsampling=0, exif=exif), MOST), 12)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 256 + 100, (4, 1))
    image = decode(encoded(Pillow.fromarray(ramp), "PNG"), MOST)
    assert image.shape == (4, 256, 3)
    np.testing.assert_array_equal(image[0, :, 0], np.arange(256))
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_16_bit_colour() -> None:
    row = b"\0" + struct.pack(">9H", 65535, 0, 0, 0, 65535, 0, 0x8000, 0x8000, 0x8000)
    image = decode(png(3, 2, 16, 2, row * 2), MOST)
    assert image[0].tolist() == [[0, 0, 255], [0, 255, 0], [128, 128, 128]]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_of_few_bits(depth: int) -> None:
    row = b"\0" + (b"\xf0" if depth < 8 else b"\xff\xff\0\0")
    image = decode(png(8 // depth if depth < 8 else 4, 1, depth, 0, row), MOST)
    assert image[0, 0].tolist() == [255] * 3
    assert image[0, -1].tolist() == [0] * 3


def test_cmyk_jpeg() -> None:
    assert_quadrants(decode(encoded(picture().convert("CMYK"), "JPEG", quality=95, subsampling=0), MOST), 14)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA"])
def test_modes_of_png(mode: str) -> None:
    image = decode(encoded(picture().convert(mode), "PNG"), MOST)
    assert image.shape == (32, 48, 3)
    if mode in ("P", "RGBA"):
        assert_quadrants(image)
    else:
        assert image[24, 36].tolist() == [255] * 3


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    data = encoded(picture().quantize(8), "PNG", transparency=0)
    assert_quadrants(decode(data, MOST), 6)
    data = encoded(picture().quantize(8), "PNG", transparency=bytes([0, 128, 255, 10, 20, 30, 40, 50]))
    assert_quadrants(decode(data, MOST), 6)


@pytest.mark.parametrize("format_name", ["WEBP", "PNG"])
def test_of_an_animation_the_first_picture_is_taken(format_name: str) -> None:
    other = Pillow.new("RGB", (48, 32), (10, 20, 30))
    data = encoded(picture(), format_name, save_all=True, append_images=[other, other], duration=100, lossless=True)
    assert_quadrants(decode(data, MOST))


@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
def test_a_picture_in_many_blocks_of_memory_is_read_alike(format_name: str) -> None:
    data = encoded(Pillow.fromarray(fakes.demo_image(fakes.TWO_FACES_S)), format_name)
    expected = decode(data, MOST)
    core: Any = Pillow.core  # type: ignore[attr-defined]
    before = core.get_block_size()
    core.set_block_size(1 << 20)  # such a block is full after 200 of the 720 rows
    try:
        np.testing.assert_array_equal(decode(data, MOST), expected)
    finally:
        core.set_block_size(before)


def test_the_smallest_picture() -> None:
    assert decode(encoded(Pillow.new("RGB", (1, 1), (1, 2, 3)), "PNG"), 1).tolist() == [[[3, 2, 1]]]


def test_what_follows_a_picture_does_not_matter() -> None:
    assert_quadrants(decode(encoded(picture(), "PNG") + b"trailing rubbish", MOST))


def test_a_picture_may_be_written_to() -> None:
    decode(encoded(picture(), "PNG"), MOST)[:] = 0


# --- bad ones ---------------------------------------------------------------------------------------------------------


def test_nothing_is_empty() -> None:
    assert refusal(b"").reason == "empty"


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< >>\nendobj\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0" * 1000,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        encoded(picture(), "GIF"),
        encoded(picture(), "TIFF"),
        encoded(picture(), "PPM"),
        encoded(picture(), "ICO", sizes=[(16, 16)]),
    ],
    ids=["text", "pdf", "svg", "zeros", "eps", "gif", "tiff", "ppm", "ico"],
)
def test_other_formats_are_refused(data: bytes) -> None:
    error = refusal(data)
    assert error.reason == "unsupported"
    assert "JPEG, PNG, BMP or WebP" in str(error)


@pytest.mark.parametrize("share", [0.6, 0.9, 0.99])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_picture_that_was_cut_short_is_damaged(format_name: str, share: float) -> None:
    photo = Pillow.fromarray(fakes.demo_image(fakes.TWO_FACES_S)[200:400, 300:600, ::-1])
    data = encoded(photo, format_name)
    assert decode(data, MOST).shape == (200, 300, 3)
    assert refusal(data[: int(len(data) * share)]).reason == "damaged"


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_head_alone_is_damaged_or_no_picture(format_name: str) -> None:
    data = encoded(picture(), format_name)
    for length in range(1, 60):
        assert refusal(data[:length]).reason in ("damaged", "unsupported")


def test_a_png_that_lacks_its_palette_is_damaged() -> None:
    """What it has is all right: Pillow opens it, decodes it, and fails when it looks for the colours."""
    data = encoded(picture().quantize(8), "PNG")
    begin = data.index(b"PLTE") - 4
    length = int.from_bytes(data[begin : begin + 4], "big")
    error = refusal(data[:begin] + data[begin + 12 + length :])
    assert error.reason == "damaged"
    assert "palette is missing" in str(error)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "BMP", "WEBP"])
def test_any_damage_ends_in_a_picture_or_a_refusal(format_name: str) -> None:
    rng = random.Random(7)
    exif = Pillow.Exif()
    exif[0x0112] = 6
    good = encoded(picture(), format_name, **({} if format_name == "BMP" else {"exif": exif}))
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            image = decode(bytes(data), 100_000)
        except PictureError:
            continue
        assert image.shape[2] == 3


def test_a_damaged_checksum_is_damage() -> None:
    data = bytearray(encoded(picture(), "PNG"))
    data[data.index(b"IDAT") + 10] ^= 0xFF
    assert refusal(bytes(data)).reason == "damaged"


def test_the_limit_of_pixels_is_exact() -> None:
    data = encoded(picture(), "PNG")
    assert decode(data, 48 * 32).shape == (32, 48, 3)
    error = refusal(data, 48 * 32 - 1)
    assert error.reason == "too_large"
    assert "48 x 32" in str(error)


def peak_mb() -> float:
    """Return the most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("kind", ["png", "webp", "bmp", "jpeg"])
def test_a_bomb_is_refused_by_its_header_alone(kind: str) -> None:
    side = 20_000 if kind != "webp" else 16_000
    if kind == "png":
        squeeze = zlib.compressobj(9)
        row = b"\0" * (1 + 20_000 * 3)
        body = b"".join(squeeze.compress(row) for _ in range(2_000)) + squeeze.flush()  # as many rows as need be
        data = png(side, side, 8, 2, b"").replace(zlib.compress(b"", 9), body)
    elif kind == "webp":
        frame = encoded(picture(), "WEBP", lossless=True)[12:]
        size = (side - 1).to_bytes(3, "little")
        body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size + size + frame
        data = b"RIFF" + struct.pack("<I", len(body)) + body
    elif kind == "bmp":
        data = bytearray(encoded(picture(), "BMP"))  # type: ignore[assignment]
        data[18:26] = struct.pack("<ii", side, side)  # type: ignore[index]
        data = bytes(data)
    else:
        data = encoded(picture(), "JPEG")
        start = data.index(b"\xff\xc0") + 5
        data = data[:start] + struct.pack(">HH", side, side) + data[start + 4 :]
    before = peak_mb()
    began = time.monotonic()
    error = refusal(data)
    assert time.monotonic() - began < 0.5
    assert peak_mb() - before < 50
    assert error.reason == "too_large" or (kind == "webp" and error.reason in ("damaged", "unsupported"))


def test_many_threads_decode_at_once() -> None:
    data = [encoded(picture(), name) for name in ("PNG", "BMP", "JPEG")] * 2
    failures: list[BaseException] = []

    def work(one: bytes) -> None:
        try:
            for _ in range(20):
                assert decode(one, MOST).shape == (32, 48, 3)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(one,), daemon=True) for one in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


# --- at a reduced scale -----------------------------------------------------------------------------------------------


def patched(width: int, height: int, box: tuple[int, int, int, int], mode: str = "RGB") -> Pillow.Image:
    """A dark picture with one bright patch."""
    image = Pillow.new("RGB", (width, height), (20, 20, 20))
    image.paste((240, 240, 240), box)
    return image.convert(mode)


def patch_in(decoded: Decoded) -> Face:
    """The bright patch as a face in the decoded picture's pixels, with its corners as landmarks."""
    rows, columns = np.nonzero(decoded.image[..., 1] > 130)
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    points = np.array([[[left, top], [right, top], [left, bottom], [right, bottom], [left, top]]], np.float32)
    box = np.array([[left, top, right, bottom]], np.float32)
    (shot,) = faces_of(Detections(box, np.ones(1, np.float32), points))
    return Face(shot, landmarks_106=points[0])


@pytest.mark.parametrize(
    ("size", "least_side", "expected"),
    [
        ((4000, 3000), None, (4000, 3000)),
        ((4000, 3000), 4000, (4000, 3000)),
        ((4000, 3000), 2001, (4000, 3000)),
        ((4000, 3000), 2000, (2000, 1500)),
        ((4000, 3000), 1280, (2000, 1500)),
        ((3001, 4003), 1000, (751, 1001)),
        ((4000, 3000), 500, (500, 375)),
        ((4000, 3000), 1, (500, 375)),
        ((100, 80), 1000, (100, 80)),
        ((4000, 1), 100, (4000, 1)),
        ((4000, 9), 100, (500, 2)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_need_be(
    size: tuple[int, int], least_side: int | None, expected: tuple[int, int]
) -> None:
    decoded = load(encoded(Pillow.new("RGB", size), "JPEG"), MOST, least_side)
    assert decoded.image.shape == (expected[1], expected[0], 3)
    assert (decoded.width, decoded.height) == size


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "WEBP"])
def test_other_formats_are_decoded_whole(format_name: str) -> None:
    decoded = load(encoded(picture(), format_name), MOST, 4)
    assert (decoded.image.shape, decoded.width, decoded.height) == ((32, 48, 3), 48, 32)


@pytest.mark.parametrize("is_upright", [True, False])
@pytest.mark.parametrize("least_side", [None, 150, 100])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_coordinates_fit_the_whole_picture(orientation: int, least_side: int | None, is_upright: bool) -> None:
    whole = patched(643, 427, (80, 40, 400, 120))  # sides that no factor divides
    decoded = load(stored_as(whole, orientation, quality=95), MOST, least_side, is_upright)
    longest = max(decoded.image.shape)
    assert longest == (643 if least_side is None else 161)
    told = decoded.located(patch_in(decoded))
    shown = whole if is_upright or orientation == 1 else whole.transpose(STORED[orientation])
    assert (decoded.width, decoded.height) == shown.size
    box = shown.point(lambda value: 255 * (value > 130)).getbbox()
    assert box is not None
    np.testing.assert_allclose(told.shot.box, box, atol=0 if least_side is None else 4)
    assert told.landmarks_106 is not None
    for points in (told.shot.landmarks, told.landmarks_106):
        assert points.dtype == np.float32
        np.testing.assert_allclose(np.concatenate([points.min(0), points.max(0)]), told.shot.box, atol=0.01)


@pytest.mark.parametrize("is_progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_reduced_modes(mode: str, is_progressive: bool) -> None:
    whole = patched(640, 480, (160, 80, 480, 240), mode)
    decoded = load(encoded(whole, "JPEG", quality=90, progressive=is_progressive), MOST, 160)
    assert decoded.image.shape == (120, 160, 3)
    np.testing.assert_allclose(decoded.located(patch_in(decoded)).shot.box, (160, 80, 480, 240), atol=4)


@pytest.mark.parametrize("is_progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_what_was_cut_short_is_damaged_at_a_reduced_scale_too(share: float, is_progressive: bool) -> None:
    photo = Pillow.fromarray(np.ascontiguousarray(fakes.demo_image(fakes.TWO_FACES_S)[..., ::-1]))
    data = encoded(photo, "JPEG", progressive=is_progressive)
    assert load(data, MOST, 160).image.shape == (90, 160, 3)
    with pytest.raises(PictureError) as caught:
        load(data[: int(len(data) * share)], MOST, 160)
    assert caught.value.reason == "damaged"


@pytest.fixture(scope="module")
def detector() -> Detector:
    manifest = Manifest(WEIGHTS / "manifest.yaml")
    return Detector.load(manifest, manifest.default_detector(on_gpu=False).name, SessionConfig("cpu"))


def faces_in(detector: Detector, decoded: Decoded) -> list[Face]:
    height, width = decoded.image.shape[:2]
    canvas = canvas_for(width, height, 640, 32)
    (found,) = detector.detect(place(decoded.image, canvas)[None])
    return [decoded.located(Face(shot)) for shot in faces_of(canvas.to_picture(found))]


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("least_side", "expected"), [(1280, 2000), (640, 1000)])
def test_the_same_faces_are_found_at_a_reduced_scale(
    detector: Detector, orientation: int, least_side: int, expected: int
) -> None:
    with Pillow.open(fakes.DEMO.with_name("picture.jpg")) as demo:
        large = demo.resize((4000, 2250), Pillow.Resampling.BICUBIC)
    data = stored_as(large, orientation, quality=92)
    whole, reduced = load(data, MOST), load(data, MOST, least_side)
    assert max(whole.image.shape) == 4000
    assert max(reduced.image.shape) == expected
    wanted, found = faces_in(detector, whole), faces_in(detector, reduced)
    assert len(found) == len(wanted) >= 3
    for face, other in zip(wanted, found, strict=True):
        half_a_pixel = 0.5 * 4000 / 640  # of the detector's canvas
        np.testing.assert_allclose(other.shot.box, face.shot.box, atol=half_a_pixel)
        np.testing.assert_allclose(other.shot.landmarks, face.shot.landmarks, atol=half_a_pixel)


# --- into the queue ---------------------------------------------------------------------------------------------------


def analyzer(
    batcher: Batcher,
    clock: fakes.Clock,
    scales: Scales | None = None,
    reader: fakes.Reader | None = None,
    decode_in_workers: bool = False,
) -> PictureAnalyzer:
    scales = scales or Scales(640, 1280)
    return PictureAnalyzer(batcher, reader or fakes.Reader(), scales, MOST, 3.0, decode_in_workers, clock)


def photo_png() -> bytes:
    return encoded(Pillow.fromarray(np.ascontiguousarray(fakes.demo_image(fakes.TWO_FACES_S)[..., ::-1])), "PNG")


def test_a_picture_is_queued_with_its_canvases() -> None:
    clock = fakes.Clock(50.0)
    batcher = Batcher(1, 0.0, 1, clock)
    future = analyzer(batcher, clock).submit(photo_png(), PictureQuery(0.4, frozenset({"age"})))
    (waiting,) = batcher.take(0)
    assert isinstance(waiting, PictureJob)
    assert waiting.future is future
    assert waiting.shape == (768, 1280)
    assert not waiting.is_large
    looks = waiting.looks()
    assert [look.image.shape for look in looks] == [(768, 1280, 3), (384, 640, 3), (192, 256, 3)]
    for look, rows in zip(looks, (720, 360, 108), strict=True):
        assert look.canvas.picture_height == rows
        assert look.canvas.part(look.image).any()
        look.canvas.part(look.image)[:] = 0
        assert not look.image.any()
    (asked,) = waiting.observe(fakes.faces((300, 300, 80), (700, 300, 80, 0, 0.39)))
    assert (asked.surface.width, asked.surface.height) == (1280, 720)


@pytest.mark.parametrize(("waited_s", "in_time"), [(2.9, True), (3.1, False)])
def test_a_picture_has_a_deadline(waited_s: float, in_time: bool) -> None:
    clock = fakes.Clock(50.0)
    batcher = Batcher(1, 0.0, 1, clock)
    future = analyzer(batcher, clock).submit(photo_png(), PictureQuery(0.4))
    (waiting,) = batcher.take(0)
    assert waiting.start(50.0 + waited_s) is in_time
    assert isinstance(future.exception(0), Overloaded) if not in_time else not future.done()


def test_a_full_queue_refuses() -> None:
    clock = fakes.Clock()
    pictures = analyzer(Batcher(1, 0.0, 1, clock), clock)
    pictures.submit(encoded(picture(), "PNG"), PictureQuery(0.5))
    with pytest.raises(Overloaded):
        pictures.submit(encoded(picture(), "PNG"), PictureQuery(0.5))


def test_the_canvases_go_and_the_picture_stays_until_the_result() -> None:
    clock = fakes.Clock()
    batcher = Batcher(1, 0.0, 1, clock)
    reader = fakes.Reader(Head(name="charm", kind="score", output="charm"), values={"charm": [0.5]})
    data = stored_as(patched(643, 427, (80, 40, 400, 120)), 6, quality=95)
    future = analyzer(batcher, clock, reader=reader).submit(
        data, PictureQuery(0.4, frozenset({"charm"}), upright=False)
    )
    (job,) = batcher.take(0)
    assert job.start(clock.now_s)
    assert job.looks()
    job.release()
    assert list(job.looks()) == []
    readings = reader.read(job.observe(fakes.faces((240, 80, 80))))
    assert not future.done()
    job.conclude(readings, clock.now_s)
    result = future.result(0)
    assert (result.width, result.height) == (427, 643)  # as it is stored
    assert result.faces[0].attributes["charm"].value == 0.5
    np.testing.assert_allclose(result.faces[0].shot.box, (40, 363, 120, 443), atol=0.01)
    job.fail()  # changes nothing any more
    assert future.result(0) is result


def test_a_picture_whose_faces_cannot_be_read_has_no_result() -> None:
    clock = fakes.Clock()
    batcher = Batcher(1, 0.0, 1, clock)
    future = analyzer(batcher, clock).submit(encoded(picture(), "PNG"), PictureQuery(0.4, frozenset({"charm"})))
    (job,) = batcher.take(0)
    assert job.start(clock.now_s)
    job.observe(fakes.faces((24, 16, 20)))
    job.conclude(None, clock.now_s)
    assert isinstance(future.exception(0), InferenceFailed)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_picture_that_is_dropped_is_answered(cancelled: bool) -> None:
    clock = fakes.Clock()
    batcher = Batcher(1, 0.0, 1, clock)
    future = analyzer(batcher, clock).submit(encoded(picture(), "PNG"), PictureQuery(0.4))
    if cancelled:
        assert future.cancel()
    for job in batcher.close():
        job.drop("shutdown")
    if cancelled:
        assert future.cancelled()
    else:
        assert isinstance(future.exception(0), Overloaded)
    with pytest.raises(Overloaded):
        analyzer(batcher, clock).submit(encoded(picture(), "PNG"), PictureQuery(0.4))


def test_workers_decode_small_jpegs_alone() -> None:
    clock = fakes.Clock()
    batcher = Batcher(1, 0.0, 8, clock)
    jpeg = encoded(picture(), "JPEG")
    assert not analyzer(batcher, clock).is_quick(jpeg)
    pictures = analyzer(batcher, clock, decode_in_workers=True)
    assert pictures.is_quick(jpeg)
    assert not pictures.is_quick(encoded(picture(), "PNG"))
    assert not pictures.is_quick(jpeg + b"\0" * 1_000_000)
    # Whether a picture is large has to be known before a worker takes it.
    assert not analyzer(batcher, clock, Scales(640, 4096), decode_in_workers=True).is_quick(jpeg)
    good = pictures.submit_encoded(jpeg, PictureQuery(0.4))
    wide = pictures.submit_encoded(jpeg, PictureQuery(0.4, max_side=40))
    slow = pictures.submit_encoded(encoded(Pillow.new("L", (2001, 2000)), "JPEG"), PictureQuery(0.4))
    damaged = pictures.submit_encoded(jpeg[:-20], PictureQuery(0.4))
    batch = [batcher.take(0)[0] for _ in range(4)]
    assert [job.shape for job in batch] == [None] * 4
    assert [job.start(clock.now_s) for job in batch] == [True, False, False, False]
    assert batch[0].shape is not None
    assert not good.done()
    assert isinstance(slow.exception(0), SlowToDecode)
    for future, reason in ((wide, "too_large"), (damaged, "damaged")):
        error = future.exception(0)
        assert isinstance(error, PictureError)
        assert error.reason == reason
