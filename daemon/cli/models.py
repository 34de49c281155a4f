"""`visaged models`: lists the networks, shows their model cards, verifies their files, and times them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
import typer
import yaml
from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.engines import build_one
from visaged.models.errors import ModelError
from visaged.models.manifest import PACKAGED, DetectorEntry, Entry, Manifest
from visaged.models.openvino import Precision
from visaged.models.preprocess import canvas_for
from visaged.models.self_test import self_test
from visaged.models.session import Provider, SessionConfig

app = typer.Typer(help="The networks: list them, show their cards, verify and time them.", no_args_is_help=True)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

EXIT_WRONG_USAGE = 2
EXIT_DAMAGED = 3
_BATCHES = (1, 8)

_File = Annotated[Path, typer.Option("--manifest", help="Manifest of the networks; the packaged one by default.")]
_Name = Annotated[str, typer.Argument(help="Name of the network in the manifest.")]
_Names = Annotated[list[str] | None, typer.Argument(help="Names of networks; all in the manifest by default.")]
_OWN = PACKAGED


def _entries(path: Path, names: list[str] | None) -> tuple[Manifest, list[Entry]]:
    try:
        manifest = Manifest(path)
    except ModelError as error:
        _fail(str(error))
    known = {entry.name: entry for entry in manifest.entries}
    for name in names or []:
        if name not in known:
            _fail(f"there is no network named {name!r} in {path} (there: {', '.join(known) or 'none'})")
    return manifest, [known[name] for name in names or known]


def _fail(text: str, code: int = EXIT_WRONG_USAGE) -> NoReturn:
    err.print(text, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)


@app.command("list")
def list_command(manifest: _File = _OWN) -> None:
    """List the networks of a manifest."""
    _, entries = _entries(manifest, None)
    table = Table("name", "task", "version", "date", "licence", "outputs", box=box.SIMPLE, pad_edge=False)
    for entry in entries:
        tells = "boxes, 5 points" if isinstance(entry, DetectorEntry) else ", ".join(head.name for head in entry.heads)
        table.add_row(entry.name, entry.task, entry.version, entry.date.isoformat(), entry.licence, tells)
    out.print(table)


@app.command("show")
def show_command(name: _Name, manifest: _File = _OWN) -> None:
    """Show a network's model card; without one, its training data and accuracy as in the manifest."""
    found, (entry,) = _entries(manifest, [name])
    if entry.card is None:
        said = entry.model_dump(
            mode="json", include={"name", "version", "date", "licence", "training_data", "accuracy"}
        )
        out.print(yaml.safe_dump(said, sort_keys=False, allow_unicode=True), markup=False, soft_wrap=True)
        return
    path = found.path.parent / entry.card
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _fail(f"the card of {name}, {path}, cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}")
    if out.is_terminal:
        out.print(Markdown(text))
    else:
        print(text, end="")  # noqa: T201


@app.command("verify")
def verify_command(
    names: _Names = None,
    manifest: _File = _OWN,
    provider: Annotated[Provider, typer.Option(help="What to run on; all but openvino are ONNX Runtime's.")] = "cpu",
) -> None:
    """Compare every file with the hash in the manifest, load it, and test that it behaves as its entry says."""
    found, entries = _entries(manifest, names)
    damaged = False
    for entry in entries:
        try:
            self_test(_load(found, entry, SessionConfig(provider)))
        except ModelError as error:
            damaged = True
            err.print(str(error), style="red", markup=False, soft_wrap=True)
        else:
            out.print(f"{entry.name}: whole", markup=False)
    if damaged:
        raise typer.Exit(EXIT_DAMAGED)


@app.command("bench")
def bench_command(
    names: _Names = None,
    manifest: _File = _OWN,
    provider: Annotated[Provider, typer.Option(help="What to run on; all but openvino are ONNX Runtime's.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="What OpenVINO computes in.")] = "auto",
    long_side: Annotated[int, typer.Option(min=160, max=3840, help="Long side of the detector's input, pixels.")] = 640,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds of measurement for each line.")] = 3.0,
) -> None:
    """Time the networks on this machine with one worker, as the daemon runs them; other programs slow them down."""
    found, entries = _entries(manifest, names)
    table = Table(
        "name", "on", "input", "batch", "ms each: median", "fastest tenth", "a second", box=box.SIMPLE, pad_edge=False
    )
    for entry in entries:
        try:
            model = _load(found, entry, SessionConfig(provider, precision=precision))
            if model.provider == "tensorrt":
                build_one(model, long_side, max(_BATCHES))
        except ModelError as error:
            _fail(str(error), EXIT_DAMAGED)
        for size in _BATCHES:
            work, shape = _work(model, size, long_side)
            try:
                each = np.sort(_time(work, seconds)) / size * 1000
            except Exception as error:  # ONNX Runtime raises many types of its own, all from Exception
                _fail(
                    f"{entry.name} fails on {size} x {shape} ({error}); `visaged models verify` says more", EXIT_DAMAGED
                )
            median = float(np.median(each))
            on = model.provider if model.precision is None else f"{model.provider} {model.precision}"
            row = (f"{median:.2f}", f"{each[len(each) // 10]:.2f}", f"{1000 / median:.0f}")
            table.add_row(entry.name, on, shape, str(size), *row)
    out.print(table)


def _load(manifest: Manifest, entry: Entry, config: SessionConfig) -> Detector | Analyzer:
    kind = Detector if isinstance(entry, DetectorEntry) else Analyzer
    return kind.load(manifest, entry.name, config)


def _work(model: Detector | Analyzer, size: int, long_side: int) -> tuple[Callable[[], object], str]:
    # Noise will do: a network's time depends on the shape of its input, hardly on the content.
    noise = np.random.default_rng(0)
    if isinstance(model, Detector):
        canvas = canvas_for(16, 9, long_side, model.multiple_of)
        pictures = noise.integers(0, 256, (size, canvas.height, canvas.width, 3), np.uint8)
        return lambda: model.detect(pictures), f"{canvas.width}x{canvas.height}"
    side = model.aligner.size
    crops = noise.integers(0, 256, (size, side, side, 3), np.uint8)
    return lambda: model.analyze(crops), f"{side}x{side}"


def _time(work: Callable[[], object], seconds: float) -> list[float]:
    work()  # the first run plans memory
    end = time.perf_counter() + seconds
    taken: list[float] = []
    while not taken or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return taken
