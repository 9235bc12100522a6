"""The command line, `till`. Data goes to standard output, everything else to standard error."""

from __future__ import annotations

from tillstream.cli.app import main

__all__ = ["main"]
