"""What is wrong with a configuration as that of a fleet, beyond what is wrong with it on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visaged.daemon.config.document import ConfigProblem, SettingsError
from visaged.daemon.fleet.settings import CameraFleet, FleetSettings
from visaged.daemon.management.patches import merged
from visaged.daemon.settings import parse

Document = dict[str, Any]


def fleet_problems(document: Document) -> list[ConfigProblem]:
    """Return what keeps a fleet from running with a configuration, each with the path of its key.

    Files, passwords and networks are not looked at: those of the nodes count.

    Args:
        document: The configuration as plain data.
    """
    try:
        settings = parse(document)
    except SettingsError as error:
        return error.problems
    problems = _of_nodes(document, settings.fleet)
    if settings.mqtt.client_id is not None:
        text = "a broker closes one of two connections with one client_id: leave it out, and each node has its own"
        problems.append(ConfigProblem("mqtt.client_id", text))
    if settings.state_dir is None:
        text = "a node keeps the number of its run, and its events, in a state folder: name one, or leave the key out"
        problems.append(ConfigProblem("state_dir", text))
    for index, camera in enumerate(settings.cameras):
        why = _nowhere(camera.fleet, settings.fleet)
        if why:
            problems.append(ConfigProblem(f"cameras[{index}].fleet", f"camera {camera.name} fits no node: {why}"))
    return problems


def embedded_broker(document: Mapping[str, Any]) -> ConfigProblem | None:
    """Return the refusal of a broker in the daemon's own process, which a fleet cannot share; None if there is none."""
    mqtt = document.get("mqtt")
    if not isinstance(mqtt, Mapping) or not mqtt.get("embedded"):
        return None
    text = "the nodes of a fleet need one broker for all: set it to false, and host to a broker of your own"
    return ConfigProblem("mqtt.embedded", text)


def _of_nodes(document: Document, fleet: FleetSettings) -> list[ConfigProblem]:
    """Return what is wrong with the configuration of each node, told once where it is the same for all."""
    embedded = embedded_broker(document)
    if embedded is not None:
        return [embedded]
    problems = []
    for name, node in fleet.nodes.items():
        own = merged(document, node.settings) | {"node": name}
        path = f"fleet.nodes.{name}.settings"
        embedded = embedded_broker(own)
        if embedded is not None:
            problems.append(ConfigProblem(f"{path}.{embedded.path}", embedded.text))
            continue
        try:
            parse(own)
        except SettingsError as error:
            problems += [ConfigProblem(f"{path}: {one.path}" if one.path else path, one.text) for one in error.problems]
    return problems


def _nowhere(wanted: CameraFleet, fleet: FleetSettings) -> str:
    """Return why no node may ever hold a camera; empty if one may, or if a node that is not listed may."""
    chosen = fleet.nodes if wanted.nodes is None else {n: fleet.nodes[n] for n in wanted.nodes if n in fleet.nodes}
    unlisted = wanted.nodes is None or any(name not in fleet.nodes for name in wanted.nodes)
    if unlisted and not fleet.only_listed and wanted.site is None:
        return ""  # nodes that are not listed have no site
    if wanted.nodes is not None and not chosen:
        return f"none of its nodes ({', '.join(wanted.nodes)}) is listed under fleet.nodes"
    if wanted.site is not None:
        chosen = {name: node for name, node in chosen.items() if node.site == wanted.site}
        if not chosen:
            return f"none of the nodes that may hold it has the site {wanted.site}"
    able = [node for node in chosen.values() if node.capacity is None or node.capacity >= wanted.weight]
    return "" if able else f"none of the nodes that may hold it has the capacity for its weight of {wanted.weight:g}"
