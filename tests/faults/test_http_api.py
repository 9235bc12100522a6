"""Workers that are killed while they ask an API: in each phase of a poll, and the payments are those of the gateway."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

from connectors import http_api
from tests.faults import oracle
from tests.faults.stage import CONNECTORS_SOON, Stage, Worker, until
from tillstream.control import connector, run
from tillstream.control.run import RunStatus
from tillstream.embedded.gateway import Gateway
from tillstream.embedded.gateway_book import WrittenBook

ROUND, PAGE = 120, 25
KILLS = ("after_publish=kill@2", "before_checkpoint=kill@4")  # after_checkpoint is tests/faults/test_connector.py's


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
    "resources": [
        resource(
            "by-offset",
            path="/lists/none/offset",
            paging="offset",
            query={"from": "{from}", "to": "{to}", "size": "{size}", "offset": "{offset}"},
        ),
        resource(
            "by-cursor",
            path="/lists/none/cursor",
            paging="cursor",
            next="$.next_cursor",
            query={"from": "{from}", "to": "{to}", "size": "{size}", "cursor": "{cursor}"},
        ),
    ],
}


async def test_workers_killed_in_each_phase_of_a_poll_lose_no_payment_and_double_none(stage: Stage) -> None:
    book = WrittenBook()
    async with Gateway(book) as server:
        configuration = {**CONFIGURATION, "api_base_url": server.url}
        await connector.create(stage.pool, name="gateway", spec=http_api.SPEC, configuration=configuration)
        others = [stage.worker(role, role=role, **CONNECTORS_SOON) for role in ("sink", "monitor", "letters")]
        for number, failpoint in enumerate(KILLS):
            victim = stage.worker(f"victim-{number}", role="connector", failpoints=failpoint, **CONNECTORS_SOON)
            _grow(book)
            assert await victim.ended() == -signal.SIGKILL, failpoint
        for answers in (1, 4):  # between two pages: it waits for one, or has it and reads it
            _grow(book)
            victim = stage.worker(f"victim-{answers}-answers", role="connector", **CONNECTORS_SOON)
            server.between_pages = _killing(victim, after=answers)
            assert await victim.ended() == -signal.SIGKILL
        server.between_pages = lambda: None
        survivor = stage.worker("survivor", role="connector", **CONNECTORS_SOON)
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


def _grow(book: WrittenBook) -> None:
    now, known = int(time.time()), len(book.payment_rows)
    for n in range(known, known + ROUND):
        row = {"id": f"pay-{n:05}", "amount": 100 + n, "currency": "EUR", "status": "captured"}
        book.write({**row, "created_at": now - n % 60})


def _killing(victim: Worker, *, after: int) -> Callable[[], None]:
    left = after

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            victim.send(signal.SIGKILL)

    return count


async def _is_stored(stage: Stage, expected: dict[str, int]) -> bool:
    rows = await stage.pool.fetch("SELECT reference, amount FROM payments")
    # each of the two resources reads each payment, as an event of its own
    events = await stage.pool.fetchval("SELECT count(*) FROM payment_events")
    return {row["reference"]: row["amount"] for row in rows} == expected and events == 2 * len(expected)


async def _all_ended(stage: Stage) -> bool:
    return all(each.status is not RunStatus.RUNNING for each in await run.list_runs(stage.pool))
