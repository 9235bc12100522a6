"""What cannot be taken back is asked about, where somebody sits at a terminal; a script is not asked."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing. Without a terminal nothing is asked.")]


def confirm(question: str, *, yes: bool) -> None:
    """
    Go on if somebody wants to.

    Raises:
        typer.Abort: somebody does not.
    """
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)
