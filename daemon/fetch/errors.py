"""The one error of fetching."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "disabled",
    "bad_url",
    "forbidden",
    "busy",
    "unreachable",
    "timeout",
    "redirects",
    "status",
    "not_found",
    "credentials",
    "too_large",
]
"""Why nothing was fetched.

`disabled`: the configuration does not want it. `bad_url`: what was sent is no URL that can be fetched. `forbidden`: it
is one, but not allowed. `busy`: too many at a time. `unreachable`: no connection, no TLS, or a broken answer.
`timeout`: not done in time. `redirects`: too many, or to what is no place to go. `status`: any other answer than a
picture's. `not_found`: there is no such thing. `credentials`: the storage does not accept this daemon's. `too_large`:
more bytes than are taken.
"""


class FetchError(Exception):
    """Nothing was fetched; the text says what was wrong and what to do.

    The text goes to whoever sent the URL: it names its host, never its path, query or user, and no address that the
    host has.

    Args:
        reason: For programs.
        text: For people.
    """

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason
