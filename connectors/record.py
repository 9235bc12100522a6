"""
One record's fields → what it says about a payment, under the names of seed 000, strictly.

    reference, type, status, asset, initialAmount | amount, createdAt | effectiveAt | date, scheme, parentReference, raw

in camelCase, snake_case or any other case. Nothing is guessed and nothing rounded: a field that does not follow its
grammar rejects the record with a reason. Texts must be free of U+0000 and lone surrogates, which `clean` refuses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

import orjson

from schemas.errors import RecordRejected
from schemas.money import bounded, exponent, parse_major, parse_minor
from schemas.payment import MAX_RAW, MAX_REFERENCE, MEANINGS, Kind, PaymentPayload, PaymentType, Status

MAX_SCHEME = 64
_MAX_ASSET = 8
_RAW_BYTES = (
    1_000_000  # of an event's 1 MiB: every other field at its longest, all of it escaped, takes less than the rest
)
_SURE_TO_FIT = _RAW_BYTES // 6  # characters: JSON spells one in six bytes at most
_MOST_SHAPES = 1_000  # a hostile file may give every object names of its own
_SHOWN_NAMES = 12  # columns of a header that a message may name
_NEGATIVE = "an amount is a magnitude, and this one is below zero"
_NEGATIVE_HINT = "state the direction by the type (payin, payout), and what is given back by the status (refunded, …)"
_SHOWN = 48  # characters of a bad value that a message may quote


class AmountUnit(StrEnum):
    """What the numbers in amount fields count."""

    MINOR = "minor"  # cents: whole numbers only
    MAJOR = "major"  # dollars: decimals as the asset allows


class RawPolicy(StrEnum):
    """What is kept as the payment's `raw`."""

    FIELD = "field"  # the record's own field `raw`, if it has one
    RECORD = "record"  # the whole record, as text


class UnknownStatus(StrEnum):
    """What becomes of a record whose status we do not know."""

    REJECT = "reject"
    KEEP = "keep"  # as the status `unknown`, which outranks nothing


@dataclass(frozen=True, slots=True)
class NumberText:
    """
    A JSON number with a fraction or an exponent, as the text that spelled it: an amount is judged by its grammar.

    A float would have rounded it before anybody looked; and it is no text, so no other field takes it for one.
    """

    text: str

    def __repr__(self) -> str:
        return self.text


RFC_3339 = "rfc3339"
# counts since 1970
UNIX_UNITS = {"unix_s": timedelta(seconds=1), "unix_ms": timedelta(milliseconds=1)}


def spell(value: object) -> str:
    """`value` as JSON, its `NumberText`s as they were spelled."""
    if isinstance(value, NumberText):
        return value.text
    if isinstance(value, Mapping):
        members = (f"{json.dumps(str(name), ensure_ascii=False)}:{spell(item)}" for name, item in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spell, value)) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)


class PaymentFacts(NamedTuple):
    """What one record says: a validated `PaymentPayload` without the provider, cheap enough for every row of a file."""

    reference: str
    parent_reference: str | None
    type: PaymentType
    status: Status
    amount: int
    asset: str
    scheme: str
    effective_at: datetime | None
    raw: str | None

    @property
    def original_reference(self) -> str:
        """The reference of the payment this record is about."""
        return self.parent_reference or self.reference

    def payload(self, provider: str) -> PaymentPayload:
        """The same as the model of the wire."""
        return PaymentPayload(provider=provider, **self._asdict())


TYPES = {"payin": PaymentType.PAYIN, "payout": PaymentType.PAYOUT}
STATUSES = {
    **{status.value.replace("_", ""): status for status in Status},
    "authorized": Status.AUTHORISED,
    "canceled": Status.CANCELLED,
    "completed": Status.SUCCEEDED,
    "success": Status.SUCCEEDED,
    "successful": Status.SUCCEEDED,
    "failure": Status.FAILED,
    "refund": Status.REFUNDED,
    "partialrefund": Status.PARTIALLY_REFUNDED,
    "refundreversal": Status.REFUND_REVERSED,
    "disputed": Status.DISPUTE,
}
DELTAS = frozenset(status for status, meaning in MEANINGS.items() if meaning.kind is Kind.DELTA)
_SNAPSHOTS = frozenset(status for status, meaning in MEANINGS.items() if meaning.kind is Kind.SNAPSHOT)

