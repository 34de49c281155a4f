"""Pictures as the body of POST /v1/faces: 200, or a problem document with 4xx."""

from __future__ import annotations

import http.client
import json
import random
import struct
import zlib
from collections.abc import Iterator

from tests.fuzz.findings import Complaint, Kind
from tests.fuzz.kept import words
from tests.fuzz.oracle import DOCUMENTED, judge_answer
from tests.fuzz.subject import SECRETS
from tests.fuzz.targets.base import DaemonTarget

_PNG = b"\x89PNG\r\n\x1a\n"
_ANSWER_S = 60.0


class PicturesTarget(DaemonTarget):
    """Sends files to POST /v1/faces."""

    name = "pictures"
    words = words(name)

    def finish(self, data: bytes, rng: random.Random) -> bytes:
        """Put the sums of a PNG right, mostly: with wrong ones the decoder looks no further."""
        return _with_sums(data) if data.startswith(_PNG) and rng.random() < 0.8 else data

    def send(self, data: bytes) -> list[Complaint]:
        """Send a file."""
        connection = http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=_ANSWER_S)
        try:
            connection.request("POST", "/v1/faces", data)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            return [Complaint(Kind.ANSWER, f"no answer to a picture: {type(error).__name__} {error}")]
        finally:
            connection.close()
        return judge_picture(response.status, response.headers.get_content_type(), body) + judge_answer(body, SECRETS)


def judge_picture(status: int, content_type: str, body: bytes) -> list[Complaint]:
    """Return what is wrong with the answer to a picture."""
    if status >= 500 and status not in DOCUMENTED:
        return [Complaint(Kind.STATUS, f"a picture was answered with {status}")]
    try:
        document = json.loads(body)
    except ValueError:
        return [Complaint(Kind.ANSWER, f"status {status} without JSON")]
    if status == 200:
        return [] if "faces" in document else [Complaint(Kind.ANSWER, "200 without faces")]
    if content_type != "application/problem+json" or document.get("status") != status or not document.get("detail"):
        return [Complaint(Kind.ANSWER, f"status {status} without a problem document")]
    return []


def _with_sums(png: bytes) -> bytes:
    return _PNG + b"".join(_chunks(png))


def _chunks(png: bytes) -> Iterator[bytes]:
    """Yield the chunks of a PNG with right sums, and what is no chunk as it is."""
    at = len(_PNG)
    while at + 8 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        body = png[at + 4 : at + 8 + length]
        if at + 12 + length > len(png):
            break
        yield struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    yield png[at:]
