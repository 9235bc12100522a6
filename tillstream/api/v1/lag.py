"""
How far each consumer group is behind, as the broker tells it.

There is one measurement at a time, for all who ask, over connections that are kept: opening them takes longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter

from schemas.errors import BrokerUnavailable, SinkError
from sinks.offset import next_offsets
from streams.lag import PartitionLag
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.shape import Model, Page
from tillstream.api.world import World, WorldDep

router = APIRouter(prefix="/api/v1/lag", tags=["lag"], responses=PROBLEMS)


class PartitionLagShape(Model):
    """One partition of one group; `lag_s` is the age of the first event that nobody has processed."""

    group: str
    topic: str
    partition: int
    committed: int | None
    stored: int | None
    begin: int
    end: int
    lag_events: int
    lag_s: float


@router.get("")
async def measure_lag(world: WorldDep) -> Page[PartitionLagShape]:
    """Measure the lag now. The sink starts from the lower of `committed` and `stored`."""
    if world.measuring is None or world.measuring.done():
        world.measuring = asyncio.create_task(_measured(world), name="lag")
    found = await asyncio.shield(world.measuring)
    return Page(data=[PartitionLagShape.of(each) for each in found])


async def _measured(world: World) -> list[PartitionLag]:
    was_connected = world.probe.is_connected
    try:
        return await _lags(world)
    except BrokerUnavailable:
        if not was_connected:
            raise
    return await _lags(world)


async def _lags(world: World) -> list[PartitionLag]:
    events = world.topics.events.name

    async def stored() -> Mapping[int, int] | None:
        try:
            return await next_offsets(world.pool, events)
        except SinkError:
            return None

    found: list[PartitionLag] = []
    for group, topic in world.watched.items():
        found += await world.probe.measure(group, topic, stored=stored if topic == events else None)
    return found
