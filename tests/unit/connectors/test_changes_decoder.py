from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.changes import decoder
from connectors.changes.decoder import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    Message,
    Other,
    Relation,
    Truncate,
    Undecodable,
    Update,
    decode,
)
from tests.unit.connectors import change_messages as wire

RECORDED = Path(__file__).parent / "golden" / "changes.json"
BIG = "x" * 20_000  # stands for … in the recording
PAYMENT, FULL = 16_391, 16_399
REST = ["2026-01-02 03:04:05.678901+00", '{"a": [1, null]}', "\\x00ff", '{"x,y",NULL,z}']
KEY_OF_2 = ["2", *[None] * 8]

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
values = st.one_of(st.none(), st.just(UNCHANGED), texts)
rows = st.lists(values, max_size=12)
identifiers = st.integers(0, 2**32 - 1)
lsns = st.integers(0, 2**64 - 1)
BOUNDS = datetime(1971, 1, 1), datetime(9000, 1, 1)  # noqa: DTZ001 hypothesis wants them without a zone
instants = st.datetimes(*BOUNDS, timezones=st.just(UTC))


def recorded() -> list[bytes]:
    return [bytes.fromhex(line.replace("…", "78" * len(BIG))) for line in json.loads(RECORDED.read_text())]


def said(message: Message) -> object:
    """Without what differs from one recording to the next."""
    return type(message) if isinstance(message, Begin | Commit) else message


def test_what_postgresql_18_sent_is_understood() -> None:
    payment = Relation(
        PAYMENT,
        "sales",
        "payment",
        "d",
        (
            Column("id", 20, True),
            Column("reference", 25, False),
            Column("amount", 1_700, False),
            Column("at", 1_184, False),
            Column("meta", 3_802, False),
            Column("blob", 17, False),
            Column("tags", 1_009, False),
            Column("big", 25, False),
            Column("feeling", 16_387, False),
        ),
    )
    full = Relation(FULL, "sales", "full_one", "f", (Column("a", 23, True), Column("b", 25, True)))
    transactions: list[list[Message]] = [
        [Other("Y"), payment, Insert(PAYMENT, ["1", "päy 1 'q'", "12.500", *REST, BIG, "happy"])],
        [Update(PAYMENT, None, ["1", None, "-0.1", *REST, UNCHANGED, "happy"])],
        [Update(PAYMENT, ["1", *[None] * 8], ["2", None, "-0.1", *REST, UNCHANGED, "happy"])],
        [Delete(PAYMENT, KEY_OF_2)],
        [full, Insert(FULL, ["1", None])],
        [Update(FULL, ["1", None], ["1", ""])],
        [Delete(FULL, ["1", ""])],
        [Other("M")],
        [Other("Y"), payment, full, Truncate((PAYMENT, FULL))],
    ]

    understood = [said(decode(data)) for data in recorded()]

    assert understood == [item for messages in transactions for item in (Begin, *messages, Commit)]


def test_a_transactions_place_and_time_are_postgresqls() -> None:
    began, ended = decode(recorded()[0]), decode(recorded()[4])

    assert isinstance(began, Begin)
    assert isinstance(ended, Commit)
    assert began.commit_lsn == ended.commit_lsn < ended.end_lsn
    assert began.committed_at == ended.committed_at
    assert began.committed_at.tzinfo is UTC


@given(identifiers, rows, st.none() | rows)
def test_every_row_survives_the_way_there_and_back(
    identifier: int, new: list[decoder.Value], old: list[decoder.Value] | None
) -> None:
    assert decode(wire.insert(identifier, new)) == Insert(identifier, new)
    assert decode(wire.update(identifier, new, old)) == Update(identifier, old, new)
    assert decode(wire.delete(identifier, new)) == Delete(identifier, new)


@given(lsns, lsns, instants, identifiers)
def test_every_transaction_survives_it(commit_lsn: int, end_lsn: int, at: datetime, xid: int) -> None:
    assert decode(wire.begin(commit_lsn, at=at, xid=xid)) == Begin(commit_lsn, at, xid)
    assert decode(wire.commit(commit_lsn, end_lsn, at=at)) == Commit(commit_lsn, end_lsn, at)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused_and_nothing_else_happens(data: bytes) -> None:
    try:
        decode(data)
    except Undecodable:
        return


@given(st.sampled_from(recorded()), st.data())
def test_a_message_that_was_cut_off_is_refused(data: bytes, draw: st.DataObject) -> None:
    if chr(data[0]) in "YOM":  # says nothing about rows
        return
    end = draw.draw(st.integers(0, len(data) - 1))

    with pytest.raises(Undecodable):
        decode(data[:end])


def test_a_value_in_binary_form_is_refused() -> None:
    message = wire.insert(1, ["7"]).replace(b"t\x00\x00\x00\x01", b"b\x00\x00\x00\x01")

    with pytest.raises(Undecodable, match="0x62"):
        decode(message)
