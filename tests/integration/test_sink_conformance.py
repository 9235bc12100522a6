"""What every sink owes the delivery core: the one in PostgreSQL, and its twin in memory that others test with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from schemas.errors import EventIdReused
from schemas.identity import content_hash
from schemas.payment import PaymentType
from sinks.base import Applied, Dead, Place, Record, Sink
from sinks.memory import MemorySink
from sinks.migrate import migrate
from sinks.postgres import PostgresSink
from tests.model.history import PLACE, RUN, record

SECOND_RUN = UUID(int=2)
RUNS = (RUN, SECOND_RUN)
OTHER_PLACE = Place(PLACE.topic, 1)


def dead(event_id: str, run: UUID = RUN) -> Dead:
    return Dead(event_id, run, 7, f"letter of {event_id}", "invalid_amount")


def dead_of(one: Record) -> Dead:
    content = content_hash(one.payment)
    return Dead(one.event_id, one.run_id, one.offset, f"letter at {one.offset}", "event_id_reused", content)


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
        assert [await sink.is_counted(PLACE, one) for one in slice_] == [True] * 4

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

    async def test_a_record_counted_dead_is_not_applied_later_and_its_event_under_another_run_is(
        self, sink: Sink
    ) -> None:
        await sink.apply(PLACE, [], [dead("e")], next_offset=1)
        decodes_now = record("succeeded", event_id="e", offset=7)

        assert await sink.apply(PLACE, [decodes_now], next_offset=1) == Applied(redelivered=1)
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

    async def test_is_counted_tells_records_apart(self, sink: Sink) -> None:
        stored, again = record("succeeded", event_id="e"), record("succeeded", event_id="e", run=SECOND_RUN)
        refused = record("failed", event_id="r")
        await sink.apply(PLACE, [stored], [dead("d"), dead_of(refused)], next_offset=1)
        known = [stored, refused, record("succeeded", event_id="d", offset=7)]
        unknown = [
            again,
            record("failed", event_id="e"),
            record("pending", event_id="r"),
            record("failed", event_id="r", run=SECOND_RUN),
            record("succeeded", event_id="d", offset=8),
            record("succeeded", event_id="x"),
        ]

        assert [await sink.is_counted(PLACE, one) for one in known] == [True] * 3
        assert [await sink.is_counted(PLACE, one) for one in unknown] == [False] * 6
        assert not await sink.is_counted(OTHER_PLACE, known[-1])

    @pytest.mark.parametrize("run", [RUN, SECOND_RUN])
    async def test_another_record_under_a_known_event_id_is_named_and_nothing_of_its_slice_is_stored(
        self, sink: Sink, run: UUID
    ) -> None:
        await sink.apply(PLACE, [record("succeeded", event_id="e", offset=1)], next_offset=2)
        good = record("succeeded", reference="002", event_id="f", offset=2)
        other = record("succeeded", 99, event_id="e", run=run, offset=3)

        with pytest.raises(EventIdReused) as reused:
            await sink.apply(PLACE, [good, other], next_offset=4)

        assert reused.value.offsets == {3}
        assert dict(await sink.next_offsets(PLACE.topic)) == {0: 2}
        assert await sink.apply(PLACE, [good], [dead_of(other)], next_offset=4) == Applied(applied=1, dead=1)
        assert await sink.apply(PLACE, [good, other], next_offset=4) == Applied(redelivered=2)

    @pytest.mark.parametrize("runs", [(RUN, RUN), (RUN, SECOND_RUN)])
    async def test_of_two_records_of_one_event_id_in_a_slice_the_second_is_named(
        self, sink: Sink, runs: tuple[UUID, UUID]
    ) -> None:
        first = record("failed", event_id="e", run=runs[0], offset=8)
        other = record("pending", event_id="e", run=runs[1], offset=9)

        with pytest.raises(EventIdReused) as reused:
            await sink.apply(PLACE, [first, other], next_offset=10)

        assert reused.value.offsets == {9}
        assert await sink.apply(PLACE, [first], [dead_of(other)], next_offset=10) == Applied(applied=1, dead=1)

    async def test_every_further_record_of_an_event_id_dies_for_itself(self, sink: Sink) -> None:
        first, *others = (record("captured", amount, event_id="e", offset=amount) for amount in (1, 2, 3))
        await sink.apply(PLACE, [first], next_offset=2)

        for other in others:
            with pytest.raises(EventIdReused):
                await sink.apply(PLACE, [other], next_offset=other.offset + 1)
            assert await sink.apply(PLACE, [], [dead_of(other)], next_offset=other.offset + 1) == Applied(dead=1)

        assert await sink.apply(PLACE, [first, *others], next_offset=4) == Applied(redelivered=3)

    async def test_an_event_that_another_record_died_under_still_counts_for_that_run(self, sink: Sink) -> None:
        first, other = record("captured", 1, event_id="e"), record("captured", 2, event_id="e", run=SECOND_RUN)
        await sink.apply(PLACE, [first], [dead_of(other)], next_offset=2)
        again = record("captured", 1, event_id="e", run=SECOND_RUN)

        assert await sink.apply(PLACE, [other, again], next_offset=2) == Applied(duplicate=1, redelivered=1)

    @pytest.mark.parametrize("place", [PLACE, OTHER_PLACE])
    async def test_a_record_under_the_event_id_of_one_that_did_not_decode_is_named(
        self, sink: Sink, place: Place
    ) -> None:
        """It lies elsewhere, so it is not that one after an upgrade: it must not get lost for it."""
        await sink.apply(PLACE, [], [dead("e")], next_offset=8)
        other = record("succeeded", event_id="e", offset=8 if place == PLACE else 7)

        with pytest.raises(EventIdReused):
            await sink.apply(place, [other], next_offset=9)

        assert await sink.apply(place, [], [dead_of(other)], next_offset=9) == Applied(dead=1)
        assert await sink.apply(place, [other], next_offset=9) == Applied(redelivered=1)

    async def test_who_read_it_and_how_it_was_spelled_make_no_other_record(self, sink: Sink) -> None:
        first = record("succeeded", event_id="e", raw="a", path="a", line=1)
        later = [record("succeeded", event_id="e", raw=raw, path="b", line=2, run=run) for raw in "ab" for run in RUNS]
        await sink.apply(PLACE, [first], next_offset=1)

        assert await sink.apply(PLACE, later, next_offset=5) == Applied(duplicate=1, redelivered=3)

    @pytest.mark.parametrize(
        "said",
        [
            {"amount": 101},
            {"asset": "EUR"},
            {"scheme": "visa"},
            {"at": 1},
            {"at": None},
            {"type_": PaymentType.PAYOUT},
            {"provider": "other"},
            {"reference": "own-2"},
            {"parent": "002"},
            {"status": "captured"},
        ],
    )
    async def test_every_fact_of_a_payment_tells_records_apart(self, sink: Sink, said: dict[str, Any]) -> None:
        before = {"status": "refunded", "reference": "own", "parent": "001", "at": 2, "event_id": "e"}
        await sink.apply(PLACE, [record(**before)], next_offset=1)

        with pytest.raises(EventIdReused):
            await sink.apply(PLACE, [record(**{**before, **said})], next_offset=2)

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
