"""
From a row of a table to what it says about a payment: the mapping of `connectors.mapping`, on values in text form.

The same row gives the same facts whether a copy, a poll or the stream of changes brought it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import orjson

from connectors.changes import catalog
from connectors.changes.decoder import UNCHANGED
from connectors.json_path import JsonPath, is_path
from connectors.mapping import POSITION, RecordConfig, RecordMapper, clean_record, with_raw
from connectors.record import FIELDS, NumberText, squeezed
from connectors.source import Batch, Cursor, Rejection, Revision, SourceRecord
from schemas.errors import RecordRejected, SourceMisconfigured

BATCH_ROWS = 2_000  # as the file sources have it: enough for the producer's batches, few enough for the event loop
BATCH_BYTES = 4 * 1_048_576
_SHOWN = 40  # characters of a name that is refused
_UTC = "+00"  # how PostgreSQL spells the offset in our sessions
_COLUMNS_HINT = "correct the connector's `columns` and resume it: it goes on where it stands"

# A value of a row: PostgreSQL's text form, None, `UNCHANGED`; after conversion whatever JSON can hold.
Values = list[Any]

# The revision of a record, from what the record says.
Dated = Callable[[SourceRecord], Revision | None]


class ColumnType(NamedTuple):
    """A column, as a reader needs it: its name, and the type beneath any domain."""

    name: str
    type_oid: int


class RowReader:
    """Turns rows of one shape of one table into records. `key` are the columns that tell its rows apart."""

    def __init__(
        self, table: str, columns: Sequence[ColumnType], key: Sequence[str], config: RecordConfig, mapper: RecordMapper
    ) -> None:
        """
        `mapper` is the config's.

        Raises:
            SourceMisconfigured: pause; the table lacks a column that the mapping names.
        """
        self.table = table
        self._headers: Mapping[str, str] = {"table": table}
        self.names = tuple(column.name for column in columns)
        self._key = [self.names.index(name) for name in key if name in self.names]
        named, paths = _named(config)
        self._check(named | paths, config)
        self._keeps_record = mapper.keeps_record
        self._is_known_by_key = config.identity == POSITION
        try:
            self._record = mapper.row_reader(self.names)
        except RecordRejected as exc:
            raise SourceMisconfigured(f"{table}: {exc}", hint=_COLUMNS_HINT) from exc
        self._needed = [
            place
            for place, name in enumerate(self.names)
            if self._keeps_record or config.adapter or name in named | paths or squeezed(name) in _OURS
        ]
        parsed = {column.name for column in columns if column.type_oid in _JSON} if config.adapter else paths
        found = [(place, _converter(column, is_parsed=column.name in parsed)) for place, column in enumerate(columns)]
        self._converters = [(place, convert) for place, convert in found if convert is not None]

    def is_complete(self, values: Values) -> bool:
        """Whether no value that the mapping needs was left out."""
        return UNCHANGED not in values or not any(values[place] is UNCHANGED for place in self._needed)

    def read(self, values: Values, position: str, revision: Revision | Dated) -> SourceRecord | None:
        """
        What the row becomes; None where a rule leaves it out.

        The revision is the one given, or the one that is found by looking at the record.

        Raises:
            RecordRejected: with the row's reason.
        """
        converted = values.copy()
        for place, convert in self._converters:
            value = values[place]
            if value is not None and value is not UNCHANGED:
                converted[place] = convert(value)
        record = self._record(converted, self.key_of(values) if self._is_known_by_key else "", None)
        if record is None:
            return None
        if self._keeps_record:
            record = with_raw(record, self._spelled(converted))
        dated = revision if isinstance(revision, Revision) else revision(record)
        found = SourceRecord(position, record.payment, None, self.headers(record.headers, converted), dated)
        clean_record(found)
        return found

    def headers(self, mapped: Mapping[str, str], values: Values) -> Mapping[str, str]:  # noqa: ARG002 others look
        """The event's headers: the table, and those of the mapping."""
        return {**self._headers, **mapped} if mapped else self._headers

    def places(self, columns: Sequence[str]) -> list[int]:
        """Where columns stand in a row."""
        return [self.names.index(column) for column in columns]

    def key_of(self, values: Values) -> str:
        """The row's key, which tells it from all others of its table; empty where the table has none."""
        if len(self._key) == 1:
            return str(values[self._key[0]])
        return orjson.dumps([values[place] for place in self._key], default=str).decode() if self._key else ""

    def raw(self, values: Values) -> bytes:
        """The row, for a dead letter."""
        return self._spelled(values).encode("utf-8")

    def _spelled(self, values: Values) -> str:
        row = {name: value for name, value in zip(self.names, values, strict=True) if value is not UNCHANGED}
        return orjson.dumps(row, default=_number, option=orjson.OPT_PASSTHROUGH_DATACLASS).decode()

    def _check(self, named: set[str], config: RecordConfig) -> None:
        """A column that was dropped or renamed would otherwise send every row to the dead letters."""
        if lacks := sorted(named.difference(self.names)):
            raise SourceMisconfigured(f"{self.table} has no column {', '.join(lacks)}", hint=_COLUMNS_HINT)
        if config.identity == POSITION and not self._key:
            raise SourceMisconfigured(
                f"{self.table} has no primary key, so `identity: position` cannot tell its rows apart",
                hint="name columns as `identity`, or add a primary key",
            )


