"""Fetching by URL from real servers: what comes, who is reached, and who never is."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority, KeyPair
from tests.support.fetching import PICTURE, fetch, fetcher, here, refused, url_of
from tests.support.http_server import Names, Routes, Visit, WebServer, redirects, serves, silent, web_server
from tests.support.odd_servers import says, tcp_server
from visaged.daemon.fetch.errors import FetchError

PUBLIC = "93.184.215.14"
LOOPBACK = ["127.0.0.0/8", "::1"]


# What works


def test_a_picture_comes_as_it_is() -> None:
    told: list[tuple[str, float, int]] = []
    with web_server(serves(PICTURE)) as server:
        got = fetch(url_of(server, "/a/ü?x=1#part"), **here(server), done=lambda *what: told.append(what))
    assert got == PICTURE
    (visit,) = server.visits
    assert visit.line == "GET /a/%C3%BC?x=1 HTTP/1.1"
    assert set(visit.headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}
    assert visit.headers["host"] == f"127.0.0.1:{server.port}"
    assert visit.headers["accept-encoding"] == "identity"
    assert [(result, size) for result, _, size in told] == [("ok", len(PICTURE))]


def test_chunks_and_answers_without_length() -> None:
    def chunked(visit: Visit) -> None:
        visit.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nA: b\r\n\r\n"
        )

    def until_closed(visit: Visit) -> None:
        visit.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\nhello world")

    with web_server({"/chunked": chunked, "/closed": until_closed}) as server:
        for path in ("/chunked", "/closed"):
            assert fetch(url_of(server, path), **here(server)) == b"hello world"


def test_names_and_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    try:
        with web_server(serves(PICTURE), host="::1") as server:
            assert fetch(f"http://[::1]:{server.port}/", **here(server)) == PICTURE
            assert server.visits[0].headers["host"] == f"[::1]:{server.port}"
            # A name with two addresses, the first of which nothing listens at.
            names = Names({"nas.lan": [["127.0.0.1", "::1"]]})
            keys = {"allow": [f"nas.lan:{server.port}", *LOOPBACK], "resolve": names}
            assert fetch(f"http://nas.lan:{server.port}/", **keys) == PICTURE
    except OSError:
        pytest.skip("needs an IPv6 loopback")


def test_the_system_looks_names_up() -> None:
    with web_server(serves(PICTURE)) as server:
        keys = {"allow": [f"localhost:{server.port}", *LOOPBACK]}
        assert fetch(f"http://localhost:{server.port}/", **keys) == PICTURE
    assert "cannot be looked up" in refused("http://nowhere.invalid/", "unreachable", public=True)


def test_redirects_are_followed_without_luggage() -> None:
    def first(visit: Visit) -> None:
        visit.answer("302 Found", Location="/second?signature=s3cr3t", Set_Cookie="id=1; Path=/")

    with web_server(serves(PICTURE)) as there:
        answers = {
            "/": first,
            "/second": redirects("third", "307 Temporary Redirect"),
            "/third": redirects(f"//127.0.0.1:{there.port}/a b/ü"),
        }
        with web_server(answers) as server:
            allow = [*here(server)["allow"], *here(there)["allow"]]
            assert fetch(url_of(server, "/"), allow=allow) == PICTURE
    assert there.visits[0].path == "/a%20b/%C3%BC"
    for visit in server.visits + there.visits:
        assert not visit.headers.keys() & {"cookie", "referer", "authorization"}


def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server(serves(b"of the proxy")) as proxy, web_server(serves(PICTURE)) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert fetch(url_of(server), **here(server)) == PICTURE
    assert proxy.connections == 0


# What is not wanted


def test_off_unless_switched_on() -> None:
    assert "fetch.enabled" in refused("http://example.com/", "disabled", enabled=False)
    assert "fetch.enabled" in refused("s3://bucket/key", "disabled", enabled=False)
    assert "fetch.s3" in refused("s3://bucket/key", "disabled", public=True)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/", "picture.jpg", "http://u:s3cr3t@a.example/"])
def test_what_is_no_url(url: str) -> None:
    refused(url, "bad_url", public=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "0",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::80ff:fffe]",
        "localhost",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "inside.example",
        "half.example",
        "mapped.example",
        "169.254.169.254",
        "metadata.example",
        "10.0.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
    ],
)
def test_nothing_inside_is_reached_from_outside(host: str) -> None:
    names = Names(
        {
            "localhost": [["127.0.0.1"]],
            "inside.example": [["127.0.0.1"]],
            "half.example": [[PUBLIC, "127.0.0.1"]],
            "mapped.example": [["::ffff:127.0.0.1"]],
            "metadata.example": [["169.254.169.254"]],
        }
    )
    dial = Routes()
    with web_server(serves(b"secret of this network")) as server:
        keys = {"public": True, "ports": [server.port], "resolve": names, "dial": dial}
        text = refused(f"http://{host}:{server.port}/private/path?signature=s3cr3t", "forbidden", **keys)
        assert "nothing is fetched from" in text
    assert server.connections == 0
    assert dial.dialled == []


def test_a_name_that_changes_its_address_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names({"rebinds.example": [[PUBLIC], ["127.0.0.1"]]})

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a second look-up")

    with web_server(serves(b"inside")) as inside, web_server(serves(PICTURE)) as outside:
        dial = Routes({PUBLIC: outside.port})
        keys = {"public": True, "ports": [80, inside.port], "resolve": names, "dial": dial}
        monkeypatch.setattr(socket, "getaddrinfo", never)
        assert fetch(f"http://rebinds.example:{inside.port}/", **keys) == PICTURE
        assert names.asked == ["rebinds.example"]
        assert dial.dialled == [(PUBLIC, inside.port)]
        # The host that was asked for is still the one that the server is told.
        assert outside.visits[0].headers["host"] == f"rebinds.example:{inside.port}"
        # Asked anew, it shows its other face.
        assert "loopback" in refused(f"http://rebinds.example:{inside.port}/", "forbidden", **keys)
    assert inside.connections == 0
    assert dial.dialled == [(PUBLIC, inside.port)]


def test_a_redirect_is_checked_like_the_first_url() -> None:
    names = Names({"outside.example": [[PUBLIC], ["127.0.0.1"]], "inside.example": [["10.0.0.1"]]})
    with web_server(serves(b"inside")) as inside:
        places = {
            "/loopback": f"http://127.0.0.1:{inside.port}/",
            "/decimal": f"http://2130706433:{inside.port}/",
            "/metadata": "http://169.254.169.254/latest/meta-data/",
            "/name": "http://inside.example/",
            "/rebound": "/",
            "/port": "http://outside.example:22/",
        }
        for path, location in places.items():
            names = Names({"outside.example": [[PUBLIC], ["127.0.0.1"]], "inside.example": [["10.0.0.1"]]})
            with web_server(redirects(location)) as outside:
                dial = Routes({PUBLIC: outside.port})
                keys = {"public": True, "ports": [80, inside.port], "resolve": names, "dial": dial}
                refused(f"http://outside.example{path}", "forbidden", **keys)
            assert [address for address, _ in dial.dialled] == [PUBLIC]
    assert inside.connections == 0


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "s3://bucket/key", "ftp://example.com/", "http://u:s3cr3t@example.com/", "http://["],
)
def test_redirects_to_what_is_no_web_page(location: str) -> None:
    with web_server(redirects(location)) as server:
        text = refused(url_of(server), "redirects", **here(server))
    assert "after a redirect" in text


def test_redirects_without_end() -> None:
    with web_server({"/a": redirects("/b"), "/b": redirects("/a")}) as server:
        assert "more than 5" in refused(url_of(server, "/a"), "redirects", **here(server))
        assert len(server.visits) == 6
        assert "more than 0" in refused(url_of(server, "/a"), "redirects", **here(server, max_redirects=0))


def test_redirects_to_nowhere() -> None:
    def no_place(visit: Visit) -> None:
        visit.answer("302 Found")

    def no_text(visit: Visit) -> None:
        visit.send(b"HTTP/1.1 302 Found\r\nLocation: /\xff\xfe\r\nContent-Length: 0\r\n\r\n")

    with web_server({"/none": no_place, "/binary": no_text}) as server:
        assert "does not say where" in refused(url_of(server, "/none"), "status", **here(server))
        assert "not text" in refused(url_of(server, "/binary"), "redirects", **here(server))


def test_this_machine_is_not_public_at_its_public_addresses() -> None:
    class Own(Routes):
        """Gives connections that leave from the address that they go to, as those to a machine's own address do."""

        async def connect_tcp(self, host: str, port: int, *args: object, **kwargs: object) -> Any:
            stream = await super().connect_tcp(host, port, *args, **kwargs)
            stream.get_extra_info = lambda info: (host, 40000) if info == "client_addr" else None  # type: ignore[method-assign]
            return stream

    with web_server(serves(b"inside")) as server:
        keys = {"ports": [80], "public": True, "dial": Own({PUBLIC: server.port})}
        assert "this machine itself" in refused(f"http://{PUBLIC}/", "forbidden", **keys)
        assert server.visits == []
        assert fetch(f"http://{PUBLIC}/", **keys | {"allow": [PUBLIC]}) == b"inside"


