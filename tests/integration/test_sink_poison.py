"""
What Python accepts and PostgreSQL does not: refused as data, so that bisecting finds it, or stored exactly.
Never changed in silence.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from schemas.checkpoint import Checkpoint
from schemas.codec import decode_payment_event, encode_event
from schemas.errors import RecordRejected, SinkRefused
from schemas.letter import DeadLetter, Stage
from sinks.base import Applied, Dead, Record
from sinks.hash import table_hash
from sinks.ledger import verify
from sinks.letters import LetterTable
from sinks.migrate import migrate
from sinks.mirror import CheckpointMirror
from sinks.postgres import PostgresSink
from sinks.read import list_payments, show_payment
from tests.model.history import CONNECTOR, PLACE, RUN, START, record


@pytest.fixture
async def sink(database: str) -> AsyncIterator[PostgresSink]:
    await migrate(database)
    opened = await PostgresSink.open(database)
    yield opened
    await opened.close()


def payment(**facts: Any) -> Record:
    """A record whose payment holds these values, unchecked: the sink must not rely on the schemas alone."""
    one = record("succeeded", reference="poison")
    return replace(one, payment=one.payment.model_copy(update=facts))


def lineage(**facts: Any) -> Record:
    one = record("succeeded", reference="poison")
    assert one.event.lineage is not None
    changed = one.event.lineage.model_copy(update=facts)
    return replace(one, event=one.event.model_copy(update={"lineage": changed}))


REFUSED: dict[str, Callable[[], Record]] = {
    "NUL in a reference": lambda: payment(reference="a\x00b"),
    "NUL in raw": lambda: payment(raw='{"a": "\x00"}'),
    "NUL in a scheme": lambda: payment(scheme="\x00"),
    "NUL in a path": lambda: lineage(path="in/\x00"),
    "NUL in an event id": lambda: replace(record("succeeded"), event_id="a\x00"),
    "lone surrogate in a reference": lambda: payment(reference="\ud800"),
    "lone surrogate in raw": lambda: payment(raw="\udfff"),
    "lone surrogate in a provider": lambda: payment(provider="\ud83d"),
    "lone surrogate in a position": lambda: lineage(position="\udc80"),
    "amount beyond 64 bits": lambda: payment(amount=2**63),
    "amount beyond 64 bits, negative": lambda: payment(amount=-(2**63) - 1),
    "amount as a fraction": lambda: payment(amount=Decimal("100.505")),
    "amount as a float": lambda: payment(amount=100.5),
    "amount that is not a number": lambda: payment(amount=float("nan")),
    "amount without end": lambda: payment(amount=Decimal("Infinity")),
    "amount as text": lambda: payment(amount="100"),
    "offset beyond 64 bits": lambda: replace(record("succeeded"), offset=2**63),
    "line beyond 32 bits": lambda: lineage(line=2**31),
    "revision beyond 64 bits": lambda: lineage(revision_seq=2**63),
    "instant without a zone": lambda: payment(effective_at=datetime(2026, 1, 1)),  # noqa: DTZ001
    "text where bytes are": lambda: payment(raw=b"bytes"),
}

KEPT: dict[str, Callable[[], Record]] = {
    "escaped NUL in raw": lambda: payment(raw=r'{"a": "\u0000"}'),
    "raw of 900 kB": lambda: payment(raw="x" * 900_000),
    "raw nested a hundred thousand deep": lambda: payment(raw="[" * 100_000 + "]" * 100_000),
    "raw with NaN and Infinity and 1e400": lambda: payment(raw='{"a": NaN, "b": Infinity, "c": 1e400}'),
    "raw with one key twice": lambda: payment(raw='{"a": 1, "a": 2}'),
    "empty raw": lambda: payment(raw=""),
    "reference of 255 characters of four bytes": lambda: payment(reference="😀" * 255),
    "reference of control characters": lambda: payment(reference="".join(map(chr, range(1, 32))) + "\x7f\x85\u2028"),
    "the greatest amount": lambda: payment(amount=2**63 - 1),
    "the least amount": lambda: payment(amount=-(2**63)),
    "year 1": lambda: payment(effective_at=datetime(1, 1, 1, tzinfo=UTC)),
    "the last microsecond of year 9999": lambda: payment(
        effective_at=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    ),
    "SQL in every text": lambda: payment(reference="'); DROP TABLE payments; --", scheme="$1", raw="{schema}"),
    "an array's text": lambda: payment(reference='{"a",NULL,b}', raw="NULL", scheme="{}"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_poison_is_refused_and_nothing_of_its_slice_is_stored(sink: PostgresSink, name: str) -> None:
    slice_ = [record("succeeded", reference="before"), REFUSED[name](), record("succeeded", reference="after")]

    with pytest.raises(SinkRefused):
        await sink.apply(PLACE, slice_, next_offset=3)

    assert (await list_payments(sink.pool)).payments == []
    assert dict(await sink.next_offsets(PLACE.topic)) == {}


@pytest.mark.parametrize("name", KEPT)
async def test_what_is_odd_but_storable_comes_back_exactly(sink: PostgresSink, name: str) -> None:
    odd = KEPT[name]()

    await sink.apply(PLACE, [odd], next_offset=1)

    (listed,) = (await list_payments(sink.pool)).payments
    shown = await show_payment(sink.pool, listed.payment.id)
    assert shown is not None
    (kept,) = shown.adjustments
    actual = (kept.reference, kept.amount, kept.effective_at, kept.scheme, kept.raw)
    expected = odd.payment
    assert actual == (expected.reference, expected.amount, expected.effective_at, expected.scheme, expected.raw)
    assert await verify(sink.pool) == []
    await table_hash(sink.pool)


async def test_a_connection_that_refused_poison_goes_on(sink: PostgresSink) -> None:
    for name, poison in REFUSED.items():
        with pytest.raises(SinkRefused):
            await sink.apply(PLACE, [poison()], next_offset=1)

        assert await sink.apply(PLACE, [record("succeeded", reference=name)], next_offset=1) == Applied(applied=1)


async def test_bisecting_a_thousand_records_finds_the_poison_and_keeps_the_rest(sink: PostgresSink) -> None:
    good = [record("succeeded", reference=f"good {number}") for number in range(1_000)]
    poison = [make() for make in list(REFUSED.values())[::3]]
    mixed = list(good)
    for index, one in enumerate(poison):
        mixed.insert(37 + 137 * index, one)
    refused: list[Record] = []

    async def bisect(records: list[Record]) -> int:
        try:
            return (await sink.apply(PLACE, records, next_offset=None)).applied
        except SinkRefused:
            if len(records) == 1:
                refused.extend(records)
                return 0
            middle = len(records) // 2
            return await bisect(records[:middle]) + await bisect(records[middle:])

    assert await bisect(mixed) == len(good)
    assert refused == poison
    assert await verify(sink.pool) == []


async def test_a_dead_record_is_counted_whatever_its_event_id_is_made_of(sink: PostgresSink) -> None:
    odd = [Dead(event_id, RUN, 1, "letter\x00", "\ud800") for event_id in ("a\x00b", "\udfff", "", "x" * 100_000)]

    assert await sink.apply(PLACE, [], odd, next_offset=5) == Applied(dead=4)
    assert await sink.apply(PLACE, [], odd, next_offset=5) == Applied(redelivered=4)


async def test_letters_and_checkpoints_are_kept_whatever_their_texts_are_made_of(sink: PostgresSink) -> None:
    odd = "a\x00b\ud800.csv"
    letter = DeadLetter.model_construct(
        id="l\x00", stage=Stage.SOURCE, reason=odd, message=odd, failed_at=START, event_id=odd, path=odd, position=odd
    )
    cursor = {"path": odd, "descriptor": odd}
    checkpoint = Checkpoint(
        connector_id=CONNECTOR,
        task="t\x00",
        run_id=RUN,
        epoch=1,
        seq=1,
        cursor=cursor,
        revision_at=START,
        updated_at=START,
    )

    await LetterTable(sink.pool).put(letter, partition=0, offset=0)
    await CheckpointMirror(sink.pool).mirror([checkpoint])

    assert await sink.pool.fetchval("SELECT path FROM dead_letters") == "a\\x00b\\ud800.csv"
    assert await sink.pool.fetchval("SELECT path FROM checkpoints") == "a\\x00b\\ud800.csv"


async def test_a_table_that_refuses_a_row_by_its_constraint_refuses_the_record(sink: PostgresSink) -> None:
    await sink.pool.execute("ALTER TABLE payments ADD CHECK (reference <> 'unwanted')")

    with pytest.raises(SinkRefused) as refused:
        await sink.apply(PLACE, [record("succeeded", reference="unwanted")], next_offset=1)

    assert refused.value.sqlstate == "23514"
    assert "unwanted" not in str(refused.value)


async def test_a_key_that_no_index_page_can_hold_is_refused(sink: PostgresSink) -> None:
    """Ours are hashes; a table may have gained an index of somebody's own."""
    await sink.pool.execute("CREATE INDEX ON payments (reference)")
    incompressible = "".join(chr(0x4E00 + UUID(int=number * 7919).int % 20_000) for number in range(4_000))

    with pytest.raises(SinkRefused) as refused:
        await sink.apply(PLACE, [payment(reference=incompressible)], next_offset=1)

    assert refused.value.sqlstate == "54000"


@pytest.mark.parametrize(
    "spelled",
    [
        '"amount": 1e3',
        '"amount": 100.0',
        '"amount": NaN',
        '"amount": Infinity',
        '"amount": "100"',
        '"amount": 9223372036854775808',
        '"effective_at": "+300000-01-01T00:00:00Z"',
        '"effective_at": "0000-01-01T00:00:00Z"',
        '"effective_at": "0001-01-01T00:00:00+01:00"',
        '"effective_at": "infinity"',
        '"effective_at": 1e400',
        '"reference": "\\ud800"',
        '"reference": "\\u0000"',
        '"reference": "' + "x" * 256 + '"',
        '"scheme": ' + "[" * 100_000 + "]" * 100_000,
    ],
)
def test_most_of_it_is_rejected_with_a_reason_before_any_sink_sees_it(spelled: str) -> None:
    name = spelled.split('"')[1]
    text = encode_event(record("succeeded", at=1).event).decode()  # type: ignore[arg-type]
    changed = re.sub(rf'"{name}":("[^"]*"|\d+)', lambda _: spelled, text, count=1)
    assert changed != text

    with pytest.raises(RecordRejected):
        decode_payment_event(changed.encode())
