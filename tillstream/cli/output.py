"""
What commands print: tables for people, JSON, JSON Lines, YAML and CSV for programs, on standard output; notes and
errors on standard error.

Nothing that comes from data reaches a terminal unescaped: a file's name cannot move the cursor.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Literal
from uuid import UUID

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.errors import TillError
from tillstream.cli import delimited
from tillstream.cli.layout import LAYOUT, positions
from tillstream.escape import escaped
from tillstream.redaction import process_redactor

_PIPE_WIDTH = 10_000  # a table in a pipe is never folded
_YAML_WIDTH = 120


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    CSV = "csv"


class DocumentOutput(StrEnum):
    """How a document is printed, which has no rows."""

    JSON = "json"
    YAML = "yaml"


MEANINGS: dict[Output, str] = {
    Output.TABLE: "for people: amounts in major units, ids shortened; folded on a terminal, never in a pipe",
    Output.JSON: 'the API\'s answer as it is; a list is `{"data": [...], "next": ...}`',
    Output.JSONL: "an object a line, written as the pages come",
    Output.YAML: "the same as JSON",
    Output.CSV: "RFC 4180, with a header; the columns are the fields of the API's model, nested values are JSON",
}


def print_data(
    output: Output, value: object, *, rows: Iterable[object] | None = None, fields: Sequence[str] = ()
) -> None:
    """
    `value` for programs: dataclasses as objects, instants in RFC 3339 with `Z`, ids as strings.

    JSON Lines and CSV print `rows`, or else the elements of a value that is a list or a page, or else itself; CSV has
    these `fields`, or else those that the rows have.
    """
    match output:
        case Output.JSONL:
            print_lines([json.dumps(row, ensure_ascii=False, default=str) for row in _rows(value, rows)])
        case Output.CSV:
            found = _rows(value, rows)
            names = fields or list(dict.fromkeys(name for row in found for name in row))
            print_csv(found, names)
        case Output.YAML:
            import yaml  # noqa: PLC0415  imports wait until they are needed: `till --help` stays fast

            told = json.loads(json.dumps(plain(value), default=str))
            sys.stdout.write(yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=_YAML_WIDTH))
        case _:
            sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False, default=str) + "\n")


def print_csv(rows: Iterable[Mapping[str, object]], fields: Sequence[str], *, header: bool = True) -> None:
    """These fields of the rows, or those that `--columns` names; the header unless there is one already."""
    names = [fields[place] for place in positions(fields)]
    head = [names] if header and LAYOUT.headers and names else []
    told = [[row.get(name) for name in names] for row in rows]
    sys.stdout.write(delimited.lines([*head, *told], to_terminal=sys.stdout.isatty()))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "") -> None:
    """A table, folded to the terminal; `empty` is noted where there are no rows."""
    places = positions(columns)
    if not rows and empty:
        note(empty)
        return
    to_terminal = sys.stdout.isatty()
    table = Table(
        box=box.SIMPLE_HEAD if to_terminal and LAYOUT.headers else None,
        pad_edge=False,
        header_style="bold",
        show_edge=False,
        show_header=LAYOUT.headers,
    )
    for index in places:
        numeric = bool(rows) and all(isinstance(row[index], int | float | Decimal) for row in rows)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(columns[index], justify=justify, overflow="fold", no_wrap=not to_terminal)
    for row in rows:
        table.add_row(*(Text(cell(row[index])) for index in places))
    console = Console(width=None if to_terminal else _PIPE_WIDTH)
    # Rich ends the process where nobody reads on; a demonstration must stop in order
    with console.capture() as printed:
        console.print(table)
    sys.stdout.write(printed.get())


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Name and value, a line each; without headers the value alone."""
    shown = [fields[place] for place in positions([name for name, _ in fields])]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        sys.stdout.write(f"{name.ljust(width)}  {cell(value)}\n" if LAYOUT.headers else f"{cell(value)}\n")


def print_lines(lines: Sequence[str]) -> None:
    """Lines that are data, such as what changed."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def note(text: str) -> None:
    """Something for a person, on standard error."""
    sys.stderr.write(f"{process_redactor().redact(text)}\n")


def print_error(error: TillError) -> None:
    """Code, message and hint on standard error; no traceback."""
    message = "\n".join(escaped(line) for line in str(error).splitlines())
    note(f"error [{escaped(error.code)}]: {message}")
    if error.hint:
        note(f"  hint: {_unobeyed(error.hint)}")


def _unobeyed(text: str) -> str:
    """`text` on one line, its quotes as they are."""
    return "".join(char if char.isprintable() else escaped(char) for char in text)


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


def _rows(value: object, rows: Iterable[object] | None) -> list[dict[str, object]]:
    """One object each; of a page of the API its elements."""
    found = plain(list(rows)) if rows is not None else plain(value)
    if isinstance(found, dict) and set(found) == {"data", "next"}:
        found = found["data"]
    elements = found if isinstance(found, list) else [found]
    return [each if isinstance(each, dict) else {"value": each} for each in elements]


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
