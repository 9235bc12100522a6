"""What every sink owes the delivery core: the one in PostgreSQL, and its twin in memory that others test with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from sinks.base import Applied, Dead, Place, Sink
from sinks.memory import MemorySink
from sinks.migrate import migrate
from sinks.postgres import PostgresSink
from tests.model.history import PLACE, RUN, record

SECOND_RUN = UUID(int=2)
OTHER_PLACE = Place(PLACE.topic, 1)


def dead(event_id: str, run: UUID = RUN) -> Dead:
    return Dead(event_id, run, 7, f"letter of {event_id}", "invalid_amount")


class SinkConformance:
    """Inherited by a class that has a fixture `sink`."""

    async def test_a_new_fact_is_applied_once_and_redelivered_ever_after(self, sink: Sink) -> None:
        fact = record("succeeded")

        outcomes = [await sink.apply(PLACE, [fact], next_offset=1) for _ in range(3)]

        assert outcomes == [Applied(applied=1), Applied(redelivered=1), Applied(redelivered=1)]

    async def test_the_same_fact_under_another_event_id_is_a_duplicate(self, sink: Sink) -> None:
        await sink.apply(PLACE, [record("succeeded")], next_offset=1)

        assert await sink.apply(PLACE, [record("succeeded")], next_offset=2) == Applied(duplicate=1)

    async def test_a_known_event_id_under_another_run_is_that_runs_duplicate_once(self, sink: Sink) -> None:
        await sink.apply(PLACE, [record("succeeded", event_id="e")], next_offset=1)
        again = record("succeeded", event_id="e", run=SECOND_RUN)

        assert await sink.apply(PLACE, [again], next_offset=2) == Applied(duplicate=1)
        assert await sink.apply(PLACE, [again], next_offset=2) == Applied(redelivered=1)

    async def test_the_same_event_twice_in_a_slice_counts_once(self, sink: Sink) -> None:
        fact = record("succeeded", event_id="e")

        assert await sink.apply(PLACE, [fact, fact, fact], next_offset=3) == Applied(applied=1, redelivered=2)

    async def test_one_event_of_two_runs_in_a_slice_is_applied_for_the_first_and_a_duplicate_of_the_second(
        self, sink: Sink
    ) -> None:
        slice_ = [record("succeeded", event_id="e", run=run) for run in (RUN, SECOND_RUN, RUN, SECOND_RUN)]

        assert await sink.apply(PLACE, slice_, next_offset=4) == Applied(applied=1, duplicate=1, redelivered=2)
        assert await sink.is_counted(RUN, "e")
        assert await sink.is_counted(SECOND_RUN, "e")

    async def test_one_key_twice_in_a_slice_is_applied_for_the_first_and_a_duplicate_for_the_second(
        self, sink: Sink
    ) -> None:
        slice_ = [record("succeeded", run=RUN), record("succeeded", run=SECOND_RUN)]

        assert await sink.apply(PLACE, slice_, next_offset=2) == Applied(applied=1, duplicate=1)

    async def test_one_key_may_stand_in_two_payments(self, sink: Sink) -> None:
        slice_ = [record("succeeded", reference="a"), record("succeeded", reference="b")]

        assert await sink.apply(PLACE, slice_, next_offset=2) == Applied(applied=2)

    async def test_a_dead_record_counts_once_in_its_run(self, sink: Sink) -> None:
        outcomes = [await sink.apply(PLACE, [], [dead("d"), dead("d")], next_offset=1) for _ in range(2)]
        outcomes.append(await sink.apply(PLACE, [], [dead("d", SECOND_RUN)], next_offset=1))

        assert outcomes == [Applied(dead=1, redelivered=1), Applied(redelivered=2), Applied(dead=1)]

    async def test_a_pair_counted_dead_is_not_applied_later_and_one_of_another_run_is(self, sink: Sink) -> None:
        await sink.apply(PLACE, [], [dead("e")], next_offset=1)

        assert await sink.apply(PLACE, [record("succeeded", event_id="e")], next_offset=1) == Applied(redelivered=1)
        redriven = record("succeeded", event_id="e", run=SECOND_RUN)
        assert await sink.apply(PLACE, [redriven], next_offset=2) == Applied(applied=1)

    async def test_a_pair_counted_already_is_not_counted_dead(self, sink: Sink) -> None:
        await sink.apply(PLACE, [record("succeeded", event_id="e")], next_offset=1)
        await sink.apply(PLACE, [record("succeeded", event_id="e", run=SECOND_RUN)], next_offset=2)

        assert await sink.apply(PLACE, [], [dead("e"), dead("e", SECOND_RUN)], next_offset=3) == Applied(redelivered=2)

    async def test_records_and_dead_of_one_slice_are_one_call(self, sink: Sink) -> None:
        slice_ = [record("succeeded", reference="a", event_id="a"), record("failed", reference="b", event_id="b")]

        assert await sink.apply(PLACE, slice_, [dead("c"), dead("a")], next_offset=4) == Applied(
            applied=2, dead=1, redelivered=1
        )

    async def test_is_counted_tells_pairs_apart(self, sink: Sink) -> None:
        await sink.apply(PLACE, [record("succeeded", event_id="e")], [dead("d")], next_offset=1)

        found = [await sink.is_counted(run, event) for run in (RUN, SECOND_RUN) for event in ("e", "d", "x")]

        assert found == [True, True, False, False, False, False]

    async def test_the_next_offset_only_moves_forward(self, sink: Sink) -> None:
        for offset in (5, 3, None, 7, 6):
            await sink.apply(PLACE, [record("succeeded")], next_offset=offset)
        await sink.apply(OTHER_PLACE, [], next_offset=2)
        await sink.apply(Place("other", 0), [], [dead("x")], next_offset=9)

        assert dict(await sink.next_offsets(PLACE.topic)) == {0: 7, 1: 2}
        assert dict(await sink.next_offsets("other")) == {0: 9}
        assert dict(await sink.next_offsets("unknown")) == {}

    async def test_a_call_without_anything_is_nothing(self, sink: Sink) -> None:
        assert await sink.apply(PLACE, [], next_offset=None) == Applied()
        assert dict(await sink.next_offsets(PLACE.topic)) == {}

    async def test_applied_but_not_the_state_when_it_arrived_is_stale(self, sink: Sink) -> None:
        await sink.apply(PLACE, [record("succeeded", at=5)], next_offset=1)

        assert await sink.apply(PLACE, [record("pending", at=1)], next_offset=2) == Applied(applied=1, stale=1)
        assert await sink.apply(PLACE, [record("settled", at=6)], next_offset=3) == Applied(applied=1)

    async def test_stale_is_told_record_by_record_within_a_slice_too(self, sink: Sink) -> None:
        slice_ = [
            record("pending", at=1),
            record("succeeded", at=5),
            record("authorised", at=2),
            record("failed"),
            record("settled"),
            record("dispute", at=0),
            record("adjusted", at=0),
            record("captured", at=6),
            record("refunded", at=7),
        ]

        # Late: authorised, failed (its rank is below succeeded's), captured (the undated settled is above it).
        assert await sink.apply(PLACE, slice_, next_offset=9) == Applied(applied=9, stale=3)

    async def test_of_a_dated_and_an_undated_adjustment_of_one_rank_the_undated_one_is_stale(self, sink: Sink) -> None:
        dated_last = [record("succeeded", reference="a"), record("succeeded", reference="a", at=1)]
        dated_first = [record("succeeded", reference="b", at=1), record("succeeded", reference="b")]

        assert await sink.apply(PLACE, dated_last, next_offset=2) == Applied(applied=2, stale=0)
        assert await sink.apply(PLACE, dated_first, next_offset=4) == Applied(applied=2, stale=1)

    async def test_events_without_lineage_are_ordered_by_their_own_time(self, sink: Sink) -> None:
        facts = [record("succeeded", reference=name) for name in "ab"]
        slice_ = [
            type(one)(one.event.model_copy(update={"lineage": None}), one.payment, one.event_id, RUN, 0)
            for one in facts
        ]

        assert await sink.apply(PLACE, slice_, next_offset=2) == Applied(applied=2)


class TestMemorySink(SinkConformance):
    @pytest.fixture
    def sink(self) -> MemorySink:
        return MemorySink()


class TestPostgresSink(SinkConformance):
    @pytest.fixture
    async def sink(self, database: str) -> AsyncIterator[PostgresSink]:
        await migrate(database)
        opened = await PostgresSink.open(database)
        yield opened
        await opened.close()
