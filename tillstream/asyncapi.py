"""
The AsyncAPI 3.0 document of an installation's topics: what flows, under which keys, from and to which role.

It is made from the topic table and the models of `schemas`, and so says what they say. Servers are variables only:
where the broker stands is a setting, and no part of what is agreed. Source: AsyncAPI 3.0.0; Kafka bindings 0.5.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from schemas import codec
from schemas.checkpoint import Checkpoint
from schemas.event import MAX_EVENT_ID, MAX_FOREIGN_ID, SCHEMA_VERSION, ConnectorEvent
from schemas.letter import DeadLetter
from schemas.topic import DEFAULT_PREFIX, Topics, TopicSpec, connectors_app_id, letters_app_id, sink_app_id

VERSION = "3.0.0"
_BINDING = "0.5.0"
_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_JSON, _TEXT = "application/json", "text/plain"

# What a schema holds is anything that JSON knows.
Node = dict[str, Any]

_DESCRIPTION = """\
Payments as they flow through Kafka. The version is that of the events: readers refuse an unknown major version, and
keep fields that they do not know. Whoever publishes events keys them by `foreign_id`, so that those of one payment
stay in order. Delivery is at least once: readers tell a repetition by the event's id."""

_HEADERS: Mapping[str, str] = {
    codec.HEADER_EVENT: "The event's id, also where the value cannot be read.",
    codec.HEADER_RUN: "The run that published the record (UUID).",
    codec.HEADER_CONNECTOR: "The connector's immutable id (UUID).",
    codec.HEADER_VERSION: "The event's schema version, major.minor.",
    codec.HEADER_ATTEMPT: "How often the record was sent through; only on a redrive.",
}

_EXAMPLE: Node = {
    "schema_version": SCHEMA_VERSION,
    "id": "50d8194a616abb7dbc705099fb5742bd",
    "foreign_id": "example/001",
    "type": "payment.succeeded",
    "headers": {},
    "created_at": "2025-01-10T13:30:00Z",
    "payment": {
        "provider": "example",
        "reference": "001",
        "parent_reference": None,
        "type": "payin",
        "status": "succeeded",
        "amount": 100,
        "asset": "USD",
        "scheme": "",
        "effective_at": "2025-01-10T13:29:59Z",
        "raw": None,
    },
    "lineage": None,
}


def document(table: Topics, *, prefix: str = DEFAULT_PREFIX) -> Node:
    """The document, as JSON knows it. `prefix` names the consumer groups of the installation whose topics these are."""
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "Tillstream",
            "version": SCHEMA_VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": _JSON,
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "The brokers of the installation.",
                "variables": {
                    "bootstrap": {
                        "description": "`host:port` of a broker to ask first: the setting `kafka.bootstrap`, "
                        "variable `TILL_KAFKA_BOOTSTRAP`."
                    }
                },
            }
        },
        "channels": _channels(table),
        "operations": _operations(prefix),
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


# channels


def _channels(table: Topics) -> Node:
    return {
        "events": _channel(table.events, "Every record of every source, in order within a payment.", "event"),
        "deadLetters": _channel(
            table.dead_letters, "Records that could not go on, whole, with the reason.", "deadLetter"
        ),
        "connectorState": _channel(
            table.connector_state,
            "Where connectors stand. Of two checkpoints the one with the greater (epoch, seq) holds.",
            "checkpoint",
            "claim",
            "barrier",
        ),
        "connectorStateChangelog": _channel(
            table.connector_state_changelog,
            "The log of Faust's table of the same. Faust's own: nobody else writes it.",
            "checkpoint",
            "claim",
        ),
    }


def _channel(topic: TopicSpec, summary: str, *messages: str) -> Node:
    return {
        "address": topic.name,
        "summary": summary,
        "description": f"The record key: {topic.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {key: _configured(key, value) for key, value in topic.settings.items()},
                "bindingVersion": _BINDING,
            }
        },
    }


def _configured(key: str, value: str) -> int | list[str]:
    """A topic's setting, in the type that the binding gives it. All of ours are numbers but this one."""
    return value.split(",") if key == "cleanup.policy" else int(value)


# operations


