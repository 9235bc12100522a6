"""
Rows that come, go and change between two pages, against an oracle that wrote them: none is lost, none counts twice.

Each way of paging is put under the drift that its kind of list has. What each promises: docs/decisions/014-http.md.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from connectors.http import standing
from connectors.http_api import HttpApiSource
from connectors.source import Batch, Cursor
from schemas.errors import SourceChanged, SourceUnavailable, TillError
from tests.integration.http_kit import NOW, SteadyClock, source_of, tasks_of
from tillstream.embedded.gateway import Gateway
from tillstream.embedded.gateway_book import Row, WrittenBook

START = int(NOW.timestamp())
SIZE = 7


@dataclass
class World:
    """The rows of a list that moves, and everything that each of them ever said for long enough to be read."""

    clock: SteadyClock
    rng: random.Random
    book: WrittenBook = field(default_factory=WrittenBook)
    count: int = 0

    @property
    def now(self) -> int:
        return int(self.clock.now().timestamp())

    def create(self, at: int) -> None:
        self.count += 1
        row = {"id": f"p-{self.count:04d}", "amount": 100, "currency": "EUR", "status": "captured"}
        self.book.write({**row, "created_at": at, "updated_at": at})

    def change(self) -> None:
        row = self.rng.choice(list(self.book.payment_rows.values()))
        self.book.write({**row, "amount": row["amount"] + 1, "updated_at": self.now})

    def remove(self) -> None:
        if len(self.book.payment_rows) > 10:
            del self.book.payment_rows[self.rng.choice(list(self.book.payment_rows))]

    def said(self) -> set[tuple[str, int]]:
        """What every row that is there says now."""
        return {(row["id"], row["amount"]) for row in self.book.payment_rows.values()}


@dataclass
class Read:
    """What came of it: the distinct facts, and the positions under which they came."""

    facts: set[tuple[str, int]] = field(default_factory=set)
    positions: list[str] = field(default_factory=list)
    cursor: Cursor | None = None

    def take(self, batch: Batch) -> None:
        self.cursor = batch.cursor
        assert not batch.rejections
        self.facts |= {(record.payment.reference, record.payment.amount) for record in batch.records}
        self.positions += [record.position for record in batch.records]


async def poll(source: HttpApiSource, read: Read, since: Cursor | None) -> Cursor | None:
    (task,) = await tasks_of(source)
    read.cursor = since
    async for batch in source.read(task, since):
        read.take(batch)
    return read.cursor


def resource(paging: str, by: str, order: str = "asc", **more: Any) -> dict[str, Any]:
    """A list chosen and ordered by one of a row's times."""
    places = {
        "page": {"page": "{page}"},
        "offset": {"offset": "{offset}"},
        "cursor": {"cursor": "{cursor}"},
        "link": {},
        "keyset": {"after_time": "{after_time}", "after_id": "{after_id}"},
        "time": {"after_time": "{after_time}"},
    }[paging]
    return {
        "path": f"/lists/none/{'keyset' if paging == 'time' else paging}",
        "query": {"from": "{from}", "to": "{to}", "size": "{size}", "by": by, "order": order, **places},
        "paging": "keyset" if paging == "time" else paging,
        "page_size": SIZE,
        "time": f"$.{by}",
        "id": "$.id",
        "next": "$.next_cursor" if paging == "cursor" else "",
        "settle_s": 5,
        "overlap_s": 120,
        "lookback_s": 3_600,
        **more,
    }


