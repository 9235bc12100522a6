"""
Payments in the shape of seed 000's `GET /payments`: its keys exactly, its four statuses, year 1 for an unknown instant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from schemas.payment import Status
from sinks.read import Adjustment, PaymentDetail

UNKNOWN_INSTANT = "0001-01-01T00:00:00Z"

# Seed 000 knows four statuses. What was refunded did succeed: its adjustments tell the rest.
_STATUS = {
    Status.UNKNOWN: "pending",
    Status.PENDING: "pending",
    Status.AUTHORISED: "pending",
    Status.FAILED: "failed",
    Status.EXPIRED: "cancelled",
    Status.CANCELLED: "cancelled",
    Status.CAPTURED: "succeeded",
    Status.SUCCEEDED: "succeeded",
    Status.SETTLED: "succeeded",
    Status.REFUND_REVERSED: "succeeded",
    Status.PARTIALLY_REFUNDED: "succeeded",
    Status.REFUNDED: "succeeded",
    Status.ADJUSTED: "succeeded",
    Status.DISPUTE: "pending",
    Status.DISPUTE_WON: "succeeded",
    Status.DISPUTE_LOST: "failed",
}


def payments_view(found: Sequence[PaymentDetail]) -> dict[str, Any]:
    """The answer of `GET /payments`."""
    return {"data": [payment_view(each) for each in found]}


def payment_view(found: PaymentDetail) -> dict[str, Any]:
    """One element of it. `initialAmount` is null while only a refund of the payment is known."""
    payment = found.payment
    state = next((one for one in found.adjustments if one.key == payment.status_key), None)
    return {
        "id": payment.id,
        "reference": payment.reference,
        "type": payment.type,
        "provider": payment.provider,
        "status": _STATUS[Status(payment.status)],
        "initialAmount": payment.initial_amount,
        "scheme": payment.scheme,
        "asset": payment.asset,
        "createdAt": _instant(payment.created_at),
        "raw": _raw(state.raw if state else None),
        "adjustments": [_adjustment_view(one) for one in found.adjustments],
    }


def _adjustment_view(adjustment: Adjustment) -> dict[str, Any]:
    return {
        "status": _STATUS[Status(adjustment.status)],
        "amount": adjustment.signed_amount,
        "date": _instant(adjustment.effective_at),
        "raw": _raw(adjustment.raw),
        "absolute": adjustment.kind == "absolute",
    }


def _instant(at: datetime | None) -> str:
    # strftime prints year 1 as `1`; isoformat does not.
    return UNKNOWN_INSTANT if at is None else at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _raw(text: str | None) -> Any:  # any JSON value
    """What the text says as JSON, if that can be said again without loss; else the text."""
    if text is None:
        return None
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_exact)
    except (ValueError, RecursionError):
        return text


def _refuse(text: str) -> None:
    raise ValueError(text)


def _exact(text: str) -> float:
    """A number that a float says again as it was; `1e400` or twenty decimals would come back as another number."""
    number = float(text)
    if not math.isfinite(number) or Decimal(repr(number)) != Decimal(text):
        raise ValueError(text)
    return number
