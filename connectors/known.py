"""
What a runner knows of its tasks, from checkpoints and from this life: which are done, where the others stand.

Also the two clocks that only go forward: sequence numbers of checkpoints, and revisions of objects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from uuid import UUID

from connectors.source import Cursor, Task
from connectors.task import Work
from schemas.checkpoint import Checkpoint, Counts, CursorEdit

_LAST_RUNS = 100  # telling the run log of one again costs it two statements
_REVISION_STEP = timedelta(microseconds=1)  # what the timestamps of events can tell apart


class Known:
    """
    Tasks by key. `cursors` has the last cursor of each that was ever begun; `carried` what tasks counted under runs
    that go on, by run.

    A task of which no record could be used is done, until the connector's configuration is another: then it is to be
    read once more, from its beginning.
    """

    def __init__(self, version: int = 1) -> None:
        self._version = version
        self._unusable: set[str] = set()
        self._stale: set[str] = set()  # of those the ones that ended under another configuration
        self.cursors: dict[str, Cursor] = {}
        self.carried: dict[UUID, dict[str, Counts]] = {}
        self._unfinished: dict[str, Work] = {}
        self._done: dict[str, str] = {}  # key → the descriptor under which it was met, empty where that is not known
        self._revisions: dict[str, datetime] = {}
        self._edited: set[str] = set()
        self._set: dict[str, tuple[Cursor | None, CursorEdit]] = {}
        self._same_content: set[tuple[str, str]] = set()
        self._order = 0
        self._seq = 0
        self._last_revision_at: datetime | None = None

    def restore(self, checkpoints: Iterable[Checkpoint], *, going_on: Collection[UUID] = ()) -> None:
        """Take over what earlier lives left. `going_on` are runs that do not end with them."""
        for checkpoint in checkpoints:
            key, revision_at = checkpoint.task, checkpoint.revision_at
            self._seq = max(self._seq, checkpoint.seq)
            self._last_revision_at = max(self._last_revision_at or revision_at, revision_at)
            self._revisions[key] = revision_at
            if checkpoint.is_unusable:
                self._unusable.add(key)
                if checkpoint.configuration_version != self._version:
                    self._stale.add(key)
            if checkpoint.cursor is not None and key not in self._stale:
                self.cursors[key] = checkpoint.cursor
            if checkpoint.edit is not None:
                self._edited.add(key)
                self._set[key] = checkpoint.cursor, checkpoint.edit
            if checkpoint.run_id in going_on:
                self.carried.setdefault(checkpoint.run_id, {})[key] = checkpoint.counts
            if checkpoint.done:
                self._done[key] = checkpoint.descriptor
            else:
                task = Task(checkpoint.descriptor or key, key, key)
                self._unfinished[key] = Work(task, 0, revision_at, discovered=True, cursor=checkpoint.cursor)
                self._unfinished[key].used = checkpoint.used or bool(
                    checkpoint.counts.read > checkpoint.counts.rejected
                )
                self._unfinished[key].part = tuple(bytes.fromhex(digest) for digest in checkpoint.part)

    def is_done(self, key: str) -> bool:
        """Whether nothing is left to read of the task."""
        return key in self._done and key not in self._stale

    def take_edited(self, key: str) -> bool:
        """Whether an operator put the task's cursor where it is, and nobody has asked since."""
        edited = key in self._edited
        self._edited.discard(key)
        return edited

    def is_set(self, key: str) -> bool:
        """Whether an operator put the task's cursor where this life found it."""
        return key in self._set

    def edit_of(self, work: Work, epoch: int) -> CursorEdit | None:
        """
        The edit that put the work's cursor where it still is: until something is read, whoever comes next must know of
        it. What a checkpoint of this epoch counts is of this epoch.
        """
        cursor, edit = self._set.get(work.task.key, (None, None))
        if edit is None or cursor is None or work.done or work.cursor != cursor:
            return None
        return edit.model_copy(update={"epoch": epoch})

    def is_unusable(self, key: str) -> bool:
        """Whether the task is done, and no record of it could be used."""
        return key in self._unusable

    def known_as(self, task: Task) -> str:
        """The descriptor under which a done task was met first."""
        if not self._done[task.key]:
            self._done[task.key] = task.descriptor
        return self._done[task.key]

    def is_new_name(self, task: Task, known_as: str) -> bool:
        """Whether this is content that is known under another name, met under this one for the first time."""
        name = (task.key, task.descriptor)
        if task.descriptor == known_as or name in self._same_content:
            return False
        self._same_content.add(name)
        return True

    def begin(self, task: Task, now: datetime, *, counted: Counts | None = None) -> Work:
        """
        The work that is left of a task: what an earlier attempt acknowledged stays so.

        Of a task that is done all is left: it has been asked for again, and keeps its revision. `counted` is what an
        earlier life counted of it under the same run.
        """
        self._order += 1
        before = self._unfinished.get(task.key)
        again = self._done.pop(task.key, None) is not None
        revision_at = self._revisions.get(task.key) or self._next_revision(now)
        work = Work(task, self._order, revision_at, discovered=again, counts=counted or Counts())
        work.used = again and task.key not in self._unusable
        self._unusable.discard(task.key)
        self._stale.discard(task.key)
        if before is not None:
            work.discovered, work.cursor, work.part = before.discovered, before.cursor, before.part
            work.used = before.used
        self._revisions[task.key] = revision_at
        self._unfinished[task.key] = work
        return work

    def end(self, work: Work) -> None:
        """The work is out of hand, done or not."""
        key = work.task.key
        if work.cursor is not None:
            self.cursors[key] = work.cursor
        if work.done and not work.task.recurring:
            del self._unfinished[key]
            self._done[key] = work.task.descriptor
            if work.is_unusable:
                self._unusable.add(key)

    def next_seq(self) -> int:
        """A number greater than that of any checkpoint before."""
        self._seq += 1
        return self._seq

    def _next_revision(self, now: datetime) -> datetime:
        """Now, but later than any before: of two contents found in one listing, the later found one is the newer."""
        if self._last_revision_at is not None and now <= self._last_revision_at:
            now = self._last_revision_at + _REVISION_STEP
        self._last_revision_at = now
        return now


def last_runs(checkpoints: Iterable[Checkpoint]) -> dict[UUID, Counts]:
    """
    The newest runs of the last life, oldest first, with what their checkpoints counted.

    Whether their ends reached the run log nobody knows: it may have been away.
    """
    listed = list(checkpoints)
    last_epoch = max((checkpoint.read_epoch for checkpoint in listed), default=0)
    counts: dict[UUID, Counts] = {}
    for checkpoint in sorted(listed, key=lambda checkpoint: checkpoint.seq):
        if checkpoint.read_epoch == last_epoch and (checkpoint.counts.read or not checkpoint.recurring):
            # popped and put back: a run stands where its last checkpoint stands
            counts[checkpoint.run_id] = counts.pop(checkpoint.run_id, Counts()).plus(checkpoint.counts)
    return dict(list(counts.items())[-_LAST_RUNS:])
