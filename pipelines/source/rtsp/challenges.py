"""Reads what a server asks for in `WWW-Authenticate`."""

from __future__ import annotations

import re

_FIELD = re.compile(r'(?<![\w-])([\w-]{1,40})[ \t]{0,9}=[ \t]{0,9}(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))', re.ASCII)
_ESCAPED = re.compile(r"\\(.)")


def challenge_fields(text: str) -> dict[str, str]:
    """Return the fields of a challenge by name in lower case; what is no field is left out.

    Args:
        text: The challenge without its scheme, as in `realm="camera", nonce="1"`.
    """
    return {
        found[1].lower(): found[3] if found[2] is None else _ESCAPED.sub(r"\1", found[2])
        for found in _FIELD.finditer(text)
    }
