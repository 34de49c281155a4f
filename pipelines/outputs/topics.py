"""Which topics there are, and how their messages are sent."""

from __future__ import annotations

from dataclasses import dataclass

from visaged.pipelines.outputs.messages import Kind


@dataclass(frozen=True, slots=True)
class Sending:
    """How the messages of a kind are sent over MQTT.

    Attributes:
        qos: Quality of service.
        retained: Whether the broker keeps the newest one for those who subscribe later.
    """

    qos: int
    retained: bool


SENDINGS: dict[Kind, Sending] = {
    "faces": Sending(0, False),  # unless mqtt.faces_qos says otherwise
    "events": Sending(1, False),
    "status": Sending(1, True),
    "presence": Sending(1, True),
    "discovery": Sending(1, True),
}

RETAINED: tuple[Kind, ...] = ("status", "presence")
"""Kinds of a camera's messages that are retained, and cleared when the camera is removed."""


def topic(prefix: str, name: str, kind: Kind) -> str:
    """Return the topic of a kind of message of a camera; or of a node, which has a `status` alone."""
    return f"{prefix}/{name}/{kind}"
