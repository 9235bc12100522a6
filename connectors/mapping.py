"""
From a source's own records to ours, as the connector's configuration says: the half of a connector that knows a
provider, apart from the half that knows a protocol (seed 002's adapters).

    RecordConfig   the options: which column is which field, words → statuses, dates, units, what is left out
    RecordMapper   one object or row → a `SourceRecord`, a rejection's reason, or nothing where a rule leaves it out
    BatchBuilder   many of them → a `Batch`

A column is a record's own name for a value, or a path into it (`$.payload.payment.entity.id`, see `json_path`).
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, field_validator, model_validator

from connectors.adapter import NAME, Adapter, judged
from connectors.context import SourceContext
from connectors.json_path import JsonPath, is_path
from connectors.record import (
    DELTAS,
    FIELDS,
    MAX_SCHEME,
    RFC_3339,
    UNIX_UNITS,
    AmountUnit,
    LeftOut,
    PaymentFacts,
    RawPolicy,
    RecordReader,
    RecordRules,
    UnknownStatus,
    absence,
    clean,
    missing,
    spell,
    squeezed,
)
from connectors.source import NO_HEADERS, Batch, Cursor, Rejection, Revision, SourceRecord
from connectors.spec import ConnectorConfig, Matching
from connectors.word import Called
from schemas.errors import RecordRejected
from schemas.money import exponent
from schemas.payment import MAX_RAW, PaymentType, Status

MAX_HEADER = 4_096  # characters of one header's value
_HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
_REFERENCE, _STATUS, _RAW = FIELDS.index("reference"), FIELDS.index("status"), FIELDS.index("raw")
_PARENT = FIELDS.index("parent_reference")
POSITION = "position"

# a row, its position, its line → what it becomes
ReadRow = Callable[[Sequence[str], str, int | None], SourceRecord | None]


def _is_column(value: str) -> str:
    if is_path(value):
        JsonPath.parse(value)
    return value


Column = Annotated[str, AfterValidator(_is_column), Called("a column or a path")]
"""A configuration field: a record's own name for a value, or a path into it."""


@functools.cache
def _zones() -> frozenset[str]:
    """The zones of this machine: to look for them takes 80 ms."""
    return frozenset(available_timezones())


class LeaveOut(Matching):
    """A rule: a record whose column matches is left out, before anything else is made of it."""

    column: Column = Field(min_length=1, description="The column that is looked at.")


