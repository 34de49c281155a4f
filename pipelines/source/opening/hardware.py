"""Hardware decoders: tries the one that the configuration names, and falls back to software."""

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
        camera: Name of the camera, for the log.
        name: FFmpeg's name of the decoder, or `off`.
    """

    def __init__(self, camera: str, name: str) -> None:
        self._camera = camera
        self._name = name
        self._works = False
        self._warned = False

    def decoder(self) -> HWAccel | None:
        """Return the decoder to give to `av.open`; None for software. Logs once if the decoder cannot be used."""
        if self._name == "off":
            return None
        hardware = HWAccel(self._name, allow_software_fallback=True)
        if not self._works:
            try:
                # Without a GPU this raises; within `av.open` that would look like a failure of the camera.
                hardware.create(av.Codec("h264", "r"))
            except Exception as error:
                self._warn(f" ({redact(str(error))})")
                return None
            self._works = True
        return hardware

    def check(self, context: VideoCodecContext) -> None:
        """Log once if a stream is decoded in software although hardware is configured."""
        if self._name != "off" and not context.is_hwaccel:
            self._warn()

    def _warn(self, reason: str = "") -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "camera %s: hardware decoder %s is not usable here%s, decoding in software",
                self._camera, self._name, reason,
            )  # fmt: skip
