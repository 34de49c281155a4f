"""Fixtures for tests in the browser: daemons, and pages whose faults fail the test.

def test_the_page_has_a_title(start: Start, browsing: Browsing) -> None:
    daemon = start({"cameras": [...]})
    page = browsing.page(daemon.url)
    assert page.title() == "visaged"
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, expect

from tests.support.broker import free_port
from tests.support.browser import Browsing, chromium
from tests.support.program import RunningDaemon
from tests.support.requirements import CHROMIUM, require

_FAILED = pytest.StashKey[bool]()


class Start(Protocol):
    """Starts a daemon."""

    def __call__(self, document: dict[str, Any] | None = None, **options: Any) -> RunningDaemon:
        """Start one with a configuration; `options` are those of `RunningDaemon`.

        Its state folder is its own, and its port stays the same when it is started again. It has an embedded broker
        and no camera unless the configuration says otherwise.
        """
        ...


@contextlib.contextmanager
def daemons(folder: Path) -> Iterator[Start]:
    """Start daemons that end with the block."""
    with contextlib.ExitStack() as stack:

        def start(document: dict[str, Any] | None = None, **options: Any) -> RunningDaemon:
            given = document or {}
            whole = {"mqtt": {"embedded": True, "port": free_port()}} | given
            whole["http"] = {"port": free_port()} | given.get("http", {})
            place = folder / f"daemon{free_port()}"
            place.mkdir(parents=True)
            return stack.enter_context(RunningDaemon(place, whole, **options))

        yield start


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts daemons that end with the test."""
    with daemons(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts daemons that end with the file's tests, for fixtures of the same scope."""
    with daemons(tmp_path_factory.mktemp("daemons")) as start:
        yield start


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser, for the tests of one file: while it runs, its thread cannot run another event loop."""
    require(CHROMIUM)
    expect.set_options(timeout=15_000)  # the page asks every five seconds, and other tests run beside
    with chromium() as browser:
        yield browser


@pytest.fixture
def browsing(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Browsing]:
    """Opens pages, which close with the test; faults that the test did not expect fail it.

    The pages of a test that failed are kept as pictures beside its other files.
    """
    browsing = Browsing(browser, tmp_path)
    yield browsing
    faults = browsing.faults()
    if faults or request.node.stash.get(_FAILED, False):
        for file in browsing.take_pictures():
            print(f"picture: {file}")
    browsing.close()
    assert not faults, "\n".join(["the page has faults:", *faults])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report
