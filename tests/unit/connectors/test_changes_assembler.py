from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.changes import catalog
from connectors.changes.assembler import Assembler, Readers
from connectors.changes.catalog import TableColumn, TableFacts
from connectors.changes.decoder import UNCHANGED, Column, Value
from connectors.changes.identifier import TableName
from connectors.changes.option import OnDelete
from connectors.changes.place import Origin, Place, Seen
from connectors.mapping import RecordConfig, RecordMapper
from connectors.source import Batch
from schemas.errors import SourceMisconfigured
from schemas.payment import Status
from tests.unit.connectors import change_messages as wire

ID = 16_391
OTHER = 99
NAME = TableName("public", "payments")
COLUMNS = [
    Column("id", wire.BIGINT, True),
    Column("reference", wire.TEXT, False),
    Column("status", wire.TEXT, False),
    Column("amount", wire.NUMERIC, False),
    Column("effective_at", wire.TIMESTAMPTZ, False),
    Column("note", wire.TEXT, False),
]
CONFIG = RecordConfig(type="payin", asset="EUR")
ORIGIN = Origin("7", 1, 5)
NOTHING_NEW = timedelta()


def facts(key: Sequence[str] = ("id",)) -> TableFacts:
    columns = [TableColumn(each.name, each.type_oid, "text", True) for each in COLUMNS]
    return TableFacts(NAME, ID, columns, key, "d", True, False)


def readers(config: RecordConfig = CONFIG, table: TableFacts | None = None) -> Readers:
    return Readers([table or facts()], config, {str(NAME): RecordMapper(config.rules, source_object=str(NAME))}, {})


def assembler(place: Place | None = None, on_delete: OnDelete = OnDelete.IGNORE, **given: Any) -> Assembler:
    return Assembler(place or Place(ORIGIN, "till", 0), readers(**given), on_delete)


def row(number: int, status: str = "succeeded", amount: str = "100", note: Value = None) -> list[Value]:
    return [str(number), f"p-{number}", status, amount, "2026-01-02 03:04:05.678901+00", note]


def described(identity: str = "d", name: str = "payments", columns: Sequence[Column] = COLUMNS) -> bytes:
    return wire.relation(ID, name, columns, identity=identity)


def transaction(lsn: int, *changes: bytes, at: datetime = wire.AT, xid: int = 700) -> list[bytes]:
    return [wire.begin(lsn, at=at, xid=xid), described(), *changes, wire.commit(lsn, lsn + 48, at=at)]


def taken(subject: Assembler, messages: Sequence[bytes]) -> Batch:
    for message in messages:
        assert subject.take(message) is None
    return subject.gathered.batch(subject.place.cursor())


def found(batch: Batch) -> list[tuple[str, str]]:
    return [(record.position, record.payment.reference) for record in batch.records]


def test_a_change_has_a_position_and_a_revision_of_its_own() -> None:
    batch = taken(assembler(), transaction(0x1_0000_0010, wire.insert(ID, row(1)), wire.update(ID, row(2))))

    assert found(batch) == [("1/10/1", "p-1"), ("1/10/2", "p-2")]
    assert [record.revision for record in batch.records] == [(wire.AT, 0x1_0000_0011), (wire.AT, 0x1_0000_0012)]
    assert batch.records[0].payment.effective_at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert batch.records[0].headers == {"table": "public.payments"}


def test_a_transaction_that_is_done_is_passed_over() -> None:
    subject = assembler(Place(ORIGIN, "till", done=248))

    batch = taken(subject, transaction(200, wire.insert(ID, row(1))) + transaction(248, wire.insert(ID, row(2))))

    assert found(batch) == [("0/F8/1", "p-2")]
    assert batch.read == 1


def test_the_place_moves_past_a_transaction_only_with_its_commit() -> None:
    subject = assembler(Place(ORIGIN, "till", done=100))
    began, relation, change, ended = transaction(200, wire.insert(ID, row(1)))

    for message in (began, relation, change):
        subject.take(message)
    inside = Place.of(subject.place.cursor())
    subject.take(ended)

    assert (inside.done, inside.transaction, inside.index) == (100, 200, 1)
    assert (subject.place.done, subject.place.transaction, subject.place.index) == (248, 0, 0)


@given(st.lists(st.sampled_from("iudtf"), min_size=1, max_size=8), st.data())
def test_reading_goes_on_at_every_change_of_a_transaction(kinds: list[str], draw: st.DataObject) -> None:
    changes = {
        "i": wire.insert(ID, row(1)),
        "u": wire.update(ID, row(2)),
        "d": wire.delete(ID, row(3)),
        "t": wire.truncate(ID, OTHER),
        "f": wire.insert(OTHER, ["1"]),
    }
    foreign = wire.relation(OTHER, "others", [Column("id", wire.BIGINT, True)])
    messages = [foreign, *transaction(200, *(changes[kind] for kind in kinds))]
    whole = taken(assembler(on_delete=OnDelete.REJECT), messages)
    cut = draw.draw(st.integers(0, len(messages)))

    first = assembler(on_delete=OnDelete.REJECT)
    before = taken(first, messages[:cut])
    after = taken(assembler(Place.of(before.cursor), OnDelete.REJECT), messages)

    assert [*before.records, *after.records] == whole.records
    assert [*before.rejections, *after.rejections] == whole.rejections
    assert Place.of(after.cursor) == Place.of(whole.cursor)


