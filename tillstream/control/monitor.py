"""
The monitor: measures lag, ends runs, judges connectors, prunes what is old. It consumes nothing, so it sees consumers
that are stuck.

Everything is level-triggered: each sweep looks at the whole state and acts on what it finds, so a sweep that was
missed, or a monitor that was away for a day, costs nothing but time. Writes are conditional: two monitors do no harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from schemas import metric
from schemas.errors import TillError
from schemas.failpoint import failpoint
from sinks.offset import next_offsets
from sinks.pool import Connection, Pool, close_pool, connection
from sinks.prune import prune_repeats
from streams.lag import LagProbe, PartitionLag
from tillstream.config import MonitorSettings, Role
from tillstream.control import activity, letter, run, worker
from tillstream.control.statement import statements
from tillstream.control.verdict import HealthState, Limits, Observed, OpenRun, RunVerdict, judge_connector, judge_run
from tillstream.health import Health
from tillstream.metrics import PrometheusMeter

logger = logging.getLogger(__name__)

KAFKA, POSTGRES = "kafka", "postgres"
_PRUNED_AT_ONCE = 5_000  # rows; less than a second
_PRUNING_RESTS_S = 600.0  # once nothing is left to prune


@dataclass(slots=True)
class Monitor:
    """One monitor. `watched` names the topic of each consumer group; `workers` is where workers announce themselves."""

    open_pool: Callable[[], Awaitable[Pool]]
    probe: LagProbe
    settings: MonitorSettings
    watched: Mapping[str, str]
    events_topic: str
    workers: Path
    meter: PrometheusMeter
    health: Health
    pool: Pool | None = None
    _answering_since_s: float | None = None
    _overdue: dict[UUID, str] = field(default_factory=dict)
    _judged: set[str] = field(default_factory=set)  # connectors whose health is stated
    _prune_again_at_s: float = 0.0
    _database_failed: bool = False  # in this sweep: it is not waited for twice

    async def __aenter__(self) -> Monitor:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.pool is not None:
            await close_pool(self.pool)

    async def sweep(self) -> None:
        """Measure everything once. What cannot be measured is told as unmeasured; nothing raises but bugs."""
        self._database_failed = False
        problems = await self._measure_lag()
        addresses = self.settings.addresses
        views = await (worker.look_at(addresses) if addresses else worker.look(self.workers))
        # payments flow without the API
        problems += [view.problem for view in views if view.problem and view.role != Role.API]
        complete = not self.health.reasons()
        if self._database_failed:
            return
        try:
            pool = await self._opened()
            async with connection(pool) as held:
                now = time.monotonic()
                self._answering_since_s = now if self._answering_since_s is None else self._answering_since_s
                await self._judge_runs(held, watched_s=now - self._answering_since_s)
                await letter.confirm(held)
                await self._judge_connectors(held, problems, watched_s=now - self._answering_since_s)
            await self._prune(pool)
            self._up(POSTGRES)
        except TillError as exc:
            self._lost_database(exc)
            return
        if complete:
            self.meter.set(metric.MONITOR_UP, time.time())

    async def _opened(self) -> Pool:
        self.pool = self.pool or await self.open_pool()
        return self.pool

    def _lost_database(self, exc: TillError) -> None:
        self._database_failed = True
        self._answering_since_s = None
        self._down(POSTGRES, exc)

    # lag

    async def _measure_lag(self) -> list[str]:
        problems: list[str] = []
        for group, topic in self.watched.items():
            try:
                stored = self._stored if topic == self.events_topic else None
                partitions = await self.probe.measure(group, topic, stored=stored)
            except TillError as exc:
                self._down(KAFKA, exc)
                return [f"Kafka does not answer: {exc}"]
            alarm = self._report_lag(group, topic, partitions)
            if alarm and topic == self.events_topic:
                problems.append(alarm)
        self._up(KAFKA)
        return problems

    async def _stored(self) -> Mapping[int, int] | None:
        """The sink's own offsets; None while the database does not answer."""
        try:
            return await next_offsets(await self._opened(), self.events_topic)
        except TillError as exc:
            self._lost_database(exc)
            return None

    def _report_lag(self, group: str, topic: str, partitions: Sequence[PartitionLag]) -> str:
        for each in partitions:
            labels = {"group": group, "topic": topic, "partition": str(each.partition)}
            self.meter.set(metric.LAG_EVENTS, each.lag_events, **labels)
            self.meter.set(metric.LAG_SECONDS, each.lag_s, **labels)
            if each.committed is not None:
                self.meter.set(metric.COMMITTED_OFFSET, each.committed, **labels)
        events = sum(each.lag_events for each in partitions)
        oldest_s = max((each.lag_s for each in partitions), default=0.0)
        late = events >= self.settings.lag_alert_events or oldest_s >= self.settings.lag_alert_s
        self.meter.set(metric.LAG_ALERT, late, group=group, topic=topic)
        told = [f"{group} is {events} events behind, the oldest {oldest_s:.0f} s"] if late else []
        if any(each.rewound for each in partitions):
            told.append(f"the database holds less than {group} committed: was it restored? what starts reads it again")
        return "; ".join(told)

    # runs

    async def _judge_runs(self, held: Connection, *, watched_s: float) -> None:
        limits = Limits(self.settings.run_deadline_s, self.settings.heartbeat_timeout_s, watched_s)
        self._overdue.clear()
        awaiting = 0
        for row in await held.fetch(statements()["open_runs"]):
            seen = _open_run(row)
            verdict = judge_run(seen, row["now"], limits)
            if verdict.end is not None:
                await self._end(held, row["id"], seen, verdict)
                continue
            awaiting += seen.reading_finished_at is not None
            if verdict.overdue:
                self._overdue[row["connector_id"]] = f"run {row['id']} is overdue: {verdict.overdue}"
        self.meter.set(metric.RUNS_AWAITING_SINK, awaiting)

    async def _end(self, held: Connection, run_id: UUID, seen: OpenRun, verdict: RunVerdict) -> None:
        status = verdict.end or run.RunStatus.FAILED
        failpoint("before_run_ended")
        if await run.close(held, run_id, status, reason=verdict.reason) is not None:
            failpoint("after_run_ended")
            self.meter.add(metric.RUNS_TOTAL, connector=seen.connector, status=status.value)
            facts: dict[str, object] = {"run": run_id, "connector": seen.connector, "status": status.value}
            if verdict.reason:
                facts["reason"] = verdict.reason
            logger.info("run ended", extra={"facts": facts})

    # connectors

    async def _judge_connectors(self, held: Connection, pipeline: Sequence[str], *, watched_s: float) -> None:
        rows = await held.fetch(statements()["observed_connectors"])
        names = {row["name"] for row in rows}
        for gone in self._judged - names:
            self.meter.forget(metric.RUN_OVERDUE, connector=gone)
            self.meter.forget(metric.CONNECTOR_HEALTHY, connector=gone)
        self._judged = names
        for row in rows:
            overdue = self._overdue.get(row["id"], "")
            seen = _observed(row, overdue, pipeline, watched_s=watched_s)
            state, cause = judge_connector(seen, heartbeat_timeout_s=self.settings.heartbeat_timeout_s)
            name = row["name"]
            self.meter.set(metric.RUN_OVERDUE, bool(overdue), connector=name)
            self.meter.set(metric.CONNECTOR_HEALTHY, state is HealthState.HEALTHY, connector=name)
            if (row["health"], row["cause"]) != (state.value, cause):
                facts = {"connector": name, "state": state.value, "cause": cause}
                logger.log(_LEVELS[state], "connector health changed", extra={"facts": facts})
            await held.execute(statements()["judge_connector"], row["id"], state.value, cause)

    # what is old

    async def _prune(self, pool: Pool) -> None:
        if time.monotonic() < self._prune_again_at_s:
            return
        older_than = timedelta(days=self.settings.keep_repeats_days)
        pruned = await prune_repeats(pool, older_than=older_than, most=_PRUNED_AT_ONCE)
        if pruned:
            logger.info("repeats pruned", extra={"facts": {"rows": pruned}})
        old = timedelta(days=self.settings.keep_activity_days)
        forgotten = await activity.prune(pool, older_than=old, most=_PRUNED_AT_ONCE)
        if forgotten:
            logger.info("activity pruned", extra={"facts": {"rows": forgotten}})
        if not pruned and not forgotten:
            self._prune_again_at_s = time.monotonic() + _PRUNING_RESTS_S

    # dependencies

    def _up(self, dependency: str) -> None:
        self.meter.set(metric.DEPENDENCY_UP, 1, dependency=dependency)
        self.health.clear(dependency)

    def _down(self, dependency: str, exc: TillError) -> None:
        if dependency not in self.health.reasons():
            logger.error("dependency down", extra={"facts": {"dependency": dependency, "error": exc, "hint": exc.hint}})
        self.meter.set(metric.DEPENDENCY_UP, 0, dependency=dependency)
        self.health.wait(dependency, str(exc))


