"""
The instrument: how fast a count grows, seen from outside the contender.

The count is the database's or the broker's: rows committed, offsets reached. The clock runs from the first look at
which the warm-up is over to the look that sees the last event, or to the end of the time allowed. CPU seconds are
read at these two moments, so that the page can say who was busy, and how much of the machine others took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from bench.contender import Contender

LOOK_S = 0.05
WARM_SHARE = 0.10  # of the events: start-up, joining the group, first plans and caches
SILENCE_S = 1.0
QUIET_S = 2.0
UNDISTURBED = 0.05  # share of the machine that others took
PATIENCE_S = 60.0  # without any progress


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one contender. CPU is in microseconds per event; `others` is the share of the machine they took."""

    per_second: float
    events: int
    seconds: float
    rss_mib: float
    cpu_us: Mapping[str, float]
    others: float


@dataclass(frozen=True, slots=True)
class Services:
    """Process ids of what the contenders lean on."""

    kafka: int
    postgres: int

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far."""
        return {"kafka": _tree_cpu_s(self.kafka), "postgres": _tree_cpu_s(self.postgres)}


async def watch(
    count: Callable[[], Awaitable[int]],
    contenders: Sequence[Contender],
    services: Services,
    *,
    total: int,
    most_s: float,
    is_warm: Callable[[], Awaitable[bool]] | None = None,
) -> Measured:
    """
    Measure until `total` is reached, or for `most_s` seconds.

    Raises:
        ContenderFailed: it crashed. TimeoutError: nothing moves.
    """
    first = await _wait_until_warm(count, contenders, total, is_warm)
    started_at, started_cpu, machine = time.perf_counter(), _cpu_s(contenders, services), machine_s()
    reached, moved_at = first, started_at
    while True:
        await asyncio.sleep(LOOK_S)
        now = await count()
        at = time.perf_counter()
        if now > reached:
            reached, moved_at = now, at
        elif at - moved_at > SILENCE_S:  # dead, perhaps
            for contender in contenders:
                contender.look()
        if now >= total or at - started_at >= most_s:
            break
        if at - moved_at > PATIENCE_S:
            raise TimeoutError(f"{contenders[0].name} stands still at {now} of {total}")
    used = {name: seconds - started_cpu[name] for name, seconds in _cpu_s(contenders, services).items()}
    busy_s, all_s = (after - before for after, before in zip(machine_s(), machine, strict=True))
    events, seconds = reached - first, moved_at - started_at
    return Measured(
        per_second=events / seconds,
        events=events,
        seconds=seconds,
        rss_mib=max(contender.peak_rss_mib for contender in contenders),
        cpu_us={name: value / events * 1e6 for name, value in used.items()},
        others=max(0.0, busy_s - sum(used.values())) / all_s,
    )


async def _wait_until_warm(
    count: Callable[[], Awaitable[int]],
    contenders: Sequence[Contender],
    total: int,
    is_warm: Callable[[], Awaitable[bool]] | None,
) -> int:
    """The count at which the clock may start: just after something was committed."""
    deadline = time.perf_counter() + PATIENCE_S
    before = -1
    while time.perf_counter() < deadline:
        now = await count()
        if now >= total:
            raise TimeoutError(f"{contenders[0].name} was through before it was warm: give it more events")
        if 0 <= before < now and now >= total * WARM_SHARE and (is_warm is None or await is_warm()):
            return now
        before = now
        for contender in contenders:
            contender.look()
        await asyncio.sleep(LOOK_S)
    raise TimeoutError(f"{contenders[0].name} does not begin")


async def quiet(services: Services, *, within_s: float) -> None:
    """Wait until others leave the machine alone for a moment, `within_s` seconds at most."""
    deadline = time.perf_counter() + within_s
    while time.perf_counter() < deadline:
        ours, machine = sum(services.cpu_s().values()), machine_s()
        await asyncio.sleep(QUIET_S)
        busy_s, all_s = (after - before for after, before in zip(machine_s(), machine, strict=True))
        if (busy_s - sum(services.cpu_s().values()) + ours) / all_s < UNDISTURBED:
            return


def _cpu_s(contenders: Sequence[Contender], services: Services) -> dict[str, float]:
    own = psutil.Process().cpu_times()
    return {
        "contender": sum(contender.look() for contender in contenders),
        **services.cpu_s(),
        "instrument": own.user + own.system,
    }


def machine_s() -> tuple[float, float]:
    """CPU seconds that everybody has used so far, and all that there were."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return sum(times[: len(times._fields) - 2]) - idle, sum(times[: len(times._fields) - 2])


def _tree_cpu_s(pid: int) -> float:
    total = 0.0
    try:
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            times = each.cpu_times()
            total += times.user + times.system
    except psutil.Error:
        pass
    return total
