from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from jsonschema_rs import Draft7Validator

from schemas import codec
from schemas.checkpoint import Checkpoint
from schemas.identity import foreign_id
from schemas.letter import DeadLetter, Stage, payload, sink_letter_id
from schemas.topic import topics
from streams import state
from streams.redrive import redrive_event_id
from tests.unit.tillstream.test_cli import till
from tillstream.asyncapi import document
from tillstream.config import load
from tillstream.docs import ROOT
from tillstream.wiring import topics_of, watched_groups

OFFICIAL = Path(__file__).parent / "asyncapi" / "3.0.0-without-id.json"
GOLDEN = sorted((ROOT / "tests" / "unit" / "schemas" / "golden").glob("*.json"))
NOW = datetime(2025, 1, 10, 13, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return document(topics())


@pytest.fixture(scope="module")
def official() -> Draft7Validator:
    return Draft7Validator(json.loads(OFFICIAL.read_text(encoding="utf-8")))


def _every(node: Any) -> Iterator[dict[str, Any]]:
    """Every object below `node`."""
    if isinstance(node, dict):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _every(each)


def _at(told: dict[str, Any], reference: str) -> Any:
    node: Any = told
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def _holds(told: dict[str, Any], schema: dict[str, Any], value: object) -> bool:
    return Draft7Validator({**schema, "components": told["components"]}).is_valid(value)


def _message_holds(told: dict[str, Any], name: str, *, key: str, value: str) -> bool:
    message = told["components"]["messages"][name]
    said = value if message["contentType"] == "text/plain" else json.loads(value)
    assert _holds(told, message["bindings"]["kafka"]["key"], key), (name, key)
    return _holds(told, message["payload"], said)


def test_it_is_an_asyncapi_document(told: dict[str, Any], official: Draft7Validator) -> None:
    assert [f"{list(error.instance_path)}: {error.message}" for error in official.iter_errors(told)] == []


@pytest.mark.parametrize(
    "broken",
    [
        lambda told: told.pop("info"),
        lambda told: told["servers"]["kafka"].pop("protocol"),
        lambda told: told["channels"]["events"]["bindings"]["kafka"].update(partitions=0),
        lambda told: told["channels"]["events"]["bindings"]["kafka"]["topicConfiguration"].update(
            {"cleanup.policy": "delete"}
        ),
        lambda told: told["operations"]["storeEvents"].update(action="subscribe"),
        lambda told: told["components"]["messages"]["event"].update(topic="till.events"),
    ],
)
def test_the_official_schema_would_notice(
    told: dict[str, Any], official: Draft7Validator, broken: Callable[[dict[str, Any]], object]
) -> None:
    changed = copy.deepcopy(told)

    broken(changed)

    assert not official.is_valid(changed)


def test_every_reference_leads_somewhere_and_stands_alone(told: dict[str, Any]) -> None:
    found = [node for node in _every(told) if isinstance(node.get("$ref"), str)]

    assert len(found) > 20
    for node in found:
        assert list(node) == ["$ref"]
        assert isinstance(_at(told, node["$ref"]), dict)


def test_an_operation_names_only_messages_of_its_channel(told: dict[str, Any]) -> None:
    for name, operation in told["operations"].items():
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{operation['channel']['$ref']}/messages/"), name


def test_every_topic_is_there_as_it_is_provisioned(told: dict[str, Any]) -> None:
    table = {topic.name: topic for topic in topics().all()}
    channels = {channel["address"]: channel for channel in told["channels"].values()}

    assert set(channels) == set(table)
    for name, channel in channels.items():
        kafka, topic = channel["bindings"]["kafka"], table[name]
        shown = {
            key: ",".join(value) if isinstance(value, list) else str(value)
            for key, value in kafka["topicConfiguration"].items()
        }
        assert (kafka["topic"], kafka["partitions"], shown) == (name, topic.partitions, topic.settings)
        assert topic.key in channel["description"]


def test_every_group_that_the_monitor_watches_reads_its_channel(told: dict[str, Any]) -> None:
    groups = {
        operation["bindings"]["kafka"]["groupId"]["enum"][0]: _at(told, operation["channel"]["$ref"])["address"]
        for operation in told["operations"].values()
        if "bindings" in operation
    }

    assert groups == watched_groups(load(environ={}).settings)


def test_it_names_no_server_but_by_a_variable(told: dict[str, Any]) -> None:
    (server,) = told["servers"].values()

    assert server["host"] == "{bootstrap}"
    assert set(server["variables"]) == {"bootstrap"}
    assert "default" not in server["variables"]["bootstrap"]


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_events_as_they_were_written_fit_the_schema(told: dict[str, Any], file: Path) -> None:
    written = file.read_text(encoding="utf-8")
    key = json.loads(written)["foreign_id"]

    assert _message_holds(told, "event", key=key, value=written)


def test_the_example_is_an_event_under_its_key(told: dict[str, Any]) -> None:
    (example,) = told["components"]["messages"]["event"]["examples"]
    written = json.dumps(example["payload"])

    event, payment = codec.decode_payment_event(written.encode())

    assert event.foreign_id == foreign_id(payment.provider, payment.original_reference)
    assert _message_holds(told, "event", key=event.foreign_id, value=written)


@pytest.mark.parametrize(
    "wrong", [{"id": 7}, {"payment": {"provider": "x"}}, {"created_at": None}, {"headers": {"a": 1}}], ids=str
)
def test_what_is_no_event_does_not_fit(told: dict[str, Any], wrong: dict[str, object]) -> None:
    (example,) = told["components"]["messages"]["event"]["examples"]

    assert not _message_holds(told, "event", key="k", value=json.dumps({**example["payload"], **wrong}))


def test_the_headers_are_those_that_records_carry(told: dict[str, Any]) -> None:
    known = {value for name, value in vars(codec).items() if name.startswith("HEADER_")}

    assert set(told["components"]["messages"]["event"]["headers"]["properties"]) == known


def test_a_letter_fits_the_schema_under_its_key(told: dict[str, Any]) -> None:
    letter = DeadLetter(
        id=sink_letter_id("till.events", 0, 7, key=b"k", value=b"\xff"),
        stage=Stage.SINK,
        reason="undecodable",
        message="not a JSON event",
        failed_at=NOW,
        event_id=redrive_event_id("0", 1),
        **payload(b"\xff", limit_bytes=100_000, key=b"k", headers=[("a", b"\x00"), ("b", None)]),
    )

    assert _message_holds(told, "deadLetter", key=letter.id, value=letter.model_dump_json())
    headers = _at(told, "#/components/schemas/DeadLetter/properties/headers")
    assert not _holds(told, headers, [[1, "AA=="]])
    assert not _holds(told, headers, [["a", "AA==", "/w==", "more"]])


def test_what_the_state_topic_holds_fits_the_schemas_under_its_keys(told: dict[str, Any]) -> None:
    connector = uuid4()
    checkpoint = Checkpoint(
        connector_id=connector, task="a" * 64, run_id=uuid4(), epoch=1, seq=2, revision_at=NOW, updated_at=NOW
    )

    assert _message_holds(told, "checkpoint", key=checkpoint.key, value=checkpoint.model_dump_json())
    assert _message_holds(told, "claim", key=state._epoch_key(connector).decode(), value="12")
    assert _message_holds(told, "barrier", key=state._BARRIER_KEY.decode() + "3", value=uuid4().hex)


def test_till_prints_the_document_of_the_installation(tmp_path: Path) -> None:
    variables = {"TILL_HOME": str(tmp_path), "TILL_TOPIC_PREFIX": "shop", "TILL_TOPIC_PARTITIONS": "9"}
    settings = load(environ=variables).settings

    printed = till("topic", "asyncapi", "-o", "yaml", **variables)

    assert printed.returncode == 0
    assert yaml.safe_load(printed.stdout) == document(topics_of(settings), prefix="shop")
    assert {"shop.events", "shop-sink"} <= set(printed.stdout.split())
    assert not {"till.events", "till-sink"} & set(printed.stdout.split())


def test_till_prints_the_page_of_the_defaults(tmp_path: Path) -> None:
    printed = till("topic", "asyncapi", TILL_HOME=str(tmp_path))

    assert printed.stdout == (ROOT / "docs" / "asyncapi.json").read_text(encoding="utf-8")


def test_a_document_has_no_table(tmp_path: Path) -> None:
    refused = till("topic", "asyncapi", "-o", "table", TILL_HOME=str(tmp_path))

    assert refused.returncode == 2
    assert "'json', 'yaml'" in refused.stderr
