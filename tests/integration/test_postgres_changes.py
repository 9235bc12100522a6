"""The change stream on a real server: what is committed comes out, and what cannot be had stops it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.changes import lsn, pace
from connectors.changes.cursor import StreamCursor
from connectors.changes.place import Place
from connectors.cursor import Direction
from connectors.health import State
from connectors.source import Batch
from connectors.testing import Memory, eventually, run_through, running
from schemas.errors import ChangesLost, SourceMisconfigured, SourceUnauthorised, SourceUnavailable
from schemas.payment import Status
from tests import services
from tests.integration.changes_kit import (
    EVENTS,
    OTHER,
    PAYMENTS,
    SourceDatabase,
    one_task,
    read,
    references,
    source_database,
)

PAY = "INSERT INTO payments (reference, amount) VALUES ($1, $2)"
NEVER: dict[str, Any] = {"snapshot": "never"}


@pytest.fixture
async def source(database: str) -> AsyncIterator[SourceDatabase]:
    async with source_database(database) as made:
        yield made


@pytest.fixture
async def followed(source: SourceDatabase) -> SourceDatabase:
    """With a table `payments` that is published, and a slot."""
    await source.table()
    await source.publish("payments")
    return source


def published(memory: Memory) -> list[str]:
    return [event.payment.reference for event in memory.events if event.payment]


def reasons(batches: Sequence[Batch]) -> list[str]:
    return [rejection.reason for batch in batches for rejection in batch.rejections]


# --- what comes out ---


async def test_a_lower_id_that_commits_later_is_delivered(followed: SourceDatabase) -> None:
    early, late = await followed.connect(), await followed.connect()
    first = early.transaction()
    await first.start()
    await early.execute(PAY, "lower", 1)
    await late.execute(PAY, "higher", 2)
    subject = followed.source(**NEVER)
    before = await read(subject)

    await first.commit()
    after = await read(subject, before[-1].cursor)

    assert (references(before), references(after)) == (["higher"], ["lower"])
    await subject.close()


async def test_a_cursor_that_an_operator_reset_copies_the_tables_anew_and_goes_on(followed: SourceDatabase) -> None:
    await followed.owner.execute(PAY, "first", 1)
    subject = followed.source()
    before = await read(subject)
    await read(subject, before[-1].cursor)  # the slot may be let go of up to there
    await subject.close()
    await followed.owner.execute(PAY, "second", 2)

    again = followed.source()
    anew = await read(again)

    assert set(references(anew)) == {"first", "second"}
    await followed.owner.execute(PAY, "third", 3)
    assert references(await read(again, anew[-1].cursor)) == ["third"]
    await again.close()


async def test_a_cursor_that_an_operator_set_ahead_passes_over_what_was_committed_before_it(
    followed: SourceDatabase,
) -> None:
    subject = followed.source(**NEVER)
    before = await read(subject)
    await followed.owner.execute(PAY, "passed over", 1)
    here = await followed.owner.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    await followed.owner.execute(PAY, "read", 2)
    ahead = StreamCursor.model_validate({**before[-1].cursor, "done": here})

    assert ahead.direction(before[-1].cursor) is Direction.AHEAD
    assert references(await read(subject, ahead.model_dump(exclude_unset=True))) == ["read"]
    await subject.close()


async def test_a_rolled_back_id_leaves_no_gap_to_wait_for(followed: SourceDatabase) -> None:
    undone = followed.owner.transaction()
    await undone.start()
    await followed.execute(PAY, "undone", 1)
    await undone.rollback()
    await followed.execute(PAY, "done", 2)
    subject = followed.source(**NEVER)

    assert references(await read(subject)) == ["done"]
    await subject.close()


async def test_updates_and_changed_keys_come_as_the_new_row(followed: SourceDatabase) -> None:
    await followed.execute(PAY, "one", 1)
    await followed.execute("UPDATE payments SET status = 'failed'")
    await followed.execute("UPDATE payments SET id = 77")
    subject = followed.source(**NEVER)

    batches = await read(subject)

    statuses = [record.payment.status for batch in batches for record in batch.records]
    assert statuses == [Status.SUCCEEDED, Status.FAILED, Status.FAILED]
    await subject.close()


async def test_a_deletion_is_filtered_and_a_truncation_a_dead_letter(followed: SourceDatabase) -> None:
    await followed.execute(PAY, "one", 1)
    await followed.execute("DELETE FROM payments")
    await followed.execute("TRUNCATE payments")
    subject = followed.source(**NEVER)

    batches = await read(subject)

    assert (references(batches), sum(batch.filtered for batch in batches), reasons(batches)) == (
        ["one"],
        1,
        ["truncated"],
    )
    await subject.close()


async def test_a_deletion_cancels_where_that_is_wanted(followed: SourceDatabase) -> None:
    await followed.execute("ALTER TABLE payments REPLICA IDENTITY FULL")
    await followed.execute(PAY, "one", 1)
    await followed.execute("DELETE FROM payments")
    subject = followed.source(**NEVER, on_delete="cancel")

    batches = await read(subject)

    assert [record.payment.status for batch in batches for record in batch.records] == [
        Status.SUCCEEDED,
        Status.CANCELLED,
    ]
    await subject.close()


async def test_a_large_value_that_was_not_sent_is_read_from_the_row(followed: SourceDatabase) -> None:
    large = "x" * 20_000
    await followed.execute("ALTER TABLE payments ALTER COLUMN note SET STORAGE EXTERNAL")
    await followed.execute(
        "INSERT INTO payments (reference, amount, note) VALUES ('kept', 1, $1), ('gone', 1, $1)", large
    )
    await followed.execute("UPDATE payments SET status = 'failed'")
    await followed.execute("DELETE FROM payments WHERE reference = 'gone'")
    subject = followed.source(**NEVER, columns={"raw": "note"})

    batches = await read(subject)

    updated = [
        record.payment for batch in batches for record in batch.records if record.payment.status is Status.FAILED
    ]
    assert [(facts.reference, facts.raw) for facts in updated] == [("kept", large)]
    assert reasons(batches) == ["unchanged_value"]
    await subject.close()


async def test_with_full_identity_it_is_sent(followed: SourceDatabase) -> None:
    large = "x" * 20_000
    await followed.execute("ALTER TABLE payments ALTER COLUMN note SET STORAGE EXTERNAL")
    await followed.execute("ALTER TABLE payments REPLICA IDENTITY FULL")
    await followed.execute("INSERT INTO payments (reference, amount, note) VALUES ('gone', 1, $1)", large)
    await followed.execute("UPDATE payments SET status = 'failed'")
    await followed.execute("DELETE FROM payments")
    subject = followed.source(**NEVER, columns={"raw": "note"})

    batches = await read(subject)

    assert [record.payment.raw for batch in batches for record in batch.records] == [large, large]
    await subject.close()


async def test_a_large_transaction_passes_in_pieces_and_goes_on_in_its_middle(followed: SourceDatabase) -> None:
    rows = 12_000
    await followed.execute(
        "INSERT INTO payments (reference, amount) SELECT 'p-' || n, n FROM generate_series(1, $1) n", rows
    )
    subject = followed.source(**NEVER, peek_rows=100)
    batches = subject.read(await one_task(subject), None)
    found: list[str] = []
    async for batch in batches:
        found += references([batch])
        if len(found) > rows / 2:
            break
    await batches.aclose()
    inside = Place.of(batch.cursor)

    found += references(await read(subject, batch.cursor))

    assert 0 < inside.index < rows
    assert inside.transaction > inside.done
    assert found == [f"p-{number}" for number in range(1, rows + 1)]
    await subject.close()


async def test_what_one_look_does_not_show_the_next_one_does(followed: SourceDatabase) -> None:
    for number in range(30):
        await followed.execute(PAY, f"p-{number}", 1)
    subject = followed.source(**NEVER, peek_rows=4)

    batches = await read(subject)

    assert references(batches) == [f"p-{number}" for number in range(30)]
    assert references(await read(subject, batches[-1].cursor)) == []
    await subject.close()


async def test_rows_of_two_tables_come_in_the_order_of_their_commits(source: SourceDatabase) -> None:
    await source.table()
    await source.table(PAYMENTS.replace("payments", "refunds"), "refunds")
    await source.publish("payments", "refunds")
    for number, table in enumerate(["payments", "refunds", "payments"]):
        await source.execute(f"INSERT INTO {table} (reference, amount) VALUES ($1, 1)", f"p-{number}")
    subject = source.source("public.payments", "public.refunds", **NEVER)

    batches = await read(subject)

    found = [(record.payment.reference, record.headers["table"]) for batch in batches for record in batch.records]
    assert found == [("p-0", "public.payments"), ("p-1", "public.refunds"), ("p-2", "public.payments")]
    await subject.close()


async def test_a_partitioned_table_is_read_by_its_own_name(source: SourceDatabase) -> None:
    await source.table(
        "CREATE TABLE payments (id bigint PRIMARY KEY, reference text, type text, status text, asset text, amount int) "
        "PARTITION BY RANGE (id)"
    )
    await source.execute("CREATE TABLE first_half PARTITION OF payments FOR VALUES FROM (0) TO (10)")
    await source.execute("CREATE TABLE second_half PARTITION OF payments FOR VALUES FROM (10) TO (20)")
    row = "INSERT INTO payments SELECT n, 'p-' || n, 'payin', 'succeeded', 'EUR', 5 FROM unnest($1::int[]) n"
    await source.execute(row, [1, 11])
    await source.publish("payments")
    subject = source.source()
    with pytest.raises(SourceMisconfigured, match="partitions"):
        await read(subject)
    await source.execute("ALTER PUBLICATION till SET (publish_via_partition_root = true)")
    copied = await read(subject)
    await source.execute(row, [2, 12])

    streamed = await read(subject, copied[-1].cursor)

    assert (references(copied), references(streamed)) == (["p-1", "p-11"], ["p-2", "p-12"])
    await subject.close()


async def test_texts_of_another_encoding_come_as_unicode(postgres: services.Postgres) -> None:
    name = await postgres.create_database()
    await postgres._execute(f"DROP DATABASE {name}")
    await postgres._execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        async with source_database(postgres.dsn_of(name)) as source:
            await source.table()
            await source.publish("payments")
            await source.execute(PAY, "für-é", 1)
            streaming, copying = source.source(**NEVER), source.source(mode="watermark", watermark="txid")
            await source.execute("ALTER TABLE payments ADD COLUMN txid xid8 NOT NULL DEFAULT pg_current_xact_id()")

            assert references(await read(streaming)) == ["für-é"]
            assert references(await read(copying)) == ["für-é"]
            await streaming.close()
            await copying.close()
    finally:
        await postgres.drop_database(name)


# --- every type, the same by every way ---

ODD = """
CREATE TABLE odd (
    id bigserial PRIMARY KEY, reference text, type text DEFAULT 'payin', status text DEFAULT 'succeeded',
    asset text DEFAULT 'EUR', amount int DEFAULT 1, txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    a numeric, b timestamptz, c jsonb, d bytea, e text[], f boolean, g character(8), h real, i double precision,
    j date, k interval, l uuid, m inet, n domain_of_time, o mood, p timestamp, q json, r money, s int4range
)
"""
NUMBERS = st.decimals(-(10**12), 10**12, places=5).map(str) | st.sampled_from(["NaN", "Infinity", "-Infinity", "-0"])
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001 a zone is put on below
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "a": NUMBERS,
    "b": TIMES.map(lambda at: at.replace(tzinfo=UTC).isoformat()),
    "c": (st.none() | st.booleans() | TEXTS | st.integers() | st.lists(TEXTS, max_size=3)).map(json.dumps),
    "d": st.binary(max_size=8).map(lambda data: "\\x" + data.hex()),
    "f": st.booleans().map(str),
    "g": TEXTS,
    "h": st.floats(width=32).map(str),
    "i": st.floats().map(str),
    "k": st.integers(-(10**9), 10**9).map(lambda seconds: f"{seconds} seconds"),
    "n": TIMES.map(lambda at: at.replace(tzinfo=UTC).isoformat()),
    "o": st.sampled_from(["sad", "happy"]),
    "p": TIMES.map(lambda at: at.isoformat()),
    "r": st.integers(-(10**9), 10**9).map(str),
}  # fmt: skip


def examples() -> list[tuple[str | None, ...]]:
    """Hypothesis knows no coroutines, so its rows are made first and stored afterwards."""
    made: list[tuple[str | None, ...]] = []

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.tuples(*(st.none() | strategy for strategy in VALUES.values())))
    def collect(values: tuple[str | None, ...]) -> None:
        made.append(values)

    collect()
    return made


async def test_a_row_is_the_same_by_the_stream_by_the_copy_and_by_the_poll(source: SourceDatabase) -> None:
    await source.execute("CREATE DOMAIN timed AS timestamptz")
    await source.execute("CREATE DOMAIN domain_of_time AS timed")
    await source.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    await source.table(ODD, "odd")
    await source.publish("odd")
    ways = {
        "stream": source.source("public.odd", **NEVER, raw="record"),
        "copy": source.source("public.odd", raw="record", slot=source.slot("other")),
        "poll": source.source("public.odd", mode="watermark", raw="record"),
    }
    await source.make_slot("other")
    kinds = await source.owner.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'odd'::regclass"
    )
    types = dict(map(tuple, kinds))
    given_values = ", ".join(f"${number}::text::{types[name]}" for number, name in enumerate(VALUES, 2))
    insert = f"INSERT INTO odd (reference, {', '.join(VALUES)}) VALUES ($1, {given_values})"
    made = await asyncio.to_thread(examples)
    for number, values in enumerate(made):
        await source.execute(insert, f"p-{number}", *values)

    found = {}
    for way, subject in ways.items():
        batches = await read(subject)
        assert reasons(batches) == []
        found[way] = {record.payment.reference: record.payment for batch in batches for record in batch.records}
        await subject.close()

    assert len(found["stream"]) == len(made)
    assert found["stream"] == found["copy"] == found["poll"]


# --- the rows that were there before ---


async def test_the_copy_goes_on_in_the_middle_whatever_its_key(source: SourceDatabase) -> None:
    """A text that collates unlike its bytes, and a number that sorts unlike its text."""
    await source.table(
        "CREATE TABLE payments (a text, b int, reference text, type text, status text, asset text, amount int, "
        "PRIMARY KEY (a, b))"
    )
    rows = 5_000
    await source.execute(
        "INSERT INTO payments SELECT chr(65 + n % 26) || '-é' || n % 7, n, 'p-' || n, 'payin', 'succeeded', 'EUR', 1 "
        "FROM generate_series(1, $1) n",
        rows,
    )
    await source.publish("payments")
    subject = source.source()
    whole = await read(subject)
    cuts = [index for index, batch in enumerate(whole[:-1]) if batch.cursor.get("copying", {}).get("after")]
    assert len(cuts) > 1

    for cut in cuts:
        left = await read(subject, whole[cut].cursor)

        assert references(whole[: cut + 1]) + references(left) == references(whole)
    assert sorted(references(whole)) == sorted(f"p-{number}" for number in range(1, rows + 1))
    await subject.close()


async def test_a_table_without_a_key_is_copied_too(source: SourceDatabase) -> None:
    await source.table("CREATE TABLE payments (reference text, type text, status text, asset text, amount int)")
    await source.execute(
        "INSERT INTO payments SELECT 'same', 'payin', 'succeeded', 'EUR', 1 FROM generate_series(1, 3)"
    )
    await source.publish("payments")
    subject = source.source()

    batches = await read(subject)

    positions = [record.position for batch in batches for record in batch.records]
    assert len(positions) == len(set(positions)) == 3
    await subject.close()


async def test_changes_during_the_copy_leave_the_newest_version_on_top(followed: SourceDatabase) -> None:
    """
    Versions of one row without a date of their own: only the revision orders them.
    """
    await followed.execute(PAY, "before", 1)
    await followed.execute("UPDATE payments SET amount = 2 WHERE reference = 'before'")
    await followed.execute(PAY, "meanwhile", 1)
    subject = followed.source(checkpoint_s=0)
    batches = subject.read(await one_task(subject), None)
    found: list[Batch] = []
    async for batch in batches:
        found.append(batch)
        if batch.cursor.get("copying") and len(found) == 2:  # the copy has seen, and read nothing yet
            await followed.execute("UPDATE payments SET amount = 3 WHERE reference = 'meanwhile'")
            await followed.execute("UPDATE payments SET amount = 4 WHERE reference = 'meanwhile'")

    least: dict[tuple[str, int], Any] = {}
    for record in (record for batch in found for record in batch.records):
        key = (record.payment.reference, record.payment.amount)
        least[key] = min(least.get(key, record.revision), record.revision)
    newest = {
        reference: max((revision, amount) for (name, amount), revision in least.items() if name == reference)[1]
        for reference in ("before", "meanwhile")
    }
    assert newest == {"before": 2, "meanwhile": 4}
    assert set(least) == {("before", 1), ("before", 2), ("meanwhile", 1), ("meanwhile", 3), ("meanwhile", 4)}
    await subject.close()


async def test_a_table_that_is_added_later_is_copied_then(followed: SourceDatabase) -> None:
    await followed.execute(PAY, "old", 1)
    first = followed.source()
    cursor = (await read(first))[-1].cursor
    await first.close()
    await followed.table(PAYMENTS.replace("payments", "refunds"), "refunds")
    await followed.execute("INSERT INTO refunds (reference, amount) VALUES ('there before', 1)")
    await followed.execute("ALTER PUBLICATION till ADD TABLE refunds")
    await followed.execute(PAY, "new", 1)
    second = followed.source("public.payments", "public.refunds")

    batches = await read(second, cursor)

    assert references(batches) == ["there before", "new"]
    await second.close()


async def test_the_copy_reads_what_the_publication_publishes(source: SourceDatabase) -> None:
    """Rows and columns that its owner leaves out, and columns that are computed, which a stream does not have."""
    await source.table()
    await source.execute("ALTER TABLE payments ADD COLUMN twice numeric GENERATED ALWAYS AS (amount * 2) STORED")
    columns = "id, reference, type, status, asset, amount"
    await source.execute(f"CREATE PUBLICATION till FOR TABLE payments ({columns}) WHERE (id > 1)")
    await source.make_slot()
    subject = source.source(raw="record")
    for reference in ("hidden", "copied"):
        await source.execute(PAY, reference, 1)
    await source.drop_slot()
    await source.make_slot()
    copied = await read(subject)
    await source.execute(PAY, "streamed", 1)

    streamed = await read(subject, copied[-1].cursor)

    assert (references(copied), references(streamed)) == (["copied"], ["streamed"])
    raws = [json.loads(record.payment.raw or "") for batch in (*copied, *streamed) for record in batch.records]
    assert [", ".join(raw) for raw in raws] == [columns, columns]
    await subject.close()


async def test_rows_that_a_policy_hides_stop_it(followed: SourceDatabase) -> None:
    await followed.execute("ALTER TABLE payments ENABLE ROW LEVEL SECURITY")
    subject = followed.source()

    with pytest.raises(SourceMisconfigured, match="row-level security"):
        await read(subject)
    await subject.close()


async def test_a_table_that_others_inherit_from_is_refused(followed: SourceDatabase) -> None:
    await followed.execute("CREATE TABLE heir () INHERITS (payments)")
    subject = followed.source()

    with pytest.raises(SourceMisconfigured, match="inherit"):
        await read(subject)
    await subject.close()


async def test_a_slot_that_cannot_be_made_yet_is_no_silence(
    source: SourceDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits until every transaction that runs has ended, and may be stopped and started meanwhile."""
    monkeypatch.setattr(pace.arrived, "__kwdefaults__", {"within_s": 0.02})
    await source.table()
    await source.execute("CREATE PUBLICATION till FOR TABLE payments")
    blocker = await source.connect()
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute(PAY, "old", 1)
    memory = Memory()
    async with running(source.runner(memory, create=True)):
        await eventually(lambda: any(checkpoint.cursor == {} for checkpoint, _ in memory.saved))
    async with running(source.runner(memory, create=True, epoch=2)):
        await transaction.commit()

        await eventually(lambda: published(memory) == ["old"])


