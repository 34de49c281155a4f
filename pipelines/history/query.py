"""What is asked of the history, as SQL. All values are parameters; names in the SQL are of the code alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_COLUMNS = {"age", "gender", "emotion"}
"""Attributes with a column of their own, which the indexes have too."""

AGES = 10
"""Years of an age group."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What an attribute has to be.

    Attributes:
        name: Name of the attribute.
        label: The label that it has to have; None for a number.
        least: The least number; None for any.
        most: The largest number; None for any.
    """

    name: str
    label: str | None = None
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are asked for.

    Attributes:
        cameras: Names of the cameras; empty for all.
        kinds: `begin`, `update`, `end`; empty for all.
        since_ms: First capture time, milliseconds since 1970; None for any.
        until_ms: The capture time before which they are, milliseconds since 1970; None for any.
        conditions: What their attributes have to be, all of it.
        latest: Whether only the newest event of each track is asked for.
        last: The largest number; None for any.
    """

    cameras: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    conditions: tuple[Condition, ...] = ()
    latest: bool = False
    last: int | None = None

    def covers(self, number: int, camera: str, at_ms: int) -> bool:
        """Return whether an event passes what is said of numbers, cameras and times."""
        return (
            (self.last is None or number <= self.last)
            and (not self.cameras or camera in self.cameras)
            and (self.since_ms is None or at_ms >= self.since_ms)
            and (self.until_ms is None or at_ms < self.until_ms)
        )


class Cursor(NamedTuple):
    """The last event of a page."""

    at_ms: int
    number: int


class Found(NamedTuple):
    """An event as it was found."""

    number: int
    at_ms: int
    has_picture: bool
    body: bytes


def where(wanted: Filter, column: str = "at") -> tuple[str, list[Any]]:
    """Return the condition of a filter, and its parameters.

    Args:
        wanted: The filter.
        column: The time that counts: `at` or `started`.
    """
    parts: list[str] = ["1"]
    values: list[Any] = []

    def add(text: str, *more: Any) -> None:
        parts.append(text)
        values.extend(more)

    if len(wanted.cameras) == 1:
        add("camera = ?", *wanted.cameras)
    elif wanted.cameras:
        # The sign keeps SQLite from using the index by camera, whose events would then have to be sorted.
        add(f"+camera IN ({_marks(wanted.cameras)})", *wanted.cameras)
    if wanted.kinds:
        add(f"kind IN ({_marks(wanted.kinds)})", *wanted.kinds)
    if wanted.since_ms is not None:
        add(f"{column} >= ?", wanted.since_ms)
    if wanted.until_ms is not None:
        add(f"{column} < ?", wanted.until_ms)
    if wanted.last is not None:
        add("id <= ?", wanted.last)
    if wanted.latest:
        add("latest = 1")
    for one in wanted.conditions:
        value = one.name if one.name in _COLUMNS else "json_extract(attributes, ?)"
        path = [] if one.name in _COLUMNS else [f'$."{one.name}"']
        if one.label is not None:
            add(f"{value} = ?", *path, one.label)
        if one.least is not None:
            add(f"{value} >= ?", *path, one.least)
        if one.most is not None:
            add(f"{value} <= ?", *path, one.most)
    return " AND ".join(parts), values


def page(
    connection: sqlite3.Connection, wanted: Filter, before: Cursor | None, limit: int
) -> tuple[list[Found], Cursor | None]:
    """Return the newest events by capture time, and where the next page begins; None if there is none.

    An event that comes between two pages appears on neither twice, and moves none to another page.

    Args:
        connection: The database.
        wanted: Which events.
        before: Where the page begins; None for the newest.
        limit: Most events.
    """
    text, values = page_sql(wanted, before, limit + 1)
    found = [Found(*row) for row in connection.execute(text, values)]
    more = len(found) > limit
    found = found[:limit]
    return found, Cursor(found[-1].at_ms, found[-1].number) if more else None


def page_sql(wanted: Filter, before: Cursor | None, limit: int) -> tuple[str, list[Any]]:
    """Return the SQL of a page, and its parameters."""
    condition, values = where(wanted)
    if before is not None:
        condition += " AND (at, id) < (?, ?)"
        values += before
    # The bodies lie apart, so that few pages are read where many events do not pass.
    columns = "id, at, picture IS NOT NULL, (SELECT body FROM bodies WHERE bodies.id = events.id)"
    text = f"SELECT {columns} FROM events WHERE {condition} ORDER BY at DESC, id DESC LIMIT ?"  # noqa: S608
    return text, [*values, limit]


def after(connection: sqlite3.Connection, number: int, last: int, limit: int) -> list[tuple[int, str, str, int, bytes]]:
    """Return the events with numbers after one and up to another, oldest first: number, camera, kind, picture, body."""
    text = (
        "SELECT id, camera, kind, picture IS NOT NULL, body FROM events JOIN bodies USING (id) "
        "WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
    )
    return list(connection.execute(text, (number, last, limit)))


def one(connection: sqlite3.Connection, number: int) -> Found | None:
    """Return an event; None if it is not there."""
    text = "SELECT id, at, picture IS NOT NULL, body FROM events JOIN bodies USING (id) WHERE id = ?"
    row = connection.execute(text, (number,)).fetchone()
    return None if row is None else Found(*row)


def picture(connection: sqlite3.Connection, number: int) -> bytes | None:
    """Return the picture of an event; None if it has none."""
    text = "SELECT jpeg FROM pictures WHERE id = (SELECT picture FROM events WHERE id = ?)"
    row = connection.execute(text, (number,)).fetchone()
    return None if row is None else row[0]


class Statistics(NamedTuple):
    """Numbers of tracks.

    Attributes:
        steps: By step of time that had any, counted from 0.
        ages: By age group that had any, counted from 0.
        emotions: By label.
        genders: By label.
    """

    steps: dict[int, int]
    ages: dict[int, int]
    emotions: dict[str, int]
    genders: dict[str, int]


def statistics(connection: sqlite3.Connection, wanted: Filter, step_ms: int) -> Statistics:
    """Count the tracks that began in a time, each by its newest event.

    Args:
        connection: The database.
        wanted: Which ones; its times are those of their beginning.
        step_ms: Length of a step of time, from `since_ms` on, in milliseconds.
    """
    return Statistics(*(dict(connection.execute(*sql).fetchall()) for sql in statistics_sql(wanted, step_ms)))


def statistics_sql(wanted: Filter, step_ms: int) -> list[tuple[str, Sequence[Any]]]:
    """Return the SQL of each of the counts, and its parameters."""
    condition, values = where(wanted, "started")
    tail = f"FROM events WHERE {condition} AND latest"
    start = wanted.since_ms or 0
    return [
        (f"SELECT (started - ?) / ?, COUNT(*) {tail} GROUP BY 1", [start, step_ms, *values]),
        (f"SELECT CAST(age AS INTEGER) / {AGES}, COUNT(*) {tail} AND age >= 0 GROUP BY 1", values),
        (f"SELECT emotion, COUNT(*) {tail} AND emotion IS NOT NULL GROUP BY 1", values),
        (f"SELECT gender, COUNT(*) {tail} AND gender IS NOT NULL GROUP BY 1", values),
    ]


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))
