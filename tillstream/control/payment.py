"""Payments as operators ask for them, by seed 000's id or by reference."""

from __future__ import annotations

from schemas.errors import Conflict, NotFound
from sinks.pool import Pool
from sinks.read import Page, PaymentDetail, list_payments, parse_payment_id, show_payment

__all__ = ["Page", "PaymentDetail", "find", "list_payments"]

_HINT = "`till payment list` shows them"


async def find(pool: Pool, wanted: str, *, provider: str | None = None) -> PaymentDetail:
    """
    The payment of this id, or of this reference (of `provider`, where several share it), with every event.

    Raises:
        NotFound: there is none. Conflict: several have the reference. SinkError: as `sinks/sqlstate.py` routes it.
    """
    if parse_payment_id(wanted) is not None:
        found = await show_payment(pool, wanted)
        if found is not None:
            return found
    page = await list_payments(pool, provider=provider, reference=wanted, limit=2)
    if len(page.payments) > 1:
        raise Conflict(f"several payments have the reference {wanted!r}", hint="name the provider, or give the id")
    whole = await show_payment(pool, page.payments[0].payment.id) if page.payments else None
    if whole is None:
        raise NotFound(f"there is no payment {wanted!r}", hint=_HINT)
    return whole
