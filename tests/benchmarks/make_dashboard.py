"""Draws the README's picture of the dashboard: its own queries, answered by a real Prometheus about a real daemon.

Seven minutes: four RTSP cameras; one of them loses its power for a minute, the broker is away for 45 s, and clients
send single pictures for a minute. Grafana is not needed: panels, titles, legends and units are read from the
dashboard's file, and matplotlib (extra `demo`) draws them. Run it after the dashboard has changed:

    python -m tests.benchmarks.make_dashboard [--keep answers.json] [--redraw answers.json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from tests.benchmarks.clip import ROOT
from tests.benchmarks.load import closed
from tests.support import dashboard
from tests.support.broker import MosquittoBroker
from tests.support.program import RunningDaemon
from tests.support.prometheus import Prometheus
from tests.support.requirements import find_program
from tests.support.rtsp import RtspServer

OUTPUT = dashboard.PATH.with_suffix(".png")
CLIP = ROOT / "daemon/demo/demo.mp4"
STEADY, WEAK = ("entrance", "till", "yard"), "garage"
WARM_UP_S, RUN_S, STEP_S = 20, 420, 5
FAULTS = {"camera": (75, 135), "broker": (195, 240), "pictures": (300, 360)}
CAPTIONS = {"camera": "garage without power", "broker": "broker away", "pictures": "4 clients send pictures"}

STATS = ("Cameras streaming", "Cameras down", "Age of messages, p95", "Analysed", "Frames dropped", "Broker",
         "Events waiting", "Events lost")  # fmt: skip
TIMELINE = "State of each camera"
GRAPHS = ("Age of messages", "Analysed frames", "Frames dropped by cause", "Inference, p50 and p95", "New faces",
          "Messages handed to the broker", "Messages lost by cause", "Events waiting", "Memory")  # fmt: skip
UNITS = {"s": ("ms", 1e3), "bytes": ("MB", 1e-6), "fps": ("frames/s", 1.0), "/s": ("messages/s", 1.0),
         "percentunit": ("%", 100.0), "none": ("", 1.0)}  # fmt: skip
COLORS = {"green": "#3f9c35", "orange": "#e0752d", "red": "#d44a3a", "blue": "#3274d9"}
LINES = ["#3274d9", "#e0752d", "#3f9c35", "#a352cc", "#d44a3a", "#0f8a8a", "#8a6d3b"]
INK, FAINT = "#24292e", "#6a737d"

Answers = dict[str, Any]


def version_of_prometheus() -> str:
    """Return the version of the Prometheus that is installed."""
    command = [find_program("prometheus") or "prometheus", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).split()[2]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[RunningDaemon, Prometheus, MosquittoBroker, RtspServer]]:
    """Start cameras, a broker that keeps sessions, the daemon and a Prometheus that watches it."""
    with RtspServer(CLIP) as steady, RtspServer(CLIP) as weak:
        cameras = [{"name": name, "url": steady.url("/normal"), "fps": 5} for name in STEADY]
        cameras.append({"name": WEAK, "url": weak.url("/normal"), "fps": 5, "read_timeout_s": 3})
        with MosquittoBroker(folder / "broker", is_persistent=True) as broker:
            mqtt = {"host": broker.host, "port": broker.port, "reconnect_most_s": 5}
            with (
                RunningDaemon(folder, {"cameras": cameras, "mqtt": mqtt, "inference": {"update_s": 1}}) as daemon,
                Prometheus(folder, daemon.client.base_url.netloc.decode(), interval_s=2) as prometheus,
            ):
                yield daemon, prometheus, broker, weak


def measure() -> Answers:
    """Run it all and return what Prometheus answered."""
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as (daemon, prometheus, broker, weak):
        time.sleep(WARM_UP_S)
        began = time.time()
        port = daemon.client.base_url.port or 0
        picture = CLIP.with_name("person.jpg").read_bytes()
        first, last = FAULTS["pictures"]
        clients = threading.Thread(target=closed, args=(port, "/v1/faces", picture, 4, last - first))
        steps = [
            (FAULTS["camera"][0], weak.kill), (FAULTS["camera"][1], weak.start),
            (FAULTS["broker"][0], broker.stop), (FAULTS["broker"][1], broker.start),
            (first, clients.start), (RUN_S, lambda: None),
        ]  # fmt: skip
        for at_s, step in steps:
            time.sleep(max(0.0, began + at_s - time.time()))
            print(f"{at_s} s", flush=True)
            step()
        clients.join()
        values = {"instance": ".*", "camera": ".*", "__rate_interval": "10s", "__range": f"{RUN_S}s"}
        answers: Answers = {"prometheus": version_of_prometheus(), "stats": {}, "graphs": {}}
        for panel in dashboard.panels(dashboard.load()):
            title = panel["title"]
            if title in STATS and panel["type"] == "stat":
                (query,) = dashboard.queries(panel)
                answers["stats"][title] = [value for _, value in prometheus.samples(query.filled(values))]
            if title == TIMELINE or (title in GRAPHS and panel["type"] == "timeseries"):
                found = answers["graphs"].setdefault(title, [])
                for query in dashboard.queries(panel):
                    for labels, pairs in prometheus.series(query.filled(values), began, began + RUN_S, STEP_S):
                        points = [(at - began, float(value)) for at, value in pairs]
                        found.append((query.name(labels).partition(" · ")[0], points))
        daemon.end()
    return answers


def panel_of(title: str, kind: str) -> dict[str, Any]:
    """Return the dashboard's panel of a title and type."""
    return next(p for p in dashboard.panels(dashboard.load()) if p["title"] == title and p["type"] == kind)


