from __future__ import annotations

from streams.breaker import DEATHS_IN_A_ROW, WINDOW, Breaker


def test_a_hundred_deaths_in_a_row_open_the_breaker() -> None:
    breaker = Breaker()
    for _ in range(DEATHS_IN_A_ROW - 1):
        breaker.died(0.0)
    assert not breaker.is_open

    breaker.died(0.0)

    assert breaker.is_open


def test_one_passing_record_breaks_the_row() -> None:
    breaker = Breaker()
    for _ in range(2 * DEATHS_IN_A_ROW):
        breaker.passed(30)
        breaker.died(0.0)
        assert not breaker.is_open


def test_five_percent_of_a_full_window_open_it_and_less_than_a_window_does_not() -> None:
    breaker = Breaker()
    for _ in range(49):
        breaker.passed(19)
        breaker.died(0.0)
    assert not breaker.is_open

    breaker.passed(19)
    breaker.died(0.0)

    assert breaker.is_open
    assert WINDOW == 1_000


def test_old_deaths_leave_the_window() -> None:
    breaker = Breaker()
    for _ in range(49):
        breaker.died(0.0)
    breaker.passed(WINDOW)

    breaker.died(0.0)

    assert not breaker.is_open


def test_it_waits_then_lets_one_record_through_and_waits_longer_if_that_dies() -> None:
    breaker = Breaker(first_pause_s=10.0)
    for _ in range(DEATHS_IN_A_ROW):
        breaker.died(100.0)
    assert breaker.remaining_s(104.0) == 6.0
    assert breaker.remaining_s(110.0) == 0.0

    breaker.half_open()
    assert not breaker.is_open
    breaker.died(110.0)

    assert breaker.is_open
    assert breaker.remaining_s(110.0) == 20.0


def test_a_passing_probe_closes_it_and_forgets() -> None:
    breaker = Breaker(first_pause_s=10.0)
    for _ in range(DEATHS_IN_A_ROW):
        breaker.died(0.0)
    breaker.half_open()

    breaker.passed()
    breaker.died(1.0)

    assert not breaker.is_open
    assert breaker.pause_s == 10.0
