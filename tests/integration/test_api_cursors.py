"""Cursors over HTTP: shown, and edited by a request that a worker has yet to see to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from schemas.checkpoint import Checkpoint
from sinks.mirror import CheckpointMirror
from tests.integration.api_kit import Answer, Client
from tests.integration.test_api_connectors import made
from tests.integration.test_api_frame import problem
from tillstream.control.claim import claim
from tillstream.control.takeover import release

PLACE = {"file": "a.jsonl", "stamp": "9-9", "format": "jsonl", "offset": 40, "row": 2, "line": 3, "encoding": "utf-8"}
END = {"file": "a.jsonl", "stamp": "9-9"}
BACK = {**PLACE, "offset": 20, "row": 1, "line": 2}
TASK = "a/b c?d#e%2F..é"


async def stands(api: Client, view: dict[str, Any], task: str = TASK, **more: Any) -> None:
    """A worker's word of where a task stands."""
    known = {
        "connector_id": UUID(view["id"]),
        "task": task,
        "descriptor": "a.jsonl",
        "run_id": uuid4(),
        "epoch": 3,
        "seq": 7,
        "cursor": PLACE,
        "revision_at": "2025-01-01T00:00:00Z",
        "updated_at": "2025-01-01T00:00:00Z",
    }
    await CheckpointMirror(api.world.pool).mirror([Checkpoint.model_validate({**known, **more})])


@pytest.fixture
async def bank(api: Client, tmp_path: Path) -> dict[str, Any]:
    """A connector that is paused, with a task that stands at `PLACE`."""
    view = await made(api, "bank", tmp_path, status="PAUSED")
    await stands(api, view)
    return view


async def cursor(api: Client) -> Answer:
    (listed,) = (await api.get("/connectors/bank/cursors")).body["data"]
    shown = await api.get(f"/connectors/bank/cursors/{listed['ref']}")
    assert (shown.status, shown.body) == (200, listed)
    return shown


async def put(api: Client, body: object, *, tag: str | None = None, query: str = "") -> Answer:
    now = await cursor(api)
    headers = {"If-Match": tag or now.headers["ETag"]}
    return await api.put(f"/connectors/bank/cursors/{now.body['ref']}{query}", body, headers=headers)


async def kinds(api: Client) -> list[str]:
    return [each["kind"] for each in (await api.get("/connectors/bank/events")).body["data"]]


@pytest.mark.usefixtures("bank")
async def test_a_cursor_is_named_by_a_ref_that_survives_urls(api: Client) -> None:
    shown = await cursor(api)

    assert (shown.body["task"], shown.body["cursor"], shown.body["pending"]) == (TASK, PLACE, None)
    assert shown.body["etag"] == shown.headers["ETag"]
    for ref in ("YQ", "YQ==", "!", f"{shown.body['ref']}=", "AA", "_w"):
        problem(await api.get(f"/connectors/bank/cursors/{ref}"), 404, "not_found")


async def test_an_edit_is_asked_for_with_its_diff_and_waits_for_the_owner(api: Client, bank: dict[str, Any]) -> None:
    first = await cursor(api)

    asked = await put(api, {"cursor": BACK, "note": "bank sent it wrong", "by": "asha"})

    assert asked.status == 202, asked.text
    assert asked.headers["Location"] == f"/api/v1/connectors/{bank['id']}/cursor-edits/{asked.body['id']}"
    assert (asked.body["status"], asked.body["action"]) == ("pending", "set")
    assert asked.body["differences"] == [
        {"key": "cursor.offset", "before": 40, "after": 20},
        {"key": "cursor.row", "before": 2, "after": 1},
        {"key": "cursor.line", "before": 3, "after": 2},
    ]
    assert "read again" in asked.body["follows"][0]
    assert (await api.ask("GET", asked.headers["Location"])).body == asked.body
    now = await cursor(api)
    assert (now.body["cursor"], now.body["pending"]) == (PLACE, asked.body["id"])
    problem(await put(api, {"cursor": BACK}, tag=first.headers["ETag"]), 412, "precondition_failed")
    problem(await put(api, {"cursor": BACK}), 409, "conflict")
    event = (await api.get("/connectors/bank/events")).body["data"][0]
    assert (event["kind"], event["actor"]) == ("cursor.asked", "asha")
    told = {key: event["facts"][key] for key in ("before", "after", "note", "task", "edit")}
    assert told == {
        "before": PLACE,
        "after": BACK,
        "note": "bank sent it wrong",
        "task": TASK,
        "edit": asked.body["id"],
    }


