"""API keys: how they are made, how they are recognised, and how much each may ask for.

A key is 256 random bits, so a plain SHA-256 of it is safe to keep: nobody can try 2**256 keys, and a slow hash such as
bcrypt, which makes guessing of *passwords* dear, would only make every request dear. That holds for random keys alone.
A hash does not tell what it was made from, so a text that is not of the form that `make_key` gives is never accepted,
whatever hash stands in the configuration.
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
"""What keys begin with, so that a tool which looks for forgotten secrets can find them."""

_BYTES = 32
# 32 bytes are 43 characters of URL-safe base64.
_FORM = re.compile(rb"visaged_[A-Za-z0-9_-]{43}")

Cause = Literal["too_fast", "too_many"]


def make_key() -> str:
    """Return a new key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def hash_key(key: bytes) -> str:
    """Return what the configuration holds of a key: its SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(key).hexdigest()


class TokenBucket:
    """A token bucket: so many requests a second on average, and so many at once after a pause.

    Args:
        per_second: Tokens that come in a second.
        burst: Tokens that it holds at most, and at the start.
        clock: Monotonic seconds.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled_s = clock()

    def take(self) -> float:
        """Take a token; return 0, or if there is none the seconds until there will be one."""
        now_s = self._clock()
        self._tokens = min(self._burst, self._tokens + (now_s - self._filled_s) * self._per_second)
        self._filled_s = now_s
        # After the very wait that was asked for, rounding may leave a hair less than a whole token.
        if self._tokens < 1 - 1e-9:
            return (1 - self._tokens) / self._per_second
        self._tokens = max(0.0, self._tokens - 1)
        return 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a holder of a good key has to wait.

    Attributes:
        cause: `too_fast`, or `too_many` at once.
        detail: For the client.
        retry_after_s: Whole seconds, rounded up.
    """

    cause: Cause
    detail: str
    retry_after_s: int


class Holder:
    """Who has a key, and what they have in work.

    Args:
        settings: Name and limits.
        clock: Monotonic seconds.

    Attributes:
        name: Of the key.
        role: What its holder may do.
        active: Requests in work.
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
        keys: Those that are good.
        clock: Monotonic seconds, for their rates.
    """

    def __init__(self, keys: Sequence[ApiKeySettings], clock: Callable[[], float] = time.monotonic) -> None:
        self._holders = [(key.sha256, Holder(key, clock)) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._holders)

    @property
    def names(self) -> list[str]:
        """The keys' names."""
        return [holder.name for _, holder in self._holders]

    def find(self, key: bytes) -> Holder | None:
        """Return whose key it is; takes as long whatever the key is like, beyond its form."""
        if not _FORM.fullmatch(key):
            return None
        digest = hash_key(key)
        found = None
        for known, holder in self._holders:
            if hmac.compare_digest(known, digest):
                found = holder
        return found
