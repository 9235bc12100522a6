"""
Connectors that nobody reads, and at whose source something is kept for us meanwhile: a replication slot holds back its
database's log, whether its connector is paused or not, until the disk there is full.

The worker that owns the connector looks now and then how much it is. Where it cannot see, it says that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from uuid import UUID

from connectors.context import SourceContext
from connectors.source import HoldingSource, Source
from connectors.wait import Leftovers, bounded
from schemas import metric
from schemas.errors import ConfigError, SourceBroken, TillError
from tillstream.control.connector import checked
from tillstream.control.desired import Desired
from tillstream.control.lease import MeterLease
from tillstream.control.member import MANAGER, World

logger = logging.getLogger(__name__)

EVERY_S = 15.0  # a login each time; the alert waits for minutes
_LOOK_S = 30.0
_CLOSE_S = 5.0


class Lookout:
    """Looks at the connectors that it is told to, until it is told others."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._looks: dict[UUID, _Look] = {}

    def watch(self, wanted: Collection[Desired]) -> None:
        """Look at these from now on, and at no others. Returns at once."""
        held = {each.id: each for each in wanted if self._holds(each)}
        for connector_id, look in list(self._looks.items()):
            if held.get(connector_id) != look.wanted:
                look.end()
                del self._looks[connector_id]
        for connector_id, each in held.items():
            if connector_id not in self._looks:
                self._looks[connector_id] = _Look(self._world, each)

    async def end(self) -> None:
        """Look at none, and return once nothing is under way."""
        looks = list(self._looks.values())
        self.watch(())
        await asyncio.gather(*(look.ended() for look in looks))

    def _holds(self, wanted: Desired) -> bool:
        spec = self._world.specs.get(wanted.kind)
        return spec is not None and spec.holds_back


class _Look:
    def __init__(self, world: World, wanted: Desired) -> None:
        self.wanted = wanted
        self._world = world
        self._lease = MeterLease(world.ports.meter)
        self._left = Leftovers()
        self._task = asyncio.create_task(self._look_for_ever(), name=f"{wanted.name}: look")

    def end(self) -> None:
        """No more, and forget what was seen."""
        self._task.cancel()
        self._lease.end()

    async def ended(self) -> None:
        """Wait for its end."""
        await asyncio.wait({self._task})

    async def _look_for_ever(self) -> None:
        problem = ""
        while True:
            before, problem = problem, await self._look()
            self._lease.set(metric.HELD_BACK_UNSEEN, bool(problem), connector=self.wanted.name)
            if problem:
                # an old number would be taken for the present
                self._lease.forget(metric.HELD_BACK_BYTES, connector=self.wanted.name)
            if problem and problem != before:
                facts = {"component": MANAGER, "provider": self.wanted.provider, "error": problem}
                logger.warning("cannot see what is held back", extra={"facts": facts})
            await asyncio.sleep(EVERY_S)

    async def _look(self) -> str:
        """One look; why nothing was seen."""
        source: Source | None = None
        try:
            source = self._source()
            if isinstance(source, HoldingSource):
                async with asyncio.timeout(_LOOK_S):
                    await source.look()
        except TimeoutError:
            return f"no answer within {_LOOK_S:g} s"
        except TillError as exc:
            return self._world.ports.redact(str(exc))
        except Exception as exc:  # a stranger's code may fail in any way
            return f"{SourceBroken.code}: {type(exc).__name__}"
        finally:
            if source is not None:
                await bounded(source.close, _CLOSE_S, self._left, what="closing the source")
        return ""

    def _source(self) -> Source:
        """
        Raises:
            ConfigError: its configuration is not one that this version runs.
        """
        world, wanted = self._world, self.wanted
        spec = world.specs.get(wanted.kind)
        if spec is None:
            raise ConfigError(f"no source of kind {wanted.kind!r} here")
        config = checked(spec, wanted.configuration, name=wanted.name, provider=wanted.provider)
        context = SourceContext(
            connector_id=wanted.id,
            connector=wanted.name,
            clock=world.ports.clock,
            secrets=world.ports.secrets,
            meter=self._lease,
            staging=world.ports.staging / str(wanted.id),
            adapters=world.ports.adapters,
            production=world.production,
        )
        return spec.factory(config, context)
