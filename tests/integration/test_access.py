"""API keys, their limits, request ids and the log, over real sockets."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Request, Response
from starlette.responses import PlainTextResponse

from tests.support.access_server import KEY, OTHER, PATIENCE_S, Running, answer, bearer, is_problem, key
from tests.support.waiting import until
from visaged.daemon.http import problems
from visaged.daemon.http.keys import hash_key, make_key
from visaged.daemon.http.problems import Problem


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with Running(keys=[key("shop", KEY), key("till", OTHER)]) as server:
        yield server


@pytest.mark.parametrize(
    "headers",
    [
        bearer(KEY),
        {"Authorization": f"bearer   {KEY}"},
        {"X-API-Key": KEY},
        {"x-api-key": KEY, "authorization": f"Bearer {KEY}"},
        {"X-API-Key": KEY, "Authorization": "Basic dXNlcjpwYXNz"},
    ],
)
def test_a_good_key(running: Running, headers: dict[str, str]) -> None:
    response = running.client.post("/echo", content=b"hello", headers=headers)
    assert response.status_code == 200
    assert response.content == b"hello"


def test_requests_are_counted_by_the_keys_name(running: Running) -> None:
    before = running.value("http_requests_total", key="till", status="200")
    running.client.post("/echo", headers=bearer(OTHER))
    until(lambda: running.value("http_requests_total", key="till", status="200") == before + 1, PATIENCE_S)
    assert running.value("http_requests_active", key="till") == 0


def test_no_key(running: Running) -> None:
    before = running.value("http_refused_total", key="-", cause="missing")
    for headers in ({}, {"Authorization": "Basic dXNlcjpwYXNz"}):
        response = running.client.post("/echo", content=b"x" * 100_000, headers=headers)
        detail = is_problem(response, 401, "key-missing")
        assert "X-API-Key: KEY" in detail
        assert "visaged key NAME" in detail
        assert response.headers["www-authenticate"] == 'Bearer realm="visaged"'
        assert response.headers["x-request-id"]
    assert running.value("http_refused_total", key="-", cause="missing") == before + 2


@pytest.mark.parametrize(
    "value",
    [
        make_key().encode(),
        KEY[:-1].encode(),
        KEY.encode() + b"x",
        KEY.upper().encode(),
        KEY.removeprefix("visaged_").encode(),
        hash_key(KEY.encode()).encode(),
        b"",
        b"a",
        b"\xff\xfe" + KEY.encode(),
        "visaged_é".encode(),
        "visaged_é".encode("latin-1"),
        b"x" * 10_000,
    ],
    ids=[
        "another",
        "cut",
        "longer",
        "upper case",
        "without prefix",
        "its hash",
        "empty",
        "short",
        "byte order mark",
        "UTF-8",
        "Latin-1",
        "long",
    ],
)
@pytest.mark.parametrize("header", [b"Authorization: Bearer ", b"X-API-Key: "], ids=["bearer", "x-api-key"])
def test_wrong_keys(running: Running, header: bytes, value: bytes) -> None:
    status, headers, body = running.ask(b"GET /id HTTP/1.1\r\nHost: a\r\n" + header + value + b"\r\n\r\n")
    assert status == 401
    assert headers["www-authenticate"].endswith('error="invalid_token"')
    assert json.loads(body)["type"] == "urn:visaged:problem:key-wrong"
    assert value not in body or not value[1:]


def test_keys_that_differ(running: Running) -> None:
    for headers in ({"X-API-Key": KEY, **bearer(OTHER)}, {"X-API-Key": "x", **bearer(KEY)}):
        assert "differ" in is_problem(running.client.get("/id", headers=headers), 401, "key-wrong")
    twice = f"GET /id HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nX-API-Key: {OTHER}\r\n\r\n"
    assert running.ask(twice.encode())[0] == 401


@pytest.mark.parametrize("query", ["key", "api_key", "token", "access_token", "X-API-Key", "Authorization"])
def test_a_key_in_the_url_is_none(running: Running, query: str) -> None:
    is_problem(running.client.get("/id", params={query: KEY}), 401, "key-missing")


def test_a_key_that_was_withdrawn_and_a_new_one() -> None:
    with Running(keys=[key("till", OTHER)]) as server:
        is_problem(server.client.get("/id", headers=bearer(KEY)), 401, "key-wrong")
        assert server.client.get("/id", headers=bearer(OTHER)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/absent", "/ID", "/id/", "//healthz", "/healthz/", "/healthz/../id"])
def test_without_a_key_nobody_learns_what_there_is(running: Running, path: str) -> None:
    status, _, body = running.ask(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert status == 401
    assert json.loads(body)["type"] == "urn:visaged:problem:key-missing"


def test_health_is_open_but_tells_no_details(running: Running) -> None:
    assert running.client.get("/readyz").json() == {"details": False}
    assert running.client.get("/readyz", headers=bearer(make_key())).json() == {"details": False}
    assert running.client.get("/readyz", headers=bearer(KEY)).json() == {"details": True}
    assert running.client.get("/healthz").status_code == 404  # it came through; this application has none


def test_documentation_is_open_and_needs_nothing_from_elsewhere(running: Running) -> None:
    response = running.client.get("/docs")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"https?://|<script", response.text)
    assert "/echo" in response.text
    assert running.client.get("/openapi.json").json()["info"]["title"] == "small"


def test_metrics_need_a_key_unless_they_are_open(running: Running) -> None:
    is_problem(running.client.get("/metrics"), 401, "key-missing")
    assert running.client.get("/metrics", headers=bearer(KEY)).text == "metrics"
    with Running(open_metrics=True) as server:
        assert server.client.get("/metrics").text == "metrics"
        is_problem(server.client.get("/id"), 401, "key-missing")


def test_without_keys_everybody_may() -> None:
    with Running(keys=[]) as server:
        assert server.client.get("/readyz").json() == {"details": True}
        assert server.client.post("/echo", content=b"x").content == b"x"
        assert server.client.get("/metrics", headers={"X-API-Key": "whatever"}).status_code == 200
        until(lambda: server.value("http_requests_total", key="-", status="200") == 3, PATIENCE_S)


def test_refusals_in_a_form_of_their_own() -> None:
    def refuse(problem: Problem, request: Request) -> Response:
        if request.url.path == "/echo":
            return PlainTextResponse(problem.kind, 400, problem.headers)
        return problems.answer(problem, request)

    with Running(refuse=refuse) as server:
        response = server.client.post("/echo")
        assert (response.status_code, response.text) == (400, "key-missing")
        is_problem(server.client.get("/id"), 401, "key-missing")


def test_a_refused_upload_is_cut_short_where_the_client_waits_to_be_asked(running: Running) -> None:
    with running.raw() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        status, headers, _ = answer(connection)
        assert status == 401
        assert headers["connection"] == "close"
        assert connection.recv(1) == b""


def test_a_connection_goes_on_after_a_refusal_unless_a_body_may_follow(running: Running) -> None:
    with running.raw() as connection:
        connection.sendall(b"GET /id HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer(connection)[0] == 401
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        status, headers, _ = answer(connection)
        assert (status, headers["connection"]) == (401, "close")
        assert connection.recv(1) == b""


def test_too_fast() -> None:
    with Running(keys=[key("shop", KEY, max_per_second=0.5, burst=2), key("till", OTHER)]) as server:
        codes = [server.client.get("/id", headers=bearer(KEY)).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        server.clock.now += 0.5
        response = server.client.get("/id", headers=bearer(KEY))
        assert "0.5 times a second" in is_problem(response, 429, "too-fast")
        assert response.headers["retry-after"] == "2"  # 1.5, rounded up
        assert server.client.get("/id", headers=bearer(OTHER)).status_code == 200
        server.clock.now += 1.5
        assert server.client.get("/id", headers=bearer(KEY)).status_code == 200
        assert server.client.get("/id", headers=bearer(KEY)).status_code == 429
        assert server.value("http_refused_total", key="shop", cause="too_fast") == 3
        # Health does not cost anything, with and without a key.
        for headers in ({}, bearer(KEY)):
            assert server.client.get("/readyz", headers=headers).status_code == 200


def test_too_many_at_once() -> None:
    with Running(keys=[key("shop", KEY, max_at_once=2), key("till", OTHER)]) as server:
        request = f"GET /wait HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n\r\n".encode()
        with server.raw() as first, server.raw() as second:
            first.sendall(request)
            second.sendall(request)
            until(lambda: server.value("http_requests_active", key="shop") == 2, PATIENCE_S)
            response = server.client.get("/id", headers=bearer(KEY))
            assert "max_at_once" in is_problem(response, 429, "too-many")
            assert response.headers["retry-after"] == "1"
            assert server.client.get("/id", headers=bearer(OTHER)).status_code == 200
            server.gate.set()
            assert answer(first)[0] == answer(second)[0] == 200
        assert server.client.get("/id", headers=bearer(KEY)).status_code == 200


@pytest.mark.parametrize("path", ["/boom", "/absent", "/stream", "/much"])
def test_slots_are_released_whatever_happens(path: str) -> None:
    with Running(keys=[key("shop", KEY, max_at_once=1)]) as server:
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n\r\n".encode()
        with server.raw() as connection:
            connection.sendall(request)
            assert connection.recv(10).startswith(b"HTTP/1.1 ")
        # The client is gone in the middle of its answer.
        server.gate.set()
        until(lambda: server.value("http_requests_active", key="shop") == 0, PATIENCE_S)
        assert server.client.get("/id", headers=bearer(KEY)).status_code == 200


def test_slots_are_released_when_a_client_goes_before_its_answer() -> None:
    with Running(keys=[key("shop", KEY, max_at_once=1)]) as server:
        with server.raw() as connection:
            head = f"POST /echo HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nContent-Length: 1000\r\n\r\n"
            connection.sendall(head.encode() + b"only this")
            until(lambda: server.value("http_requests_active", key="shop") == 1, PATIENCE_S)
        until(lambda: server.value("http_requests_active", key="shop") == 0, PATIENCE_S)
        assert server.client.get("/id", headers=bearer(KEY)).status_code == 200


@pytest.mark.parametrize("given", ["a", "trace-1.2_B", "x" * 64])
def test_a_clients_request_id_is_taken_over(running: Running, given: str) -> None:
    response = running.client.get("/id", headers={**bearer(KEY), "X-Request-ID": given})
    assert response.headers["x-request-id"] == response.text == given


@pytest.mark.parametrize(
    "given",
    [b"", b"a b", b"x" * 65, b"a;b", b"<script>", b"a\xff", b"%0d%0aX: y", b"a\tb", b"a,b", b'a"', b"{}"],
)
def test_request_ids_that_are_replaced(running: Running, given: bytes) -> None:
    request = f"GET /id HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nX-Request-ID: ".encode() + given + b"\r\n\r\n"
    status, headers, body = running.ask(request)
    assert status == 200
    assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"])
    assert body.decode() == headers["x-request-id"]


@pytest.mark.parametrize("given", [b"a\rb", b"a\x00b", b"a\r\n X-Evil: 1"])
def test_request_ids_with_line_breaks_go_nowhere(running: Running, given: bytes) -> None:
    request = f"GET /id HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nX-Request-ID: ".encode() + given + b"\r\n\r\n"
    _, headers, body = running.ask(request)
    assert "x-evil" not in headers
    assert b"Evil" not in body
    assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"])


def test_two_request_ids_are_none_and_new_ones_differ(running: Running) -> None:
    request = f"GET /id HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nX-Request-ID: a\r\nX-Request-ID: b\r\n\r\n".encode()
    first, second = (running.ask(request)[1]["x-request-id"] for _ in range(2))
    assert len({first, second, "a", "b"}) == 4


def test_every_answer_has_one_request_id(running: Running) -> None:
    for path in ("/absent", "/boom", "/own-id", "/docs"):
        response = running.client.get(path, headers={**bearer(KEY), "X-Request-ID": "mine"})
        assert response.headers.get_list("x-request-id") == ["mine"]
    assert running.ask(b"NONSENSE\r\n\r\n")[1]["x-request-id"]


def test_lines_of_the_log(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "visaged.daemon.http.request_log")
    for method, path, headers in (
        ("POST", f"/echo?signature={KEY}&x=secret", bearer(KEY) | {"X-Request-ID": "one"}),
        ("GET", "/absent%0A%1b[31m", {"X-Request-ID": "two"}),
        ("GET", "/" + "a" * 1000, bearer(KEY) | {"X-Request-ID": "three"}),
        ("GET", "/readyz", {"X-Request-ID": "four"}),
    ):
        running.client.request(method, path, headers=headers, content=b"12345" if method == "POST" else None)
    until(lambda: "request three" in caplog.text, PATIENCE_S)
    lines = [record.getMessage() for record in caplog.records if record.getMessage()[0] in "PG"]
    assert re.fullmatch(r"POST /echo 200 \d+\.\d ms, key shop, 5 B in, 5 B out, request one", lines[0])
    assert re.fullmatch(r"GET /absent%0A%1[bB](\[|%5B)31m 401 \S+ ms, key -, 0 B in, \d+ B out, request two", lines[1])
    assert lines[2].startswith(f"GET /{'a' * 199}... 404")
    assert len(lines) == 3
    assert KEY not in caplog.text
    assert "secret" not in caplog.text


def test_the_log_can_be_quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "visaged.daemon.http.request_log")
    with Running(access_log=False) as server:
        server.client.get("/id", headers=bearer(KEY))
        until(lambda: "GET /id" in caplog.text, PATIENCE_S)
    assert {record.levelno for record in caplog.records if "GET /id" in record.getMessage()} == {logging.DEBUG}


def test_bad_keys_are_logged_at_a_limited_rate(caplog: pytest.LogCaptureFixture) -> None:
    with Running() as server:
        for _ in range(20):
            server.client.get("/id", headers=bearer(OTHER))
        server.clock.now += 60
        server.client.get("/id")
    lines = [record.getMessage() for record in caplog.records if "was refused" in record.getMessage()]
    assert lines[0] == "a request of 127.0.0.1 was refused: wrong API key"
    assert "missing API key (and 19 more" in lines[1]
    assert len(lines) == 2
    assert OTHER not in caplog.text


def test_addresses_from_a_proxy_are_harmless_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with Running() as server:
        server.client.get("/id", headers={"X-Forwarded-For": "2001:db8::1 key=a\tb<" + "c" * 100})
        server.clock.now += 60
        server.client.get("/id", headers={"X-Forwarded-For": "2001:db8::1"})
    lines = [record.getMessage() for record in caplog.records if "was refused" in record.getMessage()]
    assert re.match(r"a request of [\w.:%?-]{1,64} was refused", lines[0])
    assert lines[1].startswith("a request of 2001:db8::1 was refused")


def test_an_application_that_fails_altogether_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    with Running(app=broken) as server:
        response = server.client.get("/id", headers={**bearer(KEY), "X-Request-ID": "mine"})
        is_problem(response, 500, "internal")
        assert response.headers["x-request-id"] == "mine"
        until(lambda: server.value("http_requests_total", key="shop", status="500") == 1, PATIENCE_S)
    assert "GET /id failed" in caplog.text


def test_a_stream_comes_as_it_is_made() -> None:
    with Running() as server, server.client.stream("GET", "/stream", headers=bearer(KEY)) as response:
        pieces = response.iter_raw()
        assert next(pieces) == b"first"
        server.gate.set()
        assert b"".join(pieces) == b"last"
