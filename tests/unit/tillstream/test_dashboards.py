"""What can be known of the dashboards without Grafana. That they are not empty: `tests/integration/test_demo.py`."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from schemas import errors
from tests.promql import Asked, asked, dashboards, queries
from tillstream.config import all_settings
from tillstream.control.run import RunStatus
from tillstream.docs import ROOT, RULES

BOARDS = dashboards()
GRAFANA = ROOT / "compose" / "grafana"
UNITS = {"short", "s", "cps", "reqps", "Bps", "decbytes"}
KINDS = {"stat", "timeseries", "state-timeline", "table"}
COLUMNS = 24
every_dashboard = pytest.mark.parametrize("name", BOARDS)


def _rules() -> dict[str, str]:
    groups = yaml.safe_load((ROOT / RULES).read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def _panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in BOARDS[name]["panels"] if panel["type"] != "row"]


def test_there_are_two_that_lead_to_each_other() -> None:
    assert set(BOARDS) == {"pipeline.json", "connectors.json"}
    assert len({board["uid"] for board in BOARDS.values()}) == len({board["title"] for board in BOARDS.values()}) == 2
    for board in BOARDS.values():
        (others,) = (link for link in board["links"] if link["type"] == "dashboards")
        assert set(others["tags"]) <= set(board["tags"])


@every_dashboard
def test_they_ask_only_for_series_that_exist_by_labels_that_they_have(name: str) -> None:
    problems = [
        f"{panel['title']}: {problem}"
        for panel, target in queries(BOARDS[name])
        for problem in asked(target["expr"]).problems()
    ]

    assert problems == []


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("sum(rate(tillstream_event_total[1m]))", "no series tillstream_event_total"),
        ("tilstream_events_total", "no series tilstream_events_total"),
        ("tillstream_apply_seconds", "no series tillstream_apply_seconds"),
        ("rate(tillstream_events_total_bucket[1m])", "no series tillstream_events_total_bucket"),
        ('tillstream_events_total{connector="a"}', "tillstream_events_total has no connector"),
        ("sum by (le) (rate(tillstream_apply_seconds_count[1m]))", "nothing has le"),
        ("sum by (topic, grp) (tillstream_lag_events)", "nothing has grp"),
        ("summ(tillstream_lag_events)", "no function summ"),
        ("tillstream_held and on (shard) tillstream_held", "nothing has shard"),
        ("vector(0)", "asks for nothing"),
    ],
)
def test_a_query_for_what_is_not_there_is_noticed(expression: str, problem: str) -> None:
    assert asked(expression).problems() == [problem]


@every_dashboard
def test_the_words_that_they_select_by_are_words_that_the_code_says(name: str) -> None:
    codes = {each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
    known = {
        "status": {status.value for status in RunStatus},
        "fate": {"published", "rejected", "filtered"},
        "outcome": {*codes, "ok", "cancelled"},
        "job": {"tillstream"},
        "connector": {"$connector"},
    }

    for panel, target in queries(BOARDS[name]):
        for selector in asked(target["expr"]).selectors:
            for label, _, value in selector.matchers:
                assert set(value.split("|")) <= known[label], panel["title"]


@every_dashboard
def test_legends_and_columns_name_labels_that_are_there(name: str) -> None:
    for panel, target in queries(BOARDS[name]):
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= asked(target["expr"]).grouped_by, panel["title"]
        for step in panel.get("transformations", ()):
            columns = set(step["options"]["indexByName"]) | set(step["options"]["excludeByName"])
            assert columns - {"Time", "Value"} == asked(target["expr"]).grouped_by


@every_dashboard
def test_lines_are_drawn_where_alerts_fire(name: str) -> None:
    """
    Grafana colours from a value on, a rule fires above it: `> 0` of what is counted is 1.
    """
    alerts: dict[str, set[float]] = {}
    for expression in _rules().values():
        for metric in asked(expression).metrics():
            alerts.setdefault(metric, set()).update(_limits(expression))

    for panel in _panels(name):
        drawn = {step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]} - {None}
        metrics = {metric for target in panel["targets"] for metric in asked(target["expr"]).metrics()}
        limits = {limit for metric in metrics for limit in alerts.get(metric, ())}
        assert drawn <= limits, panel["title"]
        if panel["type"] == "table" or "Alert" not in panel["description"] or panel["title"] in SHOWN_OTHERWISE:
            continue
        assert drawn, f"{panel['title']} names an alert and does not show where it fires"


# An alert is named, and its limit stands beside it: in bars of a short interval it would say something else.
SHOWN_OTHERWISE = {"Runs that wait for the sink", "Dead letters, by reason"}


def _limits(expression: str) -> set[float]:
    found = set()
    for operator, number in re.findall(r"(==|>)\s*([0-9.e+]+)", expression):
        value = float(number)
        found.add(1.0 if value == 0 else value)
        assert operator == ">" or value in (0, 1)
    return found


def test_every_alert_is_named_on_a_panel_that_shows_its_metric() -> None:
    named: dict[str, set[str]] = {}
    for name in BOARDS:
        for panel in _panels(name):
            metrics = {metric for target in panel["targets"] for metric in asked(target["expr"]).metrics()}
            for alert in re.findall(r"\bTillstream[A-Z]\w+", panel["description"]):
                named.setdefault(alert, set()).update(metrics)

    rules = _rules()
    assert set(named) == set(rules)
    for alert, expression in rules.items():
        assert asked(expression).metrics() & named[alert], alert


@every_dashboard
def test_what_shows_only_on_faults_leaves_no_panel_empty(name: str) -> None:
    """
    Beside it, the panel asks for something that is always there, or for a number.
    """
    for panel in _panels(name):
        expressions = [target["expr"] for target in panel["targets"]]
        always = [each for text in expressions for each in asked(text).selectors if not each.is_of_a_fault]
        assert always or any("vector(0)" in text for text in expressions), panel["title"]


@every_dashboard
def test_panels_have_titles_units_and_places_of_their_own(name: str) -> None:
    board = BOARDS[name]
    titles = [panel["title"] for panel in board["panels"] if panel["type"] != "row"]

    assert len(titles) == len(set(titles))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in _panels(name):
        assert panel["type"] in KINDS
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    for one, other in combinations([panel["gridPos"] for panel in board["panels"]], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
        assert one["x"] + one["w"] <= COLUMNS


@every_dashboard
def test_what_descriptions_name_exists(name: str) -> None:
    settings = {setting.key for setting in all_settings()}
    sections = "|".join({key.split(".")[0] for key in settings if "." in key})

    for panel in _panels(name):
        assert set(re.findall(rf"\b(?:{sections})\.\w+", panel["description"])) <= settings, panel["title"]
        for command in re.findall(r"`till ([^`]+)`", panel["description"]):
            words = command.split(" --")[0]
            assert f"## `till {words}" in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), command


@every_dashboard
def test_links_lead_to_pages(name: str) -> None:
    pages = [link["url"] for link in BOARDS[name]["links"] if link["type"] == "link"]

    assert len(pages) >= 4
    for url in pages:
        assert url.startswith("${docs}/")
        assert (ROOT / "docs" / url.removeprefix("${docs}/")).is_file()


@every_dashboard
def test_variables_are_asked_for_as_they_are_declared(name: str) -> None:
    board = BOARDS[name]
    declared = {variable["name"]: variable for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)", str(board["panels"]) + str(board["links"])))

    assert used == set(declared)
    for panel, target in queries(board):
        assert panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for variable in declared.values():
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            assert label in Asked(selectors=asked(metric).selectors).labels()
            assert asked(metric).problems() == []


def test_grafana_finds_prometheus_the_dashboards_and_the_pages() -> None:
    services = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/tillstream.yaml").read_text())["providers"]
    mounted = dict(volume.split(":")[1::-1] for volume in services["grafana"]["volumes"])
    scraped = yaml.safe_load((ROOT / "compose" / "prometheus" / "prometheus.yml").read_text())["global"]

    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]
    assert mounted["/etc/grafana/provisioning"] == "./grafana/provisioning"
    assert mounted[provider["options"]["path"]] == "./grafana/dashboards"
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/pipeline.json"
    for board in BOARDS.values():
        current = {variable["name"]: variable["current"]["value"] for variable in board["templating"]["list"]}
        assert current["datasource"] == source["uid"]
        assert mounted[f"/usr/share/grafana{current['docs']}"] == "../docs"
