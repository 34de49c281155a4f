"""When Home Assistant has started, so that it is told its devices again: it may not have what the broker retained.

Anybody who may publish there can pretend to be Home Assistant, so that is heeded only every few seconds. A broker may
hang up at a subscription that it does not allow, as AWS IoT does; after some of those, none is asked for any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

_LEAST_S = 10.0
_STRIKES = 3


class Births:
    """The subscription to Home Assistant's birth message.

    Args:
        topic: Topic of that message; None if it is not wanted.
        clock: Returns monotonic seconds.
        least_s: Least time in seconds from one reaction to the next, and from a new connection to the first.
    """

    def __init__(self, topic: str | None, clock: Callable[[], float], least_s: float = _LEAST_S) -> None:
        self._topic = topic
        self._clock = clock
        self._least_s = least_s
        self._told_s = -least_s
        self._is_asked = self._is_heard = self._is_reported = False
        self._strikes = 0

    def opened(self) -> str | None:
        """Note a new connection, on which everything is told; return the topic to subscribe to, if there is one."""
        self._told_s = self._clock()
        self._is_heard = False
        self._is_asked = self._topic is not None and self._strikes < _STRIKES
        return self._topic if self._is_asked else None

    def answered(self, refused: str) -> None:
        """Note that the broker has acknowledged the subscription, or why it has refused it."""
        self._is_asked = False
        self._strikes = 0
        if refused:
            self._report(f"refuses the subscription to {self._topic} ({refused})")

    def lost(self, unexplained: bool) -> bool:
        """Note the end of the connection, with no message on its way; return whether the subscription is given up now.

        Args:
            unexplained: Whether the broker may have ended the connection because of what this client sent.
        """
        self._strikes += self._is_asked and unexplained
        was_asked, self._is_asked = self._is_asked, False
        if not (was_asked and unexplained and self._strikes == _STRIKES):
            return False
        self._report(f"hangs up when this client subscribes to {self._topic}")
        return True

    def heard(self) -> None:
        """Note that Home Assistant has started."""
        self._is_heard = True

    def due(self) -> bool:
        """Return whether devices are to be told now; True once for what was heard."""
        if not self._is_heard or self._clock() < self._told_s + self._least_s:
            return False
        self._is_heard = False
        self._told_s = self._clock()
        return True

    def _report(self, what: str) -> None:
        if not self._is_reported:
            self._is_reported = True
            log.warning(
                "the MQTT broker %s: Home Assistant still finds the devices that the broker retains, but is not told "
                "them again when it starts; allow this client to read that topic",
                what,
            )
