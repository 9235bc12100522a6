"""The hop of the letters: `verify_letters` names the run of a letter that the list lost, doubled or altered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from schemas.identity import digest_sum, event_digest, event_id
from schemas.letter import DeadLetter, Stage, letter_id, payload, sink_letter_id
from sinks.base import Dead
from sinks.ledger import Finding, Hop, verify_letters
from sinks.letters import LetterTable
from sinks.postgres import PostgresSink
from tests.database import migrated
from tests.model.history import CONNECTOR, PLACE, RUN, record

LATER_RUN = UUID(int=2)
FILE = "f" * 64
FAILED_AT = datetime(2025, 1, 10, 12, 0, 0, 123456, tzinfo=UTC)
DOUBLED = """
INSERT INTO dead_letters
SELECT (jsonb_populate_record(l, jsonb_build_object('id', md5('another'), 'log_offset', l.log_offset + 1))).*
  FROM dead_letters l WHERE {where}
"""


def rejected(position: str, run: UUID = RUN, **fields: object) -> DeadLetter:
    return DeadLetter.model_validate(
        {
            "id": letter_id(Stage.SOURCE, str(CONNECTOR), FILE, position),
            "stage": Stage.SOURCE,
            "reason": "invalid_amount",
            "message": "'x' is not a whole number of minor units",
            "failed_at": FAILED_AT,
            "event_id": rejected_event(position),
            "run_id": run,
            "connector_id": CONNECTOR,
            "connector": "acme",
            "path": "in/a.csv",
            "position": position,
            "line": 7,
            "source_object": FILE,
            **payload(b"a,b\xff", limit_bytes=100_000),
            **fields,
        }
    )


def rejected_event(position: str) -> str:
    return event_id(CONNECTOR, FILE, position)


def died(offset: int, run: UUID = RUN, **fields: object) -> DeadLetter:
    return DeadLetter.model_validate(
        {
            "id": sink_letter_id(PLACE.topic, PLACE.partition, offset, key=b"k", value=None),
            "stage": Stage.SINK,
            "reason": "undecodable",
            "message": "not a JSON event",
            "failed_at": FAILED_AT,
            "event_id": f"dead-{offset}",
            "run_id": run,
            "topic": PLACE.topic,
            "partition": PLACE.partition,
            "offset": offset,
            **payload(None, limit_bytes=100_000, key=b"k", headers=[("h", b"\x00")]),
            **fields,
        }
    )


def dead(offset: int, run: UUID = RUN) -> Dead:
    letter = died(offset, run)
    return Dead(letter.event_id, run, offset, letter.id, letter.reason)


async def put(sink: PostgresSink, *letters: DeadLetter, first: int = 0) -> None:
    table = LetterTable(sink.pool)
    for offset, letter in enumerate(letters, start=first):
        await table.put(letter, partition=0, offset=offset)


async def finished_run(sink: PostgresSink, run: UUID, *positions: str) -> None:
    await sink.pool.execute(
        "INSERT INTO connector_runs (id, connector_id, read, rejected, rejected_sum, reading_finished_at, closed_at)"
        " VALUES ($1, $2, $3, $3, $4, now(), now())",
        run,
        CONNECTOR,
        len(positions),
        digest_sum(event_digest(rejected_event(position)) for position in positions),
    )


@pytest.fixture
async def sink(database: str) -> AsyncIterator[PostgresSink]:
    """
    One run that rejected two records and had two events die, and one that went on after it and rejected one of the two
    again.
    """
    await migrated(database)
    opened = await PostgresSink.open(database)
    await opened.pool.execute(
        "INSERT INTO connectors (id, name, kind, provider) VALUES ($1, 'acme', 'directory', 'acme')", CONNECTOR
    )
    await finished_run(opened, RUN, "row 1", "row 2")
    await finished_run(opened, LATER_RUN, "row 2", "row 3")
    await opened.apply(PLACE, [record("succeeded", event_id="e1")], [dead(3), dead(5)], next_offset=10)
    again = (rejected("row 1"), rejected("row 2", LATER_RUN), rejected("row 3", LATER_RUN), died(3))
    await put(opened, rejected("row 1"), rejected("row 2"), *again, died(5))
    yield opened
    await opened.close()


async def test_letters_of_what_was_rejected_or_died_give_no_finding_however_often_they_were_published(
    sink: PostgresSink,
) -> None:
    assert await verify_letters(sink.pool) == []


async def test_a_list_that_is_filled_again_after_a_restore_balances_again(sink: PostgresSink) -> None:
    await sink.pool.execute("DELETE FROM dead_letters WHERE letter_offset > 0; DELETE FROM letter_repeats")
    assert await verify_letters(sink.pool)
    assert await LetterTable(sink.pool).next_offsets("t") == {0: 1}

    again = (rejected("row 2"), rejected("row 1"), rejected("row 2", LATER_RUN), rejected("row 3", LATER_RUN))
    await put(sink, *again, died(3), died(5), first=1)

    assert await verify_letters(sink.pool) == []


@pytest.mark.parametrize(
    ("tampering", "run"),
    [
        ("DELETE FROM dead_letters WHERE position = 'row 1'", RUN),
        ("DELETE FROM dead_letters WHERE position = 'row 2'", RUN),
        ("DELETE FROM dead_letters WHERE position = 'row 2'", LATER_RUN),
        ("DELETE FROM letter_repeats", LATER_RUN),
        ("DELETE FROM dead_letters WHERE log_offset = 3", RUN),
        ("UPDATE dead_letters SET run_id = '{second}' WHERE position = 'row 1'", RUN),
        ("UPDATE dead_letters SET run_id = '{second}' WHERE position = 'row 1'", LATER_RUN),
        ("UPDATE dead_letters SET run_id = '{second}' WHERE log_offset = 3", RUN),
        ("UPDATE dead_letters SET run_id = NULL WHERE log_offset = 3", RUN),
        ("UPDATE dead_letters SET event_id = 'other' WHERE position = 'row 1'", RUN),
        ("UPDATE dead_letters SET event_id = 'other' WHERE log_offset = 5", RUN),
        ("UPDATE dead_letters SET stage = 'sink' WHERE position = 'row 1'", RUN),
        ("UPDATE dead_letters SET reason = 'other' WHERE log_offset = 5", RUN),
        ("UPDATE connector_runs SET rejected_sum = rejected_sum + 1 WHERE id = '{second}'", LATER_RUN),
        ("UPDATE connector_runs SET rejected = 3 WHERE id = '{second}'", LATER_RUN),
        ("DELETE FROM event_deaths WHERE log_offset = 3", RUN),
        ("UPDATE event_deaths SET letter_id = 'other' WHERE log_offset = 3", RUN),
        ("UPDATE event_deaths SET reason = 'other' WHERE log_offset = 3", RUN),
        (DOUBLED.format(where="position = 'row 1'"), RUN),
        (DOUBLED.format(where="log_offset = 3"), RUN),
        (
            "INSERT INTO letter_repeats SELECT id, '{second}', 0, 9 FROM dead_letters WHERE position = 'row 1'",
            LATER_RUN,
        ),
    ],
)
async def test_a_letter_that_is_lost_doubled_or_another_is_named_with_its_run(
    sink: PostgresSink, tampering: str, run: UUID
) -> None:
    await sink.pool.execute(tampering.format(second=LATER_RUN))

    findings = await verify_letters(sink.pool)

    assert (Hop.LETTERS, run, False) in {(one.hop, one.run, one.awaiting) for one in findings}


@pytest.mark.parametrize(
    "change",
    [
        "reason = 'x'", "message = 'x'", "hint = 'x'", "attempts = 2", "connector_id = NULL", "connector = 'x'",
        "failed_at = failed_at + interval '1 microsecond'", "path = 'x'", "position = 'row 9'", "line = 8",
        "line = NULL", "source_object = 'x'", "key = ''", "value = 'x'", "value = NULL", "headers = '[1]'",
        "size_bytes = 9", "sha256 = 'x'", "truncated = true", "sqlstate = '42601'", "letter_partition = 3",
        "letter_offset = 77", "topic = 'x'", "log_partition = 3", "log_offset = 3",
    ],
)  # fmt: skip
async def test_a_letter_altered_after_it_was_listed_is_named_with_its_run(sink: PostgresSink, change: str) -> None:
    await sink.pool.execute(f"UPDATE dead_letters SET {change} WHERE position = 'row 1'")

    findings = await verify_letters(sink.pool)

    assert (RUN, rejected("row 1").id) in {(one.run, one.subject) for one in findings}


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": "eA=="},
        {"sha256": "0" * 64},
        {"size_bytes": 4_000},
        {"position": "row 8"},
        {"source_object": "e" * 64},
    ],
)
async def test_a_letter_that_was_altered_on_its_way_to_the_list_is_named_too(
    sink: PostgresSink, wrong: dict[str, object]
) -> None:
    await sink.pool.execute("DELETE FROM dead_letters WHERE position = 'row 1'")

    await put(sink, rejected("row 1").model_copy(update=wrong), first=50)

    (finding,) = await verify_letters(sink.pool)
    assert (finding.run, finding.subject) == (RUN, rejected("row 1").id)


async def test_what_an_operator_does_with_a_letter_alters_nothing_that_it_says(sink: PostgresSink) -> None:
    await sink.pool.execute(
        "UPDATE dead_letters SET redrive_attempts = 1, redrive_run_id = id_of_run, redriven_at = now(),"
        " discarded_at = now(), discarded_by = 'somebody', discard_note = 'nothing to do'"
        "  FROM (SELECT gen_random_uuid() AS id_of_run) AS made"
    )

    assert await verify_letters(sink.pool) == []


async def test_a_letter_whose_death_the_sink_has_not_counted_yet_awaits_it(sink: PostgresSink) -> None:
    await put(sink, died(10), first=50)

    (finding,) = await verify_letters(sink.pool)

    assert finding == Finding(
        Hop.LETTERS, RUN, died(10).id, "it is listed, and its event is not counted dead", awaiting=True
    )


async def test_a_record_that_its_publisher_sent_twice_has_two_letters_and_dies_once(sink: PostgresSink) -> None:
    first = dead(3)
    second = died(7, event_id=first.event_id)
    await sink.apply(PLACE, [], [Dead(first.event_id, RUN, 7, second.id, first.reason)], next_offset=11)
    await put(sink, second, first=50)

    assert await verify_letters(sink.pool) == []


async def test_an_event_that_went_through_after_a_crash_before_its_death_was_counted_is_no_finding(
    sink: PostgresSink,
) -> None:
    await put(sink, died(1, event_id="e1"), first=50)

    assert await verify_letters(sink.pool) == []


async def test_letters_that_no_text_can_hold_and_foreign_ones_are_no_findings(sink: PostgresSink) -> None:
    odd = rejected("row \x00 9", UUID(int=9))
    identity = sink_letter_id("till.dead-letters", 0, 900, key=b"k", value=None)
    unreadable = died(900, reason="unreadable_letter", topic="till.dead-letters", id=identity)
    await put(sink, odd, unreadable, first=50)

    assert await verify_letters(sink.pool) == []


@pytest.mark.parametrize(("checkpointed", "loses"), [(1, False), (2, False), (3, True)])
async def test_of_a_crashed_run_more_may_be_listed_than_its_last_checkpoints_say_but_not_less(
    sink: PostgresSink, checkpointed: int, loses: bool
) -> None:
    await sink.pool.execute(
        "UPDATE connector_runs SET reading_finished_at = NULL, rejected = 9, rejected_sum = 9 WHERE id = $1", RUN
    )
    await sink.pool.execute(
        "INSERT INTO checkpoints (connector_id, task, run_id, epoch, seq, counts, done, revision_at, updated_at)"
        " VALUES ($1, 'task', $2, 1, 1, json_build_object('rejected', $3::int), false, now(), now())",
        CONNECTOR,
        RUN,
        checkpointed,
    )

    findings = await verify_letters(sink.pool)

    assert [(one.run, one.unlisted) for one in findings] == ([(RUN, True)] if loses else [])