def test_a_table_that_is_not_wanted_counts_its_changes_and_is_not_read() -> None:
    foreign = wire.relation(OTHER, "others", [Column("id", wire.BIGINT, True)])
    messages = [foreign, *transaction(16, wire.insert(OTHER, ["1"]), wire.insert(ID, row(1)))]

    batch = taken(assembler(), messages)

    assert found(batch) == [("0/10/2", "p-1")]
    assert batch.read == 1


def test_a_renamed_table_is_still_read() -> None:
    messages = [wire.begin(16), described(name="former"), wire.insert(ID, row(1)), wire.commit(16, 20)]

    assert found(taken(assembler(), messages)) == [("0/10/1", "p-1")]


def test_a_deletion_counts_as_filtered_by_default() -> None:
    batch = taken(assembler(), transaction(16, wire.delete(ID, row(1))))

    assert (batch.filtered, batch.read) == (1, 1)


def test_a_deletion_is_a_dead_letter_where_that_is_wanted() -> None:
    batch = taken(assembler(on_delete=OnDelete.REJECT), transaction(16, wire.delete(ID, ["7", *[None] * 5])))

    (rejection,) = batch.rejections
    assert (rejection.position, rejection.reason) == ("0/10/1", "deleted")
    assert b'"id":"7"' in rejection.raw


def test_a_deletion_cancels_the_payment_where_that_is_wanted() -> None:
    began, _, change, ended = transaction(16, wire.delete(ID, row(1), kind=b"O"))

    batch = taken(assembler(on_delete=OnDelete.CANCEL), [began, described("f"), change, ended])

    (record,) = batch.records
    assert (record.payment.reference, record.payment.status) == ("p-1", Status.CANCELLED)
    assert record.payment.effective_at == wire.AT


def test_it_is_a_dead_letter_where_only_the_key_is_known() -> None:
    batch = taken(assembler(on_delete=OnDelete.CANCEL), transaction(16, wire.delete(ID, ["7", *[None] * 5])))

    assert [rejection.reason for rejection in batch.rejections] == ["deleted"]


def test_an_emptied_table_is_a_dead_letter() -> None:
    batch = taken(assembler(), transaction(16, wire.insert(ID, row(1)), wire.truncate(ID)))

    (rejection,) = batch.rejections
    assert (rejection.position, rejection.reason) == ("0/10/2", "truncated")


def test_a_row_that_does_not_fit_is_a_dead_letter_with_all_of_it() -> None:
    batch = taken(assembler(), transaction(16, wire.insert(ID, row(1, amount="NaN", note="ü"))))

    (rejection,) = batch.rejections
    assert rejection.reason == "invalid_amount"
    assert rejection.raw.decode() == (
        '{"id":"1","reference":"p-1","status":"succeeded","amount":"NaN",'
        '"effective_at":"2026-01-02 03:04:05.678901+00","note":"ü"}'
    )


def test_a_value_that_was_not_sent_does_not_matter_where_nobody_asks_for_it() -> None:
    batch = taken(assembler(), transaction(16, wire.update(ID, row(1, note=UNCHANGED))))

    assert found(batch) == [("0/10/1", "p-1")]


def test_it_is_taken_from_the_old_row_where_all_of_that_was_sent() -> None:
    config = CONFIG.model_copy(update={"headers": {"note": "note"}})
    change = wire.update(ID, row(1, note=UNCHANGED), row(1, note="long"))

    batch = taken(assembler(config=config), [wire.begin(16), described("f"), change, wire.commit(16, 20)])

    assert batch.records[0].headers == {"table": "public.payments", "note": "long"}


def test_otherwise_it_is_asked_for() -> None:
    subject = assembler(config=CONFIG.model_copy(update={"headers": {"note": "note"}}))
    began, relation, change, _ = transaction(16, wire.update(ID, row(1, note=UNCHANGED)))
    assert subject.take(began) is subject.take(relation) is None

    incomplete = subject.take(change)

    assert incomplete is not None
    subject.complete(incomplete, {"note": "now"})
    batch = subject.gathered.batch({})
    assert batch.records[0].headers == {"table": "public.payments", "note": "now"}