async def test_what_is_missing_is_made_where_that_is_allowed(source: SourceDatabase) -> None:
    await source.table()
    await source.execute(f"ALTER TABLE payments OWNER TO {source.reader}")
    await source.execute(f"GRANT CREATE ON DATABASE {source.name} TO {source.reader}")
    await source.execute(PAY, "old", 1)
    subject = source.source(create=True, slot=source.slot("made"), publication="made")
    steps = {step.name: step.detail for step in await subject.check()}
    assert "will be made" in steps["publication"]
    assert "will be made" in steps["slot"]

    copied = await read(subject)
    await source.execute(PAY, "new", 1)

    assert references(copied) == ["old"]
    assert references(await read(subject, copied[-1].cursor)) == ["new"]
    await subject.close()


async def test_nothing_is_made_where_it_is_not(source: SourceDatabase) -> None:
    await source.table()
    subject = source.source()

    with pytest.raises(SourceMisconfigured) as told:
        await read(subject)

    assert "pg_create_logical_replication_slot" in told.value.hint
    assert await source.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", source.slot()) == 0
    await subject.close()


# --- letting go ---


async def test_the_slot_lets_go_of_nothing_that_is_not_checkpointed(followed: SourceDatabase) -> None:
    memory, stood = Memory(), set[str]()
    async with running(followed.runner(memory, **NEVER, checkpoint_s=0.3, idle_s=60)):
        for number in range(150):
            await followed.execute(PAY, f"p-{number}", 1)
            confirmed = await followed.confirmed()
            saved = [checkpoint.cursor for checkpoint, _ in memory.saved if checkpoint.cursor]
            stood.add(confirmed)

            assert not saved or lsn.parse(confirmed) <= max(lsn.parse(cursor["done"]) for cursor in saved)
            await asyncio.sleep(0.01)
    assert len(stood) > 2


