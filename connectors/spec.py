"""
What a source is and offers: its kind, its configuration, how to make one.

`ConnectorConfig` holds the options that every connector has (seed 001); a source's own config extends it, so that a
connector is configured by one flat object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from connectors.context import SourceContext
from connectors.cursor import CursorModel
from connectors.record import STATUSES, squeezed
from connectors.source import Source
from connectors.word import Called
from schemas.payment import Status

_PAYMENT = "payment"
_SHOWN = 60  # characters of a word that is refused


class FilterTestIds(StrEnum):
    """Whether payments whose reference begins with `test-` are left out."""

    IN_PRODUCTION = "in_production"
    ALWAYS = "always"
    NEVER = "never"


class Retried(StrEnum):
    """Errors of a source, by code, that a connector may try again. The last two want somebody, and pause it else."""

    SOURCE_UNAVAILABLE = "source_unavailable"
    SOURCE_THROTTLED = "source_throttled"
    SOURCE_CHANGED = "source_changed"
    SOURCE_BROKEN = "source_broken"
    SOURCE_UNAUTHORISED = "source_unauthorised"
    SOURCE_MISCONFIGURED = "source_misconfigured"


def _event_type(given: str) -> str:
    prefix, _, word = given.partition(".")
    status = STATUSES.get(squeezed(word)) if prefix == _PAYMENT else None
    if status is None:
        there_are = ", ".join(sorted(f"{_PAYMENT}.{each.value}" for each in Status))
        raise ValueError(f"{given[:_SHOWN]!r} is no event type; there are {there_are}")
    return f"{_PAYMENT}.{status.value}"


EventType = Annotated[str, AfterValidator(_event_type), Called("an event type: `payment.` and a status")]
"""The type of an event, by the status's name or by a word that records may use for it."""


class Matching(BaseModel):
    """Texts to compare a value with: one of `equals`, or a beginning of `prefix`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    equals: tuple[str, ...] = Field((), description="Values; the empty text means that there is none.")
    prefix: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), description="Beginnings of values.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.equals and not self.prefix:
            raise ValueError("name what is left out: equals or prefix")
        return self


class EventFilter(Matching):
    """A rule: an event is left out if this header, or this field of its payment, matches."""

    header: str = Field("", description="Name of a header of the event.")
    field: Literal["", "reference", "parent_reference", "type", "status", "asset", "scheme"] = Field(
        "", description="Field of the payment."
    )

    @model_validator(mode="after")
    def _looks_at_one_thing(self) -> Self:
        if bool(self.header) == bool(self.field):
            raise ValueError("name what is looked at: a header or a field")
        return self


class ConnectorConfig(BaseModel):
    """The options of every connector. They act before anything is published."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=False)

    poll_s: float = Field(10.0, gt=0, le=86_400, description="Seconds between two listings.")
    parallel: int = Field(4, ge=1, le=64, description="Tasks that run at a time; the others are pending, oldest first.")
    error_backoff_s: float = Field(
        1.0, gt=0, le=3_600, description="Longest first pause after an error, in seconds; it doubles."
    )
    error_backoff_max_s: float = Field(
        60.0, gt=0, le=86_400, description="Longest pause between two attempts, in seconds."
    )
    error_backoff_jitter: float = Field(
        1.0, ge=0, le=1, description="Part of a pause that is left to chance; 0: each is as long as it may be."
    )
    max_retries: int = Field(
        5, ge=0, le=1_000, description="Attempts without progress before the run fails; the next listing tries again."
    )
    retry_on: tuple[Retried, ...] = Field(
        (Retried.SOURCE_UNAVAILABLE, Retried.SOURCE_THROTTLED, Retried.SOURCE_CHANGED, Retried.SOURCE_BROKEN),
        description="Errors of the source that are tried again; any other ends the task at once, and one that wants "
        "somebody pauses the connector.",
    )
    deadline_s: float = Field(60.0, gt=0, le=86_400, description="Seconds that the source may keep silent.")
    stop_s: float = Field(10.0, gt=0, le=300, description="Seconds that a stop waits for acknowledgements.")
    checkpoint_s: float = Field(1.0, ge=0, le=300, description="Seconds between two checkpoints of a task at least.")
    filter_test_ids: FilterTestIds = Field(
        FilterTestIds.IN_PRODUCTION, description="Whether references that begin with `test-` are left out, as filtered."
    )
    event_types: tuple[EventType, ...] = Field(
        (),
        description="Event types to publish, such as `payment.succeeded` (or seed 001's `payment.completed`); all if "
        "empty. Others count as filtered.",
    )
    filters: tuple[EventFilter, ...] = Field(
        (), description="Rules by header or field; an event that one of them matches is left out, as filtered."
    )
    consume_lag_s: float = Field(
        0.0,
        ge=0,
        le=604_800,
        description="Seconds that each record is held back after it came to be (its revision), for others to be first.",
    )
    lag_alert_s: float = Field(
        0.0, ge=0, le=31_536_000, description="Age of the oldest record not published that makes it unwell; 0: none."
    )
    records_per_s: float = Field(
        0.0, ge=0, le=10_000_000, description="Records that may be published a second, on all workers; 0: no limit."
    )


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """
    One kind of source. `main_task` is the descriptor of its listing (seed 000: `directory`).

    `takes_dates` says that its source is a `RequestedSource` that heeds days. `holds_back`: it is a `HoldingSource`.
    `factory` gets a validated instance of `config` and the world, and does no I/O.
    """

    kind: str
    summary: str
    config: type[ConnectorConfig]
    # each factory takes its own config class, which this table cannot express
    factory: Callable[[Any, SourceContext], Source]
    resumes_from: str
    main_task: str = ""
    takes_dates: bool = False
    holds_back: bool = False
    # the model of its cursors under a configuration of its own; without one any object passes for a cursor
    cursor: Callable[[Any], type[CursorModel]] | None = None
    # a configuration that validates, for the docs
    example: Mapping[str, Any] = field(default_factory=dict)
    # what an operator should know beside the options: paragraphs in Markdown
    notes: str = ""

    @property
    def listing(self) -> str:
        """The descriptor of the task that lists."""
        return self.main_task or self.kind
