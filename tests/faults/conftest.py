"""Stages on the session's broker and database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.stage import Stage, open_stage
from tests.services import Kafka


@pytest.fixture
async def stage(kafka: Kafka, database: str) -> AsyncIterator[Stage]:
    """Two partitions, slices of at most 200 events, a session timeout of 3 s."""
    async with open_stage(kafka.bootstrap, database) as made:
        yield made
