"""
What a source says of its cursors, for an operator who edits one: their shape, what must not change, which way it goes.

A cursor is the source's own. Nothing here is asked while it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator

# a source's own JSON object
Document = Mapping[str, Any]


class Problem(NamedTuple):
    """What is wrong with one field."""

    field: str
    message: str


class Direction(StrEnum):
    """Where a cursor stands beside another one of its task."""

    BACK = "back"
    AHEAD = "ahead"
    UNKNOWN = "unknown"


class CursorModel(BaseModel):
    """One shape of cursor. A key that it does not name is refused, and so is a value of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # what an operator should know who edits one, and who lets its task begin anew
    advice: ClassVar[tuple[str, ...]] = ()
    advice_at_reset: ClassVar[tuple[str, ...]] = ()
    # optional keys that may be there and say nothing
    nullable: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*", mode="before")
    @classmethod
    def _says_something(cls, value: object, info: ValidationInfo) -> object:
        name = info.field_name or ""
        if value is None and name not in cls.nullable and not cls.model_fields[name].is_required():
            raise ValueError("leave it out, or give it a value")
        return value

    # a cursor of earlier versions may have any shape
    def refusals(self, before: Document) -> Iterator[Problem]:  # noqa: ARG002 for those that refuse something
        """Why the task cannot go from `before` to this; nothing where it can."""
        return iter(())

    def direction(self, before: Document) -> Direction:  # noqa: ARG002 as above
        """Where this stands beside `before`; called only where nothing is refused."""
        return Direction.UNKNOWN


def compared(new: float, old: float) -> Direction:
    """By two numbers that grow while a task is read."""
    return Direction.BACK if new < old else Direction.AHEAD if new > old else Direction.UNKNOWN


def _instant(text: str) -> str:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be an instant, such as 2025-01-10T12:00:00+00:00") from None
    if at.tzinfo is None:
        raise ValueError("must name its offset, such as 2025-01-10T12:00:00+00:00")
    return text


InstantText = Annotated[str, AfterValidator(_instant)]
"""An aware instant in ISO 8601, as cursors spell it."""
