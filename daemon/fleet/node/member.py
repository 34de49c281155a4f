"""A daemon as a member of a fleet: it holds the cameras that orders grant it, and reports how they do.

Nothing here knows Ray. Whoever runs a member sends its reports to the coordinator, and hands it the answers:

    member = Member(document, "harbour-1", version)  # holds the state folder from here on
    member.join(joined)  # what the coordinator says of member.incarnation; loads the networks
    member.run()  # in a thread of its own

    sent_s = member.now()  # every lease_s / 6, in another thread
    orders = heartbeat(member.report(), member.config_version)
    member.obey(orders, sent_s)
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from visaged.daemon.app import Daemon
from visaged.daemon.bench.capacity import CapacityError, measured_capacity
from visaged.daemon.config.document import SettingsError
from visaged.daemon.config.files import replace_file
from visaged.daemon.errors import StartError
from visaged.daemon.fleet.metrics import FleetMetrics
from visaged.daemon.fleet.node.cameras import HeldCameras
from visaged.daemon.fleet.node.documents import node_document, usable
from visaged.daemon.fleet.node.holding import Holding, lasting_s
from visaged.daemon.fleet.records import FleetView, Joined, NodeReport, Orders
from visaged.daemon.management.configuration import Configuration
from visaged.daemon.management.folder import StateFolder
from visaged.daemon.management.state import next_epoch
from visaged.daemon.membership import Membership
from visaged.pipelines.runtime.metrics import Metrics
from visaged.pipelines.runtime.redact import redact

log = logging.getLogger(__name__)

HOME_NAME = "home"
_TOLD = 5
"""Of so many cameras that cannot run here, the fleet is told why."""
_ANY_HOST = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not listened on


class Member:
    """A daemon that is a node of a fleet.

    Args:
        document: The configuration as plain data, as in the file: with `fleet`, without the node's own settings laid
            over it. A node runs no cameras but those that it is granted.
        node: Name of this node.
        version: Version of the program.
        address: Host name or address at which other machines reach this one, for its URL; the host's name if empty.
        clock: Returns seconds by which leases end, see `lasting_s`.
        wall: Returns seconds since 1970.
        metrics: The daemon's metrics; None for new ones.
        view: Returns the newest view of the fleet, for `/v1/fleet` and the page; may wait and raise. None for none.
        doors: Folder for the sockets on which the daemon answers Ray Serve; None for none.

    Raises:
        SettingsError: The configuration cannot be used on this node; names every problem by the path of its key.
        StartError: The state folder is in use by another process, or can never be used.

    Attributes:
        incarnation: Number of this run, larger than those of earlier runs with the same state folder.
        home: Tells the state folder from all others.
        config_version: Version of the configuration that was told last; for the next heartbeat.
        standing: How this node stands in the fleet.
        daemon: The daemon, after `join`.
        settings: The configuration in force.
        metrics: The daemon's metrics.
    """

    def __init__(
        self,
        document: dict[str, Any],
        node: str,
        version: str,
        address: str = "",
        clock: Callable[[], float] = lasting_s,
        wall: Callable[[], float] = time.time,
        metrics: Metrics | None = None,
        view: Callable[[], FleetView] | None = None,
        doors: Path | None = None,
    ) -> None:
        self._view, self._doors = view, doors
        self._node, self._version, self._address, self._clock = node, version, address, clock
        self._document = document | {"cameras": []}
        self._configuration = Configuration(self._read, is_kept=False)
        self.settings = self._configuration.load()
        chosen = "state_dir" in self._configuration.chosen
        state_dir = self.settings.state_dir
        self._folder = None if state_dir is None else StateFolder(state_dir, is_default=not chosen)
        path = None if self._folder is None else self._folder.path
        self.incarnation = next_epoch(path, wall())
        self.home = _home(path)
        self.config_version = ""
        self._capacity: float | None = None
        self.metrics = metrics or Metrics()
        self.daemon: Daemon | None = None
        self._holding = Holding(clock)
        self._cameras = HeldCameras(self._holding)
        self.standing = FleetMetrics(self.settings.fleet.name, self._holding.left_s, self._cameras.counts, clock)
        self._lock = threading.Lock()
        self._orders: tuple[Orders, float] | None = None
        self._sent_s = float("-inf")
        self._beat = 0
        self._new_document: dict[str, Any] | None = None
        self._refused = self._url = self._problem = ""
        self._is_leaving = self._is_over = False

    def find_capacity(self, stopping: threading.Event | None = None) -> None:
        """Find out how many cameras this node is to carry, for its reports: as configured, or else measured.

        To be called before `join`. Measuring takes some seconds at the first start, see `measured_capacity`; where it
        cannot be done, the fleet goes by `fleet.default_capacity`.

        Args:
            stopping: Breaks the measurement off when it is set.
        """
        own = self.settings.fleet.nodes.get(self._node)
        self._capacity = None if own is None else own.capacity
        if self._capacity is None:
            try:
                path = None if self._folder is None else self._folder.path
                self._capacity = measured_capacity(self.settings, path, self._version, stopping)
            except CapacityError as error:
                log.warning("%s; fleet.default_capacity counts, unless fleet.nodes gives the node one", error)
                return
        self.standing.set_capacity(self._capacity)

    def join(self, joined: Joined) -> None:
        """Build the daemon, with what the coordinator says; takes seconds, as networks are loaded.

        Raises:
            SettingsError, StartError: The node cannot take part; the text says why.
        """
        if joined.refused:
            raise StartError(f"node {self._node} may not take part in the fleet: {joined.refused}")
        if joined.config:
            self._document = orjson.loads(joined.config) | {"cameras": []}
            kept = self.settings.state_dir
            self.settings = self._configuration.load()
            if self.settings.state_dir != kept:
                raise StartError(f"state_dir: it has changed to {self.settings.state_dir}; start the node again")
        member = Membership(
            self.settings.fleet.name,
            self._holding,
            self._cameras.has,
            self._cameras.on_removed,
            self._cameras.reasons,
            frozenset(joined.ended),
        )
        self.daemon = Daemon(
            self.settings,
            self._version,
            metrics=self.metrics,
            epoch=self.incarnation,
            configuration=self._configuration,
            state_folder=None if self._folder is None else self._folder.path,
            member=member,
            fleet=self._view,
            standing=self.standing,
        )
        self._cameras.serve(self.daemon)
        self._url = _reachable(self.daemon.web.http_address, self.settings.http.host, self._address)
        if self._is_leaving:
            self.daemon.stop()

    def run(self) -> int:
        """Run until `stop` is called or a part dies; return the exit code, 0 or 1. Must be called after `join`.

        It ends within `app.STOP_S` after `stop`. Raises `StartError` if the daemon cannot start.
        """
        assert self.daemon is not None
        try:
            return self.daemon.run()
        finally:
            self._is_leaving = self._is_over = True

    def now(self) -> float:
        """Return seconds of the clock by which leases end; to be read before a report is sent, for `obey`."""
        return self._clock()

    def report(self) -> NodeReport:
        """Return what this node says of itself; from any thread, also before `join`.

        After `run`, the cameras are those whose tracks it could not end, as its lease had ended: their next owners, or
        its next run, end them.
        """
        is_over = self._is_over
        cameras = () if self.daemon is None else self._cameras.report()
        with self._lock:
            self._beat += 1
            beat = self._beat
        return NodeReport(
            self._node,
            self.incarnation,
            self._version,
            self._url,
            self._capacity,
            tuple(one for one in cameras if one.open) if is_over else cameras,
            self._is_leaving,
            self.home,
            beat,
            self._problem,
        )

    def obey(self, orders: Orders, sent_s: float) -> None:
        """Do what the coordinator answered; from any thread. Returns at once: cameras change in the daemon's thread.

        Args:
            orders: The answer. One to an earlier report than the last is left aside.
            sent_s: What `now` returned before the report was sent.
        """
        if self.daemon is None:
            return
        self.standing.heard(orders.summary, orders.refused)
        if orders.refused and orders.refused != self._refused:
            log.error("this node may not take part in the fleet and lets its cameras go: %s", orders.refused)
        self._refused = orders.refused
        with self._lock:
            if sent_s < self._sent_s or self._clock() >= sent_s + orders.lease_s:  # as after a long stop
                return
            self._sent_s = sent_s
            if orders.config is not None:
                self._new_document = orjson.loads(orders.config)
                self.config_version = orders.config_version
            is_all = self._cameras.renew(orders, sent_s + orders.lease_s) and self._new_document is None
            is_called, self._orders = self._orders is not None, None if is_all else (orders, sent_s)
        if not is_all and not is_called:
            self.daemon.call(self._follow)

    def stop(self) -> None:
        """Ask the daemon to end; from any thread, or a signal handler. Reports say `leaving` from now on."""
        self._is_leaving = True
        if self.daemon is not None:
            self.daemon.stop()

    def close(self) -> None:
        """Let the state folder go; only after `run` has returned, or instead of it."""
        if self._folder is not None:
            self._folder.close()

    def _follow(self) -> None:
        """Do what the newest orders say; in the daemon's thread."""
        assert self.daemon is not None
        with self._lock:
            newest, self._orders = self._orders, None
            document, self._new_document = self._new_document, None
        if newest is None:  # newer orders found nothing to do
            return
        orders, sent_s = newest
        if self._clock() >= sent_s + orders.lease_s:
            self._new_document = self._new_document or document
            return
        try:
            self._cameras.leave(orders)
            if document is not None:
                self._reload(document)
            else:
                self.daemon.run_cameras()
            self._cameras.take(orders, sent_s + orders.lease_s)
            self.settings = self.daemon.settings
        except Exception:  # the next orders say the same again
            log.exception("the orders of the fleet's coordinator could not be followed")

    def _reload(self, document: dict[str, Any]) -> None:
        assert self.daemon is not None
        before, self._document = self._document, document
        try:
            self.daemon.manager.reload_now()
        except SettingsError:  # it was logged
            self._document = before
            self.daemon.run_cameras()

    def _read(self) -> dict[str, Any]:
        document, problems = usable(node_document(self._document, self._node, self._doors))
        for camera, text in problems.items():
            log.error("camera %s cannot run on this node: %s", camera, text)
        told = "; ".join(f"camera {camera} cannot run here: {text}" for camera, text in list(problems.items())[:_TOLD])
        self._problem = redact(told)
        return document


def _reachable(url: str, host: str, address: str) -> str:
    """Return the URL of a server for other machines: if it listens on all addresses, with one that they know."""
    if host not in _ANY_HOST:
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{address or socket.gethostname()}:{rest.rpartition(':')[2]}"


def _home(folder: Path | None) -> str:
    """Return the text that tells a state folder from all others; it is made when it is first asked for."""
    if folder is None:
        return secrets.token_hex(16)
    path = folder / HOME_NAME
    try:
        text = path.read_text("ascii").strip()
    except (OSError, ValueError):
        text = ""
    if text:
        return text[:64]
    text = secrets.token_hex(16)
    try:
        replace_file(path, f"{text}\n")
    except OSError as error:
        log.warning("%s cannot be written (%s): a start of this node again will not be known as one", path, error)
    return text