FIELDS = (
    "reference",
    "type",
    "status",
    "asset",
    "initial_amount",
    "amount",
    "effective_at",
    "created_at",
    "date",
    "scheme",
    "parent_reference",
    "raw",
)
_REQUIRED = ("reference", "type", "status", "asset")
_RAW = FIELDS.index("raw")
_SPELLED = {name.replace("_", ""): index for index, name in enumerate(FIELDS)}


class LeftOut(NamedTuple):
    """Records whose column has one of these values, or one that begins so, are left out."""

    column: str
    equals: frozenset[str]
    prefix: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordRules:
    """
    How a connector's records are to be understood.

    `columns` renames: our field → the source's own name, or nothing where the source has no such field; `paths` do it
    for fields that stand deeper. `constants` stand for fields that the source does not spell. The maps are from the
    source's words, as `squeezed` spells them.

    What follows `date_format` is about records, not values, and `mapping.RecordMapper`'s: a `RecordReader` ignores it.
    """

    amount_unit: AmountUnit = AmountUnit.MINOR
    raw: RawPolicy = RawPolicy.FIELD
    unknown_status: UnknownStatus = UnknownStatus.REJECT
    timezone: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    status_map: Mapping[str, Status] = field(default_factory=dict)
    type_map: Mapping[str, PaymentType] = field(default_factory=dict)
    date_format: str = RFC_3339
    paths: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[LeftOut] = ()
    updated_at: str = ""
    # columns, or None: the position
    identity: Sequence[str] | None = ()


def resolve(names: Sequence[str], columns: Mapping[str, str]) -> list[int | None]:
    """
    Where each of `FIELDS` stands among `names`; None where it is absent.

    Raises:
        RecordRejected: `duplicate_column` if two names mean the same field.
    """
    taken_over = {FIELDS.index(ours) for ours in columns}
    renamed: dict[str, list[int]] = {}
    for ours, source_name in columns.items():
        if source_name:
            renamed.setdefault(source_name, []).append(FIELDS.index(ours))
    places: list[int | None] = [None] * len(FIELDS)
    for place, name in enumerate(names):
        spelled = _SPELLED.get(squeezed(name))
        for index in renamed.get(name, () if spelled is None or spelled in taken_over else (spelled,)):
            if places[index] is not None:
                raise RecordRejected("duplicate_column", f"{FIELDS[index]} is there twice, as {name[:_SHOWN]!r}")
            places[index] = place
    return places


def missing(places: Sequence[int | None]) -> list[str]:
    """The fields without which no record can become a payment."""
    absent = [name for name in _REQUIRED if places[FIELDS.index(name)] is None]
    if places[FIELDS.index("initial_amount")] is None and places[FIELDS.index("amount")] is None:
        absent.append("amount")
    return absent


def absence(absent: Sequence[str], header: Sequence[str], columns: Mapping[str, str]) -> str:
    """Which columns were looked for and are not there, and which are, within reason."""
    either = columns.get("amount") or columns.get("initial_amount")
    sought = [(ours, either if ours == "amount" else columns.get(ours)) for ours in absent]
    parts = [f"no column {_quoted(theirs)} for {ours}" for ours, theirs in sought if theirs]
    if unnamed := [ours for ours, theirs in sought if not theirs]:
        parts.append(f"no column for {', '.join(unnamed)}")
    there = [_quoted(name) for name in header if name.strip()]
    shown = ", ".join([*there[:_SHOWN_NAMES], *(["…"] if len(there) > _SHOWN_NAMES else [])])
    return f"the header has {' and '.join(parts)}; it has {shown or 'none at all'}"


def _quoted(name: str) -> str:
    return f'"{name[:_SHOWN]}…"' if len(name) > _SHOWN else f'"{name}"'


# takes the values of `FIELDS` out of a record's
Pick = Callable[[Sequence[object]], Sequence[object]]


