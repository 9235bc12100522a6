"""
The letters role against a real broker and database: everything on the dead-letter topic is listed, also after a
restore.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from schemas.identity import digest_sum, event_digest
from schemas.letter import DeadLetter, Stage, letter_id, payload
from schemas.topic import LETTER_MAX_BYTES, Topics, letters_app_id, topics
from sinks.ledger import Finding, Hop
from sinks.letters import LetterTable
from sinks.pool import close_pool, open_pool
from streams import letters
from streams.app import AppSettings, live, make_app
from streams.process import Stop
from streams.provision import provision
from streams.publisher import LetterPublisher, Producer
from tests.database import migrated
from tests.services import Kafka
from tillstream.control import ledger
from tillstream.control.ledger import Report


def a_letter(number: int, **fields: object) -> DeadLetter:
    return DeadLetter.model_validate(
        {
            "id": letter_id(Stage.SINK, "t", "0", str(number)),
            "stage": Stage.SINK,
            "reason": "undecodable",
            "message": "no JSON",
            "failed_at": datetime(2025, 1, 10, tzinfo=UTC),
            "event_id": f"e{number}",
            **payload(b"\x00garbage\xff", limit_bytes=LETTER_MAX_BYTES, key=b"k"),
            **fields,
        }
    )


@asynccontextmanager
async def letters_role(kafka: Kafka, table: Topics, prefix: str, dsn: str) -> AsyncIterator[None]:
    pool = await open_pool(dsn)
    app = make_app(
        letters_app_id(prefix), AppSettings(bootstrap=kafka.bootstrap, session_timeout_s=3.0, heartbeat_s=1.0)
    )
    letters.register(app, table, LetterTable(pool))
    stop = Stop(stop_within_s=3_600)  # the bound ends processes, and this one is pytest's
    running = asyncio.create_task(live(app, stop))
    try:
        yield
    finally:
        stop.request(0)
        assert await asyncio.wait_for(running, 15) == 0
        await close_pool(pool)


async def listed(held: asyncpg.Connection, expected: int) -> None:
    async with asyncio.timeout(30):
        while await held.fetchval("SELECT count(*) FROM dead_letters") != expected:  # noqa: ASYNC110  nobody tells us
            await asyncio.sleep(0.05)


async def test_letters_are_listed_once_and_again_after_the_list_was_restored(
    kafka: Kafka, topic_prefix: str, database: str
) -> None:
    table = topics(topic_prefix)
    await provision(kafka.bootstrap, table.all())
    await migrated(database)
    held = await asyncpg.connect(database)
    async with Producer(kafka.bootstrap) as producer:
        box = LetterPublisher(producer, table)
        await box.dead_letter([a_letter(n) for n in range(20)])
        await box.dead_letter([a_letter(n) for n in range(5)])
        await box.dead_letter([a_letter(20, message="a NUL \x00 that no text column takes")])

        async with letters_role(kafka, table, topic_prefix, database):
            await listed(held, 21)
        # what a backup of an hour ago looks like, while the group's offset stays
        await held.execute("DELETE FROM dead_letters WHERE letter_offset >= 7")
        async with letters_role(kafka, table, topic_prefix, database):
            await listed(held, 21)

    row = await held.fetchrow("SELECT value, key FROM dead_letters WHERE event_id = 'e19'")
    assert (row["value"], row["key"]) == (b"\x00garbage\xff", b"k")
    await held.close()


CONNECTOR, RUN = UUID(int=7), UUID(int=1)


def a_rejection(row: int) -> DeadLetter:
    position = f"row {row}"
    return a_letter(
        row,
        id=letter_id(Stage.SOURCE, str(CONNECTOR), "object", position),
        stage=Stage.SOURCE,
        run_id=RUN,
        connector_id=CONNECTOR,
        source_object="object",
        position=position,
    )


async def finished_run(held: asyncpg.Connection, letters: list[DeadLetter]) -> None:
    await held.execute("INSERT INTO connectors (id, name, kind, provider) VALUES ($1, 'acme', 'x', 'acme')", CONNECTOR)
    await held.execute(
        "INSERT INTO connector_runs (id, connector_id, read, rejected, rejected_sum, reading_finished_at)"
        " VALUES ($1, $2, $3, $3, $4, now())",
        RUN,
        CONNECTOR,
        len(letters),
        digest_sum(event_digest(letter.event_id) for letter in letters),
    )


async def test_a_letter_on_its_way_to_the_list_is_awaited_and_one_that_the_list_lost_is_named(
    kafka: Kafka, topic_prefix: str, database: str
) -> None:
    table = topics(topic_prefix)
    await provision(kafka.bootstrap, table.all())
    await migrated(database)
    held, pool = await asyncpg.connect(database), await open_pool(database)
    rejected = [a_rejection(row) for row in range(4)]
    await finished_run(held, rejected)
    async with Producer(kafka.bootstrap) as producer:
        await LetterPublisher(producer, table).dead_letter(rejected)

        async def checked(wait_s: float = 0) -> Report:
            group, topic = letters_app_id(topic_prefix), table.dead_letters.name
            unlisted = ledger.unlisted_letters(kafka.bootstrap, group=group, topic=topic)
            return await ledger.check(pool, wait_s=wait_s, unlisted=unlisted)

        waiting = await checked()
        async with letters_role(kafka, table, topic_prefix, database):
            through = await checked(wait_s=60)
        await held.execute("DELETE FROM dead_letters WHERE position = 'row 2'")
        lost = await checked(wait_s=60)

    assert (waiting.balanced, waiting.wrong) == (False, False)
    assert "0 letters are listed; " in waiting.findings[0].problem
    assert through.balanced
    problem = "4 records were rejected, 3 letters are listed"
    assert list(lost.findings) == [Finding(Hop.LETTERS, RUN, "acme", problem, unlisted=True)]
    assert lost.wrong
    unlisted = ledger.unlisted_letters("127.0.0.1:1", group="group", topic="topic")
    report = await ledger.check(pool, unlisted=unlisted)
    assert not report.wrong
    assert report.findings[0].problem == f"{problem}; whether it is on its way, Kafka does not say"
    await held.close()
    await close_pool(pool)
