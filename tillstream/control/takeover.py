"""
Taking a connector over: a claim, announced in the state's log, and the edits of its cursors that wait for it.

From the claim on nobody else writes for the connector, and what an older epoch says after the announcement is refused
by whoever reads the log. So an edit is one more checkpoint, of the new epoch. It names its request: whoever takes over
next finds in the state itself whether it was written. Until its row says that it ended it is looked for anew, so
nothing is lost or done twice, wherever an owner dies.

The state's table may lose its last writes in a crash. A reader that falls back reads twice; an edit that is forgotten
would be wrong. So each takeover compares: what the row says was applied, and the state does not hold, is written again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from connectors.ports import CheckpointStore, Clock
from schemas.checkpoint import Checkpoint, CursorEdit
from schemas.errors import Fenced
from schemas.failpoint import failpoint
from sinks.pool import Pool, connection
from sinks.prepared import storable
from tillstream.control import request as requests
from tillstream.control.claim import Claim, claim, insist
from tillstream.control.cursor_edit import APPLIED
from tillstream.control.statement import statements

logger = logging.getLogger(__name__)

EDITED = "an operator edited the cursor of a task that it had in hand: what is left is read by another run"
# asyncpg's records are mappings of anything
_Row = Mapping[str, Any]


class StateStore(CheckpointStore, Protocol):
    """Where tasks stand, the greatest epoch that was seen there, and which connectors' state is this worker's."""

    def owns(self, connector_id: UUID) -> bool:
        """Whether the connector's partition of the state topic is assigned to this worker now."""
        ...

    def newest_epoch(self, connector_id: UUID) -> int:
        """A claim must go above it. Complete once `load` has returned."""
        ...

    async def announce(self, connector_id: UUID, epoch: int) -> None:
        """
        Return once the state's log holds the claim: what an older epoch writes after it is refused.

        Raises:
            BrokerUnavailable: retry.
        """
        ...


@dataclass(frozen=True, slots=True)
class Takeover:
    """A claim. `edits` are those that had waited for it."""

    claim: Claim
    edits: frozenset[UUID]


async def take_over(pool: Pool, state: StateStore, connector_id: UUID, *, worker: str, clock: Clock) -> Takeover:
    """
    Claim the connector, and see to the edits of its cursors.

    Raises:
        Fenced: pause; somebody newer has claimed it meanwhile. SinkError, BrokerError: retry.
    """
    await state.load(connector_id)  # everything that an older epoch wrote so far has been seen
    held = await claim(pool, connector_id, worker=worker, table_epoch=state.newest_epoch(connector_id))
    failpoint("after_claim")
    await state.announce(connector_id, held.epoch)
    async with connection(pool) as reading:
        rows = await reading.fetch(statements()["cursor_edits_to_apply"], connector_id)
    if rows:
        await _Editor(pool, state, held, clock).see_to(rows)
    return Takeover(held, frozenset(row["id"] for row in rows if row["status"] != APPLIED))


