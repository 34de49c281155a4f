"""Hardware decoders: tried where the configuration names one, and software where it is not there."""

from __future__ import annotations

import logging

import av
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext

from visaged.pipelines.runtime.redact import redact

log = logging.getLogger(__name__)


class Hardware:
    """The hardware decoder of one camera.

    Args:
        camera: Its name, for the log.
        name: FFmpeg's name of the decoder, or `off`.
    """

    def __init__(self, camera: str, name: str) -> None:
        self._camera = camera
        self._name = name
        self._works = False
        self._warned = False

    def decoder(self) -> HWAccel | None:
        """Return what `av.open` takes; None for software. A decoder that is not there is logged once."""
        if self._name == "off":
            return None
        hardware = HWAccel(self._name, allow_software_fallback=True)
        if not self._works:
            try:
                # Without a GPU this raises, and would within `av.open`, where it looks like the camera's failure.
                hardware.create(av.Codec("h264", "r"))
            except Exception as error:
                self._warn(f" ({redact(str(error))})")
                return None
            self._works = True
        return hardware

    def check(self, context: VideoCodecContext) -> None:
        """Log once where a stream is decoded in software although hardware was asked for."""
        if self._name != "off" and not context.is_hwaccel:
            self._warn()

    def _warn(self, reason: str = "") -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "camera %s: hardware decoder %s is not usable here%s, decoding in software",
                self._camera, self._name, reason,
            )  # fmt: skip
