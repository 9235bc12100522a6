"""
What a payment event says, and what each status means.

    unknown 0 ── pending 10 ── authorised 20 ─┬─ failed 30 / expired 31 / cancelled 32
                                              └─ captured 40 ── succeeded 41 ── settled 45
                                                     └─ refund_reversed 48 ── partially_refunded 50 ── refunded 60

A rank decides only between adjustments of the same instant, or between dated and undated ones; a later instant may
go back
(a payout that a bank returns). Disputes lie over the status in a column of their own. `adjusted` states an amount
and no status.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.money import MAX_MINOR

MAX_PROVIDER = 100
MAX_REFERENCE = 255  # longer keys do not fit a btree page once encoded: reliability of the sink's index
MAX_RAW = 900_000  # characters; an event must fit the topic's 1 MiB


class PaymentType(StrEnum):
    """Direction of the money. A refund has its parent's type, never its own."""

    PAYIN = "payin"
    PAYOUT = "payout"


class Status(StrEnum):
    """Every status an event may state."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    AUTHORISED = "authorised"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    CAPTURED = "captured"
    SUCCEEDED = "succeeded"
    SETTLED = "settled"
    REFUND_REVERSED = "refund_reversed"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    ADJUSTED = "adjusted"
    DISPUTE = "dispute"
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"


class Kind(StrEnum):
    """How a status moves the payment."""

    SNAPSHOT = "snapshot"  # states the payment as a whole
    DELTA = "delta"  # adds or subtracts, and has a reference of its own
    ABSOLUTE = "absolute"  # replaces the running amount
    OVERLAY = "overlay"  # lies beside the status and moves no amount


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one status means: its kind, its rank in the chain, the sign of its amount, whether money has moved."""

    kind: Kind
    rank: int
    sign: int = 0
    moved: bool = False


MEANINGS: dict[Status, Meaning] = {
    Status.UNKNOWN: Meaning(Kind.SNAPSHOT, 0),
    Status.PENDING: Meaning(Kind.SNAPSHOT, 10),
    Status.AUTHORISED: Meaning(Kind.SNAPSHOT, 20),
    Status.FAILED: Meaning(Kind.SNAPSHOT, 30),
    Status.EXPIRED: Meaning(Kind.SNAPSHOT, 31),
    Status.CANCELLED: Meaning(Kind.SNAPSHOT, 32),
    Status.CAPTURED: Meaning(Kind.DELTA, 40, sign=1),
    Status.SUCCEEDED: Meaning(Kind.SNAPSHOT, 41, moved=True),
    Status.SETTLED: Meaning(Kind.SNAPSHOT, 45, moved=True),
    Status.REFUND_REVERSED: Meaning(Kind.DELTA, 48, sign=1),
    Status.PARTIALLY_REFUNDED: Meaning(Kind.DELTA, 50, sign=-1),
    Status.REFUNDED: Meaning(Kind.DELTA, 60, sign=-1),
    Status.ADJUSTED: Meaning(Kind.ABSOLUTE, -1),
    Status.DISPUTE: Meaning(Kind.OVERLAY, 1),
    Status.DISPUTE_WON: Meaning(Kind.OVERLAY, 2),
    Status.DISPUTE_LOST: Meaning(Kind.OVERLAY, 3),
}


def to_utc(at: datetime) -> datetime:
    """The same instant in UTC; an instant that UTC cannot hold is a ValueError."""
    try:
        return at.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("is outside the years 1 to 9999 in UTC") from exc


Instant = Annotated[AwareDatetime, AfterValidator(to_utc)]


class PaymentPayload(BaseModel):
    """
    What one record says about one payment. Unknown fields are kept.

    `reference` is the record's own; `parent_reference` the original payment's, for refunds, captures, reversals and
    disputes.
    `amount` is a magnitude in minor units for deltas (the status carries the sign) and the stated amount for the rest.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    provider: str = Field(
        min_length=1, max_length=MAX_PROVIDER, description="Who moved the money; frozen per connector."
    )
    reference: str = Field(
        min_length=1, max_length=MAX_REFERENCE, description="The record's own reference at the provider."
    )
    parent_reference: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_REFERENCE,
        description="The original payment's reference, when the record is not it.",
    )
    type: PaymentType = Field(description="The original payment's direction, also on its refunds.")
    status: Status = Field(description="What happened; its meaning is in `MEANINGS`.")
    amount: int = Field(ge=-MAX_MINOR, le=MAX_MINOR, description="Minor units of the asset.")
    asset: str = Field(min_length=3, max_length=8, description="ISO 4217 code, or CODE/exponent; verbatim.")
    scheme: str = Field("", max_length=64, description="Card network or rail, if known.")
    effective_at: Instant | None = Field(
        None, description="When it happened at the provider; null if unknown, never our clock."
    )
    raw: str | None = Field(None, max_length=MAX_RAW, description="The record as the source gave it, as text.")

    @model_validator(mode="after")
    def _delta_has_a_reference_of_its_own(self) -> PaymentPayload:
        if MEANINGS[self.status].kind is Kind.DELTA:
            if self.parent_reference is None or self.parent_reference == self.reference:
                raise PydanticCustomError(
                    "missing_reference",
                    "a {status} needs a reference of its own beside its payment's",
                    {"status": self.status.value},
                )
            if self.amount < 0:
                raise PydanticCustomError(
                    "invalid_amount",
                    "a {status} states a magnitude; its sign is in the status",
                    {"status": self.status.value},
                )
        return self

    @property
    def original_reference(self) -> str:
        """The reference of the payment this record is about."""
        return self.parent_reference or self.reference
