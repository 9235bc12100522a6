"""
A payment gateway that is none: an HTTP server on loopback for the demonstration and for tests.

    /v1/payments, /v1/refunds                    as Razorpay's: basic, from, to, count, skip, newest first
    /SabPaisaReport/REST/SettlePaisa/txnData/…   as SabPaisa's: knows who may come by the address
    /lists/{auth}/{paging}                       one list behind every kind of credentials, in every way of paging
    /oauth/token                                 tokens for the lists behind `oauth2`

It checks each header itself and trusts no client. It can limit rates, let tokens expire, change its rows between two
pages (`between_pages`) and misbehave when told to (`misbehave`). It shares no code with the source that reads it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from tillstream.embedded.gateway_book import Book, Row, report
from tillstream.embedded.port import LOOPBACK

KEY_ID = "rzp_test_tillstream"
KEY_SECRET = "gateway-demo-secret"  # noqa: S105 of a server that listens on loopback and has nothing
BEARER = "gateway-demo-token"
API_KEY = "gateway-demo-key"
CLIENT_ID = "gateway-demo-client-id"
CLIENT_SECRET = "gateway-demo-client"  # noqa: S105
KEY_ID_FILE, KEY_SECRET_FILE = "gateway/key_id", "gateway/key_secret"
_MOST_PER_PAGE = 100
_REPORT = "/SabPaisaReport/REST/SettlePaisa/txnData"
_MOST_LOGGED = 10_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came, and what it got."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    status: int


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """An answer in place of the right one. `handler` may do what no answer does."""

    prefix: str
    status: int = 200
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    handler: Handler | None = None


class Gateway:
    """
    The server. `allowed` are the addresses that the report is for; `requests_per_s` beyond which it says 429;
    `token_life_s` of the tokens it gives.
    """

    def __init__(
        self,
        book: Book,
        *,
        clock: Callable[[], float] = time.time,
        allowed: tuple[str, ...] = (LOOPBACK,),
        requests_per_s: float = 0.0,
        token_life_s: float = 3_600.0,
    ) -> None:
        self.book = book
        self.allowed = allowed
        self.requests_per_s = requests_per_s
        self.token_life_s = token_life_s
        self.asked: deque[Asked] = deque(maxlen=_MOST_LOGGED)
        self.tokens_given = 0
        # what to do after each page of a list, before the next request: rows come, go and change
        self.between_pages: Callable[[], None] = lambda: None
        self._clock = clock
        self._tokens: dict[str, float] = {}
        self._times: deque[float] = deque()
        self._misbehaviours: deque[Misbehaviour] = deque()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, port: int = 0) -> Self:
        """Listen on loopback; `url` tells where."""

        @web.middleware
        async def judge(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._judge(request, handler)

        app = web.Application(middlewares=[judge])
        app.router.add_get("/v1/payments", self._payments)
        app.router.add_get("/v1/refunds", self._refunds)
        app.router.add_get(_REPORT + "/{begin}/{end}/{code}", self._report)
        app.router.add_post("/oauth/token", self._token)
        app.router.add_get("/lists/{auth}/{paging}", self._list)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, port)
        await site.start()
        self.url = f"http://{LOOPBACK}:{self._runner.addresses[0][1]}"
        return self

    async def stop(self) -> None:
        """Hang up on everybody."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def report_url(self) -> str:
        """Where the daily report stands."""
        return self.url + _REPORT

    def misbehave(self, prefix: str, *, times: int = 1, **answer: Any) -> None:
        """Answer so at the next requests below `prefix`; see `Misbehaviour`."""
        self._misbehaviours.extend([Misbehaviour(prefix, **answer)] * times)

    def expire_tokens(self) -> None:
        """No token that was given holds any more."""
        self._tokens.clear()

    # Every request.

    async def _judge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse = web.Response(status=500)
        try:
            response = await self._answered(request, handler)
        except web.HTTPException as exc:
            response = web.Response(status=exc.status, text=exc.text, content_type="application/json")
        finally:
            seen = Asked(request.method, request.path, dict(request.query), dict(request.headers), response.status)
            self.asked.append(seen)
        return response

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        for told in self._misbehaviours:
            if request.path.startswith(told.prefix):
                self._misbehaviours.remove(told)
                if told.handler is not None:
                    return await told.handler(request)
                return web.Response(
                    status=told.status, text=told.text, headers=told.headers, content_type=told.content_type
                )
        if self._is_too_fast():
            return web.json_response({"error": "too fast"}, status=429, headers={"Retry-After": "1"})
        return await handler(request)

    def _is_too_fast(self) -> bool:
        if not self.requests_per_s:
            return False
        now = self._clock()
        while self._times and self._times[0] <= now - 1:
            self._times.popleft()
        if len(self._times) >= self.requests_per_s:
            return True
        self._times.append(now)
        return False

    # Razorpay's.

    async def _payments(self, request: web.Request) -> web.Response:
        return self._collection(request, self.book.payments)

    async def _refunds(self, request: web.Request) -> web.Response:
        return self._collection(request, self.book.refunds)

    def _collection(self, request: web.Request, rows_of: Callable[[int, int, float], list[Row]]) -> web.Response:
        _check_basic(request, KEY_ID, KEY_SECRET)
        now = self._clock()
        begin = _whole(request, "from", 0)
        end = _whole(request, "to", int(now))
        count = _whole(request, "count", 10)
        skip = _whole(request, "skip", 0)
        if not 1 <= count <= _MOST_PER_PAGE:
            raise _bad(f"The count must be at least 1 and at most {_MOST_PER_PAGE}.")
        rows = rows_of(begin, end, now)[::-1][skip : skip + count]
        self.between_pages()
        return web.json_response({"entity": "collection", "count": len(rows), "items": rows})

    # SabPaisa's.

    async def _report(self, request: web.Request) -> web.Response:
        if request.remote not in self.allowed:
            raise _refused("IP not whitelisted")
        try:
            begin, end = (date.fromisoformat(request.match_info[name]) for name in ("begin", "end"))
        except ValueError:
            raise _bad("dates are YYYY-MM-DD") from None
        last = min(end, datetime.fromtimestamp(self._clock(), UTC).date())
        days = [begin + timedelta(days=n) for n in range((last - begin).days + 1)]
        return web.json_response([row for of in days for row in report(of, request.match_info["code"])])

    # Every kind of credentials, every way of paging.

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("grant_type") != "client_credentials":
            raise _bad("unsupported_grant_type")
        if "client_secret" in form:
            if (form.get("client_id"), form["client_secret"]) != (CLIENT_ID, CLIENT_SECRET):
                raise _refused("invalid_client")
        else:
            _check_basic(request, CLIENT_ID, CLIENT_SECRET)
        await asyncio.sleep(0.01)  # long enough for others to ask meanwhile, if they would
        token = secrets.token_urlsafe(16)
        self._tokens[token] = self._clock() + self.token_life_s
        self.tokens_given += 1
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": self.token_life_s})

    async def _list(self, request: web.Request) -> web.Response:
        self._check(request, request.match_info["auth"])
        by = request.query.get("by", "created_at")
        rows = self.book.payments(0, 2**40, self._clock())
        begin, end = _whole(request, "from", 0), _whole(request, "to", 2**40)
        rows = sorted((row for row in rows if begin <= row[by] < end), key=lambda row: (row[by], row["id"]))
        if request.query.get("order") == "desc":
            rows.reverse()
        size = min(_whole(request, "size", 10), _MOST_PER_PAGE)
        answer = _PAGERS[request.match_info["paging"]](request, rows, size, by)
        self.between_pages()
        return answer

    def _check(self, request: web.Request, kind: str) -> None:
        match kind:
            case "none":
                pass
            case "basic":
                _check_basic(request, KEY_ID, KEY_SECRET)
            case "bearer":
                if not _same(request.headers.get("Authorization", ""), f"Bearer {BEARER}"):
                    raise _refused("bad token")
            case "header":
                if not _same(request.headers.get("X-Api-Key", ""), API_KEY):
                    raise _refused("bad key")
            case "query":
                if not _same(request.query.get("key", ""), API_KEY):
                    raise _refused("bad key")
            case "oauth2":
                token = request.headers.get("Authorization", "").removeprefix("Bearer ")
                if self._tokens.get(token, 0.0) <= self._clock():
                    raise _refused("token expired")
            case _:
                raise web.HTTPNotFound


