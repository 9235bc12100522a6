"""
The copy of `connector_state` that readers query. The connector role alone writes it, after its table has taken the
checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from schemas.checkpoint import Checkpoint
from sinks.pool import Pool, connection
from sinks.prepared import storable

_MIRROR = """
INSERT INTO checkpoints AS c
       (connector_id, task, descriptor, path, run_id, epoch, seq, cursor, counts, done, revision_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (connector_id, task) DO UPDATE
   SET descriptor = excluded.descriptor, path = excluded.path, run_id = excluded.run_id, epoch = excluded.epoch,
       seq = excluded.seq, cursor = excluded.cursor, counts = excluded.counts, done = excluded.done,
       revision_at = excluded.revision_at, updated_at = excluded.updated_at
 WHERE (excluded.epoch, excluded.seq) > (c.epoch, c.seq)
"""


class CheckpointMirror:
    """`streams.state.Mirror` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def mirror(self, checkpoints: Sequence[Checkpoint]) -> None:
        """
        Store the checkpoints where they are newer than what is there.

        Raises:
            SinkError: as `sinks/sqlstate.py` routes it.
        """
        rows = [_row(checkpoint) for checkpoint in checkpoints]
        async with connection(self._pool) as held:
            await held.executemany(_MIRROR, rows)


def _row(checkpoint: Checkpoint) -> tuple[object, ...]:
    cursor = checkpoint.cursor or {}
    data = checkpoint.model_dump(mode="json")
    return (
        checkpoint.connector_id,
        storable(checkpoint.task),
        storable(checkpoint.descriptor or str(cursor.get("descriptor", checkpoint.task))),
        storable(str(cursor.get("path", ""))),
        checkpoint.run_id,
        checkpoint.epoch,
        checkpoint.seq,
        None if checkpoint.cursor is None else _json(data["cursor"]),
        _json(data["counts"]),
        checkpoint.done,
        checkpoint.revision_at,
        checkpoint.updated_at,
    )


def _json(value: object) -> str:
    return json.dumps(value)
