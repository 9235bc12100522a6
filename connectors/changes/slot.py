"""
The replication slot and its publication: what they are, whether they are still ours, making them, letting go.

A slot keeps the log of changes from where we confirmed it. It is only ever looked at (peeked), and let go of as far as
a checkpoint stands: what was not checkpointed can always be read again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from connectors.changes import lsn
from connectors.changes.catalog import TableFacts
from connectors.changes.identifier import TableName, literal, quoted
from connectors.changes.place import Origin, Place
from connectors.changes.session import Session
from schemas.errors import ChangesLost, SourceMisconfigured, SourceUnavailable

PLUGIN = "pgoutput"
_LOCK_CLASS = 0x7411_57A3  # ours, among all that take advisory locks in that database

_ORIGIN = """
SELECT CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END,
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database())
"""
_MAY_ASK_SYSTEM = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_NOW = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END"
_END = f"SELECT ({_NOW})::text"
_STATE = f"""
SELECT plugin, slot_type, database = current_database() AS is_here, wal_status, restart_lsn::text,
       confirmed_flush_lsn::text AS confirmed, pg_wal_lsn_diff({_NOW}, restart_lsn)::bigint AS held_bytes,
       coalesce(to_jsonb(s) ->> 'invalidation_reason', '') AS reason
  FROM pg_replication_slots s WHERE slot_name = $1
"""  # noqa: S608 made of constants
_CREATE = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, $2)"
_ADVANCE = "SELECT end_lsn::text FROM pg_replication_slot_advance($1, $2::text::pg_lsn)"
_LOCK = "SELECT pg_try_advisory_lock($1, $2)"
_HOLDER = """
SELECT pid FROM pg_locks
 WHERE locktype = 'advisory' AND granted AND classid = $1 AND objid = $2 AND objsubid = 2
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_PUBLICATION = """
SELECT oid::bigint, pubinsert AND pubupdate AND pubdelete AND pubtruncate AS all_kinds, pubviaroot
  FROM pg_publication WHERE pubname = $1
"""
# A table that was taken out and put back has a row of another id.
_PUBLISHED = """
SELECT t.schemaname || '.' || t.tablename, p.oid::text || '.' || coalesce(r.oid, 0)::text,
       to_jsonb(t) ->> 'attnames', coalesce(to_jsonb(t) ->> 'rowfilter', '')
  FROM pg_publication_tables t
  JOIN pg_publication p ON p.pubname = t.pubname
  JOIN pg_namespace n ON n.nspname = t.schemaname
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
  LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
 WHERE t.pubname = $1
"""

PEEK = """
SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, $2, 'proto_version', '1', 'publication_names', $3)
"""


class Published(NamedTuple):
    """What a publication tells of a table. `sign` is another one if that was interrupted; `columns` None: all."""

    sign: str
    columns: frozenset[str] | None
    condition: str


class SlotState(NamedTuple):
    """A slot as the server describes it. `held_bytes` of log cannot be removed because of it."""

    confirmed: int
    held_bytes: int
    status: str


async def origin_of(session: Session) -> Origin:
    """Which server and history this is."""
    timeline, database = await session.row(_ORIGIN)
    system = await session.value(_SYSTEM) if await session.value(_MAY_ASK_SYSTEM) else ""
    return Origin(system, timeline, database)


async def log_end(session: Session) -> int:
    """Up to where the log of changes is durable now. A look after this sees everything committed before it."""
    return lsn.parse(await session.value(_END))


async def lock(session: Session, slot: str) -> None:
    """
    Become the only connector that reads the slot, for as long as the session lasts.

    Raises:
        SourceUnavailable: retry; another one does.
    """
    number = zlib.crc32(slot.encode()) - (1 << 31)
    if not await session.value(_LOCK, _LOCK_CLASS, number):
        holder = await session.value(_HOLDER, _LOCK_CLASS, number % (1 << 32))
        raise SourceUnavailable(
            f'replication slot "{slot}" is active for PID {holder or "?"}: another connector reads it',
            hint="give each connector a slot of its own; a worker that died frees it within half a minute",
        )


async def slot_state(session: Session, slot: str) -> SlotState | None:
    """
    The slot, if there is one.

    Raises:
        SourceMisconfigured: pause; it is another kind of slot. ChangesLost: pause; it was invalidated.
    """
    found = await session.row(_STATE, slot)
    if found is None:
        return None
    if found["plugin"] != PLUGIN or not found["is_here"]:
        raise SourceMisconfigured(
            f'replication slot "{slot}" is {found["slot_type"]} with plugin {found["plugin"]}, '
            f"{'here' if found['is_here'] else 'of another database'}; wanted: {PLUGIN}, of this one",
            hint="name another slot, or none: the connector's own is named after its id",
        )
    if found["restart_lsn"] is None or found["wal_status"] == "lost" or found["reason"]:
        why = found["reason"] or found["wal_status"] or "invalidated"
        raise ChangesLost(
            f'replication slot "{slot}" is lost ({why}): the server removed changes that were not read yet',
            hint=f"drop it ({drop_slot(slot)}), {ChangesLost.hint}; then allow more max_slot_wal_keep_size",
        )
    return SlotState(lsn.parse(found["confirmed"]), found["held_bytes"], found["wal_status"])


