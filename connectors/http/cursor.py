"""The cursor of a resource, as `Standing` and `Seen` keep it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from connectors.cursor import CursorModel, Direction, Document, InstantText, compared
from connectors.http import address
from connectors.http.seen import DIGEST_CHARS


def _address(text: str) -> str:
    address.parse(text)  # whether it is the API's own is seen before it is asked
    return text


def _digests(text: str) -> str:
    if len(text) % DIGEST_CHARS:
        raise ValueError(f"is a row of digests of {DIGEST_CHARS} characters each")
    return text


class PlaceCursor(CursorModel):
    """What the next request says of where it stands: of what its paging knows."""

    cursor: str | None = None
    url: Annotated[str, AfterValidator(_address)] | None = None
    page: int | None = Field(default=None, ge=0)
    offset: int | None = Field(default=None, ge=0)
    id: str | None = None
    time: str | None = None


class WalkCursor(CursorModel):
    """A window that is being read."""

    window: list[InstantText] | None = Field(min_length=2, max_length=2)
    read_at: InstantText
    place: PlaceCursor
    asked: int = Field(ge=0)
    chain: str
    before: str
    passes: int = Field(ge=0)
    revisits: bool


class ResourceCursor(CursorModel):
    """Where a resource stands: in time, in a feed's pages, in a window. An empty one is the beginning."""

    advice: ClassVar[tuple[str, ...]] = (
        "records that `seen` names are not published again: leave out `seen` and `mark` to publish what is read again",
        "the next window begins `overlap_s` before `read_at`, or at `until` where that is earlier: set both",
    )

    until: InstantText | None = None
    read_at: InstantText | None = None
    revisited_at: InstantText | None = None
    place: PlaceCursor | None = None
    walk: WalkCursor | None = None
    seen: Annotated[str, AfterValidator(_digests)] | None = None
    mark: str | None = None
    asked: bool | None = None

    def direction(self, before: Document) -> Direction:
        """By the end of what was read, where both have one."""
        old = before.get("until")
        if self.until is None or not isinstance(old, str):
            return Direction.UNKNOWN
        return compared(datetime.fromisoformat(self.until).timestamp(), datetime.fromisoformat(old).timestamp())


def model(_: Any) -> type[CursorModel]:
    """The model of its cursors, whatever the configuration."""
    return ResourceCursor
