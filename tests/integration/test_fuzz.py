"""A short campaign against every target. What it finds is in the message; `python -m tests.fuzz` shows more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.oracle import Bounds
from tests.fuzz.session import TARGETS, Session

SECONDS = 4.0
# For a busy machine: what an input does to the event loop is measured by the command, on one that is not.
BOUNDS = Bounds(health_s=20.0, held_s=5.0)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session(tmp_path_factory.mktemp("fuzz"), seed=1, bounds=BOUNDS) as running:
        yield running


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found(session: Session, name: str) -> None:
    report = session.campaign(name).run(SECONDS)
    assert report.inputs > 0
    assert not report.findings, "\n".join(
        f"{finding.complaint}: {finding.inputs!r}"[:3000] for finding in report.findings
    )
