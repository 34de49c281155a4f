"""A machine of a fleet is cut off from all others, and comes back: nodes in network namespaces on a bridge. Needs root.

The head, the broker and the listener are on the bridge's own address; each node has a namespace and an address of its
own. The cable of one is pulled, and plugged in again. Its daemon goes on all the time, without a coordinator or broker.
Ray takes a machine that it does not hear of for dead after some seconds, and ends what runs there once it hears of it
again; so does this one's cut, if it is long. Whoever starts Ray there (a service manager) starts it again, and so does
this benchmark.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import ray

from tests.benchmarks.fleet.rig import CLIP, is_frame, told
from tests.support.broker import MosquittoBroker
from tests.support.fleet import Fleet, account, all_stream, camera, owners
from tests.support.process import ManagedProcess
from tests.support.ray_cluster import ENVIRONMENT, RayCluster
from tests.support.subscriber import Subscriber

BRIDGE, NETWORK = "visaged0", "10.213.77"
HEAD = f"{NETWORK}.1"
NODES = ("a", "b")
CAMERAS = 3
LEASE_S = 6.0


def main(cut_s: float = 12.0) -> None:
    """Cut one of two nodes off for so long, plug it in again, and print what came of it."""
    if os.geteuid():
        sys.exit("network namespaces need root")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="visaged-cut-")))
        stack.enter_context(_bridge())
        broker = MosquittoBroker(folder / "broker")
        broker.host = HEAD
        stack.enter_context(broker)
        subscriber = stack.enter_context(Subscriber(broker, "visaged/#"))
        cluster = stack.enter_context(RayCluster((), host=HEAD))
        machines = {name: stack.enter_context(_machine(number, name, cluster)) for number, name in enumerate(NODES, 2)}
        given = [{"name": f"cam{i}", "url": str(CLIP), "loop": True, "fps": 2} for i in range(CAMERAS)]
        fleet = Fleet(cluster, broker, folder, {name: {} for name in NODES}, given, LEASE_S)
        fleet.run()
        before = fleet.wait_for(lambda view: all_stream(view) and set(owners(view).values()) == set(NODES), 120)
        node = NODES[-1]
        lost = [name for name, owner in owners(before).items() if owner == node]
        _run("ip", "link", "set", f"v{node}", "down")
        cut_at_s = time.monotonic()
        silent = []
        for name in lost:
            epoch = camera(before, name).epoch
            first = subscriber.wait_for(lambda one, n=name, e=epoch: is_frame(one, n, e), 60)
            silent.append(first.received_at - cut_at_s)
        time.sleep(max(0.0, cut_s - (time.monotonic() - cut_at_s)))
        _run("ip", "link", "set", f"v{node}", "up")
        healed_s = time.monotonic()
        while time.monotonic() - healed_s < 15 and machines[node].is_running:
            time.sleep(0.5)
        gone = not machines[node].is_running
        if gone:
            machines[node] = stack.enter_context(_ray(node, cluster, len(NODES) + 1))
        fleet.wait_for(lambda view: all_stream(view) and node in owners(view).values(), 120)
        back_s = time.monotonic() - healed_s
        fleet.command("stop")
        time.sleep(5)
        found = account(subscriber.messages)
    times = " ".join(f"{one:.1f}" for one in silent)
    what = "Ray ended there and was started again" if gone else "Ray went on there"
    print(
        f"node {node} cut off for {cut_s:g} s, lease {LEASE_S:g} s: its {len(lost)} cameras elsewhere after {times} s"
    )
    print(f"  {what}; it had cameras again {back_s:.1f} s after the cut")
    print(f"  {told(found)}")


@contextmanager
def _bridge() -> Iterator[None]:
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    try:
        _run("ip", "addr", "add", f"{HEAD}/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        yield
    finally:
        _run("ip", "link", "del", BRIDGE)


@contextmanager
def _machine(number: int, name: str, cluster: RayCluster) -> Iterator[ManagedProcess]:
    """A namespace with a cable to the bridge, and Ray in it."""
    space = _space(name)
    _run("ip", "netns", "add", space)
    try:
        _run("ip", "link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", space)
        _run("ip", "link", "set", f"v{name}", "master", BRIDGE, "up")
        for words in (f"addr add {NETWORK}.{number}/24 dev eth0", "link set eth0 up", "link set lo up"):
            _run("ip", "-n", space, *words.split())
        with _ray(name, cluster, number) as process:
            yield process
    finally:
        _run("ip", "netns", "del", space)


@contextmanager
def _ray(name: str, cluster: RayCluster, number: int) -> Iterator[ManagedProcess]:
    argv = ["ip", "netns", "exec", _space(name), sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    argv += [f"--address={cluster.address}", f"--node-ip-address={NETWORK}.{number}", "--num-cpus=1"]
    argv += ["--object-store-memory=80000000", f"--labels=visaged-node={name}"]
    with ManagedProcess(argv, env=os.environ | ENVIRONMENT) as process:
        process.wait_for_line("Ray runtime started", 90)
        while not any(one["Alive"] and one["Labels"].get("visaged-node") == name for one in ray.nodes()):
            time.sleep(0.2)
        try:
            yield process
        finally:
            process.stop(20)


def _space(name: str) -> str:
    return f"visaged-{name}"


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)
