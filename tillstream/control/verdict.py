"""
What the facts say: how a run ends, and how a connector fares. Pure functions of what was measured; nothing waits here.

A run ends when the sink's counts *and* sums equal what was published. Until then it is RUNNING, past a deadline it is
overdue, and never FAILED for that alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tillstream.control.run import RunStatus

_TEST_DIED = "crashed: the process that tried the source ended"
_TAKEN_OVER_S = 10.0  # two heartbeats of a runner: one that lives has spoken since the new claim


@dataclass(frozen=True, slots=True)
class OpenRun:
    """
    A run that has not ended, as PostgreSQL has it: the source's counts, the sink's, and who owns the connector now.

    Sums are of event digests modulo 2^128. `asked`: an operator wants it, so that any worker goes on with it. `test`:
    no worker has it in hand, but the process that tries the source.
    """

    connector: str
    read: int
    published: int
    rejected: int
    filtered: int
    published_sum: int
    applied: int
    duplicate: int
    dead: int
    sink_sum: int
    started_at: datetime
    heartbeat_at: datetime
    reading_finished_at: datetime | None
    claimed_at: datetime | None
    problems: str = ""
    asked: bool = False
    cancelled: bool = False
    test: bool = False

    @property
    def confirmed(self) -> int:
        """Events of the run that the sink has decided."""
        return self.applied + self.duplicate + self.dead


@dataclass(frozen=True, slots=True)
class Limits:
    """`watched_s`: for how long the database has answered without a break; silence before that says nothing."""

    deadline_s: float
    heartbeat_timeout_s: float
    watched_s: float


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """`end` is the status to end with, None while the run goes on. `overdue` tells why it should have ended by now."""

    end: RunStatus | None
    reason: str | None = None
    overdue: str = ""


def judge_run(run: OpenRun, now: datetime, limits: Limits) -> RunVerdict:
    """How the run stands at `now`, which is the database's clock."""
    if run.reading_finished_at is None:
        return _while_reading(run, now, limits)
    if run.read == run.published + run.rejected + run.filtered and run.confirmed == run.published:
        if run.sink_sum == run.published_sum:
            return RunVerdict(_end_of(run))
        return _overdue(run, now, limits, "the sink confirmed as many events, but not the ones that were published")
    if run.confirmed > run.published:
        return _overdue(run, now, limits, f"the sink confirmed {run.confirmed} events, {run.published} were published")
    if run.confirmed < run.published:
        return _overdue(run, now, limits, f"the sink has confirmed {run.confirmed} of {run.published} events")
    return _overdue(run, now, limits, "the source's counts do not add up")


def _while_reading(run: OpenRun, now: datetime, limits: Limits) -> RunVerdict:
    silent_s = min((now - run.heartbeat_at).total_seconds(), limits.watched_s)
    if run.asked:
        return _while_asked(run, silent_s, limits)
    if run.cancelled and silent_s > limits.heartbeat_timeout_s:
        return RunVerdict(RunStatus.FAILED, "cancelled")
    if run.test:
        ended = silent_s > limits.heartbeat_timeout_s
        return RunVerdict(RunStatus.FAILED if ended else None, _TEST_DIED if ended else None)
    if run.claimed_at is not None and run.heartbeat_at < run.claimed_at and run.started_at < run.claimed_at:
        if min((now - run.claimed_at).total_seconds(), limits.watched_s) > _TAKEN_OVER_S:
            return RunVerdict(
                RunStatus.FAILED, "crashed: another worker took the connector over, and goes on from its state"
            )
    elif silent_s > limits.heartbeat_timeout_s:
        return RunVerdict(RunStatus.FAILED, f"crashed: its worker has been silent for {silent_s:.0f} s")
    return RunVerdict(None)


def _while_asked(run: OpenRun, silent_s: float, limits: Limits) -> RunVerdict:
    """A worker that dies does not end what was asked for: the next one goes on with it."""
    if run.cancelled and silent_s > limits.heartbeat_timeout_s:
        return RunVerdict(RunStatus.FAILED, "cancelled")
    if silent_s > limits.deadline_s:
        return RunVerdict(None, overdue=f"no worker has begun it, or gone on with it, for {silent_s:.0f} s")
    return RunVerdict(None)


def _end_of(run: OpenRun) -> RunStatus:
    return RunStatus.PARTIAL_SUCCESS if run.rejected or run.dead or run.problems else RunStatus.SUCCESS


def _overdue(run: OpenRun, now: datetime, limits: Limits, why: str) -> RunVerdict:
    waited_s = (now - (run.reading_finished_at or now)).total_seconds()
    return RunVerdict(
        None, overdue=f"{why}, {waited_s:.0f} s after the last was read" if waited_s > limits.deadline_s else ""
    )


class HealthState(StrEnum):
    """How a connector fares."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"
    PAUSED = "paused"
    UNKNOWN = "unknown"  # nobody could have said anything yet


@dataclass(frozen=True, slots=True)
class Observed:
    """
    What is known of a connector and of what it needs.

    `report_age_s` is None if no worker ever reported it; `expected_s`: for how long a report has been expected, that is
    since there is something to report and somebody to hear it; `pipeline` are problems that all connectors share.
    """

    paused: bool = False
    pause_note: str = ""
    report_age_s: float | None = None
    expected_s: float = math.inf
    worker_state: str = ""
    worker_problem: str = ""
    worker_hint: str = ""
    overdue: str = ""
    last_run_failed: str = ""
    pipeline: Sequence[str] = ()


def judge_connector(seen: Observed, *, heartbeat_timeout_s: float) -> tuple[HealthState, str]:
    """Its state, and the cause in words; the nearest cause comes first."""
    if seen.paused:
        return HealthState.PAUSED, f"paused by an operator{f': {seen.pause_note}' if seen.pause_note else ''}"
    causes = [*seen.pipeline, *filter(None, [seen.overdue, seen.last_run_failed])]
    is_silent = seen.report_age_s is None or seen.report_age_s > heartbeat_timeout_s
    if is_silent and seen.expected_s <= heartbeat_timeout_s:
        return HealthState.UNKNOWN, "; ".join(["its worker is starting", *causes])
    if seen.report_age_s is None:
        return HealthState.DOWN, "; ".join(["no connector worker has reported it ever", *causes])
    if seen.report_age_s > heartbeat_timeout_s:
        return HealthState.DOWN, "; ".join([f"its worker is silent for {seen.report_age_s:.0f} s", *causes])
    own = _text(seen.worker_problem, seen.worker_hint)
    if seen.worker_state == "paused":
        return HealthState.PAUSED, own
    causes = [own, *causes] if own else causes
    return (HealthState.DEGRADED, "; ".join(causes)) if causes else (HealthState.HEALTHY, "")


def _text(problem: str, hint: str) -> str:
    return f"{problem} ({hint})" if hint else problem
