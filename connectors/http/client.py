"""
One HTTP request, told as what it means: an answer, or the error that says what to do next.

Every address is resolved once, checked and then connected to as checked. Redirects are followed by hand, so that each
hop passes the same check and no credential leaves the origin that it is for.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson
from yarl import URL

from connectors.egress import guarded_connector
from connectors.http import address, body
from connectors.http.auth import Auth, Credentials
from connectors.http.pace import Pace
from connectors.http.redaction import excerpt
from connectors.http.verdict import Limits, Refused, failure, refusal
from connectors.network import Guard
from connectors.ports import Clock
from schemas import metric
from schemas.errors import SourceMisconfigured, SourceUnavailable, TillError
from schemas.metric import Meter

_MOST_REDIRECTS = 3
_MOST_HEADER_BYTES = 8_190  # of one line; many lines are bounded by the library
_USER_AGENT = "tillstream"
_MOST_SAID = 160
_REDIRECTS = (301, 302, 303, 307, 308)
_KEEP_METHOD = (307, 308)
_LOCATION = "Location"


@dataclass(frozen=True, slots=True)
class Call:
    """
    One request. A `form` or a `json` goes along with POST. `params` hold secrets, and so are no part of the address;
    `secrets` are those of the call itself, wherever it carries them.
    """

    url: URL
    method: str = "GET"
    json: Any = None  # whatever the API wants
    form: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a 2xx brought. `url` is where it came from in the end."""

    url: URL
    content_type: str
    links: Mapping[str, URL]
    body: bytes
    secrets: frozenset[str]


class Client:
    """
    Asks one API, as one connector. `name` is what errors call it; `tls` gives the context that holds now.

    In production no secret goes to an address without TLS, whatever carries it.
    """

    def __init__(
        self,
        *,
        name: str,
        auth: Auth,
        guard: Guard,
        tls: Callable[[], ssl.SSLContext],
        limits: Limits,
        pace: Pace,
        clock: Clock,
        meter: Meter,
        production: bool,
    ) -> None:
        self._name = name
        self._auth = auth
        self._guard = guard
        self._tls = tls
        self._limits = limits
        self._pace = pace
        self._clock = clock
        self._meter = meter
        self._production = production
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, call: Call) -> Answer:
        """
        The answer, once; credentials that the API refuses are renewed and shown a second time.

        Raises:
            SourceUnavailable, SourceThrottled: retry. SourceUnauthorised, SourceMisconfigured: pause.
        """
        budget = _Budget(self._limits.total_s)
        used = await self._auth.credentials()
        try:
            return await self._counted(call, used, budget)
        except Refused as refusal:
            if refusal.status != HTTPStatus.UNAUTHORIZED or not self._auth.refused(used):
                raise refusal.error from None
        used = await self._auth.credentials()
        try:
            return await self._counted(call, used, budget)
        except Refused as refusal:
            raise refusal.error from None

    async def fetch_open(self, call: Call) -> Answer:
        """The answer to a request that carries what it needs itself, such as one for a token."""
        try:
            return await self._counted(call, Credentials(), _Budget(self._limits.total_s))
        except Refused as refusal:
            raise refusal.error from None

    async def shown_credentials(self) -> str:
        """
        What requests carry, by name.

        Raises:
            SourceError: there is none, or it cannot be had now.
        """
        try:
            async with asyncio.timeout(self._limits.total_s):
                found = await self._auth.credentials()
        except TimeoutError:
            raise SourceUnavailable(f"timeout: no credentials within {self._limits.total_s:g} s") from None
        return ", ".join([*found.headers, *found.params]) or "none needed"

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()

    async def _counted(self, call: Call, used: Credentials, budget: _Budget) -> Answer:
        outcome = "ok"
        carried = Credentials(used.headers, {**used.params, **call.params}, used.secrets | call.secrets)
        try:
            return await self._follow(call, carried, budget)
        except TillError as exc:
            outcome = exc.code
            raise
        except Refused as refusal:
            outcome = refusal.error.code
            raise
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            self._meter.add(metric.HTTP_REQUESTS_TOTAL, connector=self._name, outcome=outcome)

    async def _follow(self, call: Call, carried: Credentials, budget: _Budget) -> Answer:
        for _ in range(_MOST_REDIRECTS + 1):
            found = await self._send(call, carried, budget)
            if isinstance(found, Answer):
                return found
            call, carried = _redirected(call, found, carried)
        raise SourceMisconfigured(f"{address.shown(call.url)} leads on and on", hint="name the last address itself")

    async def _send(self, call: Call, carried: Credentials, budget: _Budget) -> Answer | _Redirect:
        """One request, in its turn: a redirect's hop, a second attempt and one for a token are requests like others."""
        is_open = call.url.scheme != "https"
        if self._production and is_open and (call.secrets or (carried.secrets and (carried.headers or carried.params))):
            raise SourceMisconfigured(
                f"{address.shown(call.url)} would carry credentials in the clear", hint="use https://"
            )
        url = call.url.update_query(carried.params) if carried.params else call.url
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": body.ACCEPTED_ENCODINGS,
            "User-Agent": _USER_AGENT,
            **call.headers,
            **carried.headers,
        }
        data: bytes | Mapping[str, str] | None = call.form
        if call.json is not None:
            data, headers["Content-Type"] = orjson.dumps(call.json), "application/json"
        session, tls = self._opened(), True if is_open else self._tls()
        await self._pace.turn()
        try:
            async with (
                budget.bounds(),
                session.request(
                    call.method, url, data=data, headers=headers, allow_redirects=False, ssl=tls
                ) as response,
            ):
                return await self._judged(response, call.url, carried)
        except _BudgetSpent:
            raise SourceUnavailable(
                f"timeout: {address.shown(call.url)} took more than {self._limits.total_s:g} s"
            ) from None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
            raise failure(exc, address.shown(call.url), carried.secrets) from None

    async def _judged(self, response: aiohttp.ClientResponse, url: URL, used: Credentials) -> Answer | _Redirect:
        status = response.status
        if status in _REDIRECTS and _LOCATION in response.headers:
            return _Redirect(status, url, response.headers[_LOCATION])
        content = await body.read(
            _pieces(response),
            response.headers.get("Content-Encoding", ""),
            limit_bytes=self._limits.response_bytes,
        )
        if 200 <= status < 300:
            links = {name: link["url"] for name, link in response.links.items() if "url" in link}
            return Answer(url, response.content_type, {k: URL(str(v)) for k, v in links.items()}, content, used.secrets)
        raise refusal(
            response, excerpt(content, used.secrets), source=self._name, clock=self._clock, limits=self._limits
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=guarded_connector(self._guard, timeout_s=self._limits.connect_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._limits.connect_s, sock_read=self._limits.read_s
                ),
                auto_decompress=False,
                max_line_size=_MOST_HEADER_BYTES,
                max_field_size=_MOST_HEADER_BYTES,
            )
        return self._session


