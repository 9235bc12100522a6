"""
`python -m bench`: measure everything in one run, write `bench/latest.json` and `docs/benchmarks.md`.

`--quick` keeps below five minutes and writes the same keys; what the API answers (`bench/control.py`) stays as it was.
`--only` measures some contenders and writes nothing; `--only control` writes its figures, a section of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from bench import control_report, report
from bench.changes import Changes
from bench.contest import FULL, QUICK, Contest, Scale
from bench.control import control
from bench.fill import Size
from bench.history import PARTITIONS, messages
from bench.latency import latency
from bench.sftp import Downloads, running_downloads
from bench.stack import Stack, running_stack
from bench.watch import UNDISTURBED, Measured, quiet
from streams.publisher import EventPublisher, Producer

PREFIX = "bench"
CONTROL = "control"
FILL = 1_000

TRIES = 2

Rounds = dict[str, list[Measured]]
Contend = Callable[[], Awaitable[Measured]]


def contenders(contest: Contest) -> Mapping[str, Contend]:
    """By the key of the result."""
    return {
        "limit_1": lambda: contest.limit(1),
        "till_1": lambda: contest.till(1),
        "faust_take": lambda: contest.flat("faust_take"),
        "limit_4": lambda: contest.limit(4),
        "till_2": lambda: contest.till(2),
        "aiokafka_plain": lambda: contest.flat("aiokafka_plain"),
        "produce_rows": lambda: contest.producer("produce"),
        "directory_rows": contest.directory,
        "directory_limit": lambda: contest.producer("directory_limit"),
        "changes_rows": lambda: Changes(contest.stack).throughput(contest.scale.produced, contest.scale.most_s),
        "sftp_mib_s": contest.downloads.ours,
        "sftp_openssh_mib_s": contest.downloads.openssh,
    }


async def measure(contest: Contest, only: set[str], patience_s: float) -> Rounds:
    """
    Every contender in turn, round by round; every second round in the opposite order.

    With patience a round waits for a quiet machine, and one that was disturbed is measured again: the quieter holds.
    """
    found: Rounds = {}
    for number in range(contest.scale.rounds):
        order = list(contenders(contest).items())
        for name, contend in order if number % 2 == 0 else order[::-1]:
            if only and name not in only:
                continue
            tries = [await _contended(contest, name, contend, patience_s)]
            while patience_s and tries[-1].others > UNDISTURBED and len(tries) < TRIES:
                tries.append(await _contended(contest, name, contend, patience_s))
            found.setdefault(name, []).append(min(tries, key=lambda each: each.others))
    return found


async def _contended(contest: Contest, name: str, contend: Contend, patience_s: float) -> Measured:
    await quiet(contest.stack.services, within_s=patience_s)
    measured = await contend()
    cpu = " ".join(f"{who} {us:.0f}" for who, us in measured.cpu_us.items())
    print(
        f"{name:16s} {measured.per_second:9.0f}/s  {measured.events} in {measured.seconds:.1f} s,"
        f" rss {measured.rss_mib:.0f} MiB, µs/event: {cpu}, others {measured.others:.0%}",
        flush=True,
    )
    return measured


async def fill(stack: Stack, scale: Scale, downloads: Downloads) -> tuple[Contest, float]:
    """The topic that all consumers read, and the bytes of an event in it."""
    topics = await stack.topics(PREFIX, partitions=PARTITIONS)
    made = messages(scale.events)
    async with Producer(stack.kafka.bootstrap) as producer:
        publisher = EventPublisher(producer, topics)
        for start in range(0, len(made), FILL):
            await publisher.publish(made[start : start + FILL])
    return Contest(stack, topics, PREFIX, scale, downloads), statistics.mean(len(each.value) for each in made)


async def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="at most five minutes")
    parser.add_argument("--only", default="", help="contenders, comma-separated; nothing is written")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for a quiet machine, each round")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if task := asyncio.current_task():  # SIGINT cancels by itself; either way everything started is stopped
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if given.only == CONTROL:
        control_report.write(await control(Size(), patience_s=given.patience))
        return
    scale = QUICK if given.quick else FULL
    scale = replace(scale, rounds=given.rounds or scale.rounds, events=given.events or scale.events)
    only = {name for name in given.only.split(",") if name}
    began, load_before = time.monotonic(), os.getloadavg()[0]
    async with running_stack() as stack, running_downloads(stack.home / "sftp") as downloads:
        contest, event_bytes = await fill(stack, scale, downloads)
        found = await measure(contest, only, given.patience)
        taken = None if only else (await latency(contest), await Changes(stack).latency(scale.latency_s))
    seconds = time.monotonic() - began
    if taken is None:
        for name, rounds in found.items():
            print(f"{name:16s} {report.median(rounds):9.0f}")
    else:
        run = report.Run(found, *taken, event_bytes, scale.events, given.quick, load_before, seconds)
        report.write(run, kept=control_report.kept(report.PAGE.read_text()))
        if not given.quick:
            control_report.write(await control(Size(), patience_s=given.patience))
        print(report.PAGE.read_text())
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    asyncio.run(main())
