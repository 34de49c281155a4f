"""A real browser, Debian's Chromium driven by Playwright, that reports every fault of the pages it shows.

Playwright's synchronous API keeps an event loop of its own in the thread that uses it. `asyncio.run` fails in that
thread meanwhile, so a browser lives no longer than the tests of one file (`tests/browser/conftest.py`), and what those
tests do beside it is synchronous, or in threads of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Response, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.support.requirements import find_program

PATIENCE_MS = 20_000.0
"""Longest wait for whatever a page does; the bound is for a busy machine."""

HOSTS = "example"
"""Every name below this one leads to 127.0.0.1 in the browser, whatever name servers say."""

_OPTIONS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--no-first-run",
    "--no-proxy-server",
    f"--host-resolver-rules=MAP *.{HOSTS} 127.0.0.1",
]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser without a window."""
    with sync_playwright() as playwright:
        browser = _launched(playwright)
        yield browser
        browser.close()


def _launched(playwright: Playwright) -> Browser:
    # As root, as in containers, Chromium has no sandbox.
    options = [*_OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    return playwright.chromium.launch(executable_path=find_program("chromium"), args=options)


class Browsing:
    """What one test does in the browser: the pages that it opened, and their faults.

    A fault is an exception that no script caught, a line of the console at the level of an error (so are violations of
    a content security policy, and resources that failed to load), or an answer with a status of 500 and more.

    Args:
        browser: The browser.
        folder: For pictures of the pages of a test that failed.
    """

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.browser = browser
        self._folder = folder
        self._contexts: list[BrowserContext] = []
        self._faults: list[str] = []
        self._expected: list[re.Pattern[str]] = []

    def profile(self, **options: Any) -> BrowserContext:
        """Return a profile of its own, without cookies, with Playwright's options for one (`color_scheme`, ...)."""
        context = self.browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        context.set_default_timeout(PATIENCE_MS)
        context.on("page", self._watch)
        self._contexts.append(context)
        return context

    def page(self, url: str | None = None, **options: Any) -> Page:
        """Return a page in a profile of its own, at a URL if one is given; see `profile` for the options."""
        page = self.profile(**options).new_page()
        if url is not None:
            page.goto(url)
        return page

    def expect(self, *patterns: str) -> None:
        """Count faults that match a pattern (`re.search`) as none, those of the past too."""
        self._expected += [re.compile(pattern) for pattern in patterns]

    def faults(self) -> list[str]:
        """The faults so far that are not expected."""
        for context in self._contexts:
            context.cookies()  # what the browser reported before this answer has been heard then
        return [fault for fault in self._faults if not any(known.search(fault) for known in self._expected)]

    def take_pictures(self) -> list[Path]:
        """Write a picture of every page that is open; return their files."""
        files = []
        for index, page in enumerate(page for context in self._contexts for page in context.pages):
            file = self._folder / f"page{index}.png"
            with contextlib.suppress(PlaywrightError):  # a page that has crashed
                page.screenshot(path=file, full_page=True, timeout=PATIENCE_MS)
                files.append(file)
        return files

    def close(self) -> None:
        """Close every page."""
        for context in self._contexts:
            context.close()

    def _watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self._faults.append(f"{page.url}: not caught: {error.stack or error}"))
        page.on("crash", lambda page: self._faults.append(f"{page.url}: the page crashed"))
        page.on("console", self._heard)
        page.on("response", self._answered)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            self._faults.append(f"{message.location.get('url', '')}: console: {message.text}")

    def _answered(self, response: Response) -> None:
        if response.status >= 500:
            self._faults.append(f"{response.url}: answered {response.status}")


def axe_faults(page: Page, *impacts: str) -> list[str]:
    """Return what axe finds wrong with the accessibility of a page, one text for each rule.

    Args:
        page: The page, as it stands.
        impacts: The faults to return: of `minor`, `moderate`, `serious`, `critical`; the last two if none is named.
    """
    source = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    page.evaluate(source)  # by the debugger, which the page's content security policy does not bind
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    wanted = impacts or ("serious", "critical")
    return [
        f"{rule['impact']}: {rule['id']}: {rule['help']}: " + "; ".join(node["html"][:200] for node in rule["nodes"])
        for rule in found["violations"]
        if rule["impact"] in wanted
    ]
