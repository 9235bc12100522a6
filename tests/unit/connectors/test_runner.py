from __future__ import annotations

import asyncio
import itertools
import logging
from datetime import timedelta

import pytest

from connectors.runner import HEARTBEAT_S, State
from connectors.source import Skipped
from connectors.task import TaskStatus
from connectors.testing import CONNECTOR, START, Faults, ManualClock, Memory, eventually, run_through, running
from schemas import identity
from schemas.errors import (
    BrokerUnavailable,
    DeadLetterUnavailable,
    Fenced,
    RecordRejected,
    SinkUnavailable,
    SourceMisconfigured,
    SourceThrottled,
    SourceUnavailable,
)
from schemas.payment import Status
from tests.unit.connectors.scripted import Script, make_runner

AWAY = SourceUnavailable("the source is away")
BROKER_AWAY = BrokerUnavailable("the broker is away")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("connectors.")]


# --- polls, runs ---


async def test_one_listing_that_finds_work_is_one_run_and_an_empty_poll_is_none() -> None:
    script, memory, clock = Script({"a": [["1", "2"]], "b": [["3"]]}), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, poll_s=10)

    async with running(runner):
        await eventually(lambda: len(memory.log) == 3 and not runner.status.open_runs and clock.sleeps(10))
        clock.advance(9.9)
        assert script.listings == 1
        clock.advance(0.2)
        await eventually(lambda: script.listings == 2 and clock.sleeps(10))
        script.objects["c"] = [["4"]]
        clock.advance(10)
        await eventually(lambda: len(memory.log) == 4 and not runner.status.open_runs)

    assert [row.counts.read for row in memory.runs.values()] == [3, 1]
    assert {(row.triggered_by, row.run_type, row.status) for row in memory.runs.values()} == {
        ("SCHEDULER", "SCHEDULED", "READ")
    }


async def test_a_recurring_task_goes_on_where_it_stands_at_each_poll_and_a_run_without_records_is_none() -> None:
    script, memory, clock = Script({"changes": [["1", "2"]]}, recurring=True), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, poll_s=10)

    async with running(runner):
        await eventually(lambda: len(memory.log) == 2 and not runner.status.open_runs and clock.sleeps(10))
        clock.advance(10)
        await eventually(lambda: script.listings == 2 and not runner.status.open_runs and clock.sleeps(10))
        script.objects["changes"].append(["3"])
        clock.advance(10)
        await eventually(lambda: len(memory.log) == 3 and not runner.status.open_runs and clock.sleeps(10))

    assert [row.counts.read for row in memory.runs.values()] == [2, 1]
    assert [row.status for row in memory.runs.values()] == ["READ", "READ"]
    assert [since and since["batch"] for _, since in script.read_from] == [None, 1, 1]
    assert not any(checkpoint.done for checkpoint in memory.state.values())


async def test_a_recurring_task_goes_on_after_a_restart_and_an_empty_run_of_it_is_not_told_as_crashed() -> None:
    script, memory = Script({"changes": [["1"]]}, recurring=True), Memory()
    await run_through(make_runner(script, memory))
    script.objects["changes"].append(["2"])
    await run_through(make_runner(script, memory, epoch=2))
    script.objects["idle"] = [[]]

    await run_through(make_runner(script, memory, epoch=3))
    await run_through(make_runner(script, memory, epoch=4))

    assert [event.payment.reference for event in memory.events if event.payment] == ["1", "2"]
    assert [row.status for row in memory.runs.values()] == ["READ", "READ"]


async def test_a_recurring_task_that_fails_has_a_failed_run() -> None:
    script, memory = Script({"changes": [["1"]]}, recurring=True, reading_errors={"changes": [AWAY]}), Memory()

    await run_through(make_runner(script, memory, max_retries=0))

    assert (memory.last_run.status, memory.last_run.counts.read) == ("FAILED", 0)


