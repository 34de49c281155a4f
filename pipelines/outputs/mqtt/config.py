"""The configuration of the MQTT output: the broker, and what is published to it."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from visaged.pipelines.outputs.home_assistant.devices import ID_START
from visaged.pipelines.runtime.config import HiddenText, StrictConfig
from visaged.pipelines.runtime.credentials import file_of


def _is_a_prefix(text: str) -> str:
    if not re.fullmatch(r"[^#+/\s]([^#+\s]*[^#+/\s])?", text):
        raise ValueError("is not the first part of topics: it has no #, + or space, and no / at its beginning or end")
    return text


Prefix = Annotated[str, AfterValidator(_is_a_prefix)]
"""First part of topics; it may have levels."""


class TlsConfig(StrictConfig):
    """TLS to the broker."""

    ca_file: Path | None = None
    """PEM file of the authorities that the broker's certificate may come from; null for the system's."""
    cert_file: Path | None = None
    """PEM file of this client's certificate, if the broker asks for one."""
    key_file: Path | None = None
    """PEM file of the private key for `cert_file`, without a password. Like the other two it may be a credential of
    systemd, `credential:NAME`."""

    @model_validator(mode="after")
    def _complete(self) -> TlsConfig:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: give both or none")
        return self

    def context(self) -> ssl.SSLContext:
        """Return the TLS settings; raises `OSError` or `ssl.SSLError` if a file cannot be used."""
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(file_of(self.ca_file)))
        context.sslsocket_class = _ClosingSocket
        if self.cert_file is not None and self.key_file is not None:
            # A key with a password is refused; OpenSSL would ask the terminal for it and wait.
            context.load_cert_chain(file_of(self.cert_file), file_of(self.key_file), password="")
        return context


class _ClosingSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, because paho does not."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class LinkConfig(StrictConfig):
    """A broker and how to reach it."""

    host: Annotated[HiddenText, Field(min_length=1)] = "127.0.0.1"
    """The broker's name or address, without a port."""
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    """The broker's port; 8883 is usual with TLS."""
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    """MQTT version."""
    client_id: str | None = None
    """MQTT client id; null for `visaged-` and the node's name."""
    tls: TlsConfig | None = None
    """TLS settings; null for no TLS."""
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    """MQTT keep-alive in seconds; the connection counts as lost if the broker is silent for 1.5 times this."""
    reconnect_most_s: Annotated[int, Field(ge=1, le=3600)] = 30
    """Longest wait between two tries to connect, in seconds; waits start at 1 s and double."""


class HomeAssistantConfig(StrictConfig):
    """Discovery by Home Assistant's MQTT integration."""

    enabled: bool = False
    """Publish what Home Assistant needs to make a device of every camera by itself."""
    prefix: Prefix = "homeassistant"
    """First part of the topics on which Home Assistant looks for devices (its `discovery_prefix`)."""

    @property
    def devices_start(self) -> str | None:
        """Beginning of the topics of all devices of visaged; None if nothing is published."""
        return f"{self.prefix}/device/{ID_START}" if self.enabled else None


class PublisherConfig(LinkConfig):
    """The broker, and what is published to it."""

    prefix: Prefix = "visaged"
    """First part of all topics; may have levels (`site/visaged`)."""
    faces_qos: Literal[0, 1] = 0
    """MQTT quality of service of the per-frame `faces` messages, 0 or 1; events always have 1."""
    snapshots: bool = False
    """Publish the picture of a face's best look with each of its events, as a JPEG on `<prefix>/<camera>/snapshot`;
    never retained. These are pictures of people's faces."""
    home_assistant: HomeAssistantConfig = HomeAssistantConfig()
    """Discovery by Home Assistant."""
    max_waiting_events: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Most events that wait in memory for the broker (about 2 kB each), without a state folder or while its disk takes
    none; the oldest are dropped first, and counted."""
    max_waiting_mb: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Most megabytes of events that wait in memory for the broker; the oldest are dropped first, and counted."""

    @model_validator(mode="after")
    def _home_assistant_is_beside(self) -> PublisherConfig:
        found, own = self.home_assistant.prefix, self.prefix
        if self.home_assistant.enabled and f"{found}/".startswith(f"{own}/"):
            raise ValueError(
                f"home_assistant.prefix ({found}) is prefix ({own}) or below it, where only visaged publishes; set it "
                "to Home Assistant's discovery_prefix, which is homeassistant unless changed there, or change prefix"
            )
        return self

    @property
    def memory(self) -> tuple[int, int]:
        """Most events, and most bytes of them, that wait in memory."""
        return self.max_waiting_events, self.max_waiting_mb * 1_000_000
