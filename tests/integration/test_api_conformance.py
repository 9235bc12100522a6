"""
Whatever a client sends, the API answers as its document says, and never with a status from 500 on: schemathesis, over a
real socket, PostgreSQL and Kafka.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from schemas.topic import topics
from streams.provision import provision
from tests.integration import api_kit
from tests.services import Kafka

EXAMPLES = 15  # of each operation: all of them take some 25 s
ENDLESS = "/api/v1/events"
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


async def test_every_answer_is_as_the_document_says(
    kafka: Kafka, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    prefix = topic_prefix.rstrip(".")
    await provision(kafka.bootstrap, topics(prefix).all())
    async with api_kit.api(tmp_path / "home", database, bootstrap=kafka.bootstrap, prefix=prefix, fresh=False) as api:
        await api_kit.until(lambda: has_coordinator(api))
        tested = await asyncio.to_thread(try_all, api.url)

    assert {label: told for label, told in tested.items() if told} == {}
    assert len(tested) > 30, tested


async def has_coordinator(api: api_kit.Client) -> bool:
    """A new cluster has none until somebody has asked for it."""
    return (await api.get("/lag")).status == 200


def try_all(url: str) -> dict[str, str]:
    """What is wrong with each operation; an empty text for one that is well."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tested = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.startswith("/api/v1/") and operation.path != ENDLESS:
            try:
                try_one(operation)
                tested[operation.label] = ""
            except FailureGroup as exc:
                tested[operation.label] = "\n".join(str(each) for each in exc.exceptions)
    return tested


# schemathesis' operations carry no public type
def try_one(operation: Any) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: Any) -> None:
        case.call_and_validate(checks=list(CHECKS))

    holds()
