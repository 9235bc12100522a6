"""
Checkpoint: where one task of one connector stands, published to the compacted state topic after the broker's acks.

A cursor in a checkpoint is never ahead of what the broker acknowledged. Of two, the one with the greater (epoch,
seq) holds.
"""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas.identity import DIGEST_MODULUS
from schemas.payment import Instant


class Counts(BaseModel):
    """
    What the source side of a run counted so far, with the digest sum of the event ids at each hop.

    read = published + rejected + filtered, in records and in sums.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    read: int = Field(0, ge=0)
    published: int = Field(0, ge=0)
    rejected: int = Field(0, ge=0)
    filtered: int = Field(0, ge=0)
    skipped: int = Field(0, ge=0, description="Objects skipped as already known; no part of `read`.")
    published_sum: int = Field(
        0, ge=0, lt=DIGEST_MODULUS, description="Sum of the published event ids' digests modulo 2^128."
    )
    rejected_sum: int = Field(0, ge=0, lt=DIGEST_MODULUS)

    @property
    def balanced(self) -> bool:
        """Whether every record read has exactly one fate."""
        return self.read == self.published + self.rejected + self.filtered

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(
            read=self.read + other.read,
            published=self.published + other.published,
            rejected=self.rejected + other.rejected,
            filtered=self.filtered + other.filtered,
            skipped=self.skipped + other.skipped,
            published_sum=(self.published_sum + other.published_sum) % DIGEST_MODULUS,
            rejected_sum=(self.rejected_sum + other.rejected_sum) % DIGEST_MODULUS,
        )


class CheckpointFile(BaseModel):
    """The file that a task reads, for those who list files by their content."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(description="Its name, as operators read it.")
    path: str = Field(description="Where it was met.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)
    day: date = Field(description="The day it is about: of its name, else of its last change, in the connector's zone.")
    downloaded: bool = Field(description="Whether it came from elsewhere, and was here whole before it was read.")


class CursorEdit(BaseModel):
    """That an operator put the cursor where it is. Gone with the first checkpoint of a reading that moves it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: UUID = Field(description="The request's: who finds it here need not apply it again.")
    epoch: int = Field(ge=0, description="The epoch under which the task was read last: its run and counts are of it.")


class Checkpoint(BaseModel):
    """
    One task's place. The topic key is `connector_id/task`, so that compaction keeps the newest of each task.

    `cursor` is the source's own (null: nothing read yet); `done` says that the task needs no more reading. Whoever sets
    another cursor empties `part`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    connector_id: UUID
    task: str = Field(min_length=1, max_length=512, description="The task's key: for a file, its content's SHA-256.")
    descriptor: str = Field(default="", description="The task's descriptor, as operators read it: a file's name.")
    run_id: UUID
    epoch: int = Field(ge=0)
    seq: int = Field(ge=0)
    # a source's cursor is any JSON object: only the source reads it
    cursor: dict[str, Any] | None = None
    part: tuple[str, ...] = Field(
        default=(), description="Digests of events after the cursor that are published: a stop came inside a batch."
    )
    counts: Counts = Field(default=Counts(), description="Of this task within this run.")
    done: bool = False
    file: CheckpointFile | None = Field(default=None, description="What the task reads, where that is a file.")
    used: bool = Field(
        default=False,
        description="Whether something of the task was published or left out by a rule, in any run. Checkpoints of old "
        "do not say so: of those the counts tell.",
    )
    configuration_version: int = Field(
        default=0, ge=0, description="Version of the connector's configuration under which it was read; 0: not known."
    )
    recurring: bool = Field(default=False, description="Whether the task goes on for ever, a run at a time.")
    edit: CursorEdit | None = Field(default=None, description="Who put the cursor here, where no reading did.")
    revision_at: Instant = Field(description="When the task's object was first discovered; kept for ever.")
    updated_at: Instant

    @property
    def is_unusable(self) -> bool:
        """Whether it was read to its end, and no record of it could be used."""
        counts = self.counts
        return self.done and not self.recurring and not self.used and 0 < counts.read == counts.rejected

    @property
    def read_epoch(self) -> int:
        """The epoch under which the task was read last; an edit of its cursor is no reading."""
        return self.edit.epoch if self.edit else self.epoch

    @property
    def key(self) -> str:
        """The topic key, and the state table's."""
        return f"{self.connector_id}/{self.task}"

    def newer_than(self, other: Checkpoint | None) -> bool:
        """Whether this one holds where `other` stood. Equal is not newer: a redelivery changes nothing."""
        return other is None or (self.epoch, self.seq) > (other.epoch, other.seq)
