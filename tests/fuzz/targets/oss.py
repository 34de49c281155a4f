"""Requests to the OSS endpoint, with and without signatures.

The first line of an input says how it is signed: `none`, `v1`, `v1-url`, `v4`, `v4-url`. With a `!` and a number after
it the signed request is changed once more, by a mutator with that seed. The rest is the request's head.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

from tests.fuzz.findings import Complaint, Kind
from tests.fuzz.kept import words
from tests.fuzz.mutator import Mutator
from tests.fuzz.oracle import judge_answer
from tests.fuzz.subject import KEY_ID, OSS_SECRET, PRIVATE, REGION, SECRETS
from tests.fuzz.targets.base import DaemonTarget
from tests.fuzz.wire import exchange
from visaged.daemon.api.aliyun_oss.requests import OssRequest
from visaged.daemon.api.aliyun_oss.signature import (
    V4,
    canonical_request_v4,
    signature_v1,
    signature_v4,
    string_to_sign_v1,
)

_HEAD = re.compile(rb"(?P<method>[A-Z]+) (?P<target>[^ \r\n]+) HTTP/1\.[01]\r\n(?P<headers>.*)\Z", re.DOTALL)


class OssTarget(DaemonTarget):
    """Sends requests to the OSS endpoint."""

    name = "oss"
    words = words(name)

    def send(self, data: bytes) -> list[Complaint]:
        """Sign a request as its first line says, and send it."""
        way, _, request = data.partition(b"\n")
        way, _, damage = way.strip().partition(b"!")
        signed = sign(request, way.decode("latin-1"), time.time())
        is_signed = signed != request
        if damage.isdigit():
            signed = Mutator(random.Random(int(damage[:9])), self.words).mutate([signed])
        try:
            answer = exchange(self._daemon.oss_port, signed)
        except OSError as error:
            return [Complaint(Kind.UNWELL, f"no connection to the OSS port: {error}")]
        complaints = judge_answer(answer, SECRETS)
        if PRIVATE.encode() in answer and not is_signed:
            complaints.append(Complaint(Kind.SECRET, "an object of a private bucket without a signature"))
        return complaints

    def settle(self) -> list[Complaint]:
        """Return nothing: the oracle reads the log for all ports."""
        return []


def sign(request: bytes, way: str, now_s: float) -> bytes:
    """Return a request's head with a signature; one that is no head, or for an unknown way, as it is."""
    found = _HEAD.match(request)
    if found is None or way not in ("v1", "v1-url", "v4", "v4-url"):
        return request
    target, headers = found["target"], found["headers"]
    path, _, query = target.partition(b"?")
    pairs = [
        (unquote_to_bytes(name), unquote_to_bytes(value))
        for name, _, value in (part.partition(b"=") for part in query.split(b"&") if part)
    ]
    fields = [
        (name.strip().lower(), value.strip())
        for name, colon, value in (line.partition(b":") for line in headers.split(b"\r\n"))
        if colon
    ]
    bucket, _, key = unquote_to_bytes(path).lstrip(b"/").partition(b"/")
    plain = OssRequest(found["method"].decode(), bucket.decode("latin-1"), key, tuple(pairs), tuple(fields), "")
    more_query, more_headers = _SIGNERS[way](plain, now_s)
    joined = b"&".join(filter(None, [query, more_query]))
    start = found["method"] + b" " + path + (b"?" + joined if joined else b"") + b" HTTP/1.1\r\n"
    return start + more_headers + headers


def _v1(request: OssRequest, now_s: float) -> tuple[bytes, bytes]:
    date = datetime.fromtimestamp(now_s, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").encode()
    signature = signature_v1(OSS_SECRET, string_to_sign_v1(request, date))
    return b"", b"Date: %s\r\nAuthorization: OSS %s:%s\r\n" % (date, KEY_ID.encode(), signature.encode())


def _v1_url(request: OssRequest, now_s: float) -> tuple[bytes, bytes]:
    expires = b"%d" % (now_s + 600)
    signature = signature_v1(OSS_SECRET, string_to_sign_v1(request, expires))
    text = f"OSSAccessKeyId={KEY_ID}&Expires={expires.decode()}&Signature={quote(signature, safe='')}"
    return text.encode(), b""


def _v4(request: OssRequest, now_s: float) -> tuple[bytes, bytes]:
    moment = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    own = ((b"x-oss-date", moment.encode()), (b"x-oss-content-sha256", b"UNSIGNED-PAYLOAD"))
    signature = _signature_v4(request, request.query, (*request.headers, *own), moment)
    lines = [b"%s: %s\r\n" % pair for pair in own]
    credential = f"Credential={KEY_ID}/{_scope(moment)},Signature={signature}"
    return b"", b"".join(lines) + f"Authorization: {V4} {credential}\r\n".encode()


def _v4_url(request: OssRequest, now_s: float) -> tuple[bytes, bytes]:
    moment = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    own = [
        (b"x-oss-signature-version", V4.encode()),
        (b"x-oss-date", moment.encode()),
        (b"x-oss-expires", b"600"),
        (b"x-oss-credential", f"{KEY_ID}/{_scope(moment)}".encode()),
    ]
    signature = _signature_v4(request, (*request.query, *own), request.headers, moment)
    pairs = [*own, (b"x-oss-signature", signature.encode())]
    return b"&".join(name + b"=" + quote(value, safe="").encode() for name, value in pairs), b""


_SIGNERS = {"v1": _v1, "v1-url": _v1_url, "v4": _v4, "v4-url": _v4_url}


def _scope(moment: str) -> str:
    return f"{moment[:8]}/{REGION}/oss/aliyun_v4_request"


def _signature_v4(
    request: OssRequest,
    query: tuple[tuple[bytes, bytes], ...],
    headers: tuple[tuple[bytes, bytes], ...],
    moment: str,
) -> str:
    whole = OssRequest(request.method, request.bucket, request.key, query, headers, request.host)
    digest = hashlib.sha256(canonical_request_v4(whole, query, ())).hexdigest()
    return signature_v4(OSS_SECRET, _scope(moment), f"{V4}\n{moment}\n{_scope(moment)}\n{digest}".encode())
