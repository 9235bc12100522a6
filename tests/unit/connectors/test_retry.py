"""A connector's own policy: what is tried again, how often, and after which pauses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from connectors.runner import State
from connectors.spec import ConnectorConfig, Retried
from connectors.testing import ManualClock, Memory, eventually, running
from schemas.errors import (
    BrokerUnavailable,
    ChangesLost,
    SourceBroken,
    SourceChanged,
    SourceMisconfigured,
    SourceThrottled,
    SourceUnauthorised,
    SourceUnavailable,
    TillError,
)
from tests.unit.connectors.scripted import Script, make_runner
from tests.unit.connectors.test_request import asked, served

AWAY, BROKEN, REFUSED = SourceUnavailable("away"), SourceBroken("a bug"), SourceUnauthorised("401")
USUAL = [SourceUnavailable("x"), SourceThrottled("x", retry_after_s=0), SourceChanged("x"), SourceBroken("x")]
PATIENT = [*ConnectorConfig().retry_on, Retried.SOURCE_UNAUTHORISED]


def steadily(**options: object) -> dict[str, object]:
    """Pauses that a test can name: nothing of them is left to chance."""
    return {"error_backoff_s": 3, "error_backoff_max_s": 7, "error_backoff_jitter": 0, "poll_s": 1_000, **options}


async def test_pauses_are_as_configured_to_the_second() -> None:
    script, clock = Script({"a": [["1"]]}, reading_errors={"a": [AWAY] * 4}), ManualClock()
    runner = make_runner(script, Memory(), clock=clock, **steadily(deadline_s=10_000))

    async with running(runner):
        for pause_s in (3, 6, 7, 7):
            await eventually(lambda pause_s=pause_s: clock.sleeps(pause_s))
            clock.advance(pause_s)
        await eventually(lambda: runner.state is State.RUNNING)

    assert len(script.read_from) == 5


@pytest.mark.parametrize("error", USUAL, ids=lambda error: error.code)
async def test_an_error_that_is_left_out_ends_the_task_at_once_and_any_other_does_not(error: TillError) -> None:
    runs = []
    for retry_on in (list(Retried), [each for each in Retried if each.value != error.code]):
        script, memory, clock = Script({"a": [["1"]]}, reading_errors={"a": [error]}), Memory(), ManualClock()
        runner = make_runner(script, memory, clock=clock, **steadily(retry_on=retry_on))
        async with running(runner):
            await eventually(lambda m=memory, r=runner: m.runs and not r.status.open_runs, clock=clock, tick_s=1)
        runs.append([row.status for row in memory.runs.values()])

    assert runs == [["READ"], ["FAILED"]]


async def test_a_listing_that_fails_so_waits_for_the_next_poll() -> None:
    script, clock = Script({"a": [["1"]]}, listing_errors=[BROKEN]), ManualClock()
    runner = make_runner(script, Memory(), clock=clock, **steadily(retry_on=["source_unavailable"]))

    async with running(runner):
        await eventually(lambda: clock.sleeps(1_000))
        assert (script.listings, runner.state) == (1, State.DEGRADED)
        clock.advance(1_000)
        await eventually(lambda: runner.state is State.RUNNING)


async def test_a_refusal_pauses_at_once_unless_it_is_tried_again() -> None:
    script = Script({"a": [["1"]]}, listing_errors=[REFUSED])
    runner = make_runner(script, Memory(), **steadily())

    async with running(runner) as task:
        assert await task is State.PAUSED
    assert script.listings == 1


async def test_a_refusal_that_is_tried_again_heals_or_pauses_after_the_last_retry() -> None:
    for refusals, expected in ((2, State.RUNNING), (3, State.PAUSED)):
        script, clock = Script({"a": [["1"]]}, listing_errors=[REFUSED] * refusals), ManualClock()
        runner = make_runner(script, Memory(), clock=clock, **steadily(retry_on=PATIENT, max_retries=2))

        async with running(runner):
            for pause_s in (3, 6):
                await eventually(lambda c=clock, pause_s=pause_s: c.sleeps(pause_s))
                assert runner.state is State.DEGRADED
                clock.advance(pause_s)
            await eventually(lambda r=runner, e=expected: r.state is e)

        assert script.listings == 3


async def test_a_task_that_is_refused_is_tried_again_and_then_pauses() -> None:
    script, memory, clock = Script({"a": [["1"]]}, reading_errors={"a": [REFUSED] * 9}), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, **steadily(retry_on=PATIENT, max_retries=2))

    async with running(runner):
        for pause_s in (3, 6):
            await eventually(lambda pause_s=pause_s: clock.sleeps(pause_s))
            clock.advance(pause_s)
        await eventually(lambda: runner.state is State.PAUSED)

    assert len(script.read_from) == 3
    assert [row.status for row in memory.runs.values()] == ["FAILED"]


async def test_a_run_that_was_asked_for_heeds_it_too() -> None:
    script, memory, clock = Script({"a": [["1"]]}, listing_errors=[BROKEN]), Memory(), ManualClock()

    row = await served(make_runner(script, memory, clock=clock, retry_on=[]), memory, asked(), clock=clock)

    assert (row.status, row.reason) == ("FAILED", "a bug")


async def test_what_fails_on_our_side_is_no_matter_of_the_sources_policy() -> None:
    away = BrokerUnavailable("no broker")
    script, memory, clock = Script({"a": [["1"]]}, reading_errors={"a": [away]}), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, **steadily(retry_on=[]))

    async with running(runner):
        await eventually(lambda: memory.runs and not runner.status.open_runs, clock=clock, tick_s=1)

    assert [row.status for row in memory.runs.values()] == ["READ"]


async def test_changes_that_are_lost_pause_whatever_is_tried_again() -> None:
    script = Script({"a": [["1"]]}, listing_errors=[ChangesLost("gone")])

    async with running(make_runner(script, Memory(), **steadily(retry_on=list(Retried)))) as task:
        assert await task is State.PAUSED
    assert script.listings == 1


def test_what_is_no_error_of_a_source_cannot_be_named() -> None:
    with pytest.raises(ValidationError, match="source_unavailable"):
        ConnectorConfig(retry_on=["changes_lost"])


def test_each_that_can_be_named_is_an_error_of_ours() -> None:
    errors = [*USUAL, REFUSED, SourceMisconfigured("x")]

    assert {each.code for each in errors} == {each.value for each in Retried}