_LEVELS = {
    HealthState.HEALTHY: logging.INFO,
    HealthState.UNKNOWN: logging.INFO,
    HealthState.PAUSED: logging.WARNING,
    HealthState.DEGRADED: logging.WARNING,
    HealthState.DOWN: logging.ERROR,
}


# asyncpg's records are mappings of anything
def _open_run(row: Mapping[str, Any]) -> OpenRun:
    return OpenRun(
        connector=row["connector"],
        read=row["read"],
        published=row["published"],
        rejected=row["rejected"],
        filtered=row["filtered"],
        published_sum=int(row["published_sum"]),
        applied=row["applied"],
        duplicate=row["duplicate"],
        dead=row["dead"],
        sink_sum=int(row["sink_sum"]),
        started_at=row["started_at"],
        heartbeat_at=row["heartbeat_at"],
        reading_finished_at=row["reading_finished_at"],
        claimed_at=row["claimed_at"],
        problems=row["reason"] or "",
        asked=row["asked"],
        cancelled=row["cancelled"],
        test=row["run_type"] == run.TEST,
    )


def _observed(row: Mapping[str, Any], overdue: str, pipeline: Sequence[str], *, watched_s: float) -> Observed:
    failed = row["last_run_status"] == run.RunStatus.FAILED.value
    return Observed(
        paused=row["status"] != "ACTIVE",
        pause_note=row["pause_note"],
        report_age_s=_age_s(row["reported_at"], row["now"]),
        expected_s=min(watched_s, _expected_s(row)),
        worker_state=row["worker_state"] or "",
        worker_problem=row["problem"] or "",
        worker_hint=row["hint"] or "",
        overdue=overdue,
        last_run_failed=f"the last run failed: {row['last_run_reason'] or 'see `till run list`'}" if failed else "",
        pipeline=pipeline,
    )


def _expected_s(row: Mapping[str, Any]) -> float:
    """For how long the connector has been one that a worker reports: it may be new, or have been paused until now."""
    is_new = row["health"] in (None, HealthState.PAUSED.value)
    since = row["now"] if is_new else row["since"] if row["health"] == HealthState.UNKNOWN.value else None
    return float("inf") if since is None else float((row["now"] - since).total_seconds())


def _age_s(at: datetime | None, now: datetime) -> float | None:
    return None if at is None else (now - at).total_seconds()
