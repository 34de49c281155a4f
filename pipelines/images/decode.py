"""Decodes single pictures from clients: checks the header first, then decodes the whole picture or refuses it."""

from __future__ import annotations

import io
import re
import struct
import sys
import warnings
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from PIL import ExifTags, ImageFile, UnidentifiedImageError
from PIL import Image as Pillow

from visaged.models.alignment import Matrix, transform
from visaged.models.types import Image
from visaged.pipelines.images.bitmap import read_palette_bitmap
from visaged.pipelines.images.completeness import grey_rows, png_lacks_rows, with_junk
from visaged.pipelines.records import Face

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""Formats that are read, by Pillow's names."""

# Pillow's own limit on sizes is off: `_open` checks the configured one after the header and before decoding.
Pillow.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Pillow's blocks of 16 MB stay in malloc's arenas, one arena a thread: after 16 large pictures the process kept 5.6 GB.
# Blocks above malloc's largest threshold (32 MB) are given back to the system at once.
Pillow.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]

_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, KeyError, IndexError, OverflowError, AssertionError,
    cv2.error,
)  # fmt: skip
"""Exceptions that Pillow and OpenCV raise for damaged files."""

# Every scan of a JPEG goes over the whole picture, and a scan may have 10 bytes: a file of 270 kB took 32 s, one of
# 20 MB would have taken hours. Encoders make a dozen at most. Each marker and each piece that Pillow reads costs some
# microseconds: 20 MB of empty chunks took 5 s and more.
_MOST_SCANS = 100
_MOST_MARKERS = 10_000
_MOST_READS = 100_000
# Decoders take memory for every row, whatever its width: a PNG of 1 x 49,999,999 pixels, a file of 97 kB, took 1.6 GB.
# JPEGs have no longer sides.
_MOST_SIDE = 65_535
# ITU-T T.81, B.1.1: FF 00 is no marker, FF FF is a fill byte, and restarts (D0 to D7) belong to a scan.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
# What a JPEG begins with; Pillow has another name for one that says that more pictures follow it.
_JPEG = b"\xff\xd8"
_SCAN, _END, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)


class PictureError(Exception):
    """A picture cannot be analysed; the text says why.

    Attributes:
        reason: `empty`, `unsupported`, `too_large` or `damaged`.
    """

    def __init__(self, reason: Literal["empty", "unsupported", "too_large", "damaged"], text: str) -> None:
        super().__init__(text)
        self.reason = reason


