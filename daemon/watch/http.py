"""News of a daemon over HTTP: `GET /v1/events/stream`, Server-Sent Events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

import httpcore2
import orjson

from visaged.daemon.watch.news import Inbox, News, Unusable, camera_of, cleaned, decoded, event_of
from visaged.daemon.watch.sse import EventParser, ServerEvent

_TIMES = {"connect": 5.0, "read": 40.0, "write": 5.0, "pool": 5.0}
"""Seconds; a daemon sends something every 15 s."""
_FIRST_PAUSE_S, _MOST_PAUSE_S = 1.0, 15.0
_HOPELESS = {401, 403, 404, 405, 421}
_MOST_ANSWER = 65_536


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """A daemon's HTTP server.

    Attributes:
        url: Scheme, host and port, with a path where a proxy puts the daemon below one.
        key: API key; None for none.
        tls: For https; None for the system's authorities.
    """

    url: str
    key: str | None = None
    tls: ssl.SSLContext | None = None


def target_of(url: str) -> str:
    """Return the URL of a daemon in the form of `HttpTarget.url`.

    Raises:
        ValueError: It is none; the text says what is wrong with it, without what may be a secret.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise ValueError("its port or its host is none") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it has to be like http://127.0.0.1:8080 or https://cameras.example")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it holds a login; visaged has keys, which are given by --key env:VARIABLE or file:PATH")
    if parts.query or parts.fragment:
        raise ValueError("it ends with a query or a fragment; give host and port alone")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