def _operations(prefix: str) -> Node:
    sink, connectors, letters = sink_app_id(prefix), connectors_app_id(prefix), letters_app_id(prefix)
    state = ("checkpoint", "claim", "barrier")
    return {
        "publishEvents": _operation("send", "events", "Publish what a source holds.", "connector", ("event",)),
        "redriveEvents": _operation(
            "send", "events", "Send a dead letter's record through again, as a new run.", "operator", ("event",)
        ),
        "storeEvents": _operation(
            "receive", "events", "Fold events into payments, in PostgreSQL.", "sink", ("event",), group=sink
        ),
        "rejectRecords": _operation(
            "send", "deadLetters", "Put aside what a source held and is no event.", "connector", ("deadLetter",)
        ),
        "buryEvents": _operation(
            "send", "deadLetters", "Put aside an event that cannot be stored.", "sink", ("deadLetter",)
        ),
        "listDeadLetters": _operation(
            "receive", "deadLetters", "List dead letters for operators.", "letters", ("deadLetter",), group=letters
        ),
        "saveState": _operation(
            "send", "connectorState", "Say how far a task was read, and who reads it.", "connector", state
        ),
        "followState": _operation(
            "receive", "connectorState", "Keep the newest of each task.", "connector", state, group=connectors
        ),
        "logState": _operation("send", "connectorStateChangelog", "Log the table.", "connector", state[:2]),
        "recoverState": _operation(
            "receive", "connectorStateChangelog", "Build the table anew, at a start.", "connector", state[:2]
        ),
    }


def _operation(
    action: str, channel: str, summary: str, role: str, messages: Sequence[str], *, group: str | None = None
) -> Node:
    bound = {"bindings": {"kafka": {"groupId": {"type": "string", "enum": [group]}, "bindingVersion": _BINDING}}}
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "tags": [{"name": role}],
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
        **(bound if group else {}),
    }


# messages


def _messages() -> Node:
    key = {"type": "string", "minLength": 1, "maxLength": MAX_FOREIGN_ID}
    event = _message(
        "ConnectorEvent", "One record of one source.", key={**key, "description": "The event's `foreign_id`."}
    )
    event["headers"] = {"type": "object", "properties": {name: _header(name) for name in _HEADERS}}
    event["examples"] = [{"name": "snapshot", "summary": "A payment as a whole.", "payload": _EXAMPLE}]
    return {
        "event": event,
        "deadLetter": _message(
            "DeadLetter",
            "One dead record, whole, and why it died.",
            key=_matching("^[0-9a-f]{32}$", "The letter's `id`."),
        ),
        "checkpoint": _message(
            "Checkpoint",
            "Where one task of one connector stands.",
            key=_matching(f"^{_UUID}/", "`connector_id`/`task`."),
        ),
        "claim": _message(
            "Claim",
            "From here on, what an older epoch of the connector says is refused.",
            key=_matching(f"^epoch/{_UUID}$", "`epoch/` and the connector's id."),
            text=_matching("^[0-9]+$", "The epoch."),
        ),
        "barrier": _message(
            "Barrier",
            "Tells its sender that everything before it was read. It means nothing to others.",
            key=_matching("^barrier/[0-9]+$", "`barrier/` and the partition."),
            text=_matching("^[0-9a-f]{32}$", "A nonce."),
        ),
    }


def _message(name: str, summary: str, *, key: Node, text: Node | None = None) -> Node:
    """Its payload is a model of ours, or `text`."""
    return {
        "name": name,
        "title": name,
        "summary": summary,
        "contentType": _TEXT if text else _JSON,
        "payload": text or {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"kafka": {"key": key, "bindingVersion": _BINDING}},
    }


def _header(name: str) -> Node:
    bounds = {codec.HEADER_EVENT: {"maxLength": MAX_EVENT_ID}}.get(name, {})
    return {"type": "string", **bounds, "description": _HEADERS[name]}


def _matching(pattern: str, description: str) -> Node:
    return {"type": "string", "pattern": pattern, "description": description}


# schemas


def _schemas() -> Node:
    _, found = models_json_schema(
        [(model, "validation") for model in (ConnectorEvent, DeadLetter, Checkpoint)],
        ref_template="#/components/schemas/{model}",
    )
    return {name: _older(schema) for name, schema in sorted(found["$defs"].items())}


# a JSON Schema holds anything
def _older(node: Any) -> Any:
    """
    The same in the draft 7 that AsyncAPI's own schemas are of: a tuple is `items`, and nothing stands beside a `$ref`.
    """
    if isinstance(node, list):
        return [_older(each) for each in node]
    if not isinstance(node, dict):
        return node
    said = {"items" if key == "prefixItems" else key: _older(value) for key, value in node.items()}
    if "$ref" in said and len(said) > 1:
        said["allOf"] = [{"$ref": said.pop("$ref")}]
    return said
