"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from tillstream.cli.output import DocumentOutput, Output

OutputOption = Annotated[
    Output,
    typer.Option("--output", "-o", help="table: for people; json, jsonl (an object a line), yaml, csv: for programs."),
]
DocumentOption = Annotated[DocumentOutput, typer.Option("--output", "-o", help="As json or yaml.")]
AfterOption = Annotated[str | None, typer.Option("--after", help="Go on after a page: its `next`.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Rows at most.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Tell what would happen, and change nothing.")]
ColumnsOption = Annotated[
    str | None, typer.Option("--columns", metavar="A,B", help="Only these columns of a table or CSV, in this order.")
]
NoHeadersOption = Annotated[bool, typer.Option("--no-headers", help="A table or CSV without its column names.")]
