"""
What a PromQL expression asks for, as far as it can be known without Prometheus: which series, by which labels.

It reads words and brackets, not the grammar: it tells what does not exist, not whether the expression is well-formed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.metric import METRICS, MetricKind

DASHBOARDS = Path(__file__).parents[1] / "compose" / "grafana" / "dashboards"
SCRAPED = {"job", "instance", "role"}  # the labels that compose/prometheus/prometheus.yml gives
# The functions that are in use. A new one is looked up in Prometheus' documentation before it is added.
FUNCTIONS = {
    "sum", "min", "max", "rate", "increase", "deriv", "time", "vector", "histogram_quantile", "label_values",
}  # fmt: skip
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {"and", "or", "unless", "offset", "bool"}
# Series that begin with a fault, or are stated only where something is polled from a database.
OF_FAULTS = {
    "tillstream_breaker_open",
    "tillstream_sink_retries_total",
    "tillstream_offset_resets_total",
    "tillstream_held_back_seconds",
    "tillstream_held_back_unseen",
}
VALUES_OF_FAULTS = {"FAILED", "source_throttled", "source_unavailable|source_throttled"}
VARIABLES = {"$__rate_interval": "1m"}
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[0-9][\w.]*|[A-Za-z_:][\w:]*|[=!]~|[=!<>]=|\S')
_WORD = re.compile(r"[A-Za-z_:][\w:]*")


@dataclass(frozen=True, slots=True)
class Selector:
    """One series selector: `name{label=~"value"}`."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()

    @property
    def is_of_a_fault(self) -> bool:
        """Whether nothing is selected while nothing was ever wrong."""
        return self.name in OF_FAULTS or any(value in VALUES_OF_FAULTS for *_, value in self.matchers)

    def takes(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether it selects this series, whatever Prometheus adds when it scrapes it."""
        return name == self.name and all(
            _matches(operator, value, labels.get(label, ""))
            for label, operator, value in self.matchers
            if label not in SCRAPED
        )


@dataclass(slots=True)
class Asked:
    """What one expression asks for."""

    selectors: list[Selector] = field(default_factory=list)
    grouped_by: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def problems(self) -> list[str]:
        """What of it does not exist."""
        series = {name: labels for metric in METRICS for name, labels in _series(metric.name, metric)}
        series["up"] = set()
        unknown = {each.name for each in self.selectors} - set(series)
        found = [f"no series {name}" for name in sorted(unknown)]
        found += [f"no function {name}" for name in sorted(self.functions - FUNCTIONS)]
        for each in self.selectors:
            labels = series.get(each.name, set()) | SCRAPED
            found += [f"{each.name} has no {label}" for label, *_ in each.matchers if label not in labels]
        found += [f"nothing has {label}" for label in sorted(self.grouped_by - self.labels())]
        return found if self.selectors else [*found, "asks for nothing"]

    def labels(self) -> set[str]:
        """The labels that any of its series has."""
        series = {name: labels for metric in METRICS for name, labels in _series(metric.name, metric)}
        return {label for each in self.selectors for label in series.get(each.name, set())} | SCRAPED

    def metrics(self) -> set[str]:
        """The metrics behind the series."""
        owner = {name: metric.name for metric in METRICS for name, _ in _series(metric.name, metric)}
        return {owner.get(each.name, each.name) for each in self.selectors}


def asked(expression: str) -> Asked:
    """What `expression` asks for; Grafana's variables may stand in it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    tokens = _TOKEN.findall(expression)
    found, at = Asked(), 0
    while at < len(tokens):
        token, after = tokens[at], tokens[at + 1 : at + 2]
        at += 1
        if not _WORD.fullmatch(token) or token in OPERATORS:
            continue
        if token in GROUPING:
            end = tokens.index(")", at)
            found.grouped_by |= {each for each in tokens[at:end] if _WORD.fullmatch(each)}
            at = end + 1
        elif after == ["("] or (after and after[0] in GROUPING):
            found.functions.add(token)
        elif after == ["{"]:
            end = tokens.index("}", at)
            found.selectors.append(Selector(token, tuple(_matchers(tokens[at + 1 : end]))))
            at = end + 1
        else:
            found.selectors.append(Selector(token))
    return found


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard, by the name of its file."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))}


def queries(dashboard: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every panel with each of its queries."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel, target


def _matchers(tokens: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    parts = [token for token in tokens if token != ","]
    for label, operator, value in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        yield label, operator, value[1:-1]


def _matches(operator: str, wanted: str, value: str) -> bool:
    if wanted.startswith("$"):
        return True
    same = re.fullmatch(wanted, value) is not None if "~" in operator else wanted == value
    return same is not operator.startswith("!")


# a row of the table of metrics
def _series(name: str, metric: Any) -> Iterator[tuple[str, set[str]]]:
    labels = set(metric.labels)
    if metric.kind is not MetricKind.HISTOGRAM:
        yield name, labels
    else:
        yield from ((f"{name}_bucket", labels | {"le"}), (f"{name}_sum", labels), (f"{name}_count", labels))