class HttpNews:
    """Takes the events and states of a daemon; connects again, and has what it missed replayed.

    Args:
        target: The daemon.
        inbox: Takes the news.
        cameras: Names of the cameras that are wanted; empty for all.
        kinds: Kinds of events that are wanted; empty for all.
    """

    def __init__(
        self, target: HttpTarget, inbox: Inbox, cameras: Sequence[str] = (), kinds: Sequence[str] = ()
    ) -> None:
        self._target = target
        self._inbox = inbox
        query = {name: ",".join(values) for name, values in (("camera", cameras), ("kind", kinds)) if values}
        self._url = f"{target.url}/v1/events/stream{'?' + urlencode(query) if query else ''}"
        self._last: str | None = None
        self._worked = False
        self._pause_s = _FIRST_PAUSE_S
        self._said: set[str] = set()

    def run(self, stopping: threading.Event) -> None:
        """Take news until `stopping` is set, or until it is of no use to go on."""
        while not stopping.is_set():
            trouble, hopeless = self._connection(stopping)
            if stopping.is_set():
                return
            if hopeless and not self._worked:
                self._inbox.fail(trouble)
                return
            self._inbox.link(False, trouble)
            if stopping.wait(self._pause_s):
                return
            self._pause_s = min(_MOST_PAUSE_S, 2 * self._pause_s)

    def _connection(self, stopping: threading.Event) -> tuple[str, bool]:
        """Hold one connection until it ends; return why it did, and whether another try would end the same way."""
        url = self._target.url
        headers: list[tuple[bytes | str, bytes | str]] = [
            ("Accept", "text/event-stream"),
            ("Cache-Control", "no-store"),
        ]
        if self._target.key is not None:
            headers.append(("Authorization", f"Bearer {self._target.key}"))
        if self._last is not None:
            headers.append(("Last-Event-ID", self._last))
        try:
            with (
                httpcore2.ConnectionPool(ssl_context=self._target.tls) as pool,
                pool.stream("GET", self._url, headers=headers, extensions={"timeout": _TIMES}) as answer,
            ):
                if answer.status != HTTPStatus.OK:
                    return self._refused(answer.status, _start_of(answer.iter_stream()))
                kind = dict(answer.headers).get(b"content-type", b"").partition(b";")[0].strip()
                if kind.lower() != b"text/event-stream":
                    return f"{url} answers with something other than events; is it a visaged daemon?", True
                self._worked, self._pause_s = True, _FIRST_PAUSE_S
                self._inbox.link(True, f"connected to {url}")
                self._take(answer.iter_stream(), stopping)
        except httpcore2.ConnectError as error:
            return self._unreachable(error)
        except httpcore2.TimeoutException:
            return f"{url} does not answer; check host and port, and what is between", False
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            if not self._worked:
                return (
                    f"{url} does not speak HTTP as it should ({error}); is it http or https, and the right port?",
                    False,
                )
            return f"the connection to {url} was lost", False
        return f"{url} ended the connection", False

    def _take(self, pieces: Iterable[bytes], stopping: threading.Event) -> None:
        parser = EventParser()
        for piece in pieces:
            for event in parser.feed(piece):
                if event is None:
                    self._remark("something was left out: an event is larger than any that a daemon sends")
                else:
                    self._event(event)
            if parser.retry_s is not None:
                self._pause_s = min(_MOST_PAUSE_S, max(0.2, parser.retry_s))
            self._last = parser.number or self._last
            if stopping.is_set():
                return

    def _event(self, event: ServerEvent) -> None:
        try:
            if event.name == "face":
                self._inbox.put(event_of(decoded(event.data)))
            elif event.name == "camera":
                self._inbox.put(camera_of(decoded(event.data)))
            elif event.name == "removed":
                name = str(decoded(event.data).get("camera", ""))
                self._inbox.put(News("removed", {"camera": name}, name))
            elif event.name == "gap":
                self._inbox.note("some of the events since the connection was lost are gone")
        except Unusable as error:
            self._remark(f"something was left out: {error}")

    def _refused(self, status: int, body: bytes) -> tuple[str, bool]:
        url, said = self._target.url, _problem(body)
        if status == HTTPStatus.UNAUTHORIZED:
            what = (
                "wants a key: give it by" if self._target.key is None else "does not know this key; give another one by"
            )
            return f"{url} {what} --key env:VARIABLE or file:PATH (visaged key makes one)", True
        if status == HTTPStatus.FORBIDDEN:
            return f"{url} refuses this key or this machine{said}", True
        if status == HTTPStatus.NOT_FOUND:
            return f"{url} has no events to give{said}; is it visaged, and as new as this one?", True
        if status == HTTPStatus.MISDIRECTED_REQUEST:
            return (
                f"{url}: the daemon does not go by that name{said}; use its address, or list the name in http.hosts",
                True,
            )
        if status in (301, 302, 303, 307, 308):
            return f"{url} redirects elsewhere; give the URL that it leads to, with https:// where that is used", True
        return f"{url} answers {status}{said}", status in _HOPELESS or status == HTTPStatus.BAD_REQUEST

    def _unreachable(self, error: Exception) -> tuple[str, bool]:
        url = self._target.url
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return (
                    f"the certificate of {url} was not accepted: {cause.verify_message}; name the authority it comes "
                    "from with --ca-file, and the daemon by the name in its certificate"
                ), True
            if isinstance(cause, ssl.SSLError):
                return f"{url} does not speak TLS as it should: {cause.reason or cause}; is it http:// ?", True
            cause = cause.__cause__ or cause.__context__
        advice = "trying again" if self._worked else "does visaged run there, and is its http.port the one here?"
        return f"{url} cannot be reached: {error}; {advice}", False

    def _remark(self, text: str) -> None:
        if text not in self._said and len(self._said) < 20:
            self._said.add(text)
            self._inbox.note(text)


def _start_of(pieces: Iterable[bytes]) -> bytes:
    body = b""
    for piece in pieces:
        body += piece
        if len(body) > _MOST_ANSWER:
            break
    return body[:_MOST_ANSWER]


def _problem(body: bytes) -> str:
    """Return what an answer says in words, in brackets; empty if it is no problem document."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    said = document.get("detail") or document.get("title") if isinstance(document, dict) else None
    return f" ({cleaned(said)})" if isinstance(said, str) else ""
