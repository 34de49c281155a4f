"""`visaged doctor`: looks at one camera, and says how good it is and what to change."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from visaged.daemon.cli.cameras import EXPOSED, camera_document, is_exposed
from visaged.daemon.config.document import ConfigProblem, SettingsError
from visaged.daemon.doctor.failures import Case, failure_of
from visaged.daemon.doctor.judging import Setting, findings, verdict
from visaged.daemon.doctor.looking import Look, Patient
from visaged.daemon.doctor.report import Report
from visaged.daemon.doctor.telling import tell
from visaged.daemon.errors import StartError
from visaged.daemon.networks import load_networks
from visaged.daemon.settings import CameraSettings, Settings, load, parse
from visaged.models.detector import Detector
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.source.config import SourceConfig

EXIT_CONFIGURATION, EXIT_CANNOT_START = 2, 3
EXIT_CODES = {"good": 0, "usable": 5, "unusable": 6}

_PIPE_WIDTH = 100

err = Console(stderr=True, highlight=False)


def doctor_command(
    camera: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Camera URL, device or file; env:VARIABLE or file:PATH for a URL that is kept there. With --config, "
            "the name of a camera in it.",
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration with the camera, its login, and how it is read and searched."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, max=3600.0, help="How long to look once it is open.")] = 15.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON (`visaged schema doctor`).")] = False,
) -> None:
    """Look at a camera, and say how good it is for visaged and what to change.

    It is read and searched as the daemon does it, beside which this may run; no picture is kept. Exit codes: 0 good, 5
    usable and something should be changed, 6 not usable; 2 wrong usage or configuration, 3 the networks cannot run.
    """
    try:
        settings, chosen = _chosen(config, camera)
        login = chosen.login()
    except SettingsError as error:
        _refuse([str(problem) for problem in error.problems])
    except ValueError as error:
        _refuse([str(error)])
    if config is None and is_exposed(camera):
        err.print(f"warning: {EXPOSED.replace('--camera ', '')}", style="yellow", markup=False, soft_wrap=True)
    fields = chosen.model_dump(include=set(SourceConfig.model_fields), exclude_unset=True)
    source = SourceConfig.model_validate(fields)
    inference = settings.inference
    patient = Patient(source, login, inference.long_side, inference.close_up, inference.min_confidence, seconds)
    with _interruptions() as interrupted:
        look = Look(patient, _detector(settings))
        with _progress() as progress:
            facts = look.run(interrupted, progress)
    setting = Setting(
        source.fps,
        inference.long_side,
        inference.close_up,
        inference.min_face_px,
        source.transport == "udp" and source.address.scheme == "rtsp",
    )
    failure = None
    if look.failure is not None:
        has_login = login[0] is not None or "@" in source.address.target.partition("://")[2].partition("/")[0]
        was_open = facts.stream is not None
        failure = failure_of(Case(look.failure, source, has_login, facts.reach.connect_ms is not None, was_open))
    found = findings(facts, setting, failure)
    report = Report(
        **dict(facts),
        schema="visaged.doctor/1",
        visaged=importlib.metadata.version("visaged"),
        camera=source.shown_url,
        verdict=verdict(facts, found, failure),
        failure=failure,
        findings=found,
    )
    if as_json:
        print(report.model_dump_json(by_alias=True, indent=2))  # noqa: T201
    else:
        _print(report)
    sys.stdout.flush()
    code = EXIT_CODES[report.verdict]
    if look.is_hanging:
        # A normal exit would free what the thread that waits for the camera uses.
        os._exit(code)
    raise typer.Exit(code)


def _print(report: Report) -> None:
    out = Console(highlight=False)
    if out.is_terminal:
        out.print(tell(report))
        return
    out = Console(highlight=False, width=_PIPE_WIDTH)
    with out.capture() as captured:
        out.print(tell(report))
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))  # noqa: T201


def _chosen(config: Path | None, camera: str) -> tuple[Settings, CameraSettings]:
    """Return the settings and the camera in them that the command line names; raises `SettingsError`."""
    if config is None:
        try:
            document = camera_document(1, camera) | {"name": "camera"}
            settings = parse({"cameras": [document]})
        except SettingsError as error:
            # There is no list of cameras here that the user could look into.
            raise SettingsError([ConfigProblem("URL", problem.text) for problem in error.problems]) from None
        return settings, settings.cameras[0]
    settings = load(config)
    named = [one for one in settings.cameras if one.name == camera]
    if not named:
        known = ", ".join(one.name for one in settings.cameras) or "none"
        raise SettingsError([ConfigProblem(str(config), f"has no camera of that name; it has {known}")])
    return settings, named[0]


def _detector(settings: Settings) -> Detector:
    models = settings.models.model_copy(update={"analyzer": None})
    try:
        return load_networks(models, settings.inference, settings.tracker.low_confidence, Metrics()).detector
    except StartError as error:
        err.print(f"visaged doctor cannot start: {error}", style="bold red", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_CANNOT_START) from None


def _refuse(problems: list[str]) -> NoReturn:
    for problem in problems:
        err.print(problem, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(EXIT_CONFIGURATION)


@contextlib.contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """Yield what the first Ctrl-C sets; the second one ends the process."""
    interrupted = threading.Event()

    def note(number: int, _frame: FrameType | None) -> None:
        interrupted.set()
        signal.signal(number, signal.SIG_DFL)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield interrupted
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _Progress:
    """One line on a terminal, written anew; nothing elsewhere."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Write the line."""
        if self._is_shown:
            sys.stderr.write(f"\r\x1b[Klooking at the camera: {text}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextlib.contextmanager
def _progress() -> Iterator[_Progress]:
    progress = _Progress()
    try:
        yield progress
    finally:
        progress.clear()
