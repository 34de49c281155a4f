"""Ray nodes with Ray Serve on this machine, and daemons beside them: what a fleet serves pictures with.

The Ray cluster is a process of its own: run as a program, this module starts it, prints the ids of its nodes, and
deploys the pictures' APIs after a line on its stdin; another line ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.broker import free_port
from tests.support.process import ManagedProcess
from tests.support.program import RunningDaemon
from tests.support.waiting import until
from visaged.daemon.fleet.pictures.doors import folder_of

START_S = 90.0
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # a token would be kept in the user's home folder
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}


@dataclass(frozen=True)
class ServedFleet:
    """A fleet whose pictures are served.

    Attributes:
        client: Asks Ray Serve.
        daemons: The daemons; the first one is beside the proxy that is asked.
        ray: The process with the Ray cluster.
    """

    client: httpx.Client
    daemons: list[RunningDaemon]
    ray: ManagedProcess


@contextlib.contextmanager
def served_fleet(folder: Path, document: dict[str, Any], nodes: int = 2) -> Iterator[ServedFleet]:
    """Run Ray nodes, a daemon beside each, and Ray Serve in front of them."""
    port = free_port()
    document = {"mqtt": {"port": free_port()}} | document
    document["http"] = {"port": 0, "fleet": {"enabled": True, "port": port}} | document.get("http", {})
    config = folder / "fleet.yaml"
    config.write_text(yaml.safe_dump(document))
    # Sockets have short paths.
    temporary = tempfile.mkdtemp(prefix="vr-", dir="/tmp")
    command = [sys.executable, "-m", "tests.support.served_fleet", temporary, str(config), str(nodes)]
    ray = ManagedProcess(command, env=os.environ | ENVIRONMENT)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        stack.callback(ray.stop, 30.0)
        daemons = []
        for number, node in enumerate(json.loads(ray.wait_for_line("[", START_S))):
            own = folder / str(number)
            own.mkdir()
            http = document["http"] | {"fleet": document["http"]["fleet"] | {"doors": str(folder_of("visaged", node))}}
            daemon = RunningDaemon(own, document | {"http": http, "node": f"node-{number}"})
            daemons.append(stack.enter_context(daemon))
        ray.write_line("deploy")
        ray.wait_for_line("deployed", START_S)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        stack.enter_context(client)
        until(lambda: _status(client) == 404, START_S)
        yield ServedFleet(client, daemons, ray)
        ray.write_line("end")
        ray.wait_for_line("ended", START_S)


def _status(client: httpx.Client) -> int:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/nothing").status_code
    return 0


def main(temporary: str, config: str, nodes: int) -> None:
    """Run the Ray cluster, as the lines on stdin say."""
    import ray
    from ray._common.utils import get_default_ray_temp_dir
    from ray.cluster_utils import Cluster

    from visaged.daemon.fleet.pictures import deployment
    from visaged.daemon.settings import load

    os.makedirs(get_default_ray_temp_dir(), exist_ok=True)  # ray.cluster_utils writes its address there
    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(head_node_args=small | {"include_dashboard": False, "temp_dir": temporary}, initialize_head=True)
    for _ in range(nodes - 1):
        cluster.add_node(**small)
    ray.init(address=cluster.address, log_to_driver=False)
    # The proxy of the head is the one that is asked; both listen on the same port of this machine.
    print(json.dumps([node["NodeID"] for node in ray.nodes()]), flush=True)
    settings = load(Path(config))
    for line in sys.stdin:
        if line.strip() == "deploy":
            deployment.deploy(settings)
            print("deployed", flush=True)
        else:
            deployment.undeploy(settings.fleet.name)
            print("ended", flush=True)
            break
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
