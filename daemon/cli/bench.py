"""`visaged bench`: says what this machine carries."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from visaged.daemon.bench import machine
from visaged.daemon.bench.clips import NoEncoder
from visaged.daemon.bench.report import document, for_people, markdown
from visaged.daemon.bench.rig import BenchError
from visaged.daemon.bench.run import LEAST_S, run_all
from visaged.daemon.cli.ending import leave
from visaged.daemon.config.document import SettingsError
from visaged.daemon.errors import StartError
from visaged.daemon.settings import Settings, load

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

DEMO = Path(__file__).parents[1] / "demo" / "demo.mp4"
EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_CANNOT_START = 3
EXIT_INTERRUPTED = 130
_USUAL_S = 55.0


class _Interrupted(BaseException):
    """A signal asked for the end; no handler of exceptions on the way is to take it for an error."""


def bench_command(
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration file: its models, inference, attributes, tracker and http.long_side are used."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=LEAST_S, max=3600, help="About how long it may take.")] = _USUAL_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the rows of a table in Markdown.")] = False,
) -> None:
    """Measure what this machine carries: cameras of 720p, 1080p and 4K, and single pictures."""
    if as_json and as_markdown:
        _fail("give one of --json and --markdown", EXIT_CONFIGURATION)
    try:
        settings = Settings.model_validate({"state_dir": None}) if config is None else load(config)
    except SettingsError as error:
        for problem in error.problems:
            err.print(str(problem), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_CONFIGURATION) from None
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    running = ", ".join(map(str, machine.running_daemons()))
    if running:
        text = (
            f"warning: a visaged daemon runs (process {running}); it will be slowed down, and the figures will be low"
        )
        err.print(text, style="yellow", markup=False, soft_wrap=True)
    folder = None
    try:
        with _interruptible(), tempfile.TemporaryDirectory(prefix="visaged-bench-") as folder, _progress() as report:
            outcome = run_all(settings, DEMO, Path(folder), seconds, report)
    except _Interrupted:
        err.print("interrupted; nothing was left behind", style="yellow")
        leave(EXIT_INTERRUPTED)
    except StartError as error:
        _fail(f"visaged cannot measure here: {error}", EXIT_CANNOT_START)
    except NoEncoder as error:
        _fail(f"the clips to measure cannot be made: {error}", EXIT_CANNOT_START)
    except OSError as error:
        _fail(f"the clips cannot be written to {folder or tempfile.gettempdir()}: {error.strerror or error}; they need "
              "100 MB; name another folder in the variable TMPDIR", EXIT_CANNOT_START)  # fmt: skip
    except BenchError as error:
        _fail(f"the measurement failed: {error}", EXIT_FAILED)
    shown = document(outcome, importlib.metadata.version("visaged"), time.time())
    if as_json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))  # noqa: T201
    elif as_markdown:
        print(markdown(shown))  # noqa: T201
    else:
        out.print(for_people(shown))
    for complaint in shown["complaints"] if as_json or as_markdown else ():
        err.print(f"the figures are low: {complaint}", style="yellow", markup=False, soft_wrap=True)
    leave(0)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the signals that end programs into an exception, so that the temporary folder is removed."""
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

    def on_signal(number: int, frame: FrameType | None) -> None:
        for one in numbers:  # a second one must not interrupt the removal
            signal.signal(one, signal.SIG_IGN)
        raise _Interrupted

    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """Show what is done on a terminal, as a bar; elsewhere as a line for each step, on stderr in both cases."""
    if not err.is_terminal:
        said: set[str] = set()

        def say(what: str, part: float) -> None:
            if what not in said:
                said.add(what)
                err.print(f"{part:4.0%}  {what}", markup=False, soft_wrap=True)

        yield say
        return
    columns = (BarColumn(30), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, part: bar.update(task, completed=part, description=what)


def _fail(text: str, code: int) -> NoReturn:
    err.print(text, style="red", markup=False, soft_wrap=True)
    leave(code)
