"""Heads of requests and answers, as they go on to a node and back."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Scope

# Headers that are about one connection (RFC 9110, section 7.6.1), and what the server in front has dealt with.
_OF_A_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"}
)
# What clients say of where they come from. A node believes what comes by its doors, so that nothing of it may be the
# client's own.
_OF_A_PROXY = frozenset({b"forwarded", b"via", b"x-real-ip"})
_FORWARDED = b"x-forwarded-"
# What Serve adds to each answer by itself. It gives each request an id, too, which the node takes over.
_OF_SERVE = frozenset({b"date", b"server", b"x-request-id"})


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request.

    Attributes:
        method: Its method.
        target: Path and query, as they were sent: signatures cover them.
        headers: Pairs of a name in lower case and a value.
    """

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def head_of(scope: Scope) -> Head:
    """Return the head of a request as a node gets it: with the client's address, and without what clients made up."""
    chunked = any(name.lower() == b"transfer-encoding" for name, _ in scope["headers"])
    headers = _lasting(scope["headers"])
    headers = [one for one in headers if one[0] not in _OF_A_PROXY and not one[0].startswith(_FORWARDED)]
    client = scope.get("client")
    headers += [
        (b"x-forwarded-for", (client[0] if client else "unknown").encode()),
        (b"x-forwarded-proto", scope["scheme"].encode()),
        (b"connection", b"close"),
    ]
    if chunked:  # which counts alone, where a length is given too
        headers = [one for one in headers if one[0] != b"content-length"]
        headers.append((b"transfer-encoding", b"chunked"))
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    return Head(scope["method"].encode(), target, tuple(headers))


def answer_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a node's answer that go back to the client."""
    return [one for one in _lasting(headers) if one[0] not in _OF_SERVE]


def _lasting(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers, with names in lower case, without those about the connection that they came by."""
    lower = [(bytes(name).lower(), bytes(value)) for name, value in headers]
    named = {part.strip().lower() for name, value in lower if name == b"connection" for part in value.split(b",")}
    # A client must not have the length of its own body, or its key, dropped on the way by naming it there.
    named = {name for name in named if name not in (b"content-length", b"host", b"authorization", b"x-api-key")}
    return [one for one in lower if one[0] not in _OF_A_CONNECTION | named]
