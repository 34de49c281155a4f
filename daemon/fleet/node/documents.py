"""The configuration of a node, made from that of the fleet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from visaged.daemon.config.document import ConfigProblem, SettingsError
from visaged.daemon.management.patches import merged, name_of
from visaged.daemon.settings import check, parse

Document = dict[str, Any]


def node_document(document: Document, node: str) -> Document:
    """Return the configuration of a node: the fleet's, with the node's name, and its own settings laid over it.

    Raises:
        SettingsError: The configuration is for another kind of daemon.
    """
    own = document
    for key in ("fleet", "nodes", node, "settings"):
        own = own.get(key) or {} if isinstance(own, Mapping) else {}
    result: Document = merged(document, own) | {"node": node}
    if isinstance(result.get("mqtt"), Mapping) and result["mqtt"].get("embedded"):
        text = "the nodes of a fleet need one broker for all: set it to false, and host to a broker of your own"
        raise SettingsError([ConfigProblem("mqtt.embedded", text)])
    return result


def usable(document: Document) -> tuple[Document, dict[str, str]]:
    """Return a configuration without the cameras that cannot run here, and why they cannot, by name.

    One camera whose password or network this machine lacks must not keep the others from it.
    """
    problems: dict[str, str] = {}
    while True:
        try:
            found = check(parse(document))
        except SettingsError as error:
            found = error.problems
        cameras = document.get("cameras", [])
        bad: dict[int, str] = {}
        for problem in found:
            place = re.match(r"cameras\[(\d+)\]", problem.path)
            if place is not None and int(place[1]) < len(cameras):
                bad.setdefault(int(place[1]), str(problem))
        if not bad:
            return document, problems
        problems |= {name_of(cameras[index]) or f"cameras[{index}]": text for index, text in bad.items()}
        document = document | {"cameras": [one for index, one in enumerate(cameras) if index not in bad]}
