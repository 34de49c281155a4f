"""A fleet as the command line sees it: its coordinator, found or made, and asked."""

from __future__ import annotations

import time
from typing import Any

import ray

from visaged.daemon.errors import StartError
from visaged.daemon.fleet.cluster.coordinator import CoordinatorActor
from visaged.daemon.fleet.cluster.names import NAMESPACE, coordinator_name
from visaged.daemon.fleet.cluster.versions import Versions
from visaged.daemon.fleet.plan.documents import FleetError
from visaged.daemon.fleet.records import FleetView

_ANSWER_S = 30.0
"""Longest time in seconds for an answer; a coordinator that is being started again takes about one of them."""
_STOP_S = 40.0
_RETRY_S = 0.2
_READING = ("versions", "view", "document")
"""What changes nothing."""
_HEAD = "node:__internal_head__"


class _StartedAgain(StartError):
    """The coordinator has ended, and Ray starts it again."""


class FleetClient:
    """The coordinator of a fleet. The process must be connected to the cluster.

    Args:
        fleet: Name of the fleet.
        actor: Handle of the actor.
    """

    def __init__(self, fleet: str, actor: Any) -> None:
        self.fleet = fleet
        self._actor = actor

    @classmethod
    def find(cls, fleet: str | None) -> FleetClient:
        """Return the client of a fleet that runs; with None, of the only one.

        Raises:
            StartError: There is none, or there are several; the text names those that there are.
        """
        names = running_fleets()
        if fleet is None and len(names) == 1:
            fleet = names[0]
        known = f"there: {', '.join(names)}" if names else "there is none; `visaged fleet run` starts one"
        if fleet is None:
            what = (
                "several fleets run on this cluster; name one with --fleet"
                if names
                else "no fleet runs on this cluster"
            )
            raise StartError(f"{what} ({known})")
        try:
            return cls(fleet, ray.get_actor(coordinator_name(fleet), NAMESPACE))
        except ValueError:
            raise StartError(f"no fleet {fleet} runs on this cluster ({known})") from None

    @classmethod
    def start(cls, fleet: str) -> FleetClient:
        """Return the client of a fleet, whose coordinator is made if there is none.

        It is bound to the head node, by a resource that Ray gives to that alone. On another machine that is cut off, it
        would go on renewing the leases of the nodes that are cut off with it, while Ray has another one running; with
        the head, all that Ray decides is cut off too. A head that is started again with its state starts it again.
        """
        actor = (
            ray.remote(CoordinatorActor)
            .options(
                name=coordinator_name(fleet),
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                resources={_HEAD: 0.001},
                max_restarts=-1,
                max_concurrency=1000,
            )
            .remote(fleet)
        )
        return cls(fleet, actor)

    def same_version(self) -> None:
        """Raise `FleetError` if the fleet runs with other versions than this program."""
        there: Versions = self.ask("versions")
        trouble = Versions.here().against(there)
        if trouble:
            raise FleetError(
                f"the coordinator of fleet {self.fleet} runs other versions than this program: {trouble}, and after an "
                "upgrade, `visaged fleet stop` and `run` again"
            )

    def view(self) -> FleetView:
        """Return how the fleet does."""
        view: FleetView = self.ask("view")
        return view

    def ask(self, method: str, *arguments: object) -> Any:
        """Return the answer of the coordinator.

        Raises:
            FleetError: It refused.
            StartError: It does not answer.
        """
        until_s = time.monotonic() + _ANSWER_S
        try:
            while True:
                try:
                    return self._get(getattr(self._actor, method).remote(*arguments), _ANSWER_S)
                except _StartedAgain:
                    # What was asked may have been done; what only reads can be asked again.
                    if method not in _READING or time.monotonic() > until_s:
                        raise
                    time.sleep(_RETRY_S)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, FleetError):
                raise FleetError(str(error.cause)) from None
            raise StartError(f"the coordinator of fleet {self.fleet} cannot do that now: {error.cause}") from None

    def stop(self) -> None:
        """End the fleet: its nodes in order, then the coordinator, and all that it has kept."""
        self._get(self._actor.stop.remote(), _STOP_S)
        ray.kill(self._actor, no_restart=True)

    def exists(self) -> bool:
        """Return whether the coordinator is there, or is being started again."""
        return self.fleet in running_fleets()

    def _get(self, answer: Any, timeout_s: float) -> Any:
        try:
            return ray.get(answer, timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise StartError(f"the coordinator of fleet {self.fleet} has not answered in {timeout_s:.0f} s") from None
        except ray.exceptions.ActorUnavailableError:
            raise _StartedAgain(f"the coordinator of fleet {self.fleet} is being started again; try again") from None
        except ray.exceptions.RayActorError as error:
            raise StartError(f"the coordinator of fleet {self.fleet} has ended: {error}") from None


def running_fleets() -> list[str]:
    """Return the names of the fleets on the cluster."""
    prefix = coordinator_name("")
    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["namespace"] == NAMESPACE]
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix) and "/" not in name)
