"""The parameters of requests for events: read strictly, with errors that say what to write."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus

from visaged.daemon.config.base import NAME_PATTERN
from visaged.daemon.http.problems import Problem
from visaged.models.manifest import Head
from visaged.pipelines.history.kept import number_of
from visaged.pipelines.history.query import Condition, Cursor, Filter

KINDS = ("begin", "update", "end")

_MOST_NAMES = 100
_MOST_CONDITIONS = 10
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?")
_UNENCODED = re.compile(r".*\d \d\d:\d\d")
_CURSOR = re.compile(r"(-?[0-9]{1,15})\.([0-9]{1,19})")
# The years 1 to 9999 in UTC: answers give times back, and can write no others.
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
_EXAMPLE = "write it as 2026-11-21T08:06:27Z or 2026-11-21T09:06:27%2B01:00"


def filter_of(
    camera: str | None,
    kind: str | None = None,
    since: str | None = None,
    until: str | None = None,
    attributes: Sequence[str] = (),
    latest: bool = False,
    heads: Mapping[str, Head] | None = None,
) -> Filter:
    """Return the filter that a request's parameters describe.

    Args:
        camera: Names of cameras, separated by commas; None for all.
        kind: Kinds of events, separated by commas; None for all.
        since: RFC 3339 time with a zone; None for any.
        until: RFC 3339 time with a zone; None for any.
        attributes: Conditions, `NAME:VALUE` each.
        latest: Whether only the newest event of each track is asked for.
        heads: The attributes that there are.

    Raises:
        Problem: A parameter is wrong; the text names it.
    """
    since_ms, until_ms = time_of("since", since), time_of("until", until)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise wrong("since", "must be before until")
    if len(attributes) > _MOST_CONDITIONS:
        raise wrong("attribute", f"may be given {_MOST_CONDITIONS} times at most")
    conditions = tuple(_condition(text, heads or {}) for text in attributes)
    return Filter(_cameras(camera), _kinds(kind), since_ms, until_ms, conditions, latest)


def time_of(name: str, text: str | None) -> int | None:
    """Return a time in milliseconds since 1970; None for None.

    Args:
        name: Name of the parameter.
        text: RFC 3339 time with a zone.

    Raises:
        Problem: It is none.
    """
    if text is None:
        return None
    found = _TIME.fullmatch(text)
    if found is None and _UNENCODED.fullmatch(text):
        raise wrong(name, f"has a space where a + was meant, which is %2B in a URL; {_EXAMPLE}")
    if found is None:
        raise wrong(name, f"is no time; {_EXAMPLE}")
    if found[2] is None:
        raise wrong(name, f"has no time zone; {_EXAMPLE}")
    try:
        time_ms = round(datetime.fromisoformat(text.upper()).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise wrong(name, f"is a time that does not exist; {_EXAMPLE}") from None
    if not _FIRST_MS <= time_ms <= _LAST_MS:
        raise wrong(name, f"is a time before the year 1 or after the year 9999 in UTC; {_EXAMPLE}")
    return time_ms


def id_number(id: str) -> int:
    """Return the number of an event from its id; raises `Problem` (404) if the text is no id."""
    number = number_of(id)
    if number is None:
        raise missing()
    return number


def missing() -> Problem:
    """Return the problem of an event that is not there."""
    detail = (
        "there is no such event: it was deleted, its time is over, or there never was one; GET /v1/events lists them"
    )
    return Problem(HTTPStatus.NOT_FOUND, "unknown-event", detail)


def cursor_of(text: str | None) -> Cursor | None:
    """Return where a page begins; None for the newest. Raises `Problem` if the text is not of an earlier answer."""
    if text is None:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None or int(found[2]) >= 1 << 63:
        raise wrong("cursor", "is none of this API's; give back `next` of the answer before as it is")
    return Cursor(int(found[1]), int(found[2]))


def cursor_text(cursor: Cursor | None) -> str | None:
    """Return what `cursor_of` reads."""
    return None if cursor is None else f"{cursor.at_ms}.{cursor.number}"


def wrong(name: str, text: str) -> Problem:
    """Return the problem of a wrong parameter."""
    return Problem(HTTPStatus.BAD_REQUEST, "invalid-parameter", f"{name} {text}")


def _cameras(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(dict.fromkeys(text.split(",")))
    if len(names) > _MOST_NAMES:
        raise wrong("camera", f"may name {_MOST_NAMES} cameras at most")
    for name in names:
        if not re.fullmatch(NAME_PATTERN, name):
            raise wrong("camera", "is no name of a camera, nor several with commas between; GET /v1/cameras has them")
    return names


def _kinds(text: str | None) -> tuple[str, ...]:
    kinds = () if text is None else tuple(dict.fromkeys(text.split(",")))
    if any(kind not in KINDS for kind in kinds):
        raise wrong("kind", f"is none of {', '.join(KINDS)}, nor several of them with commas between")
    return kinds


def _condition(text: str, heads: Mapping[str, Head]) -> Condition:
    name, colon, value = text.partition(":")
    if not colon or not value:
        raise wrong("attribute", "is not NAME:VALUE, as in emotion:happy or age:30..40")
    usable = {name: head for name, head in heads.items() if head.kind not in ("points", "angles")}
    head = usable.get(name)
    if head is None:
        there = f"there are {', '.join(sorted(usable))}" if usable else "no attributes are read"
        raise wrong("attribute", f"names none that can be searched for; {there}")
    if head.labels:
        if value not in head.labels:
            raise wrong("attribute", f"{name} is one of {', '.join(head.labels)}")
        return Condition(name, label=value)
    least, dots, most = value.partition("..")
    try:
        bounds = [float(bound) if bound else None for bound in (least, most)]
    except ValueError:
        bounds = [math.nan]
    if not dots or bounds == [None, None] or any(bound is not None and not math.isfinite(bound) for bound in bounds):
        raise wrong("attribute", f"{name} is a number: give from and to, as in {name}:30..40, or one of both")
    return Condition(name, least=bounds[0], most=bounds[1])
