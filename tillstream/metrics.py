"""
The metric table of `schemas.metric`, served by prometheus-client. Every metric is there from the start, with its help.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from schemas.metric import METRICS, Metric, MetricKind

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class PrometheusMeter:
    """
    `schemas.metric.Meter` over a registry of its own. A metric outside the table or a wrong label is a bug, and raises.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series, and nothing asks for them
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._counters = {metric.name: self._counter(metric) for metric in _of(MetricKind.COUNTER)}
        self._gauges = {
            metric.name: Gauge(metric.name, metric.help, metric.labels, registry=self._registry)
            for metric in _of(MetricKind.GAUGE)
        }
        self._histograms = {
            metric.name: Histogram(
                metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self._registry
            )
            for metric in _of(MetricKind.HISTOGRAM)
        }

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Count."""
        counter = self._counters[metric.name]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """State a gauge."""
        gauge = self._gauges[metric.name]
        (gauge.labels(**labels) if labels else gauge).set(value)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add to a histogram."""
        histogram = self._histograms[metric.name]
        (histogram.labels(**labels) if labels else histogram).observe(value)

    def forget(self, metric: Metric, **labels: str) -> None:
        """Drop a gauge's series whose subject is gone, so that its last value does not stand for ever."""
        self._gauges[metric.name].remove_by_labels(labels)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name.removesuffix("_total"), metric.help, metric.labels, registry=self._registry)


def _of(kind: MetricKind) -> list[Metric]:
    return [metric for metric in METRICS if metric.kind is kind]
