"""The error that all parts of fetching raise."""

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

`disabled`: switched off in the configuration. `bad_url`: not a URL that can be fetched. `forbidden`: not allowed by the
configuration. `busy`: too many fetches at a time. `unreachable`: no connection, no TLS, or a broken answer. `timeout`:
not done in time. `redirects`: too many, or to a URL that cannot be followed. `status`: any other status than success.
`not_found`: the server has no such file. `credentials`: the storage refuses this daemon's access key. `too_large`: more
bytes than the limit.
"""


class FetchError(Exception):
    """Nothing was fetched; the text says what was wrong and what to do.

    The text is sent to the client that sent the URL: it may name the host, never the path, query or user, nor an
    address of the host.

    Args:
        reason: Kind of the failure, for programs.
        text: What was wrong and what to do, for people.
    """

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason
