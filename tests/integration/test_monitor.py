"""The monitor and the dead letters, on a real broker and a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from connectors.ports import Message
from connectors.spec import ConnectorConfig, SourceSpec
from schemas.checkpoint import Counts
from schemas.errors import BrokerUnavailable
from schemas.identity import digest_sum, event_digest
from schemas.letter import DeadLetter, Stage, letter_id, payload
from schemas.topic import Topics, sink_app_id, topics
from sinks.base import Dead, Place
from sinks.letters import LetterTable
from sinks.pool import open_pool
from sinks.postgres import PostgresSink
from streams.lag import LagProbe
from streams.provision import provision
from streams.publisher import EventPublisher, Producer
from streams.reader import find_range, read
from streams.redrive import redrive_event_id
from tests.database import migrated
from tests.services import Kafka
from tillstream.config import MonitorSettings
from tillstream.control import connector as connectors
from tillstream.control import letter, run
from tillstream.control.letter import LetterState
from tillstream.control.monitor import Monitor
from tillstream.control.run import PostgresRunLog, RunStatus
from tillstream.health import Health
from tillstream.metrics import PrometheusMeter

SPEC = SourceSpec("folder", "For tests.", ConnectorConfig, lambda *_: None, "nothing")  # type: ignore[arg-type, return-value]


@dataclass
class World:
    """One installation, with a sink that a test moves by hand."""

    kafka: Kafka
    topics: Topics
    sink: PostgresSink
    producer: Producer
    monitor: Monitor
    meter: PrometheusMeter
    health: Health
    connector_id: UUID
    group: str
    dsn: str

    @property
    def pool(self) -> asyncpg.Pool:
        return self.sink.pool

    async def run(self, *, published: int = 0, rejected: int = 0, problems: tuple[str, ...] = ()) -> UUID:
        """A run that was read to its end; its events are not at the sink yet."""
        log, run_id = PostgresRunLog(self.pool), uuid4()
        await log.open(run_id, self.connector_id, triggered_by="SCHEDULER", run_type="SCHEDULED")
        digests = digest_sum(event_digest(f"{run_id}/{n}") for n in range(published))
        counts = Counts(read=published + rejected, published=published, rejected=rejected, published_sum=digests)
        await log.finish_reading(run_id, counts, problems=problems)
        return run_id

    async def confirm(self, run_id: UUID, events: range) -> None:
        """The sink counts the events; as dead ones, which need no payload."""
        dead = [Dead(f"{run_id}/{n}", run_id, n, "letter", "test") for n in events]
        await self.sink.apply(Place(self.topics.events.name, 0), [], dead, next_offset=None)

    async def view(self, run_id: UUID) -> run.RunView:
        return await run.find_run(self.pool, str(run_id))

    def metric(self, line: str) -> str:
        lines = [each for each in self.meter.exposition().decode().splitlines() if each.startswith(line)]
        return lines[0].rpartition(" ")[2] if lines else "absent"


@pytest.fixture
async def world(kafka: Kafka, topic_prefix: str, database: str, tmp_path: Path) -> AsyncIterator[World]:
    prefix = topic_prefix.rstrip(".")
    table = topics(prefix, partitions=2)
    await provision(kafka.bootstrap, table.all())
    await migrated(database)
    sink = await PostgresSink.open(database)
    meter, health = PrometheusMeter(), Health()
    identifier = await connectors.create(sink.pool, name="bank", spec=SPEC, configuration={})
    async with Producer(kafka.bootstrap) as producer, LagProbe(kafka.bootstrap) as probe:
        await group_is_known(probe, sink_app_id(prefix), table.events.name)

        async def opened() -> asyncpg.Pool:
            return sink.pool

        monitor = Monitor(
            open_pool=opened,
            probe=probe,
            settings=MonitorSettings(lag_alert_events=5, lag_alert_s=1_000, run_deadline_s=0.001),
            watched={sink_app_id(prefix): table.events.name},
            events_topic=table.events.name,
            workers=tmp_path,
            meter=meter,
            health=health,
        )
        yield World(kafka, table, sink, producer, monitor, meter, health, identifier, sink_app_id(prefix), database)
    await sink.close()


async def group_is_known(probe: LagProbe, group: str, topic: str) -> None:
    """Asked for a group for the first time, a broker makes its offsets topic, and refuses until that is there."""
    async with asyncio.timeout(30):
        while True:
            try:
                await probe.measure(group, topic)
            except BrokerUnavailable:
                await asyncio.sleep(0.2)
            else:
                return


async def test_a_run_stays_open_until_the_sink_has_confirmed_every_event_of_it(world: World) -> None:
    waiting = await world.run(published=3)
    await world.confirm(waiting, range(2))

    await world.monitor.sweep()

    assert (await world.view(waiting)).status is RunStatus.RUNNING
    assert (await world.view(waiting)).awaiting_sink
    assert world.metric("tillstream_runs_awaiting_sink") == "1.0"
    assert world.metric('tillstream_run_overdue{connector="bank"}') == "1.0"
    assert "is overdue: the sink has confirmed 2 of 3 events" in (await connectors.find(world.pool, "bank")).cause

    await world.confirm(waiting, range(3))
    await world.monitor.sweep()

    ended = await world.view(waiting)
    assert (ended.status, ended.dead, ended.awaiting_sink) == (RunStatus.PARTIAL_SUCCESS, 3, False)
    assert world.metric('tillstream_run_overdue{connector="bank"}') == "0.0"
    assert world.metric('tillstream_runs_total{connector="bank",status="PARTIAL_SUCCESS"}') == "1.0"
    view = await connectors.find(world.pool, "bank")
    assert (view.total_runs, view.last_run_status, view.success_rate) == (1, "PARTIAL_SUCCESS", 0)
    seed = await world.pool.fetchrow("SELECT * FROM sp_v2_connector_runs")
    assert (seed["records_processed"], seed["records_success"], seed["records_failed"]) == (3, 0, 3)
    assert json.loads(seed["details"])["dead"] == 3
    assert seed["duration_seconds"] is not None


async def test_as_many_events_but_other_ones_end_no_run(world: World) -> None:
    altered = await world.run(published=1)
    await world.confirm(altered, range(7, 8))

    await world.monitor.sweep()

    assert (await world.view(altered)).status is RunStatus.RUNNING
    assert "but not the ones that were published" in (await connectors.find(world.pool, "bank")).cause


@pytest.mark.parametrize(
    ("rejected", "problems", "status"),
    [(0, (), RunStatus.SUCCESS), (2, (), RunStatus.PARTIAL_SUCCESS), (0, ("cut",), RunStatus.PARTIAL_SUCCESS)],
)
async def test_a_run_without_events_ends_by_what_was_read(
    world: World, rejected: int, problems: tuple[str, ...], status: RunStatus
) -> None:
    empty = await world.run(rejected=rejected, problems=problems)

    await world.monitor.sweep()
    await world.monitor.sweep()

    assert (await world.view(empty)).status is status
    assert (await connectors.find(world.pool, "bank")).total_runs == 1


async def test_a_run_of_a_worker_that_died_ends_failed_with_the_reason(world: World) -> None:
    log, crashed, alive = PostgresRunLog(world.pool), uuid4(), uuid4()
    for each in (crashed, alive):
        await log.open(each, world.connector_id, triggered_by="SCHEDULER", run_type="SCHEDULED")
    await world.monitor.sweep()
    await world.pool.execute(
        "UPDATE connector_runs SET heartbeat_at = now() - interval '1 hour' WHERE id = $1", crashed
    )
    world.monitor._answering_since_s = -(10**6)

    await world.monitor.sweep()

    ended = await world.view(crashed)
    assert (ended.status, ended.reason.split(":")[0]) == (RunStatus.FAILED, "crashed")
    assert (await world.view(alive)).status is RunStatus.RUNNING
    assert "the last run failed: crashed" in (await connectors.find(world.pool, "bank")).cause


async def test_lag_is_measured_without_any_consumer_and_raises_the_alert_and_the_health(world: World) -> None:
    messages = [Message(f"k{n}".encode(), b"{}", []) for n in range(8)]
    await EventPublisher(world.producer, world.topics).publish(messages)
    await world.pool.execute(
        "INSERT INTO connector_reports VALUES ($1, 'running', '', '', NULL, 0, 0, '{}')", world.connector_id
    )

    await world.monitor.sweep()

    topic = world.topics.events.name
    assert world.metric(f'tillstream_lag_alert{{group="{world.group}",topic="{topic}"}}') == "1.0"
    assert world.metric('tillstream_dependency_up{dependency="kafka"}') == "1.0"
    assert world.metric('tillstream_connector_healthy{connector="bank"}') == "0.0"
    view = await connectors.find(world.pool, "bank")
    assert (view.health, view.cause.startswith(f"{world.group} is 8 events behind")) == ("degraded", True)
    assert float(world.metric("tillstream_monitor_sweep_timestamp_seconds")) > 0

    world.monitor.settings = replace_settings(world.monitor.settings, lag_alert_events=100)
    await world.monitor.sweep()

    assert world.metric(f'tillstream_lag_alert{{group="{world.group}",topic="{topic}"}}') == "0.0"
    assert (await connectors.find(world.pool, "bank")).health == "healthy"


async def test_a_deleted_connector_is_in_no_metric(world: World) -> None:
    await world.monitor.sweep()
    assert 'tillstream_connector_healthy{connector="bank"}' in world.meter.exposition().decode()

    await connectors.delete(world.pool, await connectors.find(world.pool, "bank"))
    await world.monitor.sweep()

    assert 'connector="bank"' not in world.meter.exposition().decode()


async def test_a_database_that_was_restored_shows_as_lag_before_anybody_has_read_anything_again(world: World) -> None:
    """The group's offsets know nothing of a restore: by them alone, nothing would be left to do."""
    topic = world.topics.events.name
    await EventPublisher(world.producer, world.topics).publish([Message(f"k{n}".encode(), b"{}", []) for n in range(9)])
    ends = await commit_to_the_end(world)
    await world.sink.apply(Place(topic, 0), [], next_offset=ends[0])
    await world.sink.apply(Place(topic, 1), [], next_offset=ends[1])
    await world.monitor.sweep()
    assert world.metric(f'tillstream_lag_alert{{group="{world.group}",topic="{topic}"}}') == "0.0"
    assert lag_of(world) == 0

    await world.pool.execute("UPDATE sink_offsets SET next_offset = next_offset - 2 WHERE log_partition = 0")
    await world.monitor.sweep()

    assert lag_of(world) == 2
    assert "the database holds less" in (await connectors.find(world.pool, "bank")).cause

    await world.pool.execute("TRUNCATE sink_offsets")
    await world.monitor.sweep()

    assert lag_of(world) == 9
    assert world.metric(f'tillstream_lag_alert{{group="{world.group}",topic="{topic}"}}') == "1.0"


async def test_lag_is_measured_by_the_groups_offsets_while_the_database_is_away(world: World) -> None:
    await EventPublisher(world.producer, world.topics).publish([Message(f"k{n}".encode(), b"{}", []) for n in range(9)])
    await commit_to_the_end(world)

    async def refused() -> asyncpg.Pool:
        return await open_pool("postgresql://127.0.0.1:1/x")

    world.monitor.open_pool = refused
    await world.monitor.sweep()

    assert lag_of(world) == 0
    assert world.metric('tillstream_dependency_up{dependency="postgres"}') == "0.0"
    assert world.metric('tillstream_dependency_up{dependency="kafka"}') == "1.0"


async def commit_to_the_end(world: World) -> dict[int, int]:
    """As the sink's group does once it has read everything; the ends, by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=world.kafka.bootstrap, group_id=world.group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(world.topics.events.name, partition) for partition in range(2)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.commit(ends)
        return {each.partition: offset for each, offset in ends.items()}
    finally:
        await consumer.stop()


def lag_of(world: World) -> float:
    lines = world.meter.exposition().decode().splitlines()
    return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith("tillstream_lag_events{"))


def replace_settings(settings: MonitorSettings, **changes: object) -> MonitorSettings:
    return settings.model_copy(update=changes)


async def test_a_broker_that_is_away_shows_in_a_metric_and_in_health_and_runs_end_all_the_same(world: World) -> None:
    empty = await world.run()
    async with LagProbe("127.0.0.1:1", deadline_s=3) as nowhere:
        world.monitor.probe = nowhere
        await world.monitor.sweep()

    assert world.metric('tillstream_dependency_up{dependency="kafka"}') == "0.0"
    assert "kafka" in world.health.reasons()
    assert world.metric("tillstream_monitor_sweep_timestamp_seconds") == "0.0"
    assert "Kafka does not answer" in (await connectors.find(world.pool, "bank")).cause
    assert (await world.view(empty)).status is RunStatus.SUCCESS


async def test_a_database_that_is_away_shows_in_a_metric_and_raises_nothing(world: World) -> None:
    async def refused() -> asyncpg.Pool:
        return await open_pool("postgresql://127.0.0.1:1/x")

    opened, world.monitor.open_pool = world.monitor.open_pool, refused

    await world.monitor.sweep()

    assert world.metric('tillstream_dependency_up{dependency="postgres"}') == "0.0"
    assert "postgres" in world.health.reasons()
    world.monitor.open_pool = opened
    await world.monitor.sweep()
    assert world.health.reasons() == {}
    assert world.metric('tillstream_dependency_up{dependency="postgres"}') == "1.0"


async def test_a_worker_that_announced_itself_and_does_not_answer_is_a_cause(world: World, tmp_path: Path) -> None:
    (tmp_path / "sink.json").write_text(json.dumps({"role": "sink", "url": "http://127.0.0.1:1", "pid": 1}))

    await world.monitor.sweep()

    assert "worker sink does not answer" in (await connectors.find(world.pool, "bank")).cause


async def test_repeats_of_runs_that_closed_long_ago_are_pruned_and_those_of_an_open_run_stay(world: World) -> None:
    closed, still_open = await world.run(), await world.run(published=1)
    await world.monitor.sweep()
    for n, each in enumerate((closed, still_open)):
        await world.pool.execute(
            "INSERT INTO event_repeats VALUES ($1, $2, now() - interval '100 days', 0, $3, 't')", uuid4(), each, n
        )
    await world.pool.execute(
        "UPDATE connector_runs SET closed_at = closed_at - interval '8 days', started_at = now() - interval '100 days'"
    )
    world.monitor._prune_again_at_s = 0.0
    await world.monitor.sweep()
    assert await world.pool.fetchval("SELECT count(*) FROM event_repeats") == 2
    world.monitor.settings = replace_settings(world.monitor.settings, keep_repeats_days=7)
    world.monitor._prune_again_at_s = 0.0

    await world.monitor.sweep()

    assert [row["run"] for row in await world.pool.fetch("SELECT run FROM event_repeats")] == [still_open]
    assert [row["run"] for row in await world.pool.fetch("SELECT run FROM pruned_repeats")] == [closed]


# dead letters


def a_letter(world: World, n: int, *, stage: Stage = Stage.SINK, value: bytes = b"{garbage") -> DeadLetter:
    fields = {
        "id": letter_id(stage, world.topics.events.name, "0", str(n)),
        "stage": stage,
        "reason": "undecodable",
        "message": "not a JSON event",
        "failed_at": datetime(2025, 1, 10, 12, 0, n, tzinfo=UTC),
        "event_id": f"event-{n}",
        "connector_id": world.connector_id,
        "connector": "bank",
        "topic": world.topics.events.name,
        "partition": 0,
        "offset": n,
        **payload(value, limit_bytes=100_000, key=b"bank/P1", headers=[("till-run", str(uuid4()).encode())]),
    }
    return DeadLetter.model_validate(fields)


async def put(world: World, *letters: DeadLetter) -> None:
    table = LetterTable(world.pool)
    for n, each in enumerate(letters):
        await table.put(each, partition=0, offset=n)


async def test_letters_are_listed_the_newest_first_and_shown_whole(world: World) -> None:
    first, second = a_letter(world, 1), a_letter(world, 2, stage=Stage.SOURCE)
    await put(world, first, second)

    listed = await letter.list_letters(world.pool)

    assert [view.letter.id for view in listed] == [second.id, first.id]
    assert listed[0].letter.value is None
    only = await letter.list_letters(world.pool, letter.Filter(stage="sink", reason="undecodable", connector="bank"))
    assert [view.letter.id for view in only] == [first.id]
    assert (await letter.show(world.pool, first.id[:10])).letter == first


async def test_a_redrive_is_a_run_of_its_own_and_the_letter_is_redriven_once_it_is_confirmed(world: World) -> None:
    dead = a_letter(world, 1)
    await put(world, dead)

    done = await letter.redrive(world.pool, world.producer, world.topics, [dead.id])

    assert (done.sent, done.refused) == ([dead.id], [])
    assert done.run_id is not None
    records = await published(world)
    assert [record.value for record in records] == [b"{garbage"]
    event_id = redrive_event_id(dead.id, 1)
    headers = dict(records[0].headers)
    assert (headers["till-event"], headers["till-run"]) == (event_id.encode(), str(done.run_id).encode())
    view = await world.view(done.run_id)
    assert (view.type, view.status, view.published, view.connector) == ("MANUAL", RunStatus.RUNNING, 1, "bank")
    assert (await letter.show(world.pool, dead.id)).state is LetterState.OPEN
    again = await letter.redrive(world.pool, world.producer, world.topics, [dead.id])
    assert [refused.message for refused in again.refused] == ["it is being redriven"]

    digest = UUID(bytes=event_digest(event_id))
    await world.pool.execute(
        "INSERT INTO run_ledger (run, log_partition, topic, outcome, events, digest_sum)"
        " VALUES ($1, 0, $2, 'applied', 1, $3)",
        done.run_id, world.topics.events.name, int(digest),
    )  # fmt: skip
    await world.monitor.sweep()
    await world.monitor.sweep()

    assert (await world.view(done.run_id)).status is RunStatus.SUCCESS
    assert (await letter.show(world.pool, dead.id)).state is LetterState.REDRIVEN
    assert await letter.list_letters(world.pool) == []
    late = await letter.redrive(world.pool, world.producer, world.topics, [dead.id])
    assert [refused.message for refused in late.refused] == ["it was redriven already"]


async def test_of_two_redrives_of_a_letter_at_the_same_moment_one_sends_it(world: World) -> None:
    """
    Both wait for the letter's row; the one that comes second must see what the first did.
    """
    dead = a_letter(world, 1)
    await put(world, dead)
    one, two = (letter.redrive(world.pool, world.producer, world.topics, [dead.id]) for _ in range(2))
    holder = await asyncpg.connect(world.dsn)
    held = holder.transaction()
    await held.start()
    await holder.execute("SELECT FROM dead_letters WHERE id = $1 FOR UPDATE", dead.id)
    both = asyncio.gather(one, two)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(20):
        # not the holder's connection: it sees its transaction's first picture of the others for ever
        while await world.pool.fetchval(waiting) < 2:  # noqa: ASYNC110  nobody is told when a lock is waited for
            await asyncio.sleep(0.02)
    await held.rollback()
    await holder.close()

    done = await both

    assert sorted(len(each.sent) for each in done) == [0, 1]
    assert [refused.message for each in done for refused in each.refused] == ["it is being redriven"]
    assert len(await published(world)) == 1


async def test_a_record_that_dies_again_goes_on_in_its_new_letter_and_the_old_one_is_redriven(world: World) -> None:
    """Two open letters of one record would be redriven twice."""
    dead = a_letter(world, 1)
    await put(world, dead)
    done = await letter.redrive(world.pool, world.producer, world.topics, [dead.id])
    assert done.run_id is not None

    died = Dead(redrive_event_id(dead.id, 1), done.run_id, 0, "another letter", "undecodable")
    await world.sink.apply(Place(world.topics.events.name, 0), [], [died], next_offset=None)
    await world.monitor.sweep()
    await world.monitor.sweep()

    assert (await world.view(done.run_id)).status is RunStatus.PARTIAL_SUCCESS
    shown = await letter.show(world.pool, dead.id)
    assert (shown.state, shown.redrives) == (LetterState.REDRIVEN, 1)
    (record,) = await published(world)
    assert dict(record.headers)["till-attempt"] == b"2"


async def test_a_dry_run_tells_and_changes_nothing_and_what_cannot_go_through_is_refused_with_the_reason(
    world: World,
) -> None:
    sink, source = a_letter(world, 1), a_letter(world, 2, stage=Stage.SOURCE)
    cut = a_letter(world, 3).model_copy(update={"truncated": True})
    await put(world, sink, source, cut)

    told = await letter.redrive(
        world.pool, world.producer, world.topics, [sink.id, source.id, cut.id, "0" * 32], dry_run=True
    )

    assert (told.run_id, told.sent) == (None, [sink.id])
    assert {each.id: each.code for each in told.refused} == {
        source.id: "not_an_event",
        cut.id: "truncated",
        "0" * 32: "not_found",
    }
    assert await published(world) == []
    assert await run.list_runs(world.pool) == []
    assert (await letter.show(world.pool, sink.id)).redrives == 0


async def test_a_redrive_that_the_broker_does_not_take_ends_its_run_failed_and_may_be_tried_again(world: World) -> None:
    dead = a_letter(world, 1)
    await put(world, dead)

    async with Producer("127.0.0.1:1", deadline_s=1) as nowhere:
        with pytest.raises(Exception, match="1 records to"):
            await letter.redrive(world.pool, nowhere, world.topics, [dead.id])

    (failed,) = await run.list_runs(world.pool)
    assert (failed.status, failed.published) == (RunStatus.FAILED, 0)
    assert (await letter.redrive(world.pool, world.producer, world.topics, [dead.id])).sent == [dead.id]


async def published(world: World) -> list[object]:
    wanted = await find_range(world.kafka.bootstrap, world.topics.events.name)
    found = []
    async for batch in read(world.kafka.bootstrap, wanted):
        found += batch.records
    return sorted(found, key=lambda record: record.offset)


async def test_a_connector_is_not_down_before_its_first_report_is_due(world: World) -> None:
    """After a pause of the whole stack the last report is old, and nobody is to blame for that yet."""
    found = []
    world.monitor.settings = replace_settings(world.monitor.settings, heartbeat_timeout_s=25.0)
    for state, since in (("healthy", "1 hour"), ("unknown", "20 seconds"), ("paused", "1 hour"), (None, "")):
        await world.pool.execute("DELETE FROM connector_verdicts")
        if state is not None:
            await world.pool.execute(
                "INSERT INTO connector_verdicts (connector_id, state, cause, since)"
                " VALUES ($1, $2, '', now() - $3::text::interval)",
                world.connector_id, state, since,
            )  # fmt: skip
        await world.monitor.sweep()
        view = await connectors.find(world.pool, "bank")
        found.append((view.health, view.cause))

    assert found == [("unknown", "its worker is starting")] * 4


async def test_a_connector_whose_report_stays_away_is_down(world: World) -> None:
    await world.monitor.sweep()
    await world.pool.execute("UPDATE connector_verdicts SET since = now() - interval '1 minute'")
    assert world.monitor._answering_since_s is not None
    world.monitor._answering_since_s -= 60

    await world.monitor.sweep()

    view = await connectors.find(world.pool, "bank")
    assert (view.health, view.cause) == ("down", "no connector worker has reported it ever")