async def test_a_state_that_fell_back_a_little_finds_its_changes_still_there(followed: SourceDatabase) -> None:
    """
    A frozen worker's last checkpoint is acknowledged and then refused: its successor stands before it.
    """
    memory = Memory()
    await followed.execute(PAY, "first", 1)
    await run_through(followed.runner(memory, **NEVER, let_go_s=60))
    fallen_back = dict(memory.state)
    await followed.execute(PAY, "second", 1)
    await run_through(followed.runner(memory, **NEVER, let_go_s=60, epoch=2))
    memory.state.clear()
    memory.state.update(fallen_back)

    state = await run_through(followed.runner(memory, **NEVER, let_go_s=60, epoch=3))

    assert state is State.STOPPED
    assert published(memory) == ["first", "second", "second"]
    assert len(memory.event_ids) == 2


async def test_the_slot_lets_go_also_where_nothing_of_ours_changes(followed: SourceDatabase) -> None:
    await followed.execute("CREATE TABLE foreign_rows (n int)")
    memory = Memory()
    before = lsn.parse(await followed.confirmed())
    async with running(followed.runner(memory)):
        await followed.execute("INSERT INTO foreign_rows SELECT generate_series(1, 10000)")
        after = lsn.parse(await followed.value("SELECT pg_current_wal_flush_lsn()::text"))

        for _ in range(3_000):
            if lsn.parse(await followed.confirmed()) >= after:
                break
            await asyncio.sleep(0.01)

    assert lsn.parse(await followed.confirmed()) >= after > before
    assert memory.log == []


