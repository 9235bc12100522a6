"""Payments: listed, shown, and followed back to the record that each of their events came from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from schemas.errors import NotFound
from schemas.payment import PaymentType, Status
from sinks import read
from sinks.read import PaymentDetail
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.shape import USUAL, After, Instant, Limit, Model, Page, cursor_of, number, place_of
from tillstream.api.world import WorldDep
from tillstream.control import connector as connectors

router = APIRouter(prefix="/api/v1/payments", tags=["payments"], responses=PROBLEMS)


class AdjustmentShape(Model):
    """What changed a payment. `signed_amount` is what it adds for a delta, and states for every other kind."""

    key: UUID
    kind: Literal["snapshot", "delta", "absolute", "overlay"]
    status: str
    amount: int
    signed_amount: int
    asset: str
    scheme: str
    effective_at: datetime | None
    reference: str
    parent_reference: str | None
    conflicting: bool
    events: int
    run: UUID
    connector: UUID | None
    connector_name: str | None
    first_seen_at: datetime


class PaymentShape(Model):
    """One payment. Amounts are minor units of `asset`; `flags` are what is odd about it."""

    id: str
    provider: str
    type: str
    reference: str
    status: str
    status_at: datetime | None
    initial_amount: int | None
    amount: int
    asset: str
    scheme: str
    dispute: str | None
    created_at: datetime | None
    flags: list[str]
    first_seen_at: datetime
    updated_at: datetime
    adjustments: list[AdjustmentShape]


class EventShape(Model):
    """
    One event of a payment, and where it came from: its place in the log, its run, and the file's line or the page.

    `applied`: it is the first of its adjustment; the others say the same again.
    """

    event_id: str
    key: UUID
    status: str
    amount: int
    asset: str
    effective_at: datetime | None
    revision_at: datetime
    applied: bool
    topic: str | None
    partition: int | None
    offset: int
    run: UUID
    connector: UUID | None
    source_object: str | None
    path: str | None
    position: str
    line: int | None
    raw: str | None
    first_seen_at: datetime


class Lineage(Model):
    """A payment and every event of it, in the order of arrival."""

    payment: PaymentShape
    events: list[EventShape]


@router.get("")
async def list_payments(
    world: WorldDep,
    provider: Annotated[str | None, Query(max_length=255)] = None,
    status: Status | None = None,
    type_: Annotated[PaymentType | None, Query(alias="type")] = None,
    asset: Annotated[str | None, Query(max_length=50)] = None,
    reference: Annotated[str | None, Query(max_length=1_000, description="The original payment's.")] = None,
    connector: Annotated[str | None, Query(max_length=255, description="Its id, number or name.")] = None,
    since: Annotated[Instant | None, Query(description="Created at this instant or after it.")] = None,
    until: Annotated[Instant | None, Query(description="Created before this instant.")] = None,
    limit: Limit = USUAL,
    after: After = None,
) -> Page[PaymentShape]:
    """
    Payments, those that were first seen last first. A page may be short, or empty, though more follow: `next` tells.
    """
    owner = None if connector is None else (await connectors.find_ever(world.pool, connector)).id
    filtered_by = ["payments", provider, status, type_, asset, reference, owner, since, until]
    place = place_of(after, filtered_by=filtered_by, kinds=(number,))
    wanted = read.Wanted(provider, status, type_, asset, reference, owner, since, until)
    found, more = await read.page_payments(world.pool, wanted, after=None if place is None else place[0], limit=limit)
    return Page(
        data=[_shape(each) for each in found],
        next=None if more is None else cursor_of([more], filtered_by=filtered_by),
    )


@router.get("/{payment}")
async def show_payment(payment: str, world: WorldDep) -> PaymentShape:
    """One payment, by its id."""
    return _shape(await _found(world, payment))


@router.get("/{payment}/lineage")
async def show_lineage(payment: str, world: WorldDep) -> Lineage:
    """Where each event of the payment came from: event, place in the log, run, file's line or page."""
    found = await _found(world, payment)
    # raw is any text, and may hold a secret that a source put there
    events = [_event(each, world.redact(each.raw) if each.raw else each.raw) for each in found.events]
    return Lineage(payment=_shape(found), events=events)


async def _found(world: WorldDep, payment: str) -> PaymentDetail:
    found = await read.show_payment(world.pool, payment)
    if found is None:
        raise NotFound(f"there is no payment {payment[:200]!r}", hint="`GET /api/v1/payments` lists them")
    return found


def _shape(detail: PaymentDetail) -> PaymentShape:
    names = [name for name in PaymentShape.model_fields if name != "adjustments"]
    adjustments = [AdjustmentShape.of(each) for each in detail.adjustments]
    # a payment's own fields
    values: dict[str, Any] = {name: getattr(detail.payment, name) for name in names}
    return PaymentShape(**values, adjustments=adjustments)


def _event(event: read.Event, raw: str | None) -> EventShape:
    renamed = {"partition": event.log_partition, "offset": event.log_offset, "raw": raw}
    names = [name for name in EventShape.model_fields if name not in renamed]
    # an event's own fields
    values: dict[str, Any] = {name: getattr(event, name) for name in names}
    return EventShape(**values, **renamed)
