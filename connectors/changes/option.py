"""What an operator chooses of a change stream, beside where the database is and how rows are mapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from connectors.changes.identifier import TableName
from connectors.changes.pace import Pace

# What the mode closed_window can lose.
LOSES = (
    "rows whose transaction stayed open for longer than `delay_s` after it set the column, where the role may not see "
    "others' transactions (grant it pg_read_all_stats), or was prepared; rows whose column is set to a past instant; "
    "rows whose column is not set when they change; deletions"
)


class Mode(StrEnum):
    """How changes are found."""

    LOGICAL = "logical"  # by logical decoding: every change, in the order of commits
    WATERMARK = "watermark"  # by polling a column that holds the transaction's id: new rows, none lost
    CLOSED_WINDOW = "closed_window"  # by polling a column that holds the time of change: see what it can lose


class Snapshot(StrEnum):
    """Whether rows that were there before are read."""

    INITIAL = "initial"
    NEVER = "never"


class OnDelete(StrEnum):
    """What becomes of a row's deletion."""

    IGNORE = "ignore"  # it is counted as filtered: a payment is not undone because its row was tidied away
    REJECT = "reject"  # it is a dead letter
    CANCEL = "cancel"  # it cancels the payment; the table's replica identity must be full


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Of the mode `logical`."""

    tables: Sequence[TableName]
    slot: str
    publication: str
    create: bool
    snapshot: Snapshot
    on_delete: OnDelete
    peek_rows: int
    checkpoint_s: float
    pace: Pace


@dataclass(frozen=True, slots=True)
class PollOptions:
    """Of one table. `column` is the mode's."""

    mode: Mode
    column: str
    delay_s: float
    is_from_start: bool
    pace: Pace
