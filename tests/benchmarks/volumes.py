"""What a camera gives the broker and Prometheus to do: messages and bytes by topic, series and bytes of `/metrics`.

Runs the daemon with some cameras that play the demo clip, which has a face nearly all the time, for a minute, and then
with one more camera to tell what a camera adds to `/metrics`. Needs mosquitto. From the figures it works out what a
fleet of 10,000 cameras on 500 machines asks; there, on average a tenth of the cameras see a face.
"""

from __future__ import annotations

import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

import yaml

from tests.benchmarks.clip import ROOT
from tests.support.broker import MosquittoBroker, free_port
from tests.support.process import ManagedProcess
from tests.support.subscriber import Subscriber

CAMERAS, FPS = 2, 5
SECONDS = 60.0
FLEET_CAMERAS, FLEET_NODES, WITH_FACES = 10_000, 500, 0.1
SCRAPE_S = 15


def main() -> None:
    """Measure and print."""
    volumes, few = _measured(CAMERAS, SECONDS)
    _, more = _measured(CAMERAS + 1, 10.0)
    print(f"{CAMERAS} cameras at {FPS} analysed fps with a face, {SECONDS:.0f} s: of each camera")
    rates = {}
    for topic, sizes in sorted(volumes.items()):
        rates[topic] = (len(sizes) / CAMERAS / SECONDS, sum(sizes) / len(sizes))
        print(f"  {topic:10} {rates[topic][0]:6.2f} messages a second of {rates[topic][1]:6.0f} bytes")
    series, size = more[0] - few[0], more[1] - few[1]
    own, own_size = few[0] - CAMERAS * series, few[1] - CAMERAS * size
    print(f"/metrics: {series} series and {size} bytes of a camera, {own} and {own_size} of a daemon")

    each, events = FLEET_CAMERAS * WITH_FACES, rates["events"]
    # A message of a picture without a face is as small as the smallest.
    size = WITH_FACES * rates["faces"][1] + (1 - WITH_FACES) * min(volumes["faces"])
    samples = FLEET_CAMERAS * series + FLEET_NODES * own
    print(f"{FLEET_CAMERAS} cameras on {FLEET_NODES} nodes, {WITH_FACES:.0%} of them with a face:")
    print(f"  events     {each * events[0]:.0f} messages a second, {each * events[0] * events[1] / 1e6:.1f} MB/s")
    print(f"  faces      {FLEET_CAMERAS * FPS} messages a second, {FLEET_CAMERAS * FPS * size / 1e6:.0f} MB/s")
    print(f"  Prometheus {samples / 1e6:.2f} million series, {samples / SCRAPE_S:.0f} samples a second")


def _measured(cameras: int, seconds: float) -> tuple[dict[str, list[int]], tuple[int, int]]:
    """Return the sizes of messages by topic, and the series and bytes of `/metrics`."""
    with tempfile.TemporaryDirectory() as folder:
        broker = MosquittoBroker(Path(folder) / "broker")
        broker.start()
        try:
            port = free_port()
            config = Path(folder) / "visaged.yaml"
            clip = str(ROOT / "daemon/demo/demo.mp4")
            document = {
                "node": "bench",
                "cameras": [{"name": f"camera{i}", "url": clip, "loop": True, "fps": FPS} for i in range(cameras)],
                "mqtt": {"host": broker.host, "port": broker.port},
                "http": {"port": port},
                "state_dir": str(Path(folder) / "state"),
            }
            config.write_text(yaml.safe_dump(document))
            command = [sys.executable, "-m", "visaged.daemon", "run", "--config", str(config)]
            with ManagedProcess(command), Subscriber(broker, "visaged/#") as subscriber:
                names = {f"camera{i}" for i in range(cameras)}
                subscriber.wait_for_all(lambda heard: names <= {_camera(one.topic) for one in heard if _is_face(one)})
                subscriber.clear()
                time.sleep(seconds)
                volumes: dict[str, list[int]] = defaultdict(list)
                for message in subscriber.messages:
                    if _camera(message.topic) in names:
                        volumes[message.topic.rpartition("/")[2]].append(len(message.payload))
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    text = answer.read()
                lines = [line for line in text.splitlines() if line and not line.startswith(b"#")]
                return volumes, (len(lines), len(text))
        finally:
            broker.stop()


def _camera(topic: str) -> str:
    return topic.split("/")[1]


def _is_face(message: object) -> bool:
    return str(getattr(message, "topic", "")).endswith("/events")