def defaults(panel: dict[str, Any]) -> dict[str, Any]:
    """Return how the panel shows its values."""
    found: dict[str, Any] = panel["fieldConfig"]["defaults"]
    return found


def shown(value: float, options: dict[str, Any]) -> tuple[str, str]:
    """Return a value as the panel's text, and its colour."""
    for mapping in options["mappings"]:
        if f"{value:g}" in mapping["options"]:
            entry = mapping["options"][f"{value:g}"]
            return entry["text"], COLORS[entry["color"]]
    color = [
        step["color"] for step in options["thresholds"]["steps"] if step["value"] is None or value >= step["value"]
    ]
    unit, factor = UNITS[options["unit"]]
    digits = options.get("decimals", 0)
    text = f"{value * factor:,.{digits}f}"
    return f"{text} {unit.replace('frames/s', 'fps')}".strip(), COLORS[color[-1]]


def draw_stat(axes: Axes, title: str, values: list[float]) -> None:
    """Draw a number with its title on a plate."""
    options = defaults(panel_of(title, "stat"))
    text, color = shown(values[0], options) if values else ("no data", FAINT)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_color("#d8dee4")
    wrapped = textwrap.fill(title, 14)
    axes.text(0.5, 0.76, wrapped, ha="center", va="center", color=INK, fontsize=11.5, transform=axes.transAxes)
    size = 20 if len(text) < 8 else 15
    axes.text(0.5, 0.28, text, ha="center", va="center", color=color, fontsize=size, weight="bold",
              transform=axes.transAxes)  # fmt: skip


def style(axes: Axes, title: str, unit: str) -> None:
    """Give axes the look that all have: title on the left, a unit, minutes below, a light grid, the faults shaded."""
    axes.set_title(title, loc="left", fontsize=14, color=INK, weight="bold", pad=8)
    axes.set_ylabel(unit, color=FAINT, fontsize=12)
    axes.set_xlim(0, RUN_S)
    axes.set_xticks(range(0, RUN_S + 1, 60), [f"{second // 60}" for second in range(0, RUN_S + 1, 60)])
    axes.tick_params(colors=FAINT, labelsize=12, length=0)
    axes.grid(color="#e6e9ec", linewidth=1)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    for first, last in FAULTS.values():
        axes.axvspan(first, last, color="#f1f3f5", zorder=0)


def draw_timeline(axes: Axes, found: list[tuple[str, list[tuple[float, float]]]]) -> None:
    """Draw the state of each camera as a bar."""
    options = panel_of(TIMELINE, "state-timeline")["fieldConfig"]["defaults"]["mappings"][0]["options"]
    style(axes, TIMELINE, "")
    axes.set_title(TIMELINE, loc="left", fontsize=14, color=INK, weight="bold", pad=28)
    axes.grid(visible=False)
    names = sorted(name for name, _ in found)
    legend = {}
    for name, points in found:
        for at, value in points:
            entry = options[f"{value:g}"]
            legend[entry["text"]] = axes.barh(
                names.index(name), STEP_S, left=at, height=0.66, color=COLORS[entry["color"]], linewidth=0
            )
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelsize=13, labelcolor=INK)
    axes.invert_yaxis()
    for which, (first, last) in FAULTS.items():
        axes.text((first + last) / 2, -0.66, CAPTIONS[which], ha="center", va="bottom", fontsize=12, color=FAINT)
    axes.legend(legend.values(), legend.keys(), loc="lower right", bbox_to_anchor=(1.0, 1.16), ncols=len(legend),
                frameon=False, fontsize=12, handlelength=1)  # fmt: skip


