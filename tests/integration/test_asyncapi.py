"""The AsyncAPI document: to its official parser, and against what a real daemon publishes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support.broker import MosquittoBroker, free_port
from tests.support.program import RunningDaemon
from tests.support.requirements import MOSQUITTO, NPM, find_program, is_ci, needs
from tests.support.subscriber import Message, Subscriber
from visaged.pipelines.outputs import asyncapi
from visaged.pipelines.outputs.mqtt.config import PublisherConfig

PARSER = "@asyncapi/parser@~3.6"
SCRIPT = Path(__file__).parents[1] / "support" / "asyncapi.js"
DOCUMENT = asyncapi.document(PublisherConfig(), "1.2.3")
ERROR, WARNING = 0, 1
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node.js finds the parser."""
    folder = tmp_path_factory.mktemp("npm")
    npm = find_program("npm") or "npm"
    command = [
        npm,
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
        str(folder),
        PARSER,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0 and not is_ci():
        pytest.skip(f"needs npm and its registry: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder


def parsed(folder: Path, *documents: dict[str, Any]) -> Any:
    script = folder / SCRIPT.name
    script.write_text(SCRIPT.read_text())
    command, text = ["node", str(script)], json.dumps(documents)
    done = subprocess.run(command, input=text, cwd=folder, capture_output=True, text=True, timeout=240, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
@needs(NPM)
def test_the_official_parser_takes_it(parser: Path) -> None:
    broken = json.loads(json.dumps(DOCUMENT))
    broken["operations"]["send-faces"]["bindings"]["mqtt"]["qos"] = 7
    told, fault = parsed(parser, DOCUMENT, broken)
    assert [one for one in told["diagnostics"] if one["severity"] in (ERROR, WARNING)] == []
    assert told["channels"] == sorted(channel["address"] for channel in DOCUMENT["channels"].values())
    assert told["operations"] == sorted(DOCUMENT["operations"])
    assert ERROR in [one["severity"] for one in fault["diagnostics"]], "it would not notice a fault"


def test_every_part_is_referred_to_and_there() -> None:
    text = json.dumps(DOCUMENT)
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', text))
    for reference in references:
        part: Any = DOCUMENT
        for level in reference.split("/"):
            part = part[level]
    assert "urn:visaged:schema" not in text
    for kind in ("messages", "parameters", "schemas"):
        assert DOCUMENT["components"][kind].keys() == {r.split("/")[2] for r in references if f"components/{kind}" in r}


def test_it_has_the_prefixes_and_the_broker_of_a_configuration() -> None:
    config = PublisherConfig.model_validate(
        {"host": "::1", "prefix": "a/b", "tls": {}, "home_assistant": {"prefix": "ha"}, "client_id": "me"}
    )
    document = asyncapi.document(config, "1.2.3")
    server = document["servers"]["broker"]
    assert (server["host"], server["protocol"]) == ("[::1]:1883", "mqtts")
    assert server["bindings"]["mqtt"]["lastWill"]["topic"] == "a/b/{node}/status"
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert all(address.startswith(("a/b/{", "ha/")) for address in addresses)


class Channel:
    """A channel of the document, with the operation on it."""

    def __init__(self, name: str) -> None:
        channel = DOCUMENT["channels"][name]
        parts = re.split(r"\{\w+\}", channel["address"])
        self.name = name
        self.pattern = re.compile("[^/]+".join(map(re.escape, parts)))
        (operation,) = (o for o in DOCUMENT["operations"].values() if o["channel"]["$ref"].endswith(f"/{name}"))
        self.is_sent = operation["action"] == "send"
        self.binding = operation["bindings"]["mqtt"]
        (message,) = channel["messages"]
        self.message = DOCUMENT["components"]["messages"][message]
        self.validator = Draft202012Validator(self.message["payload"] | {"components": DOCUMENT["components"]})

    def has(self, message: Message) -> bool:
        """Whether a message is one of this channel."""
        if not self.pattern.fullmatch(message.topic):
            return False
        if self.message["contentType"] == "image/jpeg":
            return message.payload.startswith(b"\xff\xd8")
        return not message.payload or self.validator.is_valid(message.json())


@pytest.mark.timed
@needs(MOSQUITTO)
def test_a_daemon_publishes_what_the_document_says(broker: MosquittoBroker, demo_clip: Path, tmp_path: Path) -> None:
    channels = [Channel(name) for name in DOCUMENT["channels"]]
    sent = [channel for channel in channels if channel.is_sent]
    cameras = [
        {"name": "demo", "url": str(demo_clip), "loop": True, "fps": 5},
        {"name": "gone", "url": f"rtsp://127.0.0.1:{free_port()}/live", "open_timeout_s": 2},
    ]
    mqtt = {"port": broker.port, "snapshots": True, "home_assistant": {"enabled": True}}
    with Subscriber(broker) as heard:
        with RunningDaemon(tmp_path, {"cameras": cameras, "mqtt": mqtt}) as daemon:
            heard.wait_for(lambda m: m.topic == "visaged/demo/events" and m.json()["event"] == "begin", PATIENCE_S)
            heard.wait_for(lambda m: m.topic == "visaged/demo/snapshot", PATIENCE_S)
            heard.wait_for(lambda m: m.topic == "visaged/demo/presence" and m.json()["faces"] > 0, PATIENCE_S)
            heard.wait_for(lambda m: m.topic == "visaged/demo/faces" and m.json()["faces"] != [], PATIENCE_S)
            assert daemon.client.delete("/v1/cameras/gone").status_code == 204
            heard.wait_for(lambda m: m.topic == "visaged/gone/presence" and not m.payload, PATIENCE_S)
            daemon.end()
        heard.wait_for(lambda m: m.topic == "visaged/tester/status" and m.json()["state"] == "offline", PATIENCE_S)
        with Subscriber(broker) as late:
            late.publish("end", b"")
            late.wait_for(lambda m: m.topic == "end", PATIENCE_S)
            retained = [m for m in late.messages if m.topic != "end"]
        messages = [m for m in heard.messages if m.topic != "end"]
    seen: dict[str, set[int]] = {}
    for message in messages:
        fits = [channel for channel in sent if channel.has(message)]
        # An empty message fits the status of a camera and of a node.
        assert fits if not message.payload else len(fits) == 1, message
        for channel in fits:
            seen.setdefault(channel.name, set()).add(message.qos)
    assert seen == {channel.name: {channel.binding["qos"]} for channel in sent}
    for message in retained:
        assert [channel.binding["retain"] for channel in sent if channel.has(message)] == [True], message
    kept = {channel.name for channel in sent for message in retained if channel.has(message)}
    assert kept == {channel.name for channel in sent if channel.binding["retain"]}
    assert not {m.topic for m in retained if m.topic.startswith("visaged/gone/") or "_gone_" in m.topic}
