"""The AsyncAPI 3 document of everything that is published over MQTT, and of what is listened to.

It is made of the messages' JSON Schemas and the topics that the MQTT output uses. AsyncAPI's own dialect of JSON Schema
is older than that of the schemas, so it may pass what they do not; `visaged schema NAME` has the strict ones.
"""

from __future__ import annotations

from typing import Any

from visaged.pipelines.outputs.home_assistant.devices import ID_START
from visaged.pipelines.outputs.home_assistant.discovery import BIRTH
from visaged.pipelines.outputs.messages import Kind
from visaged.pipelines.outputs.mqtt.config import PublisherConfig
from visaged.pipelines.outputs.topics import SENDINGS, Sending, topic
from visaged.pipelines.schemas import schema

_BINDING = "0.2.0"
_SHARED = "face"
_MESSAGES = ("faces", "events", "camera-status", "node-status", "presence", "discovery")

_PARAMETERS = {
    "camera": {"description": "Name of a camera: letters, digits, `_`, `.` and `-`."},
    "node": {"description": "Name of the machine, as configured; no camera has the same."},
    "device": {
        "description": "Id of the device, the same in every run: of names, without other characters, and a hash."
    },
}


def document(config: PublisherConfig, version: str) -> dict[str, Any]:
    """Return the document.

    Args:
        config: The broker and the prefixes.
        version: Version of the program.
    """
    home = config.home_assistant.prefix
    camera, node = "{camera}", "{node}"
    node_status = topic(config.prefix, node, "status")
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}

    def send(name: str, address: str, sending: Sending, message: str, what: str, *, receives: bool = False) -> None:
        parameters = {key: {"$ref": f"#/components/parameters/{key}"} for key in _PARAMETERS if f"{{{key}}}" in address}
        channels[name] = {
            "address": address,
            "description": what,
            "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        } | ({"parameters": parameters} if parameters else {})
        operations[f"{'receive' if receives else 'send'}-{name}"] = {
            "action": "receive" if receives else "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": what,
            "messages": [{"$ref": f"#/channels/{name}/messages/{message}"}],
            "bindings": {"mqtt": {"qos": sending.qos, "retain": sending.retained, "bindingVersion": _BINDING}},
        }

    def of_camera(name: str, kind: Kind, message: str, what: str) -> None:
        send(name, topic(config.prefix, camera, kind), SENDINGS[kind], message, what)

    of_camera("faces", "faces", "faces", "Every analysed frame. QoS 1 with `mqtt.faces_qos: 1`.")
    of_camera("events", "events", "events", "A face appears, is better known, or is gone. At least once, and in order.")
    of_camera("camera-status", "status", "camera-status", "The state of a camera changes; cleared when it is removed.")
    of_camera("presence", "presence", "presence", "The number of faces changes; cleared when the camera is removed.")
    snapshots = Sending(0, False)
    what = "The best look at a face, with each of its events, where `mqtt.snapshots` is on."
    send("snapshot", f"{config.prefix}/{camera}/snapshot", snapshots, "snapshot", what)
    what = "The daemon comes or goes. `offline` is its last will too."
    send("node-status", node_status, SENDINGS["status"], "node-status", what)
    what = "A device for Home Assistant, of the node and of each camera, where `mqtt.home_assistant` is enabled."
    send("discovery", f"{home}/device/{{device}}/config", SENDINGS["discovery"], "discovery", what)
    what = "Home Assistant has started: its devices are told again, at most every ten seconds."
    send("birth", f"{home}/status", snapshots, "birth", what, receives=True)
    channels["discovery"]["description"] += f" Ids begin with `{ID_START}`. An empty message removes the device."
    return {
        "asyncapi": "3.0.0",
        "id": "urn:visaged",
        "info": {
            "title": "visaged",
            "version": version,
            "description": "Faces of cameras over MQTT, as published with the defaults of the configuration.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": _server(config, node_status)},
        "channels": channels,
        "operations": operations,
        "components": {"schemas": _schemas(), "messages": _messages(), "parameters": _PARAMETERS},
    }


def _server(config: PublisherConfig, will_topic: str) -> dict[str, Any]:
    sending = SENDINGS["status"]
    will = {
        "topic": will_topic,
        "qos": sending.qos,
        "retain": sending.retained,
        "message": "A node-status with the state offline and the reason connection lost",
    }
    binding = {
        "clientId": config.client_id or "visaged-{node}",
        "cleanSession": True,
        "keepAlive": config.keepalive_s,
        "lastWill": will,
        "bindingVersion": _BINDING,
    }
    return {
        "host": f"[{config.host}]:{config.port}" if ":" in config.host else f"{config.host}:{config.port}",
        "protocol": "mqtt" if config.tls is None else "mqtts",
        "protocolVersion": config.protocol,
        "description": "The broker: of your own, or the embedded one (`mqtt.embedded`).",
        "bindings": {"mqtt": binding},
    }


def _messages() -> dict[str, Any]:
    messages: dict[str, Any] = {
        name: {
            "name": name,
            "title": schema(name)["title"].removeprefix("visaged: "),
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{name}"},
        }
        for name in _MESSAGES
    }
    messages["snapshot"] = {
        "name": "snapshot",
        "title": "a picture of a face",
        "contentType": "image/jpeg",
        "payload": {"description": "A JPEG file as it is.", "type": "string", "format": "binary"},
    }
    messages["birth"] = {
        "name": "birth",
        "title": "Home Assistant has started",
        "contentType": "text/plain",
        "payload": {"type": "string", "const": BIRTH.decode()},
    }
    return messages


def _schemas() -> dict[str, Any]:
    """Return the schemas of messages and the definitions that they share, all side by side."""
    found = dict(schema(_SHARED)["$defs"])
    for name in _MESSAGES:
        document = schema(name)
        found |= document.pop("$defs", {})
        found[name] = {key: value for key, value in document.items() if key not in ("$schema", "$id")}
    side_by_side: dict[str, Any] = _moved(found)
    return side_by_side


def _moved(part: Any) -> Any:
    """Return a part of a schema whose references lead to the document's components."""
    if isinstance(part, list):
        return [_moved(one) for one in part]
    if not isinstance(part, dict):
        return part
    target = part.get("$ref")
    if isinstance(target, str):
        # What stands beside a reference is ignored in AsyncAPI's dialect, and so left out.
        return {"$ref": f"#/components/schemas/{target.rpartition('/')[2]}"}
    return {key: _moved(value) for key, value in part.items()}
