"""
What every connector owes, as tests that a newcomer inherits: resume, redeliver, order, check, secrets, bounds.

    class TestSftp(ConnectorConformance):
        spec = sftp.SPEC

        async def stock(self, folder): ...
        async def add(self, folder): ...
        async def large_stock(self, folder): ...

A test that fails says in its name what the source owes. `docs/writing-a-source.md` goes through all of it.
"""

# ruff: noqa: D102, S101 - a test's name is its sentence, and asserts are its business

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import logging
import socket
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from connectors.context import SourceContext
from connectors.envelope import Envelope
from connectors.runner import Runner
from connectors.secret import GivenSecrets, names_secret
from connectors.source import Batch, Cursor, Source, Task
from connectors.spec import ConnectorConfig, SourceSpec
from connectors.testing import (
    CONNECTOR,
    DEADLINE_S,
    START,
    Crashed,
    Faults,
    Memory,
    eventually,
    is_through,
    run_ids,
    run_through,
    running,
)
from schemas import identity
from schemas.event import ConnectorEvent

_LATER = timedelta(days=1)
_PROMPT_S = 5.0  # within which what is given up has to end
_SLOW_S = 0.3  # a broker's pause, in which a source that reads ahead without bound would read it all


# What blocks the thread that does it, as Python's audit hooks tell it; a socket that does not block is no such thing.
_BLOCKING = frozenset({
    "open", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo", "sqlite3.connect",
})  # fmt: skip
_met: ContextVar[list[str] | None] = ContextVar("met", default=None)  # what blocked, in what a source does


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


