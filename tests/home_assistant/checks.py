"""What Home Assistant makes of a daemon's messages; run by `python -m tests.home_assistant`, in its own environment."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from homeassistant.components import mqtt
from homeassistant.components.image import DATA_COMPONENT
from homeassistant.core import Event, HomeAssistant
from homeassistant.helpers import device_registry, entity_registry
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_mock_service

from tests.support.broker import MosquittoBroker
from tests.support.process import ManagedProcess

README = Path(__file__).parents[2] / "README.md"
CLIP = Path(__file__).parents[2] / "daemon" / "demo" / "demo.mp4"
PATIENCE_S = 90.0
JPEG = b"\xff\xd8\xff\xe0 as visaged sends it \xff\xd9"


class Daemon:
    """`visaged run` with two cameras: the bundled clip, again and again, and one that nobody answers for."""

    def __init__(self, folder: Path, port: int, **home_assistant: Any) -> None:
        self.config = folder / "visaged.yaml"
        self._base = {
            "node": "shop",
            "http": {"port": 0},
            "state_dir": str(folder / "state"),
            "cameras": [
                {"name": "entrance", "url": str(CLIP), "loop": True, "fps": 5},
                {"name": "back.yard-1", "url": f"rtsp://127.0.0.1:{closed_port()}/live", "open_timeout_s": 2},
            ],
        }
        self._mqtt = {"port": port, "snapshots": True}
        self.configure(enabled=True)

    def configure(self, **home_assistant: Any) -> None:
        # JSON is YAML.
        document = self._base | {"mqtt": self._mqtt | {"home_assistant": home_assistant}}
        self.config.write_text(json.dumps(document))

    def start(self) -> None:
        command = [os.environ["VISAGED_PYTHON"], "-m", "visaged.daemon", "run", "--config", str(self.config)]
        self.process = ManagedProcess(command, env=os.environ | {"PYTHONPATH": os.environ["VISAGED_PATH"]})
        found = re.search(r"http://\S+(?=/docs)", self.process.wait_for_line("/docs", PATIENCE_S))
        assert found is not None
        self.url = found[0]

    def end(self) -> None:
        self.process.send(signal.SIGTERM)
        assert self.process.wait(30.0) == 0

    def remove(self, camera: str) -> None:
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/v1/cameras/{camera}", method="DELETE"), timeout=30
        ):
            pass


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def expected_lingering_timers() -> bool:
    """Timers of the MQTT integration outlive a test."""
    return True


@pytest.fixture
def expected_lingering_tasks() -> bool:
    """And so may tasks."""
    return True


@pytest.fixture
def broker(tmp_path: Path, socket_enabled: None) -> Iterator[MosquittoBroker]:
    with MosquittoBroker(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def daemon(tmp_path: Path, broker: MosquittoBroker) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, broker.port)
    daemon.start()
    yield daemon
    if daemon.process.is_running:
        daemon.process.kill()


class Home:
    """Home Assistant, with its MQTT integration."""

    def __init__(self, hass: HomeAssistant, folder: Path, broker: MosquittoBroker) -> None:
        folder.mkdir()
        (folder / "configuration.yaml").touch()
        hass.config.config_dir = str(folder)
        self.hass = hass
        self.entry = MockConfigEntry(domain="mqtt", data={"broker": broker.host, "port": broker.port})
        self.entry.add_to_hass(hass)
        # Every state of every entity, in order.
        self.states: list[tuple[str, str | None]] = []
        hass.bus.async_listen("state_changed", self._note)

    def _note(self, event: Event) -> None:
        state = event.data["new_state"]
        self.states.append((event.data["entity_id"], None if state is None else state.state))

    async def start(self) -> None:
        assert await self.hass.config_entries.async_setup(self.entry.entry_id)

    async def stop(self) -> None:
        assert await self.hass.config_entries.async_unload(self.entry.entry_id)

    def value(self, entity: str) -> str | None:
        state = self.hass.states.get(entity)
        return None if state is None else state.state

    def attributes(self, entity: str) -> dict[str, Any]:
        state = self.hass.states.get(entity)
        assert state is not None
        return dict(state.attributes)

    async def wait(self, what: Callable[[], Any]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not what():
            all_states = {state.entity_id: state.state for state in self.hass.states.async_all()}
            assert time.monotonic() < deadline_s, all_states
            await asyncio.sleep(0.05)

    async def wait_for(self, entity: str, *values: str | None) -> None:
        await self.wait(lambda: self.value(entity) in values)

    def device(self, name: str) -> Any:
        devices = device_registry.async_get(self.hass).devices.values()
        return next((device for device in devices if device.name == name), None)


@pytest.fixture
async def home(hass: HomeAssistant, tmp_path: Path, broker: MosquittoBroker) -> Any:
    home = Home(hass, tmp_path / "home", broker)
    yield home
    if home.entry.state.value == "loaded":
        await home.stop()


async def test_devices_entities_and_their_states(home: Home, daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    await home.start()
    await home.wait_for("binary_sensor.entrance_face", "on")
    await home.wait(lambda: home.value("sensor.entrance_faces") not in (None, "unknown", "0"))
    await home.wait_for("binary_sensor.entrance_face", "off")  # between two rounds of the clip
    await home.wait_for("sensor.entrance_faces", "0")
    await home.wait(lambda: home.attributes("event.entrance_last_event").get("event_type") == "end")
    told = home.attributes("event.entrance_last_event")
    assert told["event_types"] == ["begin", "update", "end"]
    assert told["reason"] in ("lost", "stream_ended")
    assert {"age", "gender", "head_pose", "track_id", "duration_s", "captured_at", "confidence"} <= told.keys()
    assert isinstance(told["age"], float)
    assert told["head_pose"].keys() == {"yaw", "pitch", "roll"}
    assert home.value("binary_sensor.entrance_connectivity") == "on"
    assert home.attributes("binary_sensor.entrance_connectivity")["codec"] == "h264"
    assert home.value("binary_sensor.entrance_problem") == "off"
    assert home.attributes("binary_sensor.entrance_problem")["error"] is None

    await home.wait_for("binary_sensor.back_yard_1_problem", "on")
    assert home.attributes("binary_sensor.back_yard_1_problem")["cause"] == "refused"
    assert "refused" in home.attributes("binary_sensor.back_yard_1_problem")["error"]
    assert home.value("binary_sensor.back_yard_1_connectivity") == "off"
    assert home.value("binary_sensor.back_yard_1_face") == "off"
    assert home.value("event.back_yard_1_last_event") == "unknown"

    assert home.value("binary_sensor.visaged_shop_connectivity") == "on"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", home.value("sensor.visaged_shop_version") or "")
    assert (home.value("sensor.visaged_shop_started") or "").startswith("20")

    node, entrance = home.device("visaged shop"), home.device("entrance")
    assert (node.manufacturer, node.model) == ("visaged", "Node")
    assert (entrance.manufacturer, entrance.model, entrance.via_device_id) == ("visaged", "Camera", node.id)
    assert home.device("back.yard-1").via_device_id == node.id
    entities = entity_registry.async_entries_for_device(entity_registry.async_get(home.hass), entrance.id)
    assert {(e.entity_id, e.entity_category, e.original_device_class) for e in entities} == {
        ("binary_sensor.entrance_face", None, "occupancy"),
        ("sensor.entrance_faces", None, None),
        ("event.entrance_last_event", None, None),
        ("image.entrance_snapshot", None, None),
        ("binary_sensor.entrance_connectivity", "diagnostic", "connectivity"),
        ("binary_sensor.entrance_problem", "diagnostic", "problem"),
    }
    assert len({e.unique_id for e in entities}) == len(entities)

    await mqtt.async_publish(home.hass, "visaged/back.yard-1/snapshot", JPEG)
    await home.wait(lambda: home.value("image.back_yard_1_snapshot") not in (None, "unknown"))
    image = home.hass.data[DATA_COMPONENT].get_entity("image.back_yard_1_snapshot")
    assert image is not None
    assert await image.async_image() == JPEG
    assert image.content_type == "image/jpeg"
    complaints = [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")]
    assert [text for text in complaints if "visaged" in text or "Template" in text] == []


async def test_a_killed_daemon_and_its_next_run(home: Home, daemon: Daemon) -> None:
    await home.start()
    await home.wait_for("binary_sensor.entrance_face", "on")
    ids = {e.unique_id for e in entity_registry.async_get(home.hass).entities.values()}
    daemon.process.kill()
    await home.wait_for("binary_sensor.entrance_face", "unavailable")
    await home.wait_for("sensor.entrance_faces", "unavailable")
    await home.wait_for("binary_sensor.visaged_shop_connectivity", "off")
    home.states.clear()
    daemon.start()
    await home.wait_for("binary_sensor.entrance_face", "on")
    faces = [state for entity, state in home.states if entity == "binary_sensor.entrance_face"]
    assert faces[0] == "off", "what the killed run had retained is not taken for a new face"
    assert {e.unique_id for e in entity_registry.async_get(home.hass).entities.values()} == ids


async def test_cameras_that_are_removed_disappear(home: Home, daemon: Daemon) -> None:
    await home.start()
    await home.wait_for("binary_sensor.back_yard_1_face", "off")
    await asyncio.to_thread(daemon.remove, "back.yard-1")
    await home.wait_for("binary_sensor.back_yard_1_face", None)
    await home.wait(lambda: home.device("back.yard-1") is None)
    assert home.device("entrance") is not None
    await asyncio.to_thread(daemon.end)
    daemon.configure(enabled=False)
    await asyncio.to_thread(daemon.start)
    await home.wait(lambda: home.device("entrance") is None and home.device("visaged shop") is None)
    entities = entity_registry.async_get(home.hass).entities.values()
    assert [e.entity_id for e in entities] == []


async def test_devices_are_told_again_when_home_assistant_starts(home: Home, daemon: Daemon) -> None:
    heard: list[mqtt.ReceiveMessage] = []
    await home.start()
    await mqtt.async_subscribe(home.hass, "homeassistant/#", heard.append, 1)
    await home.wait(lambda: any(m.topic == "homeassistant/status" and m.payload == "online" for m in heard))
    await home.wait(lambda: sum(m.topic.endswith("/config") and not m.retain for m in heard) >= 3)
    assert home.value("binary_sensor.visaged_shop_connectivity") == "on"


async def test_the_automations_of_the_readme(home: Home, daemon: Daemon) -> None:
    (text,) = re.findall(r"```yaml\n(automation:.*?)```", README.read_text(), re.DOTALL)
    lights = async_mock_service(home.hass, "light", "turn_on")
    messages = async_mock_service(home.hass, "notify", "notify")
    assert await async_setup_component(home.hass, "automation", yaml.safe_load(text))
    await home.start()
    await home.wait(lambda: lights and messages)
    assert lights[0].data == {"entity_id": ["light.entrance"]}
    assert re.fullmatch(r"Somebody of about [0-9.]+ was there for [0-9]+ s\.", messages[0].data["message"])
    begun = sum(state == "on" for entity, state in home.states if entity == "binary_sensor.entrance_face")
    assert len(lights) <= begun
