"""One HTTP exchange, with addresses that were checked and no others.

httpcore2 (the maintained continuation of httpcore) does HTTP/1.1 and TLS here. It follows no redirects, takes no
cookies, reads no variables, uses no proxies and decompresses nothing. Its network backend can be replaced: the one here
connects to given addresses, so that a name is never looked up a second time. `http.client` in threads would do the
same, but a server that sends a byte now and then could hold its thread for ever: the time-outs of sockets limit silence
alone, and a thread cannot be cancelled as a task can.
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
from visaged.daemon.fetch.metered import HeadTooLong, Meter, MeteredStream
from visaged.daemon.fetch.urls import Target

# Seconds to connect to one address, so that one that drops packets leaves time for the others.
_CONNECT_S = 3.0

# At debug it logs whole requests, with the signatures in their queries and headers.
logging.getLogger("httpcore2").setLevel(logging.WARNING)


class PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to given addresses, whatever the name.

    Args:
        addresses: The addresses, in the order in which they are tried.
        dial: Makes the connections, by address.
        may_be_own: Returns whether an address may belong to this machine. The public addresses of this machine pass
            every check of addresses, but services there may be open to this machine alone.
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
        self.meter = Meter()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Return a connection to the first address that accepts one; the host is ignored.

        Raises:
            FetchError: The address belongs to this machine, and may not.
            httpcore2.ConnectError: No address accepts a connection; or `httpcore2.ConnectTimeout`.
        """
        failure: Exception = httpcore2.ConnectError("there is no address")
        for address in self._addresses:
            try:
                stream = await self._dial.connect_tcp(str(address), port, _CONNECT_S, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
                continue
            self._streams.append(stream)
            local = stream.get_extra_info("client_addr")
            # A machine connects to one of its own addresses from that same address.
            if local is not None and parse(local[0]) == address and not self._may_be_own(address):
                raise FetchError("forbidden", "nothing is fetched from this machine itself")
            return MeteredStream(stream, self.meter)
        raise failure

    async def aclose(self) -> None:
        """Close all connections: httpcore2 does not close one whose TLS handshake is cancelled."""
        for stream in self._streams:
            await stream.aclose()


@dataclass(frozen=True, slots=True)
class Reply:
    """The head of an answer, and its body while the exchange is open.

    Attributes:
        status: HTTP status.
        headers: Values of the headers by their names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    _response: httpcore2.Response
    _meter: Meter

    @property
    def phrase(self) -> str:
        """The status with the standard phrase; the server's own phrase is not passed on."""
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return str(self.status)

    @property
    def encoding(self) -> str | None:
        """The Content-Encoding; None if the body is not encoded. `aws-chunked` is left over from an upload."""
        text = self.headers.get("content-encoding", "").strip().lower()
        return None if text in ("", "identity", "aws-chunked") else text

    @property
    def length(self) -> int | None:
        """The Content-Length in bytes; None if there is none."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdigit() else None

    async def body(self, most_bytes: int) -> bytes | None:
        """Return the body; None if it is longer than `most_bytes`. Little more than that is ever in memory.

        Raises:
            FetchError: It comes in very small pieces.
        """
        if (self.length or 0) > most_bytes:
            return None
        pieces, received = [], 0
        async with contextlib.aclosing(self._response.aiter_stream()) as stream:
            async for piece in stream:
                received += len(piece)
                if not self._meter.takes(len(piece)):
                    raise FetchError("unreachable", "the server sends the file in pieces of a few bytes each")
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
    """Send a request over a connection of its own, and yield the answer; raises `FetchError`.

    The connection is not reused, so that bytes that a server sends after its answer cannot be taken for another answer.

    Args:
        method: `GET` or `HEAD`.
        target: Scheme, host, port and path of the request.
        headers: Headers of the request besides `Host`.
        backend: Makes the connection; it is closed at the end.
        tls: Context for https; the certificate must be for the host's name, whatever the address. None for http.
    """
    url = httpcore2.URL(scheme=target.scheme, host=str(target.host), port=target.port, target=target.path)
    fields = {"Host": target.authority, **headers, "Accept-Encoding": "identity", "Connection": "close"}
    request = httpcore2.Request(method, url, headers=list(fields.items()))
    connection = httpcore2.AsyncHTTPConnection(url.origin, tls, network_backend=backend)
    try:
        response = await connection.handle_async_request(request)
        answered = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in response.headers}
        backend.meter.begin_body()
        yield Reply(response.status, answered, response, backend.meter)
    except httpcore2.TimeoutException:
        raise FetchError("timeout", f"{target.site} does not accept connections in time") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
        raise FetchError("unreachable", _failure(target, error)) from None
    finally:
        await connection.aclose()
        await backend.aclose()


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's authorities, or those of a PEM file.

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
    if isinstance(error, HeadTooLong):
        return f"{target.site} sends a head that is too long, or 1xx answers without end"
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
