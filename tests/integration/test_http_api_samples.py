"""Each sample of an API: what its configuration makes of what the API answers, down to the last field."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from connectors import http_api
from connectors.context import SourceContext
from connectors.http_api import HttpApiConfig, HttpApiSource
from connectors.secret import GivenSecrets
from connectors.testing import CONNECTOR
from tests.integration.http_kit import SteadyClock, tasks_of

SAMPLES = Path(http_api.__file__).parents[1] / "samples" / "http_api"
CASES = sorted(path.name for path in SAMPLES.iterdir())
NOW = datetime(2026, 1, 2, 4, tzinfo=UTC)


@pytest.fixture
async def api(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Answers with the sample's files, by the resource's path; a second page of it is empty."""
    case: str = request.getfixturevalue("case")
    config = HttpApiConfig.model_validate(_configuration(case))
    answers = {}
    for resource in config.resources:
        place = resource.path.partition("{")[0].strip("/")
        answers[place] = (SAMPLES / case / "input" / f"{resource.name}.json").read_text()

    async def answer(asked: web.Request) -> web.Response:
        name = next((name for name in answers if name in asked.path), "")
        return web.Response(text=answers.pop(name, "[]"), content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


@pytest.mark.parametrize("case", CASES)
async def test_a_sample_becomes_what_it_says(case: str, api: str) -> None:
    configuration = _configuration(case) | {"api_base_url": api, "allow_networks": ["127.0.0.0/8"]}
    secrets = dict.fromkeys(re.findall(r"\$\{[^}]*\}", json.dumps(configuration)), "canary-secret")
    context = SourceContext(CONNECTOR.id, CONNECTOR.name, SteadyClock(NOW), secrets=GivenSecrets(secrets))
    source = HttpApiSource(HttpApiConfig.model_validate(configuration), context)

    found: list[dict[str, Any]] = []
    for task in await tasks_of(source):
        async for batch in source.read(task, None):
            found += [_told(task.source_object, record) for record in batch.records]
            found += [
                {"resource": task.source_object, "rejected": each.reason, "message": each.message}
                for each in batch.rejections
            ]
            found += [{"resource": task.source_object, "filtered": batch.filtered}] if batch.filtered else []
    await source.close()

    expected = SAMPLES / case / "expected.jsonl"
    if os.environ.get("TILL_TEST_WRITE_EXPECTED"):
        expected.write_text("".join(json.dumps(each) + "\n" for each in found))
    assert found == [json.loads(line) for line in expected.read_text().splitlines()]


def test_the_readme_tells_of_every_sample() -> None:
    told = re.findall(r"^\| `http_api/([^`]+)`", (SAMPLES.parent / "README.md").read_text(), re.MULTILINE)

    assert sorted(told) == CASES


def _configuration(case: str) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load((SAMPLES / case / "connector.yaml").read_text())["configuration"]
    return configuration


def _told(resource: str, record: Any) -> dict[str, Any]:
    payment = record.payment._asdict()
    at = payment["effective_at"]
    revision = record.revision and record.revision.at.isoformat()
    return {
        "resource": resource,
        **payment,
        "effective_at": at and at.isoformat(),
        "headers": dict(record.headers),
        "revision": revision,
    }
