"""What was measured as a document, as text for people, and as rows of a table in Markdown."""

from __future__ import annotations

import dataclasses
import platform
from datetime import UTC, datetime
from typing import Any

import onnxruntime
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from visaged.daemon.bench import machine
from visaged.daemon.bench.cameras import FPS, Carried
from visaged.daemon.bench.capacity import MARGIN, to_give
from visaged.daemon.bench.clips import SOURCE_FPS
from visaged.daemon.bench.run import Outcome
from visaged.models.session import SessionConfig, why
from visaged.pipelines.outputs.documents import timestamp

_ADVICE = {
    "decoder": "decoding: take the cameras' smaller streams, or a hardware decoder (`hardware` of a camera)",
    "detector": "the detector: fewer frames (`fps` of a camera), a smaller `inference.long_side`, or a GPU",
    "analyzer": "reading attributes: switch some off (`attributes`), or read them less often (`inference.refresh_s`)",
    "rest": "Python: tracking, composing and handing over, which use one core at a time; two daemons with half of the "
    "cameras each carry more",
    "unused": "nothing that this process does: a quarter or more of the cores' time was not to be had or not used",
}
_MUCH_UNUSED = 0.25


def holder(carried: Carried) -> str:
    """Return the name of the share that holds a kind of camera most."""
    shares = {name: share or 0.0 for name, share in dataclasses.asdict(carried.shares).items()}
    unused = shares.pop("unused")
    return "unused" if unused >= _MUCH_UNUSED else max(shares, key=shares.__getitem__)


def document(outcome: Outcome, version: str, now: float) -> dict[str, Any]:
    """Return everything as plain data for JSON.

    Args:
        outcome: What was measured.
        version: Version of the program.
        now: Seconds since 1970.
    """
    bench = outcome.bench
    settings = bench.settings
    detector = bench.networks.detector
    return {
        "schema": "visaged.bench/1",
        "version": version,
        "measured_at": timestamp(now),
        "seconds": round(outcome.seconds, 1),
        "low": bool(outcome.complaints()),
        "complaints": outcome.complaints(),
        "machine": {
            "processor": machine.processor(),
            "cores": machine.cores(),
            "cores_allowed": round(machine.cores_allowed(), 2),
            "load_average": None if outcome.load is None else round(outcome.load, 2),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
        },
        "networks": {
            "detector": detector.name,
            "analyzer": settings.models.analyzer,
            "provider": detector.provider,
            "why": why(
                SessionConfig(settings.inference.provider, precision=settings.inference.precision), detector.provider
            ),
            "long_side": settings.inference.long_side,
            "workers": bench.workers,
        },
        "cameras": [_camera(one) for one in outcome.cameras],
        "fleet": {
            "capacity": to_give(next(one.cameras for one in outcome.cameras if one.clip.size.name == "1080p")),
        },
        "pictures": {
            "width": outcome.pictures.width,
            "height": outcome.pictures.height,
            "faces": outcome.pictures.faces,
            "long_side": outcome.pictures.long_side,
            "clients": outcome.pictures.clients,
            "a_second": round(outcome.pictures.a_second, 1),
            "half_ms": round(outcome.pictures.half_ms, 1),
            "most_ms": round(outcome.pictures.most_ms, 1),
        },
    }


def _camera(one: Carried) -> dict[str, Any]:
    return {
        "size": one.clip.size.name,
        "width": one.clip.size.width,
        "height": one.clip.size.height,
        "codec": one.clip.codec,
        "bit_rate": round(one.clip.bit_rate),
        "decoded_fps": SOURCE_FPS,
        "analysed_fps": FPS,
        "cameras": one.cameras,
        "too_many": one.too_many,
        "never_idle": round(max(one.limit, one.cameras), 1),
        "held_by": holder(one),
        "shares": {
            name: None if share is None else round(share, 3) for name, share in dataclasses.asdict(one.shares).items()
        },
        "memory_mb": None if one.memory_mb is None else round(one.memory_mb),
        "tries": [
            {
                "cameras": a_try.cameras,
                "carried": a_try.good,
                "decoded_fps": round(a_try.decoded, 2),
                "analysed_fps": round(a_try.analysed, 2),
                "dropped": a_try.dropped,
                "cores_busy": round(a_try.measured.cpu / a_try.measured.seconds, 2),
            }
            for a_try in one.tries
        ],
    }


