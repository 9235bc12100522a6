"""
Reading the rows that a table had before its changes were followed: in pages by key, as the table was at one instant.

The slot is there first, so a row that changes meanwhile comes twice, and both tell the same facts under the same key.
A copy that was interrupted goes on after its last key, with the table as it is by then, dated as it began: of a row
without a date of its own that changed twice meanwhile, the earlier change may be taken for the later one.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence

from connectors.changes import lsn
from connectors.changes.catalog import TableFacts
from connectors.changes.identifier import quoted
from connectors.changes.pace import arrived, pending
from connectors.changes.place import Place, Seen
from connectors.changes.rows import Gathered, RowReader, Values
from connectors.changes.session import Session
from connectors.ports import Clock
from connectors.source import Batch, Revision

FETCH_ROWS = 500
_MOST_SHOWN = 100  # characters of a key that a position spells; of longer ones the hash does
_SEEN = """
SELECT pg_current_snapshot()::text AS snapshot,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text AS until
"""


async def copy(
    session: Session, place: Place, table: TableFacts, reader: RowReader, *, clock: Clock, checkpoint_s: float
) -> AsyncGenerator[Batch, None]:
    """
    The rows of the table after `place.after`, and the cursor after each batch; then the table is `copied`.

    Without a key there is no going on in the middle: such a table is read from its beginning again.
    """
    gathered = Gathered()
    is_new = place.copying != str(table.name)
    statement, arguments = _page(table, None if is_new else place.after)
    async with session.portal(statement, *arguments, repeatable=True) as portal:
        if is_new:
            # the transaction's first statement: what it sees, all of the copy sees
            snapshot, until = await session.row(_SEEN)
            place.copying, place.after = str(table.name), None
            place.seen.append(Seen(snapshot, lsn.parse(until), clock.now()))
            # A checkpoint is due after this long, so the instant is durable before a row is published under it.
            await clock.sleep(checkpoint_s)
            yield Batch((), (), place.cursor())
        revision = Revision(place.seen[-1].copied_at)
        more = True
        while more:
            with pending(portal.fetch(FETCH_ROWS)) as page:
                while not await arrived(page):
                    yield Batch((), (), place.cursor())
                rows = page.result()
            more = len(rows) == FETCH_ROWS
            for address, *values in rows:
                size = sum(len(value) for value in values if value is not None)
                position = position_of(reader, values, address=address)
                if table.key:
                    place.after = [values[number] for number in reader.places(table.key)]
                gathered.add(reader, values, position, revision, size=size)
            if gathered.is_full:
                yield gathered.batch(place.cursor())
    place.copied.append(place.copying)
    place.copying, place.after = "", None
    yield gathered.batch(place.cursor())


def position_of(reader: RowReader, values: Values, *, address: str = "") -> str:
    """
    A position that a row has as long as it stays as it is, and no other row of the table.

    `address` tells rows apart where the table has no key.
    """
    key = reader.key_of(values) or address
    content = hashlib.sha256(reader.raw(values)).hexdigest()
    if len(key) > _MOST_SHOWN:
        key = f"~{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    return f"{reader.table} {key} {content[:16]}"


def after_key(columns: Sequence[str], types: Sequence[str], first: int = 1) -> str:
    """The condition that a row of `t` comes after a key, given as texts in the parameters from `first` on."""
    given = ", ".join(f"${number}::text::{type_}" for number, type_ in enumerate(types, first))
    return f"({in_order(columns)}) > ({given})"


def in_order(columns: Sequence[str]) -> str:
    """Columns of the table `t`. Without its name, ORDER BY would take the texts that are selected under these names."""
    return ", ".join(f"t.{quoted(column)}" for column in columns)


def _page(table: TableFacts, after: Sequence[str] | None) -> tuple[str, Sequence[str]]:
    conditions = [f"({table.condition})"] if table.condition else []
    if table.key and after is not None:
        conditions.append(after_key(table.key, table.key_types))
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    address, order = ("''", f"ORDER BY {in_order(table.key)}") if table.key else ("ctid::text", "")
    statement = f"SELECT {address}, {table.selected} FROM {table.name.sql} AS t {where} {order}"  # noqa: S608 quoted
    return statement, (after or ()) if table.key else ()
