"""Seed 000's `GET /payments`: its keys, its four statuses, year 1 where nobody told when."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from schemas.errors import NotFound
from schemas.payment import Status
from sinks import read
from sinks.read import MOST_PER_PAGE, PAGE
from sinks.view import payment_view, payments_view
from tillstream.api.problem import PROBLEMS
from tillstream.api.world import WorldDep

router = APIRouter(prefix="/payments", tags=["seed-000"], responses=PROBLEMS)


class SeedAdjustment(BaseModel):
    """What changed a payment."""

    status: str
    amount: int
    date: str
    raw: Any  # any JSON value
    absolute: bool


class SeedPayment(BaseModel):
    """One payment. `initialAmount` is null while only a refund of it is known."""

    id: str
    reference: str
    type: str
    provider: str
    status: str
    initialAmount: int | None  # noqa: N815  the seed's key
    scheme: str
    asset: str
    createdAt: str  # noqa: N815  the seed's key
    raw: Any  # any JSON value
    adjustments: list[SeedAdjustment]


class SeedPayments(BaseModel):
    """Some payments, those that were first seen last first."""

    data: list[SeedPayment]


class SeedOnePayment(BaseModel):
    """One payment."""

    data: SeedPayment


@router.get("")
async def list_payments(  # noqa: PLR0917  FastAPI reads parameters from the signature
    world: WorldDep,
    response: Response,
    provider: Annotated[str | None, Query(max_length=255)] = None,
    reference: Annotated[str | None, Query(max_length=1_000)] = None,
    status: Annotated[Status | None, Query(description="Our word for it: there are more than seed 000's four.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_PER_PAGE)] = PAGE,
    after: Annotated[
        str | None, Query(max_length=200, description="As the header `Link` of the page before says.")
    ] = None,
) -> SeedPayments:
    """
    List payments. Where there are more, the header `Link` has the next page's address; a page may be short, or empty,
    though more follow.
    """
    page = await read.list_payments(
        world.pool,
        provider=provider,
        status=status,
        reference=reference,
        limit=limit,
        after=after,
        is_bounded=True,
    )
    if page.next is not None:
        asked = {"provider": provider, "reference": reference, "status": status, "limit": limit, "after": page.next}
        query = urlencode({key: str(value) for key, value in asked.items() if value is not None})
        response.headers["Link"] = f'</payments?{query}>; rel="next"'
    return SeedPayments.model_validate(payments_view(page.payments))


@router.get("/{identifier}")
async def show_payment(identifier: str, world: WorldDep) -> SeedOnePayment:
    """One payment, by its id."""
    found = await read.show_payment(world.pool, identifier)
    if found is None:
        raise NotFound(f"there is no payment {identifier[:200]!r}", hint="`GET /payments` lists them")
    return SeedOnePayment.model_validate({"data": payment_view(found)})