class _BudgetSpent(Exception):
    pass


class _Budget:
    """How long one answer may take in all, with redirects and a second attempt; waiting for a turn is not counted."""

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds

    @asynccontextmanager
    async def bounds(self) -> AsyncIterator[None]:
        """Raises _BudgetSpent where the body takes more than is left."""
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(self._left_s) as bounds:
                yield
        except TimeoutError:
            if bounds.expired():
                raise _BudgetSpent from None
            raise
        finally:
            self._left_s -= time.monotonic() - began_s


@dataclass(frozen=True, slots=True)
class _Redirect:
    status: int
    origin: URL
    location: str


def _redirected(call: Call, found: _Redirect, carried: Credentials) -> tuple[Call, Credentials]:
    """Where a redirect leads, and what may go along: credentials only to the origin that they are for."""
    try:
        target = address.parse(str(call.url.join(URL(found.location))))
    except ValueError as exc:
        raise SourceMisconfigured(f"{address.shown(call.url)} redirects to what {exc}") from None
    if address.is_downgrade(call.url, target):
        raise SourceMisconfigured(f"{address.shown(call.url)} redirects to an address without TLS")
    if call.method != "GET" and found.status not in _KEEP_METHOD:
        raise SourceMisconfigured(
            f"{address.shown(call.url)} redirects a POST to {address.shown(target)}", hint="name that address itself"
        )
    if address.same_origin(call.url, target):
        return replace(call, url=target), carried
    if call.method != "GET":
        raise SourceMisconfigured(
            f"{address.shown(call.url)} redirects a POST to another origin, {address.shown(target)}",
            hint="name that address itself",
        )
    return replace(call, url=target, headers={}, params={}, secrets=frozenset()), Credentials(secrets=carried.secrets)


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for piece in response.content.iter_any():
        yield piece
