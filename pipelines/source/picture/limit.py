"""Bounds the pixels of a camera's pictures, which take up to seven bytes each while they are decoded and scaled.

FFmpeg's decoders take a bound, and refuse larger pictures before they allocate anything. They report it as one of many
faults of a packet, so the size is looked up where it can be found: in the decoder, which often knows it, or in the
header of a packet that is a whole picture.
"""

from __future__ import annotations

import io
import warnings

import av.error
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from PIL import Image as Pillow

from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.errors import SourceError

# Pillow's own limit on sizes is off: it would refuse to say how large a very large picture is.
Pillow.MAX_IMAGE_PIXELS = None

# Codecs whose packets are files of pictures.
_PICTURES = {"mjpeg": "JPEG", "png": "PNG", "apng": "PNG", "bmp": "BMP", "webp": "WEBP", "gif": "GIF", "tiff": "TIFF"}


class PictureLimit:
    """The bound on the pictures of one source.

    Args:
        config: The source.

    Attributes:
        suspected: Whether a packet failed in the way in which pictures that are too large do, and no size is known.
    """

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self.suspected = False

    def apply(self, context: VideoCodecContext) -> None:
        """Bound a decoder that is not open yet.

        Raises:
            SourceError: The stream says that its pictures are larger.
        """
        self._check(context.width, context.height)
        self.suspected = False
        context.options = {**context.options, **self._config.pixel_options()}

    def check_failed(self, context: VideoCodecContext, packet: Packet[VideoStream], error: Exception) -> None:
        """Raise `SourceError` if a packet could not be decoded because its picture is too large.

        Args:
            context: The decoder.
            packet: The packet.
            error: What PyAV raised.
        """
        self._check(context.width, context.height)
        if context.name in _PICTURES:
            self._check(*_size(packet, _PICTURES[context.name]))
        self.suspected |= isinstance(error, av.error.ArgumentError)

    def hint(self) -> str:
        """Return what to add to the text of an error about missing pictures."""
        if not self.suspected:
            return ""
        return f"; its pictures may have more than {self._config.max_megapixels:g} megapixels (max_megapixels)"

    def _check(self, width: int, height: int) -> None:
        if width * height > self._config.max_pixels:
            raise SourceError(
                "too_large",
                f"{self._config.shown_url} sends pictures of {width} x {height} pixels, "
                f"{width * height / 1e6:.4g} megapixels; at most {self._config.max_megapixels:g} are taken "
                "(max_megapixels); take the camera's smaller stream",
            )


def _size(packet: Packet[VideoStream], format_name: str) -> tuple[int, int]:
    """Return the size that the header of a picture names; zeros if it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of pictures that are large
            with Pillow.open(io.BytesIO(bytes(packet)), formats=(format_name,)) as picture:
                return picture.size
    except Exception:  # damage of any kind
        return 0, 0
