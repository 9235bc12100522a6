"""Dead letters a page at a time, and in groups of what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sinks.pool import Pool, connection
from tillstream.control.letter import LetterState, LetterView, view_of
from tillstream.control.statement import statements

MOST_GROUPS = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Which letters; None takes all. `run` takes a record that several runs rejected under each of them. `corrected` takes
    those of files that came again with other content, of which something was stored: most likely they are mended.
    """

    stage: str | None = None
    reason: str | None = None
    connector_id: UUID | None = None
    state: LetterState | None = LetterState.OPEN
    run: UUID | None = None
    corrected: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Letters that died of the same: how many, since when, and the newest of them."""

    stage: str
    reason: str
    connector: str
    connector_id: UUID | None
    letters: int
    first_at: datetime
    last_at: datetime
    last_id: str
    message: str
    hint: str


async def page(
    pool: Pool, wanted: Wanted, *, limit: int, after: tuple[datetime, str] | None = None
) -> Sequence[LetterView]:
    """
    Letters without their bytes, the newest first; `after` is the (failed_at, id) that the page before ended with.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    at, identifier = after or (None, None)
    async with connection(pool) as held:
        rows = await held.fetch(statements()["page_letters"], *_arguments(wanted), at, identifier, limit)
    return [view_of(row) for row in rows]


async def groups(pool: Pool, wanted: Wanted) -> Sequence[Group]:
    """
    Letters by stage, reason and connector; the largest groups first, at most 200.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as held:
        rows = await held.fetch(statements()["group_letters"], *_arguments(wanted), MOST_GROUPS)
    return [Group(**row) for row in rows]


def _arguments(wanted: Wanted) -> tuple[object, ...]:
    return wanted.stage, wanted.reason, wanted.connector_id, wanted.state, wanted.run, wanted.corrected
