"""The seeds' paths answer as their document says, whatever is sent, to connectors that are there and to none."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.api_kit import Client

EXAMPLES = 10  # of each operation
NAME = "example"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FAMILIES = ("/payments", "/connectors", "/ops/")


@pytest.mark.parametrize("there", [True, False])
async def test_every_answer_is_as_the_document_says(api: Client, *, there: bool) -> None:
    tested = await asyncio.to_thread(_try_all, api.url, there=there)

    assert {label: told for label, told in tested.items() if told} == {}
    assert len(tested) > 25


def _try_all(url: str, *, there: bool) -> dict[str, str]:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tested = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.startswith(FAMILIES):
            try:
                _try_one(operation, url, there=there)
                tested[operation.label] = ""
            except FailureGroup as exc:
                tested[operation.label] = "\n".join(str(each) for each in exc.exceptions)
    return tested


# schemathesis' operations carry no public type
def _try_one(operation: Any, url: str, *, there: bool) -> None:
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
        if there and "ref" in case.path_parameters:
            _install(url)
            case.path_parameters["ref"] = NAME
        case.call_and_validate(checks=CHECKS)

    holds()


def _install(url: str) -> None:
    """A connector that reads nothing from anywhere, unless it is there."""
    request = Request(f"{url}/connectors/{NAME}", data=b'{"directory": "/nowhere"}', method="POST")
    try:
        with urlopen(request) as answer:
            assert answer.status == 201
    except HTTPError as exc:
        exc.close()
        if exc.code != HTTPStatus.CONFLICT:
            raise
