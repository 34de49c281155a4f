"""API keys: how they are made and recognised, and the limits of each.

A key is 256 random bits, so a plain SHA-256 of it is safe to store: nobody can try 2**256 keys. A slow hash such as
bcrypt protects passwords, which can be guessed; here it would only slow down every request. This holds for random keys
alone, and a hash does not show what it was made from. So a text that does not have the form of `make_key` is never
accepted, whatever hash is in the configuration.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from visaged.daemon.http.settings import ApiKeySettings

PREFIX = "visaged_"
"""Prefix of every key, so that tools that search for leaked secrets can find keys."""

_BYTES = 32
# 32 bytes are 43 characters of URL-safe base64.
_FORM = re.compile(rb"visaged_[A-Za-z0-9_-]{43}")

Cause = Literal["too_fast", "too_many"]


def make_key() -> str:
    """Return a new key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def hash_key(key: bytes) -> str:
    """Return the SHA-256 of a key as 64 hexadecimal digits, which the configuration holds in place of the key."""
    return hashlib.sha256(key).hexdigest()


class TokenBucket:
    """A token bucket, which limits the average rate of requests, and how many may come at once after a pause.

    Args:
        per_second: Tokens that are added per second.
        burst: Most tokens that the bucket holds; it starts full.
        clock: Returns monotonic seconds.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled_s = clock()

    def take(self) -> float:
        """Take a token and return 0; if there is none, return the seconds until there will be one."""
        now_s = self._clock()
        self._tokens = min(self._burst, self._tokens + (now_s - self._filled_s) * self._per_second)
        self._filled_s = now_s
        # After exactly the wait that was returned, rounding may leave slightly less than a whole token.
        if self._tokens < 1 - 1e-9:
            return (1 - self._tokens) / self._per_second
        self._tokens = max(0.0, self._tokens - 1)
        return 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request with a valid key is refused.

    Attributes:
        cause: `too_fast` for too many requests a second, `too_many` for too many at once.
        detail: Explanation for the client.
        retry_after_s: Seconds until the client should try again, rounded up.
    """

    cause: Cause
    detail: str
    retry_after_s: int


class Holder:
    """The holder of a key, with the requests that are in progress.

    Args:
        settings: Name, role and limits of the key.
        clock: Returns monotonic seconds.

    Attributes:
        name: Name of the key.
        role: What the holder of the key may do.
        active: Number of requests in progress.
    """

    def __init__(self, settings: ApiKeySettings, clock: Callable[[], float]) -> None:
        self.name = settings.name
        self.role = settings.role
        self.active = 0
        self._settings = settings
        rate = settings.max_per_second
        self._bucket = None if rate is None else TokenBucket(rate, settings.burst or max(1, math.ceil(rate)), clock)

    def enter(self) -> Refusal | None:
        """Begin a request, to be ended with `leave`, or return why it cannot begin."""
        most = self._settings.max_at_once
        if most is not None and self.active >= most:
            detail = f"key {self.name} has {self.active} requests in work and may have {most} (max_at_once)"
            return Refusal("too_many", f"{detail}; wait for an answer before the next request", 1)
        wait_s = 0.0 if self._bucket is None else self._bucket.take()
        if wait_s:
            rate = self._settings.max_per_second
            detail = f"key {self.name} may ask {rate:g} times a second (max_per_second)"
            seconds = math.ceil(wait_s)
            return Refusal("too_fast", f"{detail}; ask again in {seconds} s", seconds)
        self.active += 1
        return None

    def leave(self) -> None:
        """End a request."""
        self.active -= 1


class Keyring:
    """The keys of the configuration.

    Args:
        keys: The valid keys.
        clock: Returns monotonic seconds, for the rate limits.
    """

    def __init__(self, keys: Sequence[ApiKeySettings], clock: Callable[[], float] = time.monotonic) -> None:
        self._holders = [(key.sha256, Holder(key, clock)) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._holders)

    @property
    def names(self) -> list[str]:
        """The keys' names."""
        return [holder.name for _, holder in self._holders]

    def fingerprints(self) -> dict[str, Holder]:
        """Return the holders by the SHA-256 of their key's SHA-256, which tells keys apart and lets nobody in."""
        return {hash_key(sha256.encode()): holder for sha256, holder in self._holders}

    def find(self, key: bytes) -> Holder | None:
        """Return the holder of a key; None if it is not valid. The time taken does not depend on the hashes."""
        if not _FORM.fullmatch(key):
            return None
        digest = hash_key(key)
        found = None
        for known, holder in self._holders:
            if hmac.compare_digest(known, digest):
                found = holder
        return found
