"""
Reads a resource window by window, page by page, and says after each batch where it stands.

What is promised under drift, that is while records come, go and change between two pages, depends on how the API tells
its pages apart; docs/decisions/014-http.md says what for each. Pages that are counted are read until two readings of
the same window agree: then no record can have slipped from a page not yet read to one that was.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Self
from zoneinfo import ZoneInfo

from yarl import URL

from connectors.files.objects import parse_object
from connectors.http import address, paging, request, window
from connectors.http import page as pages
from connectors.http.client import Answer, Call, Client
from connectors.http.page import Page
from connectors.http.paging import FIRST, Place, Walked
from connectors.http.redaction import excerpt
from connectors.http.request import places_of
from connectors.http.resource import Paging, Resource, TimeFormat, WindowKind
from connectors.http.seen import DIGEST_CHARS, Seen
from connectors.http.window import Window
from connectors.json_path import JsonPath, is_path
from connectors.mapping import BatchBuilder, RecordConfig, RecordMapper, by_effective_at
from connectors.ports import Clock
from connectors.record import RecordReader, spell
from connectors.source import Batch, Cursor, Rejection
from schemas.errors import RecordRejected, SourceChanged, SourceMisconfigured, SourceUnavailable

_BATCH = 1_000  # records of one batch; a page may have many more
_MOST_PASSES = 5  # readings of one window of which no two in a row agree
_QUIET_S = 300.0  # a place in time that moved less, over nothing new, is not worth a checkpoint
_IN_THREAD_BYTES = 131_072  # smaller answers are parsed in less time than the way to a thread takes
_SILENCE_S = 10.0  # of a source that reads, and finds what it knows
_SAMPLE = 100
_MOST_REFERENCE = 200
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one reading may take."""

    run_s: float = 300.0
    records: int = 100_000
    pages: int = 10_000


_WALKED = ("asked", "chain", "before", "passes", "revisits")


class Understanding:
    """How one resource's records are understood. `mapper` makes what reads the records of one page."""

    def __init__(self, config: RecordConfig, mapper: Callable[[], RecordMapper]) -> None:
        self.mapper = mapper
        self.timezone = config.timezone
        self.instant = RecordReader(config.rules).instant
        self.reference = _getter(config.columns.get("reference") or "reference")


@dataclass(frozen=True, slots=True)
class Walk:
    """
    One window while it is read. `chain` stands for the records of this pass so far, `before` for those of the last one.
    """

    window: Window | None
    read_at: datetime
    place: Place = field(default_factory=dict)
    asked: int = 0
    chain: str = ""
    before: str = ""
    passes: int = 0
    revisits: bool = False

    def next_pass(self) -> Walk:
        """The same window, from its first page."""
        return replace(self, place=FIRST, asked=0, chain="", before=self.chain, passes=self.passes + 1)

    def afresh(self) -> Walk:
        """The same window, as if nothing had been read of it."""
        return Walk(self.window, self.read_at, revisits=self.revisits)

    def json(self) -> dict[str, Any]:
        """As a cursor keeps it."""
        span = [self.window.begin.isoformat(), self.window.end.isoformat()] if self.window else None
        found = {name: getattr(self, name) for name in _WALKED}
        return {**found, "place": dict(self.place), "window": span, "read_at": self.read_at.isoformat()}

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Self:
        """What `json` kept."""
        span = kept["window"] and Window(*map(datetime.fromisoformat, kept["window"]))
        rest = {name: kept[name] for name in ("place", *_WALKED)}
        return cls(span, datetime.fromisoformat(kept["read_at"]), **rest)


_INSTANTS = ("until", "read_at", "revisited_at")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a resource stands: in time, in a feed's pages, in a window that is being read."""

    until: datetime | None = None
    read_at: datetime | None = None
    revisited_at: datetime | None = None
    place: Place = field(default_factory=dict)
    walk: Walk | None = None

    def cursor(self) -> dict[str, Any]:
        """As it goes through checkpoints."""
        kept: dict[str, Any] = {}
        kept |= {name: at.isoformat() for name in _INSTANTS if (at := getattr(self, name)) is not None}
        if self.place:
            kept["place"] = dict(self.place)
        if self.walk is not None:
            kept["walk"] = self.walk.json()
        return kept

    @classmethod
    def of(cls, cursor: Cursor | None) -> Self:
        """What `cursor` kept."""
        kept = cursor or {}
        instants = {name: datetime.fromisoformat(kept[name]) for name in _INSTANTS if name in kept}
        return cls(**instants, place=kept.get("place", {}), walk=Walk.of(kept["walk"]) if "walk" in kept else None)


