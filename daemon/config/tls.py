"""TLS for the daemon's own listeners: loading a certificate and key, and reporting what is wrong with them."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from visaged.pipelines.runtime.config import StrictConfig
from visaged.pipelines.runtime.credentials import file_of

# Certificate tools renew 30 days before the end, so a certificate that is still in use at half of that was not renewed.
_SOON_S = 15 * 86400


class TlsError(Exception):
    """A certificate or key cannot be used; the text names the file and says what to do."""


class TlsSettings(StrictConfig):
    """A certificate and its key."""

    certificate: Path
    """PEM file: the server's certificate, then the intermediate certificates up to the authority."""
    key: Path
    """PEM file: the certificate's private key, without a password. Like the certificate, it may be a credential of
    systemd, `credential:NAME`."""

    def context(self) -> ssl.SSLContext:
        """Return a context for TLS 1.2 and newer with these files; raises `TlsError` if they cannot be used."""
        for name, path in (("certificate", self.certificate), ("key", self.key)):
            try:
                file_of(path).read_bytes()
            except OSError as error:
                raise TlsError(f"{name} {path} cannot be read: {error.strerror}") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # OpenSSL would ask the terminal for a key's password, and wait.
            context.load_cert_chain(file_of(self.certificate), file_of(self.key), password="")
        except ssl.SSLError as error:
            raise TlsError(self._trouble(error)) from None
        return context

    def _trouble(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"key {self.key} does not belong to certificate {self.certificate}; give the key that it was made of"
        text = file_of(self.key).read_bytes()
        if b"ENCRYPTED" in text:
            return f"key {self.key} has a password; write it without: openssl pkey -in {self.key} -out NEW"
        if b"PRIVATE KEY-----" not in text:
            return f"key {self.key} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
        if b"-----BEGIN CERTIFICATE-----" not in file_of(self.certificate).read_bytes():
            return f"certificate {self.certificate} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        reason = (error.reason or str(error)).lower().replace("_", " ")
        return f"certificate {self.certificate} and key {self.key} cannot be used: {reason}"

    def warning(self, now_s: float | None = None) -> str | None:
        """Return why clients will refuse the certificate, or that it ends soon; None if it is good.

        Python's `ssl` shows the dates of a certificate only after a handshake, so one is made in memory.

        Args:
            now_s: Time in seconds since 1970 that the end of the certificate is compared with; None for now.
        """
        client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_context.check_hostname = False  # the names that clients use are not known here
        client_context.load_verify_locations(file_of(self.certificate))
        client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate vouches for itself
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self.context().wrap_bio(to_server, to_client, server_side=True)
        client = client_context.wrap_bio(to_client, to_server)
        try:
            for _ in range(4):  # a handshake takes two round trips
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
