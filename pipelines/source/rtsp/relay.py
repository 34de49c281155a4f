"""Relays RTSP between FFmpeg and a camera.

FFmpeg follows RTSP's redirects to any host, and no option keeps it from that. So FFmpeg gets the URL of this relay: it
listens on loopback for one connection, which has to name a secret, and connects to the camera alone. A redirect ends
the connection with an error. With the camera's address hidden from it, FFmpeg could answer no request for a login, and
so never has one; TLS ends here too, after the certificate has been verified.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import selectors
import socket
import ssl
import threading
import time
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.errors import SourceError, certificate_refused
from visaged.pipelines.source.rtsp.login import CameraLogin
from visaged.pipelines.source.rtsp.messages import BadMessage, Message, Splitter, as_header
from visaged.pipelines.source.rtsp.transport import from_camera
from visaged.pipelines.source.tls import shake_hands

_PORTS = {"rtsp": 554, "rtsps": 322}
_READ = 262_144
_OK, _UNAUTHORIZED = 200, 401
_REQUEST = re.compile(r"(\S+) (\S+) (RTSP/\S+)")
# Requests whose responses may still come: FFmpeg does not wait for those that keep a session alive.
_MOST_OPEN = 16
# Most times that a request is sent: without a login, with one, and with one for a nonce that was too old.
_MOST_SENT = 3
_LAST_S = 0.5
"""Longest time in seconds to pass on FFmpeg's last request, TEARDOWN, to a camera that does not read."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that the camera has not answered.

    Attributes:
        request: The request as FFmpeg sent it, with the camera's URL.
        has_login: Whether it was sent with a login.
        sent: How many times it was sent.
    """

    request: Message
    has_login: bool
    sent: int


class Relay:
    """The connection of one camera.

    Args:
        config: The source, an rtsp or rtsps URL.
        credentials: User and password, if they are not in the URL.

    Attributes:
        failure: Why the relay ended the connection; None if it did not.
        connect_s: Seconds that connecting to the camera took, with TLS.
        is_silent: Whether the camera has neither said anything nor hung up.
    """

    def __init__(self, config: SourceConfig, credentials: tuple[str | None, str | None]) -> None:
        self._config = config
        parts = urlsplit(config.address.target)
        self._host, self._port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        user = credentials[0] if credentials[0] is not None else _unquoted(parts.username)
        password = credentials[1] if credentials[0] is not None else _unquoted(parts.password)
        self._login = CameraLogin(user, password or "") if user else None
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self._site = as_header(f"{parts.scheme}://{shown}:{self._port}")
        self._rest = config.address.target.partition("://")[2][len(parts.netloc) :]
        self._secret = f"/{secrets.token_urlsafe(16)}"
        self._open: dict[str, _Asked] = {}  # by CSeq
        self._is_playing = self._is_bare = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: SourceError | None = None
        self.connect_s = 0.0
        self.is_silent = True

    def open(self) -> str:
        """Connect to the camera, and return the URL for FFmpeg.

        Raises:
            SourceError: There is no connection, or the camera's certificate is not accepted.
        """
        began_s = time.monotonic()
        self._camera = self._connect()
        self.connect_s = time.monotonic() - began_s
        try:
            # FFmpeg's sockets for UDP have the family of this address, so it is that of the camera's.
            loopback = "::1" if self._camera.family == socket.AF_INET6 else "127.0.0.1"
            self._listener = socket.create_server((loopback, 0), family=self._camera.family, backlog=4)
            host = f"[{loopback}]" if ":" in loopback else loopback
            self._own = f"rtsp://{host}:{self._listener.getsockname()[1]}{self._secret}"
            thread = threading.Thread(target=self._run, name="rtsp relay", daemon=True)
            thread.start()
        except BaseException:
            self._camera.close()
            raise
        self._thread = thread
        return self._own + self._rest

    def close(self) -> None:
        """End the connection, after what FFmpeg sent last has been passed on; FFmpeg's end must be closed before."""
        self._stopping.set()
        if self._thread is None:
            return
        self._thread.join(_LAST_S)
        if self._thread.is_alive():
            with contextlib.suppress(OSError):
                # Not that of `SSLSocket`: after it, the thread would read and write without encryption.
                socket.socket.shutdown(self._camera, socket.SHUT_RDWR)
            self._thread.join(2.0)

    def _connect(self) -> socket.socket:
        where, timeout_s = self._config.shown_url, self._config.open_timeout_s
        deadline_s = time.monotonic() + timeout_s
        try:
            camera = socket.create_connection((self._host, self._port), timeout_s)
        except ConnectionRefusedError:
            raise SourceError("refused", f"{where} refused the connection: nothing listens at this port") from None
        except TimeoutError:
            raise SourceError("timeout", f"{where} did not answer in time") from None
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "its host has no valid name"
            text = f"{where} cannot be opened: {reason}; check host, port and path"
            raise SourceError("unreachable", text) from None
        camera.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._secured(camera, deadline_s) if self._site.startswith("rtsps:") else camera

    def _secured(self, camera: socket.socket, deadline_s: float) -> socket.socket:
        tls, where = self._config.tls, self._config.shown_url
        trouble = tls.trouble()
        if trouble is not None:
            camera.close()
            raise certificate_refused(self._config, trouble)
        secured = tls.context().wrap_socket(camera, server_hostname=self._host, do_handshake_on_connect=False)
        try:
            if not shake_hands(secured, deadline_s):
                raise SourceError("timeout", f"{where} did not answer in time")
        except ssl.SSLCertVerificationError as error:
            secured.close()
            raise certificate_refused(self._config, error.verify_message) from None
        except OSError as error:
            secured.close()
            text = f"{where} does not speak TLS: {getattr(error, 'reason', None) or error.strerror or 'it hung up'}"
            raise SourceError("unreachable", text) from None
        except BaseException:
            secured.close()
            raise
        return secured

    def _run(self) -> None:
        with self._camera, contextlib.suppress(OSError):
            client = self._admitted()
            if client is not None:
                with client:
                    self._relay(client)

    def _admitted(self) -> socket.socket | None:
        """Return FFmpeg's connection, after its first request; whoever else connects is turned away."""
        deadline_s = time.monotonic() + self._config.open_timeout_s
        with self._listener as listener:
            while (left_s := deadline_s - time.monotonic()) > 0 and not self._stopping.is_set():
                listener.settimeout(min(left_s, 0.5))
                try:
                    client, _ = listener.accept()
                except TimeoutError:
                    continue
                client.settimeout(left_s)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._requests = Splitter()
                with contextlib.suppress(OSError, BadMessage):
                    requests = list(self._requests.feed(client.recv(_READ)))
                    if requests and isinstance(requests[0], Message) and f" {self._own}" in requests[0].line:
                        self._forward(requests)
                        return client
                client.close()
        return None

    def _relay(self, client: socket.socket) -> None:
        responses = Splitter()
        timeout_s = 2 * self._config.read_timeout_s
        client.settimeout(timeout_s)
        self._camera.settimeout(timeout_s)
        camera = self._camera
        waiting = selectors.DefaultSelector()
        try:
            waiting.register(client, selectors.EVENT_READ)
            waiting.register(camera, selectors.EVENT_READ)
            while not self._stopping.is_set():
                has_more = isinstance(camera, ssl.SSLSocket) and camera.pending() > 0
                ready = [camera] if has_more else [key.fileobj for key, _ in waiting.select(1.0)]
                for source in ready:
                    assert isinstance(source, socket.socket)
                    data = source.recv(_READ)
                    self.is_silent &= source is client
                    if not data:
                        return
                    if source is client:
                        self._forward(list(self._requests.feed(data)))
                    else:
                        self._deliver(responses, data, client)
        except BadMessage:
            self._fail("invalid", "does not speak RTSP as it should")
        finally:
            waiting.close()
            self._forward_last(client)

    def _forward_last(self, client: socket.socket) -> None:
        """Send what FFmpeg sent before it hung up: without a TEARDOWN, a camera may send by UDP for another minute."""
        with contextlib.suppress(OSError, BadMessage):
            client.settimeout(0.0)
            self._camera.settimeout(_LAST_S)
            self._forward(list(self._requests.feed(client.recv(_READ))))

    def _deliver(self, responses: Splitter, data: bytes, client: socket.socket) -> None:
        """Send what the camera sends to FFmpeg."""
        if self._is_bare:
            client.sendall(data)
            return
        try:
            for part in responses.feed(data):
                client.sendall(part if isinstance(part, bytes) else self._answered(part))
        except BadMessage:
            # FFmpeg finds the next frame among what some cameras send between them, and follows redirects no more.
            if not self._is_playing:
                raise
            self._is_bare = True
            client.sendall(responses.rest())

    def _fail(self, cause: str, text: str) -> None:
        self.failure = SourceError(cause, f"{self._config.shown_url} {text}")

    def _forward(self, parts: list[Message | bytes]) -> None:
        """Send FFmpeg's requests and reports to the camera."""
        for part in parts:
            self._camera.sendall(part if isinstance(part, bytes) else self._request(part))

    def _request(self, request: Message) -> bytes:
        """Return a request of FFmpeg's, or its answer to one of the camera's, as the camera gets it."""
        if request.status is not None:
            return request.encode()
        found = _REQUEST.fullmatch(request.line)
        if found is None:
            raise BadMessage
        method, uri, version = found.groups()
        if uri.startswith(self._own):
            uri = self._site + uri[len(self._own) :]
        return self._sent(replace(request, line=f"{method} {uri} {version}"), 1)

    def _sent(self, request: Message, times: int) -> bytes:
        """Return a request with the login, if the camera has asked for one, and note that it was sent."""
        method, uri, _ = request.line.split()
        answer = None if self._login is None else self._login.answer(method, uri)
        for number in request.all("cseq"):
            self._open[number] = _Asked(request, answer is not None, times)
        while len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]
        return (request if answer is None else request.with_field("Authorization", answer)).encode()

    def _answered(self, response: Message) -> bytes:
        """Return a camera's response, or request, as FFmpeg gets it; empty if FFmpeg has to wait for another."""
        status = response.status
        if status is not None and 300 <= status < 400:
            place = next((text for text in response.all("location")), "")
            self._fail("redirected", f"redirects to another URL{_named(place)}; name that URL itself as the camera's")
            raise ConnectionError
        asked = None if status is None else self._asked(response)
        if asked is not None and status == _UNAUTHORIZED and self._can_log_in(asked, response.all("www-authenticate")):
            self._camera.sendall(self._sent(asked.request, asked.sent + 1))
            return b""
        self._is_playing |= status == _OK and asked is not None and asked.request.line.startswith("PLAY ")
        fields = tuple((name, value) for name, value in response.fields if name.lower() != "location")
        response = replace(response, fields=fields)
        for transport in response.all("transport"):
            response = response.with_field("Transport", from_camera(transport, self._camera.getpeername()[0]))
        return response.encode()

    def _asked(self, response: Message) -> _Asked | None:
        """Return the request that a response is for: the newest, where the camera answers with a wrong number."""
        number = next(iter(response.all("cseq")), "")
        return self._open.pop(number if number in self._open else next(reversed(self._open), ""), None)

    def _can_log_in(self, asked: _Asked, challenges: list[str]) -> bool:
        """Return whether a request that the camera refused is to be sent again, with what the camera asks for."""
        if self._login is None or asked.sent >= _MOST_SENT:
            return False
        is_stale = any("stale=true" in text.lower().replace('"', "") for text in challenges)
        return (not asked.has_login or is_stale) and self._login.challenged(challenges)


def _unquoted(text: str | None) -> str:
    """Return a part of a URL as it is meant; `as_header` makes the same bytes of it, whether they are UTF-8 or not."""
    return unquote(text or "", errors="surrogateescape")


def _named(place: str) -> str:
    """Return the host of a redirect's target, for an error."""
    found = re.match(
        r"[a-zA-Z]{1,8}://(?:[^/?#@]*@)?([A-Za-z0-9._-]{1,100}|\[[0-9A-Fa-f:.]{1,50}\])(:[0-9]{1,5})?", place
    )
    return "" if found is None else f" at {found[1]}{found[2] or ''}"
