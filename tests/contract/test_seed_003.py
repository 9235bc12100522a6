"""Seed 003's `/connectors`, by its own examples: sent as printed, answered as printed."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.contract.example import blocks, examples, only, sent, shape
from tests.integration.api_kit import Client
from tillstream.embedded.gateway import Gateway
from tillstream.embedded.gateway_book import GrowingBook

LIST, TEST, HISTORY, PAUSE, RESUME = examples("003")
_AFTER_A_FAILED_TEST = """
INSERT INTO sp_v2_connector_runs
       (connector_id, run_type, status, duration_seconds, error_message, started_at, completed_at, triggered_by)
VALUES (1, 'TEST', 'FAILED', 0.14, 'API responded with status 401: Unauthorized', '2025-10-03T14:23:11.342Z',
        '2025-10-03T14:23:11.485Z', 'MANUAL_TEST');
UPDATE sp_v2_connectors
   SET last_run_at = '2025-10-03T14:23:11.488Z', last_run_status = 'FAILED', total_runs = 1, failure_count = 1
 WHERE id = 1;
"""


@pytest.fixture
async def tested(api: Client) -> Client:
    """As the seed's examples find it: the default connector's first test failed."""
    async with api.world.pool.acquire() as held:
        await held.execute(_AFTER_A_FAILED_TEST)
    return api


async def test_the_list_is_the_seeds_to_the_letter(tested: Client) -> None:
    status, answer = await sent(LIST.called(tested.url))

    assert status == 200
    assert json.dumps(answer) == json.dumps(LIST.answer)


async def test_the_history_is_the_seeds_with_counts_beside(tested: Client) -> None:
    status, answer = await sent(HISTORY.called(tested.url))

    assert status == 200
    assert json.dumps(only(answer, HISTORY.answer)) == json.dumps(HISTORY.answer)
    (run,) = answer["runs"]
    assert set(run) - set(HISTORY.answer["runs"][0]) == {
        "run_date", "records_processed", "records_success", "records_failed",
        "files_total", "files_normalized", "files_skipped", "files_failed",
    }  # fmt: skip


async def test_a_test_asks_the_source_for_real_and_a_refusal_is_told_in_the_seeds_words(api: Client) -> None:
    """The provider does not know our address, as in the seed."""
    async with Gateway(GrowingBook(0, every_s=60), allowed=("192.0.2.1",)) as gateway:
        config = {**blocks("003")[0]["connection_config"], "api_base_url": gateway.report_url}
        put = await api.ask("PUT", "/connectors/1", json={"connection_config": config})
        assert put.status == 200, put.text

        status, answer = await sent(TEST.called(api.url))
        _, listed = await sent(LIST.called(api.url))
        _, history = await sent(HISTORY.called(api.url))
        anonymous = await api.ask("POST", "/connectors/1/test")

    assert status == 200
    assert json.dumps(answer) == json.dumps(TEST.answer)
    assert gateway.asked
    volatile = {"last_run_at": LIST.answer["connectors"][0]["last_run_at"]}
    assert {**listed["connectors"][0], **volatile} == LIST.answer["connectors"][0]
    assert listed["summary"] == LIST.answer["summary"]
    assert shape(only(history, HISTORY.answer)) == shape(HISTORY.answer)
    assert (history["runs"][0]["run_type"], history["runs"][0]["triggered_by"]) == ("TEST", "USER_123")
    assert anonymous.body["run_id"] == 2
    later = (await api.ask("GET", "/connectors/1/history")).body["runs"][0]
    assert (later["id"], later["triggered_by"]) == ("2", "MANUAL_TEST")


async def test_a_test_that_goes_well_says_so(api: Client) -> None:
    async with Gateway(GrowingBook(0, every_s=60)) as gateway:
        config = {**blocks("003")[0]["connection_config"], "api_base_url": gateway.report_url}
        await api.ask("PUT", "/connectors/1", json={"connection_config": config})

        answer = await api.ask("POST", "/connectors/1/test")

    assert (answer.status, answer.body) == (200, {"success": True, "message": "Connection successful", "run_id": 1})
    assert (await api.ask("GET", "/connectors/1")).body["connector"]["success_rate"] == 100


async def test_pause_and_resume_answer_as_the_seed_prints(tested: Client) -> None:
    for example in (PAUSE, PAUSE, RESUME):
        status, answer = await sent(example.called(tested.url))

        assert status == 200
        assert json.dumps(answer) == json.dumps(example.answer)


async def test_the_default_connector_is_the_seeds(api: Client) -> None:
    default = blocks("003")[0]

    answer = (await api.ask("GET", "/connectors/1")).body

    assert answer["success"] is True
    shown = answer["connector"]
    # the table's number; lists and answers have it as text, c7
    assert only(shown, default) == {**default, "id": "1"}
    assert {key: shown[key] for key in ("success_rate", "total_runs", "last_run_at", "last_run_status")} == {
        "success_rate": 0, "total_runs": 0, "last_run_at": None, "last_run_status": None,
    }  # fmt: skip


async def test_a_connector_is_created_shown_changed_and_deleted(api: Client) -> None:
    body = {
        "name": "Razorpay",
        "connector_type": "PG_API",
        "source_entity": "RAZORPAY",
        "connection_config": {"username": "${env:TILL_SECRET_ID}", "password": "${env:TILL_SECRET_KEY}"},
        "schedule_cron": "0 3 * * *",
    }

    made = await api.ask("POST", "/connectors", json=body)
    number = made.body["connector"]["id"]
    shown = (await api.ask("GET", f"/connectors/{number}")).body["connector"]
    sent_back = {**shown, "schedule_cron": "30 4 * * *", "name": "Razorpay India"}
    changed = await api.ask("PUT", f"/connectors/{number}", json=sent_back)
    by_name = await api.ask("GET", "/connectors/Razorpay%20India")
    gone = await api.ask("DELETE", f"/connectors/conn_{number}")
    after = await api.ask("GET", f"/connectors/{number}")

    assert (made.status, made.headers["Location"]) == (201, f"/connectors/{number}")
    assert shown["connection_config"] == {
        **body["connection_config"], "template": "razorpay",
    }  # fmt: skip
    assert (shown["schedule_enabled"], shown["schedule_timezone"]) == (True, "Asia/Kolkata")
    assert changed.body["message"] == "Connector updated successfully"
    assert by_name.body["connector"]["schedule_cron"] == "30 4 * * *"
    assert (gone.status, gone.body) == (200, {"success": True, "message": "Connector deleted successfully"})
    assert after.status == 404


async def test_lists_are_filtered_and_the_summary_counts_every_status(api: Client) -> None:
    for name in ("axis", "hdfc"):
        made = await api.ask("POST", f"/connectors/{name}", data=b'{"directory": "/in"}')
        assert made.status == 201, made.text
    await api.ask("POST", "/connectors/hdfc/pause")

    paused = (await api.ask("GET", "/connectors?status=PAUSED")).body
    of_type = (await api.ask("GET", "/connectors?connector_type=PG_API")).body
    searched = (await api.ask("GET", "/connectors?search=SABPAI")).body

    assert [each["name"] for each in paused["connectors"]] == ["hdfc"]
    assert paused["summary"] == {"total": 3, "active": 2, "paused": 1, "failed": 0}
    assert [each["id"] for each in of_type["connectors"]] == ["1"]
    assert [each["name"] for each in searched["connectors"]] == ["SabPaisa PG API"]


async def test_a_run_is_asked_for_at_once_and_refused_while_paused(api: Client) -> None:
    asked = await api.ask("POST", "/connectors/1/run")
    history = (await api.ask("GET", "/connectors/1/history?limit=1")).body
    await api.ask("POST", "/connectors/1/pause")
    refused = await api.ask("POST", "/connectors/1/run")

    assert asked.status == 202
    assert asked.body == {
        "success": True, "run_id": asked.body["run_id"], "status": "RUNNING", "message": "Connector run started",
    }  # fmt: skip
    assert isinstance(asked.body["run_id"], int)
    assert (await api.ask("GET", asked.headers["Location"])).status in {200, 404}
    (run,) = history["runs"]
    assert (run["id"], run["run_type"], run["status"]) == (str(asked.body["run_id"]), "MANUAL", "RUNNING")
    assert (run["completed_at"], run["duration_seconds"]) == (None, None)
    assert (history["total"], history["limit"], history["offset"]) == (1, 1, 0)
    assert (refused.status, refused.body["success"]) == (409, False)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", "/connectors/99", None, 404, "there is no connector '99'"),
        ("GET", "/connectors/1/nothing", None, 404, "there is no such route"),
        ("BREW", "/connectors/1", None, 405, "this route does not take this method"),
        ("POST", "/connectors", b"{", 422, "the body is no JSON"),
        ("POST", "/connectors", b"[]", 422, "must be a JSON object"),
        ("POST", "/connectors", b'{"name": "x"}', 422, "connector_type: Field required"),
        ("POST", "/connectors", b'{"name": "x", "connector_type": "FTP", "source_entity": "A"}', 422, "BANK_SFTP"),
        ("POST", "/connectors", b'{"name":"x","connector_type":"PG_API","source_entity":"A","nme":1}', 422, "nme"),
        ("POST", "/connectors/1/backfill", b"{}", 422, "startDate"),
        ("POST", "/connectors/1/backfill", b'{"startDate":"2025-01-10","endDate":"2025-01-08"}', 422, "after the last"),
        ("GET", "/connectors/1/history?limit=0", None, 422, "greater than or equal to 1"),
    ],
)
async def test_errors_keep_the_envelope_and_say_what_a_problem_says(
    api: Client, method: str, path: str, body: bytes | None, status: int, error: str
) -> None:
    answer = await api.ask(method, path, data=body)

    found: dict[str, Any] = answer.body
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert list(found)[:2] == ["success", "error"]
    assert found["success"] is False
    assert error in found["error"]
    assert {"type", "title", "status", "detail", "code", "instance"} <= found.keys()
    assert found["status"] == status


async def test_what_no_route_has_seen_has_the_envelope_too_and_other_families_do_not(api: Client) -> None:
    too_large = await api.ask("POST", "/connectors", data=io.BytesIO(b"x" * 1_100_000))
    elsewhere = await api.ask("GET", "/connectors", headers={"Origin": "https://evil.example"})
    canonical = await api.get("/nothing")

    assert (too_large.status, too_large.body["success"], too_large.body["code"]) == (413, False, "too_large")
    assert (elsewhere.status, elsewhere.body["error"]) == (403, "a page of another origin may not use this API")
    assert "success" not in canonical.body


def test_the_examples_are_all_there() -> None:
    assert [shape(each.answer).get("success") for each in (LIST, TEST, HISTORY, PAUSE, RESUME)] == ["bool"] * 5
