"""
Reads a resource window by window, page by page, and says after each batch where it stands.

What is promised under drift, that is while records come, go and change between two pages, depends on how the API tells
its pages apart; docs/decisions/014-http.md says what for each. Pages that are counted are read until two readings of
the same window agree: then no record can have slipped from a page not yet read to one that was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from connectors.http import paging, window
from connectors.http.client import Answer
from connectors.http.fetch import Pages
from connectors.http.page import Page
from connectors.http.paging import Walked
from connectors.http.resource import Resource, WindowKind
from connectors.http.seen import Seen
from connectors.http.sheet import Sheet, Understanding
from connectors.http.standing import MOST_PASSES, Standing, Walk, chained, is_worth_keeping
from connectors.http.window import Window
from connectors.ports import Clock
from connectors.source import Batch, Cursor
from schemas.errors import SourceChanged, SourceMisconfigured

_SILENCE_S = 10.0  # of a source that reads, and finds what it knows
_SAMPLE = 100
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one reading may take."""

    run_s: float = 300.0
    pages: int = 10_000


class ResourceReader:
    """Reads one resource for one task."""

    def __init__(
        self,
        resource: Resource,
        pages: Pages,
        understanding: Understanding,
        *,
        clock: Clock,
        seen: Seen,
        bounds: Bounds,
    ) -> None:
        self._resource = resource
        self._pages = pages
        self._understanding = understanding
        self._clock = clock
        self._seen = seen
        self._bounds = bounds

    async def poll(self, since: Cursor | None) -> AsyncIterator[Batch]:
        """
        What is new after `since`, until it has caught up, or has read for `run_s`.

        Raises:
            SourceError: as its disposition says.
        """
        began_s = told_s = self._clock.monotonic()
        standing = kept = Standing.of(since)
        self._seen.restore(since or {})
        self._seen.forget_before(self._horizon(standing))
        now, again = self._clock.now(), True
        while (standing := self._begun(standing, now, again=again)).walk is not None:
            async for reached, batch in self._walked(standing):
                standing, now_s = reached, self._clock.monotonic()
                is_over = now_s - began_s >= self._bounds.run_s
                if batch.read or is_over or now_s - told_s >= _SILENCE_S or is_worth_keeping(since, kept, standing):
                    kept, told_s = standing, now_s
                    yield batch
                if is_over:
                    return
            if standing.until is None:
                return
            again = False

    async def read(self, span: Window, since: Cursor | None) -> AsyncIterator[Batch]:
        """
        One window, whole; the last batch comes with or without records.

        Raises:
            SourceError: as its disposition says.
        """
        standing = Standing.of(since)
        self._seen.restore(since or {})
        if standing.walk is None:
            standing = Standing(walk=Walk(span, self._clock.now()))
        async for _, batch in self._walked(standing):
            yield batch

    async def first_page(self, span: Window | None) -> tuple[Page, Batch]:
        """
        The first page of a window, and what becomes of its first records: for a check.

        Raises:
            SourceError: it cannot be had.
        """
        page, _ = await self._pages.fetch(Walk(span, self._clock.now()))
        sheet = Sheet(self._resource, self._understanding, Seen(), None)
        for text in islice(page.records(), _SAMPLE):
            sheet.add(text)
        return page, sheet.batch({})

    def _horizon(self, standing: Standing) -> datetime | None:
        """No window to come will have records of before; None: who knows."""
        if standing.walk is not None or standing.until is None or standing.read_at is None:
            return None
        back = timedelta(seconds=max(self._resource.overlap_s, self._resource.revisit_s))
        return min(standing.read_at - back, standing.until) - _SECOND

    def _cursor(self, standing: Standing) -> dict[str, Any]:
        return {**self._seen.kept(self._horizon(standing)), **standing.cursor()}

    def _begun(self, standing: Standing, now: datetime, *, again: bool) -> Standing:
        """With a walk to do, or without one while there is none."""
        if standing.walk is not None:
            return standing
        resource, read_at = self._resource, self._clock.now()
        if resource.window is not WindowKind.ROLLING:
            return replace(standing, walk=Walk(None, read_at, standing.place))
        revisits = self._is_to_revisit(standing, now)
        overlap_s = max(resource.overlap_s, resource.revisit_s) if revisits else resource.overlap_s
        span = window.rolling(
            resource, now, until=standing.until, read_at=standing.read_at, overlap_s=overlap_s, again=again
        )
        return standing if span is None else replace(standing, walk=Walk(span, read_at, revisits=revisits))

    def _is_to_revisit(self, standing: Standing, now: datetime) -> bool:
        if not self._resource.revisit_s:
            return False
        every = timedelta(seconds=self._resource.revisit_every_s)
        return standing.revisited_at is None or now - standing.revisited_at >= every

    async def _walked(self, standing: Standing) -> AsyncIterator[tuple[Standing, Batch]]:
        """The batches of a walk from where it stands to its end, each with where it stands after it."""
        walk: Walk | None = standing.walk
        assert walk is not None, "asked only with a walk"  # noqa: S101
        if walk.is_worn_out:
            walk = walk.afresh()
        walked, resumed = self._new_walked(), bool(walk.place)
        while walk is not None:
            walked.enter(walk.place)
            try:
                page, answer = await self._pages.fetch(walk)
            except SourceMisconfigured:
                if not resumed:
                    raise
                # the API does not know a place of an earlier life any more
                walk, walked, resumed = walk.afresh(), self._new_walked(), False
                continue
            resumed = False
            sheet = Sheet(self._resource, self._understanding, self._seen, walk.window)
            for text in page.records():
                if sheet.is_full:
                    yield standing, sheet.batch(self._cursor(standing))
                sheet.add(text)
            fresh = walked.fresh(sheet.names)
            walked.saw(sheet.listed)
            walk = replace(walk, asked=walk.asked + 1, chain=chained(walk.chain, fresh))
            onward = self._onward(walk, page, answer, sheet)
            if onward is None:
                standing = self._ended(standing, walk, page, answer, sheet)
            else:
                standing = replace(standing, walk=onward)
                walked = walked if onward.passes == walk.passes else self._new_walked()
            walk = onward
            yield standing, sheet.batch(self._cursor(standing))
            if walk is not None and walk.is_worn_out:
                raise SourceChanged(
                    f"{self._resource.name}: the list was another one at each of {MOST_PASSES} readings",
                    hint="shorter windows (window_s) have fewer pages; "
                    "members that differ each time are named in volatile",
                )

    def _onward(self, walk: Walk, page: Page, answer: Answer, sheet: Sheet) -> Walk | None:
        """The walk at its next page, or at its first one again; None if it is through."""
        if sheet.is_past_end and self._resource.ends_by_time:
            return None
        place = paging.following(self._resource, walk.place, page, answer, last=sheet.last)
        if place is not None:
            return replace(walk, place=self._pages.kept(place))
        if not self._resource.drifts or walk.asked == 1 or not walk.chain or walk.chain == walk.before:
            return None
        return walk.next_pass()

    def _ended(self, before: Standing, walk: Walk, page: Page, answer: Answer, sheet: Sheet) -> Standing:
        """The walk is through: time moves on, a feed keeps its place."""
        if self._resource.window is WindowKind.FEED:
            place = paging.resting(self._resource, walk.place, page, answer, last=sheet.last)
            return Standing(place=self._pages.kept(place))
        if walk.window is None:
            return Standing()
        return Standing(walk.window.end, walk.read_at, walk.read_at if walk.revisits else before.revisited_at)

    def _new_walked(self) -> Walked:
        return Walked(most_pages=self._bounds.pages)
