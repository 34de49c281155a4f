"""The command line.

Exit codes: 0 ended as asked; 1 a part of the daemon died (the log names it); 2 the command line or the configuration is
wrong; 3 it cannot start on this machine as configured (a model, a port, a GPU that is required); 4 it was to end, and
was cut short because its orderly end hung. `visaged doctor` ends with 0 for a good camera, 5 for one that is usable and
should be changed, 6 for one that is not usable.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import logging
import os
import socket
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from prometheus_client import disable_created_metrics
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from visaged.daemon.app import STOP_S, Daemon
from visaged.daemon.cli import hangups
from visaged.daemon.cli import models as models_command
from visaged.daemon.cli.bench import bench_command
from visaged.daemon.cli.cameras import EXPOSED, camera_document, is_exposed
from visaged.daemon.cli.console import EventLines
from visaged.daemon.cli.doctor import doctor_command
from visaged.daemon.cli.ending import Ending
from visaged.daemon.cli.fleet import commands as fleet_commands
from visaged.daemon.cli.watch import watch_command
from visaged.daemon.config.document import ConfigFile, ConfigProblem, SettingsError
from visaged.daemon.doctor.report import Report
from visaged.daemon.errors import StartError
from visaged.daemon.http.keys import hash_key, make_key
from visaged.daemon.http.settings import ApiKeySettings, Role
from visaged.daemon.logs.setup import ProcessLog
from visaged.daemon.management.configuration import Configuration
from visaged.daemon.management.folder import StateFolder
from visaged.daemon.management.state import next_epoch
from visaged.daemon.settings import Settings, check, load, warnings
from visaged.daemon.supervision.notify import Notifier
from visaged.pipelines.outputs import asyncapi
from visaged.pipelines.outputs.mqtt.config import PublisherConfig
from visaged.pipelines.runtime.credentials import OUTSIDE
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.schemas import schema

app = typer.Typer(
    help="Turns cameras into face data: MQTT, HTTP and Prometheus, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    epilog="Exit codes: 0 ended as asked, 1 a part died, 2 wrong usage or configuration, 3 cannot start here, "
    "4 its end hung; of doctor: 0 good camera, 5 usable, 6 not usable.",
)
app.add_typer(models_command.app, name="models")
app.add_typer(fleet_commands.app, name="fleet")
app.command("doctor")(doctor_command)
app.command("bench")(bench_command)
app.command("watch")(watch_command)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

DEMO = Path(__file__).parents[1] / "demo" / "demo.mp4"
PERSON = DEMO.with_name("person.jpg")

EXIT_DIED = 1
EXIT_CONFIGURATION = 2
EXIT_CANNOT_START = 3

_LAST_LINES_S = 0.4
"""Longest time in seconds for the last lines of the log, at the end of the process."""
_RESERVE_S = 0.1
"""Seconds before the end of the time to stop at which a process that still runs is cut short."""


class Schema(StrEnum):
    """Argument of `visaged schema`: the configuration, a kind of message, all topics, or the report of doctor."""

    CONFIG = "config"
    FACES = "faces"
    EVENTS = "events"
    NODE_STATUS = "node-status"
    CAMERA_STATUS = "camera-status"
    PRESENCE = "presence"
    DISCOVERY = "discovery"
    ASYNCAPI = "asyncapi"
    FACE = "face"
    DOCTOR = "doctor"


def version_string() -> str:
    """Return the installed version."""
    return importlib.metadata.version("visaged")


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; without one, an embedded broker and the demo clip.")
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(
            help="Camera URL, device or file; env:VARIABLE or file:PATH for a URL that is kept there, out of the list "
            "of processes; with NAME= before it for a name. Repeat for more. Replaces those configured."
        ),
    ] = None,
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Refuse to start without a GPU.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End when every camera is a file and all have ended.")] = False,
) -> None:
    """Run the daemon until SIGINT or SIGTERM."""
    metrics = Metrics()
    with Ending(STOP_S - _RESERVE_S) as ending:
        log = ProcessLog(metrics)
        notifier = Notifier.from_environment(os.environ)
        code, has_run = EXIT_DIED, False
        try:
            configuration = _configuration(config, camera or [], require_gpu)
            if any(map(is_exposed, camera or [])):
                log.show(_styled(f"warning: --camera: {EXPOSED}", "yellow"))
            code, has_run = _run(configuration, once, metrics, log, ending, notifier)
        except SystemExit as asked:  # a signal before the daemon was there
            code = int(asked.code or 0)
        except Exception:
            logging.getLogger(__name__).critical("ended by a fault in visaged itself", exc_info=True)
        notifier.close()
        if not log.close(_LAST_LINES_S) or has_run:
            # A normal exit would wait for a thread that hangs in a library or a write, or free memory that it uses.
            os._exit(code)
    raise typer.Exit(code)


def _run(
    configuration: Configuration, once: bool, metrics: Metrics, log: ProcessLog, ending: Ending, notifier: Notifier
) -> tuple[int, bool]:
    """Run the daemon; return the exit code of the process, and whether the daemon's threads have run."""
    try:
        settings = configuration.load()
    except SettingsError as error:
        for problem in error.problems:
            log.show(_styled(str(problem), "red"))
        notifier.status(f"the configuration cannot be used: {error.problems[0]}")
        return EXIT_CONFIGURATION, False
    for warning in warnings(settings):
        log.show(_styled(f"warning: {warning}", "yellow"))
    # A creation time for every counter would double the series that Prometheus has to fetch.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        log.configure(settings.log)
        configuration.report()
        notifier.status("loading the networks")
        lines = EventLines(out, metrics)
        chosen = "state_dir" in configuration.chosen
        folder = None if settings.state_dir is None else StateFolder(settings.state_dir, is_default=not chosen).path
        epoch = next_epoch(folder, time.time())
        daemon = Daemon(settings, version_string(), once, metrics, [lines], epoch, configuration, folder, notifier)
    except (StartError, OSError) as error:
        _cannot_start(error, log, notifier)
        return EXIT_CANNOT_START, False
    ending.lead_to(daemon.stop)
    hangups.install(daemon.manager.reload, daemon.stop)
    _spare_collector()
    lines.say(_banner(settings, daemon))
    try:
        return daemon.run(), True
    except StartError as error:
        _cannot_start(error, log, notifier)
        return EXIT_CANNOT_START, True


