"""Hardware decoders: tries the one that the configuration names, and falls back to software.

On CUDA all cameras decode in the device's primary context, which ONNX Runtime uses too. With contexts of their own, 32
cameras of 1080p took 18.6 GB of an H200's memory and 8.2 s to open; so they take 1.8 GB and 1.7 s, at the same rate.

A decoder that cannot be had is noticed in two places. Without a device, making its context fails. Where the device is
there, but has no session or memory left or does not know the stream's profile, FFmpeg goes on in software without a
word, and PyAV's `is_hwaccel` stays true: only the pixel format that the decoder then gives tells.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.video.codeccontext import VideoCodecContext

from visaged.models.session import nvidia_driver_present
from visaged.pipelines.runtime.redact import redact

log = logging.getLogger(__name__)

_OPTIONS: dict[str, dict[str, object]] = {"cuda": {"primary_ctx": "1"}}
"""By the name of the decoder, options of FFmpeg's `av_hwdevice_ctx_create`."""
_FORMATS = {"videotoolbox": "videotoolbox_vld", "d3d11va": "d3d11"}
"""By the name of the decoder, the format of its frames where FFmpeg calls that otherwise."""


class Hardware:
    """The hardware decoder of one camera; a failure of it is tried again whenever the camera is opened.

    Args:
        camera: Name of the camera, for the log.
        name: FFmpeg's name of the decoder, or `off`.
        device: FFmpeg's name of the device, such as `1` or `/dev/dri/renderD129`; None for its first.
        on_decoder: Called when pictures come with whether hardware decodes them.
        stays: Whether frames stay in the decoder's memory, and are not copied to this machine's own.

    Attributes:
        is_used: Whether it decoded the pictures that came last.
    """

    def __init__(
        self,
        camera: str,
        name: str,
        device: str | None = None,
        on_decoder: Callable[[bool], None] = lambda is_hardware: None,
        *,
        stays: bool = False,
    ) -> None:
        self._camera = camera
        self._name = name
        self._device = device
        self._on_decoder = on_decoder
        self._stays = stays
        self.is_used = False
        self._warned = False

    def decoder(self) -> HWAccel | None:
        """Return the decoder to give to `av.open`; None for software. Logs once if the decoder cannot be used."""
        if self._name == "off":
            return None
        options = _OPTIONS.get(self._name)
        try:
            hardware = HWAccel(
                self._name, self._device, allow_software_fallback=True, options=options, is_hw_owned=self._stays
            )
            # Within `av.open` this would look like a failure of the camera: there may be no GPU, or no memory now.
            hardware.create(av.Codec("h264", "r"))
        except NotImplementedError:
            self._warn(_missing(self._name) or f"the decoders of this PyAV {av.__version__} do not take it")
            return None
        except Exception as error:
            self._warn(_missing(self._name) or self._about(redact(str(error))))
            return None
        return hardware

    def decoded(self, context: VideoCodecContext) -> None:
        """Note what decodes a stream, by its decoder after a picture; logs once if that is software, against the wish.

        Must be called again when the size of the pictures changes: the decoder begins anew then.
        """
        self.is_used = context.pix_fmt == _FORMATS.get(self._name, self._name)
        self._on_decoder(self.is_used)
        if self._name == "off":
            return
        if not self.is_used:
            reason = "it has no session or memory left, or does not know this stream" if context.is_hwaccel else None
            self._warn(_missing(self._name) or reason, f"{context.name}, {context.profile}, {context.pix_fmt}")
        elif self._warned:
            self._warned = False
            log.info("camera %s: hardware decoder %s is used now", self._camera, self._name)

    def _about(self, reason: str) -> str:
        return reason if self._device is None else f"device {self._device}: {reason}"

    def _warn(self, reason: str | None, stream: str = "") -> None:
        if not self._warned:
            self._warned = True
            why = "; ".join(part for part in (reason, stream) if part)
            log.warning(
                "camera %s: hardware decoder %s is not usable here%s, decoding in software",
                self._camera, self._name, f" ({why})" if why else "",
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
