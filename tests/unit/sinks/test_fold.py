"""The fold in Python: each rule by an example, and that nothing but the set of events decides."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.payment import MEANINGS, Kind, Status
from sinks.base import Record
from sinks.fold import event_row, fold
from tests.model.cases import CASES, Case
from tests.model.history import record, records


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fold_because(case: Case) -> None:
    state = fold(event_row(one) for one in case.records())

    assert {name: getattr(state, name) for name in case.expected} == case.expected


@given(st.lists(records(payments=1), min_size=1, max_size=12), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_neither_order_nor_repetition_changes_the_state(history: list[Record], chance) -> None:
    rows = [event_row(one) for one in history if one.payment.type == history[0].payment.type]
    shuffled = rows + chance.sample(rows, len(rows) // 2)
    chance.shuffle(shuffled)

    assert fold(shuffled) == fold(rows)


@pytest.mark.parametrize("status", Status)
def test_every_kind_of_event_stands_alone_as_its_kind_says(status: Status) -> None:
    meaning = MEANINGS[status]

    state = fold([event_row(record(status.value, 70, at=1))])

    expected = {
        Kind.SNAPSHOT: (status, 70, 70 if meaning.moved else 0, False),
        Kind.DELTA: (status, None, meaning.sign * 70, True),
        Kind.ABSOLUTE: (Status.UNKNOWN, None, 70, True),
        Kind.OVERLAY: (Status.UNKNOWN, None, 0, True),
    }
    assert (state.status, state.initial_amount, state.amount, state.awaiting_original) == expected[meaning.kind]


def test_three_events_in_every_order_come_to_one_state() -> None:
    history = [record("pending", at=1), record("succeeded", at=2), record("refunded", at=3)]

    states = {fold(event_row(one) for one in order) for order in itertools.permutations(history)}

    assert [state.status for state in states] == [Status.REFUNDED]