async def test_counts_have_every_fate_and_balance() -> None:
    script, memory = Script({"a": [["1", "bad 2"], ["test-3", "4"]]}), Memory()

    await run_through(make_runner(script, memory, production=True))

    counts = memory.last_run.counts
    assert (counts.read, counts.published, counts.rejected, counts.filtered) == (4, 2, 1, 1)
    assert counts.balanced
    assert counts.published_sum == identity.digest_sum(map(identity.event_digest, memory.event_ids))


async def test_a_new_listing_finds_work_while_an_old_task_still_hangs() -> None:
    script, memory, clock = Script({"stuck": [["1"]]}, hang={"stuck"}), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, deadline_s=10_000)

    async with running(runner):
        await eventually(lambda: script.reading == ["stuck"] and clock.sleeps(10))
        script.objects["b"] = [["2"]]
        clock.advance(10)
        await eventually(lambda: len(memory.log) == 2)
        await eventually(lambda: [row.status for row in memory.runs.values()] == ["READING", "READ"])


@pytest.mark.parametrize(("policy", "production", "kept"), [
    ("in_production", True, 1), ("in_production", False, 2), ("always", False, 1), ("never", True, 2),
])  # fmt: skip
async def test_test_ids_are_filtered_where_the_policy_says(policy: str, production: bool, kept: int) -> None:
    memory = Memory()

    await run_through(
        make_runner(Script({"a": [["test-1", "x-test-2"]]}), memory, production=production, filter_test_ids=policy)
    )

    assert len(memory.log) == kept
    assert memory.last_run.counts.filtered == 2 - kept


async def test_events_of_other_types_are_filtered() -> None:
    script, memory = Script({"a": [["1"]]}, status=Status.PENDING), Memory()

    await run_through(make_runner(script, memory, event_types=("payment.succeeded",)))

    assert (memory.log, memory.last_run.counts.filtered) == ([], 1)


# --- tasks ---


