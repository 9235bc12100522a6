"""
The proof that every record has exactly one fate, as operators ask for it.

A letter is durable on its topic before anything counts it, and listed a little later: what is missing from the list is
lost only once the letters role has passed the topic's end, which the broker knows.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID

from schemas.errors import BrokerError
from sinks.ledger import Finding, Hop, verify, verify_letters
from sinks.pool import Pool, connection
from streams.lag import LagProbe
from tillstream.control.statement import statements

_ASK_EVERY_S = 0.5

# How many letters are on the topic and not listed yet.
Unlisted: TypeAlias = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Report:
    """What does not balance. `awaiting` findings heal by themselves: the sink or the list of letters is not through."""

    findings: Sequence[Finding]

    @property
    def balanced(self) -> bool:
        """Whether everything balances now."""
        return not self.findings

    @property
    def wrong(self) -> bool:
        """Whether something is wrong that waiting does not heal."""
        return any(not each.awaiting for each in self.findings)


@dataclass(frozen=True, slots=True)
class Proof:
    """A report, and when it was made: what was stored before `began_at` is in it."""

    report: Report
    began_at: datetime
    ended_at: datetime


async def prove(pool: Pool, *, unlisted: Unlisted | None = None) -> Proof:
    """
    Check, and keep what was found for those who only look. It reads whole tables, for as long as that takes.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    began_at = datetime.now(UTC)
    proof = Proof(await check(pool, unlisted=unlisted), began_at, datetime.now(UTC))
    findings = json.dumps([asdict(each) for each in proof.report.findings], default=str)
    async with connection(pool) as held:
        await held.execute(statements()["keep_proof"], began_at, proof.ended_at, findings)
    return proof


async def last(pool: Pool) -> Proof | None:
    """
    The newest proof that was kept; None where nobody ever asked for one.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as held:
        row = await held.fetchrow(statements()["last_proof"])
    if row is None:
        return None
    return Proof(Report([_finding(each) for each in json.loads(row["findings"])]), row["began_at"], row["ended_at"])


# what `prove` kept
def _finding(kept: Mapping[str, Any]) -> Finding:
    run = kept["run"]
    return Finding(**{**kept, "hop": Hop(kept["hop"]), "run": None if run is None else UUID(run)})


async def check(pool: Pool, *, wait_s: float = 0.0, unlisted: Unlisted | None = None) -> Report:
    """
    Verify the ledger; while only the sink or the letters are awaited, verify again for up to `wait_s` seconds.

    Without `unlisted`, every letter is taken to be listed by now.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    until = time.monotonic() + wait_s
    while True:
        report = Report([*await verify(pool), *await _letters(pool, unlisted)])
        if report.balanced or report.wrong or time.monotonic() >= until:
            return report
        await asyncio.sleep(_ASK_EVERY_S)


def unlisted_letters(bootstrap: str, *, group: str, topic: str) -> Unlisted:
    """What the broker says of the letters role, which is the consumer group `group`. Asking raises BrokerError."""

    async def ask() -> int:
        async with LagProbe(bootstrap) as probe:
            return sum(each.lag_events for each in await probe.measure(group, topic))

    return ask


async def _letters(pool: Pool, unlisted: Unlisted | None) -> list[Finding]:
    """The letters' findings; those that are missing await the list as long as it may still get them."""
    found = await verify_letters(pool)
    if unlisted is None or not any(each.unlisted for each in found):
        return found
    try:
        behind = await unlisted()
    except BrokerError:
        return [_awaiting(each, "whether it is on its way, Kafka does not say") for each in found]
    if behind:
        return [_awaiting(each, f"letters still being listed: {behind}") for each in found]
    # What counted these letters came before the lag was measured: what is missing now was lost. What is missing
    # only now is for the next time.
    later = await verify_letters(pool)
    return [each if each in found else _awaiting(each, "letters still being listed") for each in later]


def _awaiting(finding: Finding, why: str) -> Finding:
    return replace(finding, awaiting=True, problem=f"{finding.problem}; {why}") if finding.unlisted else finding
