"""TLS to cameras: whose certificates are accepted, and why one was not.

FFmpeg verifies the certificate and the host's name in it, before it sends anything, for every scheme that uses TLS. It
reports all that can go wrong as an input/output error, so the reason is found out by a handshake of Python's own.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from visaged.pipelines.runtime.config import StrictConfig

TLS_PORTS = {"https": 443, "rtsps": 322, "rtmps": 443}
"""Schemes that use TLS, with their default ports."""

# Where systems have the certificates of their authorities in one file, for a Python that does not know it: Debian,
# Fedora, openSUSE, Alpine and macOS.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_MOST_DIAGNOSIS_S = 3.0


class CameraTls(StrictConfig):
    """TLS to a camera."""

    verify: bool = Field(default=True)
    """Accept only a certificate of a known authority for the host in `url`. Without, anyone on the network can pose as
    the camera, and gets its login."""
    ca_file: Path | None = None
    """PEM file of the authorities that the camera's certificate may come from, or the self-signed certificate itself;
    null for the system's authorities."""

    def trouble(self) -> str | None:
        """Return why `ca_file` cannot be used; None if it can, or if there is none."""
        if self.ca_file is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except ssl.SSLError:
            return f"{self.ca_file} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        except OSError as error:
            return f"{self.ca_file} cannot be read: {error.strerror}"
        # OpenSSL takes a file with revocation lists alone; it would accept no certificate.
        return None if context.cert_store_stats()["x509"] else f"{self.ca_file} holds no certificate"

    def options(self) -> dict[str, str]:
        """Return FFmpeg's options."""
        if not self.verify:
            return {"tls_verify": "0"}
        authorities = self.ca_file or system_authorities()
        return {"tls_verify": "1"} | ({} if authorities is None else {"ca_file": str(authorities)})

    def context(self) -> ssl.SSLContext:
        """Return the same for Python's TLS; raises `OSError` if `ca_file` cannot be used."""
        context = ssl.create_default_context(cafile=self.ca_file or system_authorities())
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def refusal(self, url: str) -> str | None:
        """Return why the certificate at a URL is not accepted; None if it is, or if that cannot be found out.

        Nothing but a handshake is sent.
        """
        parts = urlsplit(url)
        if not self.verify or parts.scheme not in TLS_PORTS or parts.hostname is None:
            return None
        if (trouble := self.trouble()) is not None:
            return trouble
        try:
            context = self.context()
            site = (parts.hostname, parts.port or TLS_PORTS[parts.scheme])
            deadline_s = time.monotonic() + _MOST_DIAGNOSIS_S
            with (
                socket.create_connection(site, _MOST_DIAGNOSIS_S) as connection,
                context.wrap_socket(connection, server_hostname=site[0], do_handshake_on_connect=False) as secured,
            ):
                shake_hands(secured, deadline_s)
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        except (OSError, ValueError):  # a host that is not a valid name for TLS is a ValueError
            return None
        return None


def system_authorities() -> Path | None:
    """Return the file with the certificates of the system's authorities; None if FFmpeg's TLS must know it itself.

    The TLS library in a PyAV wheel looks where it was built to look, which may be the place of another system.
    """
    known = ssl.get_default_verify_paths().cafile  # honours SSL_CERT_FILE
    return next((Path(path) for path in (known, *_BUNDLES) if path is not None and Path(path).is_file()), None)


def shake_hands(secured: ssl.SSLSocket, deadline_s: float) -> bool:
    """Do the handshake of a connection, and leave it without a timeout; return whether it was done in time.

    Args:
        secured: The connection.
        deadline_s: Monotonic seconds at which to give up; the timeout of a socket limits silence alone.

    Raises:
        OSError: The handshake failed, `ssl.SSLCertVerificationError` among others.
    """
    secured.setblocking(False)
    with selectors.DefaultSelector() as waiting:  # select.select takes no file descriptor beyond 1,023
        waiting.register(secured, selectors.EVENT_READ)
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                waiting.modify(secured, selectors.EVENT_READ)
            except ssl.SSLWantWriteError:
                waiting.modify(secured, selectors.EVENT_WRITE)
            else:
                secured.setblocking(True)
                return True
            waiting.select(left_s)
    return False