@pytest.mark.asyncio
class ConnectorConformance:
    """
    What every connector owes. Inherit it in a test class, name the spec, fill a source.

    The stock should hold a few tasks, records of one payment that must keep their order, and records that are rejected.

    `most_bytes` is what reading may hold in memory, `most_batch` how many records a batch may have. `moment` is what
    the source's clock says; it stands still, but for a day that passes before `add`.
    """

    spec: SourceSpec
    most_bytes = 64 * 1_048_576
    most_batch = 5_000
    moment = START

    async def stock(self, folder: Path) -> Stock:
        """Fill a source below `folder`."""
        raise NotImplementedError

    async def large_stock(self, folder: Path) -> Stock:
        """Fill a source with more than may be held in memory: some ten megabytes do."""
        raise NotImplementedError

    async def add(self, folder: Path) -> int:
        """Give the source that `stock` filled below `folder` a few good records of this `moment`; how many."""
        raise NotImplementedError

    async def change(self, folder: Path) -> int:
        """
        Change good records of `stock` at this `moment`, as their owner would; how many come again for it.

        For a source whose records can change; without it the test of that is skipped.
        """
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

    async def test_what_comes_later_is_read_and_nothing_twice(self, tmp_path: Path) -> None:
        stock, memory = await self.stock(tmp_path), Memory()
        await run_through(self._runner(stock, memory))
        before, letters = len(memory.log), len(memory.letters)

        self.moment += _LATER
        added = await self.add(tmp_path)
        await run_through(self._runner(stock, memory, epoch=2))

        assert len(memory.log) == before + added == len(memory.event_ids)
        assert len(memory.letters) == letters
        counts = memory.last_run.counts
        assert (counts.published, counts.rejected, counts.balanced) == (added, 0, True)

    async def test_a_record_that_changed_is_another_event_and_a_newer_revision(self, tmp_path: Path) -> None:
        if type(self).change is ConnectorConformance.change:
            pytest.skip("its records never change: there is no `change`")
        stock, memory = await self.stock(tmp_path), Memory()
        await run_through(self._runner(stock, memory))
        before = len(memory.log)
        newest = _newest(memory.events)

        self.moment += _LATER
        changed = await self.change(tmp_path)
        await run_through(self._runner(stock, memory, epoch=2))

        again = memory.events[before:]
        assert changed
        assert len(again) == changed
        assert len(memory.event_ids) == before + changed, "a record that changed has the id that it had before"
        for payment, revision in _newest(again).items():
            assert payment in newest, "what was changed is no record of `stock`"
            assert revision > newest[payment], "a record that changed has no newer revision than before"

    async def test_what_comes_while_it_runs_is_found_by_the_next_look(self, tmp_path: Path) -> None:
        stock, memory = await self.stock(tmp_path), Memory()
        runner = self._runner(stock, memory, poll_s=0.05)
        async with running(runner):
            await eventually(lambda: len(memory.log) >= stock.published)

            self.moment += _LATER
            added = await self.add(tmp_path)

            await eventually(lambda: len(memory.event_ids) == stock.published + added)
            await eventually(lambda: runner.status.open_runs == 0)
        assert len(memory.log) == len(memory.event_ids)

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
        source, clock = self._source(stock), _Clock(self)
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

    async def test_a_cursor_that_was_read_back_can_be_written_again(self, tmp_path: Path) -> None:
        """
        An operator edits what the source wrote: its own judgement must not refuse that, nor know less of it.
        """
        stock = await self.stock(tmp_path)
        source = self._source(stock)
        config = self._config(stock)
        model = None if self.spec.cursor is None else self.spec.cursor(config)

        for task in await _tasks(source):
            for batch in await _batches(source, task, None):
                cursor = json.loads(json.dumps(batch.cursor))
                if model is None or not cursor:
                    continue
                judged = model.model_validate(cursor)
                assert json.loads(judged.model_dump_json(exclude_unset=True)) == cursor
                assert not list(judged.refusals(cursor))
        await source.close()

    async def test_reading_that_is_given_up_leaves_the_source_usable(self, tmp_path: Path) -> None:
        """
        Closed after a batch, and cancelled in the middle of one: at a stop, and at the end of a deadline.
        """
        stock = await self.stock(tmp_path)
        source = self._source(stock)
        tasks = await _tasks(source)
        whole = [_items(await _batches(source, task, None)) for task in tasks]

        for task in tasks:
            batches = source.read(task, None)
            await asyncio.wait_for(anext(batches), DEADLINE_S)
            await asyncio.wait_for(_closed(batches), _PROMPT_S)
            batches = source.read(task, None)
            waiting = asyncio.ensure_future(_first_of(batches))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting}, timeout=_PROMPT_S)
            assert waiting.done(), "reading does not heed its cancellation"
            await asyncio.wait_for(_closed(batches), _PROMPT_S)

        assert [_items(await _batches(source, task, None)) for task in tasks] == whole
        await source.close()

    async def test_a_listing_that_is_given_up_leaves_the_source_usable(self, tmp_path: Path) -> None:
        stock = await self.stock(tmp_path)
        source = self._source(stock)
        listing = source.tasks({})
        waiting = asyncio.ensure_future(_first_of(listing))
        await asyncio.sleep(0)

        waiting.cancel()
        await asyncio.wait({waiting}, timeout=_PROMPT_S)

        assert waiting.done(), "listing does not heed its cancellation"
        await asyncio.wait_for(_closed(listing), _PROMPT_S)
        assert await _tasks(source)
        await source.close()

    async def test_tasks_that_are_read_side_by_side_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        source = self._source(await self.stock(tmp_path))
        tasks = await _tasks(source)
        alone = [_items(await _batches(source, task, None)) for task in tasks]

        together = await asyncio.gather(*(_batches(source, task, None) for task in tasks))

        assert [_items(batches) for batches in together] == alone
        await source.close()

    async def test_a_source_is_closed_in_any_state_and_twice(self, tmp_path: Path) -> None:
        stock = await self.stock(tmp_path)
        unused, used = self._source(stock), self._source(stock)
        await _tasks(used)

        for source in (unused, used, used):
            await asyncio.wait_for(source.close(), _PROMPT_S)

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

    async def test_check_changes_nothing(self, tmp_path: Path) -> None:
        stock, memory = await self.stock(tmp_path), Memory()
        source = self._source(stock)
        for _ in range(2):
            await source.check()
        await source.close()

        await run_through(self._runner(stock, memory))

        assert (len(memory.event_ids), len(memory.letters)) == (stock.published, len(stock.rejected))

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
            shown = [*await self._shown(stock, memory), *await self._shown(replace(stock, config=stock.broken), memory)]

        assert lines
        assert not [secret for secret in stock.secrets.values() for text in (*lines, *shown) if secret in text]

    async def test_a_secret_that_is_spelled_out_is_refused_and_not_repeated(self) -> None:
        spelled = "hunter22-spelled-out"
        for name in [name for name, info in self.spec.config.model_fields.items() if names_secret(info)]:
            told: list[str] = []
            try:
                self.spec.config.model_validate({name: spelled})
            except ValidationError as exc:
                told = [error["msg"] for error in exc.errors() if error["loc"][:1] == (name,)]

            assert told, f"{name} takes a secret itself"
            assert not [text for text in told if spelled in text]

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

    async def test_nothing_blocks_the_event_loop(self, tmp_path: Path) -> None:
        """
        Files, sockets and SQLite, as far as Python tells of them; what a library does in C nobody sees.
        """
        stock = await self.stock(tmp_path)
        await _whole(self._source(stock))  # what is imported at the first use is not meant
        source = self._source(stock)

        with _watched() as met:
            read = await _whole(source)

        assert read == stock.published + len(stock.rejected)
        assert not met, f"in the event loop's own thread: {sorted(set(met))}; `await asyncio.to_thread(...)` does it"

    async def test_memory_is_bounded(self, tmp_path: Path) -> None:
        """
        Also while nobody asks for the next batch: a broker that is slow must not fill the worker.
        """
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
                    if read == batch.read:
                        await asyncio.sleep(_SLOW_S)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert read == stock.published + len(stock.rejected)
        assert peak < self.most_bytes
        await source.close()

    async def test_its_documents_hold(self) -> None:
        spec = self.spec

        assert spec.summary.endswith(".")
        assert spec.resumes_from
        assert all(field_info.description for field_info in spec.config.model_fields.values())
        if spec.example:
            spec.config.model_validate(spec.example)

    # --- their means ---

    async def _shown(self, stock: Stock, memory: Memory) -> list[str]:
        """What operators see of a source that is run and checked, well or not."""
        config = self._config(stock)
        runner = self._runner(stock, memory, max_retries=0)
        async with running(runner) as task:
            await eventually(lambda: task.done() or runner.status.problems or is_through(runner.status))
            runner.stop()
            await asyncio.wait_for(task, DEADLINE_S)
        source = self._source(stock)
        steps = await source.check()
        shown = [repr(memory), repr(runner.status), repr(runner.tasks()), repr(steps), repr(source), repr(config)]
        await source.close()
        return shown

    def _config(self, stock: Stock, **options: object) -> ConnectorConfig:
        return self.spec.config.model_validate({"stop_s": 0.5, "checkpoint_s": 0.0, **stock.config, **options})

    def _source(self, stock: Stock) -> Source:
        return self.spec.factory(self._config(stock), self._context(stock))

    def _context(self, stock: Stock) -> SourceContext:
        context = SourceContext(CONNECTOR.id, CONNECTOR.name, _Clock(self), secrets=GivenSecrets(stock.secrets))
        return replace(context, staging=stock.staging) if stock.staging else context

    def _runner(
        self, stock: Stock, memory: Memory, *, epoch: int = 1, faults: Faults | None = None, **options: object
    ) -> Runner:
        ports = replace(memory.ports(_Clock(self), faults), secrets=GivenSecrets(stock.secrets))
        return Runner(
            CONNECTOR,
            self.spec,
            self._config(stock, **options),
            replace(ports, staging=stock.staging) if stock.staging else ports,
            epoch=epoch,
            new_run_id=run_ids(epoch),
        )


