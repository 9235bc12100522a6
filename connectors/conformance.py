"""
What every connector owes, as tests that a newcomer inherits: resume, redeliver, order, check, secrets, bounds.

    class TestSftp(ConnectorConformance):
        spec = sftp.SPEC

        async def stock(self, folder): ...
"""

# ruff: noqa: D102, S101 - a test's name is its sentence, and asserts are its business

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from connectors.context import SourceContext
from connectors.envelope import Envelope
from connectors.runner import Runner
from connectors.secret import GivenSecrets
from connectors.source import Batch, Cursor, Source, Task
from connectors.spec import ConnectorConfig, SourceSpec
from connectors.testing import (
    CONNECTOR,
    DEADLINE_S,
    Crashed,
    Faults,
    ManualClock,
    Memory,
    eventually,
    run_ids,
    run_through,
    running,
)
from schemas import identity


@dataclass(frozen=True, slots=True)
class Stock:
    """
    What a source was filled with for a test.

    `published` counts good records, `rejected` holds the raw bytes of the bad ones. `broken` is a config whose check
    must fail. `secrets` are what the references of the config stand for; they must show nowhere.
    """

    config: Mapping[str, Any]
    published: int
    rejected: Sequence[bytes]
    broken: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict)
    staging: Path | None = None