STYLES = {
    "page, oldest first, changes move rows": resource("page", "updated_at"),
    "page, newest first, changes move rows": resource("page", "updated_at", "desc"),
    "offset, oldest first, changes move rows": resource("offset", "updated_at"),
    "offset, newest first, changes move rows": resource("offset", "updated_at", "desc"),
    "offset, newest first, rows come late": resource("offset", "created_at", "desc"),
    "cursor, changes move rows": resource("cursor", "updated_at"),
    "keyset of time and id, changes move rows": resource("keyset", "updated_at"),
    "keyset of time alone, changes move rows": resource("time", "updated_at"),
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("style", STYLES)
async def test_no_row_is_lost_while_the_list_moves_between_pages(style: str, seed: int) -> None:
    chosen, rng, clock = STYLES[style], random.Random(seed), SteadyClock(NOW)
    world, read = World(clock, rng), Read()
    by_creation = chosen["time"] == "$.created_at"
    for n in range(40):
        world.create(START - 600 + 13 * n)

    def drift() -> None:
        # in the end it is calm for a while, as with any list that is ever read to its end
        if rng.random() < 0.4 or world.count > 80:
            return
        clock.advance(1)
        world.create(world.now - (rng.randrange(100) if by_creation else 0))
        if rng.random() < 0.5:
            world.remove()
        if not by_creation:
            world.change()

    async with Gateway(world.book, clock=lambda: world.now) as server:
        server.between_pages = drift
        since: Cursor | None = None
        async with source_of(server.url, chosen, clock=clock) as source:
            for _ in range(8):
                clock.advance(20)
                # as the runner does: again, from the last cursor
                with contextlib.suppress(SourceChanged, SourceUnavailable):
                    await poll(source, read, since)
                since = read.cursor
            server.between_pages = lambda: None
            clock.advance(30)
            await poll(source, read, since)

    assert world.said() <= read.facts, f"lost: {sorted(world.said() - read.facts)}"
    assert world.count > 45  # it did move
    assert len(server.asked) > 15


async def test_an_offset_that_is_trusted_loses_rows() -> None:
    """What the second reading is for: without it the same list loses rows, or this test tests nothing."""
    chosen, lost = resource("offset", "updated_at", overlap_s=0), 0

    for seed in range(4):
        rng, clock = random.Random(seed), SteadyClock(NOW)
        world, read = World(clock, rng), Read()
        for n in range(60):
            world.create(START - 600 + 9 * n)
        async with Gateway(world.book, clock=lambda world=world: world.now) as server:
            server.between_pages = lambda world=world: (world.clock.advance(1), world.remove())  # type: ignore[assignment]
            async with source_of(server.url, {**chosen, "window": "whole"}, clock=clock) as source:
                await poll(source, read, None)
        lost += len(world.said() - read.facts)

    assert lost > 0


async def test_a_list_that_never_rests_is_said_to_be_so() -> None:
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    for n in range(30):
        world.create(START - 600 + n)

    async with Gateway(world.book, clock=lambda: world.now) as server:
        server.between_pages = lambda: world.create(START - 3_000)
        async with source_of(server.url, resource("offset", "created_at"), clock=clock) as source:
            with pytest.raises((SourceChanged, SourceUnavailable), match=r"at each of 5 readings|are the same"):
                await poll(source, read, None)
            server.between_pages = lambda: None
            await poll(source, read, read.cursor)

    assert world.said() <= read.facts


async def test_a_list_that_rests_again_is_read_from_the_cursor_of_its_restless_time() -> None:
    """
    A cursor that stood in the last of its readings would compare the same two of them for ever.
    """
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    for n in range(30):
        world.create(START - 600 + n)

    def replace_the_first() -> None:
        del world.book.payment_rows[min(world.book.payment_rows)]
        world.create(START - 600)

    async with Gateway(world.book, clock=lambda: world.now) as server:
        server.between_pages = replace_the_first
        async with source_of(server.url, resource("offset", "created_at"), clock=clock) as source:
            with pytest.raises(SourceChanged, match="at each of 5 readings"):
                await poll(source, read, None)
            server.between_pages = lambda: None
            await poll(source, read, read.cursor)

    assert world.said() <= read.facts


@pytest.mark.parametrize("style", STYLES)
async def test_a_quiet_list_is_read_once_and_then_costs_no_event(style: str) -> None:
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    for n in range(40):
        world.create(START - 400 + 9 * n)

    async with (
        Gateway(world.book, clock=lambda: world.now) as server,
        source_of(server.url, STYLES[style], clock=clock) as source,
    ):
        since = await poll(source, read, None)
        first = len(read.positions)
        for _ in range(5):
            clock.advance(20)
            since = await poll(source, read, since)

    assert first == len(read.positions) == len(set(read.positions)) == 40


async def test_what_turns_up_late_is_found_within_the_overlap_and_not_after_it() -> None:
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    chosen = resource("keyset", "created_at", overlap_s=120)

    async with (
        Gateway(world.book, clock=lambda: world.now) as server,
        source_of(server.url, chosen, clock=clock) as source,
    ):
        since = await poll(source, read, None)
        for age_s in (10, 60, 119, 300):
            clock.advance(30)
            world.create(world.now - 30 - age_s)  # it was not there when the last window was read
            since = await poll(source, read, since)

    assert sorted(reference for reference, _ in read.facts) == ["p-0001", "p-0002", "p-0003"]


async def test_what_changes_without_a_word_is_found_when_the_past_is_visited_again() -> None:
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    chosen = resource("offset", "created_at", overlap_s=60, revisit_s=86_400, revisit_every_s=3_600)
    world.create(START - 1_800)

    async with (
        Gateway(world.book, clock=lambda: world.now) as server,
        source_of(server.url, chosen, clock=clock) as source,
    ):
        since = await poll(source, read, None)
        clock.advance(600)
        world.change()
        since = await poll(source, read, since)
        before = set(read.facts)
        clock.advance(3_600)
        await poll(source, read, since)

    assert before == {("p-0001", 100)}
    assert read.facts == {("p-0001", 100), ("p-0001", 101)}
    assert len(read.positions) == 2


UNBOUNDED = {
    "keyset of time and id": {"after_time": "{after_time}", "after_id": "{after_id}"},
    "keyset of time alone": {"after_time": "{after_time}"},
    "offset, oldest first": {"from": "{from}", "offset": "{offset}"},
    "offset, newest first": {"from": "{from}", "offset": "{offset}", "order": "desc"},
    "page, newest first": {"from": "{from}", "page": "{page}", "order": "desc"},
}


@pytest.mark.parametrize("style", UNBOUNDED)
async def test_a_list_without_an_end_is_caught_up_with_however_far_behind(style: str) -> None:
    """Four days of rows, of which each window of a day wants the oldest: whole pages belong to later windows."""
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    for n in range(4 * 48):
        world.create(START - 4 * 86_400 + n * 1_800)
    chosen = resource(style.partition(",")[0].replace("keyset of time alone", "time").split()[0], "created_at")
    chosen |= {"query": {"size": "3", "by": "created_at", **UNBOUNDED[style]}, "page_size": 3, "window_s": 86_400}

    async with (
        Gateway(world.book, clock=lambda: world.now) as server,
        source_of(server.url, {**chosen, "lookback_s": 5 * 86_400}, clock=clock) as source,
    ):
        await poll(source, read, None)

    assert world.said() == read.facts
    assert len(server.asked) < 2 * (4 * 48 / 3 + 10)


async def test_pages_of_rows_that_are_too_young_yet_are_no_empty_pages() -> None:
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    for n in range(100):
        world.create(START - 700 + 6 * n)
    chosen = resource("offset", "created_at", "desc", page_size=3, settle_s=600)
    chosen["query"] = {"from": "{from}", "offset": "{offset}", "size": "3", "order": "desc"}

    async with Gateway(world.book, clock=lambda: world.now) as server, source_of(server.url, chosen, clock=clock) as s:
        since = await poll(s, read, None)
        assert len(read.facts) == 17
        clock.advance(600)
        await poll(s, read, since)

    assert world.said() == read.facts
    assert len(read.positions) == 100


async def test_rows_that_come_at_the_head_of_a_list_without_an_end_are_no_drift() -> None:
    """They are younger than the window: they shift its pages, and none of them is asked for yet."""
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    for n in range(30):
        world.create(START - 600 + n)
    chosen = resource("offset", "created_at", "desc", page_size=5)
    chosen["query"] = {"from": "{from}", "offset": "{offset}", "size": "{size}", "order": "desc"}

    async with Gateway(world.book, clock=lambda: world.now) as server:
        server.between_pages = lambda: None if len(server.asked) % 3 else world.create(START)
        async with source_of(server.url, chosen, clock=clock) as source:
            await poll(source, read, None)

    assert len(read.facts) == 30
    assert world.count > 33


@pytest.mark.parametrize("told", ['"more": null,', ""])
@pytest.mark.parametrize("paging", ["page", "offset"])
async def test_an_answer_that_does_not_say_whether_there_is_more_is_asked_on(paging: str, told: str) -> None:
    world, read = World(SteadyClock(NOW), random.Random(1)), Read()
    for n in range(20):
        world.create(START - 600 + n)
    rows = sorted(world.book.payment_rows.values(), key=lambda row: row["id"])

    async def answer(request: web.Request) -> web.Response:
        begin = int(request.query.get("offset", 0)) or (int(request.query.get("page", 1)) - 1) * SIZE
        page = ",".join(_spelled(row) for row in rows[begin : begin + SIZE])
        return web.Response(text=f'{{{told}"data":[{page}]}}', content_type="application/json")

    async with Gateway(world.book) as server, source_of(server.url, resource(paging, "created_at", more="$.more")) as s:
        server.misbehave("/lists", times=100, handler=answer)
        await poll(s, read, None)

    assert world.said() == read.facts


Misleading = Callable[[dict[str, str]], str]
CIRCLES: dict[str, tuple[dict[str, Any], Misleading]] = {
    "the same cursor again": (resource("cursor", "created_at"), lambda query: '{"data":[%s],"next_cursor":"a"}'),
    "cursors in a circle": (
        resource("cursor", "created_at"),
        lambda query: (
            '{"data":[%s],"next_cursor":"' + {"": "a", "a": "b", "b": "c"}.get(query.get("cursor", ""), "a") + '"}'
        ),
    ),
    "empty pages for ever": (
        resource("cursor", "created_at"),
        lambda query: '{"data":[],"next_cursor":"' + query.get("cursor", "") + 'x"}',
    ),
    "a page that is not heeded": (resource("page", "created_at"), lambda query: '{"data":[%s]}'),
    "an offset that is not heeded": (resource("offset", "created_at"), lambda query: '{"data":[%s]}'),
    "a link to itself": (resource("link", "created_at", next="$.next"), lambda query: '{"data":[%s],"next":"?a=1"}'),
}


@pytest.mark.parametrize("circle", CIRCLES)
async def test_an_api_that_leads_in_a_circle_is_left(circle: str) -> None:
    chosen, answer = CIRCLES[circle]
    world = World(SteadyClock(NOW), random.Random(1))
    world.create(START - 100)
    (row,) = world.book.payment_rows.values()

    async def mislead(request: web.Request) -> web.Response:
        text = answer(dict(request.query)).replace("%s", _spelled(row))
        return web.Response(text=text, content_type="application/json")

    async with Gateway(world.book) as server, source_of(server.url, chosen) as source:
        server.misbehave("/lists", times=100, handler=mislead)
        with pytest.raises(TillError, match=r"circle|are the same|no record"):
            await poll(source, Read(), None)

    assert len(server.asked) < 30


async def test_more_pages_than_may_be_end_the_reading() -> None:
    world = World(SteadyClock(NOW), random.Random(1))
    for n in range(60):
        world.create(START - 600 + n)

    async with (
        Gateway(world.book) as server,
        source_of(server.url, STYLES["cursor, changes move rows"], max_pages=3) as source,
    ):
        with pytest.raises(TillError, match="more than 3 pages"):
            await poll(source, Read(), None)

    assert len(server.asked) == 3


async def test_an_instant_with_more_rows_than_a_page_is_said_to_be_too_much() -> None:
    world = World(SteadyClock(NOW), random.Random(1))
    for _ in range(SIZE + 1):
        world.create(START - 100)

    async with Gateway(world.book) as server, source_of(server.url, resource("time", "created_at")) as source:
        with pytest.raises(TillError, match="of one instant"):
            await poll(source, Read(), None)


async def test_an_api_that_gives_less_than_was_asked_for_is_read_to_its_end() -> None:
    world, read = World(SteadyClock(NOW), random.Random(1)), Read()
    for n in range(250):
        world.create(START - 600 + n)

    async with (
        Gateway(world.book) as server,
        source_of(server.url, resource("offset", "created_at", page_size=1_000)) as source,
    ):
        await poll(source, read, None)

    assert len(read.facts) == 250


async def test_a_place_that_the_api_has_forgotten_is_found_again() -> None:
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    for n in range(30):
        world.create(START - 600 + n)

    async with (
        Gateway(world.book) as server,
        source_of(server.url, STYLES["cursor, changes move rows"], clock=clock) as source,
    ):
        (task,) = await tasks_of(source)
        cursors = []
        async for batch in source.read(task, None):
            read.take(batch)
            cursors.append(batch.cursor)
        half_way = cursors[1]
        server.misbehave("/lists", status=410)
        again = Read()
        async with source_of(server.url, STYLES["cursor, changes move rows"], clock=clock) as successor:
            await poll(successor, again, half_way)

    assert len(read.facts) == 30
    assert set(read.positions) - set(again.positions) == set(read.positions[: 2 * SIZE])


async def test_a_feed_goes_on_where_it_stood() -> None:
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    chosen = resource("keyset", "created_at", window="feed")
    chosen["query"] = {"size": "{size}", "after_time": "{after_time}", "after_id": "{after_id}"}

    async with Gateway(world.book) as server, source_of(server.url, chosen, clock=clock) as source:
        since: Cursor | None = None
        for n in range(4):
            world.create(START + n)
            since = await poll(source, read, since)
        asked = len(server.asked)

    assert [reference for reference, _ in sorted(read.facts)] == [f"p-{n:04d}" for n in range(1, 5)]
    assert len(read.positions) == 4
    assert asked <= 8


async def test_a_long_reading_ends_and_goes_on_at_the_next_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteadyClock(NOW)
    world, read = World(clock, random.Random(1)), Read()
    for n in range(60):
        world.create(START - 600 + n)
    monkeypatch.setattr(standing, "_QUIET_S", 0.0)

    async with Gateway(world.book) as server:
        server.between_pages = lambda: clock.advance(40)
        async with source_of(server.url, resource("cursor", "created_at"), clock=clock, run_s=100) as source:
            since, polls = None, 0
            while len(read.facts) < 60:
                since = await poll(source, read, since)
                polls += 1

    assert polls == 3
    assert len(read.positions) == 60


def _spelled(row: Row) -> str:
    import json

    return json.dumps(row)