def _cannot_start(error: Exception, log: ProcessLog, notifier: Notifier) -> None:
    log.show(_styled(f"visaged cannot start: {error}", "bold red"))
    notifier.status(f"cannot start: {error}")


def _spare_collector() -> None:
    """Exempt the objects that there are now from garbage collection; the program needs nearly all until its end.

    A full collection would look at each of them, and hold up all threads for 80 ms. A request of 100 kB of JSON that
    makes 33,000 objects caused one in three times, so that a single client could hold up all others.
    """
    gc.collect()
    gc.freeze()


@app.command("check")
def check_command(file: Annotated[Path, typer.Argument(help="Configuration file.")]) -> None:
    """Check a configuration: print every problem with the path of its key."""
    try:
        settings = load(file)
        problems = check(settings)
    except SettingsError as error:
        problems = error.problems
    # Whoever checks the configuration of a service from a shell has not its credentials.
    unknown = [problem for problem in problems if OUTSIDE in problem.text]
    problems = [problem for problem in problems if problem not in unknown]
    if problems:
        _print_problems(problems)
        raise typer.Exit(EXIT_CONFIGURATION)
    _print_warnings(settings)
    for problem in unknown:
        err.print(f"not checked: {problem}", style="yellow", markup=False, soft_wrap=True)
    out.print(f"{file}: no problems", markup=False, soft_wrap=True)


@app.command("key")
def key_command(
    name: Annotated[str, typer.Argument(help="Name of the key in metrics and the log.")],
    role: Annotated[Role, typer.Option(help="What the holder of the key may do.")] = "reader",
) -> None:
    """Make an API key: print it on stdout, once, and the lines for the configuration on stderr."""
    try:
        key = make_key()
        entry = ApiKeySettings(name=name, sha256=hash_key(key.encode()), role=role)
    except ValidationError:
        err.print(f"NAME: {name!r} cannot be one; letters, digits, _ . - are possible", style="red", markup=False)
        raise typer.Exit(EXIT_CONFIGURATION) from None
    # Only the key goes to stdout, so that it can be redirected to a file that only its holder reads.
    err.print("The key, for its holder; it is kept nowhere and cannot be shown again:", markup=False, soft_wrap=True)
    print(key, flush=True)
    lines = f'    - name: "{entry.name}"\n      sha256: "{entry.sha256}"'
    if entry.role != "reader":
        lines += f"\n      role: {entry.role}"
    err.print(f"For the configuration, under http.keys:\n\nhttp:\n  keys:\n{lines}", markup=False, soft_wrap=True)


