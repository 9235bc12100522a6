"""The options of every source of files, beside those of their records."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath

from pydantic import Field

from connectors.files.text import Encoding
from connectors.mapping import RecordConfig


class Format(StrEnum):
    """How a file's bytes become records. `auto` asks the name's suffix."""

    AUTO = "auto"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"


_SUFFIXES = {".csv": Format.CSV, ".json": Format.JSON, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL}


class FilesConfig(RecordConfig):
    """How files are read, wherever they lie."""

    pattern: str = Field("*", min_length=1, description="Glob of the names to read.")
    format: Format = Field(Format.AUTO, description="Format of the files; `auto` goes by the name's suffix.")
    encoding: Encoding = Field(Encoding.UTF_8, description="Encoding of files without a byte order mark.")
    delimiter: str = Field(
        "", max_length=1, description="CSV delimiter; empty: the one that the header is written with."
    )
    rest_s: float = Field(
        5.0, ge=0, le=86_400, description="Seconds that a file must rest unchanged before it is read."
    )

    def format_of(self, name: str) -> Format | None:
        """The format of a file of this name; None where it has none that we know."""
        if self.format is not Format.AUTO:
            return self.format
        return _SUFFIXES.get(PurePath(name).suffix.lower())
