"""A page that is open for a day, in minutes: what the tab and the daemon hold while events and pictures keep coming.

    python -m tests.benchmarks open_page            # ten minutes
    python -m tests.benchmarks.open_page MINUTES

Two cameras read the demo clip as fast as the machine can, so that their faces come and go many times faster than in
life. Prints, over the run, the tab's heap after a collection and its nodes of DOM, as Chromium's debugger tells them,
and the daemon's memory. The page fills until its list of what happened has its 400 rows; what grows after that from row
to row is a leak. The history drops its oldest events at 16 MB.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import psutil

from tests.support.broker import free_port
from tests.support.browser import chromium
from tests.support.program import RunningDaemon

_CLIP = Path(__file__).parents[2] / "daemon" / "demo" / "demo.mp4"
_ROWS = 10


def main() -> None:
    """Run the benchmark."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    cameras = [{"name": name, "url": str(_CLIP), "loop": True, "pace": "fast"} for name in ("door", "till")]
    document = {
        "cameras": cameras,
        "mqtt": {"embedded": True, "port": free_port()},
        "history": {"pictures": True, "max_mb": 16},
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        RunningDaemon(Path(folder), document) as daemon,
        chromium() as browser,
    ):
        page = browser.new_page()
        page.goto(daemon.url)
        debugger = page.context.new_cdp_session(page)
        debugger.send("Performance.enable")
        process = psutil.Process(daemon.process.pid)
        print(f"{'minutes':>8}{'events':>9}{'tab heap MB':>13}{'DOM nodes':>11}{'listeners':>11}{'daemon MB':>11}")
        for row in range(_ROWS + 1):
            page.wait_for_timeout(60_000 * minutes / _ROWS)
            debugger.send("HeapProfiler.collectGarbage")
            told = {one["name"]: one["value"] for one in debugger.send("Performance.getMetrics")["metrics"]}
            events = daemon.metric("history_events")
            tab = f"{told['JSHeapUsedSize'] / 1e6:13.1f}{told['Nodes']:11.0f}{told['JSEventListeners']:11.0f}"
            memory_mb = process.memory_info().rss / 1e6
            print(f"{(row + 1) * minutes / _ROWS:8.1f}{events:9.0f}{tab}{memory_mb:11.0f}", flush=True)


if __name__ == "__main__":
    main()
