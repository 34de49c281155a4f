"""The keys of `fetch`: from where pictures may be fetched by URL, and within what bounds."""

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

Port = Annotated[int, NotBoolean, Field(ge=1, le=65535)]


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `allow` or `deny`, taken apart.

    Attributes:
        name: A host, or with `is_wildcard` the domain that its subdomains are meant of; None for addresses.
        is_wildcard: Whether `name` stands for its subdomains, at any depth, and not for itself.
        network: The addresses; None for a name.
        port: The one port; None for those of `ports`.
    """

    name: str | None
    is_wildcard: bool
    network: Network | None
    port: int | None

    def names(self, host: str | Address) -> bool:
        """Return whether this is an entry for a host's name."""
        if self.name is None or not isinstance(host, str):
            return False
        return host.endswith(f".{self.name}") if self.is_wildcard else host == self.name

    def holds(self, address: Address) -> bool:
        """Return whether this is an entry for an address."""
        return self.network is not None and address in self.network


def parse_rule(text: str) -> Rule:
    """Take apart `host`, `*.domain`, an address or a range such as `10.0.0.0/8`, each perhaps with `:port`.

    Raises:
        ValueError: It is none of them.
    """
    host, port = text, None
    found = re.fullmatch(r"(?P<host>\[.*\]|[^:\[\]]*):(?P<port>[0-9]{1,5})", text)
    if found is not None:
        host, port = found["host"], int(found["port"])
        if not 1 <= port <= 65535:
            raise ValueError(f"{text!r} has no port from 1 to 65535")
    try:
        return Rule(None, False, ipaddress.ip_network(host.removeprefix("[").removesuffix("]")), port)
    except ValueError as error:
        if re.search(r"[/:]", host) and "://" not in host:
            raise ValueError(f"{text!r} is no range of addresses ({error})") from None
    is_wildcard = host.startswith("*.")
    try:
        name = parse_host(host.removeprefix("*."))
    except FetchError:
        name = ""
    if not isinstance(name, str) or not name:
        raise ValueError(f"{text!r} is no host, *.domain, address or range, with or without a port; and no URL")
    return Rule(name, is_wildcard, None, port)


class S3Settings(StrictConfig):
    """Object storage that speaks S3. Nothing but this is looked at: no variables and no files of AWS's tools."""

    endpoint: HiddenText | None = None
    """`https://host:port` of MinIO, Ceph, ...; null for AWS in `region`. It may be on this network."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "us-east-1"
    """Region that requests are signed for."""
    access_key_id: Annotated[str, Field(min_length=1)]
    """Id of the access key. Give it to nothing but reading: whoever may send URLs can have every object that it can."""
    secret_access_key: SecretStr | None = None
    """Secret of the access key in plain text; the next two keep it out of this file."""
    secret_access_key_file: Path | None = None
    """File whose first line is the secret, without the line's ending and a byte order mark; spaces are kept."""
    secret_access_key_env: str | None = None
    """Environment variable whose value is the secret."""
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """path: `endpoint/bucket/key`; virtual: `bucket.endpoint/key`; auto: path with an endpoint, virtual with AWS."""
    buckets: list[str] | None = None
    """The buckets that may be read; null for all that the access key can."""
    ca_file: Path | None = None
    """Authorities that the endpoint's certificate may come from; null for the system's."""

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
            ValueError: The file or variable that should hold it does not; the text names it.
        """
        return Secret.required(self, "secret_access_key").read()


class FetchSettings(StrictConfig):
    """Fetching pictures by URL. Off: a daemon that fetches what strangers name can be made to ask its own network."""

    enabled: bool = False
    """Fetch at all."""
    public: bool = False
    """Fetch from every host on the public Internet. A name is refused if one of its addresses is not public."""
    allow: list[str] = Field([])
    """Hosts besides: `pictures.example.com`, `*.example.com` (subdomains of any depth), addresses and ranges such as
    `192.168.1.0/24`, each perhaps with `:port`, and then with that port alone. A host that is listed by its name may
    have public addresses and those listed here; one that is not, only those listed here."""
    deny: list[str] = Field([])
    """Hosts and ranges that are refused whatever else is said, with ports left out: public addresses of your own."""
    schemes: list[Literal["http", "https"]] = Field(["https", "http"], min_length=1)
    """Schemes of URLs that are fetched; `s3://` is switched on by the key `s3`."""
    ports: list[Port] = Field(sorted(DEFAULT_PORTS.values()))
    """Ports of URLs whose entry in `allow` has none."""
    max_mb: Annotated[float, Field(gt=0, le=100)] = 20
    """Largest file that is fetched, in megabytes."""
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """Longest time from the URL to the last byte, over looking the name up, connecting, redirects and all."""
    max_concurrent: Annotated[int, Field(ge=1, le=1000)] = 8
    """Files fetched at a time; one more is refused."""
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    """Redirects followed; every one is checked like the first URL."""
    allow_downgrade: bool = False
    """Follow redirects from https to http."""
    ca_file: Path | None = None
    """Authorities that certificates may come from; null for the system's."""
    s3: S3Settings | None = None
    """Where `s3://bucket/key` is fetched from; null for nowhere."""

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
                raise ValueError(f"{text!r} has a port, and what is denied is so at all ports; leave it out")
        return deny

    @model_validator(mode="after")
    def _fetches_from_somewhere(self) -> FetchSettings:
        if self.enabled and not self.public and not self.allow and self.s3 is None:
            raise ValueError("enabled, but from nowhere: list hosts in allow, set public to true, or describe s3")
        return self


def check(settings: FetchSettings) -> list[ConfigProblem]:
    """Return what is wrong with the world that settings name: files, secrets, packages."""
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
