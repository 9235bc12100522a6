from __future__ import annotations

from uuid import UUID

from sinks.base import Place
from sinks.prepared import prepare, storable
from tests.model.history import PLACE, RUN, record

SECOND_RUN, THIRD_RUN = UUID(int=2), UUID(int=3)


def test_nothing_prepares_to_nothing() -> None:
    prepared = prepare([])

    assert (prepared.waves, prepared.dead, prepared.records, prepared.dead_records) == ((), None, 0, 0)


def test_an_event_stands_once_in_a_wave_and_once_for_each_run() -> None:
    runs = (RUN, SECOND_RUN, RUN, THIRD_RUN, SECOND_RUN)
    slice_ = [*(record("succeeded", event_id="e", run=run) for run in runs), record("failed", event_id="f")]

    prepared = prepare(slice_)

    assert [len(wave.rows[0]) for wave in prepared.waves] == [2, 1, 1]
    assert prepared.records == 6


def test_what_records_share_is_said_once() -> None:
    (wave,) = prepare([record("succeeded", reference=f"r{number}", path="a.csv") for number in range(100)]).waves

    assert len(wave.batches) == 1


def test_origins_of_one_content_differ_by_path_and_partition() -> None:
    (wave,) = prepare([record("succeeded", path=path) for path in ("a", "b", "a")]).waves

    here, there = (wave.parameters(place)[4] for place in (PLACE, Place(PLACE.topic, 1)))

    assert len({*here, *there}) == 4


def test_text_that_postgres_cannot_hold_is_spelled_out() -> None:
    assert storable("a\x00b\ud800ü") == "a\\x00b\\ud800ü"