async def test_a_slot_that_fell_back_costs_a_second_reading_and_no_record(followed: SourceDatabase) -> None:
    """After a crash a server may not remember how far a slot had been advanced."""
    subject = followed.source(**NEVER)
    await followed.execute(PAY, "first", 1)
    cursor = (await read(subject))[-1].cursor
    await followed.execute(PAY, "second", 1)

    again = await read(subject, cursor)

    assert references(again) == ["second"]
    await subject.close()


# --- what stops it ---


async def lost(subject: Any, cursor: Any) -> ChangesLost:
    with pytest.raises(ChangesLost) as told:
        await read(subject, cursor)
    await subject.close()
    assert "generation" in told.value.hint
    return told.value


async def followed_to(followed: SourceDatabase, **options: Any) -> tuple[Any, Any]:
    await followed.execute(PAY, "first", 1)
    subject = followed.source(**options)
    return subject, (await read(subject))[-1].cursor


async def test_a_dropped_slot_stops_it(followed: SourceDatabase) -> None:
    subject, cursor = await followed_to(followed)
    await followed.drop_slot()

    assert "is gone" in str(await lost(subject, cursor))


async def test_a_slot_that_was_made_anew_stops_it(followed: SourceDatabase) -> None:
    subject, cursor = await followed_to(followed)
    await followed.drop_slot()
    await followed.execute(PAY, "missed", 1)
    await followed.make_slot()

    assert "made anew" in str(await lost(subject, cursor))