def configurations(url: str) -> dict[str, dict[str, Any]]:
    """
    What connectors of kind `http_api` need to read this gateway at `url`, by name: a list that grows, a daily report.

    Their secrets stand in the files that `place_secrets` writes.
    """
    local = {"allow_networks": [f"{LOOPBACK}/32"], "poll_s": 1.0}
    credentials = {"username": f"${{file:{KEY_ID_FILE}}}", "password": f"${{file:{KEY_SECRET_FILE}}}"}
    # the template's times are a real provider's; whoever watches a demonstration waits less
    lists = [{"name": name, "settle_s": 0, "overlap_s": 60} for name in ("payments", "refunds")]
    return {
        "razorpay": {
            "template": "razorpay",
            "api_base_url": f"{url}/v1",
            "resources": lists,
            **credentials,
            **local,
        },
        "sabpaisa": {"template": "sabpaisa", "api_base_url": f"{url}{_REPORT}", **local},
    }


def place_secrets(folder: Path) -> None:
    """Put what the gateway wants to hear where workers look for secrets: `secrets` in their home."""
    for name, value in ((KEY_ID_FILE, KEY_ID), (KEY_SECRET_FILE, KEY_SECRET)):
        path = folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(value)
        path.chmod(0o600)


def _paged(request: web.Request, rows: list[Row], size: int, by: str) -> web.Response:  # noqa: ARG001 as the others
    page = _whole(request, "page", 1)
    return web.json_response({"data": rows[(page - 1) * size : page * size], "pages": -(-len(rows) // size)})


def _skipped(request: web.Request, rows: list[Row], size: int, by: str) -> web.Response:  # noqa: ARG001
    skip = _whole(request, "offset", 0)
    return web.json_response({"data": rows[skip : skip + size]})


def _by_cursor(request: web.Request, rows: list[Row], size: int, by: str) -> web.Response:
    """As an API does whose cursor is the last row's place in the order, hidden."""
    found = rows
    if cursor := request.query.get("cursor"):
        try:
            at, last = json.loads(base64.urlsafe_b64decode(cursor))
        except (ValueError, binascii.Error):
            raise _bad("unknown cursor") from None
        found = [row for row in rows if (row[by], row["id"]) > (at, last)]
    page, more = found[:size], len(found) > size
    token = base64.urlsafe_b64encode(json.dumps([page[-1][by], page[-1]["id"]]).encode()).decode() if page else None
    return web.json_response({"data": page, "next_cursor": token if more else None, "has_more": more})


def _linked(request: web.Request, rows: list[Row], size: int, by: str) -> web.Response:  # noqa: ARG001
    skip = _whole(request, "offset", 0)
    headers = {}
    if skip + size < len(rows):
        url = request.url.update_query(offset=skip + size)
        headers["Link"] = f'<{request.url}>; rel="self", <{url}>; rel="next"'
    return web.json_response({"data": rows[skip : skip + size]}, headers=headers)


def _by_key(request: web.Request, rows: list[Row], size: int, by: str) -> web.Response:
    """Rows after (time, id); with a time alone, rows of that time too."""
    at, last = _whole(request, "after_time", 0), request.query.get("after_id")
    found = [row for row in rows if ((row[by], row["id"]) > (at, last) if last else row[by] >= at)]
    return web.json_response({"data": found[:size], "has_more": len(found) > size})


def _whole_list(request: web.Request, rows: list[Row], size: int, by: str) -> web.Response:  # noqa: ARG001
    return web.json_response(rows)


_PAGERS: Mapping[str, Callable[[web.Request, list[Row], int, str], web.Response]] = {
    "none": _whole_list,
    "page": _paged,
    "offset": _skipped,
    "cursor": _by_cursor,
    "link": _linked,
    "keyset": _by_key,
}


def _check_basic(request: web.Request, user: str, password: str) -> None:
    scheme, _, word = request.headers.get("Authorization", "").partition(" ")
    try:
        pair = base64.b64decode(word, validate=True).decode()
    except (ValueError, binascii.Error):
        pair = ""
    if scheme != "Basic" or not _same(pair, f"{user}:{password}"):  # Razorpay wants this very spelling
        raise _refused("Authentication failed")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _whole(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit():
        raise _bad(f"{name} must be an integer")
    return int(text)


def _bad(description: str) -> web.HTTPBadRequest:
    error = {"code": "BAD_REQUEST_ERROR", "description": description}
    return web.HTTPBadRequest(text=json.dumps({"error": error}), content_type="application/json")


def _refused(description: str) -> web.HTTPUnauthorized:
    error = {"code": "BAD_REQUEST_ERROR", "description": description}
    return web.HTTPUnauthorized(text=json.dumps({"error": error}), content_type="application/json")
