"""Seed 000's install, uninstall and tasks, by its own examples. Its payments are shown by the walk-throughs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from connectors.health import State, Status
from connectors.task import TaskStatus, TaskView
from tests.contract.example import examples, sent, shape
from tests.integration.api_kit import Client
from tillstream.control import connector as connectors
from tillstream.control.report import Reporter

INSTALL_BARE, UNINSTALL, INSTALL, TASKS, TASKS_LATER, PAYMENTS = examples("000")


async def test_install_without_a_folder_says_what_the_seed_says(api: Client) -> None:
    status, answer = await sent(INSTALL_BARE.called(api.url))

    assert (status, answer["success"]) == (422, False)
    assert answer["error"].endswith("directory: missing directory to watch")
    assert (answer["field"], answer["code"]) == ("directory", "config")


async def test_installed_and_uninstalled_as_the_seed_does_with_a_body_that_curl_calls_a_form(
    api: Client, tmp_path: Path
) -> None:
    for _ in range(2):  # the seed uninstalls, and installs again
        status, answer = await sent(INSTALL.called(api.url, **{"/tmp/payments": str(tmp_path)}))
        assert status == 201, answer
        view = await connectors.find(api.world.pool, "example")
        assert (view.kind, view.provider, view.configuration) == ("directory", "example", {"directory": str(tmp_path)})
        assert answer["connector"] == {"id": str(view.number), "name": "example", "status": "ACTIVE"}

        again, _ = await sent(INSTALL.called(api.url))
        assert again == 409

        status, answer = await sent(UNINSTALL.called(api.url))
        assert (status, answer["success"]) == (200, True)
        gone, _ = await sent(TASKS.called(api.url))
        assert gone == 404


async def test_tasks_are_the_seeds_to_the_letter(api: Client) -> None:
    await sent(INSTALL.called(api.url))
    view = await connectors.find(api.world.pool, "example")
    status, before = await sent(TASKS.called(api.url))
    assert status == 200
    assert [(each["descriptor"], each["status"], each["id"]) for each in before] == [
        ("directory", "pending", "ImRpcmVjdG9yeSI=")
    ]

    for example in (TASKS, TASKS_LATER):
        worker = Reporter(view.id, "worker", epoch=1)
        await worker.tell(api.world.pool, _well(), [_task(each) for each in example.answer])
        _, answer = await sent(example.called(api.url))

        # the seed's second listing elides the states
        expected = [{**each, "state": {} if each["state"] == "XXX" else each["state"]} for each in example.answer]
        assert json.dumps(answer) == json.dumps(expected)


@pytest.mark.parametrize(
    ("name", "body", "kind", "configuration"),
    [
        ("directory", {"Directory": "/in"}, "directory", {"directory": "/in"}),
        ("dummypay", {"directory": "/in", "pollS": 3}, "directory", {"directory": "/in", "poll_s": 3}),
        ("razorpay", {"username": "${env:A}", "password": "${env:B}"}, "http_api", None),
        ("axis", {"kind": "sftp", "host": "sftp.axis.example", "username": "u", "password": "${env:A}"}, "sftp", None),
    ],
)
async def test_a_name_says_what_is_installed(
    api: Client, name: str, body: dict[str, object], kind: str, configuration: dict[str, object] | None
) -> None:
    answer = await api.ask("POST", f"/connectors/{name}", json=body)

    assert answer.status == 201, answer.text
    view = await connectors.find(api.world.pool, name)
    assert (view.kind, view.provider) == (kind, name)
    assert configuration in (None, view.configuration)


@pytest.mark.parametrize("name", ["7", "conn_7", "CONN_7"])
async def test_a_number_is_no_name(api: Client, name: str) -> None:
    answer = await api.ask("POST", f"/connectors/{name}", json={"directory": "/in"})

    assert answer.status == 422


@pytest.mark.parametrize("kind", ["nope", 5, ["sftp"]])
async def test_a_kind_that_is_none_is_refused_with_those_that_there_are(api: Client, kind: object) -> None:
    answer = await api.ask("POST", "/connectors/example", json={"directory": "/in", "kind": kind})

    assert (answer.status, answer.body["field"]) == (422, "kind")
    assert "sftp" in answer.body["error"]


async def test_two_spellings_of_one_option_are_refused(api: Client) -> None:
    answer = await api.ask("POST", "/connectors/example", json={"directory": "/a", "Directory": "/b"})

    assert (answer.status, answer.body["field"]) == (422, "directory")


async def test_no_payments_are_an_empty_list(api: Client) -> None:
    status, answer = await sent(PAYMENTS.called(api.url))

    assert (status, answer) == (200, {"data": []})
    assert shape(PAYMENTS.answer)["data"][0]["initialAmount"] == "int"


@pytest.mark.parametrize("path", ["/payments/nothing", "/payments/%20", "/payments/e30="])
async def test_a_payment_that_is_none_is_not_found(api: Client, path: str) -> None:
    answer = await api.ask("GET", path)

    assert (answer.status, answer.body["success"]) == (404, False)


def _task(told: dict[str, str]) -> TaskView:
    created_at = datetime.fromisoformat(told["createdAt"])
    status, error = TaskStatus(told["status"]), told["error"]
    return TaskView(told["provider"], told["descriptor"], created_at, status, error, {})


def _well() -> Status:
    return Status(State.RUNNING, problems=(), hint="", listed_at=None, open_runs=0, pending=0, skipped={})
