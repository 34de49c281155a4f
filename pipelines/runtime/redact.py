"""Removes secrets from URLs, for logs, states and error texts."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit, urlunsplit

# The second form has a password with characters that should have been percent-encoded: `user:a/b@host`, but not
# `host:554/a@b`.
_USERINFO = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^\s/?#]*|(?!\[)[^\s/?#@:]*:(?!\d{1,5}(?:[/?#\s'\",;)\]}]|$))[^\s@]*)@",
    re.IGNORECASE,
)
# Many cameras have such parameters in the path too: `/user=admin&password=secret`.
_SECRET_QUERY = re.compile(
    r"(?P<key>[?&/;](?:[a-z_-]*(?:pass|pwd|secret|token|key|auth|sign|credential)[a-z_-]*|user(?:name)?|usr|login)=)[^&#\s'\"]*",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return a text with user names, passwords and other secrets in its URLs replaced by `***`."""
    return _SECRET_QUERY.sub(r"\g<key>***", _USERINFO.sub(r"\g<scheme>***@", text))


def with_credentials(url: str, username: str | None, password: str | None) -> str:
    """Return a URL with credentials put into it; those that it already has are kept unless `username` is given."""
    if username is None:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = quote(username, safe="")
    if password is not None:
        user += ":" + quote(password, safe="")
    return urlunsplit(parts._replace(netloc=f"{user}@{host}"))
