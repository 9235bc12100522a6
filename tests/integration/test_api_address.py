"""What an address may say: any name a connector may have, and no parameter that nobody knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from tests.integration.api_kit import Answer, Client
from tests.integration.test_api_frame import problem
from tillstream.api.app import application

NAMES = ("a/b", "/", "a//b/", "a/run", "what?", "100 %", "50%2F50", "#1", "a b;c=d&e+f", "بنك/ب", "שלום", "ü", "x:y")


async def send(api: Client, method: str, path: str, body: object = None, **headers: str) -> Answer:
    """As it is: clients would decode what they may."""
    given: dict[str, Any] = {} if body is None else {"json": body}
    url = URL(api.url + path, encoded=True)
    async with api.session.request(method, url, headers=headers, **given) as answer:
        is_json = "json" in answer.headers.get("Content-Type", "")
        return Answer(answer.status, answer.headers, await answer.text(), await answer.json() if is_json else None)


@pytest.mark.parametrize("prefix", ["/api/v1/connectors", "/connectors", "/ops/connectors"])
async def test_a_connector_is_reached_by_any_name_it_may_have(api: Client, tmp_path: Path, prefix: str) -> None:
    for name in NAMES:
        body = {"name": name, "kind": "directory", "configuration": {"directory": str(tmp_path)}}
        assert (await send(api, "POST", "/api/v1/connectors", body)).status == 201, name
        path = f"{prefix}/{quote(name, safe='')}"

        shown = await send(api, "GET", path)
        ran = await send(api, "POST", f"{path}/run")
        paused = await send(api, "POST", f"{path}/pause")
        gone = await send(api, "DELETE", path)

        assert name in (shown.body.get("name"), shown.body.get("connector", {}).get("name")), shown.text
        assert (ran.status, paused.status, gone.status // 100) == (202, 200, 2), (name, ran.text, paused.text)
        assert (await send(api, "GET", path)).status == 404
    assert (await api.get("/connectors")).body["data"] == []


async def test_a_name_is_installed_and_lists_its_tasks(api: Client, tmp_path: Path) -> None:
    path = f"/connectors/{quote('north/south', safe='')}"

    made = await send(api, "POST", path, {"directory": str(tmp_path)})

    assert made.status == 201, made.text
    assert made.body["connector"]["name"] == "north/south"
    assert len((await send(api, "GET", f"{path}/tasks")).body) == 1
    parted = await send(api, "GET", "/connectors/north/south")
    assert parted.status == 404
    assert "%2F" in parted.body["hint"]


async def test_nul_in_a_name_is_refused_and_no_slash(api: Client) -> None:
    problem(await send(api, "GET", "/api/v1/connectors/a%00b%2Fc"), 422, "invalid")


async def test_a_parameter_that_nobody_knows_is_refused_by_name(api: Client, tmp_path: Path) -> None:
    body = {"name": "bank", "kind": "directory", "configuration": {"directory": str(tmp_path)}}

    refused = problem(await api.get("/connectors?statsu=PAUSED"), 422, "invalid")
    dry = problem(await api.post("/connectors?dryrun=true", body), 422, "invalid")
    none = problem(await api.get("/source-types?q=x"), 422, "invalid")

    assert refused["field"] == "statsu"
    assert "status" in refused["detail"]
    assert (dry["field"], "dry_run" in dry["detail"]) == ("dryrun", True)
    assert "none" in none["detail"]
    assert (await api.get("/connectors")).body["data"] == []


async def test_the_seeds_clients_may_say_more_than_is_heeded(api: Client) -> None:
    for path in ("/connectors?page=1", "/ops/connectors?page=1", "/payments?page=1"):
        assert (await api.ask("GET", path)).status == 200


async def test_every_route_of_ours_refuses_what_it_does_not_know_and_takes_what_its_document_says(api: Client) -> None:
    paths = application().openapi()["paths"]
    operations = [
        (path, method, operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if path.startswith("/api/v1")
    ]

    for path, method, operation in operations:
        given = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
        address = re.sub(r"\{\w+\}", "1", path)
        answer = await send(api, method.upper(), f"{address}?nobody_knows=1")
        told = problem(answer, 422, "invalid")
        assert told["field"] == "nobody_knows", path
        assert set(told["detail"].partition("there are ")[2].split(", ")) - {""} == given, path
    assert len(operations) > 40
