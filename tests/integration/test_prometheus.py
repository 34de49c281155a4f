"""Rules and dashboard against a real daemon and a real Prometheus: every expression gives data, or is known not to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.conftest import DEMO_CLIP
from tests.support import dashboard
from tests.support.broker import MosquittoBroker
from tests.support.program import RunningDaemon
from tests.support.prometheus import FOLDER, RULES, Prometheus, promtool
from tests.support.requirements import MOSQUITTO, PROMETHEUS, needs, require
from tests.support.waiting import until

CAMERAS = ("door", "yard")
PERSON = DEMO_CLIP.with_name("person.jpg")

# Metrics that a healthy daemon does not have, and why. What asks for one of them may be empty.
EMPTY = {
    "visaged_output_lost_total": "no message was lost",
    "visaged_camera_failures_total": "no camera failed",
    "visaged_camera_wakes_total": "no camera was idle",
    "visaged_http_refused_total": "no request was refused",
    "visaged_fleet_": "the daemon is in no fleet",
}

QUOTED = re.compile(r'"[^"]*"')
METRIC = re.compile(r"\b(?:visaged_\w+|process_\w+|\w+:visaged_\w+:\w+|up)\b")


@dataclass(frozen=True)
class Watched:
    """A daemon with two cameras that Prometheus has watched for some seconds."""

    daemon: RunningDaemon
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    require(MOSQUITTO, PROMETHEUS)
    folder = tmp_path_factory.mktemp("watched")
    document: dict[str, Any] = {
        "cameras": [{"name": name, "url": str(DEMO_CLIP), "loop": True, "fps": 5} for name in CAMERAS]
    }
    with MosquittoBroker(folder / "broker") as broker:
        document["mqtt"] = {"host": broker.host, "port": broker.port}
        with RunningDaemon(folder, document) as daemon:
            target = daemon.client.base_url.netloc.decode()
            with Prometheus(folder, target) as prometheus:
                until(lambda: daemon.metric("tracks_begun_total") >= len(CAMERAS), 30.0)
                # A face that is analysed, and a message on its way to the broker and back, in several scrapes.
                assert daemon.client.post("/v1/faces", content=PERSON.read_bytes()).status_code == 200
                enough = scrapes(prometheus) + 5
                until(lambda: scrapes(prometheus) >= enough, 30.0)
                yield Watched(daemon, prometheus)


def scrapes(prometheus: Prometheus) -> float:
    return sum(value for _, value in prometheus.samples("count_over_time(up[5m])"))


def rules(kind: str) -> dict[str, str]:
    """Expressions of the recording rules (`record`) or of the alerts (`alert`), by name."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule[kind]: rule["expr"] for group in groups for rule in group["rules"] if kind in rule}


def may_be_empty(expression: str) -> bool:
    return any(name in expression for name in EMPTY)


def variables(watched: Watched) -> dict[str, str]:
    netloc = watched.daemon.client.base_url.netloc.decode()
    return {"instance": re.escape(netloc).replace("\\", "\\\\"), "camera": "|".join(CAMERAS), "__rate_interval": "5s",
            "__range": "1m"}  # fmt: skip


@needs(PROMETHEUS)
def test_the_files_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", *RULES)


@needs(PROMETHEUS)
def test_the_rules_do_what_their_cases_say() -> None:
    said = promtool("test", "rules", *sorted((FOLDER / "tests").glob("*.yml")))
    assert said.count("SUCCESS") == len(list((FOLDER / "tests").glob("*.yml")))


def test_every_panel_of_the_dashboard_gets_data(watched: Watched) -> None:
    filled = variables(watched)
    empty, full = [], []
    for panel in dashboard.panels(dashboard.load()):
        for query in dashboard.queries(panel):
            expression = query.filled(filled)
            (full if watched.prometheus.samples(expression) else empty).append(f"{query.panel}: {expression}")
    assert [text for text in empty if not may_be_empty(text)] == []
    assert len(full) > 50


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_row_of_one_camera_is_about_that_camera(watched: Watched, camera: str) -> None:
    (row,) = (panel for panel in dashboard.load()["panels"] if panel.get("repeat") == "camera")
    assert "$camera" in row["title"]
    filled = variables(watched) | {"camera": camera}
    for panel in row["panels"]:
        for query in dashboard.queries(panel):
            assert f'camera=~"{camera}"' in query.filled(filled)


