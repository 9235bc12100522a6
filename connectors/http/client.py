"""
One HTTP request, told as what it means: an answer, or the error that says what to do next.

Every address is resolved once, checked and then connected to as checked. Redirects are followed by hand, so that each
hop passes the same check and no credential leaves the origin that it is for.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson
from yarl import URL

from connectors.egress import guarded_connector
from connectors.http import address, body
from connectors.http.auth import Auth, Credentials
from connectors.http.pace import Pace
from connectors.http.redaction import excerpt, redacted
from connectors.network import Guard
from connectors.ports import Clock
from schemas import metric
from schemas.errors import SourceMisconfigured, SourceThrottled, SourceUnauthorised, SourceUnavailable, TillError
from schemas.metric import Meter

_MOST_REDIRECTS = 3
_MOST_CONNECTIONS = 8
_MOST_HEADER_BYTES = 8_190  # of one line; many lines are bounded by the library
_USER_AGENT = "tillstream"
_MOST_SAID = 160
_REDIRECTS = (301, 302, 303, 307, 308)
_KEEP_METHOD = (307, 308)
_UNAUTHORISED = (401, 403)
_THROTTLED = 429
_TRANSIENT = (408, 425)
_LOCATION = "Location"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one request may take, and how much may come of it."""

    connect_s: float = 10.0
    read_s: float = 20.0
    total_s: float = 45.0
    response_bytes: int = 32 * body.MIB
    retry_after_max_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request. A `form` or a `json` goes along with POST."""

    url: URL
    method: str = "GET"
    json: Any = None  # whatever the API wants
    form: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a 2xx brought. `url` is where it came from in the end."""

    url: URL
    content_type: str
    links: Mapping[str, URL]
    body: bytes
    secrets: frozenset[str]


