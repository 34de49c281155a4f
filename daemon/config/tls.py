"""TLS of the daemon's own listeners: its files, and what can be wrong with them."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from visaged.pipelines.runtime.config import StrictConfig

# Half of the 30 days before the end in which certificate tools renew: if it is still the old one, that has failed.
_SOON_S = 15 * 86400


class TlsError(Exception):
    """Files that TLS cannot be done with. The text says which, and what to do."""


class TlsSettings(StrictConfig):
    """A certificate and its key."""

    certificate: Path
    """PEM file: the server's certificate, then those between it and the authority."""
    key: Path
    """PEM file: the certificate's private key, without a password."""

    def context(self) -> ssl.SSLContext:
        """Return TLS 1.2 and newer with these files; raises `TlsError`."""
        for name, path in (("certificate", self.certificate), ("key", self.key)):
            try:
                path.read_bytes()
            except OSError as error:
                raise TlsError(f"{name} {path} cannot be read: {error.strerror}") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # OpenSSL would ask the terminal for a key's password, and wait.
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            raise TlsError(self._trouble(error)) from None
        return context

    def _trouble(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"key {self.key} does not belong to certificate {self.certificate}; give the key that it was made of"
        text = self.key.read_bytes()
        if b"ENCRYPTED" in text:
            return f"key {self.key} has a password; write it without: openssl pkey -in {self.key} -out NEW"
        if b"PRIVATE KEY-----" not in text:
            return f"key {self.key} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
        if b"-----BEGIN CERTIFICATE-----" not in self.certificate.read_bytes():
            return f"certificate {self.certificate} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        reason = (error.reason or str(error)).lower().replace("_", " ")
        return f"certificate {self.certificate} and key {self.key} cannot be used: {reason}"

    def warning(self, now_s: float | None = None) -> str | None:
        """Return what clients will find wrong with the certificate by itself, or that it ends soon; None if nothing.

        Python's `ssl` gives no way to a certificate's dates but a handshake, so there is one, in memory.

        Args:
            now_s: Seconds since 1970, for the warning that it ends soon; null for now.
        """
        client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_context.check_hostname = False  # which names clients use is not known here
        client_context.load_verify_locations(self.certificate)
        client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate vouches for itself
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self.context().wrap_bio(to_server, to_client, server_side=True)
        client = client_context.wrap_bio(to_client, to_server)
        try:
            for _ in range(4):  # messages go to and fro twice
                for side in (client, server):
                    try:
                        side.do_handshake()
                    except ssl.SSLWantReadError:
                        continue
        except ssl.SSLError as error:
            text = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
            return f"clients will refuse it: {text}"
        dates = client.getpeercert() or {}
        left_s = ssl.cert_time_to_seconds(str(dates["notAfter"])) - (time.time() if now_s is None else now_s)
        if left_s < _SOON_S:
            return f"it ends in {left_s / 86400:.0f} days ({dates['notAfter']}); renew it, and start visaged again"
        return None
