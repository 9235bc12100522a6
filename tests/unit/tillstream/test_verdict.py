from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillstream.control.run import RunStatus
from tillstream.control.verdict import (
    HealthState,
    Limits,
    Observed,
    OpenRun,
    RunVerdict,
    judge_connector,
    judge_run,
)

START = datetime(2025, 1, 10, 12, tzinfo=UTC)
LIMITS = Limits(deadline_s=60, heartbeat_timeout_s=25, watched_s=3_600)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


READING = OpenRun(
    connector="bank",
    read=10,
    published=8,
    rejected=2,
    filtered=0,
    published_sum=80,
    applied=0,
    duplicate=0,
    dead=0,
    sink_sum=0,
    started_at=START,
    heartbeat_at=START,
    reading_finished_at=None,
    claimed_at=after(-100),
)
FINISHED = replace(READING, rejected=0, read=8, reading_finished_at=after(10))
CONFIRMED = replace(FINISHED, applied=5, duplicate=3, sink_sum=80)


def test_a_run_that_was_asked_for_outlives_its_worker_and_is_told_as_overdue() -> None:
    asked = replace(READING, asked=True)
    taken_over = replace(asked, claimed_at=after(5))

    assert judge_run(asked, after(50), LIMITS) == RunVerdict(None)
    assert judge_run(taken_over, after(50), LIMITS) == RunVerdict(None)
    assert judge_run(asked, after(70), LIMITS) == RunVerdict(
        None, overdue="no worker has begun it, or gone on with it, for 70 s"
    )


def test_a_cancelled_run_of_which_no_worker_is_left_is_ended() -> None:
    cancelled = replace(READING, asked=True, cancelled=True)

    assert judge_run(cancelled, after(20), LIMITS) == RunVerdict(None)
    assert judge_run(cancelled, after(30), LIMITS) == RunVerdict(RunStatus.FAILED, "cancelled")


def test_a_run_ends_with_success_once_counts_and_sums_are_equal() -> None:
    assert judge_run(CONFIRMED, after(11), LIMITS) == RunVerdict(RunStatus.SUCCESS)


@pytest.mark.parametrize(
    "flaw",
    [{"rejected": 1, "read": 9}, {"dead": 1, "applied": 4}, {"problems": "a.csv: cut"}],
    ids=["rejected", "dead", "problems"],
)
def test_a_run_with_anything_less_than_success_ends_partial(flaw: dict[str, object]) -> None:
    assert judge_run(replace(CONFIRMED, **flaw), after(11), LIMITS) == RunVerdict(RunStatus.PARTIAL_SUCCESS)  # type: ignore[arg-type]


def test_filtered_records_are_no_flaw() -> None:
    assert judge_run(replace(CONFIRMED, read=11, filtered=3), after(11), LIMITS).end is RunStatus.SUCCESS


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ({"applied": 4}, "the sink has confirmed 7 of 8 events"),
        ({"applied": 6}, "the sink confirmed 9 events, 8 were published"),
        ({"sink_sum": 81}, "not the ones that were published"),
        ({"read": 9}, "the source's counts do not add up"),
    ],
)
def test_a_run_that_does_not_balance_goes_on_and_is_overdue_after_its_deadline_never_failed(
    flaw: dict[str, object], said: str
) -> None:
    run = replace(CONFIRMED, **flaw)  # type: ignore[arg-type]

    assert judge_run(run, after(69), LIMITS) == RunVerdict(None)
    late = judge_run(run, after(71), LIMITS)
    assert late.end is None
    assert said in late.overdue
    assert judge_run(run, after(10**7), LIMITS).end is None


def test_a_run_whose_worker_lives_goes_on() -> None:
    assert judge_run(replace(READING, heartbeat_at=after(100)), after(124), LIMITS) == RunVerdict(None)


