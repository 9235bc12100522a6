"""Connector workers killed while they follow a database: from its rows to payments, nothing is lost or doubled."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from connectors import postgres_changes
from sinks.ledger import verify, verify_letters
from tests.faults import oracle
from tests.faults.stage import CONNECTORS_SOON, Stage, Worker, until
from tests.integration.changes_kit import EVENTS, SourceDatabase, source_database
from tests.services import Postgres
from tillstream.control import connector, run
from tillstream.control.run import RunStatus

# The first finds no slot and makes it; the next ones die in the copy, and then wherever the stream is.
KILLS = (
    "after_slot_made=kill",
    "after_read=kill@3",
    "after_publish=kill@2",
    "before_checkpoint=kill@3",
    "after_slot_advanced=kill@2",
)
ROWS = 150  # of each transaction
LET_GO = re.compile(r"Connector uninstalled|connector left behind")
INSERT = """
INSERT INTO events (entity_id, event_type, headers)
SELECT 'p-' || n, 'payment.completed', jsonb_build_object('amount', (n + 1)::text, 'currency', 'EUR')
  FROM generate_series($1::int, $2::int) n
"""


@pytest.fixture
async def source(postgres: Postgres) -> AsyncIterator[SourceDatabase]:
    name = await postgres.create_database()
    async with source_database(postgres.dsn_of(name)) as made:
        await made.table(EVENTS)
        await made.execute(f"ALTER TABLE events OWNER TO {made.reader}")
        await made.execute(f"GRANT CREATE ON DATABASE {made.name} TO {made.reader}")
        yield made
    await postgres.drop_database(name)


def configured(source: SourceDatabase, **options: object) -> dict[str, Any]:
    return source.config(
        "public.events",
        mapping="events_table",
        amount_unit="minor",
        create=True,
        password="${env:TILL_SECRET_SOURCE}",
        poll_s=0.1,
        idle_s=0.2,
        **options,
    )


async def stored(stage: Stage, rows: int) -> bool:
    found = await stage.pool.fetchval("SELECT count(*) FROM payments")
    assert found <= rows
    return bool(found == rows)


async def is_balanced(stage: Stage) -> bool:
    ended = all(each.status is not RunStatus.RUNNING for each in await run.list_runs(stage.pool))
    return ended and not [*await verify(stage.pool), *await verify_letters(stage.pool)]


async def test_connectors_killed_in_every_phase_lose_no_row_and_their_ledger_balances(
    stage: Stage, source: SourceDatabase
) -> None:
    configuration = configured(source)
    settings = {**CONNECTORS_SOON, "secret_source": source.reader_password}
    await connector.create(stage.pool, name="shop", spec=postgres_changes.SPEC, configuration=configuration)
    others = [stage.worker(role, role=role, **CONNECTORS_SOON) for role in ("sink", "monitor", "letters")]
    rows = 0
    for number, failpoint in enumerate(KILLS):
        held = await source.connect()
        transaction = held.transaction()
        await transaction.start()
        await held.execute(INSERT, rows, rows + ROWS - 1)
        victim = stage.worker(f"victim-{number}", role="connector", failpoints=failpoint, **settings)
        if number == 0:
            await transaction.commit()  # a slot is made once nothing runs any more
        await source.execute(INSERT, rows + ROWS, rows + 2 * ROWS - 1)
        assert await victim.ended() == -signal.SIGKILL, failpoint
        if number > 0:
            await transaction.commit()  # it was open across the restart
        rows += 2 * ROWS
    survivor = stage.worker("survivor", role="connector", **settings)

    await until(lambda: stored(stage, rows), within_s=60, what="all rows are there")
    await until(lambda: is_balanced(stage), what="every run has ended, and the ledger balances")

    found = await stage.pool.fetch("SELECT reference, amount FROM payments")
    assert {row["reference"]: row["amount"] for row in found} == {f"p-{number}": number + 1 for number in range(rows)}
    log = [json.loads(record.value) for record in await oracle.records_of(stage.bootstrap, stage.events)]
    revisions: dict[str, set[tuple[str, int]]] = {}
    for event in log:
        lineage = event["lineage"]
        revisions.setdefault(event["id"], set()).add((lineage["revision_at"], lineage["revision_seq"]))
    assert all(len(each) == 1 for each in revisions.values())
    for worker in (survivor, *others):
        assert await worker.stop() == 0


HELD = """
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots
 WHERE database = current_database()
