"""Connectors before they are saved: templates, and secrets that are given by value and told nowhere."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.integration.api_kit import Answer, Client
from tests.integration.http_kit import CONFIG, RESOURCE, answered, raw_server
from tests.integration.test_api_frame import problem
from tillstream.asyncapi import document
from tillstream.control import template

SECRET = "correct horse/battery"
KEY = {"Idempotency-Key": "the first"}
HTTP_API: dict[str, Any] = {**CONFIG, "authentication_type": "bearer", "resources": [RESOURCE]}


def body_of(url: str, secret: str = SECRET) -> dict[str, Any]:
    return {"name": "shop", "kind": "http_api", "configuration": {**HTTP_API, "api_base_url": url, "token": secret}}


async def told_anywhere(api: Client, database: str, caplog: pytest.LogCaptureFixture, answers: list[Answer]) -> str:
    """All that was answered, logged or kept in a table."""
    held = await asyncpg.connect(database)
    try:
        tables = await held.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [
            row["row"]
            for table in tables
            for row in await held.fetch(f"SELECT to_jsonb(t)::text AS row FROM {table['tablename']} t")
        ]
    finally:
        await held.close()
    logged = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert rows
    return "\n".join([*(f"{each.text} {dict(each.headers)}" for each in answers), *logged, *rows])


async def test_templates_are_listed_and_shown(api: Client) -> None:
    listed = (await api.get("/templates")).body

    shown = await api.get("/templates/axis-sftp")

    assert [each["name"] for each in listed["data"]] == list(template.templates())
    assert shown.body in listed["data"]
    assert {each["field"] for each in shown.body["placeholders"]} >= {"host", "password"}
    problem(await api.get("/templates/none"), 404, "not_found")


async def test_a_connector_is_made_of_a_template_and_what_it_asks_for(api: Client) -> None:
    asked = (await api.get("/templates/axis-sftp")).body
    given = {each["field"]: each["example"] for each in asked["placeholders"]}
    body = {"name": "the bank", "template": "axis-sftp", "configuration": {**given, "poll_s": 5}}

    made = await api.post("/connectors", body)

    assert made.status == 201, made.text
    assert (made.body["kind"], made.body["provider"]) == (asked["kind"], asked["provider"])
    assert made.body["configuration"] == {**asked["configuration"], **given, "poll_s": 5}
    assert (await api.post("/connectors:validate", body)).body["valid"] is True
    unfilled = await api.post("/connectors:validate", {"name": "b", "template": "axis-sftp"})
    assert unfilled.body["valid"] is False
    problem(await api.post("/connectors", {**body, "template": "none"}), 404, "not_found")
    assert problem(await api.post("/connectors", {**body, "kind": "directory"}), 422, "invalid")["field"] == "kind"
    problem(await api.post("/connectors", {"name": "b"}), 422, "invalid")


async def test_a_secret_is_judged_and_tried_by_value_and_told_nowhere(
    api: Client, database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    heads: list[bytes] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        known = f"Bearer {SECRET}".encode() in head
        refused = answered(f'{{"refused": "{SECRET}"}}', status=f"401 {SECRET}")
        writer.write(answered('{"data": []}') if known else refused)
        await writer.drain()

    async with raw_server(answer) as url:
        judged = await api.post("/connectors:validate", body_of(url), headers=KEY)
        tried = await api.post("/connectors:check", body_of(url), headers={"Idempotency-Key": "another"})
        again = await api.post("/connectors:check", body_of(url), headers={"Idempotency-Key": "another"})
        other = await api.post("/connectors:check", body_of(url, "wrong " + SECRET))

    assert (judged.status, judged.body["valid"], judged.body["options"]["token"]) == (200, True, "***")
    assert (tried.status, tried.body["ok"]) == (200, True), tried.text
    assert again.text == tried.text
    assert other.body["ok"] is False
    assert len(heads) >= 2
    assert SECRET not in await told_anywhere(api, database, caplog, [judged, tried, again, other])
    assert not (tmp_path / "home" / "secrets").exists()


async def test_a_secret_that_could_not_be_kept_out_of_logs_is_a_problem_of_its_field(api: Client) -> None:
    judged = await api.post("/connectors:validate", body_of("https://api.shop.example", "abc"))
    tried = await api.post("/connectors:check", body_of("https://api.shop.example", "abc"))
    brought = await api.post("/connectors:apply", {"connectors": [body_of("https://api.shop.example", "abc")]})

    assert "token" in {each["field"] for each in judged.body["problems"]}
    assert "token" in {each["field"] for each in problem(tried, 422, "config")["errors"]}
    assert "token" in problem(brought, 422, "config")["errors"][0]["message"]
    assert not any("abc" in each.text for each in (judged, tried, brought))


async def test_a_described_secret_is_kept_once_and_told_nowhere(
    api: Client, database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    folder, described = tmp_path / "home" / "secrets", {"connectors": [body_of("https://api.shop.example")]}

    dry = await api.post("/connectors:apply?dry_run=true", described)
    assert not folder.exists()
    made = await api.post("/connectors:apply", described, headers=KEY)
    same = await api.post("/connectors:apply", described)
    before = await api.get("/connectors/shop")
    changed = await api.post(
        "/connectors:apply", {"connectors": [body_of("https://api.shop.example", "new " + SECRET)]}
    )
    shown = await api.get("/connectors/shop")

    assert [each.body["connectors"][0]["change"] for each in (dry, made, same, changed)] == [
        "created",
        "created",
        "unchanged",
        "changed",
    ]
    identifier = shown.body["id"]
    assert before.body["configuration"]["token"] == f"${{file:{identifier}/token-1}}"
    assert shown.body["configuration"]["token"] == f"${{file:{identifier}/token-2}}"
    assert (folder / identifier / "token-1").read_text() == SECRET + "\n"
    assert (folder / identifier / "token-2").read_text() == f"new {SECRET}\n"
    assert SECRET not in await told_anywhere(api, database, caplog, [dry, made, same, changed, before, shown])


async def test_of_documents_that_are_refused_no_secret_is_kept(api: Client, tmp_path: Path) -> None:
    other = {"name": "other", "kind": "directory", "configuration": {"directory": str(tmp_path)}}
    await api.post("/connectors", other)
    shop = body_of("https://api.shop.example")

    answer = await api.post("/connectors:apply", {"connectors": [shop, {**shop, "name": "other"}]})

    problem(answer, 409, "conflict")
    assert not (tmp_path / "home" / "secrets").exists()
    assert [each["name"] for each in (await api.get("/connectors")).body["data"]] == ["other"]


async def test_what_flows_through_kafka_is_described_over_http_too(api: Client) -> None:
    answer = await api.ask("GET", "/asyncapi.json")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body == document(api.world.topics, prefix=api.world.settings.topic.prefix)
