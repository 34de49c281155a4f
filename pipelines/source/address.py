"""Parses a camera's `url`: a stream, a device or a file.

Users write file names with colons, schemes in capitals, and blanks at the ends. The name of an existing file means that
file, whatever it looks like; anything else is read by its scheme, of those that the installed FFmpeg has.
"""

from __future__ import annotations

import functools
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import av
import av.error

from visaged.pipelines.runtime.redact import shown

# Protocols for video that FFmpeg may have. URLs of the second group need no host, because FFmpeg may just listen.
_STREAMS = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "tcp")
_LISTENING = ("udp", "rtp", "srt", "rist")
_DEVICES = ("v4l2", "avfoundation", "dshow")

_GATEWAY = "a gateway such as MediaMTX can take it in and offer it as rtsp://"


@dataclass(frozen=True, slots=True)
class Address:
    """A source of pictures, in the form that FFmpeg opens.

    Attributes:
        kind: `stream` over the network, `device` (a USB camera), `file`, or `sdp`: a file that describes a stream.
        scheme: Scheme of a stream in lower case; empty for other kinds.
        target: URL, file or device that FFmpeg opens.
        format: Name of FFmpeg's input format; None if FFmpeg finds it out.
        path: Path of a file; None for other kinds.
    """

    kind: Literal["stream", "device", "file", "sdp"]
    scheme: str
    target: str
    format: str | None = None
    path: Path | None = None

    def missing(self) -> str | None:
        """Return why the file cannot be used, without credentials; None if it exists, or if this is no file."""
        if self.path is None or self.path.is_file():
            return None
        return f"{shown(str(self.path))} {'is not a file' if self.path.exists() else 'does not exist'}"


def address_of(url: str) -> Address:
    """Return what a camera's `url` names.

    Raises:
        ValueError: The text is not valid, or this FFmpeg cannot open it; the error says what is possible.
    """
    if not url.strip():
        raise ValueError("is empty; give an RTSP or HTTP URL, a file, or a device")
    if "://" not in url and is_file_name(url):
        return _file(Path(url))
    scheme, rest = _split(url)
    if scheme == "file":
        return _file(_path(rest) if is_file_name(str(_path(rest))) else _path(rest.strip()))
    url, rest = url.strip(), rest.strip()
    if scheme is None:
        if sys.platform == "linux" and url.startswith("/dev/video"):
            return Address("device", "", url, "v4l2")
        return _file(Path(url))
    if scheme in _DEVICES:
        name = rest.removeprefix("//")
        return Address("device", "", f"video={name}" if scheme == "dshow" else name, scheme)
    _check_scheme(scheme, url)
    _check_host(scheme, url)
    return Address("stream", scheme, f"{scheme}:{rest}")


def is_file_name(name: str) -> bool:
    """Return whether there is a file of exactly this name."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a path, or with a NUL
        return False


@functools.cache
def has_protocol(scheme: str) -> bool:
    """Return whether the installed FFmpeg can open URLs of a scheme, without using the network."""
    try:
        # FFmpeg checks that the protocol exists before it checks that it is allowed.
        av.open(f"{scheme}://127.0.0.1:9/", options={"protocol_whitelist": "none"}, timeout=1.0).close()
    except av.error.ProtocolNotFoundError:
        return False
    except Exception:  # not allowed by the whitelist, as intended
        return True
    return True


def _split(url: str) -> tuple[str | None, str]:
    """Return a URL's scheme in lower case and the rest; no scheme for a path, also one with a Windows drive."""
    match = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]+):(.*)", url, re.DOTALL)
    return (match[1].lower(), match[2]) if match else (None, url)


def _file(path: Path) -> Address:
    # Without `file:`, FFmpeg would take the text before a colon for a protocol; it does not decode the rest.
    kind: Literal["file", "sdp"] = "sdp" if path.suffix.lower() == ".sdp" else "file"
    # A description is read as one, and as nothing else that its data may look like.
    return Address(kind, "", f"file:{path}", "sdp" if kind == "sdp" else None, path)


def _path(rest: str) -> Path:
    """Return the path in what follows `file:`; percent-encoded, unless a file has that very name."""
    if rest.startswith("//"):
        rest = rest[2:]
        if rest.lower().startswith("localhost/"):
            rest = rest[len("localhost") :]
    if sys.platform == "win32" and re.match(r"/[A-Za-z]:", rest):
        rest = rest[1:]
    return Path(rest) if is_file_name(rest) else Path(unquote(rest))


def _check_scheme(scheme: str, url: str) -> None:
    known = [name for name in (*_STREAMS, *_LISTENING) if has_protocol(name)]
    if scheme in known:
        return
    possible = f"possible are {', '.join(known)}, file, {', '.join(_DEVICES)}, and the path of a file"
    if scheme in (*_STREAMS, *_LISTENING):
        raise ValueError(f"{scheme}:// cannot be opened by the FFmpeg in this PyAV; {possible}; {_GATEWAY}")
    no_file = "" if "://" in url else ", and there is no file of that name"
    if no_file and "@" in url:  # a user may stand where the scheme does
        raise ValueError(f"has no scheme{no_file}; {possible}")
    raise ValueError(f"scheme {scheme!r} is not supported{no_file}; {possible}")


def _check_host(scheme: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # The reason would quote what may be a part of the password.
        raise ValueError(
            "is not a valid URL; a port is a number up to 65535, and / ? # @ in a user or password must be "
            "percent-encoded"
        ) from None
    if scheme in _LISTENING:
        if port is None:
            raise ValueError(f"names no port; as in {scheme}://239.0.0.1:5004")
    elif not host:
        raise ValueError("names no host")
