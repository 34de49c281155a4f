"""Takes the README's picture of the page: a real daemon, looked at in Debian's Chromium.

Four cameras: three play the demo clip from different places, and one does not answer. Run it after the page has
changed:

    python -m tests.benchmarks.make_page [--seconds 90]
"""

from __future__ import annotations

import argparse
import tempfile
from fractions import Fraction
from pathlib import Path

import av

from tests.benchmarks.clip import ROOT
from tests.support.broker import free_port
from tests.support.browser import PATIENCE_MS, chromium
from tests.support.program import RunningDaemon

CLIP = ROOT / "daemon/demo/demo.mp4"
OUTPUT = ROOT / "daemon/demo/page.jpg"
STARTS_S = {"entrance": 0, "till": 10, "window": 20}
WIDTH, HEIGHT, SCALE = 1440, 900, 1.25


def begun_at(seconds: float, path: Path) -> Path:
    """Write the clip from the first key frame at or after a time, with what comes before it at the end."""
    with av.open(str(CLIP)) as clip, av.open(str(path), "w") as target:
        stream = clip.streams.video[0]
        base, length = stream.time_base or Fraction(1, 1000), stream.duration or 0
        out = target.add_stream_from_template(stream)
        packets = [packet for packet in clip.demux(stream) if packet.pts is not None]
        first = next(i for i, packet in enumerate(packets) if packet.is_keyframe and packet.pts * base >= seconds)
        start = packets[first].dts
        for packet in [*packets[first:], *packets[:first]]:
            shift = -start if packet.dts >= start else length - start
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = out
            target.mux(packet)
    return path


def main() -> None:
    """Run the daemon, wait until something has happened, and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90, help="how long the daemon runs before the picture")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        cameras = [
            {"name": name, "url": str(begun_at(start_s, Path(folder) / f"{name}.mp4")), "loop": True, "fps": 5}
            for name, start_s in STARTS_S.items()
        ]
        cameras.append({"name": "yard", "url": f"rtsp://127.0.0.1:{free_port()}/stream2"})
        document = {
            "node": "shop",
            "cameras": cameras,
            "mqtt": {"embedded": True, "port": free_port()},
            "history": {"pictures": True},
        }
        with RunningDaemon(Path(folder), document) as daemon, chromium() as browser:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE)
            page.goto(f"{daemon.url}/", timeout=PATIENCE_MS)
            page.wait_for_timeout(seconds * 1000)
            page.screenshot(path=OUTPUT, type="jpeg", quality=82)
            daemon.end()
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
