"""
Lists as the API gives them, a page at a time: JSON Lines and CSV are written as pages come, the rest at the end.

JSON and YAML are one page of the API, with all elements that were asked for, and `next` where there are more.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tillstream.cli.layout import LAYOUT
from tillstream.cli.output import Output, cell, note, print_csv, print_data, print_fields, print_table
from tillstream.cli.problem import ApiForeign

if TYPE_CHECKING:
    from tillstream.cli.client import Client, Parameters

PAGE = 200  # the largest that the API gives
Row: TypeAlias = Mapping[str, Any]  # an object of the API
Cell: TypeAlias = str | Callable[[Row], object]


@dataclass(frozen=True, slots=True)
class Columns:
    """
    How rows of one kind are shown: columns of a table by their headings, each a field or what tells it; and all fields
    of the model in order, which are the columns of CSV.
    """

    table: Mapping[str, Cell]
    fields: tuple[str, ...]

    def known(self) -> dict[str, Cell]:
        """What a table may show: its own columns first, then the other fields."""
        return {**self.table, **{name: name for name in self.fields if name not in self.table and _is_free(name, self)}}


class Listing:
    """Prints rows as they come; `end` prints what has to wait for the last one."""

    def __init__(self, output: Output, columns: Columns, *, empty: str = "") -> None:
        """`empty` is noted instead of a table without rows."""
        self._output = output
        self._columns = columns
        self._empty = empty
        self._rows: list[Row] = []
        self._has_begun = False

    def add(self, rows: Sequence[Row]) -> None:
        """More rows, in order."""
        if self._output is Output.JSONL:
            sys.stdout.write("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
            sys.stdout.flush()
        elif self._output is Output.CSV:
            print_csv(rows, self._columns.fields, header=not self._has_begun)
            sys.stdout.flush()
            self._has_begun = True
        else:
            self._rows += rows

    def end(self, next_: str | None = None, *, more: str = "--after") -> None:
        """There are no more, or those after `next_`, which is noted as a value of the option `more`."""
        if self._output is Output.CSV and not self._has_begun:
            self.add([])
        elif self._output in {Output.JSON, Output.YAML}:
            print_data(self._output, {"data": self._rows, "next": next_})
        elif self._output is Output.TABLE:
            shown = self._columns.known() if LAYOUT.columns else self._columns.table
            cells = [[told(row, cell) for cell in shown.values()] for row in self._rows]
            print_table(list(shown), cells, empty=self._empty)
        if next_ is not None:
            note(f"more: {more} {cell(next_)}")


async def list_rows(
    api: Client, path: str, params: Parameters, listing: Listing, *, limit: int, after: str | None = None
) -> None:
    """
    Print a list of the API, page after page as they come, at most `limit` rows, from the page after `after`.

    Raises:
        As the client's methods.
    """
    left = limit
    while True:
        rows, after = await page_of(api, path, {**params, "limit": min(left, PAGE), "after": after})
        listing.add(rows)
        left -= len(rows)
        if after is None or left <= 0:
            break
    listing.end(after)


async def page_of(api: Client, path: str, params: Parameters) -> tuple[list[dict[str, Any]], str | None]:
    """
    One page, and its `next`.

    Raises:
        ApiForeign: it is none. As the client's methods.
    """
    body = await api.get(path, params)
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ApiForeign(f"what is answered to {path} is no list")
    return rows, body.get("next")


def print_one(output: Output, value: Row, fields: Sequence[str], shown: Sequence[tuple[str, object]]) -> None:
    """One object of the API; for people what is `shown`, a line each."""
    if output is not Output.TABLE:
        print_data(output, value, fields=fields)
        return
    names = {name.replace(" ", "_") for name, _ in shown}
    others = [(name, told(value, name)) for name in fields if name not in names] if LAYOUT.columns else []
    print_fields([*shown, *others])


def told(row: Row, cell: Cell) -> object:
    """What a table shows of a row."""
    if not isinstance(cell, str):
        return cell(row)
    value = row.get(cell)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _is_free(name: str, columns: Columns) -> bool:
    return name not in {heading.replace(" ", "_") for heading in columns.table}
