"""A connector that fails says so, in every family of routes, until a run succeeds or somebody mends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from connectors.health import State, Status
from sinks.pool import connection
from tests.integration.api_kit import Client
from tests.integration.test_api_connectors import etag, made
from tests.integration.test_api_frame import problem
from tillstream.control import run as runs
from tillstream.control.report import Reporter
from tillstream.control.run import PostgresRunLog, RunStatus

REFUSED = Status(
    state=State.PAUSED,
    problems=("API responded with status 401: Unauthorized",),
    hint="",
    listed_at=None,
    open_runs=0,
    pending=0,
    skipped={},
    progress=(),
    active=0,
    left_behind=0,
)
Mend = Callable[[Client, UUID], Awaitable[object]]


async def ended(api: Client, connector: UUID, *statuses: RunStatus, run_type: str = "SCHEDULED") -> None:
    """Runs, one after the other, that ended so."""
    for status in statuses:
        log, run = PostgresRunLog(api.world.pool), uuid4()
        await log.open(run, connector, triggered_by="SCHEDULER", run_type=run_type)
        async with connection(api.world.pool) as held:
            await runs.close(held, run, status, reason=None if status is RunStatus.SUCCESS else "no answer")


async def standings(api: Client, name: str = "bank") -> list[str]:
    """What each family of routes says, in a list and alone."""
    seed_003 = (await api.ask("GET", "/connectors")).body["connectors"]
    seed_004 = (await api.ask("GET", "/ops/connectors")).body["connectors"]
    return [
        (await api.get(f"/connectors/{name}")).body["status"],
        *(each["status"] for each in (await api.get("/connectors")).body["data"] if each["name"] == name),
        (await api.ask("GET", f"/connectors/{name}")).body["connector"]["status"],
        *(each["status"] for each in seed_003 if each["name"] == name),
        (await api.ask("GET", f"/ops/connectors/{name}")).body["status"],
        *(each["status"] for each in seed_004 if each["name"] == name),
    ]


async def refused(api: Client, connector: UUID) -> None:
    """As its worker tells, once it has paused itself."""
    await Reporter(connector, "worker").tell(api.world.pool, REFUSED, [])


async def failing(api: Client, connector: UUID) -> None:
    """Three runs, each without success."""
    await ended(api, connector, *[RunStatus.FAILED] * 3)


async def configured(api: Client, connector: UUID) -> None:
    headers = {"If-Match": await etag(api, "bank")}
    assert (await api.patch("/connectors/bank", {"configuration": {"poll_s": 7}}, headers=headers)).status == 200


async def resumed(api: Client, connector: UUID) -> None:
    assert (await api.ask("POST", "/connectors/bank/resume")).status == 200


@pytest.mark.parametrize("fails", [refused, failing])
@pytest.mark.parametrize("mend", [configured, resumed])
async def test_what_fails_is_failed_everywhere_until_it_is_mended(
    api: Client, tmp_path: Path, fails: Mend, mend: Mend
) -> None:
    identifier = UUID((await made(api, "bank", tmp_path))["id"])
    await made(api, "well", tmp_path)
    assert await standings(api) == ["ACTIVE"] * 6

    await fails(api, identifier)

    assert await standings(api) == ["FAILED"] * 6
    assert await standings(api, "well") == ["ACTIVE"] * 6
    for path in ("/connectors", "/ops/connectors"):
        told = (await api.ask("GET", f"{path}?status=FAILED")).body
        assert told["summary"] == {"total": 2, "active": 1, "paused": 0, "failed": 1}
        assert [each["name"] for each in told["connectors"]] == ["bank"]
    assert [each["name"] for each in (await api.get("/connectors?status=FAILED")).body["data"]] == ["bank"]
    assert [each["name"] for each in (await api.get("/connectors?status=ACTIVE")).body["data"]] == ["well"]
    await mend(api, identifier)
    assert await standings(api) == ["ACTIVE"] * 6
    assert (await api.get("/connectors?status=FAILED")).body["data"] == []


async def test_it_stands_failed_after_three_runs_without_one_that_succeeds(api: Client, tmp_path: Path) -> None:
    identifier = UUID((await made(api, "bank", tmp_path))["id"])
    seen = []

    for status in (*[RunStatus.FAILED] * 2, RunStatus.SUCCESS, *[RunStatus.FAILED] * 4, RunStatus.PARTIAL_SUCCESS):
        await ended(api, identifier, status)
        seen.append((await api.get("/connectors/bank")).body["status"])

    assert seen == [*["ACTIVE"] * 5, "FAILED", "FAILED", "ACTIVE"]


async def test_tests_and_cancelled_runs_say_nothing_of_it(api: Client, tmp_path: Path) -> None:
    identifier = UUID((await made(api, "bank", tmp_path))["id"])
    await ended(api, identifier, RunStatus.FAILED, RunStatus.FAILED)

    for _ in range(2):
        run = (await api.post("/connectors/bank/run")).body["id"]
        await api.post(f"/runs/{run}/cancel")
        assert (await api.get(f"/runs/{run}")).body["status"] == "FAILED"
    await api.patch(
        "/connectors/bank", {"name": "the bank"}, headers={"If-Match": await etag(api, "bank")}
    )  # changes no configuration

    assert (await api.get("/connectors/the bank")).body["status"] == "ACTIVE"
    await ended(api, identifier, RunStatus.FAILED)
    assert (await api.get("/connectors/the bank")).body["status"] == "FAILED"


async def test_who_sends_an_answer_back_changes_nothing_of_its_status(api: Client, tmp_path: Path) -> None:
    view = await made(api, "bank", tmp_path)
    identifier = UUID(view["id"])
    await failing(api, identifier)
    whole = {"name": "bank", "configuration": view["configuration"], "status": "FAILED"}
    described = {**whole, "kind": "directory"}

    put = await api.put("/connectors/bank", whole, headers={"If-Match": await etag(api, "bank")})
    patched = await api.patch("/connectors/bank", {"status": "FAILED"}, headers={"If-Match": await etag(api, "bank")})
    applied = await api.post("/connectors:apply", {"connectors": [described]})
    seeds = [
        await api.ask("PUT", "/connectors/bank", json=(await api.ask("GET", "/connectors/bank")).body["connector"]),
        await api.ask("PUT", "/ops/connectors/bank", json={"status": "FAILED"}),
    ]

    assert [each.status for each in (put, patched, applied, *seeds)] == [200] * 5
    assert applied.body["connectors"][0]["change"] == "unchanged"
    assert await standings(api) == ["FAILED"] * 6
    await api.post("/connectors/bank/pause")
    assert await standings(api) == ["PAUSED"] * 6
    problem(await api.post("/connectors", {**described, "name": "new"}), 422, "invalid")
