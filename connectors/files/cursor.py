"""The cursor of a file, as `FileReader` keeps it: the file's end, or a record's end in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from connectors.cursor import CursorModel, Direction, Document, Problem, compared
from connectors.files.reading import is_end

_END = float("inf")


class FileCursor(CursorModel):
    """`file` and `stamp` alone stand at the file's end; with the others it stands at a record's end in the file."""

    advice: ClassVar[tuple[str, ...]] = (
        "offset, row and line belong together, as a cursor of this file had them",
        "the file is gone through up to there first; what is no record's end, or another row, pauses the connector",
        "a file that is not where it was any more is not read again",
    )

    advice_at_reset: ClassVar[tuple[str, ...]] = ("a file that is not where it was any more is not read again",)
    nullable: ClassVar[frozenset[str]] = frozenset({"header", "delimiter"})  # of a file that stopped before its header

    file: str = Field(min_length=1)
    stamp: str = Field(min_length=1)
    format: Literal["csv", "json", "jsonl"] | None = None
    offset: int | None = Field(default=None, ge=0)
    row: int | None = Field(default=None, ge=0)
    line: int | None = Field(default=None, ge=1)
    encoding: Literal["utf-8", "cp1252", "latin-1", "utf-16-le", "utf-16-be"] | None = None
    header: list[str] | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    mode: Literal["start", "array", "values", "end"] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        given = self.model_fields_set - {"file", "stamp"}
        needs = {"format", "offset", "row", "line", "encoding"} | {
            "csv": {"header", "delimiter"},
            "json": {"mode"},
        }.get(self.format or "", set())
        if given and (given != needs or any(getattr(self, name) is None for name in needs - {"header", "delimiter"})):
            raise ValueError(
                f"a place in a file of this format has {', '.join(sorted(needs))}; the file's end has none of them"
            )
        if (self.header is None) != (self.delimiter is None):
            raise ValueError("header and delimiter are known together, or not at all")
        return self

    # as `CursorModel`
    def refusals(self, before: Document) -> Iterator[Problem]:
        """It is another file's."""
        for name in ("file", "stamp"):
            if name in before and before[name] != getattr(self, name):
                yield Problem(name, "is the file that the task reads, and stays so")

    def direction(self, before: Document) -> Direction:
        """By the offset."""
        return compared(_END if self.offset is None else self.offset, _offset(before))


def model(_: Any) -> type[CursorModel]:
    """The model of its cursors, whatever the configuration."""
    return FileCursor


def _offset(cursor: Document) -> float:
    return _END if is_end(cursor) else float(cursor.get("offset", 0))
