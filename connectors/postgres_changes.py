"""
The changes of a PostgreSQL database that somebody else writes, as they are committed (seed 001's database change
stream, made to lose nothing).

Three modes: logical decoding through plain SQL, a watermark of transaction ids, a window of times. Each goes on exactly
where a checkpoint stands; what can no longer be had stops the connector instead of being passed over.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from connectors.changes import slot
from connectors.changes.assembler import Readers
from connectors.changes.catalog import TableFacts, domains, table_facts
from connectors.changes.check import Checked, check
from connectors.changes.events import EventReader, with_preset
from connectors.changes.identifier import Name, SlotName, Table, TableName
from connectors.changes.option import Mode, OnDelete, Snapshot, StreamOptions
from connectors.changes.pace import Pace
from connectors.changes.place import Origin, Place, origin_in
from connectors.changes.poll import Mark, Poll, PollOptions, check_column
from connectors.changes.rows import RowReader
from connectors.changes.session import Server, Session, Tls, connect
from connectors.changes.stream import Stream, begin
from connectors.context import SourceContext
from connectors.mapping import RecordConfig
from connectors.network import NetworkConfig
from connectors.secret import SecretReference
from connectors.source import Batch, CheckStep, Cursor, Skipped, Task
from connectors.spec import SourceSpec
from schemas import metric
from schemas.errors import ChangesLost, SourceChanged

_MEBIBYTE = 1_048_576


class PostgresChangesConfig(NetworkConfig, RecordConfig):
    """A database, some of its tables, and how their changes are found."""

    poll_s: float = Field(0.2, gt=0, le=86_400, description="Seconds between two readings; a reading lasts `run_s`.")
    checkpoint_s: float = Field(
        0.2,
        ge=0,
        le=300,
        description="Seconds between two checkpoints of a task at least; the slot lets go after them.",
    )
    answer_s: float = Field(
        300.0, gt=0, le=86_400, description="Seconds that one statement may take, such as decoding a large transaction."
    )
    host: str = Field(min_length=1, max_length=253, description="The database server's name or address.")
    port: int = Field(5_432, ge=1, le=65_535, description="Its port.")
    database: str = Field(min_length=1, max_length=63, description="The database.")
    user: str = Field(min_length=1, max_length=63, description="The role to log in as; it needs no more than to read.")
    password: SecretReference = Field("", description="Its password, as a reference: `${env:NAME}` or `${file:NAME}`.")
    sslmode: Tls = Field(
        Tls.VERIFY_FULL, description="As libpq has it; less than `verify-full` is for networks that you trust."
    )
    ca: SecretReference = Field(
        "", description="Reference to the certificate (PEM) of the server's authority; empty: the system's authorities."
    )
    tables: tuple[Table, ...] = Field(min_length=1, max_length=100, description="The tables, as `schema.name`.")
    mapping: Literal["columns", "events_table"] = Field(
        "columns",
        description="`columns`: rows are payments; `events_table`: rows are events with entity_id, event_type and "
        "headers, and everything about the mapping has a default.",
    )
    mode: Mode = Field(Mode.LOGICAL, description="How changes are found: see docs/decisions/015.")
    slot: SlotName = Field("", description="The replication slot; empty: one named after the connector's id.")
    publication: Name = Field("", description="The publication; empty: named as the slot.")
    create: bool = Field(False, description="Whether publication and slot are made where they are missing.")
    snapshot: Snapshot = Field(Snapshot.INITIAL, description="Whether rows that were there before are read: first.")
    generation: int = Field(
        1, ge=1, le=1_000_000, description="Raise it to begin again after changes were lost: all rows are read again."
    )
    on_delete: OnDelete = Field(
        OnDelete.IGNORE, description="What a deleted row means; `ignore` counts it as filtered."
    )
    watermark: Name = Field("txid", description="Mode watermark: the column `xid8 DEFAULT pg_current_xact_id()`.")
    delay_s: float = Field(
        60.0, ge=0, le=86_400, description="Mode closed_window: how long after a change its row is read."
    )
    interval_s: float = Field(0.05, gt=0, le=3_600, description="Seconds between two looks for changes.")
    idle_s: float = Field(5.0, ge=0, le=3_600, description="A reading, and so its run, ends after so long without any.")
    run_s: float = Field(60.0, gt=0, le=86_400, description="And after so long in any case; the next one goes on.")
    peek_rows: int = Field(
        50_000,
        ge=1,
        le=10_000_000,
        description="Changes that the server decodes at a time; a transaction is one piece.",
    )
    held_alert_mib: float = Field(
        1_024.0, gt=0, description="Mebibytes of log that the slot may hold back before the connector says so."
    )
    held_alert_s: float = Field(
        300.0, gt=0, description="Seconds that an open transaction may hold a poll back before the connector says so."
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:  # whatever a file or a command line held
        if isinstance(given, Mapping) and given.get("mapping") == "events_table":
            return with_preset(given)
        return given

    @model_validator(mode="after")
    def _fits_the_mode(self) -> PostgresChangesConfig:
        if len(set(self.tables)) < len(self.tables):
            raise ValueError("a table is named twice")
        if self.mode is Mode.CLOSED_WINDOW and not self.updated_at:
            raise ValueError("the mode closed_window needs `updated_at`: the column that says when a row was changed")
        if self.mode is Mode.WATERMARK and not self.watermark:
            raise ValueError("the mode watermark needs `watermark`: the column with the transaction's id")
        return self

    @property
    def server(self) -> Server:
        """Where the database is."""
        return Server(
            host=self.host,
            port=self.port,
            database=self.database,
            user=self.user,
            password=self.password,
            tls=self.sslmode,
            ca=self.ca,
            allow_networks=self.allow_networks,
            connect_s=self.connect_s,
            answer_s=self.answer_s,
        )

    @property
    def table_names(self) -> list[TableName]:
        """The tables."""
        return [TableName.parse(table) for table in self.tables]

    @property
    def pace(self) -> Pace:
        """How long a reading lasts."""
        return Pace(self.interval_s, self.idle_s, self.run_s)

    @property
    def polling(self) -> PollOptions:
        """Of the two modes that poll."""
        column = self.watermark if self.mode is Mode.WATERMARK else self.updated_at
        return PollOptions(self.mode, column, self.delay_s, self.snapshot is Snapshot.INITIAL, self.pace)


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
            pace=config.pace,
        )
        self._origin: Origin | None = None
        self._idle: dict[str, Session] = {}
        self._durable: dict[str, int] = {}
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
            if task.source_object != str(origin) and (since is None or origin_in(since) == origin):
                self._origin = None
                raise SourceChanged(f"{self._config.server.shown} is another server than a moment ago")
            reading = self._changes if self._config.mode is Mode.LOGICAL else self._polled
            async with contextlib.aclosing(reading(session, task, origin, since)) as batches:
                try:
                    async for batch in batches:
                        yield batch
                finally:
                    self._warnings.pop(task.key, None)

    def checkpointed(self, task: Task, cursor: Cursor) -> None:
        """The slot may be let go of up to there, at the next look."""
        if self._config.mode is Mode.LOGICAL:
            self._durable[task.key] = Place.of(cursor).done

    async def check(self) -> Sequence[CheckStep]:
        """Connect, log in, and see that everything is there; nothing is made or changed."""
        config = self._config
        polling = None if config.mode is Mode.LOGICAL else config.polling
        return await check(Checked(config.server, self._context, self._options, polling, self._readers))

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
        if since is None:
            place = await begin(session, options, origin, tables)
        else:
            place = Place.of(since)
            if place.slot != options.slot:
                raise ChangesLost(f'the connector read replication slot "{place.slot}", not "{options.slot}"')
            if options.create and not place.published.keys() >= {str(name) for name in options.tables}:
                await slot.make_publication(session, options.publication, tables)
        # the first cursor of this life is a checkpoint's
        durable = self._durable.setdefault(task.key, place.done)
        self._watch_slot(task.key, await slot.verify(session, place, origin, durable))
        await slot.follow(session, place, options.publication, tables)
        stream = Stream(
            session,
            options,
            self._readers(tables, await domains(session)),
            clock=self._context.clock,
            durable=lambda: self._durable[task.key],
            watch=lambda state: self._watch_slot(task.key, state),
        )
        async with contextlib.aclosing(stream.batches(place)) as batches:
            async for batch in batches:
                yield batch

    async def _polled(
        self, session: Session, task: Task, origin: Origin, since: Cursor | None
    ) -> AsyncGenerator[Batch, None]:
        table = await table_facts(session, TableName.parse(task.key.rpartition("/")[0]))
        check_column(table, self._config.polling)
        mark = Mark(origin, str(table.name)) if since is None else Mark.of(since)
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


SPEC = SourceSpec(
    kind="postgres_changes",
    summary="Changes of a PostgreSQL database as they are committed: logical decoding, or polls that lose nothing.",
    config=PostgresChangesConfig,
    factory=PostgresChangesSource,
    resumes_from="commit and change within it (polls: transaction or time, and key)",
    main_task="database",
)
