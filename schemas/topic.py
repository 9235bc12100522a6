"""Every topic in one table: the only place where a topic's name, key, size or retention is spelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_PREFIX = "till"
EVENT_MAX_BYTES = 1_048_576
LETTER_MAX_BYTES = (
    3 * 1_048_576
)  # an event in base64 (4/3) and its envelope fit; what does not is truncated with a pointer
_KEEP_FOR_EVER = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
_NEWEST_PER_KEY = {"cleanup.policy": "compact", "min.compaction.lag.ms": "60000"}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it is provisioned. `key` says in words what the record key is."""

    name: str
    key: str
    partitions: int
    max_message_bytes: int
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        """The broker's topic configuration."""
        return {**self.config, "max.message.bytes": str(self.max_message_bytes)}


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one installation."""

    events: TopicSpec
    dead_letters: TopicSpec
    connector_state: TopicSpec
    connector_state_changelog: TopicSpec

    def all(self) -> tuple[TopicSpec, ...]:
        """In the order in which they are created."""
        return (self.events, self.dead_letters, self.connector_state, self.connector_state_changelog)


def topics(prefix: str = DEFAULT_PREFIX, *, partitions: int = 4, state_partitions: int = 4) -> Topics:
    """
    The table for one `prefix`. Several installations share a broker by using different ones.

    The state topic and its changelog have equal partition counts, or Faust refuses the table.
    """
    return Topics(
        events=TopicSpec(f"{prefix}.events", "foreign id", partitions, EVENT_MAX_BYTES, _KEEP_FOR_EVER),
        dead_letters=TopicSpec(f"{prefix}.dead-letters", "letter id", 1, LETTER_MAX_BYTES, _KEEP_FOR_EVER),
        connector_state=TopicSpec(
            f"{prefix}.connector-state",
            "connector id/task; partition by connector id",
            state_partitions,
            EVENT_MAX_BYTES,
            _NEWEST_PER_KEY,
        ),
        connector_state_changelog=TopicSpec(
            changelog_name(prefix), "the table's key", state_partitions, EVENT_MAX_BYTES, _NEWEST_PER_KEY
        ),
    )


def connectors_app_id(prefix: str = DEFAULT_PREFIX) -> str:
    """The Faust app, and so the consumer group, of the connector role."""
    return f"{prefix}-connectors"


def sink_app_id(prefix: str = DEFAULT_PREFIX) -> str:
    """The Faust app, and so the consumer group, of the sink role."""
    return f"{prefix}-sink"


def letters_app_id(prefix: str = DEFAULT_PREFIX) -> str:
    """The Faust app, and so the consumer group, of the letters role."""
    return f"{prefix}-letters"


def changelog_name(prefix: str = DEFAULT_PREFIX) -> str:
    """
    Faust's own name for the changelog of the table `connector_state`. Source: `faust/tables/base.py`,
    `_changelog_topic_name`.
    """
    return f"{connectors_app_id(prefix)}-connector_state-changelog"