async def test_a_slot_that_somebody_else_advanced_stops_it(followed: SourceDatabase) -> None:
    subject, cursor = await followed_to(followed)
    await followed.execute(PAY, "missed", 1)
    await followed.execute("SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())", followed.slot())

    assert "somebody else" in str(await lost(subject, cursor))


async def test_another_slot_in_the_configuration_stops_it(followed: SourceDatabase) -> None:
    subject, cursor = await followed_to(followed)
    await subject.close()
    await followed.make_slot("other")

    assert "not" in str(await lost(followed.source(slot=followed.slot("other")), cursor))


async def test_a_publication_that_was_interrupted_stops_it(followed: SourceDatabase) -> None:
    subject, cursor = await followed_to(followed)
    await followed.execute("ALTER PUBLICATION till DROP TABLE payments")
    await followed.execute(PAY, "missed", 1)
    await followed.execute("ALTER PUBLICATION till ADD TABLE payments")

    assert "for a while" in str(await lost(subject, cursor))


async def test_a_dropped_publication_stops_it(followed: SourceDatabase) -> None:
    subject, cursor = await followed_to(followed)
    await followed.execute("DROP PUBLICATION till")

    assert "does not exist" in str(await lost(subject, cursor))


@pytest.mark.parametrize(
    ("name", "value"), [("system", "7000000000000000000"), ("timeline", 2), ("database", 1), ("done", "FFFF/0")]
)
async def test_another_server_or_an_earlier_state_of_it_stops_it(
    followed: SourceDatabase, name: str, value: Any
) -> None:
    subject, cursor = await followed_to(followed)

    await lost(subject, {**cursor, name: value})


