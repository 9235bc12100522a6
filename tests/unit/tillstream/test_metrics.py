from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas import metric
from schemas.metric import METRICS, Meter, MetricKind
from tillstream.metrics import PrometheusMeter


def test_every_metric_of_the_table_is_served_before_anything_happened() -> None:
    families = {
        family.name: family for family in text_string_to_metric_families(PrometheusMeter().exposition().decode())
    }

    for declared in METRICS:
        family = families[declared.name.removesuffix("_total")]
        assert family.type == declared.kind
        assert family.documentation == declared.help


def test_what_is_reported_is_served_under_its_labels() -> None:
    meter = PrometheusMeter()
    reported: Meter = meter

    reported.add(metric.EVENTS_TOTAL, 3, topic="till.events", outcome="applied")
    reported.add(metric.EVENTS_TOTAL, topic="till.events", outcome="applied")
    reported.set(metric.RUNS_AWAITING_SINK, 2)
    reported.observe(metric.PUBLISH_SECONDS, 0.3)

    text = meter.exposition().decode()
    assert 'tillstream_events_total{outcome="applied",topic="till.events"} 4.0' in text
    assert "tillstream_runs_awaiting_sink 2.0" in text
    assert 'tillstream_publish_seconds_bucket{le="0.5"} 1.0' in text
    assert "_created" not in text


def test_a_label_that_the_table_does_not_declare_is_a_bug() -> None:
    with pytest.raises(ValueError, match=r"(?i)label"):
        PrometheusMeter().add(metric.EVENTS_TOTAL, topic="till.events", outcome="applied", payment="001")


def test_a_forgotten_series_is_served_no_longer() -> None:
    meter = PrometheusMeter()
    meter.set(metric.HELD, 1, topic="t", partition="0", reason="database")

    meter.forget(metric.HELD, topic="t", partition="0", reason="database")

    assert 'reason="database"' not in meter.exposition().decode()


def test_labels_are_bounded_by_name() -> None:
    allowed = {
        "topic", "partition", "group", "outcome", "code", "sqlstate", "reason", "stage",
        "connector", "fate", "status", "state", "dependency",
    }  # fmt: skip

    for declared in METRICS:
        assert set(declared.labels) <= allowed, declared.name
        assert declared.name.startswith("tillstream_")
        assert declared.name.endswith("_total") == (declared.kind is MetricKind.COUNTER)
