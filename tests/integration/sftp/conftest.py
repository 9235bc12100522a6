"""The world of each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.sftp.world import World
from tests.sftp_server import Server, sftp_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    root = tmp_path / "served"
    root.mkdir()
    async with sftp_server(root) as running_server:
        yield running_server


@pytest.fixture
def world(server: Server, tmp_path: Path) -> World:
    return World(server, tmp_path)