async def test_raising_the_generation_reads_all_rows_again_and_goes_on(followed: SourceDatabase) -> None:
    memory = Memory()
    await followed.execute(PAY, "first", 1)
    await run_through(followed.runner(memory))
    await followed.drop_slot()
    await followed.execute(PAY, "missed", 1)
    await followed.make_slot()
    paused = followed.runner(memory, epoch=2)
    assert await run_through(paused) is State.PAUSED
    assert "changes" not in paused.status.hint or paused.status.hint

    state = await run_through(followed.runner(memory, epoch=3, generation=2))

    assert state is State.STOPPED
    assert set(published(memory)) == {"first", "missed"}
    assert memory.letters == []


@pytest.mark.parametrize("statement", ["DROP COLUMN amount", "RENAME COLUMN reference TO renamed"])
async def test_a_column_that_is_gone_pauses_the_connector_and_floods_nothing(
    followed: SourceDatabase, statement: str
) -> None:
    memory = Memory()
    await followed.execute(PAY, "first", 1)
    await run_through(followed.runner(memory))
    await followed.execute(f"ALTER TABLE payments {statement}")
    await followed.execute(
        "INSERT INTO payments DEFAULT VALUES" if "x" in statement else "UPDATE payments SET note = 'x'"
    )

    runner = followed.runner(memory, epoch=2)
    state = await run_through(runner)

    assert state is State.PAUSED
    assert any("public.payments" in problem for problem in runner.status.problems)
    assert memory.letters == []


