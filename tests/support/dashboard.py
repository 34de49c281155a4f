"""What the Grafana dashboard asks Prometheus, with Grafana's variables filled in as Grafana does it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[2] / "configs" / "grafana" / "visaged.json"
ROW = "row"


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        panel: Title of the panel.
        expression: PromQL with Grafana's variables.
        legend: How a series is named, with labels in double braces.
    """

    panel: str
    expression: str
    legend: str

    def filled(self, variables: Mapping[str, str]) -> str:
        """The expression with values for all variables; fails at one that is unknown."""

        def value(found: re.Match[str]) -> str:
            assert found[1] in variables, f"{self.panel}: no variable {found[0]}"
            return variables[found[1]]

        return re.sub(r"\$\{?(\w+)\}?", value, self.expression)

    def name(self, labels: Mapping[str, str]) -> str:
        """The name of a series in the legend."""
        return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), self.legend)


def load() -> dict[str, Any]:
    """The dashboard."""
    document: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return document


def panels(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, those in closed rows too, without the rows themselves."""
    for panel in document["panels"]:
        if panel["type"] == ROW:
            yield from panel["panels"]
        else:
            yield panel


def queries(panel: Mapping[str, Any]) -> list[Query]:
    """What a panel asks."""
    return [Query(panel["title"], target["expr"], target["legendFormat"]) for target in panel["targets"]]