async def test_no_more_tasks_run_than_allowed_and_the_oldest_begin_first(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    script, memory = Script({f"t{n}": [["1"], ["2"], ["3"]] for n in range(20)}), Memory()

    await run_through(make_runner(script, memory, parallel=3))

    assert script.most_reading == 3
    assert [key for key, _ in script.read_from] == [f"t{n}" for n in range(20)]


async def test_tasks_over_the_limit_are_pending_and_listed() -> None:
    script = Script({f"t{n}": [["1"]] for n in range(4)}, hang={"t0", "t1"})
    runner = make_runner(script, parallel=2)

    async with running(runner):
        await eventually(lambda: len(script.reading) == 2 and runner.status.listed_at is not None)
        views = runner.tasks()

    assert [(view.descriptor, view.status) for view in views] == [
        ("directory", TaskStatus.ACTIVE),
        ("t0", TaskStatus.ACTIVE),
        ("t1", TaskStatus.ACTIVE),
        ("t2", TaskStatus.PENDING),
        ("t3", TaskStatus.PENDING),
    ]
    assert views[0].id == "ImRpcmVjdG9yeSI="
    assert {view.provider for view in views} == {"example"}


async def test_the_log_lines_are_those_of_the_tutorial(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    script = Script({"001.json": [["1"]], "002.json": [["bad"]]})

    await run_through(make_runner(script, parallel=1))

    lines = [record for record in caplog.records if record.name.startswith("connectors.")]
    assert [(line.levelname, line.getMessage()) for line in lines] == [
        ("INFO", "Starting task..."),
        ("INFO", "Starting task..."),
        ("INFO", "Task terminated with success"),
        ("INFO", "Starting task..."),
        ("ERROR", "Task terminated with error: no amount"),
        ("INFO", "Stopping scheduler..."),
    ]
    facts = [getattr(line, "facts", {}) for line in lines]
    assert {fact["component"] for fact in facts} == {"scheduler"}
    assert {fact["provider"] for fact in facts} == {"example"}
    assert [fact.get("task-id") for fact in facts[:2]] == ["ImRpcmVjdG9yeSI=", "IjAwMS5qc29uIg=="]


async def test_a_task_none_of_whose_records_could_be_used_has_failed_and_is_done() -> None:
    script, memory = Script({"a": [["bad"]], "b": [["bad", "good"]]}), Memory()
    runner = make_runner(script, memory)

    await run_through(runner)

    by_name = {view.descriptor: view for view in runner.tasks()}
    assert (by_name["a"].status, by_name["a"].error) == (TaskStatus.FAILED, "no amount")
    assert by_name["b"].status is TaskStatus.TERMINATED
    assert all(checkpoint.done for checkpoint in memory.state.values())
    assert memory.last_run.status == "READ"


async def test_an_object_that_cannot_be_read_at_all_is_one_rejected_record() -> None:
    script = Script({"a": [["1"]]}, reading_errors={"a": [RecordRejected("missing_column", "no header")]})
    memory = Memory()

    await run_through(make_runner(script, memory))

    counts = memory.last_run.counts
    assert (counts.read, counts.rejected, counts.published) == (1, 1, 0)
    assert (memory.letters[0].reason, memory.letters[0].position) == ("missing_column", "object")
    assert memory.state["a"].done


async def test_what_the_listing_skips_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(skipped=[Skipped("x", "fifo"), Skipped("y", "unreadable", "open y: permission denied")])
    runner = make_runner(script, clock=(clock := ManualClock()))

    async with running(runner):
        await eventually(lambda: script.listings == 1 and clock.sleeps(10))
        clock.advance(10)
        await eventually(lambda: script.listings == 2)

    assert runner.status.skipped == {"fifo": 1, "unreadable": 1}
    assert runner.status.problems == ("y: open y: permission denied",)
    assert said(caplog) == ["Error scheduling task 'y': open y: permission denied"]


async def test_a_run_beside_unreadable_objects_tells_of_them() -> None:
    script, memory = Script({"a": [["1"]]}, skipped=[Skipped("y", "unreadable", "permission denied")]), Memory()

    await run_through(make_runner(script, memory))

    assert (memory.last_run.status, memory.last_run.problems) == ("READ", ("y: permission denied",))


async def test_the_same_content_under_another_name_is_skipped_and_counted_once() -> None:
    script, memory = Script({"sha": [["1"]]}, names={"sha": ["a", "b", "c"]}), Memory()
    runner = make_runner(script, memory, clock=(clock := ManualClock()))

    async with running(runner):
        await eventually(lambda: memory.log and not runner.status.open_runs)
        for listings in (2, 3, 4):
            await eventually(lambda: clock.sleeps(10))
            clock.advance(10)
            await eventually(lambda listings=listings: script.listings == listings)

    assert len(memory.log) == 1
    assert memory.last_run.counts.skipped == 2
    assert memory.last_run.counts.balanced


# --- order: data, acks, letters, checkpoint ---


async def test_discovery_is_durable_before_anything_is_published() -> None:
    """
    The revision is the instant of the first discovery; a crash after the publish must not give the object a second one.
    """
    faults, memory = Faults(), Memory()
    faults.fail("save", BROKER_AWAY)
    runner = make_runner(Script({"a": [["1"]]}), memory, faults=faults, clock=(clock := ManualClock()))

    async with running(runner):
        await eventually(lambda: runner.state is State.DEGRADED)
        assert memory.log == []
        await eventually(lambda: memory.log, clock=clock)

    first, acknowledged = memory.saved[0]
    assert (first.cursor, first.done, first.counts.read, acknowledged) == (None, False, 0, 0)


async def test_the_revision_survives_restarts() -> None:
    memory, late = Memory(), ManualClock(START + timedelta(days=1))
    script = Script({"a": [["1"], ["2"]]}, hang={"a"})
    async with running(make_runner(script, memory)):
        await eventually(lambda: len(memory.log) == 2 and len(memory.saved) == 3)

    memory.state["a"] = memory.saved[1][0]
    script.hang.clear()
    await run_through(make_runner(script, memory, epoch=2, clock=late))

    assert {event.lineage.revision_at for event in memory.events if event.lineage} == {START}
    assert {event.created_at for event in memory.events} == {START}


async def test_two_objects_of_one_listing_have_two_revisions_in_their_order() -> None:
    script, memory = Script({"a": [["1"]], "b": [["2"]], "c": [["3"]]}), Memory()

    await run_through(make_runner(script, memory))

    revisions = [memory.state[key].revision_at for key in "abc"]
    assert revisions == [START + timedelta(microseconds=n) for n in range(3)]


async def test_a_revision_never_goes_back_though_the_clock_does() -> None:
    memory = Memory()
    await run_through(make_runner(Script({"a": [["1"]]}), memory))

    early = ManualClock(START - timedelta(days=1))
    await run_through(make_runner(Script({"b": [["2"]]}), memory, epoch=2, clock=early))

    assert memory.state["b"].revision_at > memory.state["a"].revision_at


@pytest.mark.parametrize("point", ["publish", "publish:half", "publish:done"])
async def test_a_publish_without_an_acknowledgement_is_sent_again_and_moves_no_cursor(point: str) -> None:
    faults, memory, clock = Faults(), Memory(), ManualClock()
    faults.fail(point, BROKER_AWAY)

    await run_through(make_runner(Script({"a": [["1", "2"], ["3"]]}), memory, faults=faults, clock=clock), clock=clock)

    assert memory.last_run.counts.published == 3
    assert len(memory.event_ids) == 3
    first = [checkpoint.cursor for checkpoint, acknowledged in memory.saved if acknowledged == 0]
    assert first == [None]


async def test_a_letter_without_an_acknowledgement_moves_no_cursor() -> None:
    faults, memory, clock = Faults(), Memory(), ManualClock()
    faults.fail("dead_letter", DeadLetterUnavailable("no such topic"), times=2)
    runner = make_runner(Script({"a": [["1", "bad"]]}), memory, faults=faults, clock=clock)

    await run_through(runner, clock=clock)

    assert [checkpoint.cursor for checkpoint, acknowledged in memory.saved if acknowledged < 2] == [None]
    assert (len(memory.letters), memory.last_run.counts.rejected) == (1, 1)


async def test_batches_of_a_task_are_never_published_two_at_a_time() -> None:
    """
    A payment's events would change places if the second batch overtook the first.
    """
    faults, memory = Faults(), Memory()
    gate = faults.hold("publish:half")
    runner = make_runner(Script({"a": [["1", "2"], ["3", "4"]]}), memory, faults=faults)

    async with running(runner):
        await eventually(lambda: len(memory.log) == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(memory.log) == 1
        gate.set()
        await eventually(lambda: len(memory.log) == 4)

    assert [event.payment.reference for event in memory.events if event.payment] == ["1", "2", "3", "4"]


async def test_what_the_topic_refuses_becomes_a_letter_and_its_neighbours_go_through() -> None:
    class Picky:
        def __init__(self, memory: Memory) -> None:
            self.memory = memory

        async def publish(self, messages: list[object]) -> None:
            if any(b'"reference":"3"' in message.value for message in messages):  # type: ignore[attr-defined]
                raise RecordRejected("too_large", "does not fit")
            self.memory.log.extend(messages)  # type: ignore[arg-type]

    memory = Memory()
    runner = make_runner(Script({"a": [["1", "2", "3", "4", "5"]]}), memory)
    object.__setattr__(runner._ports, "publisher", Picky(memory))

    await run_through(runner)

    assert [event.payment.reference for event in memory.events if event.payment] == ["1", "2", "4", "5"]
    assert [letter.reason for letter in memory.letters] == ["too_large"]
    counts = memory.last_run.counts
    assert (counts.published, counts.rejected, counts.balanced) == (4, 1, True)


async def test_checkpoints_are_written_no_more_often_than_configured() -> None:
    memory = Memory()

    await run_through(make_runner(Script({"a": [[str(n)] for n in range(50)]}), memory, checkpoint_s=1))

    assert len(memory.saved) == 2  # the discovery and the end: no time passed


async def test_epochs_and_sequence_numbers_only_grow() -> None:
    memory = Memory()
    await run_through(make_runner(Script({"a": [["1"]], "b": [["2"]]}), memory, epoch=3))
    await run_through(make_runner(Script({"c": [["1"]]}), memory, epoch=4))

    order = [(checkpoint.epoch, checkpoint.seq) for checkpoint, _ in memory.saved]

    assert order == sorted(order)
    assert len({seq for _, seq in order}) == len(order)


# --- errors ---


async def test_a_failing_task_is_tried_again_with_jittered_growing_pauses() -> None:
    script, memory, clock = Script({"a": [["1"]]}, reading_errors={"a": [AWAY] * 5}), Memory(), ManualClock()

    options = {"error_backoff_s": 8, "error_backoff_max_s": 20, "deadline_s": 10_000, "poll_s": 10_000}
    await run_through(make_runner(script, memory, clock=clock, **options), clock=clock)

    assert memory.last_run.status == "READ"
    pauses = [pause for pause in clock.slept if pause <= 20 and pause not in {HEARTBEAT_S, 0.5}]
    assert len(pauses) == 5
    assert all(0 <= pause <= most for pause, most in zip(pauses, [8, 16, 20, 20, 20], strict=True))
    assert len(set(pauses)) == 5


async def test_what_a_source_asks_for_is_waited() -> None:
    script = Script({"a": [["1"]]}, reading_errors={"a": [SourceThrottled("api", retry_after_s=100)]})
    clock = ManualClock()

    await run_through(make_runner(script, clock=clock), clock=clock)

    assert any(100 <= pause <= 101 for pause in clock.slept)


async def test_after_the_last_retry_the_run_has_failed_and_the_next_poll_tries_again() -> None:
    script, memory, clock = (
        Script({"a": [["1"]], "b": [["2"]]}, reading_errors={"a": [AWAY] * 3}),
        Memory(),
        ManualClock(),
    )
    runner = make_runner(script, memory, clock=clock, max_retries=2)

    async with running(runner):
        await eventually(lambda: len(memory.runs) == 2 and not runner.status.open_runs, clock=clock)

    first, second = memory.runs.values()
    assert (first.status, first.reason, first.counts.published) == ("FAILED", "a: the source is away", 1)
    assert (second.status, second.counts.published) == ("READ", 1)
    assert runner.status.problems == ()


async def test_progress_makes_the_count_of_retries_start_anew() -> None:
    class EverySecond(Faults):
        """The broker is away at every second publish."""

        async def point(self, name: str) -> None:
            if name == "publish" and next(turns) % 2 == 0:
                raise BROKER_AWAY
            await super().point(name)

    turns = itertools.count()
    batches = [[str(n)] for n in range(6)]
    script, memory, clock = Script({"a": batches}, reading_errors={}), Memory(), ManualClock()

    await run_through(make_runner(script, memory, clock=clock, faults=EverySecond(), max_retries=1), clock=clock)

    assert next(turns) == 12
    assert [row.status for row in memory.runs.values()] == ["READ"]


async def test_a_task_that_waits_for_its_retry_lets_others_run() -> None:
    script, memory, clock = Script({"a": [["1"]], "b": [["2"]]}, reading_errors={"a": [AWAY]}), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, parallel=1)

    async with running(runner):
        await eventually(lambda: len(memory.log) == 1)
        assert runner.state is State.DEGRADED
        assert runner.status.problems == ("the source is away",)
        await eventually(lambda: len(memory.log) == 2, clock=clock)
        await eventually(lambda: runner.state is State.RUNNING, clock=clock)


async def test_an_outage_begins_a_bounded_number_of_tasks() -> None:
    script = Script({f"t{n}": [["1"]] for n in range(100)}, reading_errors={f"t{n}": [AWAY] * 9 for n in range(100)})
    runner = make_runner(script, parallel=2)

    async with running(runner):
        await eventually(lambda: len(script.read_from) == 10)
        for _ in range(50):
            await asyncio.sleep(0)

    assert len(script.read_from) == 10


async def test_a_pause_error_stops_the_connector_and_says_why() -> None:
    script = Script({"a": [["1"], ["2"]], "b": [["3"]]}, reading_errors={"b": [SourceMisconfigured("no such bucket")]})
    memory = Memory()
    runner = make_runner(script, memory)

    async with running(runner) as task:
        assert await asyncio.wait_for(task, 10) is State.PAUSED

    assert (memory.last_run.status, memory.last_run.reason) == ("FAILED", "b: no such bucket")
    assert runner.status.problems == ("no such bucket",)
    assert runner.status.hint
    assert memory.letters == []


async def test_an_error_of_the_listing_is_told_and_the_next_poll_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    script, memory, clock = Script({"a": [["1"]]}, listing_errors=[AWAY]), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock)

    async with running(runner):
        await eventually(lambda: runner.state is State.DEGRADED)
        assert (runner.status.problems, memory.runs) == (("the source is away",), {})
        await eventually(lambda: runner.state is State.RUNNING and len(memory.log) == 1, clock=clock)

    assert "the source is away" in said(caplog)


async def test_a_newer_owner_stops_this_one_at_once() -> None:
    memory = Memory()
    script = Script({"a": [["1"], ["2"]]}, hang={"a"})
    async with running(make_runner(script, memory, epoch=1)) as old:
        await eventually(lambda: len(memory.saved) == 3)
        script.hang.clear()
        script.objects["b"] = [["3"]]
        await run_through(make_runner(script, memory, epoch=2))
        assert not old.done()
        old.cancel()

    script.objects["c"] = [["4"]]
    runner = make_runner(script, memory, epoch=1)
    async with running(runner) as zombie:
        assert await asyncio.wait_for(zombie, 10) is State.PAUSED

    assert len(memory.log) == 3
    assert isinstance(runner._health._failing["c"], Fenced)


async def test_a_source_that_hangs_is_given_up_at_its_deadline() -> None:
    script, memory, clock = Script({"a": [["1"]], "b": [["2"]]}, hang={"a"}), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, deadline_s=30, max_retries=0)

    async with running(runner):
        await eventually(lambda: len(memory.log) == 2 and clock.sleeps(30))
        clock.advance(29)
        assert runner.status.open_runs == 1
        clock.advance(2)
        await eventually(lambda: not runner.status.open_runs)

    assert (memory.last_run.status, memory.last_run.reason) == ("FAILED", "a: timeout in reading a: silent for 30 s")


