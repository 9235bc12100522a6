"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from tillstream.cli.output import Output

OutputOption = Annotated[Output, typer.Option("--output", "-o", help="table: for people; json, yaml: for programs.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Rows at most.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Tell what would happen, and change nothing.")]
