"""URLs without their secrets."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest

from visaged.pipelines.runtime.redact import redact, with_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
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
    ],
)
def test_user_and_password_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://cam/a?user=admin&password=secret&n=1", "http://cam/a?user=***&password=***&n=1"),
        ("http://cam/a?PWD=secret#top", "http://cam/a?PWD=***#top"),
        ("http://cam/a?n=1&auth_token=se%20cret", "http://cam/a?n=1&auth_token=***"),
        (
            "https://s3/a?X-Amz-Signature=abc&X-Amz-Credential=def",
            "https://s3/a?X-Amz-Signature=***&X-Amz-Credential=***",
        ),
        ("http://cam/a?apikey=abc'", "http://cam/a?apikey=***'"),
        ("http://cam/a?login=me&usr=me&api-key=k", "http://cam/a?login=***&usr=***&api-key=***"),
        # As the firmware of many cheap cameras has it, without a question mark.
        ("rtsp://cam:554/user=admin&password=secret&channel=1", "rtsp://cam:554/user=***&password=***&channel=1"),
        ("rtsp://cam/user=admin_password=secret_channel=1.sdp", "rtsp://cam/user=***"),
        ("rtsp://cam/live;token=secret", "rtsp://cam/live;token=***"),
    ],
)
def test_tokens_in_queries_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no url at all, but me@example.org and a:b",
        "rtsp://cam.local:554/ch1",
        "rtsp://cam/ch1?channel=1&subtype=0",
        "rtsp://cam:554/stream@1",
        "rtsp://[2001:db8::1]:554/stream@1",
        "rtsp://[2001:db8::1]/x",
        "http://cam/mail@example.org",
        "/srv/videos/a@b.mp4",
        "C:\\videos\\user\\a.mp4",
        "http://cam:8080, http://other:9090; write to me@example.org",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_text_around_stays() -> None:
    text = "camera 'a': rtsp://u:p@one/1 refused, and http://x:y@two/2?key=z too; ask me@example.org"
    assert redact(text) == "camera 'a': rtsp://***@one/1 refused, and http://***@two/2?key=*** too; ask me@example.org"


def test_redacting_again_changes_nothing() -> None:
    text = redact("rtsp://u:p@one/1?key=z and rtsp://a:b/c@d")
    assert redact(text) == text


@pytest.mark.parametrize("password", ["secret", "p@ss", "a/b", "a#b", "a?b", "a:b", "ü ß", "100%", "%41", "", "[x]"])
@pytest.mark.parametrize("host", ["cam:554", "[fe80::1]:554", "[::1]", "10.0.0.1"])
def test_credentials_of_any_characters_come_out_as_they_went_in(host: str, password: str) -> None:
    url = with_credentials(f"rtsp://{host}/ch1?x=1", "us@er:1/", password)
    parts = urlsplit(url)
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == ("us@er:1/", password)
    assert parts.netloc.rpartition("@")[2] == host
    assert (parts.path, parts.query) == ("/ch1", "x=1")
    assert redact(url) == f"rtsp://***@{host}/ch1?x=1"


def test_given_credentials_replace_those_of_the_url() -> None:
    assert with_credentials("rtsp://a:b@cam/1", "c", "d") == "rtsp://c:d@cam/1"
    assert with_credentials("rtsp://a:b@cam/1", "c", None) == "rtsp://c@cam/1"


def test_without_a_user_the_url_stays() -> None:
    assert with_credentials("rtsp://a:b@cam/1", None, None) == "rtsp://a:b@cam/1"
    assert with_credentials("rtsp://cam/1", None, "d") == "rtsp://cam/1"
