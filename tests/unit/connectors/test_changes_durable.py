from __future__ import annotations

from connectors.changes.durable import Durable


def test_a_place_is_let_go_of_only_some_time_after_its_checkpoint() -> None:
    durable = Durable()
    durable.reaches(10, at_s=100.0)
    durable.reaches(20, at_s=101.0)
    durable.reaches(20, at_s=102.0)

    assert [durable.before(at_s) for at_s in (99.0, 100.0, 100.9, 101.0, 200.0)] == [0, 10, 10, 20, 20]
    assert durable.newest == 20


def test_a_place_that_fell_back_is_none() -> None:
    durable = Durable()
    durable.reaches(20, at_s=100.0)
    durable.reaches(10, at_s=101.0)

    assert durable.before(200.0) == durable.newest == 20
