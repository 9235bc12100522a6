"""
A small client of `/api/v1`: JSON in and out, pages, events.

Every POST has a key of its own, so that one whose answer was lost is sent again and makes nothing twice. What may be
sent again is, for some seconds: when the connection is lost, and when the API says that waiting helps. The address is
looked up each time, because a stack's API comes back on another port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import uuid4

import aiohttp
from yarl import URL

from tillstream.cli.address import Address, Find
from tillstream.cli.event_stream import Event, parsed
from tillstream.cli.problem import NO_ROUTE, ApiForeign, ApiProblem, ApiUnavailable, problem_of

BASE = "/api/v1"
PAGE = 200  # the largest that the API gives
MAX_BYTES = 64 * 2**20  # of one answer: the largest page has a tenth of it
PATIENCE_S = 15.0  # a stack's API that died is back within five
IN_PROGRESS_S = 120.0  # the first try of a request may still be at work: a trial takes a minute
CONNECT_S = 5.0
ANSWER_S = 120.0
SILENCE_S = 45.0  # of a stream that sends a comment every 15 s
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_IN_PROGRESS = "idempotency_in_progress"
_NOW_AND_THEN = frozenset({429, 503})
Result = TypeVar("Result")
Parameters = Mapping[str, object]
"""Query parameters: None is left out; texts, numbers, booleans, days and instants."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: what its JSON holds, None where there is none, and its ETag."""

    status: int
    # any JSON
    body: Any
    etag: str = ""


