"""
How soon the API answers what is read, over an installation that is a year old.

A database of its own (`bench/fill.py`), a broker, and a real API process. Each variant of each read endpoint
(`bench/reads.py`) is asked `TIMES` times, one after the other; then all of them by eight clients at a time. A variant
during which somebody else had the machine is measured again, and the quieter one holds.

`python -m bench.control` measures this alone and prints every variant; `python -m bench --only control` writes it down.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.contender import Contender, running
from bench.fill import Size, fill
from bench.history import PARTITIONS, messages
from bench.reads import EVENTS, Read, endpoints, reads, unmeasured
from bench.stack import Stack, running_stack
from bench.watch import UNDISTURBED, machine_s, quiet
from schemas.topic import connectors_app_id, letters_app_id, sink_app_id
from streams.publisher import EventPublisher, Producer

WANTED_MS = 100.0
TIMES = 300
CLIENTS = 8
WARM = 5
TRIES = 3
LAGGING = 100  # events of a partition that no group has read
PREFIX = "till"
STARTED_S = 60.0
# Nothing is logged while the tables are filled; a year's payments do not fit the server's own cache, as in life.
SETTINGS = {
    "track_commit_timestamp": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
}


@dataclass(frozen=True, slots=True)
class Times:
    """How long answers took, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    most_ms: float
    requests: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Of so many answers; the p99 of 300 is the third longest."""
        taken = sorted(each * 1_000 for each in seconds)
        p50, p95, p99 = (taken[min(len(taken) - 1, len(taken) * share // 100)] for share in (50, 95, 99))
        return cls(round(p50, 1), round(p95, 1), round(p99, 1), round(taken[-1], 1), len(taken))


@dataclass(frozen=True, slots=True)
class Variant:
    """
    One variant of an endpoint, asked alone. CPU is in milliseconds a request, and stands on a busy machine, too.

    `others`: the share of the machine that others took meanwhile.
    """

    endpoint: str
    variant: str
    status: int
    size_bytes: int
    times: Times
    api_ms: float
    postgres_ms: float
    others: float


@dataclass(frozen=True, slots=True)
class Listening:
    """The stream of events: until its first one is there, and from a commit until it is told."""

    first: Times
    told: Times


@dataclass(frozen=True, slots=True)
class Found:
    """Everything."""

    size: Size
    filled_s: float
    gib: float
    proof_s: float
    variants: Sequence[Variant]
    mixed: Mapping[str, Times]
    together: Times
    listening: Listening
    load_before: float
    seconds: float
    rss_mib: float

    @property
    def missed(self) -> list[Variant]:
        """What takes longer than is wanted."""
        return [each for each in self.variants if each.times.p99_ms >= WANTED_MS]

    @property
    def disturbed(self) -> float:
        """The greatest share of the machine that somebody else took."""
        return max(each.others for each in self.variants)


async def control(size: Size, *, patience_s: float, times: int = TIMES, only: str = "") -> Found:
    """
    Fill, ask, tell.

    Raises:
        LookupError: an endpoint or a parameter is not asked for. RuntimeError: an answer has another status.
    """
    began, load_before = time.monotonic(), os.getloadavg()[0]
    async with running_stack(settings=SETTINGS) as stack, stack.database() as (dsn, looking):
        topics = await stack.topics(PREFIX, partitions=PARTITIONS)
        filled = await fill(dsn, size, topic=topics.events.name)
        print(f"filled in {filled.seconds:.0f} s, {filled.gib:.1f} GiB", flush=True)
        await _log(stack, looking)
        wanted = await reads(looking)
        if missing := unmeasured(wanted, endpoints()):
            raise LookupError(f"nobody asks: {', '.join(missing)}")
        wanted = [read for read in wanted if only in read.endpoint]
        async with _api(stack, dsn) as (contender, session):
            proof_s = await _proof(session)
            asker = _Asker(session, stack, contender, times, patience_s)
            wanted = [await _begun(session, read) for read in wanted]
            variants = [await asker.asked(read) for read in wanted]
            mixed, together = await _together(session, wanted, times)
            listening = await _listening(session, looking)
            contender.look()
    return Found(
        size,
        round(filled.seconds),
        round(filled.gib, 1),
        round(proof_s, 1),
        variants,
        mixed,
        together,
        listening,
        load_before,
        time.monotonic() - began,
        round(contender.peak_rss_mib),
    )


@contextlib.asynccontextmanager
async def _api(stack: Stack, dsn: str) -> AsyncIterator[tuple[Contender, aiohttp.ClientSession]]:
    """The process, once it answers, and a client of it."""
    home = stack.home / "api"
    environment = {
        "TILL_HOME": str(home),
        "TILL_KAFKA_BOOTSTRAP": stack.kafka.bootstrap,
        "TILL_POSTGRES_DSN": dsn,
        "TILL_TOPIC_PREFIX": PREFIX,
        "TILL_TOPIC_PARTITIONS": str(PARTITIONS),
        "TILL_HTTP_API_PORT": "0",
        "TILL_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "tillstream", "worker", "api"]
    async with running("api", [command], log=stack.home / "api.log", environment=environment) as (contender,):
        url = await _address(home / "run" / "api.json", contender)
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
            await _answers(session, contender)
            yield contender, session


async def _address(path: Path, contender: Contender) -> str:
    deadline = time.monotonic() + STARTED_S
    while not path.exists():
        contender.look()
        if time.monotonic() > deadline:
            raise TimeoutError("the API does not start")
        await asyncio.sleep(0.05)
    return str(json.loads(path.read_text())["url"])


async def _answers(session: aiohttp.ClientSession, contender: Contender) -> None:
    deadline = time.monotonic() + STARTED_S
    while True:
        async with session.get("/api/v1/connectors?limit=1") as answer:
            if answer.status == 200:
                return
        contender.look()
        if time.monotonic() > deadline:
            raise TimeoutError("the API has no database")
        await asyncio.sleep(0.05)


async def _log(stack: Stack, looking: Any) -> None:
    """Some events on the topic, and groups that have read a part of them: what the lag is measured of."""
    topics = await stack.topics(PREFIX, partitions=PARTITIONS)
    async with Producer(stack.kafka.bootstrap) as producer:
        await EventPublisher(producer, topics).publish(messages(PARTITIONS * LAGGING * 2))
    groups = {
        sink_app_id(PREFIX): topics.events.name,
        connectors_app_id(PREFIX): topics.connector_state.name,
        letters_app_id(PREFIX): topics.dead_letters.name,
    }
    for group, topic in groups.items():
        consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka.bootstrap, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            places = [TopicPartition(topic, number) for number in await _partitions(consumer, topic)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            await consumer.commit({place: max(0, end - LAGGING) for place, end in ends.items()})
            if topic == topics.events.name:
                rows = [(place.partition, topic, max(0, end - LAGGING)) for place, end in ends.items()]
                await looking.executemany(
                    "INSERT INTO sink_offsets (log_partition, topic, next_offset) VALUES ($1, $2, $3)", rows
                )
        finally:
            await consumer.stop()


# aiokafka ships no types
async def _partitions(consumer: Any, topic: str) -> list[int]:
    await consumer.topics()
    found = await consumer._client.fetch_all_metadata()
    return sorted(found.partitions_for_topic(topic))


async def _proof(session: aiohttp.ClientSession) -> float:
    """One recount of everything, so that there is a proof to be read; how long it took."""
    began = time.monotonic()
    async with session.post("/api/v1/ledger:verify", timeout=aiohttp.ClientTimeout(total=3_600)) as answer:
        body = await answer.json()
        if answer.status != 200 or not body["balanced"]:
            raise RuntimeError(f"the ledger does not balance: {str(body)[:1_000]}")
    return time.monotonic() - began


async def _begun(session: aiohttp.ClientSession, read: Read) -> Read:
    """A deep page is asked for as its client would: by the first page's `next`, with another place in it."""
    if read.after is None:
        return read
    paths = []
    for path in read.paths:
        sign = "&" if "?" in path else "?"
        async with session.get(f"{path}{sign}limit=1") as answer:
            after = (await answer.json()).get("next")
        if after is None:
            raise RuntimeError(f"GET {path}: {answer.status} and one page only: nothing is deep in it")
        told = json.loads(base64.urlsafe_b64decode(after + "=="))
        deep = base64.urlsafe_b64encode(json.dumps([told[0], *read.after]).encode()).decode().rstrip("=")
        paths.append(f"{path}{sign}after={deep}")
    return replace(read, paths=paths)


