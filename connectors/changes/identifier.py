"""
Names of tables, columns, slots and publications: checked against a grammar, and quoted wherever they go into SQL.

A name is exact, as the catalog spells it: nothing is folded to lower case. What does not follow the grammar is refused
before any I/O, so that no configuration can smuggle SQL in.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

MAX_NAME = 63  # NAMEDATALEN - 1: PostgreSQL would cut longer ones without a word
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*", re.ASCII)
_SLOT = re.compile(r"[a-z0-9_]{1,63}", re.ASCII)  # PostgreSQL's own rule: slot.c, ReplicationSlotValidateName


class TableName(NamedTuple):
    """A table and its schema."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str) -> TableName:
        """
        `events` (of the schema public) or `sales.events`.

        Raises:
            ValueError: it is none.
        """
        schema, _, name = text.rpartition(".")
        return cls(_checked(schema or "public"), _checked(name))

    @property
    def sql(self) -> str:
        """Quoted."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def quoted(name: str) -> str:
    """A name as SQL has it. Also right for names that the grammar refuses, such as a catalog's own."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it, for statements that are shown to somebody; what we run has parameters."""
    return "'" + text.replace("'", "''") + "'"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(
            f"{name[:80]!r} is no name: letters, digits, _ and $, not a digit first, at most {MAX_NAME} of them"
        )
    return name


def _is_table(value: str) -> str:
    return str(TableName.parse(value))


def _is_column(value: str) -> str:
    return value and _checked(value)


def _is_slot(value: str) -> str:
    if value and not _SLOT.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is no name of a slot: a-z, 0-9 and _, at most {MAX_NAME} of them")
    return value


Table = Annotated[str, AfterValidator(_is_table)]
"""A configuration field: a table, as `schema.name`."""

Name = Annotated[str, AfterValidator(_is_column)]
"""A configuration field: a column or a publication; empty: none."""

SlotName = Annotated[str, AfterValidator(_is_slot)]
"""A configuration field: a replication slot; empty: none."""
