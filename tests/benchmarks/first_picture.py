"""How long somebody who opens the page waits for the first picture of a camera, in Chromium on the same machine.

Four cameras play the demo clip at its own speed and are analysed five times a second, so a camera's next picture is due
up to 0.2 s after it was asked for. Each first visit has a profile of its own, without any file of the page; the later
visit is in the same profile. Prints, as medians and the range over the visits, in milliseconds from the start of
the navigation: when the markup was there, the last file of the page that the first picture needs, the cameras' states,
when the live pictures were asked for, and when one was drawn; and the bytes of the page's files before that.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.benchmarks.clip import ROOT
from tests.support.broker import free_port
from tests.support.browser import PATIENCE_MS, chromium
from tests.support.program import RunningDaemon

NAMES = ("door", "till", "yard", "hall")
STEPS = ("markup", "files", "cameras", "asked", "drawn")

# By the page's own clock: when live pictures are asked for (the browser lists answers only when they have ended), and
# when the first one is drawn onto its canvas.
_WATCH = """
    const fetched = window.fetch;
    window.fetch = (resource, options) => {
        if (String(resource.url ?? resource).includes("v1/live")) window.asked ??= performance.now();
        return fetched(resource, options);
    };
    const draw = CanvasRenderingContext2D.prototype.drawImage;
    CanvasRenderingContext2D.prototype.drawImage = function (...given) {
        window.drawn ??= performance.now();
        return draw.apply(this, given);
    };
"""
_ASK = """() => {
    const all = performance.getEntriesByType("resource").filter((one) => one.startTime < window.drawn);
    const ours = all.filter((one) => new URL(one.name).pathname.startsWith("/page/") && one.responseEnd < window.drawn);
    const of = (path) => all.find((one) => new URL(one.name).pathname === path) ?? {};
    return {
        markup: performance.getEntriesByType("navigation")[0].responseEnd,
        files: Math.max(...ours.map((one) => one.responseEnd)),
        cameras: of("/v1/cameras").responseEnd,
        asked: window.asked,
        drawn: window.drawn,
        count: ours.length,
        bytes: ours.reduce((sum, one) => sum + one.encodedBodySize, 0),
    };
}"""


def visit(page: Page, url: str) -> dict[str, Any]:
    """Open the page; return the times of its steps."""
    page.goto(url, wait_until="commit")
    page.wait_for_function("() => window.drawn !== undefined", polling=50, timeout=PATIENCE_MS)
    told: dict[str, Any] = page.evaluate(_ASK)
    return told


def show(name: str, visits: list[dict[str, Any]]) -> None:
    """Print the times of visits of a kind."""
    cells = [f"{statistics.median(one[step] for one in visits):6.0f}" for step in STEPS]
    drawn = sorted(one["drawn"] for one in visits)
    print(f"  {name:6} {' '.join(f'{cell:>8}' for cell in cells)}   {drawn[0]:.0f} to {drawn[-1]:.0f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks first_picture", description=__doc__)
    parser.add_argument("--visits", type=int, default=10, help="how many of each kind (10)")
    visits = parser.parse_args().visits
    clip = str(ROOT / "daemon" / "demo" / "demo.mp4")
    cameras = [{"name": name, "url": clip, "loop": True, "fps": 5} for name in NAMES]
    document = {"cameras": cameras, "mqtt": {"embedded": True, "port": free_port()}, "history": {"pictures": True}}
    with (
        tempfile.TemporaryDirectory() as folder,
        RunningDaemon(Path(folder), document) as daemon,
        chromium() as browser,
    ):
        first, later = [], []
        for turn in range(visits + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            context.add_init_script(_WATCH)
            page = context.new_page()
            told = visit(page, f"{daemon.url}/"), visit(page, f"{daemon.url}/")
            if turn:  # the first one of all meets a daemon whose cameras have just been opened
                first.append(told[0])
                later.append(told[1])
            context.close()
        daemon.end()
    print(f"{'':9}{' '.join(f'{step:>8}' for step in STEPS)}   drawn, range (ms, {visits} visits of each kind)")
    show("first", first)
    show("later", later)
    print(f"files before the first picture: {first[-1]['count']}, {first[-1]['bytes'] / 1000:.0f} kB as sent")


if __name__ == "__main__":
    main()
