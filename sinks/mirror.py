"""
The copy of `connector_state` that readers query. The connector role alone writes it, after its table has taken the
checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from schemas.checkpoint import Checkpoint, CheckpointFile
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


# A connector that is not known tells of no files. What was matched stays so, unless it turns out to be unusable.
_FILE = """
INSERT INTO recon_ingested_file AS f
       (connector_id, run, task, provider, cycle_date, filename, path, sha256, size_bytes, state, dedupe_key, records,
        rejected, error, epoch, seq, discovered_at, downloaded_at, normalized_at)
SELECT c.id, $2, $3, c.provider, $4::date, $5, $6, $7::text, $8, $9,
       c.provider || '|' || $4::date || '|' || $7::text, $10, $11, $12, $13, $14, $15, $16, $17
  FROM connectors c WHERE c.id = $1
    ON CONFLICT (dedupe_key) DO UPDATE
   SET run = excluded.run,
       state = CASE WHEN f.state = 'MATCHED' AND excluded.state <> 'ERROR' THEN f.state ELSE excluded.state END,
       records = excluded.records, rejected = excluded.rejected, error = excluded.error, epoch = excluded.epoch,
       seq = excluded.seq, downloaded_at = coalesce(f.downloaded_at, excluded.downloaded_at),
       normalized_at = coalesce(excluded.normalized_at, f.normalized_at), updated_at = now()
 WHERE f.connector_id = excluded.connector_id AND (excluded.epoch, excluded.seq) > (f.epoch, f.seq)
"""
_UNUSABLE = "none of its records could be used"


class CheckpointMirror:
    """`streams.state.Mirror` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def mirror(self, checkpoints: Sequence[Checkpoint]) -> None:
        """
        Store the checkpoints where they are newer than what is there, and what they tell of files.

        Raises:
            SinkError: as `sinks/sqlstate.py` routes it.
        """
        rows = [_row(checkpoint) for checkpoint in checkpoints]
        files = [_file_row(checkpoint, checkpoint.file) for checkpoint in checkpoints if checkpoint.file is not None]
        async with connection(self._pool) as held, held.transaction():
            await held.executemany(_MIRROR, rows)
            if files:
                await held.executemany(_FILE, files)


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


def _file_row(checkpoint: Checkpoint, file: CheckpointFile) -> tuple[object, ...]:
    counts, at = checkpoint.counts, checkpoint.updated_at
    unusable = checkpoint.done and counts.rejected > 0 and counts.rejected == counts.read
    here = file.downloaded or checkpoint.cursor is not None
    state = "ERROR" if unusable else "NORMALIZED" if checkpoint.done else "DOWNLOADED" if here else "DISCOVERED"
    return (
        checkpoint.connector_id,
        checkpoint.run_id,
        storable(checkpoint.task),
        file.day,
        storable(file.name),
        storable(file.path),
        file.sha256,
        file.size_bytes,
        state,
        counts.read,
        counts.rejected,
        _UNUSABLE if unusable else "",
        checkpoint.epoch,
        checkpoint.seq,
        checkpoint.revision_at,
        at if here else None,
        at if checkpoint.done and not unusable else None,
    )


def _json(value: object) -> str:
    return json.dumps(value)
