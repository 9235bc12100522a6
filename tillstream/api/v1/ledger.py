"""
The proof that every record has exactly one fate.

It reads whole tables, so there is one at a time, for all who ask.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from fastapi import APIRouter

from sinks.ledger import Hop
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.shape import Model
from tillstream.api.world import WorldDep
from tillstream.control import ledger

router = APIRouter(prefix="/api/v1/ledger", tags=["ledger"], responses=PROBLEMS)


class FindingShape(Model):
    """One thing that does not balance. `awaiting` ones heal by themselves."""

    hop: Hop
    run: UUID | None
    subject: str
    problem: str
    awaiting: bool


class LedgerShape(Model):
    """`balanced`: everything balances now; `wrong`: something is wrong that waiting does not heal."""

    balanced: bool
    wrong: bool
    findings: list[FindingShape]


@router.get("")
async def verify_ledger(world: WorldDep) -> LedgerShape:
    """Hold every count against the next. Who asks while it is at work gets the same answer."""
    if world.verifying is None or world.verifying.done():
        world.verifying = asyncio.create_task(ledger.check(world.pool, unlisted=world.unlisted), name="ledger")
    report = await asyncio.shield(world.verifying)
    return LedgerShape.of(report)
