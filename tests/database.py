"""Databases as tests want them."""

from __future__ import annotations

import asyncpg

from sinks.migrate import migrate

_FORGET = """
DELETE FROM sp_v2_connectors;
DELETE FROM activity;
DELETE FROM connector_versions;
DELETE FROM connectors;
ALTER SEQUENCE sp_v2_connectors_id_seq RESTART;
ALTER SEQUENCE activity_id_seq RESTART;
"""


async def migrated(dsn: str) -> None:
    """Bring an empty database to this version, without the default connector of seed 003."""
    await migrate(dsn)
    held = await asyncpg.connect(dsn)
    try:
        await held.execute(_FORGET)
    finally:
        await held.close()
