"""
The changes of a PostgreSQL database that somebody else writes, as they are committed (seed 001's database change
stream, made to lose nothing).

Three modes: logical decoding through plain SQL, a watermark of transaction ids, a window of times. Each goes on exactly
where a checkpoint stands; what can no longer be had stops the connector instead of being passed over.
"""

from __future__ import annotations

from connectors.changes.config import PostgresChangesConfig
from connectors.changes.cursor import model as cursor_model
from connectors.changes.note import NOTES
from connectors.context import SourceContext
from connectors.source import Source
from connectors.spec import SourceSpec

__all__ = ["SPEC", "PostgresChangesConfig"]


def _make(config: PostgresChangesConfig, context: SourceContext) -> Source:
    from connectors.changes.source import PostgresChangesSource  # noqa: PLC0415 asyncpg is for those who use it

    return PostgresChangesSource(config, context)


SPEC = SourceSpec(
    kind="postgres_changes",
    summary="Changes of a PostgreSQL database as they are committed, by logical decoding or by polls.",
    config=PostgresChangesConfig,
    factory=_make,
    resumes_from="commit and change within it (polls: transaction or time, and key)",
    main_task="database",
    holds_back=True,
    cursor=cursor_model,
    example={
        "host": "db.example.com",
        "database": "shop",
        "user": "tillstream",
        "password": "${env:TILL_SECRET_SHOP}",
        "tables": ["public.events"],
        "mapping": "events_table",
    },
    notes=NOTES,
)
