"""A node's life: it enters the fleet, runs its daemon, and keeps its coordinator's orders.

The coordinator may be away at any time, for about a second while Ray starts it again. Calls are then tried again at
once; what the node holds meanwhile is decided by its leases alone.
"""

from __future__ import annotations

import gc
import json
import logging
import threading
import time
from typing import Any

import ray
from prometheus_client import disable_created_metrics

from visaged.daemon.config.document import SettingsError
from visaged.daemon.errors import StartError
from visaged.daemon.fleet.cluster.names import NAMESPACE, coordinator_name
from visaged.daemon.fleet.cluster.versions import Versions
from visaged.daemon.fleet.node.member import Member
from visaged.daemon.fleet.pictures.doors import folder_of
from visaged.daemon.fleet.records import FleetView, NodeReport, Orders
from visaged.daemon.logs.setup import ProcessLog
from visaged.pipelines.runtime.metrics import Metrics

log = logging.getLogger(__name__)

_RETRY_S = 0.2
"""Pause in seconds after a call that failed; a coordinator is back about a second after its end."""
_REFUSED_S = 5.0
"""Seconds after which a node that was refused asks again."""
_TROUBLE_S = 30.0
"""Seconds after which a node that could not start its daemon ends its process, to be started anew."""
_SHORT_S = 60.0
"""A daemon that ends by a fault before so many seconds waits for `_PAUSE_S` before it is started again."""
_PAUSE_S = 5.0
_ENTER_S = 5.0
_VIEW_S = 5.0
_LAST_LINES_S = 0.4


class CallFailed(Exception):
    """The coordinator did not answer; the text says why."""


class Coordinator:
    """The coordinator as its nodes call it.

    Args:
        fleet: Name of the fleet.
    """

    def __init__(self, fleet: str) -> None:
        self._name = coordinator_name(fleet)
        self._actor: Any = None

    def call(self, method: str, timeout_s: float, *arguments: object) -> Any:
        """Return what a method of the coordinator returns; raises `CallFailed`."""
        try:
            if self._actor is None:
                self._actor = ray.get_actor(self._name, NAMESPACE)
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=timeout_s)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError) as error:
            raise CallFailed(f"it does not answer ({type(error).__name__})") from None
        except ray.exceptions.RayTaskError as error:  # such as a store that takes nothing
            raise CallFailed(f"it cannot do that now: {error.cause}") from None
        except (ray.exceptions.RayError, ValueError) as error:
            self._actor = None  # it is gone for good; another may have its name by now
            raise CallFailed(f"there is none ({type(error).__name__})") from None


class Life:
    """One run of a node.

    Args:
        fleet: Name of the fleet.
        node: Name of this node.
    """

    def __init__(self, fleet: str, node: str) -> None:
        self._fleet, self._node = fleet, node
        self._coordinator = Coordinator(fleet)
        self._stopping = threading.Event()
        self._member: Member | None = None

    def stop(self) -> None:
        """Ask the node to end its daemon and to leave the fleet; from any thread."""
        self._stopping.set()
        member = self._member
        if member is not None:
            member.stop()

    def run(self) -> int:
        """Take part until `stop` is called or the daemon ends; return the exit code for the process."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        metrics = Metrics()
        process_log = ProcessLog(metrics)
        try:
            document = self._enter()
            if document is None:
                return 0
            return self._take_part(document, process_log, metrics)
        except (StartError, SettingsError, OSError) as error:
            text = "; ".join(map(str, error.problems)) if isinstance(error, SettingsError) else str(error)
            log.error("this node cannot take part in the fleet: %s", text)
            self._tell(text)
            self._stopping.wait(_TROUBLE_S)
            return 0 if self._stopping.is_set() else 3
        finally:
            process_log.close(_LAST_LINES_S)

    def _enter(self) -> dict[str, Any] | None:
        """Return the configuration of the fleet, once it lets this node in; None if asked to stop before."""
        said = ""
        while not self._stopping.is_set():
            try:
                config, refused = self._coordinator.call("enter", _ENTER_S, self._node, Versions.here())
            except CallFailed as failure:
                refused, pause_s, config = f"the coordinator cannot be asked: {failure}", _RETRY_S, b""
            else:
                pause_s = _REFUSED_S
            if not refused:
                document: dict[str, Any] = json.loads(config)
                return document
            if refused != said:
                log.warning("not let into the fleet: %s", refused)
                said = refused
            self._stopping.wait(pause_s)
        return None

    def _take_part(self, document: dict[str, Any], process_log: ProcessLog, metrics: Metrics) -> int:
        address = ray.util.get_node_ip_address()
        doors = folder_of(self._fleet, ray.get_runtime_context().get_node_id())
        version = Versions.here().visaged
        member = Member(document, self._node, version, address, metrics=metrics, view=self._view, doors=doors)
        try:
            process_log.configure(member.settings.log)
            member.find_capacity(self._stopping)
            if not self._join(member):
                return 0
            self._member = member
            if self._stopping.is_set():
                return 0
            gc.collect()
            gc.freeze()  # as `visaged run` does
            over = threading.Event()
            heart = threading.Thread(target=self._beat, args=(member, over), name="heartbeat", daemon=True)
            heart.start()
            began_s = time.monotonic()
            try:
                code = member.run()
            finally:
                over.set()
                heart.join(_ENTER_S)
            if code and time.monotonic() - began_s < _SHORT_S:
                self._stopping.wait(_PAUSE_S)
            return code
        finally:
            self._member = None
            member.close()

    def _view(self) -> FleetView:
        """Return the newest view of the fleet; raises `CallFailed`."""
        view: FleetView = self._coordinator.call("view", _VIEW_S)
        return view

    def _join(self, member: Member) -> bool:
        """Join the fleet; return False if asked to stop before."""
        while not self._stopping.is_set():
            try:
                joined = self._coordinator.call("join", _ENTER_S, member.report())
            except CallFailed:
                self._stopping.wait(_RETRY_S)
                continue
            if not joined.refused:
                member.join(joined)
                return True
            log.warning("not let into the fleet: %s", joined.refused)
            self._stopping.wait(_REFUSED_S)
        return False

    def _beat(self, member: Member, over: threading.Event) -> None:
        """Report, and obey, until the daemon has ended; then report once more, that all cameras are let go."""
        period_s, lost_s = 1.0, None
        while not over.is_set():
            sent_s = member.now()
            try:
                orders = self._report(member.report(), member.config_version, max(1.0, 2 * period_s))
            except CallFailed as failure:
                if lost_s is None:
                    lost_s = sent_s
                    log.warning("the coordinator does not answer: %s; cameras go on until their leases end", failure)
                over.wait(_RETRY_S)
                continue
            if lost_s is not None:
                log.warning("the coordinator answers again, after %.1f s", sent_s - lost_s)
                lost_s = None
            member.obey(orders, sent_s)
            period_s = orders.lease_s / 6
            over.wait(max(0.0, orders.report_in_s - (member.now() - sent_s)))
        try:
            self._report(member.report(), member.config_version, 1.0)
        except CallFailed:
            pass

    def _report(self, report: NodeReport, config_version: str, timeout_s: float) -> Orders:
        orders: Orders = self._coordinator.call("heartbeat", timeout_s, report, config_version)
        return orders

    def _tell(self, text: str) -> None:
        try:
            self._coordinator.call("trouble", _ENTER_S, self._node, text)
        except CallFailed as failure:
            log.warning("the coordinator could not be told: %s", failure)
