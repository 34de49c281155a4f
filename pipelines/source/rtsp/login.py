"""Answers a camera's request for a login: Basic and Digest (RFC 2617, RFC 7616), as RTSP uses them.

Headers are text in Latin-1 here, which stands for any bytes: cameras send and expect UTF-8 and others in them.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Sequence

from visaged.pipelines.source.rtsp.challenges import challenge_fields
from visaged.pipelines.source.rtsp.messages import as_header

_ALGORITHMS: dict[str, Callable[[bytes], str]] = {
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "sha-256": lambda data: hashlib.sha256(data).hexdigest(),
}
_SESSION = "-sess"


class CameraLogin:
    """The login of one connection.

    Args:
        user: The user.
        password: The password.
    """

    def __init__(self, user: str, password: str) -> None:
        self._user, self._password = as_header(user), as_header(password)
        self._challenge: dict[str, str] | None = None  # of Digest; empty for Basic
        self._count = 0

    def challenged(self, challenges: Sequence[str]) -> bool:
        """Note what a camera asks for; return whether it can be answered. Digest is preferred."""
        digests = []
        for challenge in challenges:
            scheme, _, rest = challenge.strip().partition(" ")
            if scheme.lower() == "digest":
                digests.append(challenge_fields(rest))
        known = [found for found in digests if _algorithm(found) in _ALGORITHMS and "nonce" in found]
        if known:
            self._challenge, self._count = known[0], 0
            return True
        if any(challenge.strip().lower().startswith("basic") for challenge in challenges):
            self._challenge = {}
            return True
        return False

    def answer(self, method: str, uri: str) -> str | None:
        """Return the header for a request; None before the camera has asked for a login."""
        challenge = self._challenge
        if challenge is None:
            return None
        if not challenge:
            return "Basic " + base64.b64encode(f"{self._user}:{self._password}".encode("latin-1")).decode()
        digest = _ALGORITHMS[_algorithm(challenge)]

        def hashed(*parts: str) -> str:
            return digest(":".join(parts).encode("latin-1"))

        realm, nonce, own = challenge.get("realm", ""), challenge["nonce"], secrets.token_hex(8)
        secret, request = hashed(self._user, realm, self._password), hashed(method, uri)
        fields = {"username": self._user, "realm": realm, "nonce": nonce, "uri": uri}
        tail = ""
        if challenge.get("algorithm", "").lower().endswith(_SESSION):
            secret = hashed(secret, nonce, own)
            fields["cnonce"] = own
        if "auth" in [name.strip() for name in challenge.get("qop", "").split(",")]:
            self._count += 1
            count = f"{self._count:08x}"
            fields |= {"cnonce": own, "response": hashed(secret, nonce, count, own, "auth", request)}
            tail = f", qop=auth, nc={count}"
        else:
            fields["response"] = hashed(secret, nonce, request)
        fields |= {name: challenge[name] for name in ("opaque",) if name in challenge}
        if "algorithm" in challenge:
            tail += f", algorithm={challenge['algorithm']}"
        return "Digest " + ", ".join(f'{name}="{_escaped(value)}"' for name, value in fields.items()) + tail


def _algorithm(challenge: dict[str, str]) -> str:
    return challenge.get("algorithm", "md5").lower().removesuffix(_SESSION)


def _escaped(text: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", text)