def draw_graph(axes: Axes, title: str, found: list[tuple[str, list[tuple[float, float]]]]) -> None:
    """Draw a graph's series as lines, or stacked where the panel stacks them."""
    options = defaults(panel_of(title, "timeseries"))
    unit, factor = UNITS[options["unit"]]
    style(axes, title, options["custom"].get("axisLabel", unit))
    times = np.arange(0, RUN_S + 1, STEP_S)
    below = np.zeros(len(times))
    for index, (name, points) in enumerate(sorted(found)):
        at = {round(second / STEP_S): value * factor for second, value in points}
        values = np.array([at.get(step, np.nan) for step in range(len(times))])
        color = LINES[index % len(LINES)]
        if ":" in name:  # the one daemon's address, which says nothing here
            name = "the daemon"
        if options["custom"]["stacking"]["mode"] == "normal":
            top = below + np.nan_to_num(values)
            axes.fill_between(times, below, top, color=color, alpha=0.45, linewidth=0, label=name)
            axes.plot(times, top, color=color, linewidth=1.2)
            below = top
        else:
            axes.plot(times, values, color=color, linewidth=1.8, label=name)
    axes.set_ylim(0, max(axes.get_ylim()[1], 1e-9) * 1.02)
    if not found:
        axes.text(0.5, 0.5, options.get("noValue", "no data"), ha="center", color=FAINT, transform=axes.transAxes)
    else:
        wide = sum(len(name) + 4 for name, _ in found) > 40
        axes.legend(loc="upper center", bbox_to_anchor=(0.47, -0.11), ncols=2 if wide else len(found), frameon=False,
                    fontsize=11.5, handlelength=1.1, columnspacing=1.0, handletextpad=0.4)  # fmt: skip


def draw(answers: Answers, output: Path) -> None:
    """Draw the picture."""
    plt.rcParams["font.family"] = "DejaVu Sans"
    figure = plt.figure(figsize=(13, 15.6), facecolor="white")
    edges = {"left": 0.074, "right": 0.985}
    plates = figure.add_gridspec(1, len(STATS), wspace=0.07, top=0.952, bottom=0.9, **edges)
    states = figure.add_gridspec(1, 1, top=0.838, bottom=0.752, **edges)
    graphs = figure.add_gridspec(3, 3, wspace=0.26, hspace=0.62, top=0.694, bottom=0.106, **edges)
    subtitle = f"the numbers after {RUN_S // 60} minutes, and how they came to be (x: minutes)"
    figure.text(0.012, 0.985, "visaged", fontsize=20, weight="bold", color=INK, va="top")
    figure.text(0.118, 0.9825, subtitle, fontsize=14, color=FAINT, va="top")
    for index, title in enumerate(STATS):
        draw_stat(figure.add_subplot(plates[index]), title, answers["stats"][title])
    draw_timeline(figure.add_subplot(states[0]), answers["graphs"][TIMELINE])
    for index, title in enumerate(GRAPHS):
        draw_graph(figure.add_subplot(graphs[index]), title, answers["graphs"][title])
    origin = (
        f"Drawn by tests/benchmarks/make_dashboard.py from the answers of Prometheus {answers['prometheus']} to the "
        "dashboard's own queries;\nnot a picture of Grafana. One run of a real daemon on two shared CPU cores: four "
        "RTSP cameras at 5 frames a second,\nmosquitto, a scrape every 2 s. Shaded: what was done to it."
    )
    figure.text(0.012, 0.012, origin, fontsize=11.5, color=FAINT, va="bottom", linespacing=1.5)
    figure.savefig(output, dpi=100)
    plt.close(figure)
    with Image.open(output) as picture:  # a palette takes a third of the bytes
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(output, optimize=True)
    print(f"{output}: {output.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="write Prometheus's answers there")
    parser.add_argument("--redraw", type=Path, help="draw from answers that were kept, and run nothing")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    answers = json.loads(options.redraw.read_text()) if options.redraw else measure()
    if options.keep:
        options.keep.write_text(json.dumps(answers))
    draw(answers, options.output)


if __name__ == "__main__":
    main()
