from __future__ import annotations

from uuid import UUID

import pytest
from asyncpg import DataError
from msgspec import structs

from sinks.base import Place
from sinks.prepared import Preparation, prepare, storable
from tests.model.history import PLACE, RUN, record

SECOND_RUN, THIRD_RUN = UUID(int=2), UUID(int=3)


def test_nothing_prepares_to_nothing() -> None:
    prepared = prepare([])

    assert (prepared.waves, prepared.dead, prepared.records, prepared.dead_records) == ((), None, 0, 0)


def test_an_event_stands_once_in_a_wave_and_once_for_each_run() -> None:
    runs = (RUN, SECOND_RUN, RUN, THIRD_RUN, SECOND_RUN)
    slice_ = [*(record("succeeded", event_id="e", run=run) for run in runs), record("failed", event_id="f")]

    prepared = prepare(slice_)

    assert [wave.count for wave in prepared.waves] == [2, 1, 1]
    assert prepared.records == 6


def test_what_records_share_is_said_once() -> None:
    (wave,) = prepare([record("succeeded", reference=f"r{number}", path="a.csv") for number in range(100)]).waves

    assert len(wave.batches) == 1


def test_what_takes_few_values_is_said_once() -> None:
    statuses = ("succeeded", "failed", "succeeded", "pending")

    (wave,) = prepare([record(status, reference=f"r{number}") for number, status in enumerate(statuses * 20)]).waves

    assert [facet[0] for facet in wave.facets] == ["succeeded", "failed", "pending"]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3,), (0, 2, 1)])
def test_pieces_make_the_same_columns_as_the_whole(sizes: tuple[int, ...]) -> None:
    slice_ = [record("succeeded", event_id="e"), record("failed", event_id="e", run=SECOND_RUN), record("pending")]
    preparation, start = Preparation(), 0

    for size in sizes:
        preparation.add(slice_[start : start + size])
        preparation.encode()
        start += size

    assert preparation.ready() == slice_
    assert preparation.ready().waves == prepare(slice_).waves


def test_a_part_of_what_is_ready_is_prepared_anew() -> None:
    preparation = Preparation()
    preparation.add([record("succeeded", event_id=str(number)) for number in range(4)])

    (wave,) = prepare(preparation.ready()[:3]).waves

    assert wave.count == 3


def test_a_value_that_fits_no_column_is_refused_when_it_is_sent() -> None:
    good = record("succeeded")
    bad = structs.replace(good, payment=good.payment.model_copy(update={"amount": 1.5}), event_id="bad")

    (wave,) = prepare([good, bad]).waves

    with pytest.raises(DataError):
        wave.parameters(PLACE)


def test_origins_of_one_content_differ_by_path_and_partition() -> None:
    (wave,) = prepare([record("succeeded", path=path) for path in ("a", "b", "a")]).waves

    here, there = (wave.parameters(place)[4] for place in (PLACE, Place(PLACE.topic, 1)))

    assert len({*here, *there}) == 4


def test_text_that_postgres_cannot_hold_is_spelled_out() -> None:
    assert storable("a\x00b\ud800ü") == "a\\x00b\\ud800ü"
