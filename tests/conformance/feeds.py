"""
How a sample's input reaches a source of each kind: through the real source, on a real server where it needs one.

A source that comes new adds one function here, and samples of its own below `samples/<kind>/`.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from connectors.testing import START

# the sample's configuration
Configuration = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fed:
    """
    A source that holds the input. `overrides` say where it is; everything else is the sample's own configuration.

    `secrets` are what its references stand for, `moment` is what the clock says.
    """

    overrides: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict)
    moment: datetime = START


# the input's path, the sample's configuration, an empty folder
Feed = Callable[[Path, Configuration, Path], AbstractAsyncContextManager[Fed]]


@asynccontextmanager
async def directory(given: Path, configuration: Configuration, folder: Path) -> AsyncIterator[Fed]:
    """A watched folder with the file in it."""
    shutil.copy(given, folder / given.name)
    yield Fed({"directory": str(folder), "pattern": "*", "rest_s": 0})


FEEDS: Mapping[str, Feed] = {"directory": directory}