async def test_a_listing_that_hangs_is_given_up_at_its_deadline() -> None:
    script, clock = Script(listing_hangs=True), ManualClock()
    runner = make_runner(script, clock=clock, deadline_s=30)

    async with running(runner):
        await eventually(lambda: clock.sleeps(30))
        clock.advance(31)
        await eventually(lambda: runner.status.problems == ("timeout in listing: silent for 30 s",))


async def test_a_bug_of_ours_ends_the_runner_and_its_runs() -> None:
    memory, faults = Memory(), Faults()
    faults.fail("publish", ZeroDivisionError("oops"))

    async with running(make_runner(Script({"a": [["1"]]}), memory, faults=faults)) as task:
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(task, 10)

    assert (memory.last_run.status, memory.last_run.reason) == ("FAILED", "a: internal error: ZeroDivisionError")


# --- the run log ---


async def test_reading_does_not_wait_for_the_run_log() -> None:
    faults, memory, clock = Faults(), Memory(), ManualClock()
    faults.fail("run", SinkUnavailable("PostgreSQL is away"), times=8)
    runner = make_runner(Script({"a": [["1"]]}), memory, faults=faults, clock=clock)

    async with running(runner):
        await eventually(lambda: memory.state.get("a") is not None and memory.state["a"].done)
        assert memory.runs == {}
        assert runner.status.problems == ("PostgreSQL is away",)
        await eventually(lambda: memory.runs and memory.last_run.status == "READ", clock=clock)
        assert runner.status.problems == ()