async def release(pool: Pool, held: Claim) -> None:
    """
    Tell that the worker of this claim has nothing of its connector in hand any more. Of an outdated one nothing.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as writing:
        await writing.execute(statements()["release_claim"], held.connector_id, held.epoch)


class _Editor:
    """Brings edits into the state, under one claim."""

    def __init__(self, pool: Pool, state: StateStore, held: Claim, clock: Clock) -> None:
        self._pool = pool
        self._state = state
        self._held = held
        self._clock = clock

    async def see_to(self, rows: list[_Row]) -> None:
        """Write what is not there yet, see it there, and tell."""
        known = await self._known()  # final: nobody of before can add to it
        seq = max((each.seq for each in known.values()), default=0)
        written: list[tuple[_Row, Checkpoint]] = []
        waiting = {row["task"] for row in rows if row["status"] != APPLIED}
        for row in rows:
            task = row["task"]
            if row["status"] == APPLIED and task in waiting:
                continue  # what it said is edited once more
            checkpoint = self._applied(row, known) if row["status"] == APPLIED else await self._edited(row, known)
            if checkpoint is None:
                continue
            if checkpoint is not known.get(task):
                seq += 1
                numbered = {"epoch": self._held.epoch, "seq": seq}
                checkpoint = known[task] = checkpoint.model_copy(update=numbered)
                failpoint("before_cursor_edit")
                await self._state.save(checkpoint)
                failpoint("after_cursor_edit")
            written.append((row, checkpoint))
        if written:
            there = await self._known()
            for row, checkpoint in written:
                await self._tell(row, checkpoint, there.get(row["task"]))

    async def _known(self) -> dict[str, Checkpoint]:
        loaded = await self._state.load(self._held.connector_id)
        return {storable(task): checkpoint for task, checkpoint in loaded.items()}

    def _applied(self, row: _Row, known: Mapping[str, Checkpoint]) -> Checkpoint | None:
        """The checkpoint of an edit that ended, where the state has lost it."""
        there = known.get(row["task"])
        if there is not None and (there.epoch, there.seq) >= (row["applied_epoch"], row["applied_seq"]):
            return None
        logger.warning("an edited cursor was lost with the state's last writes, and is set again", extra=_facts(row))
        return Checkpoint.model_validate_json(row["checkpoint"]).model_copy(update={"updated_at": self._clock.now()})

    async def _edited(self, row: _Row, known: Mapping[str, Checkpoint]) -> Checkpoint | None:
        """The checkpoint of an edit that waits; None where it is refused."""
        there = known.get(row["task"])
        if there is None:
            await self._refuse(row, "its worker knows no such task")
            return None
        if there.edit is not None and there.edit.id == row["id"]:
            return there  # written by one who died before it could tell
        if (there.epoch, there.seq) > (row["epoch"], row["seq"]):
            await self._refuse(row, f"the task has moved on: it stands at {json.dumps(there.cursor)[:500]}")
            return None
        async with connection(self._pool) as reading:
            asked = await requests.open_requests(reading, [self._held.connector_id])
        if any(each.run_id == there.run_id and each.epoch is not None for each in asked):
            # one run cannot count the same records in two readings
            await requests.end(self._pool, there.run_id, self._held, reason=EDITED)
        return there.model_copy(
            update={
                "cursor": None if row["after"] is None else json.loads(row["after"]),
                "part": (),
                "done": False,
                "edit": CursorEdit(id=row["id"], epoch=there.read_epoch),
                "updated_at": self._clock.now(),
            }
        )

    async def _refuse(self, row: _Row, reason: str) -> None:
        async with connection(self._pool) as writing, writing.transaction():
            await insist(writing, self._held)
            await writing.execute(statements()["refuse_cursor_edit"], row["id"], self._held.worker, storable(reason))
        logger.warning("cursor not edited", extra=_facts(row, reason=reason))

    async def _tell(self, row: _Row, checkpoint: Checkpoint, there: Checkpoint | None) -> None:
        """
        The edit ended: the state holds it, and so does the mirror, which is written before the state is seen.

        Raises:
            Fenced: pause; somebody newer has claimed the connector, and sees to it.
        """
        if there is None or (there.epoch, there.seq) < (checkpoint.epoch, checkpoint.seq):
            raise Fenced(f"the state of connector {self._held.connector_id} is another owner's by now")
        arguments = (self._held.worker, checkpoint.model_dump_json(), checkpoint.epoch, checkpoint.seq)
        async with connection(self._pool) as writing, writing.transaction():
            await insist(writing, self._held)
            await writing.execute(statements()["end_cursor_edit"], row["id"], *arguments)
        logger.info("cursor edited", extra=_facts(row, epoch=checkpoint.epoch))


def _facts(row: _Row, **facts: object) -> dict[str, dict[str, object]]:
    told = {
        "edit": str(row["id"]),
        "connector": str(row["connector_id"]),
        "task": row["task"],
        "by": row["requested_by"],
    }
    return {"facts": {**told, **facts}}