# TLS


@contextmanager
def tls_server(pair: KeyPair, answer: Any = None) -> Iterator[WebServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with web_server(answer or serves(PICTURE), tls=context) as server:
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def https(server: WebServer, host: str) -> tuple[str, dict[str, Any]]:
    names = Names({"localhost": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]})
    return f"https://{host}:{server.port}/", {
        "allow": [f"{host}:{server.port}", *LOOPBACK],
        "resolve": names,
        "timeout_s": 5,
    }


def test_the_certificate_is_for_the_name_and_not_for_the_address(authority: Authority) -> None:
    with tls_server(authority.issue_server()) as server:
        url, keys = https(server, "localhost")
        assert fetch(url, **keys, ca_file=authority.certificate) == PICTURE
        assert server.server_names == ["localhost"]
        url, keys = https(server, "127.0.0.1")
        assert fetch(url, **keys, ca_file=authority.certificate) == PICTURE
        # The same address, for which the certificate is good, under a name for which it is not.
        url, keys = https(server, "other.example")
        assert "certificate" in refused(url, "unreachable", **keys, ca_file=authority.certificate)
        assert server.server_names == ["localhost", None, "other.example"]


def test_certificates_that_are_not_accepted(authority: Authority, tmp_path: Path) -> None:
    with tls_server(authority.issue_server()) as server:
        url, keys = https(server, "localhost")
        assert "certificate" in refused(url, "unreachable", **keys)
        other = Authority(tmp_path / "other").certificate
        assert "certificate" in refused(url, "unreachable", **keys, ca_file=other)
        assert "ca_file" in refused(url, "unreachable", **keys, ca_file=tmp_path / "missing.pem")
    with tls_server(authority.issue_server("old", is_expired=True)) as server:
        url, keys = https(server, "localhost")
        assert "expired" in refused(url, "unreachable", **keys, ca_file=authority.certificate)
    assert server.visits == []