async def test_an_open_run_says_that_it_lives() -> None:
    memory, clock = Memory(), ManualClock()
    script = Script({"a": [["1"], ["2"]]}, hang={"a"})

    async with running(make_runner(script, memory, clock=clock, deadline_s=10_000)):
        await eventually(lambda: len(memory.log) == 2 and clock.sleeps(HEARTBEAT_S))
        clock.advance(HEARTBEAT_S)
        await eventually(lambda: memory.last_run.counts.published == 2)
        assert memory.last_run.status == "READING"


async def test_the_run_of_a_crashed_predecessor_ends_with_its_checkpoints_counts() -> None:
    script, memory = Script({"a": [["1"], ["2", "bad"], ["3"]], "b": [["4"]]}, hang={"a"}), Memory()
    crashed = make_runner(script, memory, faults=(faults := Faults()))
    async with running(crashed):
        await eventually(lambda: len(memory.log) == 4 and len(memory.saved) == 7)
        faults.dead = True
    memory.state["a"] = next(checkpoint for checkpoint, _ in memory.saved if checkpoint.cursor == {"batch": 2})
    script.hang.clear()

    await run_through(make_runner(script, memory, epoch=2))

    first, second = memory.runs.values()
    assert first.status == "FAILED"
    assert "crashed" in first.reason
    assert (first.counts.published, first.counts.rejected) == (3, 1)
    assert (second.status, second.counts.published) == ("READ", 1)