class Client:
    """Asks one API, as one connector. `name` is what errors call it."""

    def __init__(
        self,
        *,
        name: str,
        auth: Auth,
        guard: Guard,
        tls: ssl.SSLContext,
        limits: Limits,
        pace: Pace,
        clock: Clock,
        meter: Meter,
    ) -> None:
        self._name = name
        self._auth = auth
        self._guard = guard
        self._tls = tls
        self._limits = limits
        self._pace = pace
        self._clock = clock
        self._meter = meter
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, call: Call) -> Answer:
        """
        The answer, once; credentials that the API refuses are renewed and shown a second time.

        Raises:
            SourceUnavailable, SourceThrottled: retry. SourceUnauthorised, SourceMisconfigured: pause.
        """
        await self._pace.turn()
        try:
            async with asyncio.timeout(self._limits.total_s):
                used = await self._auth.credentials()
                try:
                    return await self._counted(call, used)
                except _Refused as refusal:
                    if refusal.status != HTTPStatus.UNAUTHORIZED or not self._auth.refused(used):
                        raise refusal.error from None
                used = await self._auth.credentials()
                try:
                    return await self._counted(call, used)
                except _Refused as refusal:
                    raise refusal.error from None
        except TimeoutError:
            raise SourceUnavailable(
                f"timeout: {address.shown(call.url)} took more than {self._limits.total_s:g} s"
            ) from None

    async def fetch_open(self, call: Call, secrets: frozenset[str]) -> Answer:
        """The answer to a request that carries what it needs itself, such as one for a token."""
        try:
            return await self._counted(call, Credentials(secrets=secrets))
        except _Refused as refusal:
            raise refusal.error from None

    async def shown_credentials(self) -> str:
        """
        What requests carry, by name.

        Raises:
            SourceError: there is none, or it cannot be had now.
        """
        async with asyncio.timeout(self._limits.total_s):
            found = await self._auth.credentials()
        return ", ".join([*found.headers, *found.params]) or "none needed"

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()

    async def _counted(self, call: Call, used: Credentials) -> Answer:
        outcome = "ok"
        try:
            return await self._follow(call, used)
        except TillError as exc:
            outcome = exc.code
            raise
        except _Refused as refusal:
            outcome = refusal.error.code
            raise
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            self._meter.add(metric.HTTP_REQUESTS_TOTAL, connector=self._name, outcome=outcome)

    async def _follow(self, call: Call, used: Credentials) -> Answer:
        carried = used
        for _ in range(_MOST_REDIRECTS + 1):
            found = await self._send(call, carried)
            if isinstance(found, Answer):
                return found
            call, carried = _redirected(call, found, carried)
        raise SourceMisconfigured(f"{address.shown(call.url)} leads on and on", hint="name the last address itself")

    async def _send(self, call: Call, carried: Credentials) -> Answer | _Redirect:
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
        session = self._opened()
        try:
            async with session.request(call.method, url, data=data, headers=headers, allow_redirects=False) as response:
                return await self._judged(response, call.url, carried)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
            raise self._error(exc, call.url, carried) from None

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
        said = excerpt(content, used.secrets)
        message = f"API responded with status {status}: {_phrase(response)}"  # seed 003's words
        if status in _UNAUTHORISED:
            error = SourceUnauthorised(message)
            if said:
                error.hint = f"{error.hint}; it said: {said}"
            raise _Refused(status, error)
        after_s = _retry_after(response.headers.get("Retry-After"), self._clock)
        if status == _THROTTLED or (status == HTTPStatus.SERVICE_UNAVAILABLE and after_s):
            raise SourceThrottled(self._name, retry_after_s=min(after_s, self._limits.retry_after_max_s))
        told = f"{message}: {said}" if said else message
        if status >= 500 or status in _TRANSIENT:
            raise SourceUnavailable(told, hint="the API fails of itself; reading resumes when it works again")
        raise SourceMisconfigured(told, hint="compare the request's path and parameters with the API's documentation")

    def _error(self, exc: Exception, url: URL, used: Credentials) -> TillError:
        """What a failure below HTTP means."""
        where = address.shown(url)
        if isinstance(exc, aiohttp.ClientConnectorCertificateError):
            return SourceMisconfigured(
                f"{where}: the certificate is not accepted: {exc.certificate_error}",
                hint="is the host name right? A private authority is named in tls_authorities",
            )
        if isinstance(exc, aiohttp.ClientSSLError) and not isinstance(_cause(exc), ssl.SSLEOFError):
            return SourceMisconfigured(
                f"{where}: no TLS connection: {getattr(_cause(exc), 'reason', None) or 'the handshake failed'}",
                hint="does the server speak TLS 1.2 or newer, and want a client certificate?",
            )
        if isinstance(exc, aiohttp.InvalidURL):
            return SourceMisconfigured(f"{where} is no address that can be asked")
        if isinstance(exc, TimeoutError):
            phase = "connecting to" if isinstance(exc, aiohttp.ConnectionTimeoutError) else "reading from"
            return SourceUnavailable(f"timeout in {phase} {where}")
        if isinstance(exc, aiohttp.ClientResponseError):
            # what follows the colon are bytes of the answer
            return SourceUnavailable(f"{where}: the answer is not HTTP: {exc.message.partition(':')[0]}"[:_MOST_SAID])
        if isinstance(exc, aiohttp.ClientConnectorError):
            failed = exc.os_error
            return SourceUnavailable(f"{where}: cannot connect: {failed.strerror or type(failed).__name__}")
        said = redacted(str(exc).partition("\n")[0], used.secrets)[:_MOST_SAID]
        return SourceUnavailable(f"{where}: {type(exc).__name__}: {said}")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=guarded_connector(
                    self._guard, timeout_s=self._limits.connect_s, ssl=self._tls, limit_per_host=_MOST_CONNECTIONS
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=self._limits.total_s, connect=self._limits.connect_s, sock_read=self._limits.read_s
                ),
                auto_decompress=False,
                max_line_size=_MOST_HEADER_BYTES,
                max_field_size=_MOST_HEADER_BYTES,
            )
        return self._session


@dataclass(frozen=True, slots=True)
class _Redirect:
    status: int
    origin: URL
    location: str


class _Refused(Exception):
    """The API refuses the credentials."""

    def __init__(self, status: int, error: SourceUnauthorised) -> None:
        self.status = status
        self.error = error


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
    return replace(call, url=target, headers={}), Credentials(secrets=carried.secrets)


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for piece in response.content.iter_any():
        yield piece


def _retry_after(value: str | None, clock: Clock) -> float:
    """Seconds that the header asks for, in either of its forms: RFC 9110, 10.2.3. 0 where it says nothing."""
    if not value:
        return 0.0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        until = parsedate_to_datetime(value)
        return max(0.0, (until - clock.now()).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _phrase(response: aiohttp.ClientResponse) -> str:
    """The standard's words for a status, whatever the server calls it."""
    try:
        return HTTPStatus(response.status).phrase
    except ValueError:
        return excerpt((response.reason or "").encode(), (), limit=60) or "unknown"


def _cause(exc: aiohttp.ClientSSLError) -> BaseException | None:
    return getattr(exc, "os_error", None) or exc.__cause__