def measure(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Return a picture's width and height as its header has them, before the EXIF orientation.

    Args:
        data: A JPEG, PNG, BMP or WebP file.
        max_pixels: Most pixels of a picture; larger ones are refused.

    Raises:
        PictureError: The file is none of these, or its picture is too large.
    """
    with _open(data, max_pixels) as picture:
        return picture.size


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded picture, which may be smaller than in its file.

    Attributes:
        image: (H, W, 3) uint8 BGR, upright.
        width: Width of the full-size picture in which coordinates are reported, upright or as stored, in pixels.
        height: Height of the full-size picture in which coordinates are reported, in pixels.
        matrix: (2, 3) transform from pixels of `image` to pixels of the full-size picture.
    """

    image: Image
    width: int
    height: int
    matrix: Matrix

    def located(self, face: Face) -> Face:
        """Return a face of `image` with its coordinates in the picture of `width` x `height` pixels."""
        corners = transform(face.shot.box.reshape(2, 2), self.matrix).clip(0, (self.width, self.height))
        box = np.concatenate([corners.min(0), corners.max(0)])
        shot = replace(face.shot, box=box, landmarks=transform(face.shot.landmarks, self.matrix))
        points = None if face.landmarks_106 is None else transform(face.landmarks_106, self.matrix)
        return replace(face, shot=shot, landmarks_106=points)


def load(data: bytes, max_pixels: int, least_side: int | None = None, upright: bool = True) -> Decoded:
    """Return a picture, turned upright by its EXIF orientation.

    Grey, 16-bit, CMYK and palette pictures are converted; alpha is dropped; of an animation the first frame is taken.
    While it works it holds up to 13 bytes a pixel.

    A JPEG that is larger than needed is decoded at 1/2, 1/4 or 1/8 of its size, which leaves out most of the inverse
    DCT: one of 12 megapixels takes 15 ms and not 50. The file is still read to its end, so that damage is found.

    Rows that the file does not have are damage. A progressive JPEG that ends before its last scans has all rows, but
    coarser ones, and is a picture.

    Args:
        data: A JPEG, PNG, BMP or WebP file.
        max_pixels: Most pixels of a picture; larger ones are refused by their header alone.
        least_side: Pixels that the longer side must keep; None for the full size.
        upright: Whether coordinates are those of the upright picture, and not those of the picture as stored.

    Raises:
        PictureError: The file is none of these, its picture is too large, or it is damaged.
    """
    with warnings.catch_warnings(), _open(data, max_pixels) as picture:
        warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and palettes; they do not matter here
        stored = picture.size
        if data.startswith(_JPEG):
            _check_scans(data)
        try:
            factor = _reduce(picture, least_side)
            image = _pixels(data, picture)
            is_cut = picture.format == "PNG" and png_lacks_rows(data, picture)
        except _DAMAGE as error:
            raise PictureError("damaged", f"the picture is damaged or cut short: {error}") from None
        orientation = _orientation(picture)
        reduced = picture.size
        missing = grey_rows(image, picture.mode == "CMYK") if data.startswith(_JPEG) else 0
        del picture  # its pixels are not needed while others are compared with these
    if is_cut:
        raise PictureError("damaged", "the picture is damaged or cut short: its last rows are missing")
    if missing and not _is_complete(data, image, least_side):
        share = missing / len(image)
        raise PictureError("damaged", f"the picture is damaged: {share:.0%} of its rows are missing or incomplete")
    image = _turn(image, orientation)
    matrix = np.diag([factor, factor, 1.0])
    if orientation != 1:
        # From the upright, reduced picture to the stored one in full size, and from there to the upright one.
        matrix = matrix @ np.linalg.inv(_turned(orientation, reduced))
        if upright:
            matrix = _turned(orientation, stored) @ matrix
    is_on_its_side = upright and orientation >= 5
    width, height = stored[::-1] if is_on_its_side else stored
    return Decoded(image, width, height, matrix[:2])


def _reduce(picture: Pillow.Image, least_side: int | None) -> int:
    """Set a JPEG to be decoded as small as `least_side` allows, and return the factor; 1 for other formats."""
    if least_side is None:
        return 1
    width, height = picture.size
    factor = next((factor for factor in (8, 4, 2) if max(width, height) >= factor * least_side), 1)
    drafted = picture.draft(None, (max(1, width // factor), max(1, height // factor)))
    # Pillow takes a factor that suits both sides: a picture that is one pixel high is not reduced.
    return 1 if drafted is None else round(width / drafted[1][2])


def _pixels(data: bytes, picture: Pillow.Image) -> Image:
    """Return pixels as stored.

    JPEGs are left to Pillow, although OpenCV decodes them too: its libjpeg writes to stderr what is wrong with a file.
    """
    if picture.format == "BMP" and picture.mode in ("1", "L", "P"):
        image = read_palette_bitmap(data, *picture.size)
        if image is not None:
            return image
    picture.load()
    return _to_bgr(picture)


def _is_complete(data: bytes, image: Image, least_side: int | None) -> bool:
    """Return whether the pixels of a JPEG are all in its file, by decoding it once more.

    Args:
        data: Bytes of the file.
        image: (H, W, 3) uint8 BGR, as decoded for `least_side`.
        least_side: Pixels that the longer side had to keep; None for the full size.
    """
    try:
        with _open(with_junk(data), sys.maxsize) as again:
            _reduce(again, least_side)
            again.load()
            return np.array_equal(_to_bgr(again), image)
    except _DAMAGE:
        return False


def _orientation(picture: Pillow.Image) -> int:
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGE:
        return 1  # an unreadable orientation is ignored
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _to_bgr(picture: Pillow.Image) -> Image:
    if picture.mode == "P" and picture.palette is None:
        raise ValueError("its palette is missing")
    if picture.mode.startswith("I"):  # 16-bit grey, whose conversion by Pillow clips instead of scaling
        grey = np.asarray(picture).clip(0, 65535).astype(np.uint16) >> 8
        return cv2.cvtColor(grey.astype(np.uint8), cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]
    if picture.mode == "L":
        return cv2.cvtColor(np.asarray(picture), cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]
    rgb = picture if picture.mode in ("RGB", "RGBA") else picture.convert("RGB")
    code = cv2.COLOR_RGBA2BGR if rgb.mode == "RGBA" else cv2.COLOR_RGB2BGR
    return cv2.cvtColor(np.asarray(rgb), code)  # type: ignore[return-value]


# How the EXIF orientations turn the stored picture upright: rows give the upright x and y by the stored x and y.
_UPRIGHT: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {
    1: ((1, 0), (0, 1)),
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, -1), (1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, 1), (-1, 0)),
}


def _turned(orientation: int, size: tuple[int, int]) -> Matrix:
    """Return the (3, 3) transform that turns the pixels of a stored picture of `size` upright."""
    matrix = np.eye(3)
    matrix[:2, :2] = _UPRIGHT[orientation]
    matrix[:2, 2] = -np.minimum(matrix[:2, :2], 0) @ size  # a flipped axis starts from the other edge
    return matrix


def _turn(image: Image, orientation: int) -> Image:
    """Return a stored picture's pixels upright. Pillow could do it too, more slowly, with four bytes a pixel."""
    x, y = _UPRIGHT[orientation]
    if x[0] == 0:
        image = cv2.transpose(image)  # type: ignore[assignment]
    flips = {(-1, 1): 1, (1, -1): 0, (-1, -1): -1}
    flip = flips.get((sum(x), sum(y)))
    return image if flip is None else cv2.flip(image, flip)  # type: ignore[return-value]


class _File(io.BytesIO):
    """A picture's file that limits the number of reads."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise PictureError("damaged", "the picture's file has too many pieces; save it anew")
        return super().read(size)


def _check_scans(data: bytes) -> None:
    """Raise `PictureError` for a JPEG with very many scans or markers; libjpeg accepts any number."""
    position, scans = 0, 0
    for _ in range(_MOST_MARKERS):
        found = _MARKER.search(data, position)
        if found is None or (marker := found[1][0]) == _END:
            return
        position = found.end()
        if marker not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2], "big")
        scans += marker == _SCAN
        if scans > _MOST_SCANS:
            break
    raise PictureError("damaged", "the picture's file has too many scans or markers; save it anew")


def _open(data: bytes, max_pixels: int) -> Pillow.Image:
    if not data:
        raise PictureError("empty", "there are no bytes; send those of a picture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = Pillow.open(_File(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise PictureError("unsupported", "these bytes are no JPEG, PNG, BMP or WebP picture") from None
        except _DAMAGE as error:
            raise PictureError("damaged", f"the picture's header cannot be read: {error}") from None
    width, height = picture.size
    if width < 1 or height < 1:
        raise PictureError("damaged", f"the picture is {width} x {height} pixels")
    if max(width, height) > _MOST_SIDE:
        raise PictureError(
            "too_large", f"the picture is {width} x {height} pixels; at most {_MOST_SIDE} a side are taken"
        )
    if width * height > max_pixels:
        raise PictureError(
            "too_large",
            f"the picture is {width} x {height} pixels; at most {max_pixels / 1e6:g} megapixels are taken",
        )
    return picture
