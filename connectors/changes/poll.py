"""
Finding changed rows by asking for them, where a database allows no logical decoding. Deletions do not show.

    watermark       a column `xid8 NOT NULL DEFAULT pg_current_xact_id()`. Every transaction below the oldest one that
                    still runs has ended, so what stands below is complete for ever: nothing is lost, whatever the order
                    of commits. A transaction that stays open holds the whole table back, and that shows.
    closed_window   a column that says when the row was changed. A window is closed `delay_s` after its end, and not
                    before every transaction that we see running has begun after it. What this can lose: `option.LOSES`.

Never `id > last`: ids are given before commits, and whoever asks in between loses the later commits of lower ids.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from connectors.changes.catalog import TIMESTAMPTZ, XID8, TableFacts, default_of
from connectors.changes.identifier import quoted
from connectors.changes.option import Mode, PollOptions
from connectors.changes.pace import Pacemaker, arrived, pending
from connectors.changes.place import Origin, origin_in
from connectors.changes.rows import Dated, Gathered, RowReader
from connectors.changes.session import Session
from connectors.changes.tablecopy import after_key, in_order, position_of
from connectors.ports import Clock
from connectors.source import Batch, Cursor, Revision, SourceRecord
from schemas.errors import SourceMisconfigured

WATERMARK_SQL = "ALTER TABLE {table} ADD COLUMN {column} xid8 NOT NULL DEFAULT pg_current_xact_id();"
INDEX_SQL = "CREATE INDEX ON {table} ({columns});"

_XIDS = "SELECT pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text FROM pg_current_snapshot() AS s"
_XID_HOLDER = "SELECT pid FROM pg_stat_activity WHERE backend_xid = ($1::text::xid8)::xid"
_RUNNING = """
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'
"""
_WINDOW = f"""
SELECT least(closed, (SELECT min(xact_start) {_RUNNING}))::text, closed
  FROM (SELECT clock_timestamp() - make_interval(secs => $1::float8)) AS window_end(closed)
