"""`visaged fleet`: runs cameras over the machines of a Ray cluster, and looks after them."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from visaged.daemon.cli import hangups
from visaged.daemon.cli.cameras import EXPOSED, is_exposed
from visaged.daemon.cli.console import show
from visaged.daemon.cli.ending import leave
from visaged.daemon.cli.fleet.documents import FleetFile, camera_to_add
from visaged.daemon.cli.fleet.telling import changes, tell
from visaged.daemon.config.document import ConfigProblem, SettingsError
from visaged.daemon.errors import StartError
from visaged.daemon.fleet.cluster.joining import connect
from visaged.daemon.fleet.plan.documents import FleetError
from visaged.daemon.settings import warnings

if TYPE_CHECKING:
    from visaged.daemon.fleet.cluster.client import FleetClient

app = typer.Typer(help="Many machines: cameras placed over a Ray cluster.", no_args_is_help=True)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

EXIT_CONFIGURATION = 2
EXIT_CANNOT_START = 3
_TURN_S = 1.0

_Address = Annotated[
    str, typer.Option(help="The Ray cluster: HOST:PORT of its head, or auto for that of RAY_ADDRESS or this machine.")
]
_Fleet = Annotated[str | None, typer.Option(help="Name of the fleet; needed where several run on the cluster.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Node = Annotated[str, typer.Argument(metavar="NODE", help="Name of the node.")]


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="Configuration file of the fleet.")],
    address: _Address = "auto",
    detach: Annotated[bool, typer.Option("--detach", help="Return once the fleet has the configuration.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take over a fleet of this name that another file configures.")
    ] = False,
) -> None:
    """Start a fleet on a Ray cluster, or hand a running one its configuration anew; then tell what happens there.

    SIGHUP reads the file again. Ctrl-C ends this command alone: the fleet goes on until `visaged fleet stop`.
    """
    with _told():
        file = FleetFile(config)
        document, settings = file.read()
        for warning in warnings(settings):
            _warn(f"warning: {warning}")
        connect(address)
        from visaged.daemon.fleet.cluster.client import FleetClient

        client = FleetClient.start(settings.fleet.name)
        client.same_version()
        _configure(client, document, file.identity, replace)
        out.print(f"fleet {client.fleet} has the configuration {config}", markup=False, soft_wrap=True)
        if not detach:
            _follow(client, file)
    leave(0)


@app.command()
def status(address: _Address = "auto", fleet: _Fleet = None, as_json: _Json = False) -> None:
    """Show a fleet's nodes and cameras, and the cameras that find no place."""
    with _told(), _client(address, fleet) as client:
        view = client.view()
    if as_json:
        print(json.dumps(dataclasses.asdict(view), indent=2, ensure_ascii=False))  # noqa: T201
    else:
        out.print(tell(view))
    leave(0)


@app.command()
def add(
    camera: Annotated[
        str,
        typer.Argument(
            metavar="CAMERA",
            help="NAME=URL; NAME=env:VARIABLE or NAME=file:PATH for a URL that is kept there; or a .yaml or .json file "
            "with the keys of one camera.",
        ),
    ],
    address: _Address = "auto",
    fleet: _Fleet = None,
    as_json: _Json = False,
) -> None:
    """Add a camera. It stays until `remove`, whatever the configuration file says."""
    with _told(), _client(address, fleet) as client:
        if is_exposed(camera):
            _warn(f"warning: {EXPOSED.replace('--camera ', '')}")
        document = camera_to_add(camera, *client.ask("document"))
        client.ask("add", document)
    _done(as_json, f"camera {document['name']} is part of the fleet", camera=document["name"])


@app.command()
def remove(
    camera: Annotated[str, typer.Argument(metavar="CAMERA", help="Name of the camera.")],
    address: _Address = "auto",
    fleet: _Fleet = None,
    as_json: _Json = False,
) -> None:
    """Remove a camera. One of the configuration file stays away until `add` brings it back."""
    with _told(), _client(address, fleet) as client:
        client.ask("remove", camera)
    _done(as_json, f"camera {camera} has left the fleet", camera=camera)


@app.command()
def drain(node: _Node, address: _Address = "auto", fleet: _Fleet = None, as_json: _Json = False) -> None:
    """Have a node give up its cameras one by one, without a gap, and take no new ones."""
    with _told(), _client(address, fleet) as client:
        client.ask("drain", node)
    _done(as_json, f"node {node} gives up its cameras; `visaged fleet status` shows when it is drained", node=node)