class ResourceReader:
    """
    Reads one resource of one API (of one merchant, where it has several) for one task.

    `private` names parameters that hold credentials: they are taken out of addresses before those are kept.
    """

    def __init__(
        self,
        resource: Resource,
        understanding: Understanding,
        client: Client,
        url: URL,
        *,
        clock: Clock,
        seen: Seen,
        bounds: Bounds,
        merchant_code: str = "",
        private: frozenset[str] = frozenset(),
    ) -> None:
        self._resource = resource
        self._understanding = understanding
        self._client = client
        self._url = url
        self._clock = clock
        self._seen = seen
        self._bounds = bounds
        self._merchant_code = merchant_code
        self._private = private
        self._zone = ZoneInfo(understanding.timezone or "UTC")

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
                if batch.read or is_over or now_s - told_s >= _SILENCE_S or _is_worth_keeping(since, kept, standing):
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
        page, _ = await self._fetched(Walk(span, self._clock.now()))
        sheet = _Sheet(self._resource, self._understanding, Seen(), None)
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
        if walk.passes >= _MOST_PASSES:
            walk = walk.afresh()
        walked, resumed = self._new_walked(), bool(walk.place)
        while walk is not None:
            walked.enter(walk.place)
            try:
                page, answer = await self._fetched(walk)
            except SourceMisconfigured:
                if not resumed:
                    raise
                # the API does not know a place of an earlier life any more
                walk, walked, resumed = walk.afresh(), self._new_walked(), False
                continue
            resumed = False
            sheet = _Sheet(self._resource, self._understanding, self._seen, walk.window)
            for text in page.records():
                if sheet.is_full:
                    yield standing, sheet.batch(self._cursor(standing))
                sheet.add(text)
            walked.saw(sheet.names)
            walk = replace(walk, asked=walk.asked + 1, chain=_chained(walk.chain, sheet.names))
            onward = self._onward(walk, page, answer, sheet)
            if onward is None:
                standing = self._ended(standing, walk, page, answer, sheet)
            else:
                standing = replace(standing, walk=onward)
                walked = walked if onward.passes == walk.passes else self._new_walked()
            walk = onward
            yield standing, sheet.batch(self._cursor(standing))

    def _onward(self, walk: Walk, page: Page, answer: Answer, sheet: _Sheet) -> Walk | None:
        """The walk at its next page, or at its first one again; None if it is through."""
        place = paging.following(self._resource, walk.place, page, answer, last=sheet.last)
        if place is not None:
            return replace(walk, place=self._without_private(place))
        if not self._resource.drifts or walk.asked == 1 or not walk.chain or walk.chain == walk.before:
            return None
        if walk.passes + 1 >= _MOST_PASSES:
            raise SourceChanged(
                f"{self._resource.name}: the list was another one at each of {_MOST_PASSES} readings",
                hint="shorter windows (window_s) have fewer pages; members that differ each time are named in volatile",
            )
        return walk.next_pass()

    def _ended(self, before: Standing, walk: Walk, page: Page, answer: Answer, sheet: _Sheet) -> Standing:
        """The walk is through: time moves on, a feed keeps its place."""
        if self._resource.window is WindowKind.FEED:
            place = paging.resting(self._resource, walk.place, page, answer, last=sheet.last)
            return Standing(place=self._without_private(place))
        if walk.window is None:
            return Standing()
        return Standing(walk.window.end, walk.read_at, walk.read_at if walk.revisits else before.revisited_at)

    async def _fetched(self, walk: Walk) -> tuple[Page, Answer]:
        answer = await self._client.fetch(self._call(walk))
        if answer.body.strip() and not pages.is_json(answer.content_type):
            raise SourceUnavailable(
                f"the answer is {answer.content_type[:64]}, not JSON: {excerpt(answer.body, answer.secrets)}",
                hint="a page for people often means that a login or a proxy stands in the way",
            )
        parse = partial(pages.parse, answer.body, self._resource.records, most=self._bounds.records)
        page = await asyncio.to_thread(parse) if len(answer.body) > _IN_THREAD_BYTES else parse()
        failure = page.value(self._resource.failure)
        if failure not in (None, False, "", 0, [], {}):
            told = excerpt(spell(failure).encode("utf-8", "replace"), answer.secrets)
            raise SourceUnavailable(f"the answer says that it failed: {told}", hint="its status was 200 all the same")
        return page, answer

    def _call(self, walk: Walk) -> Call:
        resource, place = self._resource, walk.place
        if "url" in place:
            url = URL(place["url"])
            if not address.same_origin(self._url, url):
                raise SourceMisconfigured(f"the next page was at {address.shown(url)}, which is not the API's origin")
            return Call(url, resource.method)
        values = paging.values_of(place, resource)
        values["merchant_code"] = self._merchant_code or None
        if walk.window is not None:
            begin, end = (at.astimezone(self._zone) for at in walk.window)
            last = end - _SECOND if resource.time_format is TimeFormat.DATE else end
            values |= {"from": resource.spell(begin), "to": resource.spell(last), "date": begin.date().isoformat()}
            if resource.paging is Paging.KEYSET and values["after_time"] is None:
                values["after_time"] = values["from"]
        return request.call(
            self._url,
            method=resource.method,
            path=resource.path,
            query=resource.query,
            body=resource.body,
            values=values,
        )

    def _without_private(self, place: Place) -> Place:
        if "url" not in place:
            return place
        return {"url": str(address.without(URL(place["url"]), self._private))}

    def _new_walked(self) -> Walked:
        return Walked(most_pages=self._bounds.pages)


