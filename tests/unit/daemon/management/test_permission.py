"""Who may change the configuration over HTTP."""

from __future__ import annotations

import pytest
from fastapi import Request

from visaged.daemon.http.keys import Holder
from visaged.daemon.http.problems import Problem
from visaged.daemon.http.settings import ApiKeySettings, HttpSettings, Role
from visaged.daemon.management.permission import check_may_change

LOCAL = HttpSettings()


def request(holder: Holder | None = None, **headers: str) -> Request:
    given = {"host": "127.0.0.1:8080"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(
        {
            "type": "http", "method": "POST", "path": "/v1/reload", "scheme": "http", "query_string": b"",
            "server": ("127.0.0.1", 8080), "visaged.holder": holder,
            "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
        }
    )  # fmt: skip


def holder(role: Role) -> Holder:
    return Holder(ApiKeySettings(name="shop", sha256="0" * 64, role=role), lambda: 0.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LocalHost:1", "[::1]:8080", "127.9.9.9"])
def test_a_program_of_this_machine_may(host: str) -> None:
    check_may_change(request(host=host), LOCAL)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": ""},
        {"host": "evil.example"},
        {"host": "localhost.evil.example:8080"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "127.0.0.1@evil.example"},
        {"host": "192.168.1.5:8080"},
        {"host": "0.0.0.0:8080"},
        {"host": "[::1"},
        {"x_forwarded_for": "192.0.2.1"},
        {"forwarded": "for=192.0.2.1"},
        {"via": "1.1 proxy"},
    ],
)
def test_another_machine_and_a_proxy_may_not(headers: dict[str, str]) -> None:
    with pytest.raises(Problem, match="--role admin") as caught:
        check_may_change(request(**headers), LOCAL)
    assert (caught.value.status, caught.value.kind) == (403, "forbidden")


@pytest.mark.parametrize("settings", [HttpSettings(host="0.0.0.0", without_keys=True), HttpSettings(without_keys=True)])
def test_behind_a_proxy_with_a_login_it_takes_a_key(settings: HttpSettings) -> None:
    with pytest.raises(Problem, match="--role admin"):
        check_may_change(request(), settings)


def test_with_keys_the_role_decides_alone() -> None:
    check_may_change(request(holder("admin"), host="faces.example"), LOCAL)
    with pytest.raises(Problem, match="role reader"):
        check_may_change(request(holder("reader")), LOCAL)
