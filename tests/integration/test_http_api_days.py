"""The two templates and days: seed 003's connector as it is written there, Razorpay's lists, the calendar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from connectors import http_api
from connectors.context import SourceContext
from connectors.http_api import HttpApiConfig, HttpApiSource
from connectors.runner import Runner, State
from connectors.secret import GivenSecrets
from connectors.source import Cursor, Request, Skipped, Task
from connectors.testing import CONNECTOR, ManualClock, Memory, run_through
from schemas.errors import SourceMisconfigured
from tests.integration.http_kit import SteadyClock, answered, raw_server, source_of, tasks_of
from tillstream.embedded import gateway
from tillstream.embedded.gateway import Gateway
from tillstream.embedded.gateway_book import GrowingBook, WrittenBook

# seed 003, section "Default Connector: SabPaisa PG API"
CONNECTION_CONFIG: dict[str, Any] = {
    "api_base_url": "https://reportapi.sabpaisa.in/SabPaisaReport/REST/SettlePaisa/txnData",
    "authentication_type": "IP_WHITELIST",
    "merchant_codes": ["ALL"],
    "sync_days_back": 1,
    "auto_retry": True,
    "retry_count": 3,
}
TWO_AT_NIGHT = datetime(2025, 10, 2, 20, 30, tzinfo=UTC)  # 02:00 of the third, in India


class World:
    """A gateway, a clock, and what outlives a process."""

    def __init__(self, server: Gateway, clock: ManualClock) -> None:
        self.server = server
        self.clock = clock
        self.memory = Memory()
        self.epoch = 0

    def config(self, **options: Any) -> HttpApiConfig:
        local = {"api_base_url": self.server.report_url, "allow_networks": ["127.0.0.0/8"], "template": "sabpaisa"}
        return HttpApiConfig.model_validate({**CONNECTION_CONFIG, **local, **options})

    async def run(self, **options: Any) -> Runner:
        self.epoch += 1
        ports = self.memory.ports(self.clock)
        runner = Runner(CONNECTOR, http_api.SPEC, self.config(**options), ports, epoch=self.epoch)
        await run_through(runner, clock=self.clock)
        return runner

    def paths(self) -> list[str]:
        return [each.path.rpartition("txnData/")[2] for each in self.server.asked]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = SteadyClock(TWO_AT_NIGHT)
    async with Gateway(WrittenBook(), clock=lambda: clock.now().timestamp()) as server:
        yield World(server, clock)


def test_the_seeds_configuration_is_one() -> None:
    config = HttpApiConfig.model_validate(CONNECTION_CONFIG)

    assert (config.template, config.max_retries, config.timezone) == ("sabpaisa", 3, "Asia/Kolkata")
    assert [resource.name for resource in config.resources] == ["txnData"]


async def test_the_day_before_is_read_at_two_at_night_by_the_connectors_clock(world: World) -> None:
    await world.run()

    assert world.paths() == ["2025-10-02/2025-10-02/ALL"]
    assert world.memory.last_run.counts.published == 12
    event = world.memory.events[0]
    assert event.payment
    assert event.payment.model_dump(mode="json") == {
        "provider": "example",
        "reference": "SP000008874312",
        "parent_reference": None,
        "type": "payin",
        "status": "succeeded",
        "amount": event.payment.amount,
        "asset": "INR",
        "scheme": "UPI",
        "effective_at": "2025-10-02T03:30:07Z",
        "raw": event.payment.raw,
    }
    assert '"transaction_id":"SP000008874312"' in (event.payment.raw or "")
    assert event.headers == {"utr": event.headers["rrn"], "rrn": event.headers["rrn"], "client_code": "DEMO1"}


async def test_a_minute_before_two_it_is_not_due_yet(world: World) -> None:
    world.clock.advance(-60)

    await world.run()

    assert world.paths() == ["2025-10-01/2025-10-01/ALL"]


async def test_each_day_is_read_once_and_again_for_what_came_late(world: World) -> None:
    for _ in range(5):
        await world.run()
        await world.run()
        world.clock.advance(86_400)

    days = [path[:10] for path in world.paths()]
    assert days == [
        "2025-10-02",
        *("2025-10-03", "2025-10-02"),
        *("2025-10-04", "2025-10-03"),
        *("2025-10-05", "2025-10-02", "2025-10-04"),
        *("2025-10-06", "2025-10-03", "2025-10-05"),
    ]
    assert len(world.memory.event_ids) == 5 * 12


async def test_days_that_were_missed_are_made_up_for(world: World) -> None:
    await world.run()
    world.clock.advance(4 * 86_400)

    await world.run()

    assert {path[:10] for path in world.paths()} == {f"2025-10-0{day}" for day in range(2, 7)}
    assert len(world.memory.event_ids) == 5 * 12


async def test_what_should_have_been_read_again_while_nobody_ran_is_made_up_for_once(world: World) -> None:
    await world.run()
    world.clock.advance(6 * 86_400)

    for _ in range(3):
        await world.run()

    days = [path[:10] for path in world.paths()]
    assert days == ["2025-10-02", *(f"2025-10-0{day}" for day in range(3, 9)), "2025-10-02"]


async def test_days_that_were_read_late_are_not_read_again_for_what_they_hold_already(world: World) -> None:
    await world.run()
    world.clock.advance(2 * 86_400)
    await world.run()
    world.clock.advance(86_400)
    await world.run()

    days = [path[:10] for path in world.paths()]
    # the third came late enough to hold what its first rereading would have brought
    assert days == ["2025-10-02", "2025-10-03", "2025-10-04", "2025-10-02", "2025-10-05", "2025-10-02", "2025-10-04"]


async def test_a_rereading_is_made_up_for_as_long_as_a_day_is(world: World) -> None:
    await world.run()
    world.clock.advance(60 * 86_400)

    await world.run(catch_up_days=2)

    assert [path[:10] for path in world.paths()] == ["2025-10-02", "2025-11-30", "2025-12-01"]


@pytest.mark.parametrize("settle_h", [0, 6, 40])
async def test_a_day_is_asked_for_once_it_has_settled_and_then_whole(world: World, settle_h: int) -> None:
    asked: list[tuple[str, ...]] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        query = parse_qs(urlsplit(head.split()[1].decode()).query)
        asked.append((world.clock.now().isoformat()[:13], query["from"][0][:13], query["to"][0][:13]))
        writer.write(answered("[]"))

    config = {"path": "/list", "query": {"from": "{from}", "to": "{to}"}, "window": "day", "records": "$"}
    world.clock.advance(-20.5 * 3_600)  # midnight
    async with raw_server(answer) as url:
        resource = {**config, "settle_s": settle_h * 3_600, "time_format": "rfc3339"}
        async with source_of(url, resource, clock=world.clock) as source:
            known: dict[str, Cursor] = {
                f"payments/{day}": {"asked": False} for day in ("2025-09-29", "2025-09-30", "2025-10-01")
            }
            for _ in range(72):
                for task in await tasks_of(source, known):
                    if task.key not in known:
                        async for batch in source.read(task, None):
                            known[task.key] = batch.cursor
                world.clock.advance(3_600)

    due_at = datetime(2025, 10, 3, max(2, settle_h) % 24, tzinfo=UTC) + timedelta(days=settle_h // 24)
    assert asked[0] == (due_at.isoformat()[:13], "2025-10-02T00", "2025-10-03T00")


async def test_a_day_that_failed_is_tried_again_days_later(world: World) -> None:
    await world.run()
    world.clock.advance(86_400)
    world.server.misbehave("/Sab", times=50, status=503)
    await world.run()
    world.server._misbehaviours.clear()
    world.clock.advance(86_400)

    await world.run()

    assert len(world.memory.event_ids) == 3 * 12


async def test_what_fails_is_tried_three_times_more(world: World) -> None:
    world.server.misbehave("/Sab", times=50, status=502)

    runner = await world.run()

    assert len(world.server.asked) == 1 + 3
    assert world.memory.last_run.status == "FAILED"
    assert "API responded with status 502: Bad Gateway" in world.memory.last_run.reason
    assert runner.state is not State.PAUSED


@pytest.mark.parametrize("options", [{"auto_retry": False}, {"retry_count": 0}])
async def test_without_retries_it_is_tried_once(world: World, options: Mapping[str, Any]) -> None:
    world.server.misbehave("/Sab", times=50, status=502)

    await world.run(**options)

    assert len(world.server.asked) == 1


async def test_an_address_that_is_not_on_the_list_pauses_the_connector_at_once_with_the_seeds_words(
    world: World,
) -> None:
    world.server.allowed = ()

    runner = await world.run()

    assert len(world.server.asked) == 1
    assert runner.state is State.PAUSED
    assert world.memory.last_run.status == "FAILED"
    assert world.memory.last_run.reason.endswith("API responded with status 401: Unauthorized")


async def test_the_check_fails_with_the_seeds_words_and_says_what_to_do(world: World) -> None:
    world.server.allowed = ()
    context = SourceContext(CONNECTOR.id, CONNECTOR.name, world.clock)
    source = HttpApiSource(world.config(), context)

    steps = await source.check()
    await source.close()

    assert [(step.name, step.ok) for step in steps] == [
        ("find the host", True),
        ("connect", True),
        ("have credentials", True),
        ("read txnData/ALL", False),
    ]
    assert steps[-1].detail == "API responded with status 401: Unauthorized"
    assert "has this address on its list" in steps[-1].hint
    assert "IP not whitelisted" in steps[-1].hint


async def test_an_api_that_limits_our_rate_is_read_to_its_end_all_the_same(world: World) -> None:
    world.server.requests_per_s = 2

    await world.run(sync_days_back=5)

    throttled = [each for each in world.server.asked if each.status == 429]
    assert throttled
    assert len(world.memory.event_ids) == 5 * 12
    assert world.memory.last_run.status == "READ"


async def requested(world: World, known: Mapping[str, Cursor] | None = None, **options: Any) -> list[Task | Skipped]:
    source = HttpApiSource(world.config(), SourceContext(CONNECTOR.id, CONNECTOR.name, world.clock))
    return [item async for page in source.requested(known or {}, Request("run-1", **options)) for item in page]


async def test_days_of_the_past_can_be_asked_for(world: World) -> None:
    found = await requested(world, since=date(2025, 1, 8), until=date(2025, 1, 10))

    assert [item.descriptor for item in found] == [f"txnData/ALL/2025-01-{day:02}" for day in (8, 9, 10)]
    assert all(isinstance(item, Task) and not item.recurring for item in found)


async def test_a_day_that_is_not_over_can_be_asked_for_each_time_anew(world: World) -> None:
    found = await requested(world, since=date(2025, 10, 2), until=date(2030, 1, 1))

    assert [item.descriptor for item in found] == ["txnData/ALL/2025-10-02", "txnData/ALL/2025-10-03@run-1"]


async def test_what_was_asked_for_by_hand_is_no_gap_in_the_calendar(world: World) -> None:
    asked = {"txnData/ALL/2025-09-10": {"asked": True}, "txnData/ALL/2025-10-02": {"asked": False}}
    source = HttpApiSource(world.config(), SourceContext(CONNECTOR.id, CONNECTOR.name, world.clock))

    found = await tasks_of(source, asked)

    assert [task.descriptor for task in found] == ["txnData/ALL/2025-10-02"]


async def test_days_of_a_list_that_is_polled_are_windows_of_their_own() -> None:
    clock = SteadyClock(datetime(2026, 1, 3, 0, 5, tzinfo=UTC))
    book = WrittenBook()
    for day in (1, 2):
        at = int(datetime(2026, 1, day, 12, tzinfo=UTC).timestamp())
        book.write({"id": f"p-{day}", "amount": 1, "currency": "EUR", "status": "captured", "created_at": at})
    chosen = {"path": "/lists/none/offset", "paging": "offset"}
    query = {"from": "{from}", "to": "{to}", "offset": "{offset}"}

    async with (
        Gateway(book, clock=lambda: clock.now().timestamp()) as server,
        source_of(server.url, {**chosen, "query": query}, clock=clock) as source,
    ):
        days = Request("run-1", since=date(2026, 1, 1), until=date(2026, 1, 2))
        found = [item async for page in source.requested({}, days) for item in page if isinstance(item, Task)]
        read = [[r.position async for b in source.read(task, None) for r in b.records] for task in found]
        (polled,) = await tasks_of(source)
        seen = [r.position async for b in source.read(polled, None) for r in b.records]

    assert [task.descriptor for task in found] == ["payments/2026-01-01", "payments/2026-01-02"]
    assert {task.source_object for task in found} == {polled.source_object}
    assert read[1] == seen  # the same record has the same id, however it was asked for
    assert [position[:3] for positions in read for position in positions] == ["p-1", "p-2"]


async def test_a_resource_without_days_says_so() -> None:
    async with source_of("http://127.0.0.1:9", {"window": "whole"}) as source:
        pages = [page async for page in source.requested({}, Request("run-1", since=date(2026, 1, 1)))]

    assert pages == [[Skipped("payments", "has_no_days")]]


@pytest.mark.parametrize(("mode", "asked"), [("", "direct"), ("direct", "direct"), ("proxy", "proxy")])
async def test_the_workers_variable_says_which_way_it_goes(
    world: World, monkeypatch: pytest.MonkeyPatch, mode: str, asked: str
) -> None:
    monkeypatch.setenv("SABPAISA_API_MODE", mode)
    here, nowhere = world.server.report_url, "http://127.0.0.1:9/nowhere"
    urls = {"api_base_url": here, "proxy_base_url": nowhere}
    if asked == "proxy":
        urls = {"api_base_url": nowhere, "proxy_base_url": here}

    await world.run(**urls)

    assert len(world.memory.events) == 12


async def test_a_variable_that_says_nonsense_pauses_the_connector(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABPAISA_API_MODE", "sideways")
    source = HttpApiSource(world.config(), SourceContext(CONNECTOR.id, CONNECTOR.name, world.clock))

    with pytest.raises(SourceMisconfigured, match="SABPAISA_API_MODE is 'sideways'"):
        await tasks_of(source)
    (step,) = await source.check()
    assert (step.name, step.ok) == ("know the address", False)
    assert "SABPAISA_API_MODE is 'sideways'" in step.detail


async def test_razorpays_payments_and_refunds_end_as_the_gateway_has_them() -> None:
    """A growing book: what each payment is at the end, was read, whatever it was when it was read first."""
    clock = SteadyClock(datetime(2026, 1, 3, tzinfo=UTC))
    start = int(clock.now().timestamp())
    book = GrowingBook(start - 3_000, every_s=10.0)
    secrets = GivenSecrets({"${env:RAZORPAY_KEY_ID}": gateway.KEY_ID, "${env:RAZORPAY_KEY_SECRET}": gateway.KEY_SECRET})

    async with Gateway(book, clock=lambda: clock.now().timestamp()) as server:
        config = HttpApiConfig.model_validate(
            {
                "template": "razorpay",
                "api_base_url": f"{server.url}/v1",
                "username": "${env:RAZORPAY_KEY_ID}",
                "password": "${env:RAZORPAY_KEY_SECRET}",
                "allow_networks": ["127.0.0.0/8"],
                "requests_per_s": 1_000,
            }
        )
        context = SourceContext(CONNECTOR.id, CONNECTOR.name, clock, secrets=secrets)
        source = HttpApiSource(config, context)
        cursors: dict[str, Cursor | None] = {}
        found: dict[tuple[str, str], int] = {}
        for _ in range(40):
            for task in await tasks_of(source):
                async for batch in source.read(task, cursors.get(task.key)):
                    assert not batch.rejections
                    cursors[task.key] = batch.cursor
                    for record in batch.records:
                        found[record.payment.reference, record.payment.status] = record.payment.amount
            clock.advance(60)
        steps = await source.check()
        await source.close()

    settled_at = start + 39 * 60 - 120
    now = clock.now().timestamp()
    words = {"created": "pending", "authorized": "authorised", "captured": "succeeded", "refunded": "succeeded"}
    for row in book.payments(start - 3_000, settled_at, now):
        assert found[row["id"], words.get(row["status"], row["status"])] == row["amount"]
    refunds = [row for row in book.refunds(start - 3_000, settled_at, now) if row["status"] == "processed"]
    assert len(refunds) > 20
    assert all(found[row["id"], "refunded"] == row["amount"] for row in refunds)
    assert all(step.ok for step in steps), steps
