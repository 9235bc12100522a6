"""The proof that every record has exactly one fate, as operators ask for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sinks.ledger import Finding, verify
from sinks.pool import Pool

_ASK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Report:
    """What does not balance. `awaiting` findings heal by themselves: the sink is not through yet."""

    findings: Sequence[Finding]

    @property
    def balanced(self) -> bool:
        """Whether everything balances now."""
        return not self.findings

    @property
    def wrong(self) -> bool:
        """Whether something is wrong that waiting does not heal."""
        return any(not each.awaiting for each in self.findings)


async def check(pool: Pool, *, wait_s: float = 0.0) -> Report:
    """
    Verify the ledger; while only the sink is awaited, verify again for up to `wait_s` seconds.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    until = time.monotonic() + wait_s
    while True:
        report = Report(await verify(pool))
        if report.balanced or report.wrong or time.monotonic() >= until:
            return report
        await asyncio.sleep(_ASK_EVERY_S)
