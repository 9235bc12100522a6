"""`till payment`."""

from __future__ import annotations

import typer

group = typer.Typer(help="…", no_args_is_help=True)
