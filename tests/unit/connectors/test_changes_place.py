from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from connectors.changes.place import EPOCH, Origin, Place, Seen

T1 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
T2 = T1 + timedelta(minutes=1)
ORIGIN = Origin("7710651768579803221", 1, 16_384)

places = st.builds(
    Place,
    origin=st.just(ORIGIN),
    slot=st.just("till"),
    done=st.integers(0, 2**63),
    transaction=st.integers(0, 2**63),
    index=st.just(0),
    floor=st.sampled_from([EPOCH, T1]),
    seen=st.lists(st.builds(Seen, st.just("5:9:7,8"), st.integers(0, 2**63), st.just(T2)), max_size=3),
    copied=st.lists(st.sampled_from(["public.a", "public.b"])),
    copying=st.just("public.c"),
    after=st.none() | st.lists(st.text(max_size=3), min_size=1),
    published=st.just({"public.a": "1.2"}),
)


@given(places)
def test_a_place_survives_its_checkpoint(place: Place) -> None:
    assert Place.of(json.loads(json.dumps(place.cursor()))) == place


def test_a_place_inside_a_transaction_survives_it() -> None:
    place = Place(ORIGIN, "till", 10, transaction=20, index=3)

    assert Place.of(json.loads(json.dumps(place.cursor()))) == place


def test_a_copy_shows_what_had_ended_when_it_was_taken() -> None:
    seen = Seen("100:105:101,103", 0, T1)

    assert [xid for xid in range(95, 110) if seen.shows(xid)] == [95, 96, 97, 98, 99, 100, 102, 104]


def test_so_it_does_when_the_low_bits_of_transaction_ids_have_come_round() -> None:
    epoch = 3 << 32
    seen = Seen(f"{epoch - 2}:{epoch + 3}:{epoch - 1},{epoch + 1}", 0, T1)

    shown = [full for full in range(epoch - 4, epoch + 6) if seen.shows(full % (1 << 32))]

    assert shown == [epoch - 4, epoch - 3, epoch - 2, epoch, epoch + 2]


def test_a_change_that_a_copy_lacks_is_not_dated_before_it() -> None:
    place = Place(ORIGIN, "till", 0, seen=[Seen("100:105:101", 50, T1)])

    assert place.newer_than_copies(40, xid=102) == EPOCH  # the copy has it: its own time holds
    assert place.newer_than_copies(41, xid=101) == T1  # in commit when the copy was taken
    assert place.newer_than_copies(60, xid=106) == T1
    assert (place.seen, place.floor) == ([], T1)


def test_of_two_copies_the_later_one_that_lacks_a_change_decides() -> None:
    place = Place(ORIGIN, "till", 0, seen=[Seen("100:105:", 50, T1), Seen("110:110:", 90, T2)])

    assert place.newer_than_copies(60, xid=107) == T1
    assert place.newer_than_copies(70, xid=111) == T2
    assert place.newer_than_copies(95, xid=112) == T2
    assert place.seen == []
