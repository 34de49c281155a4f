"""The HTTP side in one event loop: the API, the cloud-compatible endpoints, and the listeners that serve them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp

from visaged.daemon.api.aws_kit import app as kit
from visaged.daemon.api.aws_kit.answer import model_version
from visaged.daemon.api.live import install_live
from visaged.daemon.api.pictures import Pictures
from visaged.daemon.api.session import install_session
from visaged.daemon.api.v1 import DaemonView, create_app
from visaged.daemon.api.viewers import Viewers
from visaged.daemon.config.tls import TlsError, TlsSettings
from visaged.daemon.errors import StartError
from visaged.daemon.events.api import install_events
from visaged.daemon.fetch.fetcher import Fetcher
from visaged.daemon.fleet.api import install_fleet
from visaged.daemon.fleet.pictures.doors import API, OSS, make_folder
from visaged.daemon.fleet.settings import ServedPictures
from visaged.daemon.fleet.sight import FleetSight
from visaged.daemon.http.access import KeyGuard
from visaged.daemon.http.browsers.guard import PageGuard
from visaged.daemon.http.browsers.headers import PRIVATE, SAFE, SafeHeaders
from visaged.daemon.http.keys import Keyring
from visaged.daemon.http.request_log import RequestLog
from visaged.daemon.http.server import Server
from visaged.daemon.http.sessions.sessions import Sessions
from visaged.daemon.http.wire.limits import Limits
from visaged.daemon.http.wire.turns import Turns
from visaged.daemon.management.api import install_management
from visaged.daemon.management.manager import Manager
from visaged.daemon.settings import Settings
from visaged.models.manifest import Head
from visaged.pipelines.history.history import History
from visaged.pipelines.live.pictures import LivePictures
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.progress import beat

_BEAT_S = 1.0
# Where this process is Ray's, its policy makes uvloop's event loops, on which the connections do not run.
_LOOP = asyncio.SelectorEventLoop if os.name == "posix" else asyncio.new_event_loop


@dataclass(frozen=True, slots=True)
class _Listener:
    socket: socket.socket
    server: Server
    scheme: str

    @property
    def address(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class Web:
    """The HTTP side of the daemon; `run` is the body of its thread.

    Args:
        settings: The configuration.
        view: State of the daemon, for the API.
        manager: Changes the configuration.
        pictures: Analyses pictures.
        live: Makes live pictures.
        metrics: Counts requests, connections and fetches.
        version: Version of the daemon.
        networks: Versions of the detector and of the analyzer; None without an analyzer.
        history: What happened.
        heads: The attributes that are read.
        state_folder: Folder in which sessions are kept; None keeps them in memory.
        fleet: Where the newest view of the fleet comes from; None without a fleet.

    Raises:
        StartError: A port is taken, or a file or secret cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        view: DaemonView,
        manager: Manager,
        pictures: Pictures,
        live: LivePictures,
        metrics: Metrics,
        version: str,
        networks: tuple[str, str | None],
        history: History,
        heads: Mapping[str, Head],
        state_folder: Path | None = None,
        fleet: FleetSight | None = None,
    ) -> None:
        self._metrics = metrics
        self._listeners: dict[str, _Listener] = {}
        http, oss = settings.http, settings.oss
        self._access_log = http.access_log
        self._limits = Limits(
            head_s=http.header_timeout_s,
            connections=http.max_connections,
            connections_each=http.max_connections_per_address,
        )
        self._turns = Turns()
        self._viewers = Viewers(settings.live.max_viewers, metrics)
        self._fetcher = Fetcher(settings.fetch, done=self._fetched)
        app = create_app(view, pictures, metrics, version, bool(http.keys))
        install_management(app, view, manager, http)
        sessions = Sessions(Keyring(http.keys), state_folder)
        install_session(app, sessions, metrics)
        install_live(app, view, live, self._viewers)
        install_fleet(app, fleet)
        self._asking = install_events(app, view, history, self._viewers, http, heads)
        if settings.kit.enabled:
            kit.install_kit(app, pictures, self._fetcher, settings.kit, model_version(*networks))
            guarded = kit.guarded(app, http, settings.kit, metrics, sessions)
        else:
            guarded = KeyGuard(PageGuard(app, http, metrics), http, metrics, sessions=sessions)
        try:
            self._listen("http", http.host, http.port, guarded, http.tls)
            if oss.enabled:
                # Most daemons do not serve this endpoint, so its modules are imported only here.
                from visaged.daemon.api.aliyun_oss.app import OssApp

                try:
                    oss_app = OssApp(pictures, oss, metrics, version)
                except ValueError as error:
                    raise StartError(f"oss: {error}") from None
                self._listen("oss", oss.host, oss.port, oss_app, oss.tls)
                self._open_door(OSS, oss_app, http.fleet)
            self._open_door(API, guarded, http.fleet)
        except StartError:
            self.close()
            raise

    @property
    def http_address(self) -> str:
        """URL of the API: scheme, host and port."""
        return self._listeners["http"].address

    @property
    def oss_address(self) -> str | None:
        """URL of the OSS-compatible endpoint; None if it is not served."""
        oss = self._listeners.get("oss")
        return None if oss is None else oss.address

    def run(self, stopping: threading.Event) -> None:
        """Serve until `stop` is called; raises RuntimeError if the servers end by themselves."""
        with asyncio.Runner(loop_factory=_LOOP) as runner:
            runner.run(self._serve())
        if not stopping.is_set():
            raise RuntimeError("the HTTP server ended by itself")

    def stop(self) -> None:
        """Ask the servers to end; may be called from any thread."""
        for listener in self._listeners.values():
            listener.server.should_exit = True

    def close(self) -> None:
        """Close the listening sockets; only where `run` will not be called."""
        for listener in self._listeners.values():
            listener.socket.close()

    async def _serve(self) -> None:
        servers = [asyncio.ensure_future(one.server.serve(sockets=[one.socket])) for one in self._listeners.values()]
        while not any(server.done() for server in servers):
            beat()
            await asyncio.wait(servers, timeout=_BEAT_S, return_when=asyncio.FIRST_COMPLETED)
        self.stop()  # if one listener ends, all end
        await asyncio.gather(*servers)
        self._asking.close()
        await self._fetcher.close()

    def _listen(self, name: str, host: str, port: int, app: ASGIApp, tls: TlsSettings | None) -> None:
        try:
            context = None if tls is None else tls.context()
        except TlsError as error:
            raise StartError(f"{name}.tls: {error}") from None
        server = self._server(name, app, context, is_api=name == "http")
        self._listeners[name] = _Listener(_open(name, host, port), server, "https" if tls else "http")

    def _open_door(self, name: str, app: ASGIApp, served: ServedPictures) -> None:
        """Listen on a socket of the file system as well, for the fleet's front on this machine."""
        if served.enabled and served.doors is not None:
            server = self._server(name, app, None, is_api=name == API, behind_front=True)
            self._listeners[name] = _Listener(_open_file(served.doors, name), server, "unix")

    def _server(
        self, name: str, app: ASGIApp, context: ssl.SSLContext | None, is_api: bool, behind_front: bool = False
    ) -> Server:
        # A client of a bucket may keep its objects; what the API tells may be about people.
        logged = SafeHeaders(RequestLog(app, self._metrics, self._access_log), PRIVATE if is_api else SAFE)
        closing = self._viewers.close
        return Server(logged, self._limits, self._metrics, name, context, self._turns, closing, behind_front)

    def _fetched(self, result: str, seconds: float, size: int) -> None:
        self._metrics.fetches.labels(result).inc()
        self._metrics.fetch_seconds.observe(seconds)
        self._metrics.fetched_bytes.inc(size)


def _open_file(folder: Path, name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        make_folder(folder)
        # What an earlier run left; it is over, or lost its state folder and this place to this run.
        (folder / name).unlink(missing_ok=True)
        listener.bind(str(folder / name))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise StartError(f"http.fleet.doors cannot be used: {folder / name} {error.strerror or error}") from None
    return listener


def _open(name: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # on Windows it would let two programs listen on one port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        is_the_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        what = (
            f"{name}.host to an address of this machine" if is_the_host else f"{name}.port to a free one (0 picks one)"
        )
        raise StartError(f"{name} cannot listen on {host}:{port}: {error.strerror}; set {what}") from error
    return listener