async def test_a_run_of_which_the_log_never_heard_is_told_of_by_the_successor() -> None:
    faults, memory, clock = Faults(), Memory(), ManualClock()
    faults.fail("run", SinkUnavailable("PostgreSQL is away"), times=10_000)
    first = make_runner(Script({"a": [["1", "bad"]]}), memory, faults=faults, clock=clock)
    async with running(first) as task:
        await eventually(lambda: memory.state.get("a") is not None and memory.state["a"].done)
        first.stop()
        await eventually(task.done)
    assert memory.runs == {}

    await run_through(make_runner(Script({"a": [["1", "bad"]]}), memory, epoch=2))

    (row,) = memory.runs.values()
    assert (row.status, row.counts.published, row.counts.rejected) == ("FAILED", 1, 1)


async def test_runs_that_ended_stay_as_they_are_when_the_successor_tells_of_them() -> None:
    script, memory = Script({"a": [["1"]]}), Memory()
    await run_through(make_runner(script, memory))
    before = memory.last_run.status, memory.last_run.reason

    await run_through(make_runner(script, memory, epoch=2))

    assert (memory.last_run.status, memory.last_run.reason) == before == ("READ", "")


# --- the end ---


async def test_a_stop_keeps_what_is_acknowledged_and_a_restart_goes_on_there() -> None:
    script, memory = Script({"a": [["1"], ["2"], ["3"]], "b": [["4"]]}, hang={"a"}), Memory()
    runner = make_runner(script, memory, parallel=1, checkpoint_s=100)

    async with running(runner) as task:
        await eventually(lambda: len(memory.log) == 3)
        runner.stop()
        assert await asyncio.wait_for(task, 10) is State.STOPPED

    assert memory.state["a"].cursor == {"batch": 3}
    assert memory.last_run.status == "READ"
    assert set(memory.last_run.problems) == {"a: stopped before its end", "b: not begun"}
    assert {view.status for view in runner.tasks()} == {TaskStatus.STOPPED}
    assert script.closed == 1

    script.hang.clear()
    await run_through(make_runner(script, memory, epoch=2))
    assert script.read_from[-2:] == [("a", {"batch": 3}), ("b", None)]
    assert len(memory.log) == 4


