"""A Ray cluster of several machines on this one: each is a raylet of its own, with the processes it has started."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import ray
from ray.cluster_utils import Cluster

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # The head keeps its state, as one does that is to be restarted.
    "RAY_gcs_storage": "rocksdb",
    # Ray is to notice a dead machine in seconds; leases do not depend on it.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
_STORE_BYTES = 80_000_000  # Ray's least object store


class RayCluster:
    """The cluster, while its `with` block runs; this process is connected to it.

    Args:
        names: Names of the machines besides the head, which has none that a fleet lists.
        cores: The core that each machine has; None for all.
        host: Address of the head; by default that of this machine.
    """

    def __init__(self, names: Sequence[str], cores: Sequence[int] | None = None, host: str | None = None) -> None:
        self._names = names
        self._cores = None if cores is None else dict(zip(names, cores, strict=True))
        self._host = {} if host is None else {"node_ip_address": host}
        self._cluster: Cluster | None = None
        self._machines: dict[str, Any] = {}
        self._before: dict[str, str | None] = {}
        # Sockets lie there, whose paths must be short.
        self._folder = tempfile.TemporaryDirectory(prefix="vray-", ignore_cleanup_errors=True)

    @property
    def address(self) -> str:
        """The address of the head, for `--address`."""
        assert self._cluster is not None
        return str(self._cluster.address)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        folder = Path(self._folder.name)
        (folder / "ray").mkdir()
        environment = ENVIRONMENT | {"RAY_TMPDIR": str(folder), "RAY_gcs_storage_path": str(folder / "gcs")}
        self._before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        self._cluster = Cluster(
            initialize_head=True,
            shutdown_at_exit=False,  # its handlers need the main thread
            head_node_args={
                "num_cpus": 0,
                "object_store_memory": _STORE_BYTES,
                "include_dashboard": False,
                "labels": {"visaged-node": "head"},
                **self._host,
            },
        )
        for name in self._names:
            self.add(name)
        ray.init(address=self.address, namespace="visaged", log_to_driver=False, logging_level="ERROR")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ray.shutdown()
        for name in list(self._machines):
            self.kill(name)
        if self._cluster is not None:
            _kill([self._raylet(self._cluster.head_node)])
            self._cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
        self._folder.cleanup()

    def add(self, name: str, label: str = "") -> None:
        """Start a machine, and wait until it has joined; its label is its name if none is given."""
        assert self._cluster is not None
        before = os.sched_getaffinity(0)
        if self._cores is not None:
            os.sched_setaffinity(0, {self._cores[name]})  # which its processes inherit
        try:
            self._machines[name] = self._started(label or name)
        finally:
            os.sched_setaffinity(0, before)

    def _started(self, label: str) -> Any:
        assert self._cluster is not None
        for last in (False, True):
            try:
                return self._cluster.add_node(
                    num_cpus=1, object_store_memory=_STORE_BYTES, labels={"visaged-node": label}
                )
            except Exception:  # Ray gives up after 30 s, which a loaded machine may need
                if last:
                    raise
        raise AssertionError("unreachable")

    def kill(self, name: str) -> None:
        """End a machine at once, with all that runs on it (SIGKILL)."""
        machine = self._machines.pop(name)
        _kill([self._raylet(machine)])
        machine.kill_all_processes(check_alive=False, allow_graceful=False)
        self._cluster.worker_nodes.discard(machine)

    def node_actor(self, name: str) -> psutil.Process:
        """The process of a machine's node actor."""
        return self._actor(self._machines[name], "NodeActor")

    def coordinator(self) -> psutil.Process:
        """The process of the coordinator."""
        assert self._cluster is not None
        return self._actor(self._cluster.head_node, "CoordinatorActor")

    def restart_head(self) -> None:
        """Kill the head process (GCS), and start it again with what it has kept."""
        self._cluster.head_node.kill_gcs_server(check_alive=False)
        self._cluster.head_node.start_gcs_server()

    def _raylet(self, machine: Any) -> int:
        return int(machine.all_processes["raylet"][0].process.pid)

    def _actor(self, machine: Any, kind: str) -> psutil.Process:
        for process in psutil.Process(self._raylet(machine)).children(recursive=True):
            if f"ray::{kind}" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                return process
        raise LookupError(f"there is no {kind}")


def _kill(pids: Sequence[int]) -> None:
    """Kill processes with all that they have started, which gets no chance to notice."""
    processes = []
    for pid in pids:
        try:
            parent = psutil.Process(pid)
            processes += [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
    psutil.wait_procs(processes, timeout=10)
