"""Certificates for TLS tests, made when needed: an authority, a server for 127.0.0.1, a client."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True, slots=True)
class KeyPair:
    """PEM files of a certificate and its private key (no password)."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose files lie in one folder."""

    def __init__(self, folder: Path, name: str = "visaged test authority") -> None:
        """Makes a new authority; `folder` is created."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        builder = _builder(self._name, self._name, self._key.public_key(), self._key.public_key(), is_expired=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(is_authority=True), critical=True)
        self.certificate = folder / "ca.pem"
        self.certificate.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))

    def issue_server(self, name: str = "server", *, is_expired: bool = False) -> KeyPair:
        """A certificate for 127.0.0.1, ::1 and localhost."""
        names = x509.SubjectAlternativeName(
            [
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                x509.IPAddress(ipaddress.ip_address("::1")),
            ]
        )
        return self._issue(name, "localhost", ExtendedKeyUsageOID.SERVER_AUTH, names, is_expired=is_expired)

    def issue_stranger(self) -> KeyPair:
        """A server's certificate for a host that is not this one."""
        names = x509.SubjectAlternativeName([x509.DNSName("stranger.example")])
        return self._issue("stranger", "127.0.0.1", ExtendedKeyUsageOID.SERVER_AUTH, names, is_expired=False)

    def issue_client(self, name: str = "client", *, is_expired: bool = False) -> KeyPair:
        """A certificate for a client called `name`."""
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        return self._issue(name, name, ExtendedKeyUsageOID.CLIENT_AUTH, names, is_expired=is_expired)

    def _issue(
        self,
        file_name: str,
        common_name: str,
        usage: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName,
        *,
        is_expired: bool,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(
            _common_name(common_name), self._name, key.public_key(), self._key.public_key(), is_expired=is_expired
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(is_authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(names, critical=False)
        pair = KeyPair(self._folder / f"{file_name}.pem", self._folder / f"{file_name}.key")
        pair.certificate.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        pair.key.chmod(0o600)
        return pair


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a broker with TLS and its clients need."""

    ca: Path
    server: KeyPair
    client: KeyPair
    authority: Authority

    @classmethod
    def create(cls, folder: Path, *, is_server_expired: bool = False) -> Self:
        """Makes an authority in `folder`, with a server's and a client's certificate."""
        authority = Authority(folder)
        return cls(
            ca=authority.certificate,
            server=authority.issue_server(is_expired=is_server_expired),
            client=authority.issue_client(),
            authority=authority,
        )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    *,
    is_expired: bool,
) -> x509.CertificateBuilder:
    """What all certificates share. The key identifiers are what OpenSSL's strict checking (Python 3.13) asks for."""
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    start, end = (now - 30 * day, now - day) if is_expired else (now - day, now + 30 * day)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
