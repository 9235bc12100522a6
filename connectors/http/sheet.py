"""What becomes of the records of one page, each told apart by the provider's reference and by what it says."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property

from connectors.files.objects import parse_object
from connectors.http.resource import Resource
from connectors.http.seen import DIGEST_CHARS, Seen
from connectors.http.window import Window
from connectors.json_path import JsonPath, is_path
from connectors.mapping import BatchBuilder, RecordConfig, RecordMapper, by_effective_at
from connectors.record import RecordReader
from connectors.source import Batch, Cursor, Rejection
from schemas.errors import RecordRejected

_BATCH = 500  # records of one batch, or the event loop waits for too long; a page may have many more
_MOST_REFERENCE = 200


class Understanding:
    """How one resource's records are understood, for one task. `make` gives what reads them, at the first page."""

    def __init__(self, config: RecordConfig, make: Callable[[], RecordMapper]) -> None:
        self._make = make
        self.instant = RecordReader(config.rules).instant
        self.reference = _getter(config.columns.get("reference") or "reference")

    @cached_property
    def mapper(self) -> RecordMapper:
        """
        What reads the records, page after page.

        Raises:
            SourceMisconfigured: pause; there is no such adapter.
        """
        return self._make()


class Sheet:
    """
    What becomes of one page's records; those that were seen before go no further.

    `listed` tells all of them, in order, by the provider's references, and `names` those of the window: a record that
    only changes in its place is no drift. `is_past_end` says that the last one belongs to a later window.
    """

    def __init__(self, resource: Resource, understanding: Understanding, seen: Seen, span: Window | None) -> None:
        self._builder = BatchBuilder(understanding.mapper)
        self._seen = seen
        self._volatile = resource.volatile
        self._instant = understanding.instant
        self._time = JsonPath.parse(resource.time).of if resource.time else None
        self._reference = understanding.reference
        # where the API knows no end, what is younger waits for its own window
        self._end = span.end if span is not None and not resource.names_end else None
        self.names: list[str] = []
        self.listed: list[str] = []
        self.is_past_end = False
        self.last: Mapping[str, object] | None = None

    @property
    def is_full(self) -> bool:
        """Whether a batch should be made of it first."""
        return len(self._builder) >= _BATCH

    def batch(self, cursor: Cursor) -> Batch:
        """What was gathered since the last batch."""
        return self._builder.build(cursor)

    def add(self, text: str) -> None:
        """The next record's text."""
        try:
            record = parse_object(text)
        except RecordRejected as exc:
            digest = _digest(text)
            self.listed.append(digest)
            self.names.append(digest)
            if self._is_new(digest, None):
                raw = text.encode("utf-8", "surrogateescape")
                self._builder.reject(Rejection(f"~{digest}", exc.code, str(exc), raw))
            return
        self.last = record
        at = self._at(record)
        digest = _digest(self._canonical(record))
        reference = str(self._reference(record) or "")[:_MOST_REFERENCE]
        self.listed.append(reference or digest)
        self.is_past_end = self._end is not None and at is not None and at >= self._end
        if self.is_past_end:
            return
        self.names.append(reference or digest)
        if self._is_new(digest, at):
            position = f"{reference}~{digest}"
            self._builder.add(record, position=position, raw=text.encode(), revision=by_effective_at)

    def _is_new(self, digest: str, at: datetime | None) -> bool:
        if digest in self._seen:
            return False
        self._seen.add(digest, at)
        return True

    def _at(self, record: Mapping[str, object]) -> datetime | None:
        """The time by which the API chooses; a record whose time cannot be read is of no time."""
        if self._time is None:
            return None
        try:
            return self._instant(self._time(record))
        except RecordRejected:
            return None

    def _canonical(self, record: Mapping[str, object]) -> str:
        """The same text for the same content, however it is spaced and in whatever order its members come."""
        if self._volatile:
            record = {name: value for name, value in record.items() if name not in self._volatile}
        return _CANONICAL(record)


def _number(value: object) -> object:
    """A number with a fraction, told apart from the same text in quotes."""
    return {"": str(value)}


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_number).encode


def _digest(text: str) -> str:
    """Short, but of 200 000 records no two share one by chance in this world's time."""
    whole = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(whole)[:DIGEST_CHARS].decode()


def _getter(column: str) -> Callable[[Mapping[str, object]], object]:
    return JsonPath.parse(column).of if is_path(column) else lambda record: record.get(column)
