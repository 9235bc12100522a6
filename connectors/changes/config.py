"""The options of a change stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from connectors.changes.identifier import Name, SlotName, Table, TableName
from connectors.changes.option import Mode, OnDelete, PollOptions, Snapshot
from connectors.changes.pace import Pace
from connectors.changes.preset import with_preset
from connectors.changes.server import Server, Tls
from connectors.mapping import RecordConfig
from connectors.network import NetworkConfig
from connectors.secret import SecretReference

_LOGICAL = (Mode.LOGICAL,)
_POLLS = (Mode.WATERMARK, Mode.CLOSED_WINDOW)
# Options that mean something in these modes only. One that is set where it does nothing was meant to do something.
_MODES_OF = {
    **dict.fromkeys(
        ("slot", "publication", "create", "on_delete", "peek_rows", "let_go_s", "held_alert_mib"), _LOGICAL
    ),
    "watermark": (Mode.WATERMARK,),
    "delay_s": (Mode.CLOSED_WINDOW,),
    "held_alert_s": _POLLS,
}


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
        Tls.VERIFY_FULL,
        description="As libpq has it. Production takes `verify-full` and `verify-ca` only, but for a database on the "
        "worker's own machine.",
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
    run_s: float = Field(3_600.0, gt=0, le=86_400, description="And after so long in any case; the next one goes on.")
    peek_rows: int = Field(
        200_000,
        ge=1,
        le=10_000_000,
        description="Changes that the server decodes at a time; a transaction is one piece.",
    )
    let_go_s: float = Field(
        5.0,
        ge=0,
        le=86_400,
        description="Seconds that the slot keeps what a checkpoint holds: a worker that was frozen, or a state that "
        "fell back, may need it again.",
    )
    held_alert_mib: float = Field(
        1_024.0, gt=0, le=1e9, description="Mebibytes of log that the slot may hold back before the connector says so."
    )
    held_alert_s: float = Field(
        300.0,
        gt=0,
        le=1e9,
        description="Seconds that an open transaction may hold a poll back before the connector says so.",
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
        idle = [name for name, modes in _MODES_OF.items() if self.mode not in modes and self._is_changed(name)]
        if idle:
            others = " or ".join(dict.fromkeys(mode.value for name in idle for mode in _MODES_OF[name]))
            raise ValueError(f"{', '.join(idle)}: no effect in mode {self.mode}; leave it out, or use mode {others}")
        return self

    def _is_changed(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

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
