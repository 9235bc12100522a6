"""
Named SQL from the `.sql` files beside this one: one text per name, with its schema filled in. Values never become
text: parameters carry them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from schemas.payment import MEANINGS, Kind

LIVE_SCHEMA = "public"
KIND_CODES = {Kind.SNAPSHOT: "s", Kind.DELTA: "d", Kind.ABSOLUTE: "a", Kind.OVERLAY: "o"}

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_BLOCK = re.compile(r"\{(\w+)\}")


@cache
def statements(schema: str = LIVE_SCHEMA) -> Mapping[str, str]:
    """
    Every statement by name, for tables in `schema`; a statement's `{other}` is the text of the one named so.

    Raises:
        ValueError: `schema` is not a plain lower-case identifier.
    """
    if not _SCHEMA.fullmatch(schema):
        raise ValueError(f"{schema!r} is not a plain lower-case identifier")
    files = sorted(file.name for file in resources.files("sinks").iterdir() if file.name.endswith(".sql"))
    texts = [resources.files("sinks").joinpath(name).read_text("utf-8") for name in files]
    parts = [part for text in texts for part in _NAME.split(text)[1:]]  # what stands before the first is the file's own
    blocks = {name: text.strip().removesuffix(";") for name, text in zip(parts[::2], parts[1::2], strict=True)}

    blocks |= {"schema": schema, "live": LIVE_SCHEMA, "meanings": _meanings(), "statuses": _array("text", [*MEANINGS])}

    def filled(text: str) -> str:
        return _BLOCK.sub(lambda match: filled(blocks[match[1]]), text)

    blocks["apply_carefully"] = blocks["apply_records"].replace("{busy}", "{all_busy}")
    # The key of a lock is an integer of ours, filled in for each partition.
    return {name: text if name == "lock_partition" else filled(text) for name, text in blocks.items()}


def _meanings() -> str:
    """rank, sign, kind, moved and status of the status whose place in the table is `meaning`, counted from 1."""
    columns: dict[str, tuple[Sequence[object], ...]] = {
        "smallint": ([meaning.rank for meaning in MEANINGS.values()], [meaning.sign for meaning in MEANINGS.values()]),
        '"char"': ([KIND_CODES[meaning.kind] for meaning in MEANINGS.values()],),
        "boolean": ([meaning.moved for meaning in MEANINGS.values()],),
        "text": ([*MEANINGS],),
    }
    return ", ".join(
        f"({_array(type_, column)})[meaning]" for type_, together in columns.items() for column in together
    )


def _array(type_: str, values: Sequence[object]) -> str:
    return f"'{{{','.join(str(value) for value in values)}}}'::{type_}[]"