@app.command()
def undrain(node: _Node, address: _Address = "auto", fleet: _Fleet = None, as_json: _Json = False) -> None:
    """Let a node that was drained take cameras again."""
    with _told(), _client(address, fleet) as client:
        client.ask("undrain", node)
    _done(as_json, f"node {node} takes cameras again", node=node)


@app.command()
def rebalance(address: _Address = "auto", fleet: _Fleet = None, as_json: _Json = False) -> None:
    """Level the nodes: move cameras from the fullest to the emptiest, one by one, without a gap."""
    with _told(), _client(address, fleet) as client:
        moves = client.ask("rebalance")
    text = (
        f"{moves} {'camera moves' if moves == 1 else 'cameras move'}" if moves else "the nodes are level; nothing moves"
    )
    _done(as_json, text, moves=moves)


@app.command()
def stop(address: _Address = "auto", fleet: _Fleet = None, as_json: _Json = False) -> None:
    """End a fleet on all machines: its daemons end in order. The Ray cluster goes on."""
    with _told(), _client(address, fleet) as client:
        client.stop()
    _done(as_json, f"fleet {client.fleet} has ended", fleet=client.fleet)


@app.command()
def check(file: Annotated[Path, typer.Argument(help="Configuration file of the fleet.")]) -> None:
    """Check a fleet's configuration. Files and passwords that it names are the nodes', and not looked at."""
    with _told():
        _, settings = FleetFile(file).read()
    for warning in warnings(settings):
        _warn(f"warning: {warning}")
    out.print(f"{file}: no problems", markup=False, soft_wrap=True)


def _configure(client: FleetClient, document: dict[str, Any], identity: str, replace: bool) -> None:
    client.ask("configure", document, identity, replace)


def _follow(client: FleetClient, file: FleetFile) -> None:
    """Print what changes in the fleet until a signal, or until it is stopped; read the file again at SIGHUP."""
    wake, asked = threading.Event(), threading.Event()
    rereads: list[bool] = []

    def end(*_: object) -> None:
        asked.set()
        wake.set()

    def reread() -> None:
        rereads.append(True)
        wake.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    hangups.install(reread, end)
    view, silent = None, False
    while not asked.is_set():
        wake.clear()
        if rereads:
            rereads.clear()
            _reread(client, file)
        try:
            after = client.view()
        except StartError as error:
            if not client.exists():
                show(err, f"fleet {client.fleet} has been stopped")
                return
            if not silent:
                show(err, str(error))
            silent = True
        else:
            for line in changes(view, after):
                if not show(out, line):
                    return
            view, silent = after, False
        wake.wait(_TURN_S)
    how = f"visaged fleet stop --fleet {client.fleet}"
    show(err, f"fleet {client.fleet} goes on; `visaged fleet status` shows it, and `{how}` ends it")


def _reread(client: FleetClient, file: FleetFile) -> None:
    try:
        document, settings = file.read()
        if settings.fleet.name != client.fleet:
            text = f"cannot change while the fleet runs: it is {client.fleet}; `visaged fleet stop` first"
            raise SettingsError([ConfigProblem("fleet.name", text)])
        _configure(client, document, file.identity, replace=False)
    except SettingsError as error:
        for problem in error.problems:
            show(err, f"the configuration was not taken: {problem}")
    except (FleetError, StartError) as error:
        show(err, f"the configuration was not taken: {error}")
    else:
        show(out, "the configuration was read again")


@contextmanager
def _client(address: str, fleet: str | None) -> Iterator[FleetClient]:
    """Connect to a running fleet."""
    connect(address)
    from visaged.daemon.fleet.cluster.client import FleetClient

    yield FleetClient.find(fleet)


@contextmanager
def _told() -> Iterator[None]:
    """Print what went wrong, and end with the exit code for it."""
    try:
        yield
    except SettingsError as error:
        _fail("\n".join(map(str, error.problems)), EXIT_CONFIGURATION)
    except StartError as error:
        _fail(str(error), EXIT_CANNOT_START)
    except FleetError as error:
        _fail(str(error), EXIT_CONFIGURATION)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_CANNOT_START)


def _done(as_json: bool, text: str, **values: str | int) -> NoReturn:
    if as_json:
        print(json.dumps({"done": text, **values}, ensure_ascii=False))  # noqa: T201
    else:
        out.print(text, markup=False, soft_wrap=True)
    leave(0)


def _warn(text: str) -> None:
    err.print(text, style="yellow", markup=False, soft_wrap=True)


def _fail(text: str, code: int) -> NoReturn:
    err.print(text, style="red", markup=False, soft_wrap=True)
    leave(code)