def test_and_the_record_is_a_dead_letter_where_the_row_is_gone() -> None:
    subject = assembler(config=CONFIG.model_copy(update={"headers": {"note": "note"}}))
    began, relation, change, _ = transaction(16, wire.update(ID, row(1, note=UNCHANGED)))
    assert subject.take(began) is subject.take(relation) is None
    incomplete = subject.take(change)
    assert incomplete is not None

    subject.complete(incomplete, None)

    (rejection,) = subject.gathered.batch({}).rejections
    assert rejection.reason == "unchanged_value"
    assert b'"reference":"p-1"' in rejection.raw


def test_a_change_that_a_copy_lacks_is_newer_than_the_copy_whatever_the_clock_said() -> None:
    copy = Seen("700:705:702", 300, wire.AT + timedelta(seconds=5))
    messages = [
        *transaction(100, wire.insert(ID, row(1)), xid=701),
        *transaction(200, wire.insert(ID, row(2)), xid=702),
        *transaction(400, wire.insert(ID, row(3)), xid=800),
    ]

    batch = taken(assembler(Place(ORIGIN, "till", 0, seen=[copy])), messages)

    seen, running, after = [record.revision.at for record in batch.records if record.revision]
    assert seen < copy.copied_at < running == after


@pytest.mark.parametrize("gone", ["reference", "amount", "note"])
def test_a_table_that_lost_a_column_stops_the_connector(gone: str) -> None:
    config = CONFIG.model_copy(update={"headers": {"note": "note"}})
    columns = [column for column in COLUMNS if column.name != gone]

    with pytest.raises(SourceMisconfigured, match=gone):
        taken(assembler(config=config), [wire.begin(16), described(columns=columns)])


def test_a_column_more_changes_nothing() -> None:
    columns = [*COLUMNS, Column("extra", wire.TEXT, False)]
    messages = [wire.begin(16), described(columns=columns), wire.insert(ID, [*row(1), "x"]), wire.commit(16, 20)]

    assert found(taken(assembler(), messages)) == [("0/10/1", "p-1")]


def test_a_message_that_nobody_understands_stops_the_connector() -> None:
    with pytest.raises(SourceMisconfigured, match="pgoutput"):
        assembler().take(b"S\x00\x00")


def test_a_delta_without_a_reference_has_its_rows_key_as_identity_wherever_it_comes_from() -> None:
    config = RecordConfig(
        type="payin", asset="EUR", identity="position", columns={"parent_reference": "reference", "reference": ""}
    )
    refund = row(7, status="refunded")

    first = taken(assembler(config=config), transaction(16, wire.insert(ID, refund)))
    again = taken(
        assembler(config=config), transaction(99, wire.update(ID, refund), wire.insert(ID, row(8, "refunded")))
    )

    own = [record.payment.reference for record in (*first.records, *again.records)]
    assert own[0] == own[1] != own[2]


def test_without_a_key_there_is_no_such_identity() -> None:
    config = RecordConfig(type="payin", asset="EUR", identity="position")

    with pytest.raises(SourceMisconfigured, match="primary key"):
        taken(assembler(config=config, table=facts(key=())), [wire.begin(16), described()])


def test_types_are_read_from_their_text_form() -> None:
    columns = [
        Column("id", wire.BIGINT, True),
        Column("reference", catalog.BPCHAR, False),
        Column("status", wire.TEXT, False),
        Column("amount", wire.NUMERIC, False),
        Column("settled", catalog.BOOL, False),
        Column("meta", wire.JSONB, False),
        Column("at", 70_001, False),  # a domain over timestamptz
    ]
    config = RecordConfig(
        type="payin", asset="EUR", amount_unit="major", columns={"effective_at": "at"},
        headers={"settled": "settled", "fee": "$.meta.fee"}, raw="record",
    )  # fmt: skip
    made = Readers([facts()], config, {str(NAME): RecordMapper(config.rules)}, {70_001: wire.TIMESTAMPTZ})
    values: list[Value] = ["1", "p-1  ", "succeeded", "12.50", "t", '{"fee": 0.10}', "2026-01-02 03:04:05+00"]
    subject = Assembler(Place(ORIGIN, "till", 0), made, OnDelete.IGNORE)

    batch = taken(subject, [wire.begin(16), described(columns=columns), wire.insert(ID, values), wire.commit(16, 20)])

    (record,) = batch.records
    assert (record.payment.reference, record.payment.amount) == ("p-1", 1_250)
    assert record.payment.effective_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert record.headers == {"table": "public.payments", "settled": "true", "fee": "0.10"}
    assert record.payment.raw is not None
    assert '"meta":{"fee":0.10}' in record.payment.raw


@pytest.mark.parametrize("at", ["infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "300000-01-01 00:00:00+00"])
def test_an_instant_that_is_none_is_a_dead_letter(at: str) -> None:
    values = row(1)
    values[4] = at

    batch = taken(assembler(), transaction(16, wire.insert(ID, values)))

    assert [rejection.reason for rejection in batch.rejections] == ["invalid_instant"]