def for_people(shown: dict[str, Any]) -> RenderableType:
    """Return a document of `document` as text and a table."""
    computer, networks, pictures = shown["machine"], shown["networks"], shown["pictures"]
    cores = f"{computer['cores']} cores"
    if computer["cores_allowed"] < computer["cores"]:
        cores += f", of which it may use {computer['cores_allowed']:g}"
    attributes = "attributes on" if networks["analyzer"] else "no attributes"
    rows = [
        ("Machine", f"{computer['processor']}, {cores}; Python {computer['python']}"),
        ("Networks", f"{networks['detector']}, {networks['analyzer'] or 'no analyzer'} on {networks['provider']}: "
         f"{networks['why']}"),
        ("Pictures", f"{pictures['a_second']:.0f} a second through POST /v1/faces without HTTP itself: JPEG of "
         f"{pictures['width']} x {pictures['height']} with {pictures['faces']} faces, {attributes}, "
         f"http.long_side {pictures['long_side']}, {pictures['clients']} at a time; half of the answers within "
         f"{pictures['half_ms']:.0f} ms, 99 % within {pictures['most_ms']:.0f} ms"),
        ("Cameras", f"{SOURCE_FPS} frames a second decoded, {FPS:g} analysed ({attributes}, inference.long_side "
         f"{networks['long_side']}), no frame dropped"),
    ]  # fmt: skip
    head = Table.grid(padding=(0, 2))
    head.add_column(no_wrap=True, style="bold")
    head.add_column(overflow="fold")
    for name, text in rows:
        head.add_row(name, Text(text))
    parts: list[RenderableType] = [head, _table(shown["cameras"]), _held(shown["cameras"])]
    if shown["low"]:
        low = Text("These figures are low; measure again when the machine is quiet.\n", "bold yellow")
        parts.append(low.append("\n".join(f"  {one}" for one in shown["complaints"]) + "\n", "not bold"))
    parts.append(
        Text(f"As a node of a fleet: `capacity: {shown['fleet']['capacity']:g}` in fleet.nodes, which is {MARGIN:g} of "
             "what it carries of 1080p.")
    )  # fmt: skip
    parts.append(
        Text(f"Measured in {shown['seconds']:.0f} s. Not in it: the network, and what brokers and clients take.")
    )
    return Group(*parts)


def _table(cameras: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("stream", no_wrap=True)
    for name in ("Mb/s", "carried", "memory", "decoder", "detector", "analyzer", "rest", "unused"):
        table.add_column(name, justify="right")
    for one in cameras:
        stream = f"{one['size']} {_codec(one)}"
        rate = f"{one['bit_rate'] / 1e6:.0f}"
        carried = f"{one['cameras']}{'' if one['too_many'] else ' or more'}"
        memory = "" if one["memory_mb"] is None else f"{one['memory_mb']} MB"
        shares = ["" if share is None else f"{share:.0%}" for share in one["shares"].values()]
        table.add_row(stream, rate, Text(carried, "bold"), memory, *shares)
    return table


def _held(cameras: list[dict[str, Any]]) -> Text:
    groups: dict[str, list[str]] = {}
    for one in cameras:
        groups.setdefault(one["held_by"], []).append(one["size"])
    lines = [f"  {', '.join(sizes)} by {_ADVICE[name]}" for name, sizes in groups.items()]
    return Text("The shares are of the cores' time while they do all they can. Held most:\n" + "\n".join(lines) + "\n")


def markdown(shown: dict[str, Any]) -> str:
    """Return a document of `document` as rows of the README's table."""
    computer, networks, pictures = shown["machine"], shown["networks"], shown["pictures"]
    rows = [
        f"| cameras of {one['size']} at {SOURCE_FPS} fps, {_codec(one)} at {one['bit_rate'] / 1e6:.0f} Mb/s, "
        f"{FPS:g} frames a second analysed, {'all attributes' if networks['analyzer'] else 'no attributes'} "
        f"| {one['cameras']}{'' if one['too_many'] else ' or more'}; of the cores' time {_in_words(one['shares'])}"
        f"{'' if one['memory_mb'] is None else '; ' + str(one['memory_mb']) + ' MB'} |"
        for one in shown["cameras"]
    ]
    rows.append(
        f"| single {pictures['width']} x {pictures['height']} JPEGs with {pictures['faces']} faces, "
        f"{pictures['clients']} at a time, `http.long_side` {pictures['long_side']}, without HTTP itself "
        f"| {pictures['a_second']:.0f} a second, half within {pictures['half_ms']:.0f} ms, 99 % within "
        f"{pictures['most_ms']:.0f} |"
    )
    low = "".join(f"<!-- low: {one} -->\n" for one in shown["complaints"])
    day = datetime.fromisoformat(shown["measured_at"]).astimezone(UTC).date().isoformat()
    title = (
        f"`visaged bench` on {computer['cores']} cores of {computer['processor']}, {networks['provider']}, "
        f"{networks['detector']}, {day}:"
    )
    return f"{low}{title}\n\n| | |\n| --- | --- |\n" + "\n".join(rows)


def _codec(camera: dict[str, Any]) -> str:
    return "H.264" if camera["codec"] == "h264" else str(camera["codec"])


def _in_words(shares: dict[str, float | None]) -> str:
    named = {"decoder": "decoding", "detector": "the detector", "analyzer": "the analyzer", "rest": "the rest"}
    return ", ".join(f"{words} {shares[name]:.0%}" for name, words in named.items() if shares[name] is not None)
