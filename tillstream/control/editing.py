"""
Edits of the cursors of connectors that rest: their owner takes each over for as long as that takes, and lets go of it.

A connector that runs is stopped and taken over anew, which sees to its edits; see `tillstream/control/fleet.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from uuid import UUID

from schemas.errors import TillError
from tillstream.control.member import GIVE_UP_S, MANAGER, World
from tillstream.control.takeover import release, take_over

logger = logging.getLogger(__name__)

_RETRY_S = 2.0


class Edits:
    """Those under way on this worker. `changed` is called whenever one ends. A bug of ours comes out of `see_to`."""

    def __init__(self, world: World, changed: Callable[[], None]) -> None:
        self._world = world
        self._changed = changed
        self._at: dict[UUID, asyncio.Task[bool]] = {}
        self._not_before_s: dict[UUID, float] = {}

    def is_at(self, connector_id: UUID) -> bool:
        """Whether this connector is taken over for an edit: nobody else here takes it meanwhile."""
        task = self._at.get(connector_id)
        return task is not None and not task.done()

    def see_to(self, connectors: Iterable[UUID]) -> None:
        """Begin with those that are not begun; all are owned and rest. Returns at once."""
        for connector_id, task in list(self._at.items()):
            if task.done():
                del self._at[connector_id]
                if not task.cancelled() and not task.result():
                    self._not_before_s[connector_id] = time.monotonic() + _RETRY_S
        wanted = list(connectors)
        self._not_before_s = {each: at for each, at in self._not_before_s.items() if each in wanted}
        for connector_id in wanted:
            if connector_id not in self._at and time.monotonic() >= self._not_before_s.get(connector_id, 0.0):
                task = asyncio.create_task(self._edit(connector_id), name=f"{connector_id}: edits of cursors")
                task.add_done_callback(lambda _: self._changed())
                self._at[connector_id] = task

    async def release(self) -> None:
        """Give up those of connectors that are not owned any more; whoever owns them begins anew."""
        await self._given_up([task for each, task in self._at.items() if not self._world.state.owns(each)])

    async def end(self) -> None:
        """Give up all."""
        await self._given_up(list(self._at.values()))

    async def _given_up(self, tasks: list[asyncio.Task[bool]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GIVE_UP_S)

    async def _edit(self, connector_id: UUID) -> bool:
        """Whether it is through."""
        world = self._world
        try:
            took = await take_over(world.pool, world.state, connector_id, worker=world.worker, clock=world.ports.clock)
            await release(world.pool, took.claim)
        except TillError as exc:
            facts = {"component": MANAGER, "connector": str(connector_id), "error": exc, "code": exc.code}
            logger.warning("cursors not edited yet", extra={"facts": facts})
            return False
        return True
