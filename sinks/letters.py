"""
The dead-letter topic as a table, where operators find letters. The letters role alone lists; a redrive and a discard
set columns of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from schemas.letter import DeadLetter
from sinks.pool import Pool, connection
from sinks.prepared import storable
from sinks.statement import statements

_MAX_LINE = 2**31 - 1  # the column's; `position` tells the place too, and the topic has the letter as it is


class LetterTable:
    """`streams.letters.LetterList` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, letter: DeadLetter, *, partition: int, offset: int) -> None:
        """
        List the letter, which lies at this place of its topic. A known id is listed no second time; that another run
        rejected the record too is noted.

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
            await held.execute(statements()["put_letter"], *texts)

    async def next_offsets(self, topic: str) -> Mapping[int, int]:  # noqa: ARG002  there is one topic of letters
        """
        The offset after the last letter listed, by partition of the one dead-letter topic; absent where there is none.

        Raises:
            SinkError: as `sinks/sqlstate.py` routes it.
        """
        async with connection(self._pool) as held:
            rows = await held.fetch(statements()["next_letter_offsets"])
        return {row["letter_partition"]: row["next_offset"] for row in rows}