"""
MIB_OF_LOG = "SELECT pg_logical_emit_message(false, 'other', repeat('y', 1048576))"


async def test_a_worker_frozen_past_its_session_is_succeeded_and_neither_loses_nor_doubles_a_change(
    stage: Stage, source: SourceDatabase
) -> None:
    """
    It wakes up in the middle of a batch with a slot in its mind that another one has read on from.
    """
    settings = {**CONNECTORS_SOON, "secret_source": source.reader_password}
    configuration = {name: value for name, value in configured(source).items() if name != "let_go_s"}
    await connector.create(stage.pool, name="shop", spec=postgres_changes.SPEC, configuration=configuration)
    others = [stage.worker(role, role=role, **CONNECTORS_SOON) for role in ("sink", "monitor", "letters")]
    await source.execute(INSERT, 0, 4_999)
    frozen = stage.worker("frozen", role="connector", failpoints="after_publish=stop@2", **settings)
    process = psutil.Process(frozen.process.pid)
    await until(lambda: process.status() == psutil.STATUS_STOPPED, what="it is frozen")

    heir = stage.worker("heir", role="connector", **settings)
    await source.execute(INSERT, 5_000, 5_999)
    await until(lambda: stored(stage, 6_000), within_s=60, what="the heir has read everything")
    frozen.send(signal.SIGCONT)
    await until(lambda: LET_GO.search(frozen.log), within_s=60, what="it lets go")
    await source.execute(INSERT, 6_000, 6_999)
    await until(lambda: stored(stage, 7_000), within_s=60, what="reading goes on")
    await until(lambda: is_balanced(stage), within_s=60, what="every run has ended, and the ledger balances")

    found = await stage.pool.fetch("SELECT reference, amount FROM payments")
    assert {row["reference"]: row["amount"] for row in found} == {f"p-{number}": number + 1 for number in range(7_000)}
    assert "changes_lost" not in frozen.log + heir.log
    assert "Traceback" not in frozen.log + heir.log

    async def has_one_owner() -> bool:
        return sum([await each.has("tillstream_held_back_bytes", connector="shop") for each in (frozen, heir)]) == 1

    await until(has_one_owner, within_s=60, what="its gauges are told by whoever has it")
    for worker in (frozen, heir, *others):
        assert await worker.stop() == 0


async def test_what_a_slot_holds_back_is_measured_while_its_connector_is_paused(
    stage: Stage, source: SourceDatabase
) -> None:
    settings = {**CONNECTORS_SOON, "secret_source": source.reader_password}
    shop = await connector.create(stage.pool, name="shop", spec=postgres_changes.SPEC, configuration=configured(source))
    worker = stage.worker("one", role="connector", **settings)
    await source.execute(INSERT, 0, ROWS - 1)
    await worker.shows("tillstream_records_total", ROWS, connector="shop", fate="published")
    await connector.set_status(stage.pool, shop, connector.ConnectorStatus.PAUSED)
    await worker.says("Connector uninstalled")

    for _ in range(8):
        await source.execute(MIB_OF_LOG)

    held = await source.value(HELD)
    assert held > 8 * 1_048_576
    await worker.shows("tillstream_held_back_bytes", held, connector="shop", within_s=60)
    for stale in ("tillstream_connector_state", "tillstream_source_lag_seconds", "tillstream_scan_age_seconds"):
        assert not await worker.has(stale, connector="shop")
    await source.execute(f"ALTER ROLE {source.reader} PASSWORD 'another-one'")
    await worker.shows("tillstream_held_back_unseen", connector="shop", within_s=60)
    assert not await worker.has("tillstream_held_back_bytes", connector="shop")
    await connector.delete(stage.pool, await connector.find(stage.pool, "shop"))
    await until(lambda: lacks(worker, "tillstream_held_back_unseen"), within_s=60, what="it is forgotten")
    assert await worker.stop() == 0


async def lacks(worker: Worker, name: str) -> bool:
    return not await worker.has(name, connector="shop")
