"""
The generic events table of seed 001 (`id, entity_id, event_type, headers, created_at`) as a mapping of its own.

`event_type` says what happened to the payment `entity_id`, the JSON object `headers` the rest; it travels on as the
event's headers. Types that are not mapped are filtered, as the seed's handler skips them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from connectors.changes.rows import ColumnType, Dated, RowReader, Values, parsed
from connectors.mapping import RecordConfig, RecordMapper
from connectors.record import spell
from connectors.source import Revision, SourceRecord
from schemas.errors import RecordRejected

_REQUIRED = {"invalid_amount": "amount", "unknown_asset": "currency"}


class EventReader(RowReader):
    """Reads rows of the events table. Its messages are the seed's words."""

    def __init__(
        self, table: str, columns: Sequence[ColumnType], key: Sequence[str], config: RecordConfig, mapper: RecordMapper
    ) -> None:
        """
        Raises:
            SourceMisconfigured: pause; the table lacks a column that the mapping names.
        """
        super().__init__(table, columns, key, config, mapper)
        self._known = frozenset(config.status_map)
        self._type = self.names.index(config.columns["status"])
        self._own = self.names.index("headers") if "headers" in self.names else None

    def read(self, values: Values, position: str, revision: Revision | Dated) -> SourceRecord | None:
        """
        As any row; None for a type that is not mapped.

        Raises:
            RecordRejected: with the row's reason.
        """
        if values[self._type] not in self._known:
            return None
        try:
            return super().read(values, position, revision)
        except RecordRejected as exc:
            raise self._in_the_seeds_words(exc, values) from exc

    def headers(self, mapped: Mapping[str, str], values: Values) -> Mapping[str, str]:
        """The event's headers: the table, the row's own as texts, and those of the mapping."""
        found = None if self._own is None else values[self._own]
        if not isinstance(found, dict):
            return super().headers(mapped, values)
        own = {name: value if type(value) is str else spell(value) for name, value in found.items()}
        return {**self._headers, **own, **mapped}

    def _in_the_seeds_words(self, exc: RecordRejected, values: Values) -> RecordRejected:
        name = _REQUIRED.get(exc.code)
        found = None if self._own is None or values[self._own] is None else parsed(values[self._own])
        if name is None or not isinstance(found, dict):
            return exc
        if found.get(name) in (None, ""):
            return RecordRejected("missing_header", f"missing required header: {name}")
        return RecordRejected(exc.code, f"invalid amount: {found[name]!s:.48}") if name == "amount" else exc
