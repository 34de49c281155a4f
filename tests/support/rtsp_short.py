"""The least of an RTSP server: it answers the four requests of a player, and sends H.264 in the same connection."""

from __future__ import annotations

import base64
import re
import socket
import struct

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    "a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:video\r\n"
)
_CLOCK_HZ = 90_000
_SPS, _PPS = 7, 8


class RtspTalk:
    """One connection.

    Args:
        connection: To the player.
        first: The first picture, H.264 in Annex B with its parameter sets.
    """

    def __init__(self, connection: socket.socket, first: bytes) -> None:
        self._connection = connection
        self._sequence = 0
        sets = [nal for nal in _nals(first) if nal[0] & 31 in (_SPS, _PPS)]
        self._sdp = _SDP.format(sets=",".join(base64.b64encode(nal).decode() for nal in sets)).encode()

    def begin(self) -> bool:
        """Answer until the player wants to see pictures; return whether it does."""
        while True:
            request = self._request()
            if not request:
                return False
            method = request.split(" ", 1)[0]
            number = re.search(r"CSeq: *(\d+)", request, re.IGNORECASE)
            fields, body = f"CSeq: {number[1] if number else 0}\r\nSession: 1\r\n", b""
            if method == "OPTIONS":
                fields += "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n"
            elif method == "DESCRIBE":
                body = self._sdp
                fields += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                fields += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            self._connection.sendall(f"RTSP/1.0 200 OK\r\n{fields}\r\n".encode() + body)
            if method == "PLAY":
                return True

    def packets(self, picture: bytes, at_s: float) -> bytes:
        """Return a picture as it is sent, with a stamp of `at_s`."""
        whole, nals = b"", _nals(picture)
        for index, nal in enumerate(nals):
            marker = (index == len(nals) - 1) << 7
            stamp = round(at_s * _CLOCK_HZ) & 0xFFFFFFFF
            packet = struct.pack("!BBHII", 0x80, marker | 96, self._sequence & 0xFFFF, stamp, 1) + nal
            whole += struct.pack("!BBH", 0x24, 0, len(packet)) + packet
            self._sequence += 1
        return whole

    def _request(self) -> str:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            piece = self._connection.recv(4096)
            if not piece:
                return ""
            data += piece
        return data.decode("latin-1")


def _nals(picture: bytes) -> list[bytes]:
    return [nal.rstrip(b"\0") for nal in re.split(b"\0\0\1", picture) if nal.rstrip(b"\0")]