async def test_after_the_mapping_follows_the_rename_nothing_is_missing(followed: SourceDatabase) -> None:
    memory = Memory()
    await followed.execute("ALTER TABLE payments RENAME COLUMN reference TO renamed")
    await followed.execute("INSERT INTO payments (renamed, amount) VALUES ('after', 1)")
    assert await run_through(followed.runner(memory, **NEVER)) is State.PAUSED

    await run_through(followed.runner(memory, epoch=2, **NEVER, columns={"reference": "renamed"}))

    assert published(memory) == ["after"]


async def test_a_column_more_changes_nothing(followed: SourceDatabase) -> None:
    subject, cursor = await followed_to(followed)
    await followed.execute(
        "ALTER TABLE payments ADD COLUMN more text DEFAULT 'x', ALTER COLUMN reference TYPE varchar(300)"
    )
    await followed.execute(PAY, "second", 1)

    assert references(await read(subject, cursor)) == ["second"]
    await subject.close()


# --- who may, and from where ---


async def test_a_wrong_password_is_told_apart(followed: SourceDatabase) -> None:
    followed.reader_password = "wrong"
    subject = followed.source()

    with pytest.raises(SourceUnauthorised) as told:
        await one_task(subject)

    assert "pg_hba" in told.value.hint
    assert "wrong" not in str(told.value)


async def test_a_role_that_may_not_use_slots_pauses_it(followed: SourceDatabase) -> None:
    subject, cursor = await followed_to(followed)
    await subject.close()
    await followed.execute(f"ALTER ROLE {followed.reader} NOREPLICATION")
    subject = followed.source()
    await followed.execute(PAY, "second", 1)

    with pytest.raises(SourceMisconfigured, match="42501"):
        await read(subject, cursor)

    (step,) = [step for step in await subject.check() if not step.ok]
    assert step.hint == f'run: ALTER ROLE "{followed.reader}" REPLICATION;'
    await subject.close()


async def test_a_table_that_may_not_be_read_is_named_with_the_statement(followed: SourceDatabase) -> None:
    await followed.execute(f"REVOKE SELECT ON payments FROM {followed.reader}")
    subject = followed.source()

    (step,) = [step for step in await subject.check() if not step.ok]

    assert f'GRANT SELECT ON "public"."payments" TO "{followed.reader}";' in step.hint
    await subject.close()


async def test_the_session_writes_nothing(followed: SourceDatabase) -> None:
    await followed.execute(f"GRANT ALL ON payments TO {followed.reader}")
    subject = followed.source()

    async with subject._session("") as session:
        with pytest.raises(SourceUnavailable, match="read-only"):
            await session.fetch("DELETE FROM public.payments")
    await subject.close()


async def test_a_host_within_our_own_network_is_refused(followed: SourceDatabase) -> None:
    subject = followed.source(allow_networks=[])

    (step,) = await subject.check()

    assert (step.ok, "allow_networks" in step.hint) == (False, True)


async def test_two_connectors_on_one_slot_take_turns_and_disturb_nothing(followed: SourceDatabase) -> None:
    first, second = Memory(), Memory()
    running_first, running_second = followed.runner(first, **NEVER), followed.runner(second, connector=OTHER, **NEVER)
    async with running(running_first):
        await followed.execute(PAY, "one", 1)
        await eventually(lambda: published(first) == ["one"])
        async with running(running_second):
            await eventually(lambda: any("is active for PID" in each for each in running_second.status.problems))
            await followed.execute(PAY, "two", 1)
            await eventually(lambda: published(first) == ["one", "two"])

            assert published(second) == []
            assert running_first.state is State.RUNNING


async def test_a_session_that_was_ended_is_replaced(followed: SourceDatabase) -> None:
    memory = Memory()
    async with running(followed.runner(memory, **NEVER, idle_s=60)):
        await followed.execute(PAY, "one", 1)
        await eventually(lambda: published(memory) == ["one"])
        await followed.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", followed.reader
        )
        await followed.execute(PAY, "two", 1)

        await eventually(lambda: published(memory) == ["one", "two"])


async def test_log_that_is_held_back_shows(followed: SourceDatabase) -> None:
    runner = followed.runner(Memory(), **NEVER, held_alert_mib=0.000001, idle_s=60)
    async with running(runner):
        await eventually(lambda: any("MiB of log" in problem for problem in runner.status.problems))

        assert runner.state is State.DEGRADED


# --- polls ---