class RecordReader:
    """Turns rows of texts, or JSON objects, into facts. One per task: it remembers spellings it has seen."""

    def __init__(self, rules: RecordRules) -> None:
        self._rules = rules
        self._zone: tzinfo | None = ZoneInfo(rules.timezone) if rules.timezone else None
        self._types: dict[object, PaymentType] = {}
        self._statuses: dict[object, Status] = {}
        self._assets: dict[object, str] = {}
        self._shapes: dict[tuple[str, ...], Pick] = {}
        self._major = rules.amount_unit is AmountUnit.MAJOR
        self.instant = self._reader_of_instants()
        # values beside the record's own, at places after them
        self._constants = tuple(rules.constants.values())
        self._constant_places = [(FIELDS.index(name), place) for place, name in enumerate(rules.constants, 1)]

    @property
    def keeps_record(self) -> bool:
        """Whether the whole record is wanted as `raw`."""
        return self._rules.raw is RawPolicy.RECORD

    def raw_key(self, shape: tuple[str, ...]) -> str:
        """The name under which objects of this shape have their raw text."""
        place = resolve(shape, self._rules.columns)[_RAW]
        return "raw" if place is None else shape[place]

    def row_reader(self, header: Sequence[str]) -> Callable[[Sequence[str]], PaymentFacts]:
        """
        A function from a row, as long as `header`, to its facts. Empty cells are absent fields.

        Raises:
            RecordRejected: `duplicate_column`, `missing_column`. The function: RecordRejected, with the row's reason.
        """
        pick, beside = self.row_pick(header)
        return lambda row: self.facts(pick((*row, *beside)))

    def row_pick(self, header: Sequence[str]) -> tuple[Pick, tuple[str, ...]]:
        """
        What takes `FIELDS` out of a row that these other values were added to.

        Raises:
            RecordRejected: `duplicate_column`, `missing_column`.
        """
        places = self.places(header)
        absent = missing(places)
        if absent:
            raise RecordRejected("missing_column", absence(absent, header, self._rules.columns))
        blank = len(header)  # an empty cell is added to each row, and absent columns read it
        return itemgetter(*(blank if place is None else place for place in places)), ("", *self._constants)

    def of_object(self, record: Mapping[str, object], raw_text: Callable[[], str | None]) -> PaymentFacts:
        """
        The facts of a JSON object. `null` is absence; `raw_text` gives the exact text of a `raw` that is no string.
        A number with a fraction is an amount only as a `NumberText`: a float is refused.

        Raises:
            RecordRejected: with the record's reason.
        """
        shape = tuple(record)
        pick = self._shapes.get(shape) or self._pick(shape)
        fields = pick((*record.values(), None, *self._constants))
        raw = fields[_RAW]
        if raw is not None and not isinstance(raw, str):
            fields = (*fields[:_RAW], raw_text())
        return self.facts(fields)

    def fields(self, record: Mapping[str, object]) -> Sequence[object]:
        """
        The values of `FIELDS` in an object.

        Raises:
            RecordRejected: `duplicate_column`.
        """
        pick = self._pick(tuple(record))
        return pick((*record.values(), None, *self._constants))

    def _pick(self, shape: tuple[str, ...]) -> Pick:
        """What takes `FIELDS` out of the values of such an object, an absence and the constants."""
        pick = self._shapes.get(shape)
        if pick is None:
            pick = itemgetter(*(len(shape) if place is None else place for place in self.places(shape)))
            if len(self._shapes) < _MOST_SHAPES:
                self._shapes[shape] = pick
        return pick

    def places(self, names: Sequence[str]) -> list[int | None]:
        """
        Where each of `FIELDS` stands among `names` and the constants after them.

        Raises:
            RecordRejected: `duplicate_column`.
        """
        places = resolve(names, self._rules.columns)
        for index, place in self._constant_places:
            places[index] = len(names) + place
        return places

    def facts(self, fields: Sequence[object]) -> PaymentFacts:
        """
        Judge the values of `FIELDS`, in that order; None and the empty text are absence.

        Raises:
            RecordRejected: with the reason.
        """
        reference, type_, status, asset, initial, amount, effective, created, date, scheme, parent, raw = fields
        if type(reference) is not str or not reference or len(reference) > MAX_REFERENCE:
            reference = _reference(reference, "reference")
        try:
            known_type = self._types[type_]
            known_status = self._statuses[status]
            known_asset = self._assets[asset]
        except (KeyError, TypeError):
            known_type, known_status, known_asset = self._type(type_), self._status(status), self._asset(asset)
        if parent is None or parent == "":
            parent = None
        elif type(parent) is not str or len(parent) > MAX_REFERENCE:
            parent = _reference(parent, "parentReference")
        first, second = (initial, amount) if known_status in _SNAPSHOTS else (amount, initial)
        minor = self._amount(second if first is None or first == "" else first, known_asset)
        if minor < 0:
            raise RecordRejected("invalid_amount", _NEGATIVE, hint=_NEGATIVE_HINT)
        if known_status in DELTAS:
            _check_delta(known_status, reference, parent)
        if scheme is None:
            scheme = ""
        elif type(scheme) is not str or len(scheme) > MAX_SCHEME:
            raise RecordRejected("invalid_scheme", f"scheme is not a text of at most {MAX_SCHEME} characters")
        if not raw:
            raw = None
        elif type(raw) is not str or _is_too_large(raw):
            raise RecordRejected(
                "raw_too_large", f"raw has more than {MAX_RAW} characters, or more bytes than fit an event"
            )
        at = next((value for value in (effective, created, date) if value is not None and value != ""), None)
        instant = None if at is None else self.instant(at)
        return PaymentFacts(reference, parent, known_type, known_status, minor, known_asset, scheme, instant, raw)

    def _type(self, value: object) -> PaymentType:
        word = _word(value)
        found = None if word is None else self._rules.type_map.get(word) or TYPES.get(word)
        if found is None:
            raise RecordRejected("unknown_type", f"type {_shown(value)} is neither payin nor payout")
        if type(value) is str:  # only those: True and 1 would be one key
            self._types[value] = found
        return found

    def _status(self, value: object) -> Status:
        word = _word(value)
        found = None if word is None else self._rules.status_map.get(word) or STATUSES.get(word)
        if found is None:
            if word and self._rules.unknown_status is UnknownStatus.KEEP:
                return Status.UNKNOWN
            raise RecordRejected("unknown_status", f"status {_shown(value)} is none we know")
        if type(value) is str:
            self._statuses[value] = found
        return found

    def _asset(self, value: object) -> str:
        if value is None or value == "":
            raise RecordRejected("unknown_asset", "the asset is missing")
        if not isinstance(value, str) or len(value) > _MAX_ASSET:
            raise RecordRejected(
                "unknown_asset", f"asset {_shown(value)} is neither an ISO 4217 code in capitals nor CODE/exponent"
            )
        exponent(value)
        return self._assets.setdefault(value, value)

    def _amount(self, value: object, asset: str) -> int:
        if type(value) is str:
            if self._major:
                return parse_major(value, asset)
            # the common case of `parse_minor`; a leading zero, a sign or a foreign digit takes the strict road
            if value.isdecimal() and value.isascii() and len(value) < 16 and value[0] != "0":
                return int(value)
            if not value:
                raise RecordRejected("invalid_amount", "the amount is missing")
            return parse_minor(value)
        if type(value) is int:
            return parse_major(str(bounded(value)), asset) if self._major else bounded(value)
        if type(value) is NumberText:
            return parse_major(value.text, asset) if self._major else parse_minor(value.text)
        if value is None:
            raise RecordRejected("invalid_amount", "the amount is missing")
        raise RecordRejected(
            "invalid_amount", f"a JSON amount is a number or its text, not a value of type {type(value).__name__}"
        )

    def status(self, value: object) -> Status:
        """
        The status that the source's word means.

        Raises:
            RecordRejected: `unknown_status`.
        """
        return (self._statuses.get(value) if type(value) is str else None) or self._status(value)

    def _reader_of_instants(self) -> Callable[[object], datetime | None]:
        format_ = self._rules.date_format
        if format_ == RFC_3339:
            return self._rfc_3339
        unit = UNIX_UNITS.get(format_)
        if unit is None:
            return lambda value: self._formatted(value, format_)
        return lambda value: _unix(value, unit)

    def _rfc_3339(self, value: object) -> datetime | None:
        if not isinstance(value, str) or not _INSTANT.fullmatch(value):
            raise RecordRejected("invalid_instant", f"{_shown(value)} is not an RFC 3339 date and time")
        if value.startswith("0001-01-01T00:00:00"):
            return None  # Go's zero time: seed 000 spells an absent date so
        try:
            return self._in_utc(datetime.fromisoformat(value.upper()), value)
        except (ValueError, OverflowError):
            raise RecordRejected("invalid_instant", f"{_shown(value)} is no instant of the years 1 to 9999") from None

    def _formatted(self, value: object, format_: str) -> datetime:
        if not isinstance(value, str) or not value.isascii():
            raise RecordRejected("invalid_instant", f"{_shown(value)} is not a date and time as {format_!r}")
        try:
            return self._in_utc(datetime.strptime(value.strip(), format_), value)  # noqa: DTZ007 the zone comes next
        except (ValueError, OverflowError):
            raise RecordRejected("invalid_instant", f"{_shown(value)} is not a date and time as {format_!r}") from None

    def _in_utc(self, at: datetime, value: str) -> datetime:
        if at.tzinfo is None:
            if self._zone is None:
                raise RecordRejected(
                    "missing_timezone", f"{_shown(value)} names no offset; give the connector the option `timezone`"
                )
            at = at.replace(tzinfo=self._zone)
        return at.astimezone(UTC)


