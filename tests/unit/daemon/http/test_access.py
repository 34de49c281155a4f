"""API keys by themselves: how they are made and recognised, and their limits under a clock of the test's own."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from visaged.daemon.api.docs import page
from visaged.daemon.cli.main import app
from visaged.daemon.http.keys import Holder, Keyring, TokenBucket, hash_key, make_key
from visaged.daemon.http.settings import ApiKeySettings
from visaged.daemon.settings import parse


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def holder(clock: Clock, **limits: Any) -> Holder:
    return Holder(ApiKeySettings(name="shop", sha256="0" * 64, **limits), clock)


def test_keys_are_long_and_all_different() -> None:
    made = {make_key() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"visaged_[A-Za-z0-9_-]{43}", key) for key in made)


def test_the_hash_is_what_every_tool_gives() -> None:
    key = make_key()
    assert hash_key(key.encode()) == hashlib.sha256(key.encode()).hexdigest()


def test_a_ring_knows_its_keys() -> None:
    keys = {name: make_key() for name in ("a", "b", "c")}
    ring = Keyring([ApiKeySettings(name=name, sha256=hash_key(key.encode())) for name, key in keys.items()])
    assert ring.names == ["a", "b", "c"]
    for name, key in keys.items():
        found = ring.find(key.encode())
        assert found is not None
        assert found.name == name
    good = keys["a"].encode()
    for wrong in (
        make_key().encode(),
        good[:-1],
        good + b"A",
        good.lower(),
        b" " + good,
        good + b"\n",
        b"",
        b"\xff" * 51,
    ):
        assert ring.find(wrong) is None


def test_what_is_no_random_key_is_never_one_whatever_its_hash() -> None:
    for weak in (b"", b"secret", b"visaged_secret", b"x" * 51):
        ring = Keyring([ApiKeySettings(name="weak", sha256=hash_key(weak))])
        assert ring.find(weak) is None


def test_no_keys_is_no_ring() -> None:
    assert not Keyring([])
    assert Keyring([ApiKeySettings(name="a", sha256="0" * 64)])


def test_a_bucket_empties_and_fills(clock: Clock) -> None:
    bucket = TokenBucket(2.0, 3, clock)
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]
    assert bucket.take() == pytest.approx(0.5)
    clock.now += 0.25
    assert bucket.take() == pytest.approx(0.25)
    clock.now += 0.25
    assert bucket.take() == 0
    assert bucket.take() > 0
    clock.now += 3600
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]
    assert bucket.take() > 0


@pytest.mark.parametrize("rate", [0.1, 0.3, 1 / 3, 7.0, 100.0])
def test_who_waits_as_long_as_told_is_let_in(clock: Clock, rate: float) -> None:
    bucket = TokenBucket(rate, 1, clock)
    for _ in range(1000):
        while wait_s := bucket.take():
            clock.now += wait_s
    assert clock.now - 1000 == pytest.approx(999 / rate)


def test_a_rate_is_told_in_whole_seconds_and_rounded_up(clock: Clock) -> None:
    slow = holder(clock, max_per_second=0.4)
    assert slow.enter() is None
    refusal = slow.enter()
    assert refusal is not None
    assert refusal.cause == "too_fast"
    assert refusal.retry_after_s == 3
    assert "0.4 times a second" in refusal.detail
    clock.now += 2.4
    again = slow.enter()
    assert again is not None
    assert again.retry_after_s == 1
    clock.now += 0.1
    assert slow.enter() is None


@pytest.mark.parametrize(("rate", "burst", "expected"), [(5.0, None, 5), (2.5, None, 3), (0.1, None, 1), (0.1, 7, 7)])
def test_how_many_may_come_in_one_go(clock: Clock, rate: float, burst: int | None, expected: int) -> None:
    guest = holder(clock, max_per_second=rate, burst=burst)
    assert [guest.enter() for _ in range(expected)] == [None] * expected
    assert guest.enter() is not None


def test_how_many_may_be_in_work(clock: Clock) -> None:
    guest = holder(clock, max_at_once=2, max_per_second=10, burst=3)
    assert guest.enter() is None
    assert guest.enter() is None
    for _ in range(5):
        refusal = guest.enter()
        assert refusal is not None
        assert refusal.cause == "too_many"
        assert refusal.retry_after_s == 1
    guest.leave()
    # Those refused took nothing from the rate.
    assert guest.enter() is None
    assert guest.active == 2


def test_without_limits_there_are_none(clock: Clock) -> None:
    guest = holder(clock)
    assert [guest.enter() for _ in range(1000)] == [None] * 1000


@pytest.mark.parametrize("name", ["shop", "on", "123", "1e3", "null", "a.b-c_d"])
def test_the_command_prints_a_key_and_the_lines_for_it(name: str) -> None:
    done = CliRunner().invoke(app, ["key", name])
    assert done.exit_code == 0
    key = done.stdout.strip()
    assert done.stdout == f"{key}\n"
    assert key not in done.stderr
    settings = parse(yaml.safe_load(done.stderr[done.stderr.index("http:\n") :]))
    assert settings.http.keys[0].name == name
    found = Keyring(settings.http.keys).find(key.encode())
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("name", ["two words", "", "a\nb", "-", "x" * 65])
def test_names_that_cannot_be(name: str) -> None:
    done = CliRunner().invoke(app, ["key", "--", name])
    assert done.exit_code == 2
    assert not done.stdout
    assert "NAME" in done.stderr


def test_the_page_of_the_api_is_plain_html_and_escaped() -> None:
    api = {
        "info": {"title": "a<b", "version": "1&2", "description": "One.\n\nTwo <script>alert(1)</script>."},
        "paths": {
            "/v1/x": {
                "post": {
                    "summary": "Do & see",
                    "parameters": [
                        {
                            "name": "p<q", "in": "query", "description": "A \"p\"", "required": True,
                            "schema": {"type": "number", "minimum": 0.2, "maximum": 1, "default": 0.5},
                        },
                        {"name": "c", "in": "query", "schema": {"enum": ["5", "106"], "type": "string"}},
                        {"name": "n", "in": "query", "schema": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
                    ],
                    "requestBody": {"description": "<i>", "content": {"image/jpeg": {}}},
                    "responses": {"200": {"description": "Good > bad", "content": {"application/json": {}}}},
                },
                "delete": {"responses": {}},
            },
            "/v1/{id}": {"get": {"parameters": [{"name": "id", "in": "path", "schema": {"type": "integer"}}]}},
        },
    }  # fmt: skip
    html = page(api, with_keys=True)
    for raw in ("<script", "a<b", "p<q", "<i>", "Good > bad", "http://", "https://", "src="):
        assert raw not in html
    for part in ("p&lt;q", "number ≥ 0.2 ≤ 1; default 0.5", "5 | 106", "Authorization: Bearer KEY", "--data-binary"):
        assert part in html
    assert "X-API-Key" not in page(api, with_keys=False)