async def test_an_open_transaction_holds_the_watermark_back_and_shows(source: SourceDatabase) -> None:
    await source.table()
    await source.execute("ALTER TABLE payments ADD COLUMN txid xid8 NOT NULL DEFAULT pg_current_xact_id()")
    blocker = await source.connect()
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute(PAY, "held", 1)
    memory = Memory()
    runner = source.runner(memory, mode="watermark", held_alert_s=0.05, idle_s=60)
    async with running(runner):
        await source.execute(PAY, "committed", 1)
        await eventually(lambda: any("holds back" in problem for problem in runner.status.problems))
        assert published(memory) == []

        await transaction.commit()

        await eventually(lambda: published(memory) == ["held", "committed"])
        await eventually(lambda: runner.state is State.RUNNING)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ("txid xid8 DEFAULT pg_current_xact_id()", "may be null"),
        ("txid bigint NOT NULL DEFAULT 1", "not xid8"),
        ("txid xid8 NOT NULL DEFAULT '7'", "not filled"),
        ("other int", "no column"),
    ],
)
async def test_a_column_that_is_no_watermark_is_refused(source: SourceDatabase, column: str, problem: str) -> None:
    await source.table()
    await source.execute(f"ALTER TABLE payments ADD COLUMN {column}")
    subject = source.source(mode="watermark")

    with pytest.raises(SourceMisconfigured, match=problem):
        await read(subject)

    assert [step.name for step in await subject.check() if not step.ok] == ["column"]
    await subject.close()


async def test_the_closed_window_says_what_it_can_lose(source: SourceDatabase) -> None:
    await source.table()
    await source.execute("ALTER TABLE payments ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now()")
    subject = source.source(mode="closed_window", updated_at="changed_at")

    steps = {step.name: step for step in await subject.check()}

    assert "It can lose rows" in steps["column"].detail
    assert "NOT seen" in steps["column"].detail
    assert "CREATE INDEX" in steps["column"].detail
    await subject.close()


@pytest.mark.parametrize("sees", [False, True])
async def test_a_window_closes_over_an_open_transaction_only_where_it_cannot_be_seen(
    source: SourceDatabase, sees: bool
) -> None:
    """What `LOSES` says, and how to mend it."""
    await source.table()
    await source.execute("ALTER TABLE payments ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now()")
    if sees:
        await source.execute(f"GRANT pg_read_all_stats TO {source.reader}")
    blocker = await source.connect()
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute(PAY, "held", 1)
    await source.execute(PAY, "committed", 1)
    subject = source.source(mode="closed_window", updated_at="changed_at", delay_s=0)
    before = await read(subject)

    await transaction.commit()
    after = await read(subject, before[-1].cursor)

    assert references(before) + references(after) == (["held", "committed"] if sees else ["committed"])
    await subject.close()


async def test_updated_rows_are_polled_again_and_the_later_version_counts(source: SourceDatabase) -> None:
    await source.table()
    await source.execute("ALTER TABLE payments ADD COLUMN changed_at timestamptz NOT NULL DEFAULT clock_timestamp()")
    await source.execute(PAY, "one", 1)
    subject = source.source(mode="closed_window", updated_at="changed_at", delay_s=0)
    before = await read(subject)
    await source.execute("UPDATE payments SET amount = 2, changed_at = clock_timestamp()")

    after = await read(subject, before[-1].cursor)

    first, second = [record for batch in (*before, *after) for record in batch.records]
    assert (first.payment.amount, second.payment.amount) == (1, 2)
    assert first.position != second.position
    assert first.revision < second.revision  # type: ignore[operator]
    await subject.close()


# --- check ---


async def test_check_names_every_statement_that_is_missing(source: SourceDatabase) -> None:
    await source.table(EVENTS, "events")
    subject = source.source("public.events", mapping="events_table")

    failed = {step.name: step.hint for step in await subject.check() if not step.ok}

    assert failed["publication"] == (
        'run: CREATE PUBLICATION "till" FOR TABLE "public"."events" WITH (publish_via_partition_root = true);'
    )
    assert f"SELECT pg_create_logical_replication_slot('{source.slot()}', 'pgoutput');" in failed["slot"]
    await source.execute(failed["publication"].removeprefix("run: "))
    await source.execute(failed["slot"].removeprefix("run: ").partition(" (as ")[0])
    assert all(step.ok for step in await subject.check())
    await subject.close()


async def test_check_reads_a_row_and_tells_why_it_would_be_rejected(followed: SourceDatabase) -> None:
    await followed.execute("INSERT INTO payments (reference, amount, status) VALUES ('odd', 1, 'unheard of')")
    subject = followed.source()

    (step,) = [step for step in await subject.check() if not step.ok]

    assert (step.name, "status" in step.detail) == ("read a row", True)
    await subject.close()