async def verify(session: Session, place: Place, origin: Origin, durable: int) -> SlotState:
    """
    See that the stream can go on from `place` without passing over anything. `durable` is what we let go of at most.

    Raises:
        ChangesLost: pause; it cannot.
    """
    if place.origin != origin:
        raise ChangesLost(
            f"{session.server.shown} is not the server that was read before: system/timeline/database were "
            f"{place.origin} and are {origin}"
        )
    state = await slot_state(session, place.slot)
    if state is None:
        raise ChangesLost(f'replication slot "{place.slot}" is gone: nothing kept the changes since {_spelled(place)}')
    end = await log_end(session)
    if place.done > end:
        raise ChangesLost(
            f"the log of {session.server.shown} ends at {lsn.spell(end)}, before {_spelled(place)}, which was read: "
            "the server was restored to an earlier state"
        )
    if state.confirmed > durable:
        raise ChangesLost(
            f'replication slot "{place.slot}" stands at {lsn.spell(state.confirmed)}, and we let go of nothing after '
            f"{lsn.spell(durable)}: it was made anew, or somebody else reads it"
        )
    return state


async def advance(session: Session, slot: str, to: int) -> None:
    """Let the server remove the log before `to`. After a crash it may not remember, which costs a second reading."""
    await session.fetch(_ADVANCE, slot, lsn.spell(to))


async def published(session: Session, publication: str, tables: Sequence[TableFacts]) -> dict[str, Published]:
    """
    Those of the tables that are published.

    Raises:
        SourceMisconfigured: pause; there is no such publication, or it leaves out some of what happens to rows.
    """
    known = await session.row(_PUBLICATION, publication)
    if known is None:
        raise SourceMisconfigured(
            f'publication "{publication}" does not exist',
            hint=f"run: {create_publication(publication, [table.name for table in tables])}",
        )
    if not known["all_kinds"]:
        raise SourceMisconfigured(
            f'publication "{publication}" does not publish inserts, updates, deletes and truncates',
            hint=f"run: ALTER PUBLICATION {quoted(publication)} SET (publish = 'insert, update, delete, truncate');",
        )
    partitioned = [table.name for table in tables if table.is_partitioned]
    if partitioned and not known["pubviaroot"]:
        raise SourceMisconfigured(
            f'publication "{publication}" publishes the partitions of {partitioned[0]} under their own names',
            hint=f"run: ALTER PUBLICATION {quoted(publication)} SET (publish_via_partition_root = true);",
        )
    wanted, found = {str(table.name) for table in tables}, {}
    for name, sign, columns, condition in await session.fetch(_PUBLISHED, publication):
        if name in wanted:
            named = None if columns is None else frozenset(json.loads(columns))
            found[name] = Published(sign, named, condition)
    return found


async def follow(session: Session, place: Place, publication: str, tables: Sequence[TableFacts]) -> list[TableFacts]:
    """
    The tables as they are published. Sees that each has been so without interruption since the place began with it.

    Raises:
        ChangesLost: pause; one has not. SourceMisconfigured: pause; a table that is new here is not published.
    """
    try:
        found = await published(session, publication, tables)
    except SourceMisconfigured as exc:
        raise (ChangesLost(str(exc), hint=f"{exc.hint} {ChangesLost.hint}") if place.published else exc) from exc
    for table in tables:
        before, now = place.published.get(str(table.name)), found.get(str(table.name))
        if before is not None and (now is None or before != now.sign):
            raise ChangesLost(f'{table.name} was taken out of publication "{publication}" for a while, or still is')
        if now is None:
            raise SourceMisconfigured(
                f'publication "{publication}" lacks {table.name}',
                hint=f"run: {add_tables(publication, [table.name])}",
            )
        place.published[str(table.name)] = now.sign
    return [table.narrowed(*found[str(table.name)][1:]) for table in tables]


async def make_publication(session: Session, publication: str, tables: Sequence[TableFacts]) -> bool:
    """Make it, or add to it what it lacks; whether it was made."""
    if await session.row(_PUBLICATION, publication) is None:
        await session.change(create_publication(publication, [table.name for table in tables]))
        return True
    found = await published(session, publication, tables)
    if lacks := [table.name for table in tables if str(table.name) not in found]:
        await session.change(add_tables(publication, lacks))
    return False


async def make_slot(session: Session, slot: str) -> SlotState:
    """Make it. Waits until every transaction that runs now has ended."""
    made = lsn.parse(await session.value(_CREATE, slot, PLUGIN))
    return SlotState(made, 0, "reserved")


def create_publication(publication: str, tables: Sequence[TableName]) -> str:
    """The statement that makes it."""
    listed = ", ".join(table.sql for table in tables)
    return f"CREATE PUBLICATION {quoted(publication)} FOR TABLE {listed} WITH (publish_via_partition_root = true);"


def add_tables(publication: str, tables: Sequence[TableName]) -> str:
    """The statement that adds tables to it."""
    return f"ALTER PUBLICATION {quoted(publication)} ADD TABLE {', '.join(table.sql for table in tables)};"


def create_slot(slot: str) -> str:
    """The statement that makes it."""
    return f"SELECT pg_create_logical_replication_slot({literal(slot)}, {literal(PLUGIN)});"


def drop_slot(slot: str) -> str:
    """The statement that removes it."""
    return f"SELECT pg_drop_replication_slot({literal(slot)});"


def _spelled(place: Place) -> str:
    return lsn.spell(place.done)