class RecordConfig(ConnectorConfig):
    """The options of every connector whose records are mapped, beside those of all connectors."""

    columns: dict[str, Column] = Field(
        default_factory=dict,
        description="Our field → the source's own name for it, or a path such as `$.payment.id`; empty: it has none.",
    )
    type: PaymentType | None = Field(None, description="Direction of every record, where the source does not say.")
    type_map: dict[str, PaymentType] = Field(
        default_factory=dict, description="The source's word → `payin` or `payout`, beside the words we know."
    )
    status_map: dict[str, Status] = Field(
        default_factory=dict, description="The source's word → our status, before the words we know."
    )
    unknown_status: UnknownStatus = Field(
        UnknownStatus.REJECT, description="`reject` a record of a status we do not know, or `keep` it as unknown."
    )
    asset: str = Field("", description="Asset of every record, such as `INR/2`, where the source does not say.")
    amount_unit: AmountUnit = Field(
        AmountUnit.MINOR, description="What amounts count: `minor` (cents) or `major` (dollars)."
    )
    scheme: str = Field("", max_length=MAX_SCHEME, description="Scheme of every record, where the source does not say.")
    date_format: str = Field(
        RFC_3339,
        description="`rfc3339`, `unix_s` or `unix_ms` (counts since 1970), or a pattern such as `%d/%m/%Y %H:%M:%S`.",
    )
    timezone: str = Field("", description="IANA zone of times that name no offset; empty: those are rejected.")
    updated_at: Column = Field(
        "", description="Column that says when the record was last changed; of two versions the later one counts."
    )
    identity: Literal["position"] | tuple[Column, ...] = Field(
        (),
        description="What tells two refunds (captures, reversals) of a payment apart where they have no reference of "
        "their own: some columns, or the record's `position` in its source. Empty: those are rejected.",
    )
    headers: dict[str, Column] = Field(
        default_factory=dict, description="Name of an event's header → the column that it is taken from."
    )
    leave_out: tuple[LeaveOut, ...] = Field(
        (), description="Records that are none, such as totals: they count as filtered. A record is judged after that."
    )
    adapter: str = Field(
        "",
        description="A Python class that reads the records instead, by the name that its package gave it, or as "
        "`module:Class`. Of the options here `headers`, `leave_out`, `updated_at` and `raw` hold beside it.",
    )
    raw: RawPolicy = Field(
        RawPolicy.FIELD, description="What to keep as raw text: the `field` raw, or the whole `record`."
    )

    @field_validator("columns")
    @classmethod
    def _are_known(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value) - set(FIELDS))
        if unknown:
            raise ValueError(f"unknown fields {', '.join(unknown)}; there are {', '.join(FIELDS)}")
        return value

    @field_validator("status_map", "type_map")
    @classmethod
    def _are_words(
        cls, value: dict[str, Status] | dict[str, PaymentType]
    ) -> dict[str, Status] | dict[str, PaymentType]:
        meanings: dict[str, str] = {}
        for word, meaning in value.items():
            if meanings.setdefault(squeezed(word), meaning) is not meaning:
                raise ValueError(f"{word!r} is there in two spellings with two meanings")
        return value

    @field_validator("asset")
    @classmethod
    def _is_an_asset(cls, value: str) -> str:
        try:
            return value if not value or exponent(value) >= 0 else ""
        except RecordRejected as exc:
            raise ValueError(str(exc)) from None

    @field_validator("date_format")
    @classmethod
    def _reads_dates(cls, value: str) -> str:
        if value != RFC_3339 and value not in UNIX_UNITS:
            _check_pattern(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _exists(cls, value: str) -> str:
        if value and value not in _zones():
            raise ValueError(f"{value!r} is no IANA time zone")
        return value

    @field_validator("headers")
    @classmethod
    def _are_named(cls, value: dict[str, str]) -> dict[str, str]:
        for name, column in value.items():
            if not _HEADER_NAME.fullmatch(name) or not column:
                raise ValueError("a header has a name of letters, digits, `_`, `.` and `-`, and a column")
        return value

    @field_validator("adapter")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if value and not NAME.fullmatch(value):
            raise ValueError("an adapter is a name, or module:Class")
        return value

    @model_validator(mode="after")
    def _constants_are_no_columns(self) -> RecordConfig:
        constants = {"type": self.type, "asset": self.asset, "scheme": self.scheme}
        both = sorted(name for name, value in constants.items() if value and self.columns.get(name))
        if both:
            raise ValueError(f"{', '.join(both)}: there is a column and one value for all records; give one of them")
        return self

    @property
    def rules(self) -> RecordRules:
        """How records are understood."""
        # as a plain text: readers remember what those mean
        constants = {"type": str(self.type or ""), "asset": self.asset, "scheme": self.scheme}
        return RecordRules(
            amount_unit=self.amount_unit,
            raw=self.raw,
            unknown_status=self.unknown_status,
            timezone=self.timezone,
            columns={ours: "" if is_path(theirs) else theirs for ours, theirs in self.columns.items()},
            constants={name: value for name, value in constants.items() if value},
            status_map={squeezed(word): status for word, status in self.status_map.items()},
            type_map={squeezed(word): type_ for word, type_ in self.type_map.items()},
            date_format=self.date_format,
            paths={ours: theirs for ours, theirs in self.columns.items() if is_path(theirs)},
            headers=self.headers,
            left_out=[LeftOut(each.column, frozenset(each.equals), each.prefix) for each in self.leave_out],
            updated_at=self.updated_at,
            identity=None if self.identity == POSITION else self.identity,
        )

    def mapper(self, context: SourceContext, source_object: str) -> RecordMapper:
        """
        What reads the records of one task. `source_object` is the task's.

        Raises:
            SourceMisconfigured: pause; there is no such adapter, or it may not be used here.
        """
        made = context.adapters.make(self.adapter) if self.adapter else None
        return RecordMapper(self.rules, source_object=source_object, adapter=made)


class RecordMapper:
    """
    Turns a source's records into ours. One per task: it remembers spellings it has seen.

    `source_object` is the task's, and a part of references that are made from positions.
    """

    def __init__(self, rules: RecordRules, *, source_object: str = "", adapter: Adapter | None = None) -> None:
        self._rules = rules
        self._adapter = adapter
        self._source_object = source_object
        self._reader = RecordReader(rules)
        self._keeps_record = rules.raw is RawPolicy.RECORD
        self._paths = [(FIELDS.index(ours), _getter(path)) for ours, path in rules.paths.items()]
        self._headers = [(name, _getter(column)) for name, column in rules.headers.items()]
        self._left_out = [(_getter(rule.column), rule.equals, rule.prefix) for rule in rules.left_out]
        self._updated_at = _getter(rules.updated_at) if rules.updated_at else None
        self._identity = [_getter(column) for column in rules.identity or ()]
        self._identifies = rules.identity is None or bool(rules.identity)
        extras = (self._paths, self._headers, self._left_out, self._updated_at, self._identifies)
        self._is_plain = adapter is None and not any(extras)

    @property
    def keeps_record(self) -> bool:
        """Whether the whole record is wanted as `raw`."""
        return self._keeps_record

    def of_object(
        self,
        record: Mapping[str, object],
        *,
        position: str,
        line: int | None = None,
        text: str | None = None,
        raw_text: Callable[[], str | None] | None = None,
    ) -> SourceRecord | None:
        """
        What a JSON object becomes; None where a rule leaves it out.

        `text` is the object's own, and `raw_text` gives that of its field `raw`, where they are at hand; otherwise they
        are spelled anew.

        Raises:
            RecordRejected: with the record's reason.
        """
        if self._is_plain:
            facts = self._reader.of_object(record, raw_text or (lambda: spell(self._raw(record))))
            found: SourceRecord | None = SourceRecord(position, facts, line)
        else:
            found = self._read(record, position, line, raw_text)
        if found is None or not self._keeps_record:
            return found
        return with_raw(found, spell(record) if text is None else text)

    def row_reader(self, header: Sequence[str]) -> ReadRow:
        """
        A function from a row, as long as `header`, its position and its line to what it becomes.

        Empty cells are absent fields. The whole row as `raw` is its caller's to add (`with_raw`).

        Raises:
            RecordRejected: `duplicate_column`, `missing_column`. The function: RecordRejected, with the row's reason.
        """
        if self._is_plain:
            return self._plain_row_reader(header)
        if self._adapter is None:
            self._check_header(header)

        def read(row: Sequence[str], position: str, line: int | None) -> SourceRecord | None:
            return self._read(dict(zip(header, row, strict=True)), position, line, None)

        return read

    def _plain_row_reader(self, header: Sequence[str]) -> ReadRow:
        """Every row of every file passes here, so no call is made that can be spared."""
        (pick, beside), facts = self._reader.row_pick(header), self._reader.facts
        if len(beside) == 1:
            return lambda row, position, line: SourceRecord(position, facts(pick((*row, ""))), line)
        return lambda row, position, line: SourceRecord(position, facts(pick((*row, *beside))), line)

    def _check_header(self, header: Sequence[str]) -> None:
        places = self._reader.places(header)
        absent = [name for name in missing(places) if name not in self._rules.paths]
        if self._identifies and places[_PARENT] is not None:
            absent = [name for name in absent if name != "reference"]
        if absent:
            raise RecordRejected("missing_column", absence(absent, header, self._rules.columns))

    def unmet(self, header: Sequence[str]) -> str:
        """Which columns the configuration names and a header lacks, in words; empty if it lacks none."""
        if self._adapter is not None:
            return ""
        columns, there = self._rules.columns, frozenset(header)
        lacking = [ours for ours, theirs in columns.items() if theirs and theirs not in there]
        return absence(lacking, header, columns) if lacking else ""

    def raw_key(self, shape: tuple[str, ...]) -> str:
        """The name under which objects of this shape have their raw text."""
        return self._reader.raw_key(shape)

    def _read(
        self,
        record: Mapping[str, object],
        position: str,
        line: int | None,
        raw_text: Callable[[], str | None] | None,
    ) -> SourceRecord | None:
        if self._leaves_out(record):
            return None
        facts = self._facts(record, position, raw_text) if self._adapter is None else judged(self._adapter, record)
        if facts is None:
            return None
        return SourceRecord(position, facts, line, self._headers_of(record), self._revision_of(record))

    def _facts(
        self, record: Mapping[str, object], position: str, raw_text: Callable[[], str | None] | None
    ) -> PaymentFacts:
        fields = list(self._reader.fields(record))
        for index, value_of in self._paths:
            fields[index] = value_of(record)
        if fields[_RAW] is not None and not isinstance(fields[_RAW], str):
            is_own = raw_text is not None and "raw" not in self._rules.paths
            fields[_RAW] = raw_text() if raw_text is not None and is_own else spell(fields[_RAW])
        if self._identifies and self._reader.status(fields[_STATUS]) in DELTAS:
            self._identify(fields, record, position)
        return self._reader.facts(fields)

    def _identify(self, fields: list[object], record: Mapping[str, object], position: str) -> None:
        """Give a delta without a reference of its own one that follows from what it says, or where it stands."""
        reference, parent = fields[_REFERENCE], fields[_PARENT]
        if not _is_absent(parent) and not _is_absent(reference) and reference != parent:
            return
        fields[_PARENT] = reference if _is_absent(parent) else parent
        parts = [_text(value_of(record)) for value_of in self._identity] or [self._source_object, position]
        if not any(parts):
            raise RecordRejected("missing_reference", f"there is nothing under {', '.join(self._rules.identity or ())}")
        told = spell([_text(fields[_PARENT]), _text(fields[_STATUS]), *parts])
        fields[_REFERENCE] = f"~{hashlib.sha256(told.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"

    def _leaves_out(self, record: Mapping[str, object]) -> bool:
        for value_of, equals, prefix in self._left_out:
            text = _text(value_of(record))
            if text in equals or (prefix and text.startswith(prefix)):
                return True
        return False

    def _headers_of(self, record: Mapping[str, object]) -> Mapping[str, str]:
        if not self._headers:
            return NO_HEADERS
        headers = {name: _text(value_of(record)) for name, value_of in self._headers}
        if any(len(text) > MAX_HEADER for text in headers.values()):
            raise RecordRejected("invalid_header", f"a header's value has more than {MAX_HEADER} characters")
        return {name: text for name, text in headers.items() if text}

    def _revision_of(self, record: Mapping[str, object]) -> Revision | None:
        if self._updated_at is None or _is_absent(value := self._updated_at(record)):
            return None
        at = self._reader.instant(value)
        return None if at is None else Revision(at)

    def _raw(self, record: Mapping[str, object]) -> object:
        return self._reader.fields(record)[_RAW]


class BatchBuilder:
    """Gathers what objects become, in their order: records, rejections, and how many were left out."""

    def __init__(self, mapper: RecordMapper) -> None:
        self._mapper = mapper
        self._records: list[SourceRecord] = []
        self._rejections: list[Rejection] = []
        self._filtered = 0

    def __len__(self) -> int:
        """How many records are accounted for."""
        return len(self._records) + len(self._rejections) + self._filtered

    def add(
        self,
        record: Mapping[str, object],
        *,
        position: str,
        raw: bytes | None = None,
        line: int | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        revision: Revision | Callable[[PaymentFacts], Revision | None] | None = None,
    ) -> None:
        """
        Add what an object becomes. `raw` is kept of a rejection; without it the object is spelled anew.

        `headers` are the source's own, beside those of the mapping; `revision` holds where the record has no
        `updated_at`.
        """
        try:
            found = self._mapper.of_object(record, position=position, line=line)
            if found is None:
                self._filtered += 1
                return
            clean_record(found)
        except RecordRejected as exc:
            spelled = raw if raw is not None else spell(record).encode("utf-8", "surrogatepass")
            self._rejections.append(Rejection(position, exc.code, str(exc), spelled, line))
            return
        if headers:
            found = found._replace(headers={**headers, **found.headers})
        if found.revision is None and revision is not None:
            found = found._replace(revision=revision(found.payment) if callable(revision) else revision)
        self._records.append(found)

    def reject(self, rejection: Rejection) -> None:
        """Add what could not even become an object."""
        self._rejections.append(rejection)

    def leave_out(self, count: int = 1) -> None:
        """Count records that a rule of the source's own leaves out."""
        self._filtered += count

    def build(self, cursor: Cursor) -> Batch:
        """The batch, with the cursor that holds once it is durable; the builder is empty then."""
        batch = Batch(self._records, self._rejections, cursor, self._filtered)
        self._records, self._rejections, self._filtered = [], [], 0
        return batch


def by_effective_at(facts: PaymentFacts) -> Revision | None:
    """The revision of a record that says when it happened, and not when it was last changed."""
    return None if facts.effective_at is None else Revision(facts.effective_at)


def with_raw(record: SourceRecord, text: str) -> SourceRecord:
    """
    The same with the whole record as its raw text.

    Raises:
        RecordRejected: `raw_too_large`.
    """
    if len(text) > MAX_RAW:
        raise RecordRejected("raw_too_large", f"the record has {len(text)} characters, at most {MAX_RAW} fit an event")
    return record._replace(payment=record.payment._replace(raw=text))


def _getter(column: str) -> Callable[[Mapping[str, object]], object]:
    if is_path(column):
        return JsonPath.parse(column).of
    return lambda record: record.get(column)


def _is_absent(value: object) -> bool:
    return value is None or value == ""


def _text(value: object) -> str:
    """A value as a header, a filter or a reference has it; absence is the empty text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else spell(value)


def clean_record(record: SourceRecord) -> None:
    """
    Refuse a record with a text that no event may hold.

    Raises:
        RecordRejected: `nul_character`, `invalid_encoding`.
    """
    facts, headers = record.payment, record.headers
    for text in (facts.reference, facts.parent_reference, facts.scheme, facts.raw, *headers, *headers.values()):
        if text:
            clean(text)


_PROBE = datetime(2033, 11, 24, 17, 48, 59, tzinfo=UTC)  # no two parts of it are equal


def _check_pattern(pattern: str) -> None:
    if "%" not in pattern:
        raise ValueError(f"{pattern!r} is neither {RFC_3339}, {', '.join(UNIX_UNITS)} nor a pattern with %Y, %m and %d")
    try:
        read = datetime.strptime(_PROBE.strftime(pattern), pattern)  # noqa: DTZ007 only the date is looked at
    except (ValueError, re.error) as exc:
        raise ValueError(f"{pattern!r} cannot be read: {exc}") from None
    if read.date() != _PROBE.date():
        raise ValueError(f"{pattern!r} does not name the day, the month and the year")


__all__ = [
    "POSITION",
    "BatchBuilder",
    "Column",
    "LeaveOut",
    "ReadRow",
    "RecordConfig",
    "RecordMapper",
    "by_effective_at",
    "clean_record",
    "with_raw",
]
