from __future__ import annotations

from pathlib import Path

import pytest

from tillstream.embedded import gateway_server
from tillstream.embedded.gateway_server import StockedBook

EVER = 2**40


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_700_000_000.0]
    monkeypatch.setattr(gateway_server.time, "time", lambda: now[0])
    return now


def statuses(book: StockedBook, now: float) -> dict[str, str]:
    return {row["id"]: row["status"] for row in book.payments(0, EVER, now)}


def test_the_stock_is_the_same_for_everybody_whenever_it_is_read(tmp_path: Path, clock: list[float]) -> None:
    book = StockedBook.of(tmp_path / "books")
    before = (book.payments(0, EVER, clock[0]), book.refunds(0, EVER, clock[0]))
    clock[0] += 3_600

    again = StockedBook.of(tmp_path / "books")

    assert (again.payments(0, EVER, clock[0]), again.refunds(0, EVER, clock[0])) == before
    assert again.records == len(before[0]) + len(before[1]) == 13
    assert {row["status"] for row in before[0]} == {"captured", "failed", "refunded"}
    assert {row["payment_id"] for row in before[1]} <= {row["id"] for row in before[0]}


def test_what_comes_later_has_ids_of_its_own_and_every_refund_its_payment(tmp_path: Path, clock: list[float]) -> None:
    book = StockedBook.of(tmp_path)
    stock = set(statuses(book, clock[0]))
    clock[0] += 100
    book.go_on()
    clock[0] += 120

    grown = statuses(StockedBook.of(tmp_path), clock[0])

    assert stock < set(grown)
    assert len(grown) == len(stock) + 120 // 3 + 1
    assert {"created", "authorized", "captured"} <= set(grown.values())
    assert {row["payment_id"] for row in book.refunds(0, EVER, clock[0])} <= set(grown)
    assert all(row["created_at"] >= clock[0] - 120 for row in book.payments(int(clock[0]) - 120, EVER, clock[0]))


def test_a_gateway_that_was_halted_says_the_same_for_ever(tmp_path: Path, clock: list[float]) -> None:
    book = StockedBook.of(tmp_path)
    book.go_on()
    clock[0] += 30
    book.halt()
    halted = statuses(book, clock[0])
    clock[0] += 3_600
    book.go_on()

    assert statuses(StockedBook.of(tmp_path), clock[0]) == halted
