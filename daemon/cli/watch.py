"""`visaged watch`: shows what a running daemon sees, from this or another machine."""

from __future__ import annotations

import getpass
import logging
import os
import signal
import ssl
import sys
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from visaged.daemon.cli.ending import leave
from visaged.daemon.cli.live import JsonLines, Lines, Screen
from visaged.daemon.config.document import SettingsError
from visaged.daemon.config.errors import problems_of
from visaged.daemon.settings import MqttSettings, load
from visaged.daemon.watch.http import HttpNews, HttpTarget, target_of
from visaged.daemon.watch.mqtt import MqttNews, MqttTarget
from visaged.daemon.watch.news import Inbox, cleaned

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

EXIT_CONFIGURATION = 2
EXIT_CANNOT_START = 3
_TURN_S = 0.25
_MOST_SECRET = 65_536


class EventKind(StrEnum):
    """Kind of an event of a face."""

    BEGIN = "begin"
    UPDATE = "update"
    END = "end"


class _Problem(Exception):
    """Something is wrong with the command line; the text names the option and says what to do."""


def watch_command(
    host: Annotated[
        str | None, typer.Option(envvar="VISAGED_MQTT_HOST", help="MQTT broker; 127.0.0.1 by default.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            envvar="VISAGED_MQTT_PORT", min=1, max=65535, help="Its port; 1883, or 8883 with TLS, by default."
        ),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(envvar="VISAGED_MQTT_PREFIX", help="First part of the topics; visaged by default.")
    ] = None,
    username: Annotated[str | None, typer.Option(envvar="VISAGED_MQTT_USERNAME", help="User for the broker.")] = None,
    password: Annotated[
        str | None,
        typer.Option(
            help="Password for the broker: env:VARIABLE, file:PATH, or - to be asked. Otherwise that in "
            "VISAGED_MQTT_PASSWORD."
        ),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS to the broker.")] = False,
    ca_file: Annotated[
        Path | None, typer.Option(help="PEM file of the authorities that the certificate may come from.")
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            "--http", envvar="VISAGED_URL", help="URL of a daemon, as http://127.0.0.1:8080; in place of MQTT."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="API key for --http: env:VARIABLE, file:PATH, or - to be asked. Otherwise that in VISAGED_KEY."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration of the daemon: its broker, login and prefix are used.")
    ] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Only this camera; repeat for more.")] = None,
    kind: Annotated[list[EventKind] | None, typer.Option(help="Only events of this kind; repeat for more.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the messages, one JSON object a line.")] = False,
) -> None:
    """Show the faces that a running daemon sees, as they come and go, until Ctrl-C; over MQTT, or HTTP with --http."""
    logging.disable(logging.ERROR)  # libraries would write between the lines
    cameras, kinds = camera or [], [str(one) for one in kind or []]
    inbox = Inbox()
    try:
        if http is None:
            if key is not None:
                raise _Problem("--key: is for --http; a broker takes --username and --password")
            target = _mqtt_target(config, host, port, prefix, username, password, tls, ca_file)
            run: Callable[[threading.Event], None] = MqttNews(target, inbox).run
        else:
            if any(one is not None for one in (host, prefix, username, password, config)) or tls:
                _refuse_mqtt_options(host, prefix, username, password, config, tls)
            run = HttpNews(_http_target(http, key, ca_file), inbox, cameras, kinds).run
    except _Problem as problem:
        _fail(str(problem), EXIT_CONFIGURATION)
    except SettingsError as error:
        _fail("\n".join(map(str, error.problems)), EXIT_CONFIGURATION)
    lines: Lines
    if as_json:
        lines = JsonLines(out, err, cameras, kinds)
    elif out.is_terminal:
        lines = Screen(out, cameras, kinds)
    else:
        lines = Lines(out, cameras, kinds)
    _follow(run, inbox, lines)


def _follow(run: Callable[[threading.Event], None], inbox: Inbox, lines: Lines) -> None:
    """Show news until a signal, the end of stdout, or a failure."""
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    thread = threading.Thread(target=run, args=(asked,), name="news", daemon=True)
    thread.start()
    failure = None
    with lines:
        while not asked.is_set() and lines.open and failure is None:
            news, lost, failure = inbox.take(_TURN_S)
            if lost:
                lines.missed(lost)
            for one in news:
                lines.take(one)
                if asked.is_set() or not lines.open:
                    break
            if not thread.is_alive() and failure is None and not asked.is_set():
                failure = "visaged watch has a fault: its connection's thread died"
    asked.set()
    if failure is not None:
        _fail(failure, EXIT_CANNOT_START)
    leave(0)


def _mqtt_target(
    config: Path | None,
    host: str | None,
    port: int | None,
    prefix: str | None,
    username: str | None,
    password: str | None,
    tls: bool,
    ca_file: Path | None,
) -> MqttTarget:
    settings = MqttSettings() if config is None else load(config).mqtt
    wanted = settings.model_dump(include={"host", "port", "protocol", "prefix"})
    wanted["tls"] = None if settings.tls is None else settings.tls.model_dump()
    if host is not None and host != settings.host:
        wanted["tls"] = None
    if tls or ca_file is not None:
        wanted["tls"] = {**(wanted["tls"] or {}), **({} if ca_file is None else {"ca_file": ca_file})}
    if host is not None or tls or ca_file is not None:
        is_plain_port = settings.port == 1883 and wanted["tls"] is not None
        wanted |= {"host": host or settings.host, "port": 8883 if is_plain_port else settings.port}
    wanted |= {name: value for name, value in (("port", port), ("prefix", prefix)) if value is not None}
    try:
        link = MqttSettings.model_validate(wanted)
    except ValidationError as error:
        raise _Problem("\n".join(f"--{problem}" for problem in problems_of(error, MqttSettings))) from None
    user, secret = username, _secret("--password", password, "VISAGED_MQTT_PASSWORD", "Password for the broker: ")
    if user is None and (host is None or host == settings.host):  # a login is for its own broker alone
        try:
            user, configured = settings.login()
        except ValueError as error:
            raise _Problem(f"{config}: mqtt: {error}") from None
        secret = secret or configured
    if secret is not None and user is None:
        raise _Problem("--password: a password is given, but no --username")
    if user is not None and secret is None and sys.stdin.isatty():
        secret = _asked(f"Password of {cleaned(user)} for the broker: ")
    target = MqttTarget(link, link.prefix, user, secret)
    if link.tls is not None:
        try:
            link.tls.context()
        except OSError as error:  # ssl.SSLError is one
            raise _Problem(f"--ca-file: TLS cannot be used with these files: {error.strerror or error}") from None
    return target


def _http_target(url: str, key: str | None, ca_file: Path | None) -> HttpTarget:
    try:
        address = target_of(url)
    except ValueError as error:
        raise _Problem(f"--http: {error}") from None
    context = None
    if ca_file is not None:
        try:
            context = ssl.create_default_context(cafile=str(ca_file))
        except OSError as error:
            raise _Problem(f"--ca-file: {ca_file} cannot be used: {error.strerror or error}") from None
    secret = _secret("--key", key, "VISAGED_KEY", "API key: ")
    if secret is not None and not (secret.isascii() and secret.isprintable()):
        raise _Problem("--key: it has characters that no key has; give the key that `visaged key` printed")
    return HttpTarget(address, secret, context)


def _refuse_mqtt_options(*values: object) -> NoReturn:
    names = ("--host", "--prefix", "--username", "--password", "--config", "--tls")
    given = ", ".join(name for name, value in zip(names, values, strict=True) if value)
    raise _Problem(f"{given}: for MQTT alone, and --http (or VISAGED_URL) was given; leave one of them out")


def _secret(option: str, reference: str | None, variable: str, prompt: str) -> str | None:
    """Return the secret that an option refers to, else that in the variable, else None."""
    if reference is None:
        return os.environ.get(variable) or None
    if reference == "-":
        return _asked(prompt)
    scheme, mark, rest = reference.partition(":")
    if mark and scheme == "env":
        value = os.environ.get(rest, "")
        if not value:
            raise _Problem(f"{option}: the environment variable {cleaned(rest)} is not set, or empty")
        return value
    if mark and scheme == "file":
        try:
            with Path(rest).open("rb") as file:
                text = file.read(_MOST_SECRET).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise _Problem(f"{option}: {cleaned(rest)} cannot be read: {reason}") from None
        first = text.splitlines()[0].strip() if text.strip() else ""
        if not first:
            raise _Problem(f"{option}: the first line of {cleaned(rest)} is empty")
        return first
    raise _Problem(
        f"{option}: other users of this machine see the command line; put the secret into a variable or a file that "
        f"only you may read, and give {option} env:VARIABLE or {option} file:PATH, or - to be asked for it"
    )


def _asked(prompt: str) -> str | None:
    try:
        return getpass.getpass(prompt) or None
    except (EOFError, KeyboardInterrupt):
        _fail("nothing was given", EXIT_CONFIGURATION)


def _fail(text: str, code: int) -> NoReturn:
    err.print(text, style="red", markup=False, soft_wrap=True)
    leave(code)
