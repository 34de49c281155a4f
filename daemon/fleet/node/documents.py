"""The configuration of a node, made from that of the fleet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visaged.daemon.config.document import SettingsError
from visaged.daemon.fleet.problems import embedded_broker
from visaged.daemon.management.patches import merged, name_of
from visaged.daemon.settings import check, parse

Document = dict[str, Any]


def node_document(document: Document, node: str, doors: Path | None = None) -> Document:
    """Return the configuration of a node: the fleet's, with the node's name, and its own settings laid over it.

    Args:
        document: The fleet's.
        node: Name of the node.
        doors: Folder for the sockets on which the daemon answers Ray Serve; None for none.

    Raises:
        SettingsError: The configuration is for another kind of daemon.
    """
    own = document
    for key in ("fleet", "nodes", node, "settings"):
        own = own.get(key) or {} if isinstance(own, Mapping) else {}
    result: Document = merged(document, own) | {"node": node}
    embedded = embedded_broker(result)
    if embedded is not None:
        raise SettingsError([embedded])
    return result if doors is None else merged(result, {"http": {"fleet": {"doors": str(doors)}}})


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