class ConnectorConformance:
    """
    What every connector owes. Inherit it in a test class, name the spec, fill a source.

    The stock should hold a few tasks, records of one payment that must keep their order, and records that are rejected.
    """

    spec: SourceSpec
    most_bytes = 64 * 1_048_576
    most_batch = 5_000

    async def stock(self, folder: Path) -> Stock:
        """Fill a source below `folder`."""
        raise NotImplementedError

    async def large_stock(self, folder: Path) -> Stock:
        """Fill a source with more than may be held in memory: some ten megabytes do."""
        raise NotImplementedError

    # --- the tests ---

    async def test_every_record_has_one_fate(self, tmp_path: Path) -> None:
        stock, memory = await self.stock(tmp_path), Memory()

        await run_through(self._runner(stock, memory))

        counts = memory.last_run.counts
        assert (counts.published, counts.rejected) == (stock.published, len(stock.rejected))
        assert counts.balanced
        assert counts.published == len(memory.log) == len(memory.event_ids)
        assert counts.published_sum == _sum(memory.event_ids)
        assert counts.rejected_sum == _sum({letter.event_id for letter in memory.letters})

    async def test_rejections_are_whole(self, tmp_path: Path) -> None:
        stock, memory = await self.stock(tmp_path), Memory()

        await run_through(self._runner(stock, memory))

        assert sorted(letter.value_bytes() or b"" for letter in memory.letters) == sorted(stock.rejected)
        assert all(letter.reason and letter.message and letter.position for letter in memory.letters)

    async def test_what_was_read_is_not_read_again(self, tmp_path: Path) -> None:
        stock, memory = await self.stock(tmp_path), Memory()
        await run_through(self._runner(stock, memory))
        before = len(memory.log), len(memory.letters), len(memory.runs)

        await run_through(self._runner(stock, memory, epoch=2))

        assert (len(memory.log), len(memory.letters), len(memory.runs)) == before

    async def test_a_crash_at_any_step_loses_nothing_and_changes_no_id(self, tmp_path: Path) -> None:
        stock, whole = await self.stock(tmp_path), Memory()
        await run_through(self._runner(stock, whole))

        for step in itertools.count(1):
            memory, faults = Memory(), Faults(crash_at=step)
            with contextlib.suppress(Crashed):
                await run_through(self._runner(stock, memory, faults=faults))
            survived = not faults.dead
            await run_through(self._runner(stock, memory, epoch=2))

            assert memory.event_ids == whole.event_ids, f"crash at step {step}"
            assert memory.letter_ids == whole.letter_ids, f"crash at step {step}"
            assert _revisions(memory), f"crash at step {step}: one record has two revisions"
            assert not memory.event_ids & {letter.event_id for letter in memory.letters}
            if survived:
                break

    async def test_a_cursor_is_never_ahead_of_acknowledgements(self, tmp_path: Path) -> None:
        stock, memory = await self.stock(tmp_path), Memory()

        await run_through(self._runner(stock, memory))

        counted: dict[str, int] = {}
        for checkpoint, acknowledged in memory.saved:
            counted[checkpoint.task] = checkpoint.counts.published + checkpoint.counts.rejected
            assert sum(counted.values()) <= acknowledged
        first = {checkpoint.task: checkpoint for checkpoint, _ in reversed(memory.saved)}
        assert all(checkpoint.cursor is None for checkpoint in first.values())
        assert all(checkpoint.done or checkpoint.recurring for checkpoint in memory.state.values())

    async def test_the_same_record_gives_the_same_bytes(self, tmp_path: Path) -> None:
        stock = await self.stock(tmp_path)
        source, clock = self._source(stock), ManualClock()
        tasks = await _tasks(source)

        async def encoded() -> list[tuple[bytes, bytes]]:
            found = []
            for task in tasks:
                envelope = Envelope(CONNECTOR, UUID(int=1), task, clock.now())
                for batch in await _batches(source, task, None):
                    prepared = envelope.prepare(batch.records, batch.rejections, clock.now())
                    found += [(message.key, message.value) for message in prepared.messages]
                    found += [(b"", letter.model_dump_json().encode()) for letter in prepared.letters]
            return found

        first = await encoded()

        assert first == await encoded()
        assert len(first) == stock.published + len(stock.rejected)
        await source.close()

    async def test_reading_goes_on_from_every_cursor(self, tmp_path: Path) -> None:
        stock = await self.stock(tmp_path)
        source = self._source(stock)

        for task in await _tasks(source):
            batches = await _batches(source, task, None)
            for index, batch in enumerate(batches):
                cursor = json.loads(json.dumps(batch.cursor))
                left = await _batches(source, task, cursor)
                assert _items(left) == _items(batches[index + 1 :]) or index == len(batches) - 1
        await source.close()

    async def test_records_keep_their_order(self, tmp_path: Path) -> None:
        stock, memory = await self.stock(tmp_path), Memory()
        source = self._source(stock)
        expected = {
            task.source_object: [item[0] for item in _items(await _batches(source, task, None)) if item[1]]
            for task in await _tasks(source)
        }

        await run_through(self._runner(stock, memory))

        published: dict[str, list[str]] = {}
        for event in memory.events:
            assert event.lineage is not None
            published.setdefault(event.lineage.source_object, []).append(event.lineage.position)
        assert published == {source_object: positions for source_object, positions in expected.items() if positions}
        await source.close()

    async def test_check_finds_a_source_that_works(self, tmp_path: Path) -> None:
        source = self._source(await self.stock(tmp_path))

        steps = await source.check()

        assert steps
        assert all(step.ok and step.duration_s >= 0 for step in steps)
        await source.close()

    async def test_check_names_what_is_wrong_and_how_to_mend_it(self, tmp_path: Path) -> None:
        stock = await self.stock(tmp_path)
        source = self.spec.factory(self.spec.config.model_validate(stock.broken), self._context(stock))

        steps = await source.check()

        failed = [step for step in steps if not step.ok]
        assert failed
        assert all(step.detail and step.hint for step in failed)
        await source.close()

    async def test_no_secret_shows(self, tmp_path: Path) -> None:
        stock, memory = await self.stock(tmp_path), Memory()

        with _logged() as lines:
            runner = self._runner(stock, memory)
            await run_through(runner)
            source = self._source(stock)
            steps = await source.check()
            await source.close()

        shown = [*lines, repr(memory), repr(runner.status), repr(runner.tasks()), repr(steps)]
        assert lines
        assert not [secret for secret in stock.secrets.values() for text in shown if secret in text]

    async def test_a_stop_is_prompt_and_keeps_what_was_acknowledged(self, tmp_path: Path) -> None:
        stock, memory, faults = await self.stock(tmp_path), Memory(), Faults()
        faults.hold("publish")
        runner = self._runner(stock, memory, faults=faults)
        async with running(runner) as task:
            await eventually(lambda: faults.passed >= 3 and runner.status.open_runs)

            runner.stop()
            began = time.monotonic()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(task, DEADLINE_S)

        assert time.monotonic() - began < DEADLINE_S / 2
        assert not any(checkpoint.done for checkpoint in memory.state.values())

    async def test_a_cancelled_run_ends_failed_and_says_so(self, tmp_path: Path) -> None:
        stock, memory, faults = await self.stock(tmp_path), Memory(), Faults()
        faults.hold("publish")
        runner = self._runner(stock, memory, faults=faults)
        async with running(runner) as task:
            await eventually(lambda: memory.runs and runner.status.open_runs)

            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(task, DEADLINE_S)

        assert (memory.last_run.status, memory.last_run.reason) == ("FAILED", "cancelled")

    async def test_memory_is_bounded(self, tmp_path: Path) -> None:
        stock = await self.large_stock(tmp_path)
        source = self._source(stock)
        tasks = await _tasks(source)
        read = 0

        tracemalloc.start()
        try:
            for task in tasks:
                async for batch in source.read(task, None):
                    assert batch.read <= self.most_batch
                    read += batch.read
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert read == stock.published + len(stock.rejected)
        assert peak < self.most_bytes
        await source.close()

    # --- their means ---

    def _config(self, stock: Stock) -> ConnectorConfig:
        return self.spec.config.model_validate({"stop_s": 0.5, "checkpoint_s": 0.0, **stock.config})

    def _source(self, stock: Stock) -> Source:
        return self.spec.factory(self._config(stock), self._context(stock))

    def _context(self, stock: Stock) -> SourceContext:
        context = SourceContext(CONNECTOR.id, CONNECTOR.name, _RealSleeps(), secrets=GivenSecrets(stock.secrets))
        return replace(context, staging=stock.staging) if stock.staging else context

    def _runner(self, stock: Stock, memory: Memory, *, epoch: int = 1, faults: Faults | None = None) -> Runner:
        ports = replace(memory.ports(_RealSleeps(), faults), secrets=GivenSecrets(stock.secrets))
        return Runner(
            CONNECTOR,
            self.spec,
            self._config(stock),
            replace(ports, staging=stock.staging) if stock.staging else ports,
            epoch=epoch,
            new_run_id=run_ids(epoch),
        )


