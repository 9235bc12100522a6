"""
What commands print: tables for people, JSON and YAML for programs, on standard output; notes and errors on standard
error.

Nothing that comes from data reaches a terminal unescaped: a file's name cannot move the cursor.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from uuid import UUID

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.errors import TillError
from tillstream.escape import escaped
from tillstream.redaction import process_redactor

_PIPE_WIDTH = 10_000  # a table in a pipe is never folded
_YAML_WIDTH = 120


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def print_data(output: Output, value: object) -> None:
    """`value` as JSON or YAML: dataclasses as objects, instants in RFC 3339 with `Z`, ids as strings."""
    told = json.dumps(plain(value), indent=2, ensure_ascii=False, default=str) + "\n"
    if output is Output.YAML:
        import yaml  # noqa: PLC0415  imports wait until they are needed: `till --help` stays fast

        told = yaml.safe_dump(json.loads(told), sort_keys=False, allow_unicode=True, width=_YAML_WIDTH)
    sys.stdout.write(told)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "") -> None:
    """A table, folded to the terminal; `empty` is noted where there are no rows."""
    if not rows and empty:
        note(empty)
        return
    to_terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD if to_terminal else None, pad_edge=False, header_style="bold", show_edge=False)
    for index, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float | Decimal) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=not to_terminal)
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    console = Console(width=None if to_terminal else _PIPE_WIDTH)
    # Rich ends the process where nobody reads on; a demonstration must stop in order
    with console.capture() as printed:
        console.print(table)
    sys.stdout.write(printed.get())


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Name and value, a line each."""
    width = max((len(name) for name, _ in fields), default=0)
    for name, value in fields:
        sys.stdout.write(f"{name.ljust(width)}  {cell(value)}\n")


def print_lines(lines: Sequence[str]) -> None:
    """Lines that are data, such as what changed."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def note(text: str) -> None:
    """Something for a person, on standard error."""
    sys.stderr.write(f"{process_redactor().redact(text)}\n")


def print_error(error: TillError) -> None:
    """Code, message and hint on standard error; no traceback."""
    message = "\n".join(escaped(line) for line in str(error).splitlines())
    note(f"error [{error.code}]: {message}")
    if error.hint:
        note(f"  hint: {error.hint}")


def cell(value: object) -> str:
    """A value for people, on one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return instant(value, timespec="seconds")
    return escaped(str(value.value if isinstance(value, Enum) else value)).replace('\\"', '"')


def instant(at: datetime, *, timespec: str = "auto") -> str:
    """RFC 3339 in UTC with `Z`."""
    return at.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def plain(value: object) -> object:
    """`value` in what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str) and not isinstance(value, Enum):
        return value
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return _scalar(value)


def _scalar(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else str(value)
    if isinstance(value, UUID | Path):
        return str(value)
    return value
