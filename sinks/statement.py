"""
Named SQL from `queries.sql`: one text per name, with its schema filled in. Values never become text: parameters carry
them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

LIVE_SCHEMA = "public"

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_BLOCK = re.compile(r"\{(\w+)\}")


@cache
def statements(schema: str = LIVE_SCHEMA) -> Mapping[str, str]:
    """
    Every statement by name, for tables in `schema`; a statement's `{other}` is the text of the one named so.

    Raises:
        ValueError: `schema` is not a plain lower-case identifier.
    """
    if not _SCHEMA.fullmatch(schema):
        raise ValueError(f"{schema!r} is not a plain lower-case identifier")
    parts = _NAME.split(resources.files("sinks").joinpath("queries.sql").read_text("utf-8"))
    blocks = {name: text.strip().removesuffix(";") for name, text in zip(parts[1::2], parts[2::2], strict=True)}

    def filled(text: str) -> str:
        return _BLOCK.sub(lambda match: schema if match[1] == "schema" else filled(blocks[match[1]]), text)

    return {name: filled(text) for name, text in blocks.items() if name != "lock_partition"} | {
        "lock_partition": blocks["lock_partition"]
    }
