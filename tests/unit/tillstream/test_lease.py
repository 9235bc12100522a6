from __future__ import annotations

from schemas import metric
from tillstream.control.lease import MeterLease
from tillstream.metrics import PrometheusMeter


def series(meter: PrometheusMeter) -> set[str]:
    """What is told of connectors, without values."""
    lines = meter.exposition().decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if "connector=" in line}


def test_gauges_end_with_the_lease_and_counters_stay() -> None:
    meter = PrometheusMeter()
    lease, other = MeterLease(meter), MeterLease(meter)
    lease.add(metric.RUNS_TOTAL, connector="a", status="SUCCESS")
    lease.set(metric.HELD_BACK_BYTES, 5, connector="a")
    lease.set(metric.CONNECTOR_STATE, 1, connector="a", state="running")
    other.set(metric.HELD_BACK_BYTES, 6, connector="b")

    lease.end()

    assert series(meter) == {
        'tillstream_runs_total{connector="a",status="SUCCESS"}',
        'tillstream_held_back_bytes{connector="b"}',
    }


def test_whoever_measures_on_after_the_end_states_nothing() -> None:
    meter = PrometheusMeter()
    lease = MeterLease(meter)
    lease.end()

    lease.set(metric.HELD_BACK_BYTES, 5, connector="a")

    assert series(meter) == set()


def test_a_lease_ends_no_series_that_it_forgot_before() -> None:
    """
    Its successor may have stated it again by then.
    """
    meter = PrometheusMeter()
    lease, successor = MeterLease(meter), MeterLease(meter)
    lease.set(metric.HELD_BACK_BYTES, 5, connector="a")
    lease.set(metric.CONNECTOR_STATE, 1, connector="a", state="paused")
    lease.forget_all(metric.CONNECTOR_STATE)
    successor.set(metric.HELD_BACK_BYTES, 6, connector="a")

    lease.end()

    assert series(meter) == {'tillstream_held_back_bytes{connector="a"}'}