def test_a_run_whose_worker_is_silent_has_crashed() -> None:
    verdict = judge_run(READING, after(26), LIMITS)

    assert verdict.end is RunStatus.FAILED
    assert verdict.reason == "crashed: its worker has been silent for 26 s"


def test_silence_says_nothing_while_the_database_could_not_hear() -> None:
    assert judge_run(READING, after(500), replace(LIMITS, watched_s=24)).end is None


def test_a_run_whose_connector_was_taken_over_has_crashed_before_its_silence_is_long() -> None:
    taken = replace(READING, heartbeat_at=after(5), claimed_at=after(6))

    assert judge_run(taken, after(15), LIMITS).end is None
    verdict = judge_run(taken, after(17), LIMITS)
    assert verdict.end is RunStatus.FAILED
    assert "another worker took the connector over" in (verdict.reason or "")


def test_a_run_that_spoke_after_the_new_claim_is_its_own() -> None:
    assert judge_run(replace(READING, heartbeat_at=after(8), claimed_at=after(6)), after(20), LIMITS).end is None


@given(
    st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.booleans(),
    st.floats(0, 10**6),
)  # fmt: skip
def test_success_is_said_only_of_a_run_where_everything_read_is_published_and_stored(
    read: int, rejected: int, filtered: int, applied: int, dead: int, same_sum: bool, age_s: float
) -> None:
    published = max(0, read - rejected - filtered)
    run = replace(
        FINISHED,
        read=read,
        published=published,
        rejected=rejected,
        filtered=filtered,
        applied=applied,
        dead=dead,
        sink_sum=80 if same_sum else 81,
    )

    end = judge_run(run, after(10 + age_s), LIMITS).end

    balanced = read == published + rejected + filtered and applied + dead == published and same_sum
    assert (end is not None) == balanced
    assert (end is RunStatus.SUCCESS) == (balanced and not rejected and not dead)


WELL = Observed(report_age_s=2, worker_state="running")


@pytest.mark.parametrize(
    ("seen", "state", "cause"),
    [
        (WELL, HealthState.HEALTHY, ""),
        (replace(WELL, paused=True, worker_problem="x"), HealthState.PAUSED, "paused by an operator"),
        (Observed(), HealthState.DOWN, "no connector worker has reported it ever"),
        (replace(WELL, report_age_s=26), HealthState.DOWN, "its worker is silent for 26 s"),
        (replace(WELL, report_age_s=3_000, expected_s=25), HealthState.UNKNOWN, "its worker is starting"),
        (replace(WELL, report_age_s=3_000, expected_s=26), HealthState.DOWN, "its worker is silent for 3000 s"),
        (
            Observed(expected_s=0, pipeline=["Kafka does not answer"]),
            HealthState.UNKNOWN,
            "its worker is starting; Kafka does not answer",
        ),
        (Observed(expected_s=26), HealthState.DOWN, "no connector worker has reported it ever"),
        (replace(WELL, expected_s=0), HealthState.HEALTHY, ""),
        (replace(WELL, expected_s=0, paused=True), HealthState.PAUSED, "paused by an operator"),
        (
            replace(WELL, worker_state="degraded", worker_problem="open /in: no such file", worker_hint="make it"),
            HealthState.DEGRADED,
            "open /in: no such file (make it)",
        ),
        (replace(WELL, worker_state="paused", worker_problem="wrong key"), HealthState.PAUSED, "wrong key"),
        (replace(WELL, pipeline=["Kafka does not answer"]), HealthState.DEGRADED, "Kafka does not answer"),
        (replace(WELL, overdue="run 1 is overdue"), HealthState.DEGRADED, "run 1 is overdue"),
        (replace(WELL, last_run_failed="the last run failed: x"), HealthState.DEGRADED, "the last run failed: x"),
    ],
)
def test_a_connectors_health_names_its_cause(seen: Observed, state: HealthState, cause: str) -> None:
    assert judge_connector(seen, heartbeat_timeout_s=25) == (state, cause)
