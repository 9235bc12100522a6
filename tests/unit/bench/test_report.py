"""What `make bench` promises to whoever reads its results."""

from __future__ import annotations

import itertools
import statistics

import pytest

from bench import report
from bench.changes import ChangeLatency
from bench.history import REPEATS, messages, records
from bench.latency import Latency
from bench.report import Run
from bench.watch import Measured
from schemas.wire import recognise

PROMISED = """limit_1 limit_4 till_1 till_2 faust_take aiokafka_plain produce_rows directory_rows directory_limit
changes_rows changes_latency_p50_ms changes_latency_p99_ms
sftp_mib_s sftp_openssh_mib_s latency_p50_ms latency_p99_ms rss_mib_worker""".split()


def measured(per_second: float, *, others: float = 0.0) -> Measured:
    cpu = {"contender": 20.0, "kafka": 2.0, "postgres": 25.0, "instrument": 1.0, "server": 3.0}
    return Measured(per_second, 1_000, 1.0, 120.0, cpu, others)


@pytest.fixture
def run() -> Run:
    rounds = {name: [measured(rate) for rate in (90.0, 110.0, 100.0)] for name in report.NAMES}
    rounds["till_1"] = [measured(55.0), measured(54.0, others=0.5), measured(56.0)]
    files, changes = Latency(40.0, 90.0, 120.0, 3_000, 80.0, 81.0), ChangeLatency(60.0, 150.0, 200.0, 5_000, 82.0)
    return Run(rounds, files, changes, 754.0, 240_000, False, 0.1, 900.0)


def test_every_promised_key_is_there(run: Run) -> None:
    assert set(run.figures) == set(PROMISED)


def test_a_figure_is_the_median_of_its_rounds(run: Run) -> None:
    assert run.figures["till_1"] == 55
    assert run.figures["limit_4"] == 100


def test_a_target_that_is_missed_is_told(run: Run) -> None:
    page = report.page(run)

    assert "| `till_1` / `limit_4` | ≥ 0.6 | 0.55 | **not met** |" in page
    assert "| `directory_rows` / `directory_limit` | ≥ 0.6 | 1.00 | met |" in page


def test_a_busy_machine_is_told(run: Run) -> None:
    assert "The machine was busy with other work" in report.page(run)


def test_the_history_is_the_same_every_time() -> None:
    assert messages(200) == messages(200)


def test_a_tenth_of_the_events_is_about_a_payment_named_before() -> None:
    named = [record.payment.original_reference for record in records(20_000)]

    again = 1 - len(set(named)) / len(named)

    assert again == pytest.approx(REPEATS, abs=0.01)


def test_the_events_are_usual_ones() -> None:
    events = [recognise(message.value) for message in itertools.islice(messages(500), 500)]

    assert all(event is not None for event in events)
    assert 500 < statistics.mean(len(message.value) for message in messages(500)) < 800
