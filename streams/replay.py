"""
Replay: a range of the log through the same delivery core, into another sink. Publishes nothing, commits nothing.

What dies here is only counted: its letter was published when the live consumer met it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.letter import DeadLetter
from schemas.metric import NullMeter
from sinks.base import Applied, Sink
from streams.ingest import Ingest
from streams.reader import Range, read


@dataclass(slots=True)
class Replayed:
    """What a replay met. `dead` counts by reason."""

    records: int = 0
    applied: int = 0
    duplicate: int = 0
    redelivered: int = 0
    dead: Counter[str] = field(default_factory=Counter)


class _Counting:
    """A letter box that keeps reasons only."""

    def __init__(self, reasons: Counter[str]) -> None:
        self._reasons = reasons

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Durable elsewhere already."""
        self._reasons.update(letter.reason for letter in letters)


async def replay(bootstrap: str, wanted: Range, sink: Sink) -> Replayed:
    """
    Apply every record of `wanted` to `sink`, in order within a partition.

    A database that is away is waited out, as in the live consumer.

    Raises:
        BrokerUnavailable: start again.
    """
    result = Replayed()
    ingest = Ingest(sink, _Counting(result.dead), NullMeter(), first_breaker_pause_s=0.0, sleep=_briefly)
    async for batch in read(bootstrap, wanted):
        total = await ingest.apply(ingest.prepare(batch))
        _add(result, len(batch.records), total)
    return result


def _add(result: Replayed, records: int, total: Applied) -> None:
    result.records += records
    result.applied += total.applied
    result.duplicate += total.duplicate
    result.redelivered += total.redelivered


async def _briefly(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 1.0))
