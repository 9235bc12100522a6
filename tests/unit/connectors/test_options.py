"""The options that every connector has (seed 001), at work in a runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.delivery import Filter
from connectors.lag import SourceLag
from connectors.limit import RateLimit
from connectors.record import PaymentFacts
from connectors.runner import Runner, State
from connectors.source import Batch, Cursor, Revision, SourceRecord, Task
from connectors.spec import ConnectorConfig
from connectors.testing import CONNECTOR, START, ManualClock, Memory, eventually, run_through, running
from schemas import metric
from schemas.errors import SourceMisconfigured, SourceThrottled, SourceUnavailable
from schemas.metric import Metric, NullMeter
from schemas.payment import PaymentType, Status
from tests.unit.connectors.scripted import Script, ScriptedSource, make_runner


def record(reference: str = "1", *, headers: Mapping[str, str] | None = None, **fields: Any) -> SourceRecord:
    facts = PaymentFacts(reference, None, PaymentType.PAYIN, Status.SUCCEEDED, 1, "EUR", "", None, None)
    return SourceRecord(reference, facts._replace(**fields), None, headers or {})


class DatedSource(ScriptedSource):
    """Each record came to be at so many seconds past the start, as its reference says."""

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        async for batch in super().read(task, since):
            at = [START + timedelta(seconds=float(each.payment.reference)) for each in batch.records]
            dated = [each._replace(revision=Revision(when)) for each, when in zip(batch.records, at, strict=True)]
            yield Batch(dated, batch.rejections, batch.cursor)


class SeenMeter(NullMeter):
    def __init__(self) -> None:
        self.gauges: dict[str, float] = {}

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self.gauges[metric.name] = value


# --- filters


def kept(records: list[SourceRecord], **options: object) -> list[str]:
    rules = Filter.of(ConnectorConfig.model_validate(options), production=False)
    return [each.payment.reference for each in rules.keep(records)]


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ({"header": "channel", "equals": ["pos"]}, ["b", "c"]),
        ({"header": "channel", "prefix": ["po", "w"]}, ["c"]),
        ({"header": "channel", "equals": [""]}, ["a", "b"]),
        ({"field": "scheme", "equals": ["upi"]}, ["a", "c"]),
        ({"field": "scheme", "equals": [""]}, ["b"]),
        ({"field": "reference", "prefix": ["a"]}, ["b", "c"]),
        ({"field": "parent_reference", "equals": [""]}, ["c"]),
        ({"field": "status", "equals": ["succeeded"]}, []),
        ({"field": "type", "equals": ["payout"]}, ["a", "b", "c"]),
    ],
)
def test_a_rule_leaves_out_events_by_header_or_field(rule: dict[str, object], left: list[str]) -> None:
    records = [
        record("a", headers={"channel": "pos"}),
        record("b", headers={"channel": "web"}, scheme="upi"),
        record("c", parent_reference="a"),
    ]

    assert kept(records, filters=[rule]) == left


def test_every_rule_holds() -> None:
    rules = [{"field": "reference", "equals": ["a"]}, {"field": "scheme", "equals": ["upi"]}]

    assert kept([record("a"), record("b", scheme="upi"), record("c")], filters=rules) == ["c"]


@pytest.mark.parametrize(
    "rule",
    [
        {"equals": ["x"]},
        {"header": "a", "field": "type", "equals": ["x"]},
        {"header": "a"},
        {"field": "amount", "equals": ["1"]},
        {"header": "a", "prefix": [""]},
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConnectorConfig.model_validate({"filters": [rule]})


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("payment.succeeded", "payment.succeeded"),
        ("payment.completed", "payment.succeeded"),
        ("payment.failed", "payment.failed"),
        ("payment.refunded", "payment.refunded"),
        ("payment.Refund-Reversed", "payment.refund_reversed"),
    ],
)
def test_an_event_type_may_be_named_with_the_words_that_records_use(word: str, meant: str) -> None:
    assert ConnectorConfig.model_validate({"event_types": [word]}).event_types == (meant,)


@pytest.mark.parametrize(
    "word", ["order.created", "payment.compleated", "succeeded", "payment.", "", "payments.failed"]
)
def test_an_event_type_that_would_leave_everything_out_is_refused(word: str) -> None:
    with pytest.raises(ValidationError, match=r"there are payment\.adjusted, .*payment\.succeeded"):
        ConnectorConfig.model_validate({"event_types": [word]})


async def test_what_a_rule_leaves_out_counts_as_filtered() -> None:
    script, memory = Script({"a": [["keep-1", "drop-2", "bad"]]}), Memory()

    await run_through(make_runner(script, memory, filters=[{"field": "reference", "prefix": ["drop"]}]))

    counts = memory.last_run.counts
    assert (counts.published, counts.filtered, counts.rejected, counts.balanced) == (1, 1, 1, True)


# --- the rate limit


async def published_at(script: Script, memory: Memory, clock: ManualClock, **options: object) -> list[float]:
    """When each record was in the log, in seconds since the runner began, on a clock that is moved by tenths."""
    runner = make_runner(script, memory, clock=clock, **options)
    found: list[float] = []
    async with running(runner) as task:

        def is_through() -> bool:
            found.extend([clock.monotonic()] * (len(memory.log) - len(found)))
            return runner.status.listed_at is not None and runner.status.open_runs == 0

        await eventually(is_through, clock=clock, tick_s=0.1)
        runner.stop()
        await task
    return found


async def test_records_come_at_the_rate_and_not_in_bursts() -> None:
    script, memory = Script({"a": [[str(n) for n in range(60)]]}), Memory()

    moments = await published_at(script, memory, ManualClock(), records_per_s=20)

    for index, moment in enumerate(moments, 1):
        assert index / 20 - 0.01 <= moment <= index / 20 + 1.0
    assert [event.payment.reference for event in memory.events if event.payment] == [str(n) for n in range(60)]


async def test_tasks_that_run_side_by_side_share_the_rate() -> None:
    script, memory = Script({key: [[f"{key}{n}" for n in range(10)]] for key in "abcd"}), Memory()

    moments = await published_at(script, memory, ManualClock(), records_per_s=10, parallel=4)

    assert 4.0 <= moments[-1] <= 5.5


async def test_a_connector_begins_without_turns_saved_up() -> None:
    clock = ManualClock()
    clock.advance(1_000)

    moments = await published_at(Script({"a": [["1", "2", "3", "4"]]}), Memory(), clock, records_per_s=1)

    assert moments[0] >= 1_000 + 0.8
    assert moments[-1] >= 1_000 + 3.8


async def test_a_quiet_time_is_not_saved_up() -> None:
    clock, stop = ManualClock(), asyncio.Event()
    limit = RateLimit(10, clock)
    clock.advance(3_600)

    for _ in range(2):
        await asyncio.wait_for(limit.turn(1, stop=stop), 5)
    third = asyncio.create_task(limit.turn(2, stop=stop))
    await eventually(lambda: clock.slept)

    assert not third.done()
    third.cancel()


async def test_the_rate_holds_across_stops_and_nothing_is_published_twice() -> None:
    """
    A batch takes twenty lives here: what one has published of it the next one leaves out.
    """
    references = [str(n) for n in range(99)]
    script, memory, clock = Script({"a": [[*references, "bad"], ["later"]]}), Memory(), ManualClock()
    lives = 0
    while len(memory.log) < 100:
        lives += 1
        out = len(memory.log)
        runner = make_runner(script, memory, clock=clock, records_per_s=5, epoch=lives)
        async with running(runner) as task:
            await eventually(lambda out=out: len(memory.log) >= min(out + 5, 100), clock=clock, tick_s=0.1)
            runner.stop()
            await asyncio.wait_for(task, 10)
        assert len(memory.log) <= 5 * clock.monotonic() + 1

    assert [event.payment.reference for event in memory.events if event.payment] == [*references, "later"]
    assert lives >= 20
    assert len(memory.letter_ids) == 1
    runs = [row.counts for row in memory.runs.values()]
    assert sum(counts.published for counts in runs) == 100
    assert all(counts.balanced for counts in runs)
    assert {row.status for row in memory.runs.values()} == {"READ"}


async def test_without_a_rate_nobody_waits() -> None:
    limit = RateLimit(0, ManualClock())

    await limit.turn(1_000_000, stop=asyncio.Event())

    assert limit.step == 0


# --- holding back


async def test_an_object_is_held_back_from_when_it_was_met() -> None:
    script, memory, clock = Script({"a": [["1"], ["2"]]}), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, consume_lag_s=300)
    async with running(runner):
        await eventually(lambda: clock.sleeps(300))
        assert not memory.log
        clock.advance(299)
        await asyncio.sleep(0.05)
        assert not memory.log

        clock.advance(1)
        await eventually(lambda: memory.runs and runner.status.open_runs == 0)

    assert len(memory.log) == 2
    assert all(event.created_at == START for event in memory.events)


async def test_each_record_of_a_stream_is_held_back_from_when_it_came_to_be() -> None:
    script, memory, clock = Script({"s": [["-1000"], ["-10"]]}, recurring=True), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, source=DatedSource, consume_lag_s=60)
    async with running(runner):
        await eventually(lambda: clock.sleeps(50))
        assert [event.payment.reference for event in memory.events if event.payment] == ["-1000"]

        clock.advance(50)
        await eventually(lambda: len(memory.log) == 2)


async def test_a_source_whose_clock_is_ahead_is_held_back_no_longer_than_asked() -> None:
    script, memory, clock = Script({"s": [["1000000"]]}, recurring=True), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, source=DatedSource, consume_lag_s=77)
    async with running(runner):
        await eventually(lambda: clock.sleeps(77))
        clock.advance(77)
        await eventually(lambda: len(memory.log) == 1)


async def test_what_is_held_back_holds_back_no_other_task() -> None:
    """
    One task may run at a time, and the first is held back for an hour.
    """
    script, memory, clock = Script({"young": [["0"]], "old": [["-9999"]]}, recurring=True), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, source=DatedSource, consume_lag_s=3_600, parallel=1)
    async with running(runner):
        await eventually(lambda: len(memory.log) == 1)

        assert [event.payment.reference for event in memory.events if event.payment] == ["-9999"]


async def test_a_stop_does_not_wait_for_what_is_held_back_and_a_restart_publishes_it() -> None:
    script, memory, clock = Script({"a": [["1"]]}), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, consume_lag_s=3_600)
    async with running(runner) as task:
        await eventually(lambda: clock.sleeps(3_600))
        runner.stop()
        assert await asyncio.wait_for(task, 10) is State.STOPPED
    assert not memory.log

    clock.advance(3_600)
    await run_through(make_runner(script, memory, clock=clock, epoch=2, consume_lag_s=3_600))

    assert [event.created_at for event in memory.events] == [START]


# --- lag


def lag(*, alert_s: float = 0.0) -> tuple[SourceLag, ManualClock, SeenMeter]:
    clock, meter = ManualClock(), SeenMeter()
    return SourceLag(CONNECTOR.name, alert_s=alert_s, clock=clock, meter=meter), clock, meter


def test_the_lag_is_the_age_of_the_oldest_that_waits() -> None:
    measured, clock, meter = lag()
    measured.waits("a", START - timedelta(seconds=30))
    measured.waits("b", START - timedelta(seconds=10))
    clock.advance(5)

    assert measured.seconds == 35
    measured.through("a")
    assert measured.seconds == 15
    measured.show()
    assert meter.gauges == {metric.SOURCE_LAG_SECONDS.name: 15}
    measured.keep(set())
    assert measured.seconds == 0


def test_what_the_source_dates_into_the_future_is_no_negative_lag() -> None:
    measured, _, _ = lag()
    measured.waits("a", START + timedelta(days=1))

    assert measured.seconds == 0


def test_only_a_lag_over_its_threshold_is_a_problem() -> None:
    measured, clock, _ = lag(alert_s=60)
    measured.waits("a", START)
    clock.advance(60)
    assert not measured.problem

    clock.advance(1)

    assert measured.problem == "lags 61 s behind its source, more than lag_alert_s (60 s)"


def problems(runner: Runner) -> str:
    return "; ".join(runner.status.problems)


async def test_a_connector_that_cannot_publish_for_too_long_is_unwell_and_recovers() -> None:
    script, memory, clock = Script({"a": [["1"]]}, hang={"a"}), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, lag_alert_s=60, deadline_s=10_000)
    async with running(runner):
        await eventually(lambda: script.reading == ["a"])
        clock.advance(61)
        assert "lags 61 s" in problems(runner)
        assert runner.state is State.DEGRADED

        script.hang.clear()
        clock.advance(10_000)
        await eventually(lambda: runner.status.open_runs == 0 and not problems(runner), clock=clock)


async def test_a_listing_that_fails_for_too_long_is_a_lag_since_it_last_worked() -> None:
    away = [SourceUnavailable("away")] * 1_000
    script, clock = Script({}), ManualClock()
    runner = make_runner(script, clock=clock, lag_alert_s=60, poll_s=1, error_backoff_max_s=5)
    async with running(runner):
        await eventually(lambda: runner.status.listed_at is not None)
        script.listing_errors = list(away)

        await eventually(lambda: "lags" in problems(runner), clock=clock, tick_s=0.5)

        assert "away" in problems(runner)
        script.listing_errors.clear()
        await eventually(lambda: not problems(runner), clock=clock, tick_s=0.5)


@pytest.mark.parametrize("max_retries", [0, 5])
async def test_a_poll_that_fails_again_and_again_lags_since_its_first_failure(max_retries: int) -> None:
    away: list[BaseException] = [SourceUnavailable("away")] * 10_000
    script, clock = Script({"list": [["1"]]}, recurring=True, reading_errors={"list": away}), ManualClock()
    runner = make_runner(
        script, clock=clock, lag_alert_s=600, poll_s=10, error_backoff_max_s=10, max_retries=max_retries
    )
    async with running(runner):
        await eventually(lambda: "lags" in problems(runner), clock=clock, tick_s=5)
        assert clock.monotonic() < 700

        away.clear()

        await eventually(lambda: not problems(runner), clock=clock, tick_s=5)


async def test_an_idle_connector_has_no_lag_however_long_it_idles() -> None:
    script, clock = Script({}), ManualClock()
    runner = make_runner(script, clock=clock, lag_alert_s=60, poll_s=3_600)
    async with running(runner):
        await eventually(lambda: runner.status.listed_at is not None)
        clock.advance(3_000)

        assert not problems(runner)


async def test_a_stream_that_reads_old_records_lags_as_far_as_they_are_old() -> None:
    script, clock = Script({"s": [["-500"]]}, recurring=True, hang={"s"}), ManualClock()
    memory = Memory()
    runner = make_runner(script, memory, clock=clock, source=DatedSource, lag_alert_s=60, deadline_s=10_000)
    async with running(runner):
        await eventually(lambda: memory.log)

        await eventually(lambda: "lags 500 s" in problems(runner))


# --- what the source says when it fails


async def test_a_source_that_asks_for_silence_gets_it() -> None:
    throttled: list[BaseException] = [SourceThrottled("the bank", retry_after_s=42)]
    script, memory, clock = Script({"a": [["1"]]}, reading_errors={"a": throttled}), Memory(), ManualClock()

    await run_through(make_runner(script, memory, clock=clock, error_backoff_s=0.001), clock=clock)

    assert [seconds for seconds in clock.slept if 42 <= seconds < 43]
    assert len(memory.log) == 1


async def test_no_source_is_left_in_peace_for_ever() -> None:
    throttled: list[BaseException] = [SourceThrottled("the bank", retry_after_s=1e9)]
    script, clock = Script({"a": [["1"]]}, reading_errors={"a": throttled}), ManualClock()
    runner = make_runner(script, clock=clock)
    async with running(runner):
        await eventually(lambda: any(seconds > 80_000 for seconds in clock.slept))

    assert max(clock.slept) < 90_000


async def test_any_error_may_say_when_to_ask_again() -> None:
    away = SourceUnavailable("in maintenance")
    away.retry_after_s = 600
    script, memory, clock = Script({"a": [["1"]]}, reading_errors={"a": [away]}), Memory(), ManualClock()

    await run_through(make_runner(script, memory, clock=clock, error_backoff_s=0.001), clock=clock)

    assert [seconds for seconds in clock.slept if 600 <= seconds < 601]


# --- secrets in what a source says


CANARY = "canary-4711"


class LeakingSource(ScriptedSource):
    """Says its secret wherever it can say something."""

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        async for batch in super().read(task, since):
            told = [each._replace(message=f"bad key {CANARY}") for each in batch.rejections]
            yield Batch(batch.records, told, batch.cursor)


@pytest.mark.parametrize("error", [SourceUnavailable, SourceMisconfigured])
async def test_a_secret_in_a_sources_error_reaches_neither_status_nor_run_nor_task(
    error: type[SourceUnavailable | SourceMisconfigured],
) -> None:
    failure: BaseException = error(f"401 for {CANARY}", hint=f"is {CANARY} right?")
    script, memory = Script({"a": [["1"]]}, reading_errors={"a": [failure] * 9}), Memory()
    runner = leaking(script, memory)

    await run_through(runner)

    shown = f"{runner.status!r} {runner.tasks()!r} {memory!r}"
    assert CANARY not in shown
    assert "401 for ***" in repr(memory.runs)


async def test_a_secret_in_a_listings_error_does_not_show() -> None:
    failure: BaseException = SourceMisconfigured(f"GET /?key={CANARY}", hint=CANARY)
    memory = Memory()
    runner = leaking(Script({"a": [["1"]]}, listing_errors=[failure]), memory)
    async with running(runner) as task:
        await asyncio.wait_for(asyncio.shield(task), 10)

    assert CANARY not in f"{runner.status!r} {memory!r}"
    assert "GET /?key=***" in problems(runner)


async def test_a_secret_in_a_rejections_message_does_not_reach_the_letter() -> None:
    memory = Memory()

    await run_through(leaking(Script({"a": [["bad 1"]]}), memory))

    assert [letter.message for letter in memory.letters] == ["bad key ***"]


def leaking(script: Script, memory: Memory) -> Runner:
    """A runner whose register knows the canary."""
    return make_runner(
        script,
        memory,
        source=LeakingSource,
        redact=lambda text: text.replace(CANARY, "***"),
        max_retries=0,
    )


async def test_how_often_a_source_is_listed_is_stated_so_that_a_rule_can_tell_what_is_late() -> None:
    """A day is long for a folder, and not for a report that comes once a day."""
    meter = SeenMeter()
    runner = make_runner(Script(), meter=meter, poll_s=86_400)

    async with running(runner):
        await eventually(lambda: metric.POLL_SECONDS.name in meter.gauges)

    assert meter.gauges[metric.POLL_SECONDS.name] == 86_400
