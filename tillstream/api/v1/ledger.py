"""
The proof that every record has exactly one fate.

Making one reads whole tables, so there is one at a time, for all who ask; the last one is kept, and read at once.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Self
from uuid import UUID

from fastapi import APIRouter

from sinks.ledger import Hop
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.shape import Model
from tillstream.api.world import WorldDep
from tillstream.control import ledger
from tillstream.control.ledger import Proof

router = APIRouter(prefix="/api/v1/ledger", tags=["ledger"], responses=PROBLEMS)
actions = APIRouter(prefix="/api/v1", tags=["ledger"], responses=PROBLEMS)


class FindingShape(Model):
    """One thing that does not balance. `awaiting` ones heal by themselves."""

    hop: Hop
    run: UUID | None
    subject: str
    problem: str
    awaiting: bool


class LedgerShape(Model):
    """
    `balanced`: everything balanced when it was verified; `wrong`: something is wrong that waiting does not heal.

    What was stored before `began_at` is in it. All are null while nobody ever verified; `verifying` tells that a new
    proof is being made.
    """

    balanced: bool | None
    wrong: bool | None
    findings: list[FindingShape]
    began_at: datetime | None
    verified_at: datetime | None
    verifying: bool

    @classmethod
    def told(cls, proof: Proof | None, *, verifying: bool) -> Self:
        """From the service's value."""
        if proof is None:
            return cls(balanced=None, wrong=None, findings=[], began_at=None, verified_at=None, verifying=verifying)
        return cls(
            balanced=proof.report.balanced,
            wrong=proof.report.wrong,
            findings=[FindingShape.of(each) for each in proof.report.findings],
            began_at=proof.began_at,
            verified_at=proof.ended_at,
            verifying=verifying,
        )


@router.get("")
async def show_ledger(world: WorldDep) -> LedgerShape:
    """The last proof, and when it was made. `POST /api/v1/ledger:verify` makes a new one."""
    return LedgerShape.told(await ledger.last(world.pool), verifying=_is_at_work(world.verifying))


@actions.post("/ledger:verify")
async def verify_ledger(world: WorldDep) -> LedgerShape:
    """
    Hold every count against the next, now: some seconds for each million payments.

    Who asks while it is at work gets the same answer.
    """
    if world.verifying is None or world.verifying.done():
        world.verifying = asyncio.create_task(ledger.prove(world.pool, unlisted=world.unlisted), name="ledger")
    return LedgerShape.told(await asyncio.shield(world.verifying), verifying=False)


def _is_at_work(task: asyncio.Task[Proof] | None) -> bool:
    return task is not None and not task.done()
