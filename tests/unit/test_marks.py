"""Marks that `make test` goes by."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_what_looks_at_times_lies_where_it_is_looked_for() -> None:
    """The second run of `make test` collects one folder alone."""
    mark = ".".join(("mark", "timed"))
    users = [path for path in TESTS.rglob("test_*.py") if mark in path.read_text(encoding="utf-8")]
    assert users
    assert {path.parent for path in users} == {TESTS / "integration"}