@pytest.mark.parametrize("recurring", [True, False])
async def test_a_stop_before_a_source_could_ever_be_read_ends_the_run_failed_and_says_why(recurring: bool) -> None:
    script, memory = Script({"a": [["1"]]}, recurring=recurring, reading_errors={"a": [AWAY] * 9}), Memory()
    runner = make_runner(script, memory, error_backoff_s=3_600, error_backoff_max_s=3_600)

    async with running(runner) as task:
        await eventually(lambda: runner.status.problems)
        runner.stop()
        await asyncio.wait_for(task, 60)

    assert memory.last_run.status == "FAILED"
    assert memory.last_run.reason == f"a: stopped before its end: {AWAY}"


async def test_a_stop_of_a_recurring_task_that_had_nothing_to_read_is_no_run() -> None:
    script, memory = Script({"changes": []}, recurring=True, hang={"changes"}), Memory()
    runner = make_runner(script, memory)

    async with running(runner) as task:
        await eventually(lambda: script.reading)
        runner.stop()
        await asyncio.wait_for(task, 60)

    assert memory.runs == {}


async def test_a_stop_does_not_wait_for_ever_and_then_checkpoints_nothing() -> None:
    faults, memory, clock = Faults(), Memory(), ManualClock()
    faults.hold("publish:done")
    runner = make_runner(Script({"a": [["1"]]}), memory, faults=faults, clock=clock)

    async with running(runner) as task:
        await eventually(lambda: len(memory.log) == 1)
        runner.stop()
        await eventually(task.done, clock=clock)

    assert [checkpoint.cursor for checkpoint, _ in memory.saved] == [None]


