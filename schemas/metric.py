"""
Every metric in one table, and the port through which code reports them.

Names are `tillstream_<noun>_<unit>`. Labels are bounded: connector names, topics, partitions, codes; never an id, a
path or a
reference. `tillstream/metrics.py` serves them to Prometheus; a test keeps rules, docs and this table equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class MetricKind(StrEnum):
    """Prometheus' kinds that we use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One declared metric."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_EVENTS = (1, 10, 50, 100, 250, 500, 1_000, 2_000, 5_000)
_C, _G, _H = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM

EVENTS_TOTAL = Metric("tillstream_events_total", _C, "Events the sink decided, by outcome.", ("topic", "outcome"))
SLICE_EVENTS = Metric("tillstream_slice_events", _H, "Events per slice.", ("topic",), _EVENTS)
APPLY_SECONDS = Metric("tillstream_apply_seconds", _H, "Time PostgreSQL took for one slice.", ("topic",), _LATENCY_S)
END_TO_END_SECONDS = Metric(
    "tillstream_end_to_end_seconds",
    _H,
    "From an event's publication to its commit in PostgreSQL.",
    ("topic",),
    _LATENCY_S,
)
SINK_RETRIES_TOTAL = Metric("tillstream_sink_retries_total", _C, "Times a slice was tried again.", ("code", "sqlstate"))
HELD = Metric(
    "tillstream_held", _G, "1 while the partition waits for something to heal.", ("topic", "partition", "reason")
)
BREAKER_OPEN = Metric("tillstream_breaker_open", _G, "1 while too many records in a row died.", ("topic", "partition"))
LETTERS_TOTAL = Metric("tillstream_dead_letters_total", _C, "Dead letters made durable.", ("stage", "reason"))
COMMITTED_OFFSET = Metric(
    "tillstream_committed_offset", _G, "Committed offset of the group.", ("group", "topic", "partition")
)
LAG_EVENTS = Metric(
    "tillstream_lag_events", _G, "Events between the committed and the end offset.", ("group", "topic", "partition")
)
LAG_SECONDS = Metric(
    "tillstream_lag_seconds", _G, "Age of the oldest event not processed.", ("group", "topic", "partition")
)
LAG_ALERT = Metric("tillstream_lag_alert", _G, "1 while the lag is over its threshold.", ("group", "topic"))
MONITOR_UP = Metric(
    "tillstream_monitor_sweep_timestamp_seconds", _G, "When the monitor last measured everything (Unix time)."
)
RECORDS_TOTAL = Metric("tillstream_records_total", _C, "Records a source read, by fate.", ("connector", "fate"))
PUBLISH_SECONDS = Metric(
    "tillstream_publish_seconds", _H, "From handing a batch to the producer to the broker's acks.", (), _LATENCY_S
)
PRODUCER_REBUILDS_TOTAL = Metric("tillstream_producer_rebuilds_total", _C, "Producers replaced after a fatal error.")
CHECKPOINTS_TOTAL = Metric("tillstream_checkpoints_total", _C, "Checkpoints made durable.")
RUNS_TOTAL = Metric("tillstream_runs_total", _C, "Runs ended, by status.", ("connector", "status"))
RUNS_AWAITING_SINK = Metric(
    "tillstream_runs_awaiting_sink", _G, "Runs read to the end whose balance the sink has not confirmed."
)
RUN_OVERDUE = Metric(
    "tillstream_run_overdue", _G, "1 while a run waits for the sink past its deadline.", ("connector",)
)
SOURCE_LAG_SECONDS = Metric(
    "tillstream_source_lag_seconds", _G, "Age of the oldest record that waits to be published.", ("connector",)
)
SCAN_AGE_SECONDS = Metric("tillstream_scan_age_seconds", _G, "Since the source was last listed.", ("connector",))
POLL_SECONDS = Metric("tillstream_poll_seconds", _G, "From one listing to the next, as configured.", ("connector",))
CONNECTOR_STATE = Metric(
    "tillstream_connector_state", _G, "1 for the state the connector is in.", ("connector", "state")
)
CONNECTOR_HEALTHY = Metric(
    "tillstream_connector_healthy", _G, "1 while nothing ails the connector or what it needs.", ("connector",)
)
HELD_BACK_BYTES = Metric(
    "tillstream_held_back_bytes", _G, "Log that a database keeps because its changes were not read.", ("connector",)
)
HELD_BACK_UNSEEN = Metric(
    "tillstream_held_back_unseen",
    _G,
    "1 while a connector is paused and nobody can see how much log is kept for it.",
    ("connector",),
)
HELD_BACK_SECONDS = Metric(
    "tillstream_held_back_seconds", _G, "Since an open transaction holds back what is polled.", ("connector",)
)
FILES_SKIPPED_TOTAL = Metric(
    "tillstream_files_skipped_total", _C, "Files not read, by reason.", ("connector", "reason")
)
DOWNLOADED_BYTES_TOTAL = Metric(
    "tillstream_downloaded_bytes_total", _C, "Bytes of files brought from servers.", ("connector",)
)
HTTP_REQUESTS_TOTAL = Metric(
    "tillstream_http_requests_total", _C, "Requests to an API, by what became of them.", ("connector", "outcome")
)
SOURCE_LEFTOVERS = Metric(
    "tillstream_source_leftovers", _G, "Calls of a source that were given up and do not end.", ("connector",)
)
CHECKPOINTS_REFUSED_TOTAL = Metric(
    "tillstream_checkpoints_refused_total", _C, "Checkpoints of an outdated epoch that the state table refused."
)
DEPENDENCY_UP = Metric("tillstream_dependency_up", _G, "1 while Kafka or PostgreSQL answers.", ("dependency",))
OFFSET_RESETS_TOTAL = Metric(
    "tillstream_offset_resets_total",
    _C,
    "Times a partition's position was not in its log any more.",
    ("topic", "partition"),
)
WATCHDOG_IDLE_SECONDS = Metric("tillstream_watchdog_idle_seconds", _G, "Seconds without progress while there was lag.")

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


class Meter(Protocol):
    """Where code reports what happened. Labels are given by name, all of them."""

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Count."""
        ...

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """State a gauge."""
        ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add to a histogram."""
        ...

    def forget(self, metric: Metric, **labels: str) -> None:
        """Drop a gauge's series, if it is there: its subject is gone, or somebody else's."""
        ...


class NullMeter:
    """Reports nothing: for tools and tests that do not look."""

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Forget it."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Forget it."""

    def forget(self, metric: Metric, **labels: str) -> None:
        """There is nothing."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Forget it."""
