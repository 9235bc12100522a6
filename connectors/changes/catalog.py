"""What the source database's catalog says of a table: its columns, its key."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from connectors.changes.identifier import TableName, quoted
from connectors.changes.session import Session
from schemas.errors import SourceMisconfigured

BOOL, JSON, BPCHAR, TIMESTAMPTZ, JSONB = 16, 114, 1_042, 1_184, 3_802
XID8 = 5_069
FLOATS = (700, 701)


class TableColumn(NamedTuple):
    """A column: `type_oid` is the base type's where it is of a domain, `type` is how SQL spells it."""

    name: str
    type_oid: int
    type: str
    not_null: bool


class TableFacts(NamedTuple):
    """A table as it is now. `key` are the columns of its primary key, empty if it has none."""

    name: TableName
    oid: int
    columns: Sequence[TableColumn]
    key: Sequence[str]
    identity: str
    readable: bool
    is_partitioned: bool
    # which rows are wanted, as SQL; the catalog's own, so it may be run
    condition: str = ""

    @property
    def key_types(self) -> list[str]:
        """The key's types, as SQL spells them."""
        types = {column.name: column.type for column in self.columns}
        return [types[name] for name in self.key]

    def narrowed(self, columns: Container[str] | None, condition: str) -> TableFacts:
        """The same with only some columns and rows; None: all columns."""
        kept = [column for column in self.columns if columns is None or column.name in columns]
        return self._replace(columns=kept, condition=condition)

    def column(self, name: str) -> TableColumn:
        """
        The column of that name.

        Raises:
            SourceMisconfigured: pause; there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise SourceMisconfigured(f"{self.name} has no column {name}", hint="correct the connector's configuration")

    @property
    def selected(self) -> str:
        """Every column as text, in order."""
        return ", ".join(f"{quoted(column.name)}::text" for column in self.columns)


_TABLE = """
SELECT c.oid::bigint, c.relreplident::text, has_table_privilege(c.oid, 'SELECT') AS readable, c.relkind::text,
       c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid) AS has_heirs
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
"""
# A domain's values look like those of the type beneath it, through any number of domains.
_BASE = """
WITH RECURSIVE base(oid, beneath) AS (
    SELECT oid, oid FROM pg_type WHERE typtype <> 'd'
    UNION ALL
    SELECT t.oid, base.beneath FROM pg_type t JOIN base ON base.oid = t.typbasetype WHERE t.typtype = 'd'
)
"""
_COLUMNS = (
    _BASE
    + """
SELECT a.attname, base.beneath::bigint, format_type(a.atttypid, a.atttypmod), a.attnotnull
  FROM pg_attribute a
  JOIN base ON base.oid = a.atttypid
 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
"""
)
# It locks the table, if only against changes of its shape; so it is asked for where it matters alone.
_DEFAULT = """
SELECT pg_get_expr(d.adbin, d.adrelid)
  FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = $1 AND a.attname = $2
"""
_KEY = """
SELECT a.attname
  FROM pg_index i
  CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS part(number, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = part.number
 WHERE i.indrelid = $1 AND i.indisprimary
 ORDER BY part.place
"""
_DOMAINS = _BASE + "SELECT oid::bigint, beneath::bigint FROM base WHERE oid <> beneath"  # noqa: S608 constants


async def table_facts(session: Session, name: TableName) -> TableFacts:
    """
    The table's facts.

    Raises:
        SourceMisconfigured: pause; it is not there. Also what `Session` raises.
    """
    found = await session.row(_TABLE, name.schema, name.name)
    if found is None:
        raise SourceMisconfigured(
            f"{session.server.shown} has no table {name}", hint="correct `tables`: names are exact, as in the catalog"
        )
    if found["has_heirs"]:
        raise SourceMisconfigured(
            f"other tables inherit from {name}, and their changes come under their own names",
            hint="name those tables instead, or make it a partitioned one",
        )
    columns = [TableColumn(*row) for row in await session.fetch(_COLUMNS, found["oid"])]
    key = [row[0] for row in await session.fetch(_KEY, found["oid"])]
    partitioned = found["relkind"] == "p"
    return TableFacts(name, found["oid"], columns, key, found["relreplident"], found["readable"], partitioned)


async def default_of(session: Session, table: TableFacts, column: str) -> str:
    """What fills the column where nothing is said; empty if nothing does. Waits for whoever changes the table."""
    return str(await session.value(_DEFAULT, table.oid, column) or "")


async def domains(session: Session) -> dict[int, int]:
    """Every domain's type → the type beneath it."""
    return {row[0]: row[1] for row in await session.fetch(_DOMAINS)}
