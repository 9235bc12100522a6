"""
ConnectorEvent: the envelope of every record on the events topic (seed 001), with a versioned payment payload and its
lineage.

`headers` and unknown fields are kept; an unknown major version is refused with a reason, never guessed at.
"""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas.payment import Instant, PaymentPayload

SCHEMA_VERSION = "1.0"
MAX_EVENT_ID = 200
MAX_FOREIGN_ID = 1_024
MAX_PATH = 4_096


class Lineage(BaseModel):
    """Where the record came from: enough to find its bytes again, and to order it against other versions of itself."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    connector_id: UUID = Field(description="The connector's immutable id.")
    connector: str = Field(max_length=255, description="Its name when the record was published.")
    run_id: UUID = Field(description="The run that published the record.")
    source_object: str = Field(max_length=128, description="SHA-256 of the file, or the provider's own object id.")
    position: str = Field(max_length=255, description="Place in the object, such as `row 12`.")
    path: str = Field(
        "", max_length=MAX_PATH, description="Where the object was found; says nothing about its identity."
    )
    line: int | None = Field(None, ge=1, description="First line of the record in a text file.")
    revision_at: Instant = Field(
        description="When this object was first discovered: durable, so that a replay sees the same."
    )
    revision_seq: int = Field(
        0, ge=0, description="Order among revisions of one instant, such as a change stream's position."
    )


class ConnectorEvent(BaseModel):
    """One record of one source. `id` is deterministic: reading the same record again gives the same id."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    schema_version: str = Field(
        SCHEMA_VERSION, pattern=r"^\d{1,4}\.\d{1,4}$", description="major.minor; readers refuse unknown majors."
    )
    id: str = Field(min_length=1, max_length=MAX_EVENT_ID, description="Unique id of the event.")
    foreign_id: str = Field(
        min_length=1, max_length=MAX_FOREIGN_ID, description="The outside entity; also the Kafka key."
    )
    type: str = Field(min_length=1, max_length=100, description="What happened, such as `payment.succeeded`.")
    headers: dict[str, str] = Field(default_factory=dict, description="Further facts, strings only.")
    created_at: Instant = Field(description="When the event was produced.")
    payment: PaymentPayload | None = Field(
        None, description="The payment's facts; absent on events that are not about a payment."
    )
    lineage: Lineage | None = Field(None, description="Where the record came from.")
