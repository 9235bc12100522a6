"""
Replay: does the log, read again from the beginning of a range, give what the tables hold?

The end offsets are noted first; once the live sink has passed them, the range is read into shadow tables by the same
core, and both are compared in one snapshot. With `apply` what is missing is inserted and folded again. The live
consumer is never seeked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from schemas.errors import ConfigError, TimedOut
from schemas.failpoint import failpoint
from sinks.postgres import PostgresSink
from sinks.replay import Difference, Mended, compare, mend, shadow
from streams.reader import Range, find_range
from streams.replay import Replayed
from streams.replay import replay as read_again

_ASK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Source:
    """What is replayed, and against what."""

    bootstrap: str
    topic: str
    dsn: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a replay found. `left` is what still differs after mending; without `--apply`, all of `differences`."""

    range: Range
    replayed: Replayed
    differences: Sequence[Difference]
    mended: Mended | None
    left: Sequence[Difference]


async def replay(
    source: Source,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    apply: bool = False,
    deadline_s: float = 300.0,
) -> Report:
    """
    Replay what was published between `since` (inclusive) and `until` (exclusive), by the broker's record times.

    Raises:
        ConfigError: the range is empty. TimedOut: retry; the live sink has not passed the range, and what blocks it.
        BrokerUnavailable, SinkError: as they say; nothing but shadow tables was written, and they are gone.
    """
    if since is not None and until is not None and since >= until:
        raise ConfigError("the range ends before it begins", hint="give --from an earlier instant than --to")
    wanted = await find_range(source.bootstrap, source.topic, since, until)
    live = await PostgresSink.open(source.dsn, pool_size=2)
    try:
        await _passed(live, wanted, deadline_s)
        return await _compared(source, wanted, live, apply=apply)
    finally:
        await live.close()


async def _compared(source: Source, wanted: Range, live: PostgresSink, *, apply: bool) -> Report:
    async with shadow(source.dsn, uuid4().hex[:12]) as other:
        replayed = await read_again(source.bootstrap, wanted, other)
        failpoint("while_replaying")

        async def differences() -> list[Difference]:
            return await compare(live.pool, other.schema, topic=wanted.topic, starts=wanted.starts, ends=wanted.ends)

        found = await differences()
        mended = await mend(live, other.schema) if apply and found else None
        return Report(wanted, replayed, found, mended, await differences() if mended else found)


async def _passed(live: PostgresSink, wanted: Range, deadline_s: float) -> None:
    """Wait until the live sink holds everything before the range's ends."""
    until = time.monotonic() + deadline_s
    while True:
        behind = _behind(await live.next_offsets(wanted.topic), wanted)
        if not behind:
            return
        if time.monotonic() >= until:
            partition, at, end = behind[0]
            raise TimedOut(
                f"{wanted.topic} partition {partition} blocks: the sink stands at offset {at}, the range ends at {end}",
                hint="see `till status` and `till topic lag`: is a sink running, is its partition held",
            )
        await asyncio.sleep(_ASK_EVERY_S)


def _behind(offsets: Mapping[int, int], wanted: Range) -> list[tuple[int, int, int]]:
    return [
        (partition, offsets.get(partition, 0), end)
        for partition, end in sorted(wanted.ends.items())
        if wanted.starts[partition] < end and offsets.get(partition, 0) < end
    ]