@pytest.mark.usefixtures("bank")
async def test_an_edit_that_is_deleted_with_its_connector_is_refused(api: Client) -> None:
    asked = await put(api, {"cursor": BACK})

    await api.delete("/connectors/bank")

    row = await api.world.pool.fetchrow("SELECT status, reason FROM cursor_edits WHERE id = $1", UUID(asked.body["id"]))
    assert tuple(row) == ("refused", "its connector was deleted")


@pytest.mark.usefixtures("bank")
async def test_a_dry_run_answers_as_if_and_asks_nobody(api: Client) -> None:
    before = await cursor(api)

    tried = await put(api, {"cursor": END}, query="?dry_run=true")

    assert (tried.status, tried.body["status"]) == (202, "pending")
    assert "Location" not in tried.headers
    assert {"key": "cursor.offset", "before": 40, "after": None} in tried.body["differences"]
    assert "never read" in tried.body["follows"][0]
    assert (await cursor(api)).body == before.body
    assert "cursor.asked" not in await kinds(api)


@pytest.mark.usefixtures("bank")
async def test_a_cursor_that_is_so_already_is_written_back_without_a_word(api: Client) -> None:
    answer = await put(api, {"cursor": PLACE})

    assert (answer.status, answer.body["status"], answer.body["differences"]) == (200, "unchanged", [])
    assert (await cursor(api)).body["pending"] is None


async def test_a_reset_of_what_is_done_is_told_as_such(api: Client, bank: dict[str, Any]) -> None:
    await stands(api, bank, seq=8, cursor=END, done=True)
    now = await cursor(api)
    path = f"/connectors/bank/cursors/{now.body['ref']}"

    problem(await api.delete(path), 428, "precondition_required")
    asked = await api.delete(f"{path}?note=again&by=asha", headers={"If-Match": now.headers["ETag"]})

    assert (asked.status, asked.body["action"], asked.body["after"]) == (202, "reset", None)
    assert (asked.body["note"], asked.body["requested_by"]) == ("again", "asha")
    assert asked.body["differences"][-1] == {"key": "done", "before": True, "after": False}
    assert any("beginning" in each for each in asked.body["follows"])


@pytest.mark.usefixtures("bank")
async def test_what_the_source_would_not_write_is_refused_by_field(api: Client) -> None:
    wrong = await put(api, {"cursor": {**PLACE, "offset": -1, "colour": "red", "file": "b"}})
    foreign = await put(api, {"cursor": {**BACK, "stamp": "1-1"}})
    large = await put(api, {"cursor": {**BACK, "stamp": "9" * 300_000}})

    assert {each["field"] for each in problem(wrong, 422, "config")["errors"]} == {"cursor.offset", "cursor.colour"}
    assert problem(foreign, 422, "config")["field"] == "cursor.stamp"
    problem(large, 422, "config")
    problem(await put(api, {"cursor": []}), 422, "invalid")
    problem(await put(api, {"cursor": BACK, "part": []}), 422, "invalid")
    problem(await put(api, {}), 422, "invalid")
    assert "cursor.asked" not in await kinds(api)


@pytest.mark.usefixtures("bank")
async def test_only_what_rests_is_edited(api: Client) -> None:
    await api.post("/connectors/bank/resume")

    refused = problem(await put(api, {"cursor": BACK}), 409, "conflict")

    assert "pause it" in refused["hint"]
    assert problem(await put(api, {"cursor": BACK}, query="?dry_run=true"), 409, "conflict")["detail"]


async def test_a_worker_that_has_it_in_hand_is_waited_for_unless_it_is_silent(
    api: Client, bank: dict[str, Any]
) -> None:
    pool, identifier = api.world.pool, UUID(bank["id"])
    held = await claim(pool, identifier, worker="one", table_epoch=3)

    waits = await put(api, {"cursor": BACK})
    problem(waits, 409, "conflict")
    assert waits.headers["Retry-After"] == "2"
    assert "worker one" in waits.body["detail"]
    await release(pool, held)
    assert (await put(api, {"cursor": BACK}, query="?dry_run=true")).status == 202

    await claim(pool, identifier, worker="two", table_epoch=3)
    await release(pool, held)  # an outdated one's word
    problem(await put(api, {"cursor": BACK}), 409, "conflict")
    await pool.execute("UPDATE connector_claims SET heartbeat_at = now() - interval '1 hour'")
    assert (await put(api, {"cursor": BACK})).status == 202


@pytest.mark.usefixtures("bank")
async def test_of_two_edits_at_once_one_is_taken(api: Client) -> None:
    tag = (await cursor(api)).headers["ETag"]

    answers = await asyncio.gather(*(put(api, {"cursor": {**BACK, "offset": 20 + n}}, tag=tag) for n in range(6)))

    assert sorted(each.status for each in answers) == [202, *[412] * 5]
    assert (await kinds(api)).count("cursor.asked") == 1
