"""What `--columns` and `--no-headers` ask for, which tables and CSV heed; a column is named by its heading or field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import typer


@dataclass(slots=True)
class Layout:
    """The columns to print, in this order, or none for the usual ones; and whether their names are printed."""

    columns: tuple[str, ...] = ()
    headers: bool = True


LAYOUT = Layout()  # of the command that runs


def positions(known: Sequence[str]) -> list[int]:
    """
    Where the columns that are to be printed stand in `known`; all of them unless some were asked for.

    Raises:
        typer.BadParameter: there is no such column.
    """
    if not LAYOUT.columns:
        return list(range(len(known)))
    places = {_folded(name): place for place, name in reversed(list(enumerate(known)))}
    missing = [name for name in LAYOUT.columns if _folded(name) not in places]
    if missing:
        there_are = ", ".join(dict.fromkeys(name.replace(" ", "_") for name in known if name))
        raise typer.BadParameter(f"{', '.join(missing)}: no such column; there are {there_are}", param_hint="--columns")
    return [places[_folded(name)] for name in LAYOUT.columns]


def _folded(name: str) -> str:
    return name.strip().casefold().replace(" ", "_")
