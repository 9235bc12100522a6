"""What requests are answered from: the database, the broker's log, the sources. Built by `tillstream/wiring.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from connectors.adapter import Adapters
from connectors.spec import SourceSpec
from schemas.errors import SinkUnavailable
from schemas.topic import Topics
from sinks.pool import Pool
from streams.lag import LagProbe, PartitionLag
from streams.publisher import Producer
from tillstream.config import Settings
from tillstream.control.idempotency import Keys
from tillstream.control.ledger import Proof, Unlisted
from tillstream.control.secret import SecretStore
from tillstream.health import Health
from tillstream.metrics import PrometheusMeter
from tillstream.secret import WorkerSecrets

_JOBS_S = 2.0
MOST_TRIALS = 4  # sources that are tried at a time: each may take a minute


@dataclass(slots=True)
class World:
    """
    What every route may use. The pool is there once PostgreSQL answers; everything else needs no server to exist.

    `probe` measures the lag; `watched` names the topic of each consumer group; `store` takes secrets that are given by
    value; `stopping` is set when the process has to end.

    `jobs` go on after their answer; `streams` are listeners: each hears something every `heartbeat_s`, and is let go
    of once it has taken nothing for `patience_s`.
    """

    settings: Settings
    topics: Topics
    producer: Producer
    specs: Mapping[str, SourceSpec]
    secrets: WorkerSecrets
    adapters: Adapters
    unlisted: Unlisted
    probe: LagProbe
    watched: Mapping[str, str]
    redact: Callable[[str], str]
    store: SecretStore
    meter: PrometheusMeter = field(default_factory=PrometheusMeter)
    health: Health = field(default_factory=Health)
    opened: Pool | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    verifying: asyncio.Task[Proof] | None = None
    measuring: asyncio.Task[list[PartitionLag]] | None = None
    jobs: set[asyncio.Task[None]] = field(default_factory=set)
    streams: set[object] = field(default_factory=set)
    heartbeat_s: float = 15.0
    patience_s: float = 30.0
    keys: Keys = field(default_factory=Keys)
    trials: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_TRIALS))

    async def stop(self) -> None:
        """Tell streams to end, and end what goes on after its answer."""
        self.stopping.set()
        jobs: set[asyncio.Task[Any]] = {*self.jobs}  # whatever they return
        jobs |= {each for each in (self.verifying, self.measuring) if each is not None}
        for job in jobs:
            job.cancel()
        if jobs:
            await asyncio.wait(jobs, timeout=_JOBS_S)
        await self.probe.close()

    @property
    def pool(self) -> Pool:
        """
        The pool of connections.

        Raises:
            SinkUnavailable: PostgreSQL has not answered yet, or is not migrated.
        """
        if self.opened is None:
            why = self.health.reasons().get("postgres", "PostgreSQL has not answered yet")
            raise SinkUnavailable(why, hint="try again: the API connects by itself; `till doctor` tells what is wrong")
        return self.opened


async def _world(request: Request) -> World:
    world: Any = request.app.state.world  # Starlette's state holds anything
    assert isinstance(world, World), "an application without a world only tells its document"  # noqa: S101
    return world


WorldDep = Annotated[World, Depends(_world)]