class _Clock:
    """The wall clock shows the suite's moment; sleeps really end: for tests of what must be prompt."""

    def __init__(self, suite: ConnectorConformance) -> None:
        self._suite = suite

    def now(self) -> datetime:
        return self._suite.moment

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Every line that is logged meanwhile, with its facts."""
    root, lines = logging.getLogger(), list[str]()

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            trace = "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else ""
            lines.append(f"{record.getMessage()} {getattr(record, 'facts', '')} {trace}")

    seen, level = Seen(), root.level
    root.addHandler(seen)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(seen)
        root.setLevel(level)


@contextmanager
def _watched() -> Iterator[list[str]]:
    """What blocks this thread, in what is begun meanwhile from here: not in servers that run beside it."""
    _watch()
    met = list[str]()
    token = _met.set(met)
    try:
        yield met
    finally:
        _met.reset(token)


@functools.cache
def _watch() -> None:
    """Hooks cannot be taken away, so this one is there once, and looks away where nobody watches."""
    watched = threading.get_ident()

    def see(event: str, args: tuple[object, ...]) -> None:
        if event not in _BLOCKING or (met := _met.get()) is None or threading.get_ident() != watched:
            return
        what = args[0] if args else ""
        if event == "socket.connect" and isinstance(what, socket.socket):
            if what.gettimeout() == 0:
                return
            what = args[1]
        met.append(f"{event}({what!r})")

    sys.addaudithook(see)


async def _first_of(iterator: AsyncIterator[object]) -> object:
    return await anext(iterator)


async def _closed(iterator: AsyncIterator[object]) -> None:
    if isinstance(iterator, AsyncGenerator):
        await iterator.aclose()


async def _tasks(source: Source) -> list[Task]:
    return [item async for page in source.tasks({}) for item in page if isinstance(item, Task)]


async def _batches(source: Source, task: Task, since: Cursor | None) -> list[Batch]:
    return [batch async for batch in source.read(task, since)]


async def _whole(source: Source) -> int:
    """Check, list, read and close it; how many records it has, good and bad."""
    await source.check()
    read = [_items(await _batches(source, task, None)) for task in await _tasks(source)]
    await source.close()
    return sum(map(len, read))


def _items(batches: Sequence[Batch]) -> list[tuple[str, object]]:
    """Positions and facts; nothing for a rejection's facts."""
    items: list[tuple[str, object]] = []
    for batch in batches:
        items += [(record.position, record) for record in batch.records]
        items += [(rejection.position, None) for rejection in batch.rejections]
    return items


def _sum(event_ids: set[str]) -> int:
    return identity.digest_sum(identity.event_digest(event_id) for event_id in event_ids)


def _newest(events: Sequence[ConnectorEvent]) -> dict[str, tuple[datetime, int]]:
    """The newest revision of each reference."""
    newest: dict[str, tuple[datetime, int]] = {}
    for event in events:
        assert event.lineage is not None
        revision = event.lineage.revision_at, event.lineage.revision_seq
        newest[event.foreign_id] = max(revision, newest.get(event.foreign_id, revision))
    return newest


def _revisions(memory: Memory) -> bool:
    revisions: dict[str, set[datetime]] = {}
    for event in memory.events:
        assert event.lineage is not None
        revisions.setdefault(event.id, set()).add(event.lineage.revision_at)
    return all(len(found) == 1 for found in revisions.values())