class Client:
    """
    Asks one API. Paths are below `/api/v1`.

    Its methods raise ApiProblem: it was refused. ApiUnavailable: nobody answers. ApiForeign: something else answers.
    """

    def __init__(self, find: Find, session: aiohttp.ClientSession, *, patience_s: float = PATIENCE_S) -> None:
        self._find, self._session, self._patience_s = find, session, patience_s
        self._has_answered = False

    # any JSON
    async def get(self, path: str, params: Parameters | None = None) -> Any:
        """What is there."""
        return (await self.ask("GET", path, params=params)).body

    # any JSON
    async def post(self, path: str, body: Any = None, *, params: Parameters | None = None, key: str = "") -> Any:
        """What became of it; under the same `key` it happens once."""
        headers = {"Idempotency-Key": key or uuid4().hex}
        return (await self.ask("POST", path, body=body, params=params, headers=headers)).body

    # any JSON
    async def put(self, path: str, body: Any, *, etag: str, params: Parameters | None = None) -> Any:
        """What it is now; refused if it is not what the ETag stands for any more."""
        return (await self.ask("PUT", path, body=body, params=params, headers={"If-Match": etag})).body

    # any JSON
    async def patch(self, path: str, body: Any, *, etag: str, params: Parameters | None = None) -> Any:
        """As `put`, with a merge patch."""
        return (await self.ask("PATCH", path, body=body, params=params, headers={"If-Match": etag})).body

    async def delete(self, path: str, *, etag: str = "", params: Parameters | None = None) -> None:
        """It is not there any more; with an ETag only if it is still what that stands for."""
        await self.ask("DELETE", path, params=params, headers={"If-Match": etag} if etag else {})

    # rows of JSON
    async def pages(
        self, path: str, params: Parameters | None = None, *, limit: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The elements of a list, page after page, at most `limit`. A page may be empty though more follow."""
        after: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(left, PAGE)
            body = await self.get(path, {**(params or {}), "limit": size, "after": after})
            rows = body.get("data") if isinstance(body, dict) else None
            if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
                raise self._foreign("its list is none")
            for row in rows[:left]:
                yield row
            if left is not None:
                left -= len(rows)
            after = body.get("next")
            if after is None:
                return

    # rows of JSON
    async def rows(
        self, path: str, params: Parameters | None = None, *, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """As `pages`, all at once."""
        return [row async for row in self.pages(path, params, limit=limit)]

    async def events(
        self, path: str = "/events", params: Parameters | None = None, *, last_event_id: str | None = None
    ) -> AsyncGenerator[Event]:
        """
        Events as they come, without end; after a lost connection from where it was lost, so that none is missed.

        `alive` ones tell that the stream stands; they have no data.
        """
        last, pauses = last_event_id, _Pauses()
        while True:
            try:
                async with self._stream(path, params, last) as lines:
                    async for event in parsed(lines):
                        last = event.id or last
                        if not event.alive:
                            pauses.again()
                        yield event
            except ApiProblem as exc:
                if exc.retry_after_s <= 0:
                    raise
                await asyncio.sleep(exc.retry_after_s)
                continue
            except ApiUnavailable:
                pass
            await asyncio.sleep(pauses.next())

    # any JSON
    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Parameters | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, sent again while that is safe and may help."""
        is_safe = method in ("GET", "POST")  # a POST has its key
        began, pauses = time.monotonic(), _Pauses()
        while True:
            patience_s = self._patience_s
            error: ApiUnavailable | ApiProblem
            try:
                return await self._once(method, path, body=body, params=params, headers=headers or {})
            except ApiUnavailable as exc:
                if not (is_safe or exc.unsent) or not (exc.comes_back or self._has_answered or not exc.unsent):
                    raise
                error, pause_s = exc, pauses.next()
            except ApiProblem as exc:
                if not is_safe or exc.retry_after_s <= 0 or not _may_pass(exc):
                    raise
                error, pause_s = exc, exc.retry_after_s
                patience_s = max(patience_s, IN_PROGRESS_S) if exc.code == _IN_PROGRESS else patience_s
            if time.monotonic() - began + pause_s > patience_s:
                raise error
            await asyncio.sleep(pause_s)

    # any JSON
    async def _once(
        self, method: str, path: str, *, body: Any, params: Parameters | None, headers: Mapping[str, str]
    ) -> Answer:
        address = self._find()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S)
        data = None if body is None else json.dumps(body).encode()
        headers = {**headers, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        with _told(address):
            async with self._session.request(
                method,
                _url(address, path, params),
                headers=headers,
                allow_redirects=False,
                timeout=timeout,
                data=data,
            ) as answer:
                raw = await _read(answer, address)
                self._has_answered = True
                return _judged(answer, raw, address)

    @contextlib.asynccontextmanager
    async def _stream(
        self, path: str, params: Parameters | None, last: str | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        address = self._find()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        headers = {"Accept": "text/event-stream", **({} if last is None else {"Last-Event-ID": last})}
        with _told(address):
            async with self._session.get(
                _url(address, path, params), headers=headers, allow_redirects=False, timeout=timeout
            ) as answer:
                if answer.status != 200:
                    _judged(answer, await _read(answer, address), address)
                if answer.content_type != "text/event-stream":
                    raise _foreign_of(address, f"it sends {answer.content_type} where events are asked for")
                yield answer.content.iter_any()

    def _foreign(self, problem: str) -> ApiForeign:
        return _foreign_of(self._find(), problem)


async def using(find: Find, work: Callable[[Client], Awaitable[Result]]) -> Result:
    """What `work` makes of a client that is closed again."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        return await work(Client(find, session))


class _Pauses:
    """Longer and longer, up to a bound."""

    def __init__(self) -> None:
        self._next_s = _FIRST_PAUSE_S

    def next(self) -> float:
        """Seconds until the next try."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, _LONGEST_PAUSE_S)
        return pause_s

    def again(self) -> None:
        """Begin with a short one."""
        self._next_s = _FIRST_PAUSE_S


def _may_pass(problem: ApiProblem) -> bool:
    return problem.status in _NOW_AND_THEN or problem.code == _IN_PROGRESS


def _url(address: Address, path: str, params: Parameters | None) -> URL:
    query = urlencode([(name, _word(value)) for name, value in (params or {}).items() if value is not None])
    return URL(f"{address.url}{BASE}{path}{'?' if query else ''}{query}", encoded=True)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


async def _read(answer: aiohttp.ClientResponse, address: Address) -> bytes:
    chunks, size = [], 0
    async for chunk in answer.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise _foreign_of(address, f"its answer has more than {MAX_BYTES // 2**20} MiB")
    return b"".join(chunks)


def _judged(answer: aiohttp.ClientResponse, raw: bytes, address: Address) -> Answer:
    media = answer.content_type
    is_json = media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
    if answer.status == 204 and not raw:
        return Answer(204, None)
    if not is_json:
        kind = "no JSON" if not raw else f"{media} and no JSON"
        raise _foreign_of(address, f"it answers {answer.status} with {kind}")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise _foreign_of(address, f"it answers {answer.status} with JSON that is broken or cut") from exc
    if 200 <= answer.status < 300:
        return Answer(answer.status, body, answer.headers.get("ETag", ""))
    problem = problem_of(answer.status, body, answer.headers.get("Retry-After"))
    if problem is None:
        raise _foreign_of(address, f"it answers {answer.status} without a problem of this API's form")
    if str(problem) == NO_ROUTE:
        raise ApiForeign(
            f"the API at {address.url} has no {answer.method} {answer.url.path}: it is of another version",
            hint="use the `till` that belongs to it: `till version`",
        )
    raise problem


def _foreign_of(address: Address, problem: str) -> ApiForeign:
    return ApiForeign(f"{address.url} ({address.origin}) is not this API: {problem}")


@contextlib.contextmanager
def _told(address: Address) -> Iterator[None]:
    """What the library meets, as our errors."""
    where = f"{address.url} ({address.origin})"
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as exc:
        raise ApiForeign(f"{where} has no certificate that can be trusted", hint="is it the right address?") from exc
    except aiohttp.ClientConnectorError as exc:
        reason = exc.os_error.strerror or "it cannot be reached"
        raise ApiUnavailable(
            f"no API answers at {where}: {reason}", hint=address.hint, comes_back=address.comes_back
        ) from exc
    except aiohttp.ConnectionTimeoutError as exc:
        raise ApiUnavailable(
            f"no API answers at {where} within {CONNECT_S:.0f} s", hint=address.hint, comes_back=address.comes_back
        ) from exc
    except aiohttp.ClientResponseError as exc:
        raise _foreign_of(address, "what it sends is no HTTP that can be read") from exc
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        reason = "no answer in time" if isinstance(exc, TimeoutError) else "the connection was lost"
        raise ApiUnavailable(
            f"{where}: {reason}", hint=address.hint, comes_back=address.comes_back, unsent=False
        ) from exc