def _unix(value: object, unit: timedelta) -> datetime:
    """The instant of a count since 1970, given as a whole number or its text."""
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    if not _UNIX.fullmatch(text):
        raise RecordRejected("invalid_instant", f"{_shown(value)} is not a whole number of {_UNIT_NAMES[unit]}")
    try:
        return _EPOCH + int(text) * unit
    except OverflowError:
        raise RecordRejected("invalid_instant", f"{_shown(value)} is no instant of the years 1 to 9999") from None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX = re.compile(r"-?\d{1,15}", re.ASCII)
_UNIT_NAMES = {timedelta(seconds=1): "seconds", timedelta(milliseconds=1): "milliseconds"}
# RFC 3339 with a space or `t` allowed for `T`; seconds may be missing, a zone too (then the connector's holds).
_INSTANT = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?:[Zz]|[+-]\d{2}:?\d{2})?)?", re.ASCII
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> None:
    """
    Refuse what no event may hold.

    Raises:
        RecordRejected: `nul_character`, `invalid_encoding`.
    """
    if "\x00" in text:
        raise RecordRejected("nul_character", "the record holds U+0000, which PostgreSQL cannot store")
    if _SURROGATE.search(text):
        raise RecordRejected("invalid_encoding", "the record is not valid in its encoding")


