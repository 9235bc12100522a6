"""
The dead-letter topic as a table, where operators find letters. The letters role alone lists; a redrive sets its own
columns.
"""

from __future__ import annotations

import json

from schemas.letter import DeadLetter
from sinks.pool import Pool, connection

_MAX_LINE = 2**31 - 1  # the column's; `position` tells the place too, and the topic has the letter as it is

_PUT = """
INSERT INTO dead_letters
       (id, stage, reason, message, hint, attempts, failed_at, event_id, run_id, connector_id, connector, topic,
        log_partition, log_offset, path, position, line, source_object, key, value, headers, size_bytes, sha256,
        truncated, sqlstate, letter_partition, letter_offset)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
        $25, $26, $27)
    ON CONFLICT (id) DO NOTHING
"""


class LetterTable:
    """`streams.letters.LetterList` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, letter: DeadLetter, *, partition: int, offset: int) -> None:
        """
        List the letter, which lies at this place of its topic; a known id changes nothing.

        Raises:
            SinkError: as `sinks/sqlstate.py` routes it.
        """
        row = (
            letter.id,
            letter.stage.value,
            letter.reason,
            letter.message,
            letter.hint,
            letter.attempts,
            letter.failed_at,
            letter.event_id,
            letter.run_id,
            letter.connector_id,
            letter.connector,
            letter.topic,
            letter.partition,
            letter.offset,
            letter.path,
            letter.position,
            letter.line if letter.line is None or letter.line <= _MAX_LINE else None,
            letter.source_object,
            letter.key_bytes(),
            letter.value_bytes(),
            json.dumps(letter.headers),
            letter.size_bytes,
            letter.sha256,
            letter.truncated,
            letter.sqlstate,
            partition,
            offset,
        )
        async with connection(self._pool) as held:
            await held.execute(_PUT, *row)
