"""The system parts that some tests need, and what happens without them.

A test says what it needs by a mark, `@needs(MOSQUITTO)`, or by a fixture that calls `require(MOSQUITTO)`. Where the
part is missing it is skipped, and the reason names the Debian package. With CI=true in the environment a missing part
fails the test instead: a suite that skips in silence proves nothing. Hardware may be missing even there.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
MARK = "needs_part"

# GStreamer's elements that rtsp_server.py uses, and the bindings: which package brings each.
_GST_ELEMENTS = {
    "appsrc": "gstreamer1.0-plugins-base",
    "rtph264pay": "gstreamer1.0-plugins-good",
    "h264parse": "gstreamer1.0-plugins-bad",
    "x264enc": "gstreamer1.0-plugins-ugly",
    "avdec_h264": "gstreamer1.0-libav",
}
FAKETIME_LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""libfaketime for programs with threads; None if it is not installed."""
_GST_PROBE = """
import sys
try:
    import gi
except ImportError:
    sys.exit("python3-gi")
try:
    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import Gst, GstRtspServer
except (ImportError, ValueError):
    sys.exit("gir1.2-gst-rtsp-server-1.0")
Gst.init(None)
print(*(name for name in sys.argv[1:] if not Gst.ElementFactory.find(name)))
"""


@dataclass(frozen=True, slots=True)
class SystemPart:
    """Something outside Python's packages that tests use."""

    name: str
    missing: Callable[[], str]
    """Says what is missing and how to get it; the empty string if the part is there."""
    is_hardware: bool = False
    """Whether it may be missing in CI too."""


def find_program(name: str) -> str | None:
    """The path of a program, looked for in /usr/sbin too, which ordinary users often have not in their PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")


def _program(name: str, package: str) -> Callable[[], str]:
    return lambda: "" if find_program(name) else f"install the Debian package {package}"


def _faketime() -> str:
    return "" if FAKETIME_LIBRARY is not None else "install the Debian package libfaketime"


def _device(pattern: str, what: str) -> Callable[[], str]:
    return lambda: "" if any(Path("/dev").glob(pattern)) else f"this machine has no {what} (/dev/{pattern})"


@functools.cache
def _missing_gstreamer() -> str:
    try:
        probe = subprocess.run(
            [SYSTEM_PYTHON, "-c", _GST_PROBE, *_GST_ELEMENTS], capture_output=True, text=True, timeout=120, check=False
        )
    except FileNotFoundError:
        return "install the Debian packages python3 python3-gi gir1.2-gst-rtsp-server-1.0"
    if probe.returncode != 0:
        lines = probe.stderr.strip().splitlines()
        return f"install the Debian package {lines[-1] if lines else 'gir1.2-gst-rtsp-server-1.0'}"
    packages = sorted({_GST_ELEMENTS[element] for element in probe.stdout.split()})
    return f"install the Debian packages {' '.join(packages)}" if packages else ""


MOSQUITTO = SystemPart("mosquitto", _program("mosquitto", "mosquitto"))
MOSQUITTO_PASSWD = SystemPart("mosquitto_passwd", _program("mosquitto_passwd", "mosquitto"))
PROMETHEUS = SystemPart("prometheus", _program("prometheus", "prometheus"))
RTSP_SERVER = SystemPart("GStreamer's RTSP server (gir1.2-gst-rtsp-server-1.0)", _missing_gstreamer)
FAKETIME = SystemPart("libfaketime", _faketime)
SYSTEMD = SystemPart("systemd-analyze", _program("systemd-analyze", "systemd"))
CHROMIUM = SystemPart("Chromium", _program("chromium", "chromium"))
NPM = SystemPart("npm", _program("npm", "npm"))
FFMPEG = SystemPart("the ffmpeg program", _program("ffmpeg", "ffmpeg"))
NVIDIA_GPU = SystemPart("an NVIDIA GPU", _device("nvidia[0-9]*", "NVIDIA GPU"), is_hardware=True)
USB_CAMERA = SystemPart("a USB camera", _device("video[0-9]*", "camera"), is_hardware=True)


def is_ci() -> bool:
    """Whether missing parts are failures."""
    return os.environ.get("CI", "").lower() == "true"


def require(*parts: SystemPart) -> None:
    """Skips the running test (with CI=true: fails it) if a part is missing."""
    for part in parts:
        remedy = part.missing()
        if not remedy:
            continue
        reason = f"needs {part.name}: {remedy}"
        if is_ci() and not part.is_hardware:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def needs(*parts: SystemPart) -> pytest.MarkDecorator:
    """The mark for tests that use parts without a fixture; tests/conftest.py acts on it."""
    return getattr(pytest.mark, MARK)(*parts)  # type: ignore[no-any-return]
