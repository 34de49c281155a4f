"""The keys of `fetch`: the hosts that pictures may be fetched from by URL, and the limits."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from visaged.daemon.config.document import ConfigProblem
from visaged.daemon.config.secrets import Secret
from visaged.daemon.fetch.addresses import Address, Network, never
from visaged.daemon.fetch.errors import FetchError
from visaged.daemon.fetch.urls import DEFAULT_PORTS, parse, parse_host
from visaged.pipelines.runtime.config import HiddenText, NotBoolean, StrictConfig

S3_MISSING = "needs a package that is not installed: pip install 'visaged[s3]'"

_PLAIN = re.compile(r"[\w.*-]{1,255}(?:/[\w.-]{0,64})?(?::[0-9]{1,6})?|[0-9A-Fa-f.:/\[\]]{1,64}")
"""What an entry of `allow` or `deny` may look like; anything else may hold a login."""

Port = Annotated[int, Field(ge=1, le=65535), NotBoolean]


@dataclass(frozen=True, slots=True)
class Rule:
    """One parsed entry of `allow` or `deny`.

    Attributes:
        name: Name of a host or, with `is_wildcard`, of a domain; None for addresses.
        is_wildcard: Whether the entry matches the subdomains of `name` at any depth, and not `name` itself.
        network: Range of addresses; None for a name.
        port: The only port that the entry matches; None for those of the key `ports`.
    """

    name: str | None
    is_wildcard: bool
    network: Network | None
    port: int | None

    def names(self, host: str | Address) -> bool:
        """Return whether the entry matches the name of a host; the port is not compared."""
        if self.name is None or not isinstance(host, str):
            return False
        return host.endswith(f".{self.name}") if self.is_wildcard else host == self.name

    def holds(self, address: Address) -> bool:
        """Return whether the entry matches an address; the port is not compared."""
        return self.network is not None and address in self.network


def _quoted(text: str) -> str:
    """Return an entry as errors may repeat it."""
    return repr(text) if _PLAIN.fullmatch(text) else "an entry with more than a host"


def parse_rule(text: str) -> Rule:
    """Parse `host`, `*.domain`, an address or a range such as `10.0.0.0/8`, each optionally with `:port`.

    Raises:
        ValueError: The text has none of these forms.
    """
    host, port = text, None
    found = re.fullmatch(r"(?P<host>\[.*\]|[^:\[\]]*):(?P<port>[0-9]{1,5})", text)
    if found is not None:
        host, port = found["host"], int(found["port"])
        if not 1 <= port <= 65535:
            raise ValueError(f"{_quoted(text)} has no port from 1 to 65535")
    try:
        return Rule(None, False, ipaddress.ip_network(host.removeprefix("[").removesuffix("]")), port)
    except ValueError as error:
        if _PLAIN.fullmatch(text) and re.search(r"[/:]", host):
            raise ValueError(f"{text!r} is no range of addresses ({error})") from None
    is_wildcard = host.startswith("*.")
    try:
        name = parse_host(host.removeprefix("*."))
    except FetchError:
        name = ""
    if not isinstance(name, str) or not name:
        raise ValueError(f"{_quoted(text)} is no host, *.domain, address or range, with or without a port; and no URL")
    return Rule(name, is_wildcard, None, port)


class S3Settings(StrictConfig):
    """Object storage with the S3 protocol. Variables and files of AWS's tools are not read."""

    endpoint: HiddenText | None = None
    """`https://host:port` of MinIO, Ceph, ...; null for AWS in `region`. The host may be on this network."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "us-east-1"
    """Region that requests are signed for."""
    access_key_id: Annotated[str, Field(min_length=1)]
    """Id of the access key. Let it only read: clients that may send URLs can have every object that it can read."""
    secret_access_key: SecretStr | None = None
    """Secret of the access key in plain text; `secret_access_key_file` and `secret_access_key_env` keep it out of this
    file."""
    secret_access_key_file: Path | None = None
    """File whose first line is the secret; its line ending and a byte order mark are left out, spaces are kept."""
    secret_access_key_env: str | None = None
    """Environment variable whose value is the secret."""
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """path: `endpoint/bucket/key`; virtual: `bucket.endpoint/key`; auto: path with an endpoint, virtual with AWS."""
    buckets: list[str] | None = None
    """Buckets that may be read; null for all that the access key can read."""
    ca_file: Path | None = None
    """PEM file of the authorities that the endpoint's certificate may come from; null for the system's."""

    @field_validator("endpoint")
    @classmethod
    def _is_a_site(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        try:
            target = parse(endpoint)
        except FetchError as error:
            raise ValueError(f"cannot be used: {str(error).partition(': ')[2]}") from None
        if target.path != "/":
            raise ValueError("has a path or query; give scheme, host and port alone")
        return target.site

    @model_validator(mode="after")
    def _one_secret(self) -> S3Settings:
        Secret.required(self, "secret_access_key")
        return self

    def secret(self) -> str:
        """Return the secret of the access key.

        Raises:
            ValueError: The file or variable that should hold the secret does not; the text names it.
        """
        return Secret.required(self, "secret_access_key").read()


class FetchSettings(StrictConfig):
    """Fetching pictures by URL. Off unless enabled: clients could make the daemon send requests to its own network."""

    enabled: bool = False
    """Whether pictures are fetched by URL."""
    public: bool = False
    """Fetch from every host on the public Internet. A name is refused if one of its addresses is not public."""
    allow: list[str] = Field([])
    """Further hosts: `pictures.example.com`, `*.example.com` (subdomains of any depth), addresses and ranges such as
    `192.168.1.0/24`, each optionally with `:port`, which then is the only port. A host that is listed by its name may
    have public addresses and those listed here; a host that is not, only those listed here."""
    deny: list[str] = Field([])
    """Hosts and ranges, without ports, that are refused even if `allow` or `public` allow them, such as public
    addresses of your own."""
    schemes: list[Literal["http", "https"]] = Field(["https", "http"], min_length=1)
    """Schemes of URLs that are fetched; `s3://` is switched on by the key `s3`."""
    ports: list[Port] = Field(sorted(DEFAULT_PORTS.values()))
    """Ports that are allowed with `public`, and for entries of `allow` without a port."""
    max_mb: Annotated[float, Field(ge=0.001, le=100)] = 20
    """Largest file that is fetched, in megabytes."""
    timeout_s: Annotated[float, Field(ge=0.001, le=300)] = 10.0
    """Longest time in seconds for a whole fetch, with name look-up, connecting and redirects."""
    max_concurrent: Annotated[int, Field(ge=1, le=1000)] = 8
    """Most files that are fetched at a time; further ones are refused."""
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    """Most redirects that are followed; each is checked like the first URL."""
    allow_downgrade: bool = False
    """Follow redirects from https to http."""
    ca_file: Path | None = None
    """PEM file of the authorities that certificates may come from; null for the system's."""
    s3: S3Settings | None = None
    """Storage that `s3://bucket/key` is fetched from; null to refuse such URLs."""

    @field_validator("allow")
    @classmethod
    def _can_be_fetched_from(cls, allow: list[str]) -> list[str]:
        for text in allow:
            network = parse_rule(text).network
            reason = None if network is None else never(network)
            if reason is not None:
                raise ValueError(f"{text!r} is never fetched from: it is {reason}")
        return allow

    @field_validator("deny")
    @classmethod
    def _has_no_ports(cls, deny: list[str]) -> list[str]:
        for text in deny:
            if parse_rule(text).port is not None:
                raise ValueError(f"{_quoted(text)} has a port, and what is denied is so at all ports; leave it out")
        return deny

    @model_validator(mode="after")
    def _fetches_from_somewhere(self) -> FetchSettings:
        if self.enabled and not self.public and not self.allow and self.s3 is None:
            raise ValueError("enabled, but from nowhere: list hosts in allow, set public to true, or describe s3")
        return self


def check(settings: FetchSettings) -> list[ConfigProblem]:
    """Return what is wrong with what the settings refer to: files, secrets, packages."""
    problems = []
    s3 = settings.s3
    files = [("fetch.ca_file", settings.ca_file)] + ([("fetch.s3.ca_file", s3.ca_file)] if s3 is not None else [])
    for path, file in files:
        try:
            if file is not None:
                ssl.create_default_context(cafile=file)
        except OSError as error:  # ssl.SSLError is one
            problems.append(ConfigProblem(path, f"cannot be used ({file}): {error.strerror or error}"))
    if s3 is not None:
        try:
            s3.secret()
        except ValueError as error:
            problems.append(ConfigProblem("fetch.s3", str(error)))
        if importlib.util.find_spec("botocore") is None:
            problems.append(ConfigProblem("fetch.s3", S3_MISSING))
    return problems