class _Sheet:
    """
    What becomes of one page's records; those that were seen before go no further. `names` tells all of them, in order,
    by the provider's references: a record that only changes in its place is no drift.
    """

    def __init__(self, resource: Resource, understanding: Understanding, seen: Seen, span: Window | None) -> None:
        self._builder = BatchBuilder(understanding.mapper())
        self._seen = seen
        self._volatile = resource.volatile
        self._instant = understanding.instant
        self._time = JsonPath.parse(resource.time).of if resource.time else None
        self._reference = understanding.reference
        # where the API knows no end, what is younger waits for its own window
        named = places_of([resource.path, resource.query, resource.body])
        self._end = span.end if span is not None and not named & {"to", "date"} else None
        self.names: list[str] = []
        self.last: Mapping[str, object] | None = None

    @property
    def is_full(self) -> bool:
        """Whether a batch should be made of it first."""
        return len(self._builder) >= _BATCH

    def batch(self, cursor: Cursor) -> Batch:
        """What was gathered since the last batch."""
        return self._builder.build(cursor)

    def add(self, text: str) -> None:
        """The next record's text."""
        try:
            record = parse_object(text)
        except RecordRejected as exc:
            digest = _digest(text)
            self.names.append(digest)
            if self._is_new(digest, None):
                raw = text.encode("utf-8", "surrogateescape")
                self._builder.reject(Rejection(f"~{digest}", exc.code, str(exc), raw))
            return
        self.last = record
        at = self._at(record)
        if self._end is not None and at is not None and at >= self._end:
            return
        digest = _digest(self._canonical(record))
        reference = str(self._reference(record) or "")[:_MOST_REFERENCE]
        self.names.append(reference or digest)
        if self._is_new(digest, at):
            position = f"{reference}~{digest}"
            self._builder.add(record, position=position, raw=text.encode(), revision=by_effective_at)

    def _is_new(self, digest: str, at: datetime | None) -> bool:
        if digest in self._seen:
            return False
        self._seen.add(digest, at)
        return True

    def _at(self, record: Mapping[str, object]) -> datetime | None:
        """The time by which the API chooses; a record whose time cannot be read is of no time."""
        if self._time is None:
            return None
        try:
            return self._instant(self._time(record))
        except RecordRejected:
            return None

    def _canonical(self, record: Mapping[str, object]) -> str:
        """The same text for the same content, however it is spaced and in whatever order its members come."""
        if self._volatile:
            record = {name: value for name, value in record.items() if name not in self._volatile}
        return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_number)


def _number(value: object) -> object:
    """A number with a fraction, told apart from the same text in quotes."""
    return {"": str(value)}


def _digest(text: str) -> str:
    """Short, but of 200 000 records no two share one by chance in this world's time."""
    whole = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(whole)[:DIGEST_CHARS].decode()


def _chained(chain: str, names: Sequence[str]) -> str:
    if not names:
        return chain
    return hashlib.sha256(json.dumps([chain, *names]).encode()).hexdigest()[:32]


def _getter(column: str) -> Callable[[Mapping[str, object]], object]:
    return JsonPath.parse(column).of if is_path(column) else lambda record: record.get(column)


def _is_worth_keeping(since: Cursor | None, kept: Standing, standing: Standing) -> bool:
    """Whether a place that was reached without a new record should be kept all the same."""
    if standing.walk is not None:
        return False
    if since is None or kept.walk is not None or kept.until is None or standing.until is None:
        return kept != standing or since is None
    return (standing.until - kept.until).total_seconds() >= _QUIET_S
