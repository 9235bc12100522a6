"""The options that `mapping: events_table` stands for: how rows of seed 001's events table are mapped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What the preset stands for; whatever an operator names himself holds instead. Amounts are as the seed has them: 99.99.
PRESET: Mapping[str, Any] = {
    "type": "payin",
    "status_map": {
        "payment.completed": "succeeded",
        "payment.failed": "failed",
        "payment.refunded": "refunded",
    },
    # two refunds of a payment are two rows
    "identity": ("id",),
    "amount_unit": "major",
}
COLUMNS: Mapping[str, str] = {
    "reference": "entity_id",
    "status": "event_type",
    "amount": "$.headers.amount",
    "asset": "$.headers.currency",
    "effective_at": "created_at",
}
_CONSTANTS = ("type", "asset", "scheme")


def with_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """A connector's options with the preset's beneath them."""
    columns = {**COLUMNS, **dict(given.get("columns") or {})}
    preset = {name: value for name, value in PRESET.items() if name not in _CONSTANTS or not columns.get(name)}
    merged = {**preset, **given}
    # one value for all records replaces the preset's column
    taken = {name for name in _CONSTANTS if given.get(name)} & (set(COLUMNS) - set(given.get("columns") or {}))
    merged["columns"] = {name: column for name, column in columns.items() if name not in taken}
    merged["status_map"] = {**PRESET["status_map"], **dict(given.get("status_map") or {})}
    return merged
