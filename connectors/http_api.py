"""
Payments from an API over HTTP: a gateway's lists, read page by page, poll by poll or day by day.

Nothing is lost that the API shows within `overlap_s` of its time, whatever moves between two pages; nothing counts
twice, because a record's id follows from the provider's reference and from what it says. docs/decisions/014-http.md
tells what each way of paging can promise.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property, partial
from typing import NamedTuple

from yarl import URL

from connectors.context import SourceContext
from connectors.http import address, auth, checking, tls, token
from connectors.http.about import EXAMPLE, NOTES
from connectors.http.auth import AuthKind
from connectors.http.body import MIB
from connectors.http.checking import Sample
from connectors.http.client import Client
from connectors.http.config import HttpApiConfig
from connectors.http.cursor import model as cursor_model
from connectors.http.fetch import Pages
from connectors.http.history import History
from connectors.http.pace import Pace
from connectors.http.page import Page
from connectors.http.reader import Bounds, ResourceReader
from connectors.http.resource import Resource, WindowKind
from connectors.http.seen import Seen
from connectors.http.sheet import Understanding
from connectors.http.verdict import Limits
from connectors.http.window import Calendar, Window, day, due_days
from connectors.network import Guard
from connectors.source import Batch, CheckStep, Cursor, Request, Skipped, Task
from connectors.spec import SourceSpec
from schemas.errors import SourceMisconfigured

_MOST_DAYS = 3_700
_MODES = ("direct", "proxy")


class _Part(NamedTuple):
    """A resource, of one merchant where it has several, and the name of its tasks."""

    name: str
    resource: Resource
    merchant_code: str


class _Work(NamedTuple):
    """What a task means: all that is new, or one window. `asked`: not by the calendar, but by somebody."""

    part: _Part
    span: Window | None = None
    asked: bool = False


class HttpApiSource:
    """Publishes what an API lists, each record once for each thing that it ever said."""

    def __init__(self, config: HttpApiConfig, context: SourceContext) -> None:
        self._config = config
        self._context = context
        self._seen: dict[str, Seen] = {}
        self._bounds = Bounds(config.run_s, config.max_pages)
        self._mappings = {each.name: config.mapping_of(each) for each in config.resources}
        self._oauth: auth.OAuth2 | None = None

    async def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:
        """One recurring task for each resource, and one for each day of those that go by the day."""
        yield [task for part in self._parts() for task in self._due(part, known)]

    async def requested(self, known: Mapping[str, Cursor], request: Request) -> AsyncIterator[Sequence[Task | Skipped]]:
        """The days that were asked for, each a task of its own; without days, what is due."""
        if request.since is None and request.until is None:
            async for page in self.tasks(known):
                yield page
            return
        today = self._context.clock.now().astimezone(self._config.zone).date()
        last = min(request.until or today, today)
        first = max(request.since or last, last - timedelta(days=_MOST_DAYS))
        for part in self._parts():
            if part.resource.window in (WindowKind.FEED, WindowKind.WHOLE):
                yield [Skipped(part.name, "has_no_days")]
                continue
            days = [first + timedelta(days=index) for index in range((last - first).days + 1)]
            yield [self._asked(part, of, request) for of in days]

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        """
        What is new of a resource, or one window of it.

        Raises:
            SourceError: as its disposition says.
        """
        work: _Work = task.context
        if work.span is None:
            reader = self._reader(work.part, self._seen.setdefault(task.key, Seen()))
            async for batch in reader.poll(since):
                yield batch
            return
        async for batch in self._reader(work.part, Seen()).read(work.span, since):
            yield Batch(batch.records, batch.rejections, {**batch.cursor, "asked": work.asked}, batch.filtered)

    async def check(self) -> Sequence[CheckStep]:
        """Find the host, connect, agree on TLS, have credentials, read a page and understand its records."""
        samples = [Sample(part.name, partial(self._sample, part)) for part in self._parts()]
        try:
            url = self._url
        except SourceMisconfigured as exc:
            return [CheckStep("know the address", ok=False, duration_s=0.0, detail=str(exc), hint=exc.hint)]
        return await checking.check(url, self._guard, self._tls.now, lambda: self._client, samples)

    async def close(self) -> None:
        """Let go of connections."""
        if self._oauth is not None:
            await self._oauth.close()
        if "_client" in self.__dict__:
            await self._client.close()

    # What there is to read.

    def _parts(self) -> list[_Part]:
        parts: list[_Part] = []
        for resource in self._config.resources:
            if resource.names_merchant:
                parts += [_Part(f"{resource.name}/{code}", resource, code) for code in self._config.merchant_codes]
            else:
                parts.append(_Part(resource.name, resource, ""))
        return parts

    def _due(self, part: _Part, known: Mapping[str, Cursor]) -> list[Task]:
        if part.resource.window is not WindowKind.DAY:
            name = part.name
            return [Task(name, name, part.resource.name, str(self._url), recurring=True, context=_Work(part))]
        config, calendar = self._config, self._calendar(part.resource)
        history = History.of(f"{part.name}/", known)
        days = due_days(
            self._context.clock.now(),
            calendar,
            back=config.sync_days_back,
            first=history.first_due,
            most=config.catch_up_days,
        )
        again = history.due_again(calendar, days[-1], part.resource.reread_days, most=config.catch_up_days)
        first_readings = [self._day(part, of, asked=False) for of in days]
        return first_readings + [self._day(part, of, asked=False, suffix=f"+{after}d") for of, after in again]

    def _calendar(self, resource: Resource) -> Calendar:
        return Calendar(self._config.zone, self._config.daily_at, resource.settle_s)

    def _asked(self, part: _Part, of: date, request: Request) -> Task:
        """A day that somebody asks for. One that has not settled is read as far as it has, and not done with that."""
        if day(of, self._config.zone).end <= self._settled(part.resource):
            return self._day(part, of, asked=True)
        return self._day(part, of, asked=True, suffix=f"@{request.id}")

    def _day(self, part: _Part, of: date, *, asked: bool, suffix: str = "") -> Task:
        span = day(of, self._config.zone)
        # one that is due has settled; the others have a name of their own for what is read of them
        settled = self._settled(part.resource)
        if span.end > settled > span.begin:
            span = Window(span.begin, settled)
        name = f"{part.name}/{of}{suffix}"
        return Task(name, name, part.resource.name, str(self._url), context=_Work(part, span, asked))

    def _settled(self, resource: Resource) -> datetime:
        return (self._context.clock.now() - timedelta(seconds=resource.settle_s)).replace(microsecond=0)

    # What it is read with. Made at the first use: a source that is only configured opens nothing.

    def _reader(self, part: _Part, seen: Seen) -> ResourceReader:
        config, resource = self._config, part.resource
        mapping = self._mappings[resource.name]
        pages = Pages(
            resource,
            self._client,
            self._url,
            zone=config.zone,
            most_records=config.max_records,
            secrets=self._context.secrets,
            merchant_code=part.merchant_code,
            private=self._auth.params,
        )
        understanding = Understanding(mapping, partial(mapping.mapper, self._context, resource.name))
        return ResourceReader(resource, pages, understanding, clock=self._context.clock, seen=seen, bounds=self._bounds)

    async def _sample(self, part: _Part) -> tuple[Page, Batch]:
        now, span, resource = self._context.clock.now(), None, part.resource
        if resource.window is WindowKind.ROLLING:
            span = Window(now - timedelta(seconds=resource.window_s), self._settled(resource))
        elif resource.window is WindowKind.DAY:
            span = day(self._calendar(resource).newest(now), self._config.zone)
        return await self._reader(part, Seen()).first_page(span)

    @cached_property
    def _url(self) -> URL:
        return address.parse(_base_url(self._config))

    @cached_property
    def _guard(self) -> Guard:
        return self._context.guard(self._config.allow_networks)

    @cached_property
    def _tls(self) -> tls.Contexts:
        config, context = self._config, self._context

        def read() -> tls.Pems:
            names = (config.tls_authorities, config.tls_certificate, config.tls_key)
            return tls.Pems(*map(context.secrets.resolve, names))

        return tls.Contexts(read, verify=config.verify_tls, production=context.production, clock=context.clock)

    @cached_property
    def _client(self) -> Client:
        config, context = self._config, self._context
        return Client(
            name=context.connector,
            auth=self._auth,
            guard=self._guard,
            tls=self._tls.now,
            limits=Limits(
                connect_s=config.connect_s,
                read_s=config.answer_s,
                total_s=config.request_s,
                response_bytes=config.max_response_mib * MIB,
                retry_after_max_s=config.retry_after_max_s,
            ),
            pace=Pace(config.requests_per_s, context.clock),
            clock=context.clock,
            meter=context.meter,
            production=context.production,
        )

    @cached_property
    def _auth(self) -> auth.Auth:
        found = self._plain_auth()
        if not self._config.request_headers:
            return found
        return auth.WithHeaders(found, self._context.secrets, self._config.request_headers)

    def _plain_auth(self) -> auth.Auth:
        config, secrets = self._config, self._context.secrets
        match config.authentication_type:
            case AuthKind.BASIC:
                return auth.basic(secrets, config.username, config.password)
            case AuthKind.BEARER:
                return auth.bearer(secrets, config.token)
            case AuthKind.API_KEY:
                return auth.api_key(secrets, config.api_key, name=config.api_key_name, place=config.api_key_place)
            case AuthKind.OAUTH2:
                self._oauth = auth.OAuth2(self._ask_for_token, clock=self._context.clock, secrets=secrets)
                return self._oauth
        return auth.no_auth()

    async def _ask_for_token(self) -> tuple[Mapping[str, object], frozenset[str]]:
        config, secrets = self._config, self._context.secrets
        return await token.ask(
            self._client,
            URL(config.token_url),
            client_id=secrets.resolve(config.client_id),
            client_secret=secrets.resolve(config.client_secret),
            place=config.client_place,
            scope=config.oauth_scope,
        )


SPEC = SourceSpec(
    kind="http_api",
    summary="Payments from an API over HTTP, such as a payment gateway's: polled, or a day at a time.",
    config=HttpApiConfig,
    factory=HttpApiSource,
    resumes_from="page in a frozen window of time; days by their date",
    takes_dates=True,
    cursor=cursor_model,
    example=EXAMPLE,
    notes=NOTES,
)


def _base_url(config: HttpApiConfig) -> str:
    """
    The address that is asked, or the proxy's.

    Raises:
        SourceMisconfigured: the worker's variable says what cannot be.
    """
    mode = os.environ.get(config.api_mode_variable, "") if config.api_mode_variable else ""
    mode = mode or config.api_mode
    if mode not in _MODES or (mode == "proxy" and not config.proxy_base_url):
        raise SourceMisconfigured(
            f"{config.api_mode_variable} is {mode[:32]!r}", hint="it is direct, or proxy with a proxy_base_url"
        )
    return config.proxy_base_url if mode == "proxy" else config.api_base_url
