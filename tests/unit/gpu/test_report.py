"""The kit's rows survive what goes wrong between them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.gpu.report import Report, read, table
from tests.gpu.sections.daemon import quantile


def test_a_failure_becomes_a_row_and_the_next_one_is_measured(tmp_path: Path) -> None:
    report = Report(tmp_path / "rows")

    report.attempt("first", lambda: {"value": 1 / 0})
    report.attempt("second", lambda: {"value": 2.0})

    assert [row["name"] for row in read(tmp_path / "rows")] == ["first", "second"]
    text = table("section", read(tmp_path / "rows"))
    assert "first   error builtins.ZeroDivisionError: division by zero" in text
    assert "second  value 2" in text


def test_a_section_that_wrote_nothing_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == []


def _reading(*counts: int) -> dict[str, float]:
    return {
        f'age_bucket{{le="{edge}"}}': float(count) for edge, count in zip(("0.1", "0.2", "+Inf"), counts, strict=True)
    }


def test_a_quantile_is_of_what_came_between_two_readings() -> None:
    assert quantile(_reading(10, 10, 10), _reading(10, 20, 20), "age", 0.5) == pytest.approx(0.15)
    assert quantile({}, _reading(0, 0, 4), "age", 0.5) == pytest.approx(0.2)
    assert math.isnan(quantile(_reading(1, 1, 1), _reading(1, 1, 1), "age", 0.5))


def test_a_row_that_was_broken_off_costs_no_other(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    Report(rows).row("whole", value=1)
    with rows.open("a") as file:
        file.write('{"name": "bro')
    assert [row["name"] for row in read(rows)] == ["whole"]
    Report(rows).row("next", value=2)
    assert [row["name"] for row in read(rows)] == ["whole", "next"]