def test_the_annotations_of_the_dashboard_are_understood(watched: Watched) -> None:
    asked = [one["expr"] for one in dashboard.load()["annotations"]["list"] if "expr" in one]
    filled = variables(watched)
    started, alerts = (watched.prometheus.samples(dashboard.Query("", one, "").filled(filled)) for one in asked)
    assert [labels["instance"] for labels, _ in started] == [watched.daemon.client.base_url.netloc.decode()]
    assert alerts == []


def test_a_number_of_now_is_no_number_of_long_ago() -> None:
    for panel in dashboard.panels(dashboard.load()):
        if panel["type"] == "stat":
            assert [(one["instant"], one["range"]) for one in panel["targets"]] == [(True, False)], panel["title"]


def test_the_variables_of_the_dashboard_have_values(watched: Watched) -> None:
    found = {}
    for variable in dashboard.load()["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            selector = dashboard.Query("", selector, "").filled(variables(watched))
            found[variable["name"]] = {labels[label] for labels, _ in watched.prometheus.samples(selector)}
    assert found == {"instance": {watched.daemon.client.base_url.netloc.decode()}, "camera": set(CAMERAS)}


def test_every_recording_rule_records(watched: Watched) -> None:
    recorded = {name: expression for name, expression in rules("record").items() if not may_be_empty(expression)}
    assert [name for name in recorded if not watched.prometheus.samples(name)] == []


def test_no_alert_fires_and_each_finds_its_series(watched: Watched) -> None:
    groups = watched.prometheus.ask("/rules")["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in loaded} == rules("record").keys() | rules("alert").keys()
    assert [rule for rule in loaded if rule["health"] != "ok"] == []
    # Pending ones may be there: the machine of a test is busier than one that is left alone.
    assert [alert for alert in watched.prometheus.ask("/alerts")["alerts"] if alert["state"] == "firing"] == []
    missing = {}
    for name, expression in rules("alert").items():
        for metric in set(METRIC.findall(QUOTED.sub("", expression))):
            if not may_be_empty(rules("record").get(metric, metric)) and not watched.prometheus.samples(metric):
                missing[name] = metric
    assert missing == {}


@pytest.mark.parametrize("name", EMPTY)
def test_what_may_be_empty_is_asked_for(name: str) -> None:
    asked = [query.expression for panel in dashboard.panels(dashboard.load()) for query in dashboard.queries(panel)]
    assert any(name in expression for expression in [*asked, *rules("alert").values()]), "take it off the list"


def test_the_daemon_tells_prometheus_its_node_and_its_time(watched: Watched) -> None:
    ((labels, value),) = watched.prometheus.samples("visaged_build_info")
    assert (labels["node"], value) == ("tester", 1)
    ((_, apart_s),) = watched.prometheus.samples("abs(visaged_time_seconds - timestamp(visaged_time_seconds))")
    assert apart_s < 60


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    fires: set[str] = set()
    rests: set[str] = set()
    for path in (FOLDER / "tests").glob("*.yml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            for asked in case.get("promql_expr_test", []):
                found = re.fullmatch(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}', asked["expr"])
                if found:
                    (fires if asked["exp_samples"] else rests).add(found[1])
    names = rules("alert").keys()
    assert (names - fires, fires - names) == (set(), set())
    assert names - rests == set()


def test_every_alert_says_what_happened_and_what_to_do() -> None:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
                    assert "{{" in rule["annotations"]["summary"] or rule["alert"] == "VisagedAbsent"
                    assert len(rule["annotations"]["description"]) > 100, rule["alert"]


def test_panels_say_what_they_show_and_do_not_overlap() -> None:
    document = dashboard.load()
    rows = [panel for panel in document["panels"] if panel["type"] == dashboard.ROW]
    ids = [panel["id"] for panel in [*rows, *dashboard.panels(document)]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard.panels(document):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] == "table", panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
