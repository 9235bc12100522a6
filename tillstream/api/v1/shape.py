"""
What the shapes of `/api/v1` share: models that read services' values, pages, their cursors, a dry run.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tillstream.api.body import is_storable
from tillstream.api.problem import Refusal

MOST = 200
USUAL = 50
Item = TypeVar("Item")
_CURSOR_CHARS = 2_000


class Model(BaseModel):
    """An answer, read from a service's value."""

    model_config = ConfigDict(from_attributes=True)

    @classmethod
    def of(cls, value: object) -> Self:
        """From a value of a service, field by field."""
        return cls.model_validate(value)


class Body(BaseModel):
    """What a client sends: nothing that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Model, Generic[Item]):
    """Some of a list. `next` asks for those after them; null at the end."""

    data: list[Item]
    next: str | None = None


def _aware(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("must name its offset, such as 2025-01-10T12:00:00Z")
    return at


Instant = Annotated[datetime, AfterValidator(_aware)]
Limit = Annotated[int, Query(ge=1, le=MOST, description="Elements at most.")]
After = Annotated[str | None, Query(max_length=_CURSOR_CHARS, description="`next` of the page before.")]
DryRun = Annotated[bool, Query(description="The same checks and the same answer, and no effect.")]
Listed = Field(description="The elements.")


# a keyset's parts are what JSON has
def cursor_of(place: list[Any], *, filtered_by: object) -> str:
    """The opaque `next` of a page: where it ended, and what it was filtered by."""
    told = json.dumps([_hash(filtered_by), *place], default=str, separators=(",", ":"))
    return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")


def place_of(cursor: str | None, *, filtered_by: object, kinds: Sequence[Callable[[Any], Any]]) -> list[Any] | None:
    """
    Where a page begins, its parts read by `kinds`; None at the beginning.

    Raises:
        Refusal: `invalid`; it is no page's `next`, or one of another filter.
    """
    if cursor is None:
        return None
    try:
        told = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=="))
    except (ValueError, binascii.Error, RecursionError):
        told = None
    if not isinstance(told, list) or len(told) != len(kinds) + 1:
        raise _no_page()
    if told[0] != _hash(filtered_by):
        raise Refusal(
            "invalid", "this is the `next` of another filter", hint="start from the first page", field="after"
        )
    try:
        return [kind(part) for kind, part in zip(kinds, told[1:], strict=True)]
    except (ValueError, TypeError, AttributeError):
        raise _no_page() from None


def _no_page() -> Refusal:
    return Refusal("invalid", "this is not the `next` of a page", hint="start from the first page", field="after")


def _hash(filtered_by: object) -> str:
    return hashlib.sha256(json.dumps(filtered_by, default=str, sort_keys=True).encode()).hexdigest()[:12]


# parts of places


def instant(text: str) -> datetime:
    """An instant of a place."""
    return _aware(datetime.fromisoformat(text))


def number(part: object) -> int:
    """A whole number of a place, as PostgreSQL holds it."""
    if not isinstance(part, int) or isinstance(part, bool) or not -(2**63) <= part < 2**63:
        raise ValueError(part)
    return part


def text(part: object) -> str:
    """A text of a place, as PostgreSQL holds it."""
    if not isinstance(part, str) or not is_storable(part):
        raise ValueError(part)
    return part
