"""Connectors over HTTP: made, shown, changed under a precondition, tried, run, paused, let go of."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.integration.api_kit import Answer, Client
from tests.integration.test_api_frame import problem


async def made(api: Client, name: str, folder: Path, **more: object) -> dict[str, Any]:
    body = {"name": name, "kind": "directory", "configuration": {"directory": str(folder)}, **more}
    answer = await api.post("/connectors", body)
    assert answer.status == 201, answer.text
    return dict(answer.body)


async def etag(api: Client, ref: str) -> str:
    return (await api.get(f"/connectors/{ref}")).headers["ETag"]


async def test_a_connector_is_made_and_found_by_each_of_its_names(api: Client, tmp_path: Path) -> None:
    answer = await api.post(
        "/connectors", {"name": "bank", "kind": "directory", "configuration": {"directory": str(tmp_path)}}
    )

    assert answer.status == 201, answer.text
    view = answer.body
    assert answer.headers["Location"] == f"/api/v1/connectors/{view['id']}"
    assert view["provider"] == "bank"
    assert view["options"]["poll_s"] == 10
    assert view["created_at"].endswith("Z")
    for ref in (view["id"], str(view["number"]), f"conn_{view['number']}", "bank"):
        shown = await api.get(f"/connectors/{ref}")
        assert (shown.status, shown.body) == (200, view)
        assert shown.headers["ETag"] == answer.headers["ETag"]
    problem(await api.get("/connectors/nobody"), 404, "not_found")


async def test_a_taken_name_is_a_conflict_and_every_problem_of_a_configuration_is_told_by_field(
    api: Client, tmp_path: Path
) -> None:
    await made(api, "bank", tmp_path)

    taken = await api.post("/connectors", {"name": "bank", "kind": "directory", "configuration": {"directory": "/x"}})
    wrong = await api.post("/connectors", {"name": "b", "kind": "directory", "configuration": {"poll_s": -1, "x": 1}})
    unknown = await api.post("/connectors", {"name": "b", "kind": "carrier-pigeon"})
    extra = await api.post("/connectors", {"name": "b", "kind": "directory", "configuraton": {}})

    problem(taken, 409, "conflict")
    assert {each["field"] for each in problem(wrong, 422, "config")["errors"]} >= {"poll_s", "directory"}
    problem(unknown, 404, "not_found")
    assert problem(extra, 422, "invalid")["field"] == "configuraton"


async def test_a_dry_run_answers_as_if_and_changes_nothing(api: Client, tmp_path: Path) -> None:
    body = {"name": "bank", "kind": "directory", "configuration": {"directory": str(tmp_path)}}

    tried = await api.post("/connectors?dry_run=true", body)

    assert tried.status == 201
    assert tried.body["name"] == "bank"
    assert (await api.get("/connectors")).body == {"data": [], "next": None}
    await api.post("/connectors", body)
    problem(await api.post("/connectors?dry_run=true", body), 409, "conflict")
    before = await api.get("/connectors/bank")
    headers = {"If-Match": before.headers["ETag"]}
    paused = await api.post("/connectors/bank/pause?dry_run=true")
    assert paused.body["status"] == "PAUSED"
    patched = await api.patch("/connectors/bank?dry_run=true", {"configuration": {"poll_s": 3}}, headers=headers)
    assert patched.body["configuration"]["poll_s"] == 3
    assert (await api.delete("/connectors/bank?dry_run=true")).status == 204
    asked = await api.post("/connectors/bank/run?dry_run=true")
    assert (asked.status, asked.body["waiting"]) == (202, True)
    assert (await api.get("/connectors/bank")).body == before.body
    assert (await api.get("/runs")).body["data"] == []


async def test_connectors_are_filtered_and_paged_without_gaps(api: Client, tmp_path: Path) -> None:
    names = [f"bank-{number:02}" for number in range(7)]
    for name in names:
        await made(api, name, tmp_path)
    await api.post("/connectors/bank-03/pause")

    pages, after = [], ""
    while True:
        page = (await api.get(f"/connectors?limit=3{after}")).body
        pages.append([each["name"] for each in page["data"]])
        if page["next"] is None:
            break
        after = f"&after={page['next']}"

    assert pages == [names[:3], names[3:6], names[6:]]
    active = (await api.get("/connectors?status=ACTIVE&limit=2")).body
    assert [each["name"] for each in (await api.get("/connectors?status=PAUSED")).body["data"]] == ["bank-03"]
    assert [each["name"] for each in (await api.get("/connectors?q=NK-05")).body["data"]] == ["bank-05"]
    assert (await api.get("/connectors?kind=sftp")).body["data"] == []
    problem(await api.get(f"/connectors?limit=2&after={active['next']}"), 422, "invalid")
    problem(await api.get("/connectors?after=e30"), 422, "invalid")
    problem(await api.get("/connectors?limit=0"), 422, "invalid")
    problem(await api.get("/connectors?limit=201"), 422, "invalid")


async def test_a_change_names_the_state_that_it_is_meant_for(api: Client, tmp_path: Path) -> None:
    view = await made(api, "bank", tmp_path)
    first = await etag(api, "bank")
    whole = {"name": "bank", "configuration": {"directory": str(tmp_path), "poll_s": 2}}

    problem(await api.put("/connectors/bank", whole), 428, "precondition_required")
    changed = await api.put("/connectors/bank", whole, headers={"If-Match": first})
    stale = await api.put("/connectors/bank", whole, headers={"If-Match": first})

    assert changed.status == 200
    assert changed.headers["ETag"] != first
    assert (changed.body["version"], changed.body["configuration"]) == (view["version"] + 1, whole["configuration"])
    problem(stale, 412, "precondition_failed")
    problem(await api.delete("/connectors/bank", headers={"If-Match": first}), 412, "precondition_failed")
    wrong = {"name": "bank", "configuration": {"directory": ""}}
    problem(await api.put("/connectors/bank", wrong, headers={"If-Match": changed.headers["ETag"]}), 422, "config")


async def test_of_two_changes_of_one_state_one_is_made(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)
    headers = {"If-Match": await etag(api, "bank")}

    answers = await asyncio.gather(
        *(
            api.patch("/connectors/bank", {"configuration": {"poll_s": number}}, headers=headers)
            for number in range(1, 9)
        )
    )

    assert sorted(each.status for each in answers) == [200, *[412] * 7]
    (won,) = [each for each in answers if each.status == 200]
    assert (await api.get("/connectors/bank")).body["configuration"] == won.body["configuration"]


async def test_a_patch_is_a_merge_patch(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path, configuration={"directory": str(tmp_path), "poll_s": 2, "parallel": 3})

    answer = await api.patch(
        "/connectors/bank",
        {"configuration": {"poll_s": None, "rest_s": 1}},
        headers={"If-Match": await etag(api, "bank"), "Content-Type": "application/merge-patch+json"},
    )

    assert answer.status == 200, answer.text
    assert answer.body["configuration"] == {"directory": str(tmp_path), "parallel": 3, "rest_s": 1}


async def test_pausing_and_resuming_move_the_etag(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)
    before = await etag(api, "bank")

    paused = await api.post("/connectors/bank/pause")

    assert (paused.status, paused.body["status"]) == (200, "PAUSED")
    assert paused.headers["ETag"] != before
    problem(await api.post("/connectors/bank/run"), 409, "conflict")
    assert (await api.post("/connectors/bank/resume")).body["status"] == "ACTIVE"


async def test_a_deleted_connector_frees_its_name_and_keeps_its_runs(api: Client, tmp_path: Path) -> None:
    first = await made(api, "bank", tmp_path)
    run = (await api.post("/connectors/bank/run")).body

    assert (await api.delete("/connectors/bank")).status == 204

    problem(await api.get("/connectors/bank"), 404, "not_found")
    problem(await api.delete("/connectors/bank"), 404, "not_found")
    ended = (await api.get(f"/runs/{run['id']}")).body
    assert (ended["status"], ended["connector"]) == ("FAILED", "bank")
    assert "deleted" in ended["reason"]
    second = await made(api, "bank", tmp_path)
    assert second["id"] != first["id"]


async def test_a_run_is_asked_for_shown_and_cancelled(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)

    asked = await api.post("/connectors/bank/run", {"triggered_by": "USER_123", "force": True})

    assert asked.status == 202
    assert asked.headers["Location"] == f"/api/v1/runs/{asked.body['id']}"
    assert (asked.body["type"], asked.body["triggered_by"], asked.body["waiting"]) == ("MANUAL", "USER_123", True)
    shown = await api.ask("GET", asked.headers["Location"])
    assert shown.body == asked.body
    assert (await api.get(f"/runs/{asked.body['number']}")).body["id"] == asked.body["id"]
    assert (await api.get("/runs?connector=bank")).body["data"] == [asked.body]
    cancelled = await api.post(f"/runs/{asked.body['id']}/cancel", {"by": "USER_123"})
    assert (cancelled.status, cancelled.body["status"], cancelled.body["reason"]) == (202, "FAILED", "cancelled")
    problem(await api.post(f"/runs/{asked.body['id']}/cancel"), 409, "conflict")
    problem(await api.get("/runs/77777"), 404, "not_found")
    problem(await api.post("/connectors/bank/run", {"since": "2025-01-01"}), 422, "config")
    problem(await api.post("/connectors/bank/run", {"since": "yesterday"}), 422, "invalid")


async def test_a_configuration_is_judged_and_tried_before_it_is_saved(api: Client, tmp_path: Path) -> None:
    well = {"name": "bank", "kind": "directory", "configuration": {"directory": str(tmp_path)}}
    missing = {**well, "configuration": {"directory": str(tmp_path / "none")}}

    judged = await api.post("/connectors:validate", {**well, "configuration": {"poll_s": "x"}})
    tried = await api.post("/connectors:check", well)
    failed = await api.post("/connectors:check", missing)

    assert judged.status == 200
    assert judged.body["valid"] is False
    assert {each["field"] for each in judged.body["problems"]} == {"directory", "poll_s"}
    assert (await api.post("/connectors:validate", well)).body["valid"] is True
    assert (tried.status, tried.body["ok"]) == (200, True)
    assert (failed.status, failed.body["ok"]) == (200, False)
    assert failed.body["steps"][-1]["hint"]
    assert (await api.get("/connectors")).body["data"] == []


async def test_documents_are_brought_about_all_or_none(api: Client, tmp_path: Path) -> None:
    described = [
        {"name": name, "kind": "directory", "configuration": {"directory": str(tmp_path)}} for name in ("one", "two")
    ]

    tried = await api.post("/connectors:apply?dry_run=true", {"connectors": described})
    assert [each["change"] for each in tried.body["connectors"]] == ["created", "created"]
    assert (await api.get("/connectors")).body["data"] == []
    bad = [*described, {"name": "three", "kind": "directory", "configuration": {}}]
    problem(await api.post("/connectors:apply", {"connectors": bad}), 422, "config")
    problem(await api.post("/connectors:apply", {"connectors": [*described, described[0]]}), 422, "invalid")
    assert (await api.get("/connectors")).body["data"] == []

    done = await api.post("/connectors:apply", {"connectors": described})
    again = await api.post("/connectors:apply", {"connectors": [{**described[0], "status": "PAUSED"}]})

    assert done.status == 200
    assert [each["name"] for each in (await api.get("/connectors")).body["data"]] == ["one", "two"]
    assert again.body["connectors"][0]["differences"] == [{"key": "status", "before": "ACTIVE", "after": "PAUSED"}]


async def test_tasks_and_cursors_are_there_and_empty_before_a_worker_told_of_them(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)

    assert (await api.get("/connectors/bank/tasks")).body == {"data": [], "next": None}
    assert (await api.get("/connectors/bank/cursors")).body == {"data": [], "next": None}


async def test_source_types_are_described_by_json_schema(api: Client) -> None:
    listed = (await api.get("/source-types")).body["data"]

    assert {each["kind"] for each in listed} >= {"directory", "sftp", "http_api", "postgres_changes"}
    shown: Answer = await api.get("/source-types/directory")
    assert "directory" in shown.body["configuration_schema"]["properties"]
    assert shown.body["example"]
    problem(await api.get("/source-types/none"), 404, "not_found")


async def test_a_connector_is_renamed_rescheduled_and_paused_in_one_patch(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)
    patch = {"name": "the bank", "status": "PAUSED", "schedule": {"cron": "0 2 * * *", "enabled": True}}

    answer = await api.patch("/connectors/bank", patch, headers={"If-Match": await etag(api, "bank")})

    assert answer.status == 200, answer.text
    assert (answer.body["name"], answer.body["status"]) == ("the bank", "PAUSED")
    assert answer.body["schedule"] == {"cron": "0 2 * * *", "timezone": "Asia/Kolkata", "enabled": True}
    problem(await api.get("/connectors/bank"), 404, "not_found")
    headers = {"If-Match": "*"}
    wrong = await api.patch("/connectors/the%20bank", {"schedule": {"cron": "61 * * * *"}}, headers=headers)
    assert problem(wrong, 422, "config")["field"] == "schedule.cron"
    problem(await api.patch("/connectors/the%20bank", {"kind": "sftp"}, headers=headers), 422, "invalid")
    await made(api, "bank", tmp_path)
    problem(await api.patch("/connectors/bank", {"name": "the bank"}, headers=headers), 409, "conflict")


async def test_a_pause_keeps_its_note(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)

    paused = await api.post("/connectors/bank/pause", {"note": "month end", "by": "USER_123"})

    assert paused.body["pause_note"] == "month end"


async def test_configurations_are_kept_by_version_with_their_differences(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)
    for poll_s in (2, 3):
        headers = {"If-Match": await etag(api, "bank")}
        await api.patch("/connectors/bank", {"configuration": {"poll_s": poll_s}}, headers=headers)

    first = (await api.get("/connectors/bank/versions?limit=2")).body
    rest = (await api.get(f"/connectors/bank/versions?limit=2&after={first['next']}")).body

    assert [each["version"] for each in first["data"] + rest["data"]] == [3, 2, 1]
    assert rest["next"] is None
    shown = (await api.get("/connectors/bank/versions/2")).body
    assert shown["configuration"]["poll_s"] == 2
    compared = (await api.get("/connectors/bank/versions/diff?from=1&to=3")).body["data"]
    assert compared == [{"key": "configuration.poll_s", "before": None, "after": 3}]
    problem(await api.get("/connectors/bank/versions/9"), 404, "not_found")
    problem(await api.get("/connectors/bank/versions/x"), 422, "invalid")
    told = [each["kind"] for each in (await api.get("/connectors/bank/events")).body["data"]]
    assert told == ["connector.configured", "connector.configured", "connector.created"]


async def test_runs_are_filtered_paged_and_told_event_by_event(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)
    ids = [(await api.post("/connectors/bank/run")).body["id"] for _ in range(5)]
    await api.post(f"/runs/{ids[0]}/cancel")

    pages, after = [], ""
    while True:
        page = (await api.get(f"/runs?connector=bank&limit=2{after}")).body
        pages += [each["id"] for each in page["data"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"

    assert pages == ids[::-1]
    assert [each["id"] for each in (await api.get("/runs?status=FAILED&type=MANUAL")).body["data"]] == ids[:1]
    assert (await api.get("/runs?until=2020-01-01T00:00:00Z")).body["data"] == []
    problem(await api.get("/runs?since=2020-01-01T00:00:00"), 422, "invalid")
    told = (await api.get(f"/runs/{ids[0]}/events")).body["data"]
    assert [each["kind"] for each in told] == ["run.opened", "run.asked", "run.cancelled", "run.ended"]
    assert (await api.get(f"/runs/{ids[0]}/files")).body == {"data": [], "next": None}


async def test_a_run_that_failed_is_tried_again_as_a_run_of_its_own(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)
    first = (await api.post("/connectors/bank/run", {"force": True})).body
    problem(await api.post(f"/runs/{first['id']}/retry"), 409, "conflict")
    assert (await api.post(f"/runs/{first['id']}/cancel?dry_run=true")).body["status"] == "RUNNING"
    await api.post(f"/runs/{first['id']}/cancel")

    tried = await api.post(f"/runs/{first['id']}/retry?dry_run=true")
    again = await api.post(f"/runs/{first['id']}/retry", {"triggered_by": "USER_123"})

    assert (tried.status, tried.body["force"], "Location" in tried.headers) == (202, True, False)
    assert (again.status, again.body["force"], again.body["triggered_by"]) == (202, True, "USER_123")
    assert again.headers["Location"] == f"/api/v1/runs/{again.body['id']}"
    assert len((await api.get("/runs")).body["data"]) == 2
