"""Hardware decoders: tries the one that the configuration names, and falls back to software.

On CUDA all cameras decode in the device's primary context, which ONNX Runtime uses too. With contexts of their own, 32
cameras of 1080p took 18.6 GB of an H200's memory and 8.2 s to open; so they take 1.8 GB and 1.7 s, at the same rate.
"""

from __future__ import annotations

import ctypes
import logging
import sys

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.video.codeccontext import VideoCodecContext

from visaged.models.session import nvidia_driver_present
from visaged.pipelines.runtime.redact import redact

log = logging.getLogger(__name__)

_OPTIONS: dict[str, dict[str, object]] = {"cuda": {"primary_ctx": "1"}}
"""By the name of the decoder, options of FFmpeg's `av_hwdevice_ctx_create`."""


class Hardware:
    """The hardware decoder of one camera.

    Args:
        camera: Name of the camera, for the log.
        name: FFmpeg's name of the decoder, or `off`.
        stays: Whether frames stay in the decoder's memory, and are not copied to this machine's own.
    """

    def __init__(self, camera: str, name: str, stays: bool = False) -> None:
        self._camera = camera
        self._name = name
        self._stays = stays
        self._works = False
        self._warned = False

    def decoder(self) -> HWAccel | None:
        """Return the decoder to give to `av.open`; None for software. Logs once if the decoder cannot be used."""
        if self._name == "off":
            return None
        options = _OPTIONS.get(self._name)
        hardware = HWAccel(self._name, allow_software_fallback=True, options=options, is_hw_owned=self._stays)
        if not self._works:
            try:
                # Without a GPU this raises; within `av.open` that would look like a failure of the camera.
                hardware.create(av.Codec("h264", "r"))
            except Exception as error:
                self._warn(_missing(self._name) or redact(str(error)))
                return None
            self._works = True
        return hardware

    def check(self, context: VideoCodecContext) -> None:
        """Log once if a stream is decoded in software although hardware is configured."""
        if self._name != "off" and not context.is_hwaccel:
            self._warn(_missing(self._name))

    def _warn(self, reason: str | None) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "camera %s: hardware decoder %s is not usable here%s, decoding in software",
                self._camera, self._name, "" if reason is None else f" ({reason})",
            )  # fmt: skip


def _missing(name: str) -> str | None:
    """Return what a hardware decoder lacks here, which FFmpeg's own text does not say; None if that is unknown."""
    if name not in hwdevices_available():
        return f"this PyAV {av.__version__} was built without it; it has {', '.join(hwdevices_available()) or 'none'}"
    if name != "cuda":
        return None
    if not nvidia_driver_present():
        return "no NVIDIA driver answers on this machine: libcuda does not load"
    try:
        ctypes.CDLL("nvcuvid.dll" if sys.platform == "win32" else "libnvcuvid.so.1")
    except OSError:
        return (
            "the video part of the NVIDIA driver is missing: libnvcuvid does not load; install it, or in a container "
            "add video to NVIDIA_DRIVER_CAPABILITIES"
        )
    return None