def test_https_from_a_server_that_does_not_speak_it(authority: Authority) -> None:
    with tcp_server(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        refused(f"https://127.0.0.1:{port}/", "unreachable", allow=[f"127.0.0.1:{port}"], timeout_s=5)
    with tls_server(authority.issue_server()) as server:
        refused(url_of(server), "unreachable", **here(server))


def test_no_redirect_from_https_to_http_unless_wanted(authority: Authority) -> None:
    with web_server(serves(PICTURE)) as plain, tls_server(authority.issue_server(), redirects(url_of(plain))) as server:
        keys = {"allow": [*here(server)["allow"], *here(plain)["allow"]], "ca_file": authority.certificate}
        url = f"https://127.0.0.1:{server.port}/"
        assert "allow_downgrade" in refused(url, "redirects", **keys)
        assert plain.connections == 0
        assert fetch(url, **keys, allow_downgrade=True) == PICTURE


# Many, and the end


def test_only_so_many_at_a_time() -> None:
    async def crowd() -> list[str]:
        told: list[str] = []
        one = fetcher(**here(server), max_concurrent=2, done=lambda result, *_: told.append(result))
        waiting = [asyncio.create_task(one.fetch(url_of(server, "/slow"))) for _ in range(2)]
        while len(server.visits) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(FetchError, match="too many"):
            await one.fetch(url_of(server, "/fast"))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # Who goes away makes room.
        assert await one.fetch(url_of(server, "/fast")) == PICTURE
        await one.close()
        with pytest.raises(FetchError, match="stopping"):
            await one.fetch(url_of(server, "/fast"))
        return told

    with web_server({"/slow": silent, "/fast": serves(PICTURE)}) as server:
        assert asyncio.run(crowd()) == ["busy", "cancelled", "cancelled", "ok", "busy"]


def test_the_log_tells_the_owner_and_no_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    names = Names({"inside.example": [["10.1.2.3"]]})
    refused("http://inside.example/private/path?signature=s3cr3t", "forbidden", public=True, resolve=names)
    with web_server(serves(PICTURE)) as server:
        fetch(url_of(server, "/private/path?signature=s3cr3t"), **here(server))
    assert "10.1.2.3" in caplog.text
    assert "s3cr3t" not in caplog.text