@app.command("schema")
def schema_command(
    of: Annotated[Schema, typer.Argument(help="The configuration, a kind of message, or all topics.")] = Schema.CONFIG,
) -> None:
    """Print the JSON Schema of the configuration or of a message, or the AsyncAPI document of all topics."""
    document: dict[str, Any]
    if of is Schema.CONFIG:
        document = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Settings.model_json_schema()
        # The default is a path in this installation.
        document["properties"]["models"]["default"] = {}
        del document["$defs"]["ModelSettings"]["properties"]["manifest"]["default"]
    elif of is Schema.DOCTOR:
        document = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Report.model_json_schema()
    elif of is Schema.ASYNCAPI:
        document = asyncapi.document(PublisherConfig(), version_string())
    else:
        document = schema(of.value)
    print(json.dumps(document, indent=2))


@app.command("version")
def version_command() -> None:
    """Print the version."""
    print(version_string())


def main() -> None:
    """Entry point of the `visaged` command."""
    app()


def _configuration(config: Path | None, urls: list[str], require_gpu: bool) -> Configuration:
    """Return the configuration of a file, or that for a first try, with the options of the command line laid over it.

    Cameras of the command line replace those of the file, which are then not even checked, and changes of cameras are
    not kept.
    """
    first_try = _default(shows_demo=not urls) if config is None else {}
    file = None if config is None else ConfigFile(config)

    def document() -> dict[str, Any]:
        result = first_try if file is None else file.read()
        if urls:
            result = result | {"cameras": [camera_document(index, url) for index, url in enumerate(urls, 1)]}
        inference = result.get("inference", {})
        if require_gpu and isinstance(inference, dict):
            result = result | {"inference": inference | {"require_gpu": True}}
        return result

    return Configuration(document, is_kept=config is not None and not urls)


def _default(shows_demo: bool) -> dict[str, Any]:
    """Return a configuration for a first try: the demo clip, and all servers on free ports of loopback.

    Args:
        shows_demo: Whether the demo clip is all that is seen. Pictures of faces are kept and published then, but not
            those of people before a camera, who were not asked.
    """
    return {
        "cameras": [{"name": "demo", "url": str(DEMO), "loop": True, "fps": 10}],
        "mqtt": {
            "embedded": True,
            "port": _free_port("127.0.0.1", 1883),
            "home_assistant": {"enabled": True},
            "snapshots": shows_demo,
        },
        "history": {"pictures": shows_demo},
        "http": {"port": _free_port("127.0.0.1", 8080)},
        # The bucket names in the examples of OSS's face detection.
        "oss": {
            "enabled": True,
            "port": _free_port("127.0.0.1", 8081),
            "endpoints": ["localhost"],
            "buckets": [{"name": n, "objects": {"person.jpg": str(PERSON)}} for n in ("imm-demo", "image-demo")],
        },
    }


def _free_port(host: str, wanted: int) -> int:
    """Return the wanted port, or another one if it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            if os.name == "posix":  # as the listeners do: connections of the last run may still hold the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    return wanted


def _banner(settings: Settings, daemon: Daemon) -> Text:
    mqtt = settings.mqtt
    kind = "embedded broker" if mqtt.embedded else "broker"
    rows = [
        ("Page", f"{daemon.web.http_address}/"),
        ("MQTT", f"{mqtt.host}:{mqtt.port} ({kind}), topics {mqtt.prefix}/#"),
        ("HTTP", f"{daemon.web.http_address}/docs  (POST /v1/faces, /v1/cameras, /healthz, /readyz, /metrics)"),
        ("Networks", f"{daemon.detector.name}, {settings.models.analyzer or 'no analyzer'} on "
         f"{daemon.detector.provider}"),
    ]  # fmt: skip
    if daemon.web.oss_address is not None:
        buckets = ", ".join(bucket.name for bucket in settings.oss.buckets)
        rows.append(("OSS", f"{daemon.web.oss_address}  (buckets {buckets})"))
    rows += [(f"Camera {camera.name}", camera.shown_url) for camera in settings.cameras]
    width = max(len(name) for name, _ in rows)
    text = Text()
    text.append(f"visaged {version_string()}\n", "bold")
    text.append("\n".join(f"  {name:<{width}}  {value}" for name, value in rows) + "\n")
    return text


def _styled(text: str, style: str) -> str:
    """Return a line for stderr, coloured if that is a terminal."""
    with err.capture() as captured:
        err.print(text, style=style, markup=False, soft_wrap=True)
    return captured.get()


def _print_warnings(settings: Settings) -> None:
    for warning in warnings(settings):
        err.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def _print_problems(problems: list[ConfigProblem]) -> None:
    for problem in problems:
        err.print(str(problem), style="red", markup=False, soft_wrap=True)