"""  # noqa: S608 constants
_WINDOW_HOLDER = f"SELECT pid {_RUNNING} AND xact_start <= $1::text::timestamptz ORDER BY xact_start LIMIT 1"
PAGE_ROWS = 500  # a row may be large
_NAMED_AFTER_S = 10.0  # before that, somebody holding it back is everyday life


@dataclass(slots=True)
class Mark:
    """Where a poll stands: after the row with this value of the column, and this key."""

    origin: Origin
    table: str
    value: str = ""
    key: Sequence[str] = ()

    @classmethod
    def of(cls, cursor: Mapping[str, Any]) -> Mark:
        """The mark that a cursor names."""
        return cls(origin_in(cursor), cursor["table"], cursor["value"], tuple(cursor["key"]))

    def cursor(self) -> Cursor:
        """As a checkpoint has it."""
        origin = self.origin
        return {
            "system": origin.system,
            "timeline": origin.timeline,
            "database": origin.database,
            "table": self.table,
            "value": self.value,
            "key": list(self.key),
        }


async def check_column(session: Session, table: TableFacts, options: PollOptions) -> None:
    """
    See that the table can be polled without passing over rows.

    Raises:
        SourceMisconfigured: pause; it cannot. Also what `Session` raises.
    """
    if not table.key:
        raise SourceMisconfigured(
            f"{table.name} has no primary key, so rows of one instant cannot be told apart",
            hint="add a primary key, or use the mode logical",
        )
    column = table.column(options.column)
    wanted = XID8 if options.mode is Mode.WATERMARK else TIMESTAMPTZ
    shown = WATERMARK_SQL.format(table=table.name.sql, column=quoted(options.column))
    if column.type_oid != wanted:
        kind = "xid8" if wanted == XID8 else "timestamptz"
        raise SourceMisconfigured(
            f"{table.name}.{column.name} is {column.type}, not {kind}",
            hint=f"run: {shown}" if wanted == XID8 else "name a column of that type as `updated_at`",
        )
    if not column.not_null:
        raise SourceMisconfigured(
            f"{table.name}.{column.name} may be null, and such rows would never be read",
            hint=f"run: ALTER TABLE {table.name.sql} ALTER COLUMN {quoted(column.name)} SET NOT NULL;",
        )
    if wanted == XID8 and "pg_current_xact_id" not in await default_of(session, table, column.name):
        raise SourceMisconfigured(
            f"{table.name}.{column.name} is not filled with the transaction's id",
            hint=f"run: ALTER TABLE {table.name.sql} ALTER COLUMN {quoted(column.name)} "
            "SET DEFAULT pg_current_xact_id();",
        )


class Poll:
    """One reading of one table. `watch` is told how long something has held it back, and who, if that is known."""

    def __init__(
        self,
        session: Session,
        table: TableFacts,
        reader: RowReader,
        options: PollOptions,
        *,
        clock: Clock,
        watch: Callable[[float, int | None], None],
    ) -> None:
        self._session = session
        self._table = table
        self._reader = reader
        self._options = options
        self._clock = clock
        self._watch = watch
        self._is_watermark = options.mode is Mode.WATERMARK
        self._end = ""
        self._end_since_s = 0.0

    async def batches(self, mark: Mark) -> AsyncGenerator[Batch, None]:
        """
        The rows after the mark, until nothing changes for a while or the time is over.

        Raises:
            What `Session` raises.
        """
        pace = Pacemaker(self._options.pace, self._clock)
        if not mark.value:
            mark.value = self._beginning if self._options.is_from_start else (await self._look())[0]
            yield Batch((), (), mark.cursor())
        while not pace.is_over:
            began_s, found, more = self._clock.monotonic(), False, True
            end, held_s = await self._look()
            while more:
                statement, arguments = self._page(mark, end)
                with pending(self._session.fetch(statement, *arguments)) as page:
                    while not await arrived(page):
                        yield Batch((), (), mark.cursor())
                    rows = page.result()
                more = len(rows) == PAGE_ROWS
                if rows:
                    found = True
                    pace.speaks()
                    yield self._batch(rows, mark)
            await self._tell(end, held_s)
            pace.looked(found=found)
            if pace.is_silent:
                pace.speaks()
                yield Batch((), (), mark.cursor())
            await pace.pause(took_s=self._clock.monotonic() - began_s)

    async def _look(self) -> tuple[str, float]:
        """The value below which everything is complete, and for how long something has held it back."""
        if self._is_watermark:
            end, newest = await self._session.row(_XIDS)
            now_s = self._clock.monotonic()
            if end == newest or end != self._end:
                self._end, self._end_since_s = end, now_s
            return end, now_s - self._end_since_s
        end, closed = await self._session.row(_WINDOW, self._options.delay_s)
        return end, max(0.0, (closed - datetime.fromisoformat(end)).total_seconds())

    async def _tell(self, end: str, held_s: float) -> None:
        holder = None
        if held_s >= _NAMED_AFTER_S:
            holder = await self._session.value(_XID_HOLDER if self._is_watermark else _WINDOW_HOLDER, end)
        self._watch(held_s, holder)

    @property
    def _beginning(self) -> str:
        return "0" if self._is_watermark else "-infinity"

    def _page(self, mark: Mark, end: str) -> tuple[str, Sequence[str]]:
        """The statement that gives the next rows, and its arguments."""
        column, type_ = self._options.column, "xid8" if self._is_watermark else "timestamptz"
        names = [column, *self._table.key]
        # a mark without a key is one before any row of that value
        after = (
            after_key(names, [type_, *self._table.key_types], first=2)
            if mark.key
            else f"t.{quoted(column)} >= $2::text::{type_}"
        )
        statement = (
            f"SELECT {quoted(column)}::text, {self._table.selected} FROM {self._table.name.sql} AS t "  # noqa: S608 quoted
            f"WHERE t.{quoted(column)} < $1::text::{type_} AND {after} ORDER BY {in_order(names)} LIMIT {PAGE_ROWS}"
        )
        return statement, (end, mark.value, *mark.key)

    def _batch(self, rows: Sequence[Any], mark: Mark) -> Batch:
        gathered = Gathered()
        places = self._reader.places(self._table.key)
        for value, *values in rows:
            mark.value, mark.key = value, [values[place] for place in places]
            size = sum(len(each) for each in values if each is not None)
            position = position_of(self._reader, values)
            if self._is_watermark:
                position = f"{position} {value}"
            gathered.add(self._reader, values, position, self._revision(value), size=size)
        return gathered.batch(mark.cursor())

    def _revision(self, value: str) -> Revision | Dated:
        if not self._is_watermark:
            return Revision(datetime.fromisoformat(value))

        def dated(record: SourceRecord) -> Revision | None:
            at = record.revision.at if record.revision else record.payment.effective_at
            return None if at is None else Revision(at, int(value))

        return dated
