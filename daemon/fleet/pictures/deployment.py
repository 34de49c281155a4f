"""Deploys the pictures' APIs on Ray Serve: a replica on every Ray node, in front of the node's own daemon.

A replica holds no network; it passes requests on. It is healthy as long as it runs. Were it to fail Serve's health
check while its node is away, Serve would end it and start another one in its place, which would mend nothing, as the
node is not in it. What it knows of its node (`/readyz`, asked at each of Serve's checks) decides where its requests go.

A proxy of Serve sends requests to the replica on its own node as long as that takes any. So it is the replicas that
share the load: one whose node is full has another one answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig, HTTPOptions, ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from visaged.daemon.errors import StartError
from visaged.daemon.fleet.pictures.door import Answer, Door
from visaged.daemon.fleet.pictures.doors import API, OSS, folder_of
from visaged.daemon.fleet.pictures.front import Front
from visaged.daemon.fleet.pictures.heads import Head
from visaged.daemon.fleet.pictures.paths import Paths, Served
from visaged.pipelines.runtime.credentials import file_of

if TYPE_CHECKING:  # a replica does without the networks' libraries, which the settings import
    from visaged.daemon.settings import Settings

_NAME = "pictures"
_POLICY = "visaged.daemon.fleet.pictures.policy:one_for_each_node"
_MOST_NODES = 10_000
# Seconds after which a node that has gone has no replica to wait for it any more.
_GONE_S = 10.0
# Seconds from one look at the node to the next; all replicas are asked by Serve's one controller.
_CHECK_S = 5.0
# Seconds for an answer's head beyond `http.deadline_s`.
_SLACK_S = 5.0
# Requests of a replica, and of a proxy's queue, that are there only to be refused, which takes milliseconds. Beyond
# them Serve refuses by itself, in plain text.
_BEYOND = 200


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a replica has to know.

    Attributes:
        fleet: Name of the fleet.
        served: What is served.
        waiting: Most pictures that a node analyses or holds ready at a time.
        keep_bytes: Most bytes of bodies that a replica keeps.
        patience_s: Longest time in seconds for a node's answer.
    """

    fleet: str
    served: Served
    waiting: int
    keep_bytes: int
    patience_s: float


class _Replicas:
    """The replicas of the deployment.

    Args:
        handle: Leads to one of them.
        asker: Id of the Ray node of the one that asks.
    """

    def __init__(self, handle: Any, asker: str) -> None:
        self._handle = handle.options(method_name="pass_on", stream=True)
        self._asker = asker

    @contextlib.asynccontextmanager
    async def ask(self, door: str, head: Head, body: bytes) -> AsyncIterator[Answer | None]:
        """Ask one of them; None if that is the one that asks, or could not answer."""
        stream = self._handle.remote(self._asker, door, head, body)  # a DeploymentResponseGenerator
        try:
            try:
                first = await anext(stream)
            except Exception:  # what Serve and Ray raise for replicas that are full, ended or never came
                first = None
            yield None if first is None else Answer(first[0], first[1], stream)
        finally:
            stream.cancel()


def deploy(settings: Settings) -> None:
    """Deploy the APIs, or change what is deployed; does not wait until they answer.

    It takes seconds, so not in an event loop. The process is connected to the Ray cluster.

    Args:
        settings: The configuration of the fleet, with `http.fleet.enabled`.

    Raises:
        StartError: Another application of the cluster is at the same address, or TLS files are missing.
    """
    http, oss = settings.http, settings.oss
    domains = {domain: bucket.name for bucket in oss.buckets for domain in bucket.domains}
    served = Served(settings.kit.enabled, oss.enabled, tuple(oss.endpoints), domains)
    plan = _Plan(
        settings.fleet.name, served, http.max_waiting, int(http.max_bodies_mb * 1e6), http.deadline_s + _SLACK_S
    )
    options: dict[str, Any] = {}
    if http.tls is not None:
        try:
            options = {"ssl_certfile": str(file_of(http.tls.certificate)), "ssl_keyfile": str(file_of(http.tls.key))}
        except OSError as error:
            raise StartError(f"http.tls: {error.strerror}; name files that are on every node") from None
    serve.start(
        proxy_location=ProxyLocation.EveryNode,
        http_options=HTTPOptions(host=http.fleet.host, port=http.fleet.port, **options),
    )
    target = serve.RunTarget(_application(plan), name=_application_name(plan.fleet), route_prefix="/")
    try:
        serve.run_many([target], wait_for_applications_running=False)
    except (RayServeException, ValueError) as error:
        raise StartError(f"Ray Serve does not take the pictures' APIs: {error}") from None


def undeploy(fleet: str) -> None:
    """Remove what was deployed for a fleet, and end Serve if nothing else is on it."""
    names = serve.status().applications
    if _application_name(fleet) in names:
        serve.delete(_application_name(fleet))
    if names.keys() <= {_application_name(fleet)}:
        serve.shutdown()


def _application_name(fleet: str) -> str:
    return f"visaged-{fleet}"


def _application(plan: _Plan) -> serve.Application:
    def build() -> Front:
        return _front(plan)

    @serve.ingress(build)
    class Replica:
        """A replica; `app` is its `Front`, which Serve builds."""

        async def pass_on(self, asker: str, door: str, head: Head, body: bytes) -> AsyncIterator[Any]:
            """Yield status and headers of the node's answer, then its body's pieces; None alone if it has none."""
            if asker == _ray_node():
                yield None
                return
            front = cast("Front", self.app)  # type: ignore[attr-defined]
            async for found in front.pass_on(door, head, body):
                if found is None:
                    yield None
                    return
                yield found.status, found.headers
                async for piece in found.pieces:
                    yield piece

        async def check_health(self) -> None:
            """Look at the node; a replica is healthy whatever it sees."""
            await cast("Front", self.app).look()  # type: ignore[attr-defined]

    deployment: Any = serve.deployment(
        Replica,
        name=_NAME,
        autoscaling_config=AutoscalingConfig(
            min_replicas=1,
            max_replicas=_MOST_NODES,
            policy=AutoscalingPolicy(policy_function=_POLICY),
            upscale_delay_s=0,
            downscale_delay_s=_GONE_S,
        ),
        max_replicas_per_node=1,
        max_ongoing_requests=_most(plan) + _BEYOND,
        max_queued_requests=_BEYOND,
        backpressure_config=BackpressureConfig(retry_after_s=1),
        health_check_period_s=_CHECK_S,
        health_check_timeout_s=2 * plan.patience_s,
        ray_actor_options={"num_cpus": 0},
        logging_config=LoggingConfig(enable_access_log=False),  # the nodes log requests
    )
    return cast("serve.Application", deployment.bind())


def _front(plan: _Plan) -> Front:
    node = _ray_node()
    folder = folder_of(plan.fleet, node)
    handle = serve.get_deployment_handle(_NAME, _application_name(plan.fleet))
    return Front(
        {name: Door(folder / name, plan.patience_s) for name in (API, OSS)},
        Paths(plan.served),
        _Replicas(handle, node),
        most=_most(plan),
        most_passed=plan.waiting,
        keep_bytes=plan.keep_bytes,
        is_ready=False,
    )


def _most(plan: _Plan) -> int:
    """Return how many requests a replica works on at a time: more than its node, as some are still uploading."""
    return 3 * plan.waiting


def _ray_node() -> str:
    return str(ray.get_runtime_context().get_node_id())
