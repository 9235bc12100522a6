"""Connector workers killed while they follow a database: from its rows to payments, nothing is lost or doubled."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator

import pytest

from connectors import postgres_changes
from sinks.ledger import verify, verify_letters
from tests.faults import oracle
from tests.faults.stage import CONNECTORS_SOON, Stage, until
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


async def test_connectors_killed_in_every_phase_lose_no_row_and_their_ledger_balances(
    stage: Stage, source: SourceDatabase
) -> None:
    configuration = source.config(
        "public.events",
        mapping="events_table",
        amount_unit="minor",
        create=True,
        password="${env:TILL_SECRET_SOURCE}",
        poll_s=0.1,
        idle_s=0.2,
    )
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

    async def are_there() -> bool:
        found = await stage.pool.fetchval("SELECT count(*) FROM payments")
        assert found <= rows
        return bool(found == rows)

    async def is_balanced() -> bool:
        ended = all(each.status is not RunStatus.RUNNING for each in await run.list_runs(stage.pool))
        return ended and not [*await verify(stage.pool), *await verify_letters(stage.pool)]

    await until(are_there, within_s=60, what="all rows are there")
    await until(is_balanced, what="every run has ended, and the ledger balances")

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
