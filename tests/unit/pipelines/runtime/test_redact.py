"""URLs without their secrets."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

import pytest

from visaged.pipelines.runtime.redact import redact, shown, with_credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://admin:secret@cam.local:554/ch1", "rtsp://***@cam.local:554/ch1"),
        ("RTSPS://admin:secret@cam/ch1", "RTSPS://***@cam/ch1"),
        ("rtsp://admin@cam/ch1", "rtsp://***@cam/ch1"),
        ("rtsp://:secret@cam", "rtsp://***@cam"),
        ("rtsp://admin:@cam", "rtsp://***@cam"),
        ("http://a:b%40c%3A@[fe80::1]:80/x", "http://***@[fe80::1]:80/x"),
        ("rtsp://admin:p@ss@cam/ch1", "rtsp://***@cam/ch1"),
        ("rtsp://admin:p:a:s@cam/ch1", "rtsp://***@cam/ch1"),
        ("srt+x://u:p@h:9000", "srt+x://***@h:9000"),
        # Characters that should have been percent-encoded.
        ("rtsp://admin:se/cret@cam/ch1", "rtsp://***@cam/ch1"),
        ("rtsp://admin:se#cret@cam/ch1", "rtsp://***@cam/ch1"),
        ("rtsp://admin:se?cret@cam/ch1", "rtsp://***@cam/ch1"),
        ("rtsp://admin:#1/2?3@cam/ch1", "rtsp://***@cam/ch1"),
        ("rtsp://admin:1234/secret@cam/ch1", "rtsp://***@cam/ch1"),
        ("rtsp://admin:1234?secret@192.0.2.1:554/ch1", "rtsp://***@192.0.2.1:554/ch1"),
        ("rtsp://admin:p@ss/word@cam/ch1", "rtsp://***@cam/ch1"),
        ("rtsp://admin:secret@192.0.2.1/live@hd", "rtsp://***@192.0.2.1/***"),
        # Characters that should not have been.
        ("rtsp://admin%3Asecret%40cam/ch1", "rtsp://***@cam/ch1"),
        ("rtsp://admin:secret%2540cam/ch1", "rtsp://***@cam/ch1"),
        # Where the host begins is uncertain, and what stands there may be a part of the secret.
        ("rtsp://admin:1234#secret@cam/ch1", "rtsp://***"),
        ("http://cam:8080/video?password=sec@ret", "http://***"),
        ("rtsp://cam:554/user=admin&password=sec@ret/1", "rtsp://***"),
        ("rtsp://u:secret@cam/x?password=sec@ret", "rtsp://***"),
        ("rtsp://admin:secret", "rtsp://***"),
        # A host is sometimes written so for multicast.
        ("udp://@239.0.0.1:5004", "udp://@239.0.0.1:5004"),
        ("rtsp:///secret@cam/1", "rtsp://***@cam/1"),
        # Without a scheme.
        ("admin:secret@cam/ch1", "***@cam/ch1"),
        ("rtsp:/admin:secret@cam/ch1", "***@cam/ch1"),
        ("rtsp:\\\\admin:secret@cam", "***@cam"),
    ],
)
def test_logins_are_hidden(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert redact(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://cam/a?user=admin&password=secret&n=1", "http://cam/a?user=***&password=***&n=***"),
        ("http://cam/a?PWD=secret#top", "http://cam/a?PWD=***"),
        ("http://cam/a#secret", "http://cam/a"),
        ("http://cam/a?n=1&auth_token=se%20cret", "http://cam/a?n=***&auth_token=***"),
        (
            "https://s3/a?X-Amz-Signature=abc&X-Amz-Credential=def",
            "https://s3/a?X-Amz-Signature=***&X-Amz-Credential=***",
        ),
        ("http://cam/a?p=secret;loginpas=secret", "http://cam/a?p=***"),
        ("http://cam/a?secret", "http://cam/a?***"),
        ("http://cam/a?c2VjcmV0c2VjcmV0==", "http://cam/a?***"),
        ("http://cam/a?user%3Dadmin%26password%3Dsecret", "http://cam/a?***"),
        ("srt://cam:9000?streamid=r=live,p=secret", "srt://cam:9000?streamid=***"),
        ("http://192.0.2.1/video?mail=me@example.org", "http://192.0.2.1/video?mail=***"),
        # As the firmware of many cheap cameras has it, without a question mark.
        ("rtsp://cam:554/user=admin&password=secret&channel=1", "rtsp://cam:554/user=***&password=***&channel=***"),
        ("rtsp://cam/user=admin_password=secret_channel=1.sdp", "rtsp://cam/user=***"),
        ("rtsp://cam/channel=1_password=secret/main", "rtsp://cam/channel=***"),
        ("rtsp://cam/user%3Dadmin%26password%253Dsecret", "rtsp://cam/user%3D***"),
        ("rtsp://cam/live;token=secret", "rtsp://cam/live;token=***"),
        ("rtsp://cam/admin:secret/1", "rtsp://cam/admin:***"),
        # Without equals signs.
        ("http://cam/hls/token/s3cret/live.m3u8", "http://cam/hls/token/***/live.m3u8"),
        ("rtsp://cam/user/admin/Password/secret", "rtsp://cam/user/***/Password/***"),
        ("rtsp://cam/api_key/se=cret", "rtsp://cam/api_key/***"),
        ("rtsp://cam/1/pwd-secret/main", "rtsp://cam/1/pwd-***/main"),
        ("rtsp://cam/x,password,secret", "rtsp://cam/x,password,***"),
        ("rtsps://192.0.2.1:7441/bX9dQ2fLr7TzK04u?enableSrtp", "rtsps://192.0.2.1:7441/***?***"),
        ("rtsp://cam/9f86d081884c7d659a2feaa0c55ad015/main", "rtsp://cam/***/main"),
        ("rtsp://cam/550e8400-e29b-41d4-a716-446655440000", "rtsp://cam/***"),
        ("http://cam/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "http://cam/***"),
    ],
)
def test_of_queries_and_paths_the_keys_are_shown(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no url at all, but me@example.org and a:b",
        "rtsp://cam.local:554/ch1",
        "rtsp://192.0.2.1:554/Streaming/Channels/101",
        "rtsp://192.0.2.1:554/cam/realmonitor",
        "rtsp://cam:554/h264Preview_01_main",
        "rtsp://cam/axis-media/media.amp",
        "rtsp://cam/0/onvif/profile1/media.smp",
        "rtsp://cam/LiveMedia/ch1/Media1",
        "rtsp://[2001:db8::1]:554/stream1",
        "rtsp://köln.example/stream1",
        "file:///srv/videos/a@b.mp4",
        "/srv/videos/a@b.mp4",
        "/srv/videos/2026=11.mp4",
        "C:\\videos\\user\\a.mp4",
        "http://cam:8080, http://other:9090; write to me@example.org",
        "listening on http://[::1]:8080, and (http://[::1])",
        "2026-11-26T18:27:02.613Z took=3.1 ms",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text
    if " " not in text:
        assert shown(text) == text


def test_text_around_stays() -> None:
    text = "camera 'a': rtsp://u:p@one/1 refused, and http://x:y@two/2?key=z too; ask me@example.org"
    assert redact(text) == "camera 'a': rtsp://***@one/1 refused, and http://***@two/2?key=*** too; ask me@example.org"
    text = '{"url":"rtsp://u:p@one/1","mail":"a@b.c"}'
    assert redact(text) == '{"url":"rtsp://***@one/1","mail":"a@b.c"}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET /v1/faces?token=secret 401", "GET /v1/faces?token=*** 401"),
        ("got {'password': 1, 'psw=secret'}", "got {'password': 1, 'psw=***'}"),
        ("CameraSettings(username='secret', password='secret')", "CameraSettings(username=***', password=***')"),
        ("{'Authorization': 'Basic c2VjcmV0'}", "{'Authorization': '***'}"),
        ("Cookie: session=secret; b=secret\nnext", "Cookie: ***\nnext"),
        ("?url=rtsp%3A%2F%2Fu%3Asecret%40cam&n=1", "?url=rtsp%3A%2F%2F***&n=1"),
    ],
)
def test_secrets_outside_of_urls(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_a_url_with_spaces_is_hidden_where_its_end_is_known() -> None:
    assert shown("rtsp://admin:se cret@cam/ch 1") == "rtsp://***@cam/ch 1"
    assert shown("http://cam/a?password=se cret") == "http://cam/a?password=***"


SECRETS = (
    "hunter2", "hunter2@hunter2", "hunter2/hunter2", "hunter2:hunter2", "hunter2?hunter2", "hunter2#hunter2",
    "987/hunter2", "987#hunter2", "987?hunter2", "@hunter2", ":hunter2", "/hunter2", "hunter2%2F", "hunter2%40x",
    "hunter2&x=hunter2",
    "987/hunter2@hunter2/hunter2", "hunter2=", "[hunter2]", "987?hunter2=1@hunter2", "a=hunter2@hunter2",
    "'hunter2", '"hunter2"',
)  # fmt: skip
SHAPES = (
    "rtsp://admin:{}@{}/1", "rtsp://{}@{}/1", "rtsp://:{}@{}", "rtsp://admin:{}@{}:554/a/b?c=d", "rtsp://a@b:{}@{}/1",
    "rtsp://admin:{}@{}/x@y", "rtsp://{1}/a?password={0}", "rtsp://{1}:554/a?x=1&p={0}&y=2", "rtsp://u:v@{1}/a?jwt={0}",
    "rtsp://{1}/user=admin_password={0}", "rtsp://{1}:554/user=admin&password={0}&channel=1", "rtsp://{1}/a;sig={0}",
    "rtsp://{1}/channel=1_password={0}/x", "rtsp://{1}/a?streamid=#!::u=admin,p={0}", "http://{1}:8080/a?psw={0}",
    "http://{1}/a?loginuse=admin&loginpas={0}", "rtsp://{1}/admin:{0}", "http://{1}/a#token={0}", "admin:{}@{}/1",
    "rtsp:/admin:{}@{}/1", "rtsp//admin:{}@{}/1", "HTTP://admin:{}@{}", "/absent?password={0}", "srt://:9000?passphrase={0}",
)  # fmt: skip
HOSTS = ("cam.local", "192.0.2.1")


def urls() -> Iterator[tuple[str, str]]:
    """URLs of every shape with every secret, as they are and percent-encoded."""
    for shape in SHAPES:
        for secret in SECRETS:
            for host in HOSTS:
                for written in (secret, quote(secret, safe="")):
                    yield shape.format(written, host), secret


def test_no_secret_is_shown_of_any_url() -> None:
    for url, _ in urls():
        text = shown(url)
        assert "hunter2" not in text, (url, text)
        assert "987" not in text, (url, text)
        assert shown(text) == text, "showing it again changes something"


def test_no_secret_is_left_in_a_text() -> None:
    for url, secret in urls():
        if '"' in secret or "'" in secret:
            continue  # as the end of a URL in a text
        for text in (url, f"cannot open '{url}': refused", f'{{"url":"{url}","mail":"a@b.c"}}', f"({url}), <{url}>"):
            assert "hunter2" not in redact(text), text
            assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "piece",
    [
        "a", "@", ":", "/", "://", "a://", "a://b@", "=", "?a=", "&", "%40", "%25", "/passpass", "?pass", "=a&",
        "-", "_", "a:b@", "http://u:p@h/x?y=z ", "a@", ' "', "'],", '",http://a@b', "[", "]", ".", "1.", "[:",
        "authorization:", "cookie", "%3A%2F%2F", "aA1", " ", "\n", "(user=",
    ],
)  # fmt: skip
def test_the_time_grows_with_the_length_alone(piece: str) -> None:
    """A text that takes quadratic time would take minutes; a test that hangs fails."""
    text = piece * (300_000 // len(piece))
    assert len(redact(text)) > 0
    assert len(shown(f"rtsp://{text}")) > 0


@pytest.mark.parametrize("password", ["secret", "p@ss", "a/b", "a#b", "a?b", "a:b", "ü ß", "100%", "%41", "", "[x]"])
@pytest.mark.parametrize("host", ["cam:554", "[fe80::1]:554", "[::1]", "10.0.0.1"])
def test_credentials_of_any_characters_come_out_as_they_went_in(host: str, password: str) -> None:
    url = with_credentials(f"rtsp://{host}/ch1?x=1", "us@er:1/", password)
    parts = urlsplit(url)
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == ("us@er:1/", password)
    assert parts.netloc.rpartition("@")[2] == host
    assert (parts.path, parts.query) == ("/ch1", "x=1")
    assert redact(url) == f"rtsp://***@{host}/ch1?x=***"


def test_given_credentials_replace_those_of_the_url() -> None:
    assert with_credentials("rtsp://a:b@cam/1", "c", "d") == "rtsp://c:d@cam/1"
    assert with_credentials("rtsp://a:b@cam/1", "c", None) == "rtsp://c@cam/1"


def test_without_a_user_the_url_stays() -> None:
    assert with_credentials("rtsp://a:b@cam/1", None, None) == "rtsp://a:b@cam/1"
    assert with_credentials("rtsp://cam/1", None, "d") == "rtsp://cam/1"
