"""The change stream as a source: its tasks, its sessions, what it warns of. Which way a task is read is its mode's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

from connectors.changes import slot
from connectors.changes.assembler import Readers
from connectors.changes.catalog import TableFacts, domains, table_facts
from connectors.changes.check import Checked, check
from connectors.changes.config import PostgresChangesConfig
from connectors.changes.durable import Durable
from connectors.changes.events import EventReader
from connectors.changes.identifier import TableName
from connectors.changes.option import Mode, StreamOptions
from connectors.changes.pace import arrived, pending
from connectors.changes.place import Origin, Place, origin_in
from connectors.changes.poll import Mark, Poll, check_column
from connectors.changes.rows import RowReader
from connectors.changes.session import IDLE_MS, Session, connect
from connectors.changes.stream import Stream, begin
from connectors.context import SourceContext
from connectors.source import Batch, CheckStep, Cursor, Skipped, Task
from schemas import metric
from schemas.errors import ChangesLost, SourceChanged

_MEBIBYTE = 1_048_576
# Records that are held back, or a broker that is away: the server has ended the session by then, or soon will. The next
# reading has a new one.
_FORGOTTEN_S = 0.8 * IDLE_MS / 1_000


class PostgresChangesSource:
    """Publishes what is committed to some tables: one endless task, or one for each table that is polled."""

    def __init__(self, config: PostgresChangesConfig, context: SourceContext) -> None:
        self._config = config
        self._context = context
        own = f"till_{context.connector_id.hex}"
        self._options = StreamOptions(
            tables=config.table_names,
            slot=config.slot or own,
            publication=config.publication or config.slot or own,
            create=config.create,
            snapshot=config.snapshot,
            on_delete=config.on_delete,
            peek_rows=config.peek_rows,
            checkpoint_s=config.checkpoint_s,
            pace=config.pace,
        )
        self._origin: Origin | None = None
        self._idle: dict[str, Session] = {}
        self._durable: dict[str, Durable] = {}
        self._warnings: dict[str, str] = {}

    async def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:  # noqa: ARG002 the runner knows
        """
        The stream, or each table; and what an operator should know of it, while it is read.

        Raises:
            SourceUnavailable: retry. SourceUnauthorised, SourceMisconfigured: pause.
        """
        if self._origin is None:
            async with self._session("") as session:
                self._origin = await slot.origin_of(session)
        yield [self._task(key, self._origin) for key in self._keys]
        yield [Skipped(key, "held_back", warning) for key, warning in self._warnings.items()]

    async def read(self, task: Task, since: Cursor | None) -> AsyncGenerator[Batch, None]:
        """
        What was committed after `since`, in the order of commits (polls: in the order of the column).

        Raises:
            SourceUnavailable: retry. SourceUnauthorised, SourceMisconfigured, ChangesLost: pause.
        """
        async with self._session(task.key) as session:
            origin = await slot.origin_of(session)
            if task.source_object != str(origin) and (not since or origin_in(since) == origin):
                self._origin = None
                raise SourceChanged(f"{self._config.server.shown} is another server than a moment ago")
            reading = self._changes if self._config.mode is Mode.LOGICAL else self._polled
            async with contextlib.aclosing(reading(session, task, origin, since)) as batches:
                try:
                    async for batch in batches:
                        handed_over_s = time.monotonic()
                        yield batch
                        if time.monotonic() - handed_over_s >= _FORGOTTEN_S:
                            session.abandon()
                            return
                finally:
                    self._warnings.pop(task.key, None)

    def checkpointed(self, task: Task, cursor: Cursor) -> None:
        """The slot may be let go of up to there, after a while."""
        if self._config.mode is Mode.LOGICAL and cursor:
            self._durable_of(task.key).reaches(Place.of(cursor).done, self._context.clock.monotonic())

    async def check(self) -> Sequence[CheckStep]:
        """Connect, log in, and see that everything is there; nothing is made or changed."""
        config = self._config
        polling = None if config.mode is Mode.LOGICAL else config.polling
        return await check(Checked(config.server, self._context, self._options, polling, self._readers))

    async def look(self) -> None:
        """
        Measure what the slot holds back, on a session of its own; nothing in the modes that poll.

        Raises:
            SourceUnavailable: retry. SourceUnauthorised, SourceMisconfigured: pause.
        """
        if self._config.mode is not Mode.LOGICAL:
            return
        session = await connect(self._config.server, self._context)
        try:
            state = await slot.slot_state(session, self._options.slot)
            held_bytes = 0 if state is None else state.held_bytes
        except ChangesLost:
            held_bytes = 0  # a slot that is lost holds back nothing any more
        finally:
            await session.close()
        self._context.meter.set(metric.HELD_BACK_BYTES, float(held_bytes), connector=self._context.connector)

    async def close(self) -> None:
        """End every session; the slot stays, and keeps the log for whoever reads next."""
        for session in self._idle.values():
            await session.close()
        self._idle.clear()

    @property
    def _keys(self) -> list[str]:
        names = ["changes"] if self._config.mode is Mode.LOGICAL else list(self._config.tables)
        return [f"{name}/{self._config.generation}" for name in names]

    def _task(self, key: str, origin: Origin) -> Task:
        config = self._config
        what = self._options.slot if config.mode is Mode.LOGICAL else key.rpartition("/")[0]
        path = f"postgresql://{config.server.shown}/{what}"
        return Task(f"{config.database}/{what}", key, str(origin), path, recurring=True)

    async def _changes(
        self, session: Session, task: Task, origin: Origin, since: Cursor | None
    ) -> AsyncGenerator[Batch, None]:
        options = self._options
        await slot.lock(session, options.slot)
        tables = [await table_facts(session, name) for name in options.tables]
        if not since:
            # a slot is made once every transaction that runs now has ended
            with pending(begin(session, options, origin, tables)) as beginning:
                while not await arrived(beginning):
                    yield Batch((), (), {})
                place = beginning.result()
        else:
            place = Place.of(since)
            if place.slot != options.slot:
                raise ChangesLost(f'the connector read replication slot "{place.slot}", not "{options.slot}"')
            if options.create and not place.published.keys() >= {str(name) for name in options.tables}:
                await slot.make_publication(session, options.publication, tables)
        durable = self._durable_of(task.key)
        if since and not durable.newest:
            durable.reaches(place.done, self._context.clock.monotonic())  # an earlier life's
        self._watch_slot(task.key, await slot.verify(session, place, origin, durable.newest or place.done))
        tables = await slot.follow(session, place, options.publication, tables)
        stream = Stream(
            session,
            options,
            self._readers(tables, await domains(session)),
            clock=self._context.clock,
            durable=lambda: durable.before(self._context.clock.monotonic() - self._config.let_go_s),
            watch=lambda state: self._watch_slot(task.key, state),
        )
        async with contextlib.aclosing(stream.batches(place)) as batches:
            async for batch in batches:
                yield batch

    async def _polled(
        self, session: Session, task: Task, origin: Origin, since: Cursor | None
    ) -> AsyncGenerator[Batch, None]:
        table = await table_facts(session, TableName.parse(task.key.rpartition("/")[0]))
        await check_column(session, table, self._config.polling)
        mark = Mark.of(since) if since else Mark(origin, str(table.name))
        if mark.origin != origin:
            raise ChangesLost(
                f"{session.server.shown} is not the server that was read before: system/timeline/database were "
                f"{mark.origin} and are {origin}"
            )
        poll = Poll(
            session,
            table,
            self._readers([table], {}).of_table(table),
            self._config.polling,
            clock=self._context.clock,
            watch=lambda seconds, holder: self._watch_poll(task.key, seconds, holder),
        )
        async with contextlib.aclosing(poll.batches(mark)) as batches:
            async for batch in batches:
                yield batch

    def _durable_of(self, key: str) -> Durable:
        return self._durable.setdefault(key, Durable())

    def _readers(self, tables: Sequence[TableFacts], beneath: Mapping[int, int]) -> Readers:
        mappers = {str(table.name): self._config.mapper(self._context, str(table.name)) for table in tables}
        kind = EventReader if self._config.mapping == "events_table" else RowReader
        return Readers(tables, self._config, mappers, beneath, kind)

    def _watch_slot(self, key: str, state: slot.SlotState) -> None:
        self._context.meter.set(metric.HELD_BACK_BYTES, float(state.held_bytes), connector=self._context.connector)
        held_mib = state.held_bytes / _MEBIBYTE
        if state.status == "unreserved":
            why = "the server will soon remove changes that were not read"
        elif held_mib >= self._config.held_alert_mib:
            why = "the server cannot remove it before it was read; its disk may fill"
        else:
            self._warnings.pop(key, None)
            return
        self._warnings[key] = f'replication slot "{self._options.slot}" holds back {held_mib:.0f} MiB of log: {why}'

    def _watch_poll(self, key: str, seconds: float, holder: int | None) -> None:
        self._context.meter.set(metric.HELD_BACK_SECONDS, seconds, connector=self._context.connector)
        if seconds < self._config.held_alert_s:
            self._warnings.pop(key, None)
            return
        who = f"PID {holder}" if holder else "a transaction"
        self._warnings[key] = f"{who} has been open for {seconds:.0f} s and holds back what was committed since"

    @contextlib.asynccontextmanager
    async def _session(self, key: str) -> AsyncIterator[Session]:
        """A session that stays open between readings, and with it the lock on the slot."""
        session = self._idle.pop(key, None) or self._idle.pop("", None)
        if session is None or not session.is_open:
            session = await connect(self._config.server, self._context)
        try:
            yield session
        except BaseException:
            session.abandon()
            raise
        if session.is_open:
            self._idle[key] = session
