from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.inflight import InFlight, NotContiguousError, Ticket


def test_nothing_is_committable_before_anything_is_done() -> None:
    inflight = InFlight(0)

    inflight.track(0, 10)

    assert inflight.committable() is None


def test_first_slice_of_a_log_that_begins_at_offset_zero_is_committed() -> None:
    inflight = InFlight(0)

    inflight.ack(inflight.track(0, 1))

    assert inflight.committable() == 1


def test_commit_stops_at_the_first_slice_that_is_not_done() -> None:
    inflight = InFlight(100)
    first, second, third = inflight.track(100, 110), inflight.track(110, 120), inflight.track(120, 130)

    inflight.ack(first)
    inflight.ack(third)

    assert inflight.committable() == 110
    inflight.ack(second)
    assert inflight.committable() == 130


def test_one_undone_record_at_the_head_is_never_passed() -> None:
    """Faust's own bookkeeping commits 104 here: committed 100, 100 unacked, 101 to 103 acked."""
    inflight = InFlight(100, committed=100)
    inflight.track(100, 101)

    for offset in (101, 102, 103):
        inflight.ack(inflight.track(offset, offset + 1))

    assert inflight.committable() is None


def test_holes_of_a_compacted_log_do_not_stop_the_commit() -> None:
    inflight = InFlight(0)

    inflight.ack(inflight.track(0, 50))  # say, records 3 and 41 only
    inflight.skip(75)  # a batch compacted away
    inflight.ack(inflight.track(75, 76))

    assert inflight.committable() == 76


def test_markers_behind_an_undone_slice_are_not_committed() -> None:
    inflight = InFlight(0)
    slow = inflight.track(0, 5)

    inflight.skip(6)

    assert inflight.committable() is None
    inflight.ack(slow)
    assert inflight.committable() == 6


def test_commit_that_failed_is_offered_again() -> None:
    inflight = InFlight(0)
    inflight.ack(inflight.track(0, 10))

    offered = inflight.committable()

    assert offered == inflight.committable() == 10
    inflight.committed_to(10)
    assert inflight.committable() is None


def test_reading_again_below_the_committed_offset_never_moves_it_back() -> None:
    """The database was restored, so reading began below the group's offset."""
    inflight = InFlight(500, committed=1_000)

    inflight.ack(inflight.track(500, 900))

    assert inflight.committable() is None
    inflight.ack(inflight.track(900, 1_001))
    assert inflight.committable() == 1_001


def test_slice_acked_twice_counts_once() -> None:
    inflight = InFlight(0)
    ticket = inflight.track(0, 10, 7)

    assert inflight.ack(ticket)
    assert not inflight.ack(ticket)

    assert (inflight.unacked, inflight.size_bytes, inflight.acked_total) == (0, 0, 1)


def test_ack_from_before_a_rewind_does_not_ack_the_slice_that_ends_at_the_same_offset() -> None:
    inflight = InFlight(100)
    of_the_old_log = inflight.track(100, 200)
    inflight.rewind(0)
    inflight.ack(inflight.track(0, 100))
    inflight.track(100, 200)

    assert not inflight.ack(of_the_old_log)

    assert inflight.committable() == 100


def test_group_of_a_recreated_topic_is_committed_below_the_old_offset() -> None:
    inflight = InFlight(1_000, committed=1_000)
    inflight.rewind(0)

    inflight.ack(inflight.track(0, 10))

    assert inflight.committable() == 10


def test_revoked_partition_offers_nothing_and_takes_no_ack() -> None:
    inflight = InFlight(0)
    done, late = inflight.track(0, 10), inflight.track(10, 20)
    inflight.ack(done)

    inflight.forget()

    assert inflight.committable() is None
    assert not inflight.ack(late)
    with pytest.raises(NotContiguousError):
        inflight.track(20, 30)


@pytest.mark.parametrize(("first_offset", "next_offset"), [(9, 20), (11, 20), (10, 10), (10, 9)])
def test_slice_that_does_not_continue_the_log_is_refused(first_offset: int, next_offset: int) -> None:
    inflight = InFlight(10)

    with pytest.raises(NotContiguousError):
        inflight.track(first_offset, next_offset)


@given(
    start=st.integers(0, 10),
    lengths=st.lists(st.integers(1, 1_000), min_size=1, max_size=30),
    data=st.data(),
)
def test_committable_is_the_end_of_the_contiguous_prefix_in_every_order(
    start: int, lengths: list[int], data: st.DataObject
) -> None:
    inflight, tickets, offset = InFlight(start), [], start
    for length in lengths:
        tickets.append(inflight.track(offset, offset + length))
        offset += length

    undone = list(tickets)
    for ticket in data.draw(st.permutations(tickets)):
        inflight.ack(ticket)
        undone.remove(ticket)
        prefix_end = min((each.first_offset for each in undone), default=offset)
        assert inflight.committable() == (prefix_end if prefix_end > start else None)


class AnyHistory(RuleBasedStateMachine):
    """Against a model that remembers every offset's fate: what is offered for commit has no undone offset before it."""

    def __init__(self) -> None:
        super().__init__()
        self.inflight = InFlight(0)
        self.start = 0
        self.group: int | None = None
        self.undone: set[int] = set()
        self.open: list[Ticket] = []
        self.stale: list[Ticket] = []

    @rule(length=st.integers(1, 20), size=st.integers(0, 100))
    def hand_out(self, length: int, size: int) -> None:
        first = self.inflight.position
        self.open.append(self.inflight.track(first, first + length, size))
        self.undone.update(range(first, first + length))

    @rule(length=st.integers(1, 20))
    def pass_over_a_hole(self, length: int) -> None:
        self.inflight.skip(self.inflight.position + length)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish_one(self, data: st.DataObject) -> None:
        ticket = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        assert self.inflight.ack(ticket)
        self.undone.difference_update(range(ticket.first_offset, ticket.next_offset))
        self.stale.append(ticket)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def ack_again(self, data: st.DataObject) -> None:
        assert not self.inflight.ack(data.draw(st.sampled_from(self.stale)))

    @rule(succeeds=st.booleans())
    def commit(self, succeeds: bool) -> None:
        offset = self.inflight.committable()
        if offset is not None and succeeds:
            assert self.group is None or offset > self.group, "a commit of ours moved the group backwards"
            self.inflight.committed_to(offset)
            self.group = offset

    @rule(position=st.integers(0, 50))
    def log_is_replaced(self, position: int) -> None:
        self.inflight.rewind(position)
        self.stale += self.open
        self.start, self.group, self.open, self.undone = position, None, [], set()

    @rule(back=st.integers(0, 50))
    def partition_comes_again_at_a_lower_offset(self, back: int) -> None:
        self.inflight.forget()
        assert self.inflight.committable() is None
        self.stale += self.open
        self.start = max(0, (self.group or 0) - back)
        self.inflight = InFlight(self.start, committed=self.group)
        self.open, self.undone = [], set()

    @invariant()
    def nothing_undone_is_offered(self) -> None:
        offset = self.inflight.committable()
        if offset is not None:
            assert offset > self.start
            assert not any(each < offset for each in self.undone)

    @invariant()
    def memory_is_counted(self) -> None:
        assert self.inflight.size_bytes == sum(ticket.size_bytes for ticket in self.open)
        assert self.inflight.unacked == len(self.open)


TestAnyHistory = AnyHistory.TestCase
