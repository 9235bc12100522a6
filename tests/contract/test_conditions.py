"""What a careful client sends beside: the seeds' routes heed it as `/api/v1` does, or refuse it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.api_kit import Client

KEY = {"Idempotency-Key": "0f2c"}
FAMILIES = ("/connectors", "/ops/connectors")


@pytest.fixture
async def bank(api: Client, tmp_path: Path) -> str:
    """The number of an installed connector."""
    made = await api.ask("POST", "/connectors/bank", json={"directory": str(tmp_path)})
    assert made.status == 201, made.text
    return str(made.body["connector"]["id"])


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_change_meant_for_another_state_is_refused(api: Client, bank: str, family: str) -> None:
    seen = await api.ask("GET", f"{family}/{bank}")
    stale = {"If-Match": seen.headers["ETag"]}
    paused = await api.ask("PUT", f"{family}/{bank}", json={"status": "PAUSED"}, headers=stale)

    refused = [
        await api.ask("PUT", f"{family}/{bank}", json={"status": "ACTIVE"}, headers=stale),
        await api.ask("DELETE", f"{family}/{bank}", headers=stale),
    ]

    assert paused.status == 200
    assert [(each.status, each.body["success"], each.body["code"]) for each in refused] == [
        (412, False, "precondition_failed")
    ] * 2
    shown = await api.get(f"/connectors/{bank}")
    assert shown.body["status"] == "PAUSED"
    assert paused.headers["ETag"] == shown.headers["ETag"]
    gone = await api.ask("DELETE", f"{family}/{bank}", headers={"If-Match": paused.headers["ETag"]})
    assert gone.status == 200


@pytest.mark.parametrize("path", ["/connectors/{}/run", "/ops/connectors/conn_{}/run-now"])
async def test_a_run_that_is_asked_for_again_under_its_key_is_the_same_run(api: Client, bank: str, path: str) -> None:
    answers = await asyncio.gather(*(api.ask("POST", path.format(bank), headers=KEY) for _ in range(4)))
    again = await api.ask("POST", path.format(bank), headers=KEY)

    assert len((await api.get(f"/runs?connector={bank}")).body["data"]) == 1
    assert {each.body["run_id"] for each in [*answers, again] if each.status == 202} == {again.body["run_id"]}
    assert {each.status for each in answers} <= {202, 409}
    assert again.headers["Idempotent-Replayed"] == "true"
    reused = await api.ask("POST", path.format(bank), headers=KEY, json={"force": True})
    assert (reused.status, reused.body["success"], reused.body["code"]) == (422, False, "idempotency_key_reused")


async def test_what_is_made_or_tried_again_under_its_key_is_the_same(api: Client, tmp_path: Path) -> None:
    body = {"directory": str(tmp_path)}
    first, second = [await api.ask("POST", "/connectors/bank", json=body, headers=KEY) for _ in range(2)]
    tried, retried = [
        await api.ask("POST", "/ops/connectors/bank/test", headers={"Idempotency-Key": "test"}) for _ in range(2)
    ]

    assert (first.status, second.body) == (201, first.body)
    assert (tried.status, retried.body) == (200, tried.body)
    assert len((await api.get("/runs?connector=bank")).body["data"]) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/connectors/other"),
        ("POST", "/connectors/bank/run"),
        ("POST", "/connectors/bank/pause"),
        ("PUT", "/connectors/bank"),
        ("DELETE", "/connectors/bank"),
        ("POST", "/ops/connectors/bank/run-now"),
        ("PUT", "/ops/connectors/bank"),
        ("DELETE", "/ops/connectors/bank"),
    ],
)
async def test_a_dry_run_that_no_seed_knows_is_refused_and_nothing_is_done(
    api: Client, bank: str, method: str, path: str
) -> None:
    before = await api.get(f"/connectors/{bank}")

    refused = await api.ask(method, f"{path}?dry_run=true", data=b'{"status": "PAUSED"}' if method == "PUT" else None)

    assert (refused.status, refused.body["success"], refused.body["field"]) == (422, False, "dry_run")
    assert (await api.get(f"/connectors/{bank}")).headers["ETag"] == before.headers["ETag"]
    assert (await api.get("/runs")).body["data"] == []
    assert (await api.get("/connectors/other")).status == 404
