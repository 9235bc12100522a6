"""The control plane's SQL, by name, from the `.sql` files beside this one. Values are parameters, never text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_BLOCK = re.compile(r"\{(\w+)\}")


@cache
def statements() -> Mapping[str, str]:
    """Every statement by name; a statement's `{other}` is the text of the one named so."""
    files = sorted(file.name for file in resources.files("tillstream.control").iterdir() if file.name.endswith(".sql"))
    texts = [resources.files("tillstream.control").joinpath(name).read_text("utf-8") for name in files]
    parts = [part for text in texts for part in _NAME.split(text)[1:]]  # what stands before the first is the file's own
    names = parts[::2]
    if len(set(names)) < len(names):
        raise ValueError(f"two statements have one name: {sorted(name for name in names if names.count(name) > 1)}")
    blocks = {name: text.strip().removesuffix(";") for name, text in zip(names, parts[1::2], strict=True)}

    def whole(text: str) -> str:
        return _BLOCK.sub(lambda match: whole(blocks[match[1]]), text)

    return {name: whole(text) for name, text in blocks.items()}
