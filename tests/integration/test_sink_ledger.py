"""`verify` names the run and the hop at which somebody drops, doubles or alters a row by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from schemas.identity import digest_sum, event_digest
from sinks.base import Dead
from sinks.ledger import Finding, Hop, verify
from sinks.postgres import PostgresSink
from tests.database import migrated
from tests.model.history import CONNECTOR, PLACE, RUN, record

LATER_RUN = UUID(int=2)
DOUBLED = """
INSERT INTO {table} OVERRIDING SYSTEM VALUE
SELECT (jsonb_populate_record(t, jsonb_build_object('{column}', gen_random_uuid(), 'ordinal', 99))).*
  FROM {table} t WHERE {where}
"""


@pytest.fixture
async def sink(database: str) -> AsyncIterator[PostgresSink]:
    """Two runs that balance: one of three records and a dead one, one that repeats a record and brings a refund."""
    await migrated(database)
    opened = await PostgresSink.open(database)
    first = [
        record("authorised", 100, at=1, event_id="e1", line=1),
        record("succeeded", 100, at=2, event_id="e2", raw='{"a": 1}'),
        record("failed", 5, reference="002", event_id="e3", scheme="visa"),
    ]
    await opened.apply(PLACE, first, [Dead("e4", RUN, 9, "letter", "invalid_amount")], next_offset=10)
    later = [
        record("succeeded", 100, at=2, event_id="e2", run=LATER_RUN),
        record("refunded", 30, at=3.5, event_id="e5", run=LATER_RUN),
    ]
    await opened.apply(PLACE, later, next_offset=12)
    await opened.pool.execute(
        "INSERT INTO sp_v2_connectors (name, source_entity, connection_config) VALUES ('acme', 'ACME', '{}')"
    )
    await opened.pool.execute(
        "INSERT INTO connectors (id, row_id, name, kind, provider) VALUES ($1, 1, 'acme', 'directory', 'acme')",
        CONNECTOR,
    )
    await finished_run(opened, RUN, read=6, published=4, rejected=1, filtered=1, events=["e1", "e2", "e3", "e4"])
    await finished_run(opened, LATER_RUN, read=2, published=2, rejected=0, filtered=0, events=["e2", "e5"])
    yield opened
    await opened.close()


async def finished_run(sink: PostgresSink, run: UUID, *, events: list[str], **counts: int) -> None:
    await sink.pool.execute(
        "INSERT INTO connector_runs (id, connector_id, read, published, rejected, filtered, published_sum,"
        " reading_finished_at, closed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, now(), now())",
        run,
        CONNECTOR,
        *counts.values(),
        digest_sum(event_digest(one) for one in events),
    )


async def test_runs_that_balance_give_no_finding(sink: PostgresSink) -> None:
    assert await verify(sink.pool) == []


@pytest.mark.parametrize(
    ("tampering", "hop", "run"),
    [
        ("UPDATE connector_runs SET read = read + 1 WHERE id = '{first}'", Hop.SOURCE, RUN),
        ("UPDATE connector_runs SET rejected = 0 WHERE id = '{first}'", Hop.SOURCE, RUN),
        ("UPDATE connector_runs SET published = 3, filtered = 2 WHERE id = '{first}'", Hop.TOPIC, RUN),
        ("UPDATE connector_runs SET published_sum = published_sum + 1 WHERE id = '{second}'", Hop.TOPIC, LATER_RUN),
        ("UPDATE run_ledger SET events = events + 1 WHERE outcome = 'dead'", Hop.LEDGER, RUN),
        ("UPDATE run_ledger SET digest_sum = digest_sum + 1 WHERE outcome = 'duplicate'", Hop.LEDGER, LATER_RUN),
        ("DELETE FROM run_ledger WHERE run = '{second}' AND outcome = 'applied'", Hop.LEDGER, LATER_RUN),
        ("UPDATE run_ledger SET outcome = 'duplicate' WHERE outcome = 'dead'", Hop.LEDGER, RUN),
        ("DELETE FROM payment_events WHERE event_id = 'e3'", Hop.LEDGER, RUN),
        ("DELETE FROM payment_events WHERE event_id = 'e1'", Hop.LEDGER, RUN),
        ("DELETE FROM event_repeats", Hop.LEDGER, LATER_RUN),
        ("DELETE FROM event_deaths", Hop.LEDGER, RUN),
        ("DELETE FROM event_origins", Hop.LEDGER, RUN),
        (
            "INSERT INTO event_repeats SELECT digest, '{second}', now(), 1, 0, 't' FROM payment_events LIMIT 1",
            Hop.LEDGER,
            LATER_RUN,
        ),
        (
            DOUBLED.format(table="payment_events", column="digest", where="event_id = 'e3'"),
            Hop.LEDGER,
            RUN,
        ),
        ("UPDATE payment_events SET run = '{second}' WHERE event_id = 'e3'", Hop.LEDGER, RUN),
        ("UPDATE payment_events SET amount = 6 WHERE event_id = 'e3'", Hop.EVENTS, RUN),
        ("UPDATE payment_events SET raw = '{{}}' WHERE event_id = 'e2'", Hop.EVENTS, RUN),
        ("UPDATE payment_events SET raw = '' WHERE event_id = 'e3'", Hop.EVENTS, RUN),
        (
            "UPDATE payment_events SET effective_at = effective_at + interval '1 microsecond' WHERE event_id = 'e5'",
            Hop.EVENTS,
            LATER_RUN,
        ),
        ("UPDATE payment_events SET reference = '003' WHERE event_id = 'e3'", Hop.EVENTS, RUN),
        ("UPDATE payment_events SET event_id = 'e9' WHERE event_id = 'e3'", Hop.EVENTS, RUN),
        ("UPDATE payment_events SET status = 'expired' WHERE event_id = 'e3'", Hop.EVENTS, RUN),
        ("UPDATE payment_events SET moved = true WHERE event_id = 'e3'", Hop.EVENTS, RUN),
        ("UPDATE payments SET amount = amount + 1 WHERE reference = '001'", Hop.PAYMENTS, None),
        ("UPDATE payments SET status = 'pending' WHERE reference = '002'", Hop.PAYMENTS, None),
        ("UPDATE payments SET id = 'x' WHERE reference = '002'", Hop.PAYMENTS, None),
        ("DELETE FROM payments WHERE reference = '002'", Hop.PAYMENTS, None),
        ("DELETE FROM payment_events WHERE event_id = 'e5'", Hop.PAYMENTS, None),
        (
            DOUBLED.format(table="payments", column="payment", where="reference = '002'"),
            Hop.PAYMENTS,
            None,
        ),
    ],
)
async def test_a_row_dropped_doubled_or_altered_by_hand_is_named_with_its_run_and_hop(
    sink: PostgresSink, tampering: str, hop: Hop, run: UUID | None
) -> None:
    await sink.pool.execute(tampering.format(first=RUN, second=LATER_RUN))

    findings = await verify(sink.pool)

    assert (hop, run) in {(one.hop, one.run) for one in findings}


async def test_a_run_whose_sink_is_not_done_awaits_it_and_is_no_loss_yet(sink: PostgresSink) -> None:
    await sink.pool.execute(
        "UPDATE connector_runs SET closed_at = NULL, read = 3, published = 3 WHERE id = $1", LATER_RUN
    )

    findings = await verify(sink.pool)

    assert findings == [Finding(Hop.TOPIC, LATER_RUN, "acme", "published 3, the sink confirmed 2", awaiting=True)]


@pytest.mark.parametrize(("checkpointed", "loses"), [(1, False), (2, False), (3, True)])
async def test_a_crashed_run_may_have_more_in_the_sink_than_its_last_checkpoint_but_not_less(
    sink: PostgresSink, checkpointed: int, loses: bool
) -> None:
    await sink.pool.execute(
        "UPDATE connector_runs SET reading_finished_at = NULL, read = 9, published = 9 WHERE id = $1", LATER_RUN
    )
    await sink.pool.execute(
        "INSERT INTO checkpoints (connector_id, task, run_id, epoch, seq, counts, done, revision_at, updated_at)"
        " VALUES ($1, 'task', $2, 1, 1, json_build_object('published', $3::int), false, now(), now())",
        CONNECTOR,
        LATER_RUN,
        checkpointed,
    )

    findings = await verify(sink.pool)

    assert [(one.hop, one.run) for one in findings] == ([(Hop.TOPIC, LATER_RUN)] if loses else [])
