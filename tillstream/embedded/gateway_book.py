"""
What a payment gateway that is none has in its books: rows that follow from the time alone, or rows that a test writes.

Amounts, statuses and times are the same for everybody at the same instant, so that what was read can be checked
against what there was. Rows grow: a payment is created, authorised, captured or failed, and some are refunded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Protocol

# one record as the API tells it: any JSON
Row = dict[str, Any]

_METHODS = ("upi", "card", "netbanking", "wallet")
_DAILY_ROWS = 12
_PAISE = Decimal(100)
_MIX = 2_654_435_761  # spreads small numbers: Knuth's multiplicative hash


class Book(Protocol):
    """Rows by time. `now` and the bounds are Unix seconds; both bounds are included, as Razorpay's are."""

    def payments(self, begin: int, end: int, now: float) -> list[Row]:
        """Payments created in that time, oldest first, as they are now."""
        ...

    def refunds(self, begin: int, end: int, now: float) -> list[Row]:
        """Refunds created in that time, oldest first, as they are now."""
        ...


@dataclass(frozen=True, slots=True)
class GrowingBook:
    """A payment every `every_s` since `since`; its life takes eight times that."""

    since: int
    every_s: float = 2.0

    def payments(self, begin: int, end: int, now: float) -> list[Row]:
        """As of now."""
        return [self._payment(n, now) for n in self._numbers(begin, min(end, now), 0)]

    def refunds(self, begin: int, end: int, now: float) -> list[Row]:
        """As of now: those that were asked for long enough ago are processed."""
        return [self._refund(n, now) for n in self._numbers(begin, min(end, now), 5) if _is_refunded(n)]

    def _numbers(self, begin: float, end: float, after: int) -> Iterator[int]:
        """Payments that something happened to within the time, `after` steps after their creation."""
        first = max(0, int((begin - self.since) / self.every_s) - after - 1)
        n = first
        while (at := self._at(n, after)) <= end:
            if at >= begin:
                yield n
            n += 1

    def _at(self, n: int, steps: int = 0) -> int:
        return int(self.since + (n + steps) * self.every_s)

    def _payment(self, n: int, now: float) -> Row:
        status = "created"
        if now >= self._at(n, 1):
            status = "failed" if n % 11 == 10 else "authorized"
        if status == "authorized" and now >= self._at(n, 2):
            status = "captured"
        refunded = _is_refunded(n) and now >= self._at(n, 7)
        return {
            "id": f"pay_{n:014d}",
            "entity": "payment",
            "amount": _amount(n),
            "currency": "INR",
            "status": "refunded" if refunded else status,
            "order_id": f"order_{n:012d}",
            "method": _METHODS[n % len(_METHODS)],
            "amount_refunded": _amount(n) if refunded else 0,
            "refund_status": "full" if refunded else None,
            "captured": status == "captured",
            "notes": [],
            "error_code": "BAD_REQUEST_ERROR" if status == "failed" else None,
            "created_at": self._at(n),
        }

    def _refund(self, n: int, now: float) -> Row:
        return {
            "id": f"rfnd_{n:013d}",
            "entity": "refund",
            "amount": _amount(n),
            "currency": "INR",
            "payment_id": f"pay_{n:014d}",
            "status": "processed" if now >= self._at(n, 7) else "pending",
            "created_at": self._at(n, 5),
        }


@dataclass(slots=True)
class WrittenBook:
    """Rows that are what somebody wrote: a test adds, changes and removes them between two pages."""

    payment_rows: dict[str, Row] = field(default_factory=dict)
    refund_rows: dict[str, Row] = field(default_factory=dict)

    def payments(self, begin: int, end: int, now: float) -> list[Row]:  # noqa: ARG002 as the protocol has it
        """Those that are written, whatever the time is."""
        return _within(self.payment_rows, begin, end)

    def refunds(self, begin: int, end: int, now: float) -> list[Row]:  # noqa: ARG002
        """Those that are written."""
        return _within(self.refund_rows, begin, end)

    def write(self, row: Row) -> None:
        """Add a payment, or put this in the place of the one with its id."""
        self.payment_rows[row["id"]] = row


def report(of: date, client_code: str) -> list[Row]:
    """A day of SabPaisa's report, in rupees with two decimals."""
    day = of.toordinal()
    return [_reported(day * _DAILY_ROWS + n, of, n, client_code) for n in range(_DAILY_ROWS)]


def _reported(number: int, of: date, n: int, client_code: str) -> Row:
    at = datetime(of.year, of.month, of.day, 9 + n // 2, 30 * (n % 2), 7, tzinfo=UTC)
    status = "FAILED" if n == _DAILY_ROWS - 1 else "SUCCESS"
    rupees = Decimal(_amount(number)) / _PAISE
    return {
        "transaction_id": f"SP{number:012d}",
        "client_code": "DEMO1" if client_code == "ALL" else client_code,
        "payee_amount": f"{rupees:.2f}",
        "paid_amount": f"{rupees:.2f}",
        "payment_mode": ("UPI", "Net Banking", "Debit Card")[n % 3],
        "trans_complete_date": at.strftime("%Y-%m-%d %H:%M:%S"),
        "bank_name": "Axis Bank",
        "utr": f"{number * _MIX % 10**12:012d}",
        "rrn": f"{number * _MIX % 10**12:012d}",
        "approval_code": f"{number % 10**6:06d}",
        "transaction_status": status,
        "pg_name": "SabPaisa",
    }


def _amount(n: int) -> int:
    """Some paise, from one rupee on."""
    return 100 + n * _MIX % 500_000


def _is_refunded(n: int) -> bool:
    return n % 7 == 3 and n % 11 != 10


def _within(rows: dict[str, Row], begin: int, end: int) -> list[Row]:
    found = (row for row in rows.values() if begin <= row["created_at"] <= end)
    by_time: Callable[[Row], tuple[int, str]] = lambda row: (row["created_at"], row["id"])  # noqa: E731
    return sorted(found, key=by_time)
