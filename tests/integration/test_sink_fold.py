"""The statement's fold and the fold in Python are one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.payment import Status
from sinks.base import Record
from sinks.memory import MemorySink
from tests.model.cases import CASES, Case
from tests.model.harness import Harness, harness, temporary_database
from tests.model.history import PLACE, day, record, records
from tests.services import Postgres

RUNS = (UUID(int=1), UUID(int=2))


@pytest.fixture(scope="module")
def sink(postgres: Postgres) -> Iterator[Harness]:
    with temporary_database(postgres) as dsn, harness(dsn) as opened:
        yield opened


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(slices=st.lists(st.lists(records(runs=RUNS), min_size=1, max_size=12), min_size=1, max_size=4))
def test_payments_and_ledger_are_those_of_the_memory_sink_whatever_the_history_and_its_slices(
    sink: Harness, slices: Sequence[Sequence[Record]]
) -> None:
    sink.empty()
    twin = MemorySink()
    for slice_ in slices:
        actual = sink.run(sink.sink.apply(PLACE, slice_, next_offset=None))
        expected = sink.run(twin.apply(PLACE, slice_, next_offset=None))
        assert (actual.applied, actual.duplicate, actual.redelivered) == (
            expected.applied,
            expected.duplicate,
            expected.redelivered,
        )

    assert sink.payments() == twin.payments
    assert sink.ledger() == twin.ledger


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_statement_folds_because(sink: Harness, case: Case) -> None:
    sink.empty()
    sink.run(sink.sink.apply(PLACE, case.records(), next_offset=None))

    (state,) = sink.payments().values()

    assert {name: getattr(state, name) for name in case.expected} == case.expected


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_statement_folds_backwards_and_in_two_calls_because(sink: Harness, case: Case) -> None:
    sink.empty()
    backwards = list(case.records())[::-1]
    for part in (backwards[: len(backwards) // 2], backwards[len(backwards) // 2 :]):
        sink.run(sink.sink.apply(PLACE, part, next_offset=None))

    (state,) = sink.payments().values()

    assert {name: getattr(state, name) for name in case.expected} == case.expected


@pytest.mark.parametrize(
    ("before", "then", "column", "expected"),
    [
        ([record("refunded", 5, at=1)], record("refunded", 5, at=2, revision=1), "created_at", day(2)),
        ([record("refunded", 5, at=1)], record("refunded", 6, at=1, revision=1), "amount", 94),
        ([record("refunded", 5, at=1)], record("refunded", 5, at=1, asset="EUR", revision=1), "amount", 100),
        ([record("dispute", at=1)], record("dispute", at=1, asset="EUR", revision=1), "asset_mismatch", True),
        ([record("dispute", at=1)], record("dispute_won", at=1), "dispute", Status.DISPUTE_WON),
        ([], record("succeeded", at=5, scheme="visa", revision=1), "scheme", "visa"),
        ([], record("succeeded", at=5, asset="EUR", revision=1), "asset", "EUR"),
        ([record("refunded", 100, at=1)], record("refunded", 101, at=1, revision=1), "over_refund", True),
    ],
)
def test_a_correction_that_changes_one_column_is_stored(
    sink: Harness, before: list[Record], then: Record, column: str, expected: object
) -> None:
    sink.empty()
    for slice_ in ([record("succeeded", 100, at=5), *before], [then]):
        sink.run(sink.sink.apply(PLACE, slice_, next_offset=None))

    (state,) = sink.payments().values()

    assert getattr(state, column) == expected
