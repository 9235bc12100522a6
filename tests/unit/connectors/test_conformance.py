"""The suite that sources inherit finds what it is there for: a source of each fault fails the test of that fault."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from connectors.conformance import ConnectorConformance, Stock
from connectors.mapping import BatchBuilder, RecordConfig, by_effective_at
from connectors.polled import LONGEST_S, PolledSource
from connectors.source import Cursor, Task
from connectors.spec import SourceSpec
from connectors.testing import CONNECTOR, ManualClock
from schemas.errors import SourceMisconfigured

BAD = {"reference": "bad", "type": "payin", "status": "succeeded", "asset": "EUR", "amount": "ten"}


class BookConfig(RecordConfig):
    path: str = Field(description="A JSON array of payments, each with the number of its last change.")


class BookSource(PolledSource[BookConfig]):
    """What a source should be; its faults are below."""

    polls = "book"

    async def page(self, batch: BatchBuilder, since: Cursor | None) -> Cursor | None:
        after = since["seq"] if since else 0
        records = [record for record in await self.records() if record["seq"] > after][:2]
        for record in records:
            batch.add(record, position=self.position(record), revision=by_effective_at)
        return {"seq": records[-1]["seq"]} if records else None

    async def records(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._records)

    def position(self, record: dict[str, Any]) -> str:
        return f"change {record['seq']}"

    def _records(self) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = json.loads(Path(self._config.path).read_text())
        except OSError as exc:
            raise SourceMisconfigured("there is no such book", hint="write it") from exc
        return sorted(found, key=lambda record: record["seq"])


class BlockingSource(BookSource):
    async def records(self) -> list[dict[str, Any]]:
        return self._records()


class SamePositionSource(BookSource):
    def position(self, record: dict[str, Any]) -> str:
        return str(record["reference"])


class NeverChangedSource(BookSource):
    """Its records' revision is their task's."""

    async def page(self, batch: BatchBuilder, since: Cursor | None) -> Cursor | None:
        cursor = await super().page(batch, since)
        batch._records = [record._replace(revision=None) for record in batch._records]
        return cursor


class BookConformance(ConnectorConformance):
    async def stock(self, folder: Path) -> Stock:
        self.book: list[dict[str, Any]] = []
        for n in range(3):
            self._write(f"p-{n}")
        self.book.append({**BAD, "seq": 4})
        bad = json.dumps(self.book[-1], separators=(",", ":")).encode()
        self._save(folder)
        config = {"path": str(folder / "book.json")}
        return Stock(config, 3, [bad], {"path": str(folder / "none.json")})

    async def add(self, folder: Path) -> int:
        self._write("p-9")
        self._save(folder)
        return 1

    async def change(self, folder: Path) -> int:
        del self.book[0]
        self._write("p-0")
        self._save(folder)
        return 1

    async def large_stock(self, folder: Path) -> Stock:
        return await self.stock(folder)

    def _write(self, reference: str) -> None:
        seq = max((record["seq"] for record in self.book), default=0) + 1
        at = (self.moment + timedelta(seconds=seq)).isoformat()
        good = {"reference": reference, "type": "payin", "status": "succeeded", "asset": "EUR", "createdAt": at}
        self.book.append({**good, "amount": seq, "seq": seq})

    def _save(self, folder: Path) -> None:
        (folder / "book.json").write_text(json.dumps(self.book))


def spec_of(factory: type[BookSource]) -> SourceSpec:
    return SourceSpec("book", "A book.", BookConfig, factory, "the number of the last change")


class TestBook(BookConformance):
    spec = spec_of(BookSource)


async def test_a_source_that_blocks_the_event_loop_fails(tmp_path: Path) -> None:
    suite = BookConformance()
    suite.spec = spec_of(BlockingSource)

    with pytest.raises(AssertionError, match=r"open\('.*book.json'\)"):
        await suite.test_nothing_blocks_the_event_loop(tmp_path)


@pytest.mark.parametrize("factory", [SamePositionSource, NeverChangedSource])
async def test_a_source_whose_changes_are_lost_fails(factory: type[BookSource], tmp_path: Path) -> None:
    suite = BookConformance()
    suite.spec = spec_of(factory)

    with pytest.raises(AssertionError, match="a record that changed has"):
        await suite.test_a_record_that_changed_is_another_event_and_a_newer_revision(tmp_path)


async def test_a_reading_of_a_source_without_end_has_one() -> None:
    clock = ManualClock()

    class Endless(BookSource):
        async def records(self) -> list[dict[str, Any]]:
            self.seq = getattr(self, "seq", 0) + 1
            clock.advance(1.0)
            return [{**BAD, "seq": self.seq}]

    from connectors.context import SourceContext

    source = Endless(BookConfig(path="-"), SourceContext(CONNECTOR.id, CONNECTOR.name, clock))
    task = Task("book", "book", "book", recurring=True)

    batches = [batch async for batch in source.read(task, None)]

    assert len(batches) == LONGEST_S
