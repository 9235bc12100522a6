"""Dead letters are let go with a note and a name, once, and only while nobody has sent them through again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from schemas.errors import ConfigError
from schemas.letter import DeadLetter, Stage, letter_id, payload
from schemas.topic import topics
from sinks.letters import LetterTable
from sinks.pool import Pool, close_pool, open_pool
from streams.publisher import Producer
from tests.database import migrated
from tillstream.control import letter
from tillstream.control.letter import Filter, LetterState

CONNECTOR = UUID(int=7)
FIRST, SECOND = UUID(int=1), UUID(int=2)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=4)
    yield opened
    await close_pool(opened)


def a_letter(row: int, *, run: UUID = FIRST, file: str = "old", path: str = "in/a.csv") -> DeadLetter:
    return DeadLetter.model_validate(
        {
            "id": letter_id(Stage.SOURCE, str(CONNECTOR), file, f"row {row}"),
            "stage": Stage.SOURCE,
            "reason": "invalid_amount",
            "message": "no amount",
            "failed_at": datetime(2025, 1, 10, 12, 0, row, tzinfo=UTC),
            "event_id": f"event-{row}",
            "run_id": run,
            "connector_id": CONNECTOR,
            "connector": "bank",
            "path": path,
            "position": f"row {row}",
            "source_object": file,
            **payload(b"a,b", limit_bytes=100_000),
        }
    )


async def put(pool: Pool, *letters: DeadLetter) -> list[str]:
    for offset, each in enumerate(letters):
        await LetterTable(pool).put(each, partition=0, offset=offset)
    return [each.id for each in letters]


async def listed(pool: Pool, **wanted: object) -> list[str]:
    return [view.letter.id for view in await letter.list_letters(pool, Filter(**wanted))]  # type: ignore[arg-type]


async def test_a_discarded_letter_stays_listed_as_such_with_its_note_and_who_it_was(pool: Pool) -> None:
    first, second = await put(pool, a_letter(1), a_letter(2))

    done = await letter.discard(pool, [first], note=" mended by b.csv ", by="ops")

    assert (done.done, done.known, done.refused) == ([first], [], [])
    assert await listed(pool) == [second]
    assert await listed(pool, state=LetterState.DISCARDED) == [first]
    assert await listed(pool, state=None) == [second, first]
    view = await letter.show(pool, first)
    assert (view.state, view.discard_note, view.discarded_by) == (LetterState.DISCARDED, "mended by b.csv", "ops")
    assert view.discarded_at is not None


async def test_discarding_a_letter_again_changes_nothing(pool: Pool) -> None:
    (only,) = await put(pool, a_letter(1))
    await letter.discard(pool, [only], note="first", by="one")
    before = await letter.show(pool, only)

    again = await letter.discard(pool, [only, only], note="second", by="two")

    assert (again.done, again.known, again.refused) == ([], [only], [])
    assert await letter.show(pool, only) == before


async def test_a_dry_run_tells_and_discards_nothing(pool: Pool) -> None:
    (only,) = await put(pool, a_letter(1))

    planned = await letter.discard(pool, [only], note="n", by="b", dry_run=True)

    assert planned.done == [only]
    assert await listed(pool) == [only]


async def test_a_letter_that_was_or_is_being_redriven_is_not_discarded_beside_others_that_are(pool: Pool) -> None:
    redriven, under_way, failed, open_ = await put(pool, *map(a_letter, range(1, 5)))
    await pool.execute("INSERT INTO connectors (id, name, kind, provider) VALUES ($1, 'x', 'x', 'x')", CONNECTOR)
    for each, ended in ((under_way, False), (failed, True)):
        run = uuid4()
        await pool.execute(
            "INSERT INTO connector_runs (id, connector_id, closed_at) VALUES ($1, $2, CASE WHEN $3 THEN now() END)",
            run,
            CONNECTOR,
            ended,
        )
        await pool.execute("UPDATE dead_letters SET redrive_run_id = $2 WHERE id = $1", each, run)
    await pool.execute("UPDATE dead_letters SET redriven_at = now() WHERE id = $1", redriven)

    done = await letter.discard(pool, [redriven, under_way, failed, open_, "nothing"], note="n", by="b")

    assert sorted(done.done) == sorted([failed, open_])
    assert {each.id: (each.code, each.message) for each in done.refused} == {
        redriven: ("conflict", "it was redriven already"),
        under_way: ("conflict", "it is being redriven"),
        "nothing": ("not_found", "there is no such letter"),
    }


async def test_a_discarded_letter_is_not_redriven(pool: Pool) -> None:
    (only,) = await put(pool, a_letter(1).model_copy(update={"stage": Stage.SINK, "topic": topics("t").events.name}))
    await letter.discard(pool, [only], note="a test payment", by="ops")

    async with Producer("127.0.0.1:1") as nobody:
        done = await letter.redrive(pool, nobody, topics("t"), [only])

    (refused,) = done.refused
    assert (refused.code, refused.message, refused.hint) == ("conflict", "it was discarded", "by ops: a test payment")


async def test_of_two_discards_at_the_same_moment_one_does_it(pool: Pool) -> None:
    (only,) = await put(pool, a_letter(1))

    both = await asyncio.gather(*(letter.discard(pool, [only], note=name, by=name) for name in ("one", "two")))

    assert sorted((len(each.done), len(each.known)) for each in both) == [(0, 1), (1, 0)]
    kept = next(name for name, each in zip(("one", "two"), both, strict=True) if each.done)
    assert (await letter.show(pool, only)).discard_note == kept


@pytest.mark.parametrize(
    ("note", "by"), [("", "ops"), ("  ", "ops"), ("n" * 2_001, "ops"), ("n", ""), ("n", "b" * 201)]
)
async def test_a_discard_needs_a_note_and_a_name(pool: Pool, note: str, by: str) -> None:
    (only,) = await put(pool, a_letter(1))

    with pytest.raises(ConfigError, match="of 1 to"):
        await letter.discard(pool, [only], note=note, by=by)

    assert await listed(pool) == [only]


async def test_a_note_may_hold_what_no_text_column_takes(pool: Pool) -> None:
    (only,) = await put(pool, a_letter(1))

    await letter.discard(pool, [only], note="a\x00b\ud800", by="ops")

    assert (await letter.show(pool, only)).discard_note == "a\\x00b\\ud800"


async def test_a_runs_letters_are_those_of_every_record_it_rejected_also_where_another_run_had_it_first(
    pool: Pool,
) -> None:
    first, second = await put(pool, a_letter(1), a_letter(2))
    await put(pool, a_letter(2, run=SECOND))

    assert await listed(pool, run=FIRST) == [second, first]
    assert await listed(pool, run=SECOND) == [second]
    assert await listed(pool, run=uuid4()) == []


async def test_letters_of_files_that_came_again_with_other_content_are_found(pool: Pool) -> None:
    mended, _, _, _ = await put(
        pool,
        a_letter(1),
        a_letter(2, file="lonely", path="in/b.csv"),
        a_letter(3, file="api", path=""),
        a_letter(4, file="new"),  # the corrected file is wrong here
    )
    for connector, file, path, days in (
        (CONNECTOR, "new", "in/a.csv", 1),
        (CONNECTOR, "before", "in/b.csv", -900),
        (uuid4(), "other", "in/b.csv", 1),
        (CONNECTOR, "other", "", 1),
    ):
        await pool.execute(
            "INSERT INTO event_origins (id, connector, source_object, path, topic, log_partition, first_seen_at)"
            " VALUES (gen_random_uuid(), $1, $2, $3, 't', 0, timestamptz '2025-01-10Z' + make_interval(days => $4))",
            connector, file, path, days,
        )  # fmt: skip

    assert await listed(pool, corrected=True) == [mended]
    assert await listed(pool, corrected=True, reason="invalid_encoding") == []


async def copies(pool: Pool, dead: DeadLetter, number: int) -> None:
    """So many letters like this one, under ids of their own."""
    await put(pool, dead)
    names = await pool.fetchval(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute"
        " WHERE attrelid = 'dead_letters'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
        " AND attidentity = '' AND attname NOT IN ('id', 'letter_offset')"
    )
    await pool.execute(
        f"INSERT INTO dead_letters (id, letter_offset, {names})"
        f" SELECT lpad(to_hex(n), 32, '0'), n, {names} FROM dead_letters, generate_series(1, $1) AS n",
        number - 1,
    )
