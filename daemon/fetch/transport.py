"""One HTTP exchange with addresses that were checked, and with no others.

httpcore2 (the maintained continuation of httpcore) speaks HTTP/1.1 and TLS here. It follows no redirects, takes no
cookies, reads no variables, uses no proxies and unpacks nothing, and its connections come from a backend that can be
replaced: this one knows addresses only, so that a name is never looked up a second time. `http.client` in threads
would do the same, but a server that sends a byte now and then could hold its thread for ever: the time-outs of
sockets are for silence, and a thread cannot be cancelled as a task can.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpcore2

from visaged.daemon.fetch.addresses import Address, parse
from visaged.daemon.fetch.errors import FetchError
from visaged.daemon.fetch.urls import Target

# A host that drops packets must leave time for its other addresses.
_CONNECT_S = 3.0

# At debug it tells of whole requests, with the signatures in their queries and headers.
logging.getLogger("httpcore2").setLevel(logging.WARNING)


class PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to given addresses, whatever the name.

    Args:
        addresses: In the order to be tried.
        dial: Makes the connections, by address.
        may_be_own: Whether an address may turn out to be one of this machine itself. Its public ones pass every check
            of addresses, and what listens there may be open to this machine alone.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        dial: httpcore2.AsyncNetworkBackend,
        *,
        may_be_own: Callable[[Address], bool] = lambda address: True,
    ) -> None:
        self._addresses = addresses
        self._dial = dial
        self._may_be_own = may_be_own
        self._streams: list[httpcore2.AsyncNetworkStream] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Return a connection to the first address that gives one; the host is not looked at."""
        failure: Exception = httpcore2.ConnectError("there is no address")
        for address in self._addresses:
            try:
                stream = await self._dial.connect_tcp(str(address), port, _CONNECT_S, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
                continue
            self._streams.append(stream)
            local = stream.get_extra_info("client_addr")
            # To reach an address of its own, a machine connects from that very address.
            if local is not None and parse(local[0]) == address and not self._may_be_own(address):
                raise FetchError("forbidden", "nothing is fetched from this machine itself")
            return stream
        raise failure

    async def aclose(self) -> None:
        """Close what was opened: httpcore2 lets go of a connection whose TLS handshake is cancelled."""
        for stream in self._streams:
            await stream.aclose()


@dataclass(frozen=True, slots=True)
class Reply:
    """The head of an answer, and its body while the exchange is open.

    Attributes:
        status: HTTP status.
        headers: By their names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    _response: httpcore2.Response

    @property
    def phrase(self) -> str:
        """The status in words of this side: those of the server are not passed on."""
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return str(self.status)

    @property
    def encoding(self) -> str | None:
        """How the body is packed; None if it is not. `aws-chunked` is left over from how an object was sent."""
        text = self.headers.get("content-encoding", "").strip().lower()
        return None if text in ("", "identity", "aws-chunked") else text

    @property
    def length(self) -> int | None:
        """The length that was announced, if one was."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdigit() else None

    async def body(self, most_bytes: int) -> bytes | None:
        """Return the body; None if it is longer than that, of which little more is ever in memory."""
        if (self.length or 0) > most_bytes:
            return None
        pieces, received = [], 0
        async with contextlib.aclosing(self._response.aiter_stream()) as stream:
            async for piece in stream:
                received += len(piece)
                if received > most_bytes:
                    return None
                pieces.append(piece)
        return b"".join(pieces)


@contextlib.asynccontextmanager
async def exchange(
    method: str,
    target: Target,
    headers: Mapping[str, str],
    backend: PinnedBackend,
    tls: ssl.SSLContext | None,
) -> AsyncIterator[Reply]:
    """Send a request over a connection of its own, and give what is answered; raises `FetchError`.

    Every exchange has a connection of its own: nothing that a server sends beyond its answer can pass for another one.

    Args:
        method: `GET` or `HEAD`.
        target: Where to.
        headers: Of the request, beside `Host`.
        backend: Makes the connection, and is closed.
        tls: For https; the certificate has to be for the host's name, whatever address it is connected to.
    """
    url = httpcore2.URL(scheme=target.scheme, host=str(target.host), port=target.port, target=target.path)
    fields = {"Host": target.authority, **headers, "Accept-Encoding": "identity", "Connection": "close"}
    request = httpcore2.Request(method, url, headers=list(fields.items()))
    connection = httpcore2.AsyncHTTPConnection(url.origin, tls, network_backend=backend)
    try:
        response = await connection.handle_async_request(request)
        answered = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in response.headers}
        yield Reply(response.status, answered, response)
    except httpcore2.TimeoutException:
        raise FetchError("timeout", f"{target.site} does not accept connections in time") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
        raise FetchError("unreachable", _failure(target, error)) from None
    finally:
        await connection.aclose()
        await backend.aclose()


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return how certificates are checked: by the system's authorities, or by those of a file.

    Raises:
        FetchError: The file cannot be used.
    """
    if ca_file is None:
        return httpcore2.default_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise FetchError("unreachable", f"ca_file cannot be used: {error.strerror or error}") from None


def _failure(target: Target, error: BaseException) -> str:
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{target.site} has a certificate that is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"{target.site} does not speak TLS: {cause.reason or 'the handshake failed'}"
    if isinstance(error, httpcore2.ConnectError):
        return f"{target.site} refuses connections or cannot be reached"
    if isinstance(error, httpcore2.ProtocolError):
        return f"{target.site} does not speak HTTP as it should, or ended its answer early"
    return f"{target.site} ended the connection"
