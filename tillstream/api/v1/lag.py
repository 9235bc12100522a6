"""How far each consumer group is behind, as the broker tells it."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from schemas.errors import SinkError
from sinks.offset import next_offsets
from streams.lag import LagProbe
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.shape import Model, Page
from tillstream.api.world import WorldDep

router = APIRouter(prefix="/api/v1/lag", tags=["lag"], responses=PROBLEMS)
_ANSWER_S = 10.0


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
    events = world.topics.events.name

    async def stored() -> Mapping[int, int] | None:
        try:
            return await next_offsets(world.pool, events)
        except SinkError:
            return None

    found: list[PartitionLagShape] = []
    async with LagProbe(world.settings.kafka.bootstrap, deadline_s=_ANSWER_S) as probe:
        for group, topic in world.watched.items():
            measured = await probe.measure(group, topic, stored=stored if topic == events else None)
            found += [PartitionLagShape.of(each) for each in measured]
    return Page(data=found)
