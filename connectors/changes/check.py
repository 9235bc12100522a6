"""Trying a source database once, step by step: each failure with the statement that mends it. Changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from connectors.changes import slot
from connectors.changes.assembler import Readers
from connectors.changes.catalog import TableFacts, table_facts
from connectors.changes.identifier import quoted
from connectors.changes.option import LOSES, Mode, OnDelete, PollOptions, StreamOptions
from connectors.changes.poll import INDEX_SQL, check_column
from connectors.changes.server import Server
from connectors.changes.session import Session, connect
from connectors.check import step
from connectors.context import SourceContext
from connectors.source import CheckStep, Revision
from schemas.errors import RecordRejected, SourceMisconfigured

_ROLE = """
SELECT rolsuper OR rolreplication
       OR EXISTS (SELECT FROM pg_roles g WHERE g.rolname IN ('rds_replication', 'cloudsqlreplica', 'azure_pg_admin')
                   AND pg_has_role(r.oid, g.oid, 'USAGE'))
  FROM pg_roles r WHERE r.rolname = current_user
"""
_SEES_OTHERS = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
_LEADING = """
SELECT true FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
 WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND a.attname = $2 LIMIT 1
"""
_NOTHING = "n"
_FULL = "f"


@dataclass(frozen=True, slots=True)
class Checked:
    """What is tried: where, which tables, in which way, and how their rows are read. `polling` is None for streams."""

    server: Server
    context: SourceContext
    stream: StreamOptions
    polling: PollOptions | None
    readers: Callable[[Sequence[TableFacts], Mapping[int, int]], Readers]


async def check(checked: Checked) -> list[CheckStep]:
    """Every step, up to one without which the next ones mean nothing."""
    checking = _Checking(checked)
    try:
        await checking.run()
    finally:
        if checking.session is not None:
            await checking.session.close()
    return checking.steps


@dataclass(slots=True)
class _Checking:
    checked: Checked
    steps: list[CheckStep] = field(default_factory=list)
    session: Session | None = None
    tables: list[TableFacts] = field(default_factory=list)

    async def run(self) -> None:
        if not (await self._step("connect", self._connect) and await self._step("log in", self._log_in)):
            return
        if self.checked.polling is None:
            await self._step("wal_level", self._wal_level)
            await self._step("role", self._role)
        if not await self._step("tables", self._tables):
            return
        if self.checked.polling is None:
            await self._step("publication", self._publication)
            await self._step("slot", self._slot)
        else:
            await self._step("column", self._column)
        await self._step("read a row", self._sample)

    async def _step(self, name: str, attempt: Callable[[], Awaitable[str]]) -> bool:
        self.steps.append(await step(name, attempt()))
        return self.steps[-1].ok

    async def _connect(self) -> str:
        server = self.checked.server
        guard = self.checked.context.guard(server.allow_networks)
        connection = await guard.connect(server.host, server.port, timeout_s=server.connect_s)
        address = connection.getpeername()[0]
        connection.close()
        return f"{server.host}:{server.port} at {address}"

    async def _log_in(self) -> str:
        self.session = await connect(self.checked.server, self.checked.context)
        return f"as {self.checked.server.user}, PostgreSQL {self.session.version // 10_000}"

    async def _wal_level(self) -> str:
        level = await self._open.value("SELECT current_setting('wal_level')")
        if level != "logical":
            raise SourceMisconfigured(
                f"wal_level is {level}, so changes cannot be decoded",
                hint="run: ALTER SYSTEM SET wal_level = logical; and restart the server "
                "(a cloud's database has a parameter for it); or use the mode watermark",
            )
        return str(level)

    async def _role(self) -> str:
        user = self.checked.server.user
        if not await self._open.value(_ROLE):
            raise SourceMisconfigured(
                f"{user} may not use replication slots", hint=f"run: ALTER ROLE {quoted(user)} REPLICATION;"
            )
        return f"{user} may use replication slots"

    async def _tables(self) -> str:
        user, notes = self.checked.server.user, []
        for name in self.checked.stream.tables:
            table = await table_facts(self._open, name)
            if not table.readable:
                raise SourceMisconfigured(
                    f"{user} may not read {name}",
                    hint=f"run: GRANT USAGE ON SCHEMA {quoted(name.schema)} TO {quoted(user)}; "
                    f"GRANT SELECT ON {name.sql} TO {quoted(user)};",
                )
            notes += self._note(table)
            self.tables.append(table)
        self.checked.readers(self.tables, {})
        return "; ".join([f"{len(self.tables)} readable", *notes])

    def _note(self, table: TableFacts) -> list[str]:
        full = f"ALTER TABLE {table.name.sql} REPLICA IDENTITY FULL;"
        if self.checked.polling is not None:
            return []
        if table.identity == _NOTHING or (table.identity == "d" and not table.key):
            return [
                f"{table.name} refuses updates and deletes once published, for it has no key; add one, or run: {full}"
            ]
        if table.identity != _FULL and self.checked.stream.on_delete is OnDelete.CANCEL:
            raise SourceMisconfigured(
                f"a deletion from {table.name} tells its key alone, which is not enough to cancel a payment",
                hint=f"run: {full}",
            )
        return []

    async def _publication(self) -> str:
        options = self.checked.stream
        names = [table.name for table in self.tables]
        try:
            found = await slot.published(self._open, options.publication, self.tables)
        except SourceMisconfigured as exc:
            if options.create and "does not exist" in str(exc):
                return f"will be made: {slot.create_publication(options.publication, names)}"
            raise
        lacks = [name for name in names if str(name) not in found]
        statement = slot.add_tables(options.publication, lacks) if lacks else ""
        if lacks and not options.create:
            listed = ", ".join(map(str, lacks))
            raise SourceMisconfigured(f'publication "{options.publication}" lacks {listed}', hint=f"run: {statement}")
        narrowed = [table.narrowed(*found[str(table.name)][1:]) for table in self.tables if str(table.name) in found]
        readers = self.checked.readers(narrowed, {})
        for table in narrowed:
            readers.of_table(table)  # a publication may leave columns out
        return f"will be changed: {statement}" if lacks else options.publication

    async def _slot(self) -> str:
        options = self.checked.stream
        state = await slot.slot_state(self._open, options.slot)
        statement = slot.create_slot(options.slot)
        if state is None and not options.create:
            raise SourceMisconfigured(
                f'replication slot "{options.slot}" does not exist',
                hint=f"run: {statement} (as {self.checked.server.user}, in {self.checked.server.database}, after the "
                "publication was made)",
            )
        if state is None:
            return f"will be made: {statement}"
        return f"{options.slot} holds back {state.held_bytes} bytes of log"

    async def _column(self) -> str:
        assert self.checked.polling is not None, "asked for where there is polling alone"  # noqa: S101
        polling, notes = self.checked.polling, []
        for table in self.tables:
            await check_column(self._open, table, polling)
            if not await self._open.value(_LEADING, table.oid, polling.column):
                columns = ", ".join(quoted(name) for name in (polling.column, *table.key))
                notes.append(f"slow without: {INDEX_SQL.format(table=table.name.sql, columns=columns)}")
        if polling.mode is Mode.CLOSED_WINDOW:
            sees = await self._open.value(_SEES_OTHERS)
            notes.append(f"others' transactions are {'seen' if sees else 'NOT seen'}. It can lose {LOSES}")
        return "; ".join([polling.column, *notes])

    async def _sample(self) -> str:
        seen: list[str] = []
        readers = self.checked.readers(self.tables, {})
        for table in self.tables:
            row = await self._open.row(f"SELECT {table.selected} FROM {table.name.sql} LIMIT 1")  # noqa: S608 quoted
            reader = readers.of_table(table)
            if row is None:
                seen.append(f"{table.name} is empty")
                continue
            try:
                record = reader.read(list(row), "sample", Revision(self.checked.context.clock.now()))
            except RecordRejected as exc:
                raise SourceMisconfigured(
                    f"a row of {table.name} would be rejected: {exc}",
                    hint="correct the mapping (`columns`, `status_map`, `amount_unit`), or the row if it stands alone",
                ) from exc
            what = "is left out" if record is None else f"is a {record.payment.status} {record.payment.type}"
            seen.append(f"a row of {table.name} {what}")
        return "; ".join(seen)

    @property
    def _open(self) -> Session:
        assert self.session is not None, "the step before logs in"  # noqa: S101
        return self.session