@dataclass(slots=True)
class _Asker:
    """One client, alone with the process."""

    session: aiohttp.ClientSession
    stack: Stack
    contender: Contender
    times: int
    patience_s: float

    async def asked(self, read: Read) -> Variant:
        """The quietest of some tries."""
        tries: list[Variant] = []
        while not tries or (self.patience_s and tries[-1].others > UNDISTURBED and len(tries) < TRIES):
            if tries or self.patience_s:
                await quiet(self.stack.services, within_s=self.patience_s)
            tries.append(await self._try(read))
        best = min(tries, key=lambda each: each.others)
        mark = " <<<" if best.times.p99_ms >= WANTED_MS else ""
        print(
            f"{best.endpoint:42s} {best.variant:36s} p50 {best.times.p50_ms:7.1f} p95 {best.times.p95_ms:7.1f}"
            f" p99 {best.times.p99_ms:7.1f} max {best.times.most_ms:7.1f} {best.size_bytes / 1024:7.1f} KiB"
            f" cpu ms {best.api_ms:5.1f} + {best.postgres_ms:5.1f} others {best.others:.0%}{mark}",
            flush=True,
        )
        return best

    async def _try(self, read: Read) -> Variant:
        for number in range(WARM):
            await _ask(self.session, read, number)
        used, machine = self._cpu_s(), machine_s()
        taken, size = [], 0
        for number in range(self.times):
            seconds, size = await _ask(self.session, read, number)
            taken.append(seconds)
        busy_s, all_s = (after - before for after, before in zip(machine_s(), machine, strict=True))
        spent = {who: seconds - used[who] for who, seconds in self._cpu_s().items()}
        others = max(0.0, busy_s - sum(spent.values())) / max(all_s, 1e-9)
        api_ms, postgres_ms = (round(spent[who] / self.times * 1_000, 1) for who in ("api", "postgres"))
        return Variant(
            read.endpoint, read.variant, read.status, size, Times.of(taken), api_ms, postgres_ms, round(others, 3)
        )

    def _cpu_s(self) -> dict[str, float]:
        own = psutil.Process().cpu_times()
        return {"instrument": own.user + own.system, "api": self.contender.look(), **self.stack.services.cpu_s()}


