from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from schemas.metric import METRICS
from tests.promql import asked
from tillstream.docs import ROOT, RULES, WITHOUT_ALERT, pages


@pytest.mark.parametrize("path", sorted(pages()))
def test_a_generated_page_says_what_the_code_says(path: str) -> None:
    written = (ROOT / path).read_text(encoding="utf-8")

    assert written == pages()[path], f"{path} is stale: run `make docs`"


def _rules() -> list[dict[str, str]]:
    groups = yaml.safe_load((ROOT / RULES).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_ask_only_for_metrics_that_exist_by_labels_that_they_have() -> None:
    for rule in _rules():
        assert asked(rule["expr"]).problems() == [], rule["alert"]


def test_what_alerts_tell_is_what_they_are_grouped_by() -> None:
    for rule in _rules():
        told = " ".join(rule["annotations"].values())  # type: ignore[attr-defined]
        known = asked(rule["expr"]).grouped_by or asked(rule["expr"]).labels()
        assert set(re.findall(r"\$labels\.(\w+)", told)) <= known, rule["alert"]


def test_every_alert_says_what_it_is_about_and_what_to_do() -> None:
    names = [rule["alert"] for rule in _rules()]

    assert len(names) == len(set(names))
    for rule in _rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}  # type: ignore[index]
        assert all(rule["annotations"][key] for key in ("summary", "description"))  # type: ignore[index]


def test_every_metric_has_an_alert_or_a_reason_not_to() -> None:
    expressions = " ".join(rule["expr"] for rule in _rules())

    for metric in METRICS:
        has_alert = re.search(rf"\b{metric.name}\b", expressions) is not None
        assert has_alert != (metric.name in WITHOUT_ALERT), metric.name
    assert set(WITHOUT_ALERT) <= {metric.name for metric in METRICS}


def test_a_fault_of_30_seconds_shows_in_an_alert_on_lag_or_dependencies_within_its_time() -> None:
    waits = {rule["alert"]: rule.get("for", "0s") for rule in _rules()}

    for name in ("TillstreamWorkerDown", "TillstreamDependencyDown", "TillstreamLagging", "TillstreamConnectorUnwell"):
        assert int(waits[name].removesuffix("s")) < 30


def test_links_of_generated_pages_lead_somewhere() -> None:
    for path, text in pages().items():
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (ROOT / Path(path).parent / link).exists(), f"{path}: {link}"


def test_every_test_that_the_promises_name_is_there() -> None:
    """A file, a folder, or a test in a file; what stands without a folder is in the one named before it."""
    rows = re.findall(r"^\| P\d+ \|.*$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 12
    for row in rows:
        proofs = re.findall(r"`([\w/]+(?:/|\.py)(?:::\w+)?)`", row.split("|")[3])
        assert proofs, row
        folder = ROOT
        for proof in proofs:
            path, _, name = proof.partition("::")
            place = ROOT / path if "/" in path else folder / path
            assert place.exists(), proof
            folder = place.parent
            assert not name or f"def {name}(" in place.read_text("utf-8"), proof


def test_each_decision_has_a_number_of_its_own() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert len({path.name[:3] for path in decisions}) == len(decisions)
    for path in decisions:
        assert path.read_text("utf-8").startswith(f"# {path.name[:3]} "), path.name
