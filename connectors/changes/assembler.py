"""
From messages of the stream to records, and to the place after each: pure, so that every order of events can be tested.

A change's position is `commit LSN/number in its transaction`, which no other change of this history has; it counts all
changes that PostgreSQL sends of a transaction, so it does not depend on which tables a connector wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from connectors.changes import lsn
from connectors.changes.catalog import TableFacts
from connectors.changes.decoder import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    Relation,
    Truncate,
    Undecodable,
    Update,
    decode,
)
from connectors.changes.option import OnDelete
from connectors.changes.place import EPOCH, Place
from connectors.changes.rows import ColumnType, Gathered, RowReader, Values
from connectors.mapping import RecordConfig, RecordMapper
from connectors.record import DELTAS
from connectors.source import Revision
from schemas.errors import RecordRejected, SourceMisconfigured
from schemas.payment import Status

_FULL = "f"
_NOT_THIS_ONE = 1 << 62  # more changes than a transaction has
_CHANGES = b"IUDT"


class Readers:
    """The row reader of each table that is wanted, in whatever shape it had when it was changed."""

    def __init__(
        self,
        tables: Sequence[TableFacts],
        config: RecordConfig,
        mappers: Mapping[str, RecordMapper],
        domains: Mapping[int, int],
        kind: type[RowReader] = RowReader,
    ) -> None:
        self._by_name = {str(table.name): table for table in tables}
        self._by_oid = {table.oid: table for table in tables}
        self._config = config
        self._mappers = mappers
        self._domains = domains
        self._kind = kind

    def of_relation(self, relation: Relation) -> RowReader | None:
        """
        The reader of a table as the stream describes it, also under a former name; None if it is not wanted.

        Raises:
            SourceMisconfigured: pause; it lacks a column that the mapping names.
        """
        table = self._by_name.get(f"{relation.schema}.{relation.name}") or self._by_oid.get(relation.id)
        if table is None:
            return None
        columns = [ColumnType(each.name, self._domains.get(each.type_oid, each.type_oid)) for each in relation.columns]
        return self._reader(table, columns)

    def of_table(self, table: TableFacts) -> RowReader:
        """
        The reader of a table as it is now.

        Raises:
            SourceMisconfigured: pause; it lacks a column that the mapping names.
        """
        return self._reader(table, [ColumnType(each.name, each.type_oid) for each in table.columns])

    def facts_of(self, table: str) -> TableFacts:
        """What the catalog says of a wanted table."""
        return self._by_name[table]

    def _reader(self, table: TableFacts, columns: Sequence[ColumnType]) -> RowReader:
        name = str(table.name)
        return self._kind(name, columns, table.key, self._config, self._mappers[name])


class Incomplete(NamedTuple):
    """An updated row some of whose values were not sent, because the update left them as they were."""

    reader: RowReader
    values: Values
    position: str
    revision: Revision
    size: int


class _Described(NamedTuple):
    relation: Relation
    reader: RowReader | None


class Assembler:
    """Takes messages in order. `gathered` has the records since it was last emptied, `place` is where they end."""

    def __init__(self, place: Place, readers: Readers, on_delete: OnDelete) -> None:
        self.place = place
        self.gathered = Gathered()
        self._readers = readers
        self._on_delete = on_delete
        self._relations: dict[int, _Described] = {}
        self._shapes: dict[Relation, RowReader | None] = {}
        self._commit_lsn = 0
        self._committed_at = EPOCH
        self._at = EPOCH
        self._prefix = ""
        self._index = 0
        self._known = 0  # so many changes of the transaction are done

    def take(self, data: bytes) -> Incomplete | None:
        """
        Take the next message. What comes back is not gathered yet: it lacks values.

        Raises:
            SourceMisconfigured: pause; a message that we do not understand, or a table without a column we need.
        """
        if self._known == _NOT_THIS_ONE and data[0] in _CHANGES:
            return None  # most of what a look shows again
        try:
            message = decode(data)
        except Undecodable as exc:
            raise SourceMisconfigured(str(exc), hint="report the server's version with this message") from exc
        match message:
            case Insert():
                self._inserted(message, len(data))
            case Update():
                return self._updated(message, len(data))
            case Delete():
                self._deleted(message)
            case Begin():
                self._begin(message)
            case Commit():
                self._commit(message)
            case Relation():
                self._describe(message)
            case Truncate():
                self._truncated(message)
        return None

    def complete(self, found: Incomplete, values: Mapping[str, str | None] | None) -> None:
        """Gather what lacked values: with those of the row as it is now, or as a rejection if there is no row."""
        reader, row, position, revision, size = found
        if values is None:
            message = (
                f"a large value of {reader.table} was not sent because the update left it alone, and the row is gone"
            )
            self.gathered.reject(position, "unchanged_value", message, reader.raw(row))
            return
        filled = [values[name] if value is UNCHANGED else value for name, value in zip(reader.names, row, strict=True)]
        self.gathered.add(reader, filled, position, revision, size=size)

    def _begin(self, message: Begin) -> None:
        place = self.place
        self._commit_lsn, self._committed_at, self._index = message.commit_lsn, message.committed_at, 0
        if message.commit_lsn < place.done:
            self._known = _NOT_THIS_ONE
            return
        self._known = place.index if message.commit_lsn == place.transaction else 0
        self._at = place.dated(message.commit_lsn, message.xid, message.committed_at)
        self._prefix = f"{lsn.spell(message.commit_lsn)}/"

    def _commit(self, message: Commit) -> None:
        if self._known != _NOT_THIS_ONE:
            self.place.done = message.end_lsn
            self.place.transaction = self.place.index = 0

    def _describe(self, message: Relation) -> None:
        if message not in self._shapes:
            self._shapes[message] = self._readers.of_relation(message)
        self._relations[message.id] = _Described(message, self._shapes[message])

    def _is_new(self) -> bool:
        """Count a change, and tell whether it is still to be read. The place is after it then."""
        self._index += 1
        if self._index <= self._known:
            return False
        self.place.transaction, self.place.index = self._commit_lsn, self._index
        return True

    def _inserted(self, message: Insert, size: int) -> None:
        if self._is_new() and (reader := self._relations[message.relation].reader) is not None:
            self.gathered.add(reader, message.new, self._position, self._revision, size=size)

    def _updated(self, message: Update, size: int) -> Incomplete | None:
        if not self._is_new():
            return None
        relation, reader = self._relations[message.relation]
        if reader is None:
            return None
        position, new, old = self._position, message.new, message.old
        if not reader.is_complete(new):
            if old is None or relation.identity != _FULL:
                return Incomplete(reader, new, position, self._revision, size)
            new = [before if value is UNCHANGED else value for value, before in zip(new, old, strict=True)]
        self.gathered.add(reader, new, position, self._revision, size=size)
        return None

    def _deleted(self, message: Delete) -> None:
        if not self._is_new():
            return
        relation, reader = self._relations[message.relation]
        if reader is None:
            return
        if self._on_delete is OnDelete.IGNORE:
            self.gathered.leave_out()
        elif self._on_delete is OnDelete.REJECT:
            self._refuse(reader, message.old, "deleted", f"a row of {reader.table} was deleted")
        elif relation.identity != _FULL:
            self._refuse(
                reader, message.old, "deleted", f"a row of {reader.table} was deleted, and only its key was sent"
            )
        else:
            self._cancel(reader, message.old)

    def _cancel(self, reader: RowReader, old: Values) -> None:
        """The payment that a deleted row was about is cancelled, from the instant of the deletion on."""
        try:
            record = reader.read(list(old), self._position, self._revision)
        except RecordRejected as exc:
            self._refuse(reader, old, exc.code, str(exc))
            return
        if record is None:
            self.gathered.leave_out()
        elif record.payment.status in DELTAS:
            message = f"a {record.payment.status} was deleted from {reader.table}; it cannot be cancelled"
            self._refuse(reader, old, "deleted", message)
        else:
            facts = record.payment._replace(status=Status.CANCELLED, effective_at=self._committed_at)
            self.gathered.keep(record._replace(payment=facts))

    def _truncated(self, message: Truncate) -> None:
        for identifier in message.relations:
            if self._is_new() and (reader := self._relations[identifier].reader) is not None:
                raw = f'{{"table":"{reader.table}","truncated":true}}'.encode()
                self.gathered.reject(self._position, "truncated", f"{reader.table} was emptied", raw)

    def _refuse(self, reader: RowReader, values: Values, reason: str, message: str) -> None:
        self.gathered.reject(self._position, reason, message, reader.raw(values))

    @property
    def _position(self) -> str:
        return f"{self._prefix}{self._index}"

    @property
    def _revision(self) -> Revision:
        return Revision(self._at, self._commit_lsn + self._index)