async def _ask(session: aiohttp.ClientSession, read: Read, number: int) -> tuple[float, int]:
    path = read.paths[number % len(read.paths)]
    began = time.perf_counter()
    async with session.get(path) as answer:
        body = await answer.read()
        if answer.status != read.status:
            raise RuntimeError(f"GET {path}: {answer.status}, wanted {read.status}: {body[:500].decode()}")
    return time.perf_counter() - began, len(body)


async def _together(
    session: aiohttp.ClientSession, wanted: Sequence[Read], times: int
) -> tuple[dict[str, Times], Times]:
    """Every endpoint equally often, its variants in turn, by some clients at a time, none of which ever waits."""
    by_endpoint: dict[str, list[Read]] = {}
    for read in wanted:
        by_endpoint.setdefault(read.endpoint, []).append(read)
    chance = random.Random(1)
    drawn = [(endpoint, number) for endpoint in by_endpoint for number in range(times)]
    chance.shuffle(drawn)
    taken: dict[str, list[float]] = {endpoint: [] for endpoint in by_endpoint}
    rest = iter(drawn)

    async def client() -> None:
        for endpoint, number in rest:
            variants = by_endpoint[endpoint]
            seconds, _ = await _ask(session, variants[number % len(variants)], number)
            taken[endpoint].append(seconds)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return {endpoint: Times.of(each) for endpoint, each in taken.items()}, Times.of(
        [seconds for each in taken.values() for seconds in each]
    )


async def _listening(session: aiohttp.ClientSession, looking: Any, *, times: int = 100) -> Listening:
    """A connector is paused and resumed; a listener is told. And a listener that was away reads what it missed."""
    first = []
    long_ago = await looking.fetchval(
        "SELECT transaction::text || '-' || id FROM activity ORDER BY transaction DESC, id DESC OFFSET 1000 LIMIT 1"
    )
    for _ in range(times):
        began = time.perf_counter()
        async with session.get(EVENTS, headers={"Last-Event-ID": long_ago}) as answer:
            await _event(answer)
            first.append(time.perf_counter() - began)
    told = []
    async with session.get(EVENTS, timeout=aiohttp.ClientTimeout(total=None)) as answer:
        await answer.content.readuntil(b"\n\n")
        for number in range(times):
            status = ("PAUSED", "ACTIVE")[number % 2]
            await looking.execute("UPDATE sp_v2_connectors SET status = $1 WHERE id = 2", status)
            began = time.perf_counter()
            await _event(answer)
            told.append(time.perf_counter() - began)
            await asyncio.sleep(number % 10 * 0.03)  # at any moment of the stream's own rhythm
    return Listening(Times.of(first), Times.of(told))


async def _event(answer: aiohttp.ClientResponse) -> None:
    """Wait for the next event; comments and positions are none."""
    while b"event: " not in await answer.content.readuntil(b"\n\n"):
        pass


def size_of(scale: float) -> Size:
    """The wanted size, or a part of it to try things out."""
    if scale == 1.0:
        return Size()
    whole = asdict(Size())
    return Size(
        **{
            name: max(1, int(number * scale)) if name not in ("connectors", "open_runs") else number
            for name, number in whole.items()
        }
    )


async def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.control", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="a part of the wanted size")
    parser.add_argument("--times", type=int, default=TIMES)
    parser.add_argument("--patience", type=float, default=0.0)
    parser.add_argument("--only", default="", help="part of an endpoint's path")
    given = parser.parse_args()
    if task := asyncio.current_task():  # SIGINT cancels by itself; either way everything started is stopped
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    found = await control(size_of(given.scale), patience_s=given.patience, times=given.times, only=given.only)
    for endpoint, times in sorted(found.mixed.items(), key=lambda each: -each[1].p99_ms):
        print(f"together {endpoint:40s} p50 {times.p50_ms:7.1f} p99 {times.p99_ms:7.1f} max {times.most_ms:7.1f}")
    print(found.together, found.listening, f"proof {found.proof_s} s, {found.seconds:.0f} s in all", sep="\n")
    print("missed:", *(f"{each.endpoint} ({each.variant}) {each.times.p99_ms}" for each in found.missed), sep="\n  ")


if __name__ == "__main__":
    asyncio.run(main())
