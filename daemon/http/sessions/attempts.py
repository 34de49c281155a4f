"""How often an address may try to log in.

Nobody guesses a key of 256 bits: the limit is about work, and lines in the log. A valid key is held up by logins with
that key alone. Where all users have one address, as behind a proxy in another container, one could else lock out all.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from visaged.daemon.http.keys import TokenBucket
from visaged.daemon.http.wire.seats import counted_address

PER_SECOND, BURST = 0.2, 10
"""Attempts of an address: on average, and at once after a pause."""

_MOST_ADDRESSES = 1000


class Attempts:
    """Counts the attempts of each address; of IPv6, of each network of 64 bits.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def count(self, host: str) -> int:
        """Count an attempt of an address; return 0, or after how many seconds it may be made."""
        address, _ = counted_address(host)
        return self._take(address)

    def count_key(self, name: str) -> int:
        """Count a login with a valid key, which others at its address cannot use up; return as `count`."""
        return self._take(f"key {name}")

    def _take(self, address: str) -> int:
        bucket = self._buckets.setdefault(address, TokenBucket(PER_SECOND, BURST, self._clock))
        self._buckets.move_to_end(address)
        if len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        return math.ceil(bucket.take())
