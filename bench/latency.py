"""
Latency: from the moment at which a file is renamed into the watched folder to the commit of each of its rows in
PostgreSQL.

Both ends are read from the same clock: `time.time()` just before the rename, and PostgreSQL's own commit time of each
event row (`pg_xact_commit_timestamp`). In between are the connector's poll, the file's hash, Kafka with acks of all
replicas, the checkpoints, the sink. Real workers, nothing else running.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contender import Contender, running
from bench.contest import COUNT_SINK, POLL_S, Contest, create_connector, worker
from bench.history import PARTITIONS, records, write_csv

ROWS_PER_S = 200
FILES_PER_S = 20
WARM_S = 4.0  # files dropped in these seconds are not counted
END_S = 30.0

_COMMITS = """
SELECT o.path, extract(epoch FROM pg_xact_commit_timestamp(e.xmin))::float8 AS committed_s
  FROM payment_events e JOIN event_origins o ON o.id = e.origin
"""


@dataclass(frozen=True, slots=True)
class Latency:
    """In milliseconds, over all rows after the warm-up; peak RSS of both workers."""

    p50_ms: float
    p99_ms: float
    most_ms: float
    rows: int
    sink_rss_mib: float
    connector_rss_mib: float
    poll_s: float = POLL_S


async def latency(contest: Contest) -> Latency:
    """
    Drop files at a steady rate, and see when their rows are committed.

    Raises:
        TimeoutError: some rows never arrived.
    """
    prefix = "latency"
    await contest.stack.topics(prefix, partitions=PARTITIONS)
    folder, outside = contest.stack.home / "watched", contest.stack.home / "made"
    folder.mkdir()
    outside.mkdir()
    files = _files(outside, seconds=contest.scale.latency_s + WARM_S)
    async with contest.stack.database() as (dsn, looking):
        await create_connector(dsn, folder, poll_s=POLL_S)
        environment, log = contest.environment(dsn, prefix), contest.stack.home / "latency.log"
        commands = [worker("sink"), worker("connector")]
        async with running("latency", commands, log=log, environment=environment) as (sink, connector):
            await _first(folder, looking, outside)
            before = int(await looking.fetchval(COUNT_SINK))
            dropped = await _drop(files, folder)
            await _wait_for(looking, before + len(files) * ROWS_PER_S // FILES_PER_S, [sink, connector])
            rows = await looking.fetch(_COMMITS)
            sink.look()
            connector.look()
    warm_until = min(dropped.values()) + WARM_S
    taken = sorted(
        (row["committed_s"] - dropped[name]) * 1_000
        for row in rows
        if dropped.get(name := Path(row["path"]).name, 0.0) >= warm_until
    )
    return Latency(
        p50_ms=taken[len(taken) // 2],
        p99_ms=taken[len(taken) * 99 // 100],
        most_ms=taken[-1],
        rows=len(taken),
        sink_rss_mib=sink.peak_rss_mib,
        connector_rss_mib=connector.peak_rss_mib,
    )


def _files(outside: Path, *, seconds: float) -> list[Path]:
    each = ROWS_PER_S // FILES_PER_S
    made = []
    for number in range(int(seconds * FILES_PER_S)):
        path = outside / f"{number:06d}.csv"
        write_csv(path, records(each, seed=number, prefix=f"pay{number}"))
        made.append(path)
    return made


async def _first(folder: Path, looking: Any, outside: Path) -> None:
    """One file goes through before the clock starts: both workers have joined their groups."""
    path = outside / "first.csv"
    write_csv(path, records(1, prefix="first"))
    path.rename(folder / path.name)
    await _wait_for(looking, 1, [])


async def _drop(files: Sequence[Path], folder: Path) -> dict[str, float]:
    """When each was renamed, in seconds of the wall clock."""
    dropped: dict[str, float] = {}
    began = time.monotonic()
    for number, path in enumerate(files):
        await asyncio.sleep(max(0.0, began + number / FILES_PER_S - time.monotonic()))
        dropped[path.name] = time.time()
        path.rename(folder / path.name)
    return dropped


async def _wait_for(looking: Any, count: int, contenders: Sequence[Contender]) -> None:
    deadline = time.monotonic() + END_S
    while int(await looking.fetchval(COUNT_SINK)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"fewer than {count} rows arrived")
        for contender in contenders:
            contender.look()
        await asyncio.sleep(0.1)
