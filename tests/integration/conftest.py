"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration import api_kit
from tests.integration.api_kit import Client


@pytest.fixture
async def api(database: str, tmp_path: Path) -> AsyncIterator[Client]:
    """The HTTP API on a socket, over a database without seed 003's default connector; Kafka is away."""
    async with api_kit.api(tmp_path / "home", database) as client:
        yield client
