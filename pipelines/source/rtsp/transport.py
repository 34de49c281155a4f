"""The Transport header of a camera's answer: by whom media come, and to whom FFmpeg sends its reports on them."""

from __future__ import annotations

import re

from visaged.pipelines.source.rtsp.messages import BadMessage

_PROTOCOL = re.compile(r"[\w/.-]{1,40}", re.ASCII)
_NAME = re.compile(r"[\w-]{1,32}", re.ASCII)
_VALUE = re.compile(r'[\w.:/"-]{1,64}', re.ASCII)
# Hosts with which media are exchanged; FFmpeg takes the second for multicast, which it is not asked to use.
_HOSTS = frozenset({"source", "destination"})


def from_camera(transport: str, camera: str) -> str:
    """Return a Transport header by which media are exchanged with the camera, and with no other host.

    FFmpeg uses the first of several transports, and only the beginning of a long header. So this one is written anew
    from what is sure to be read alike.

    Args:
        transport: The header of the camera.
        camera: Address of the camera.

    Raises:
        BadMessage: It names no protocol.
    """
    protocol, *parts = transport.partition(",")[0].split(";")
    protocol = protocol.strip()
    if not _PROTOCOL.fullmatch(protocol):
        raise BadMessage
    kept = [protocol, f"source={camera}"]
    for part in parts:
        name, mark, value = (text.strip() for text in part.partition("="))
        if name.lower() in _HOSTS or not _NAME.fullmatch(name):
            continue
        if not mark or _VALUE.fullmatch(value):
            kept.append(f"{name}{mark}{value}")
    return ";".join(kept[:20])