class Gathered:
    """Records, rejections and what was left out, in their order, until they fill a batch."""

    def __init__(self) -> None:
        self._records: list[SourceRecord] = []
        self._rejections: list[Rejection] = []
        self._filtered = 0
        self._bytes = 0

    def __len__(self) -> int:
        """How many rows are accounted for."""
        return len(self._records) + len(self._rejections) + self._filtered

    @property
    def is_full(self) -> bool:
        """Whether it should be handed on."""
        return len(self) >= BATCH_ROWS or self._bytes >= BATCH_BYTES

    def add(self, reader: RowReader, values: Values, position: str, revision: Revision | Dated, *, size: int) -> None:
        """Read a row of `size` bytes, and keep what it becomes."""
        self._bytes += size
        try:
            record = reader.read(values, position, revision)
        except RecordRejected as exc:
            self._rejections.append(Rejection(position, exc.code, str(exc), reader.raw(values)))
            return
        if record is None:
            self._filtered += 1
        else:
            self._records.append(record)

    def keep(self, record: SourceRecord) -> None:
        """A record that was made elsewhere."""
        self._records.append(record)

    def reject(self, position: str, reason: str, message: str, raw: bytes) -> None:
        """What cannot become a record."""
        self._bytes += len(raw)
        self._rejections.append(Rejection(position, reason, message, raw))

    def leave_out(self) -> None:
        """Count a row that a rule leaves out."""
        self._filtered += 1

    def batch(self, cursor: Cursor) -> Batch:
        """All of it, with the cursor that holds once it is durable; empty then."""
        batch = Batch(self._records, self._rejections, cursor, self._filtered)
        self._records, self._rejections, self._filtered, self._bytes = [], [], 0, 0
        return batch


_JSON = (catalog.JSON, catalog.JSONB)
_OURS = frozenset(name.replace("_", "") for name in FIELDS)


def _named(config: RecordConfig) -> tuple[set[str], set[str]]:
    """The columns that a mapping names by themselves, and those into which its paths lead."""
    columns = [*config.columns.values(), *config.headers.values(), *(rule.column for rule in config.leave_out)]
    columns += [config.updated_at, *(() if config.identity == POSITION else config.identity)]
    plain = {column for column in columns if column and not is_path(column)}
    paths = {str(JsonPath.parse(column).steps[0]) for column in columns if is_path(column)}
    return plain, paths


def _converter(column: ColumnType, *, is_parsed: bool) -> Callable[[Any], Any] | None:
    """What makes a column's text the text that the mapping reads, if it needs that."""
    if is_parsed:  # only the type json keeps a text as it was written
        return _parsed_once if column.type_oid == catalog.JSON else parsed
    return {
        catalog.BOOL: _bool,
        catalog.BPCHAR: _unpadded,
        catalog.TIMESTAMPTZ: _instant,
    }.get(column.type_oid)


def _bool(text: str) -> str:
    # the stream says t, a cast to text says true
    return {"t": "true", "f": "false"}.get(text, text)


def _unpadded(text: str) -> str:
    return text.rstrip(" ")


def _instant(text: str) -> str:
    """RFC 3339 wants minutes in an offset."""
    return text[: -len(_UTC)] + "Z" if text.endswith(_UTC) else text


_json = msgspec.json.Decoder(float_hook=NumberText)


def parsed(text: str) -> Any:
    """
    A JSON value, its fractions as they were spelled: an amount is judged by its grammar, not by a float.

    Raises:
        RecordRejected: `invalid_json`.
    """
    try:
        return _json.decode(text)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise RecordRejected("invalid_json", f"a column that should hold JSON does not: {exc}") from exc


def _parsed_once(text: str) -> Any:
    """
    The same of a text in which a name may come twice: nobody knows which of the two is meant.

    Raises:
        RecordRejected: `invalid_json`.
    """
    try:
        json.loads(text, object_pairs_hook=_each_once, parse_int=str, parse_float=str)
    except RecursionError as exc:
        raise RecordRejected("invalid_json", "a column nests JSON too deeply") from exc
    except json.JSONDecodeError as exc:
        raise RecordRejected("invalid_json", f"a column that should hold JSON does not: {exc}") from exc
    return parsed(text)


def _each_once(members: list[tuple[str, object]]) -> None:
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RecordRejected("invalid_json", f"a column's JSON has the name {twice[:_SHOWN]!r} twice")


def _number(value: object) -> Any:
    return orjson.Fragment(value.text) if isinstance(value, NumberText) else str(value)
