"""Finds what is wrong with a fleet's configuration, before any node has it."""

from __future__ import annotations

from typing import Any

from visaged.daemon.config.document import ConfigProblem, SettingsError
from visaged.daemon.fleet.plan.documents import need_of, node_document
from visaged.daemon.fleet.plan.placement import Machine, Need
from visaged.daemon.settings import Settings, parse


def fleet_problems(document: dict[str, Any]) -> list[ConfigProblem]:
    """Return what keeps a fleet from running with a configuration.

    Files and passwords are not looked for: they belong to the nodes.

    Args:
        document: The configuration as plain data.
    """
    try:
        settings = parse(document)
    except SettingsError as error:
        return error.problems
    problems = _common(settings, "")
    for name in settings.fleet.nodes:
        where = f"fleet.nodes.{name}.settings"
        try:
            own = parse(node_document(document, name))
        except SettingsError as error:
            problems += [ConfigProblem(f"{where}: {one.path}", one.text) for one in error.problems]
        else:
            problems += [one for one in _common(own, f"{where}: ") if one.text not in {p.text for p in problems}]
    return problems + _names(document, settings) + _homeless(document, settings)


def _common(settings: Settings, where: str) -> list[ConfigProblem]:
    problems = []
    if settings.mqtt.embedded:
        text = "the embedded broker is for one machine: run a broker that all nodes reach, and name it as host"
        problems.append(ConfigProblem(f"{where}mqtt.embedded", text))
    if settings.mqtt.client_id is not None:
        text = "the broker closes one of two connections with one client_id: leave it out, and each node has its own"
        problems.append(ConfigProblem(f"{where}mqtt.client_id", text))
    if settings.state_dir is None:
        text = "a node numbers its runs, and keeps its events, in a state folder: give one, or leave the key out"
        problems.append(ConfigProblem(f"{where}state_dir", text))
    return problems


def _names(document: dict[str, Any], settings: Settings) -> list[ConfigProblem]:
    problems = []
    if "node" in document:
        problems.append(ConfigProblem("node", "each node of a fleet has a name of its own: leave this out"))
    for name in settings.fleet.nodes:
        if any(camera.name == name for camera in settings.cameras):
            text = f"there is a camera {name} too, and both have a status topic; rename one"
            problems.append(ConfigProblem(f"fleet.nodes.{name}", text))
    return problems


def _homeless(document: dict[str, Any], settings: Settings) -> list[ConfigProblem]:
    """Return a problem for each camera that no listed node may hold, unless another node may turn up that does."""
    fleet = settings.fleet
    listed = [
        Machine(name, fleet.default_capacity if node.capacity is None else node.capacity, node.site)
        for name, node in fleet.nodes.items()
    ]
    problems = []
    for index, camera in enumerate(document.get("cameras") or []):
        need = need_of(camera)
        if need.site is None and not fleet.only_listed and _may_turn_up(need, {machine.name for machine in listed}):
            continue
        fitting = [machine for machine in listed if need.allows(machine)]
        if not fitting:
            problems.append(ConfigProblem(f"cameras[{index}].fleet", f"no node may hold {need.camera}: {_lack(need)}"))
        elif all(need.weight > machine.capacity for machine in fitting):
            largest = max(machine.capacity for machine in fitting)
            text = (
                f"no node can hold {need.camera}: its weight is {need.weight:g}, and the capacity of those that may is "
                f"{largest:g} at most"
            )
            problems.append(ConfigProblem(f"cameras[{index}].fleet.weight", text))
    return problems


def _may_turn_up(need: Need, listed: set[str]) -> bool:
    return need.nodes is None or bool(need.nodes - listed)


def _lack(need: Need) -> str:
    wanted = []
    if need.nodes is not None:
        wanted.append(f"one of the nodes {', '.join(sorted(need.nodes))}")
    if need.site is not None:
        wanted.append(f"a node of site {need.site}")
    wish = " and ".join(wanted) or "any node"
    return f"it asks for {wish}, and there is none like that under fleet.nodes"
