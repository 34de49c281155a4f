"""How a node stands in its fleet: numbers for Prometheus, a document, a line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from visaged.daemon.fleet.metrics import STALE_S, FleetMetrics
from visaged.daemon.fleet.records import FleetSummary

CONFIGS = Path(__file__).parents[4] / "configs"
SUMMARY = FleetSummary(
    cameras=9, placed=7, active=6, unplaced=2, moving=1, nodes=3, nodes_away=1, moves=12, takeovers=4
)


class Node:
    """A node whose clock and leases a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.left_s: float | None = None
        self.held = (0, 0)
        self.standing = FleetMetrics("campus", lambda: self.left_s, lambda: self.held, lambda: self.now_s)
        self.registry = CollectorRegistry()
        self.registry.register(self.standing)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"visaged_fleet_{name}", {"fleet": "campus", **labels})


def test_the_numbers_of_the_fleet_are_those_that_were_told_last() -> None:
    node = Node()
    node.standing.heard(SUMMARY)
    assert [node.metric(name) for name in ("cameras", "cameras_placed", "cameras_unplaced")] == [9, 7, 2]
    assert [node.metric("nodes", state=state) for state in ("up", "away")] == [3, 1]
    assert [node.metric("moves_total", kind=kind) for kind in ("planned", "takeover")] == [12, 4]


def test_numbers_that_were_told_long_ago_are_told_no_longer() -> None:
    node = Node()
    node.standing.heard(SUMMARY)
    assert node.standing.document()["summary"]["unplaced"] == 2
    node.now_s += STALE_S + 1
    assert node.standing.document()["summary"] is None
    assert node.metric("cameras_unplaced") is None
    assert node.metric("coordinator_age_seconds") == STALE_S + 1


def test_the_age_counts_from_the_start_before_the_first_answer() -> None:
    node = Node()
    node.now_s += 7
    assert node.metric("coordinator_age_seconds") == 7
    assert node.metric("cameras") is None


def test_a_node_tells_of_its_own_cameras_and_leases() -> None:
    node = Node()
    assert node.metric("lease_left_seconds") is None
    node.left_s, node.held = 4.5, (3, 1)
    node.standing.set_capacity(7.2)
    assert node.metric("lease_left_seconds") == 4.5
    assert [node.metric("node_cameras", held=how) for how in ("published", "warm")] == [3, 1]
    assert node.metric("node_capacity") == 7.2


@pytest.mark.parametrize(
    ("told", "refused", "left_s", "state", "words"),
    [
        (False, "", None, "joining", "no answer of its coordinator yet"),
        (True, "", 4.0, "member", "gives it 3 cameras"),
        (True, "", -0.5, "fenced", "nothing is published until it answers"),
        (True, "another version", None, "refused", "another version"),
    ],
)
def test_the_standing_in_words(told: bool, refused: str, left_s: float | None, state: str, words: str) -> None:
    node = Node()
    node.left_s, node.held = left_s, (3, 0)
    if told:
        node.standing.heard(SUMMARY, refused)
    assert node.standing.document()["state"] == state
    assert words in node.standing.words()


def test_dashboard_and_alerts_ask_for_all_metrics_of_a_fleet_and_no_others() -> None:
    node = Node()
    node.standing.heard(SUMMARY)
    node.standing.set_capacity(7.2)
    node.left_s = 1.0
    there = {sample.name for family in node.registry.collect() for sample in family.samples}
    files = {name: (CONFIGS / name).read_text() for name in ("grafana/visaged.json", "prometheus/rules/alerts.yml")}
    asked = {name: set(re.findall(r"visaged_fleet_\w+", text)) for name, text in files.items()}
    assert asked["grafana/visaged.json"] == there
    assert asked["prometheus/rules/alerts.yml"] <= there
