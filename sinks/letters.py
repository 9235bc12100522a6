"""
The dead-letter topic as a table, where operators find letters. The letters role alone lists; a redrive sets its own
columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from schemas.letter import DeadLetter
from sinks.pool import Pool, connection
from sinks.prepared import storable

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

_NEXT_OFFSETS = "SELECT letter_partition, max(letter_offset) + 1 AS next_offset FROM dead_letters GROUP BY 1"


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
        # A letter that cannot be listed would hold up every letter behind it.
        texts = (storable(value) if isinstance(value, str) else value for value in row)
        async with connection(self._pool) as held:
            await held.execute(_PUT, *texts)

    async def next_offsets(self, topic: str) -> Mapping[int, int]:  # noqa: ARG002  there is one topic of letters
        """
        The offset after the last letter listed, by partition of the one dead-letter topic; absent where there is none.

        Raises:
            SinkError: as `sinks/sqlstate.py` routes it.
        """
        async with connection(self._pool) as held:
            return {row["letter_partition"]: row["next_offset"] for row in await held.fetch(_NEXT_OFFSETS)}
