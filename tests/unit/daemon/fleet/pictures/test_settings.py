"""Serving pictures by a fleet is refused where it would open a node's APIs to everybody."""

from __future__ import annotations

from typing import Any

import pytest

from visaged.daemon.config.document import SettingsError
from visaged.daemon.http.keys import hash_key, make_key
from visaged.daemon.settings import Settings, parse

KEYS = [{"name": "shop", "sha256": hash_key(make_key().encode())}]
OPEN = {"enabled": True, "host": "0.0.0.0"}
OSS_KEYS = [{"name": "demo", "access_key_id": "demo-key", "access_key_secret": "not-a-secret"}]


def settings(http: dict[str, Any], oss: dict[str, Any] | None = None) -> Settings:
    return parse({"http": http, "oss": oss or {}})


def test_beyond_loopback_it_takes_keys() -> None:
    with pytest.raises(SettingsError, match=r"http: fleet.host 0.0.0.0 can be reached .* no keys"):
        settings({"fleet": OPEN})
    assert settings({"fleet": OPEN, "keys": KEYS}).http.fleet.host == "0.0.0.0"
    assert settings({"fleet": OPEN, "without_keys": True}).http.fleet.enabled
    assert settings({"fleet": OPEN | {"enabled": False}}).http.fleet.port == 8000


def test_buckets_take_keys_of_their_own() -> None:
    with pytest.raises(SettingsError, match=r"no oss\.keys"):
        settings({"fleet": OPEN, "keys": KEYS}, {"enabled": True})
    assert settings({"fleet": OPEN, "keys": KEYS}, {"enabled": True, "keys": OSS_KEYS}).oss.enabled
    assert settings({"fleet": {"enabled": True}}, {"enabled": True}).oss.enabled
