"""Nothing but the set of events decides: shuffled, repeated, cut anywhere, the tables hash to the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from schemas.payment import MEANINGS, Kind, Status
from sinks.base import Place, Record
from sinks.fold import event_row, fold
from sinks.hash import TableHash, table_hash
from sinks.ledger import verify
from tests.model.harness import Harness, harness, temporary_database
from tests.model.history import PLACE, record
from tests.services import Postgres

PAYMENTS, EVENTS = 60, 900


@pytest.fixture(scope="module")
def sink(postgres: Postgres) -> Iterator[Harness]:
    with temporary_database(postgres) as dsn, harness(dsn, pool_size=4) as opened:
        yield opened


def history() -> list[Record]:
    """Lives of some payments: every kind of event, some undated, some told by several files, some corrected."""
    chance = random.Random(20_260_101)
    made = []
    for number in range(EVENTS):
        status = chance.choice(list(Status))
        parent = f"p{chance.randrange(PAYMENTS)}"
        delta = MEANINGS[status].kind is Kind.DELTA
        made.append(
            record(
                status.value,
                chance.choice([30, 70, 100]),
                reference=f"{parent}-{chance.randrange(3)}" if delta else parent,
                parent=parent if delta else None,
                at=chance.choice([None, *range(1, 9)]),
                revision=chance.randrange(4),
                asset=chance.choice(["INR/2"] * 9 + ["USD"]),
                scheme=chance.choice(["", "visa", "upi"]),
                raw=chance.choice([None, f"{number},row"]),
                event_id=f"event-{number}",
            )
        )
    return made


def slices_of(records: list[Record], chance: random.Random) -> list[list[Record]]:
    cuts = sorted({0, len(records), *(chance.randrange(len(records)) for _ in range(chance.choice([1, 5, 40])))})
    return [records[start:end] for start, end in pairwise(cuts)]


def ingested(sink: Harness, records: list[Record], chance: random.Random) -> TableHash:
    sink.empty()
    for slice_ in slices_of(records, chance):
        sink.run(sink.sink.apply(PLACE, slice_, next_offset=None))
    assert sink.run(verify(sink.sink.pool)) == []
    return sink.run(table_hash(sink.sink.pool))


def test_four_shuffles_of_one_history_with_duplicates_come_to_one_hash(sink: Harness) -> None:
    records = history()
    hashes = set()
    for seed in range(4):
        chance = random.Random(seed)
        shuffled = records + chance.choices(records, k=EVENTS // 3)
        chance.shuffle(shuffled)
        hashes.add(ingested(sink, shuffled, chance))

    assert len(hashes) == 1
    states = {}
    for row in map(event_row, records):
        states.setdefault(row.payment, []).append(row)
    assert sink.payments() == {payment: fold(rows) for payment, rows in states.items()}


def test_partitions_side_by_side_come_to_the_hash_of_one_after_the_other(sink: Harness) -> None:
    records = history()
    expected = ingested(sink, records, random.Random(1))
    sink.empty()
    partitions: list[list[Record]] = [[] for _ in range(4)]
    for one in records:
        partitions[event_row(one).payment[0] % 4].append(one)

    async def consume(number: int) -> None:
        for slice_ in slices_of(partitions[number], random.Random(number)):
            await sink.sink.apply(Place(PLACE.topic, number), slice_, next_offset=None)

    async def all_at_once() -> None:
        await asyncio.gather(*map(consume, range(4)))

    sink.run(all_at_once())

    assert sink.run(table_hash(sink.sink.pool)) == expected


@pytest.mark.parametrize(
    "changed", ["amount = amount + 1", "status = status || 'x'", "dispute = 'x'", "over_refund = NOT over_refund"]
)
def test_the_hash_sees_every_change_of_business(sink: Harness, changed: str) -> None:
    before = ingested(sink, history()[:50], random.Random(0))

    async def change() -> None:
        await sink.sink.pool.execute(
            f"UPDATE payments SET {changed} WHERE ordinal = (SELECT min(ordinal) FROM payments)"
        )

    sink.run(change())

    assert sink.run(table_hash(sink.sink.pool)) != before