def _is_too_large(raw: str) -> bool:
    """Whether an event could not hold `raw`: refused here, where the record's own bytes are at hand for its letter."""
    return len(raw) > MAX_RAW or (len(raw) > _SURE_TO_FIT and len(orjson.dumps(raw)) > _RAW_BYTES)


def _check_delta(status: Status, reference: str, parent: str | None) -> None:
    if parent is None or parent == reference:
        raise RecordRejected("missing_reference", f"a {status} needs a reference of its own beside its payment's")


def _reference(value: object, name: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or value == "":
        raise RecordRejected("missing_reference", f"{name} is missing")
    if not isinstance(value, str) or len(value) > MAX_REFERENCE:
        raise RecordRejected("invalid_reference", f"{name} is not a text of at most {MAX_REFERENCE} characters")
    return value


def _word(value: object) -> str | None:
    """What a status or a type is called, also by a number or a truth value; None where it is neither."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return squeezed(str(value)) if isinstance(value, str | int) else None


def squeezed(text: str) -> str:
    """A word without what spellings differ in: case, blanks, dashes, underscores."""
    return text.strip().lower().replace("_", "").replace("-", "").replace(" ", "")


def _shown(value: object) -> str:
    return (
        "missing"
        if value is None or value == ""
        else repr(value if not isinstance(value, str) else value[:_SHOWN])[: _SHOWN + 16]
    )
