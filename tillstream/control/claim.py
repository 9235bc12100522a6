"""
Claims: which worker writes for a connector. A claim raises its epoch, and what an older epoch writes is refused.

The fence depends on no clock and on no connection that stays: a worker that was frozen finds its epoch outdated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from schemas.errors import Fenced
from sinks.pool import Connection, Pool, connection
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


async def renew(pool: Pool, held_claims: Sequence[Claim]) -> list[Claim]:
    """
    Tell that the claims are held and their worker alive; those that are outdated.

    Raises:
        SinkError: as routed.
    """
    if not held_claims:
        return []
    ids, epochs = [each.connector_id for each in held_claims], [each.epoch for each in held_claims]
    async with connection(pool) as held:
        rows = await held.fetch(statements()["renew_claims"], ids, epochs)
    valid = {(row["connector_id"], row["epoch"]) for row in rows}
    return [each for each in held_claims if (each.connector_id, each.epoch) not in valid]


async def insist(held: Connection, held_claim: Claim) -> None:
    """
    See that the claim holds, and keep it so until the transaction of `held` ends: what it writes is ours to write.

    Raises:
        Fenced: pause; a newer epoch owns the connector.
    """
    newest = await held.fetchval(statements()["hold_claim"], held_claim.connector_id)
    if newest is not None and newest > held_claim.epoch:
        raise fenced(held_claim)


async def blame(held: Connection, held_claim: Claim) -> None:
    """The source of this connector blocked its worker's event loop: it waits before it runs again."""
    await held.execute(statements()["blame_connector"], held_claim.connector_id, held_claim.epoch)


def fenced(held_claim: Claim) -> Fenced:
    """The error for what an outdated claim tries to write."""
    return Fenced(f"epoch {held_claim.epoch} of connector {held_claim.connector_id} is outdated")
