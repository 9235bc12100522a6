"""
Claims: which worker writes for a connector. A claim raises its epoch, and what an older epoch writes is refused.

The fence depends on no clock and on no connection that stays: a worker that was frozen finds its epoch outdated.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from schemas.errors import Fenced
from sinks.pool import Pool, connection
from tillstream.control.statement import statements


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write for a connector, until somebody claims it anew."""

    connector_id: UUID
    epoch: int
    worker: str


async def claim(pool: Pool, connector_id: UUID, *, worker: str, table_epoch: int) -> Claim:
    """
    Take the connector: its epoch becomes one more than what PostgreSQL and the state table (`table_epoch`) have seen.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it; a connector that does not exist is SinkRefused or SinkUnclear.
    """
    async with connection(pool) as held:
        epoch = await held.fetchval(statements()["claim_connector"], connector_id, table_epoch, worker)
    return Claim(connector_id, epoch, worker)


async def renew(pool: Pool, held_claim: Claim) -> None:
    """
    Tell that the claim is held and its worker alive.

    Raises:
        Fenced: pause; a newer epoch owns the connector. SinkError: as routed.
    """
    async with connection(pool) as held:
        if await held.fetchval(statements()["renew_claim"], held_claim.connector_id, held_claim.epoch) is None:
            raise fenced(held_claim)


def fenced(held_claim: Claim) -> Fenced:
    """The error for what an outdated claim tries to write."""
    return Fenced(f"epoch {held_claim.epoch} of connector {held_claim.connector_id} is outdated")
