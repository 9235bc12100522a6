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


def test_changes_stay_on_their_side_of_a_copy_whatever_the_clocks_say() -> None:
    seen = Seen("100:105:101", 50, T1)
    place = Place(ORIGIN, "till", 0, seen=[seen])
    early, late = T1 - timedelta(hours=1), T1 + timedelta(hours=1)

    assert place.dated(40, 102, early) == early
    assert place.dated(41, 102, late) == T1  # the database's clock is ahead
    assert T1 < seen.copied_at < place.dated(42, 101, early)  # in commit when the copy was taken
    assert place.dated(43, 101, late) == late
    assert place.dated(60, 106, early) == seen.unseen_at  # its clock is behind
    assert place.dated(61, 107, late) == late
    assert (place.seen, place.floor) == ([], seen.unseen_at)


def test_between_two_copies_a_change_is_after_the_first_and_before_the_second() -> None:
    first, second = Seen("100:105:", 50, T1), Seen("110:110:", 90, T2)
    place = Place(ORIGIN, "till", 0, seen=[first, second])

    assert place.dated(60, 107, T1 - timedelta(hours=1)) == first.unseen_at
    assert place.dated(65, 108, T2 + timedelta(hours=1)) == T2
    assert place.dated(70, 111, T1) == second.unseen_at
    assert place.dated(95, 112, T1) == second.unseen_at
    assert place.seen == []
