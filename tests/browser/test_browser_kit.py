"""Proves that a fault of a page, whatever its kind, does not go unnoticed."""

from __future__ import annotations

import pytest

from tests.support.browser import Browsing, axe_faults
from tests.support.http_server import serves, web_server

FAULTS = {
    "an exception": ("<script>throw new Error('thrown')</script>", "not caught: .*thrown"),
    "a promise": ("<script>Promise.reject(new Error('rejected'))</script>", "not caught: .*rejected"),
    "the console": ("<script>console.error('said')</script>", "console: said"),
    "the policy": ("<img src='http://127.0.0.2/a.png'>", "console: .*violates the following Content Security Policy"),
    "what is missing": ("<img src='/missing.png'>", "console: Failed to load resource"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_unless_it_is_expected(browsing: Browsing, fault: str) -> None:
    body, pattern = FAULTS[fault]
    policy = "default-src 'self' data:; script-src 'unsafe-inline'"
    page = f"<!doctype html><html lang='en'><title>faulty</title><link rel='icon' href='data:,'>{body}".encode()
    answers = {
        "/": lambda visit: visit.answer("200 OK", page, Content_Type="text/html", Content_Security_Policy=policy)
    }
    with web_server(answers) as server:
        shown = browsing.page(f"http://127.0.0.1:{server.port}/")
        shown.wait_for_load_state("networkidle")
    (seen,) = browsing.faults()
    browsing.expect(pattern)
    assert not browsing.faults(), seen


def test_axe_finds_a_field_without_a_name(browsing: Browsing) -> None:
    with web_server(serves(b"<!doctype html><html lang='en'><title>a</title><main><input></main>")) as server:
        faults = axe_faults(browsing.page(f"http://127.0.0.1:{server.port}/"))
    assert [fault.partition(": Form")[0] for fault in faults] == ["critical: label"]


def test_names_below_example_lead_here(browsing: Browsing) -> None:
    with web_server(serves(b"<!doctype html><title>found</title>")) as server:
        page = browsing.page(f"http://evil.example:{server.port}/")
        assert page.title() == "found"
        assert server.visits[0].headers["host"] == f"evil.example:{server.port}"