class _RealSleeps(ManualClock):
    """The wall stands still, as it were, and short sleeps really end: for tests of what must be prompt."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Every line that is logged meanwhile, with its facts."""
    root, lines = logging.getLogger(), list[str]()

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.getMessage()} {getattr(record, 'facts', '')}")

    seen, level = Seen(), root.level
    root.addHandler(seen)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(seen)
        root.setLevel(level)


async def _tasks(source: Source) -> list[Task]:
    return [item async for page in source.tasks({}) for item in page if isinstance(item, Task)]


async def _batches(source: Source, task: Task, since: Cursor | None) -> list[Batch]:
    return [batch async for batch in source.read(task, since)]


def _items(batches: Sequence[Batch]) -> list[tuple[str, object]]:
    """Positions and facts; nothing for a rejection's facts."""
    items: list[tuple[str, object]] = []
    for batch in batches:
        items += [(record.position, record) for record in batch.records]
        items += [(rejection.position, None) for rejection in batch.rejections]
    return items


def _sum(event_ids: set[str]) -> int:
    return identity.digest_sum(identity.event_digest(event_id) for event_id in event_ids)


def _revisions(memory: Memory) -> bool:
    revisions: dict[str, set[datetime]] = {}
    for event in memory.events:
        assert event.lineage is not None
        revisions.setdefault(event.id, set()).add(event.lineage.revision_at)
    return all(len(found) == 1 for found in revisions.values())
