"""
Workers that are killed while they ask an API: in each phase of a poll, in the request for a token, in the second
reading of a list that moves. The payments are those of the gateway.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter

from aiohttp import web

from connectors import http_api
from tests.faults import oracle
from tests.faults.stage import CONNECTORS_SOON, Stage, Worker, until
from tillstream.control import connector, run
from tillstream.control.run import RunStatus
from tillstream.embedded import gateway
from tillstream.embedded.gateway import Gateway
from tillstream.embedded.gateway_book import WrittenBook

ROUND, PAGE = 120, 25
KILLS = ("after_publish=kill@2", "before_checkpoint=kill@4")  # after_checkpoint is tests/faults/test_connector.py's

READING = {**CONNECTORS_SOON, "secret_client": gateway.CLIENT_ID, "secret_client_secret": gateway.CLIENT_SECRET}


def resource(name: str, **options: object) -> dict[str, object]:
    return {
        "name": name,
        "records": "$.data",
        "page_size": PAGE,
        "time": "$.created_at",
        "time_format": "unix_s",
        "settle_s": 0,
        "overlap_s": 120,
        **options,
    }


CONFIGURATION = {
    "allow_networks": ["127.0.0.0/8"],
    "poll_s": 0.1,
    "checkpoint_s": 0,
    "error_backoff_s": 0.1,
    "date_format": "unix_s",
    "type": "payin",
    "columns": {"reference": "id", "asset": "currency"},
    "status_map": {"captured": "succeeded"},
    "authentication_type": "oauth2",
    "client_id": "${env:TILL_SECRET_CLIENT}",
    "client_secret": "${env:TILL_SECRET_CLIENT_SECRET}",
    "resources": [
        resource(
            "by-offset",
            path="/lists/oauth2/offset",
            paging="offset",
            query={"from": "{from}", "to": "{to}", "size": "{size}", "offset": "{offset}"},
        ),
        resource(
            "by-cursor",
            path="/lists/oauth2/cursor",
            paging="cursor",
            next="$.next_cursor",
            query={"from": "{from}", "to": "{to}", "size": "{size}", "cursor": "{cursor}"},
        ),
    ],
}


async def test_workers_killed_in_each_phase_of_a_poll_lose_no_payment_and_double_none(stage: Stage) -> None:
    book = WrittenBook()
    async with Gateway(book) as server:
        configuration = {**CONFIGURATION, "api_base_url": server.url, "token_url": f"{server.url}/oauth/token"}
        await connector.create(stage.pool, name="gateway", spec=http_api.SPEC, configuration=configuration)
        others = [stage.worker(role, role=role, **CONNECTORS_SOON) for role in ("sink", "monitor", "letters")]
        for number, failpoint in enumerate(KILLS):
            victim = stage.worker(f"victim-{number}", role="connector", failpoints=failpoint, **READING)
            _grow(book)
            assert await victim.ended() == -signal.SIGKILL, failpoint
        for name, kill in KILLERS.items():
            _grow(book)
            victim = stage.worker(f"victim-{name}", role="connector", **READING)
            kill(server, book, victim)
            assert await victim.ended() == -signal.SIGKILL, name
        survivor = stage.worker("survivor", role="connector", **READING)
        _grow(book)

        expected = {row["id"]: row["amount"] for row in book.payment_rows.values()}
        await until(lambda: _is_stored(stage, expected), within_s=60, what="both lists' payments are there")
        await until(lambda: _all_ended(stage), within_s=60, what="every run has ended")

        log = [json.loads(record.value) for record in await oracle.records_of(stage.bootstrap, stage.events)]
        assert len({event["id"] for event in log}) == 2 * len(expected) < len(log)
        statuses = {each.status for each in await run.list_runs(stage.pool)}
        assert RunStatus.SUCCESS in statuses
        assert RunStatus.PARTIAL_SUCCESS not in statuses
        for worker in (survivor, *others):
            assert await worker.stop() == 0


def _grow(book: WrittenBook, count: int = ROUND, *, age_s: int | None = None) -> None:
    now, known = int(time.time()), len(book.payment_rows)
    for n in range(known, known + count):
        row = {"id": f"pay-{n:05}", "amount": 100 + n, "currency": "EUR", "status": "captured"}
        book.write({**row, "created_at": now - (n % 60 if age_s is None else age_s)})


def _kill(server: Gateway, victim: Worker) -> None:
    server.between_pages = lambda: None
    victim.send(signal.SIGKILL)


def in_the_request_for_a_token(server: Gateway, book: WrittenBook, victim: Worker) -> None:
    async def ask(request: web.Request) -> web.Response:
        _kill(server, victim)
        return web.Response(status=500)

    server.misbehave("/oauth/token", handler=ask)


def before_its_first_page(server: Gateway, book: WrittenBook, victim: Worker) -> None:
    server.between_pages = lambda: _kill(server, victim)


def in_the_second_reading_of_a_list_that_moves(server: Gateway, book: WrittenBook, victim: Worker) -> None:
    """A row turns up in the midst of the first reading, so that no reading agrees with it."""
    before, known = len(server.asked), len(book.payment_rows)

    def look() -> None:
        begun = Counter(
            (each.query["from"], each.query["to"])
            for each in list(server.asked)[before:]
            if each.path.endswith("/offset") and each.query["offset"] == "0"
        )
        readings = max(begun.values(), default=0)
        if readings == 1 and len(book.payment_rows) == known:
            _grow(book, 1, age_s=50)
        if readings == 2:
            _kill(server, victim)

    server.between_pages = look


KILLERS = {
    "token": in_the_request_for_a_token,
    "page": before_its_first_page,
    "second-reading": in_the_second_reading_of_a_list_that_moves,
}


async def _is_stored(stage: Stage, expected: dict[str, int]) -> bool:
    rows = await stage.pool.fetch("SELECT reference, amount FROM payments")
    # each of the two resources reads each payment, as an event of its own
    events = await stage.pool.fetchval("SELECT count(*) FROM payment_events")
    return {row["reference"]: row["amount"] for row in rows} == expected and events == 2 * len(expected)


async def _all_ended(stage: Stage) -> bool:
    return all(each.status is not RunStatus.RUNNING for each in await run.list_runs(stage.pool))