async def test_an_operators_cancel_ends_the_run_failed_and_keeps_what_is_acknowledged() -> None:
    script, memory = Script({"a": [["1"], ["2"]]}, hang={"a"}), Memory()
    runner = make_runner(script, memory)

    async with running(runner) as task:
        await eventually(lambda: len(memory.log) == 2)
        runner.cancel()
        await asyncio.wait_for(task, 10)

    assert (memory.last_run.status, memory.last_run.reason) == ("FAILED", "cancelled")
    assert memory.state["a"].cursor == {"batch": 2}


async def test_a_runner_stops_while_it_waits_for_its_checkpoints() -> None:
    faults, clock = Faults(), ManualClock()
    faults.fail("load", BROKER_AWAY, times=100)
    runner = make_runner(Script(), faults=faults, clock=clock)

    async with running(runner) as task:
        await eventually(lambda: runner.status.problems == ("the broker is away",))
        runner.stop()
        assert await asyncio.wait_for(task, 10) is State.STOPPED


async def test_known_cursors_are_given_to_the_listing() -> None:
    script, memory = Script({"a": [["1"]]}), Memory()
    await run_through(make_runner(script, memory))
    assert script.known == {}

    await run_through(make_runner(script, memory, epoch=2))

    assert script.known == {"a": {"batch": 1}}
    assert memory.state["a"].connector_id == CONNECTOR.id


async def test_a_run_stopped_with_a_publish_in_doubt_has_failed_and_waits_for_no_balance() -> None:
    """What was sent and not acknowledged may be in the log, uncounted: such a run could never balance."""
    faults, memory, clock = Faults(), Memory(), ManualClock()
    faults.hold("publish:done")
    runner = make_runner(Script({"a": [["1", "2"]]}), memory, faults=faults, clock=clock)

    async with running(runner) as task:
        await eventually(lambda: len(memory.log) == 2)
        runner.stop()
        await eventually(task.done, clock=clock)

    assert (memory.last_run.status, memory.last_run.counts.published) == ("FAILED", 0)
    assert "not acknowledged" in memory.last_run.reason


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_it_ends_at_whatever_step_it_is_told_to(how: str) -> None:
    """
    A cancellation may arrive in any await, and none of them may swallow it.
    """
    ended_early = 0
    for steps in range(120):
        script, memory = Script({"a": [["1", "bad"], ["2"]], "b": [["3"]]}), Memory()
        runner = make_runner(script, memory)
        async with running(runner) as task:
            for _ in range(steps):
                await asyncio.sleep(0)
            runner.stop() if how == "stop" else task.cancel()
            done, _ = await asyncio.wait({task}, timeout=10)

        assert done, f"after {steps} steps"
        assert all(row.status in {"READ", "FAILED"} for row in memory.runs.values()), f"after {steps} steps"
        ended_early += any(row.problems or row.reason for row in memory.runs.values())
        await run_through(make_runner(script, memory, epoch=2))
        assert memory.event_ids == {event.id for event in memory.events}
        assert (len(memory.event_ids), len(memory.letter_ids)) == (3, 1), f"after {steps} steps"
    assert ended_early > 10
