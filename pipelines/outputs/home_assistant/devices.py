"""The devices that Home Assistant makes of a node and its cameras, each with its entities.

A device is one JSON object, in the device-based form of MQTT discovery (Home Assistant 2024.11 and later). Entities
read the topics that are published anyway; their templates say how. An entity without a name gets that of its device
class, in the language of its user.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from visaged.pipelines.outputs.messages import Kind
from visaged.pipelines.outputs.topics import topic

ID_START = "visaged_"
"""Beginning of the id of every device."""

_LATE_MS = 60_000
"""Age in milliseconds beyond which an event that had to wait for the broker is none for Home Assistant: it would set
off what its user wants done when somebody comes."""

_STREAMS = "{{ 'ON' if value_json.state == 'streaming' else 'OFF' }}"
# `cause` is null where `error` only says what is waited for.
_FAILS = "{{ 'ON' if value_json.cause else 'OFF' }}"
_ONLINE = "{{ 'ON' if value_json.state == 'online' else 'OFF' }}"
_PRESENT = "{{ 'ON' if value_json.faces > 0 else 'OFF' }}"
_EVENT = (
    "{% if not value_json.replayed or value_json.age_ms < " + str(_LATE_MS) + " %}"
    "{% set known = namespace(values={}) %}"
    "{% for name, attribute in value_json.face.attributes.items() %}"
    "{% set known.values = dict(known.values, **{name: attribute.value}) %}"
    "{% endfor %}"
    "{{ dict(known.values, event_type=value_json.event, track_id=value_json.track_id, "
    "captured_at=value_json.captured_at, started_at=value_json.started_at, duration_s=value_json.duration_s, "
    "reason=value_json.reason, confidence=value_json.face.confidence) | tojson }}"
    "{% endif %}"
)


def _chosen(*names: str) -> str:
    """Return a template that makes an object of some fields of a message."""
    return "{{ dict(" + ", ".join(f"{name}=value_json.{name}" for name in names) + ") | tojson }}"


@dataclass(frozen=True, slots=True)
class Site:
    """What the devices of a node have in common.

    Attributes:
        prefix: First part of the topics of visaged.
        node: Name of the node.
        version: Version of the program.
        has_snapshots: Whether pictures of faces are published.
        fleet: Name of the fleet; empty on one machine. Cameras of a fleet keep their device on whatever node they are.
    """

    prefix: str
    node: str
    version: str
    has_snapshots: bool
    fleet: str = ""

    @property
    def node_id(self) -> str:
        """Id of the node's device."""
        return self._id(self.node, f"{self.prefix}/{self.node}")

    def camera_id(self, camera: str) -> str:
        """Return the id of a camera's device, the same in every run and another for every camera of every node."""
        owner = self.fleet or self.node
        return self._id(f"{owner}_{camera}", f"{self.prefix}/{owner}/{camera}")

    def node_device(self) -> dict[str, Any]:
        """Return the discovery document of the node."""
        status = self._topic(self.node, "status")
        diagnostic = {"entity_category": "diagnostic", "state_topic": status}
        components: dict[str, dict[str, Any]] = {
            "connectivity": diagnostic
            | {
                "platform": "binary_sensor",
                "device_class": "connectivity",
                "value_template": _ONLINE,
                "json_attributes_topic": status,
                "json_attributes_template": _chosen("since", "reason"),
            },
            "version": diagnostic
            | {
                "platform": "sensor",
                "name": "Version",
                "icon": "mdi:tag-outline",
                "value_template": "{{ value_json.version }}",
                "availability": self._availability(),
            },
            "started": diagnostic
            | {
                "platform": "sensor",
                "name": "Started",
                "device_class": "timestamp",
                "value_template": "{{ value_json.since }}",
                "availability": self._availability(),
            },
        }
        device = {"name": f"visaged {self.node}", "model": "Node"}
        return self._document(self.node_id, device, components)

    def camera_device(self, camera: str) -> dict[str, Any]:
        """Return the discovery document of a camera."""
        status, presence = self._topic(camera, "status"), self._topic(camera, "presence")
        components: dict[str, dict[str, Any]] = {
            "face": {
                "platform": "binary_sensor",
                "name": "Face",
                "device_class": "occupancy",
                "state_topic": presence,
                "value_template": _PRESENT,
            },
            "faces": {
                "platform": "sensor",
                "name": "Faces",
                "icon": "mdi:face-recognition",
                "state_class": "measurement",
                "unit_of_measurement": "faces",
                "state_topic": presence,
                "value_template": "{{ value_json.faces }}",
            },
            "event": {
                "platform": "event",
                "name": "Last event",
                "icon": "mdi:account-eye",
                "event_types": ["begin", "update", "end"],
                "state_topic": self._topic(camera, "events"),
                "value_template": _EVENT,
                "qos": 1,
            },
            # With its platform alone, Home Assistant removes what an earlier run had.
            "snapshot": {"platform": "image"},
            "connectivity": {
                "platform": "binary_sensor",
                "device_class": "connectivity",
                "entity_category": "diagnostic",
                "state_topic": status,
                "value_template": _STREAMS,
                "json_attributes_topic": status,
                "json_attributes_template": _chosen(
                    "state", "since", "source", "codec", "width", "height", "reconnects"
                ),
            },
            "problem": {
                "platform": "binary_sensor",
                "device_class": "problem",
                "entity_category": "diagnostic",
                "state_topic": status,
                "value_template": _FAILS,
                "json_attributes_topic": status,
                "json_attributes_template": _chosen("error", "cause"),
            },
        }
        if self.has_snapshots:
            components["snapshot"] |= {
                "name": "Snapshot",
                "image_topic": f"{self.prefix}/{camera}/snapshot",
                "content_type": "image/jpeg",
            }
        device = {"name": camera, "model": "Camera", "via_device": self.node_id}
        document = self._document(self.camera_id(camera), device, components)
        return document | {"availability": self._availability()}

    def _document(self, id: str, device: dict[str, Any], components: dict[str, dict[str, Any]]) -> dict[str, Any]:
        for name, component in components.items():
            if component.keys() != {"platform"}:
                component["unique_id"] = f"{id}_{name}"
        about = {"identifiers": [id], "manufacturer": "visaged", "sw_version": self.version}
        origin = {"name": "visaged", "sw_version": self.version}
        return {"device": about | device, "origin": origin, "components": components}

    def _availability(self) -> list[dict[str, str]]:
        """Return that entities are available while the node is online; its last will says when it is not."""
        return [{"topic": self._topic(self.node, "status"), "value_template": "{{ value_json.state }}"}]

    def _topic(self, name: str, kind: Kind) -> str:
        return topic(self.prefix, name, kind)

    @staticmethod
    def _id(name: str, whole: str) -> str:
        # Topics of discovery allow fewer characters than names of cameras; the hash tells apart what becomes the same.
        plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name)
        return f"{ID_START}{plain}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
