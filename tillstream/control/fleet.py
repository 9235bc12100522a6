"""
The fleet: the connectors that this worker runs, kept equal to what operators want.

Desired state lives in PostgreSQL. Every few seconds, and at once on a signal, it is compared with what runs: a new
connector is claimed and started, one that was paused, deleted or configured anew is stopped at a checkpoint, a run that
was asked for is begun. A lost signal costs seconds. A worker runs the connectors whose partition of the state topic it
owns, and lets go of them before it lets go of the partition.
While PostgreSQL is away, what runs goes on. Nothing here waits for a source: a member ends within its bound or is left
behind, beside the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from uuid import UUID

from connectors.runner import State, Status
from schemas import metric
from schemas.errors import TillError
from tillstream.control.claim import Claim, renew
from tillstream.control.desired import Blocked, Desired, Picture, Signal, desired
from tillstream.control.editing import Edits
from tillstream.control.lookout import Lookout
from tillstream.control.member import GIVE_UP_S, MANAGER, STOP_S, Member, World
from tillstream.control.report import Reporter
from tillstream.control.takeover import StateStore

__all__ = ["Fleet", "StateStore", "World"]

logger = logging.getLogger(__name__)

_RETRY_S = 5.0  # after a connector could not be started
_FENCED_S = 15.0  # after a newer epoch was met; longer than a worker takes to find out that it is out of its group
_ENDED_S = STOP_S + GIVE_UP_S + 0.5
_MANY_LEFT = 64  # awaits and threads that sources left behind, from which on the worker asks to be restarted


class Fleet:
    """Runs the connectors. `run` returns after `stop`; a bug of ours in a runner comes out of it."""

    def __init__(self, world: World, *, refresh_s: float, heartbeat_s: float) -> None:
        self._world = world
        self._refresh_s = refresh_s
        self._heartbeat_s = heartbeat_s
        self._picture = Picture()
        self._members: dict[UUID, Member] = {}
        self._left: list[Member] = []
        self._lookout = Lookout(world)
        self._edits = Edits(world, changed=self._wake_up)
        self._counted: set[str] = set()  # connectors whose leftovers are stated
        self._not_before: dict[UUID, tuple[int, float]] = {}  # version, and when it may be tried again
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()

    # What the outside asks.

    def stop(self) -> None:
        """Stop every connector at a checkpoint; `run` returns then."""
        self._stop.set()
        self._wake.set()

    def assigned(self) -> None:
        """The group has agreed on who owns what: compare at once, and forget what was refused before."""
        self._not_before.clear()
        self._wake.set()

    def _wake_up(self) -> None:
        self._wake.set()

    async def release(self) -> None:
        """
        Let go of every connector that this worker does not own any more; return once they are let go, within a bound.

        For a revocation: until this returns nobody else is given what they wrote.
        """
        editing = asyncio.ensure_future(self._edits.release())
        leaving = [each for each in self._members.values() if not self._world.state.owns(each.desired.id)]
        for member in leaving:
            member.end()
        await asyncio.gather(*(member.ended() for member in leaving))
        await editing

    @property
    def statuses(self) -> Mapping[str, Status]:
        """How the connectors fare, by name."""
        return {each.desired.name: each.status for each in self._members.values() if each.status is not None}

    @property
    def complaint(self) -> str | None:
        """Why this worker should be restarted, if sources left too much behind in it."""
        left = {each.desired.name for each in self._left if each.left_behind}
        count = sum(each.left_behind for each in [*self._left, *self._members.values()])
        if count < _MANY_LEFT:
            return None
        return f"{count} calls of sources do not end ({', '.join(sorted(left))}): restart this worker to be rid of them"

    def running_as(self, name: str) -> Claim | None:
        """The claim under which the connector of this name runs here. For any thread."""
        return next((each.claim for each in list(self._members.values()) if each.desired.name == name), None)

    # The loop.

    async def run(self) -> None:
        """Compare, start, stop, report, until `stop`."""
        logger.info("Restoring state", extra=_facts())
        is_told = False
        beside = [
            asyncio.create_task(Signal(self._wake).listen(self._world.pool), name="desired: signals"),
            asyncio.create_task(self._beat_for_ever(), name="heartbeat of claims"),
        ]
        try:
            while not self._stop.is_set():
                self._wake.clear()
                try:
                    self._picture = await desired(self._world.pool)
                except TillError as exc:
                    logger.warning("desired connectors unknown", extra=_facts(error=exc, code=exc.code))
                else:
                    if not is_told:
                        self._tell_absent()
                    is_told = True
                self._compare()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._refresh_s)
        finally:
            for each in beside:
                each.cancel()
            await self._end()

    def _tell_absent(self) -> None:
        """In seed 000's words: the kinds of source that are here, and of which no connector is installed."""
        installed = {each.kind for each in (*self._picture.connectors, *self._picture.paused)}
        for kind in sorted(self._world.specs.keys() - installed):
            logger.info("Restoring state", extra=_facts(kind))
            logger.info("Not installed, skip", extra=_facts(kind))

    def _compare(self) -> None:
        """Bring what runs one step nearer to what is wanted. Waits for nothing."""
        owned = {each.id: each for each in self._picture.connectors if self._world.state.owns(each.id)}
        for connector_id, member in list(self._members.items()):
            if member.is_over and not member.is_ending:
                self._over(member)
            is_late = member.claim is not None and not self._picture.edits_of(connector_id) <= member.edits
            if owned.get(connector_id) != member.desired or is_late:
                member.end()  # edits are seen to before anything is read
            if member.is_gone:
                del self._members[connector_id]
                self._left.append(member)
                self._wake.set()  # its successor need not wait
        for connector_id, wanted in owned.items():
            running = self._members.get(connector_id)
            if running is not None:
                running.serve(self._picture.of(connector_id), self._picture.cancelled_of(connector_id))
            elif not self._stop.is_set() and not self._edits.is_at(connector_id) and self._may_start(wanted):
                self._members[connector_id] = Member(
                    self._world, wanted, self._picture.of(connector_id), changed=self._wake.set
                )
        owns = self._world.state.owns
        paused = [each for each in self._picture.paused if owns(each.id) and each.id not in self._members]
        if not self._stop.is_set():
            self._edits.see_to(each.id for each in paused if self._picture.edits_of(each.id))
        paused += [each.desired for each in self._members.values() if each.is_over and not each.is_ending]
        self._lookout.watch(paused)
        self._measure()
        self._left = [each for each in self._left if each.left_behind]

    def _may_start(self, wanted: Desired) -> bool:
        version, again_at_s = self._not_before.get(wanted.id, (0, 0.0))
        if version == wanted.version and time.monotonic() < again_at_s:
            return False
        blocked = (self._picture.blocked or {}).get(wanted.id)
        if blocked is not None:
            self._not_before[wanted.id] = (wanted.version, time.monotonic() + _RETRY_S)
            task = asyncio.create_task(self._report_blocked(wanted, blocked), name=f"{wanted.name}: report")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return False
        self._not_before.pop(wanted.id, None)
        return True

    def _over(self, member: Member) -> None:
        """It ended by itself: on a bug of ours, refused, fenced, or paused until it is configured anew."""
        bug = member.bug()
        if bug is not None:
            raise bug
        wanted = member.desired
        if member.fenced or member.refusal is not None:
            pause_s = _FENCED_S if member.fenced else _RETRY_S
            self._not_before[wanted.id] = (wanted.version, time.monotonic() + pause_s)
            member.end()

    def _measure(self) -> None:
        meter = self._world.ports.meter
        left: dict[str, int] = {}
        for member in [*self._left, *self._members.values()]:
            left[member.desired.name] = left.get(member.desired.name, 0) + member.left_behind
        for name in self._counted.difference(left):
            meter.forget(metric.SOURCE_LEFTOVERS, connector=name)
        self._counted = set(left)
        for name, count in left.items():
            meter.set(metric.SOURCE_LEFTOVERS, count, connector=name)
        for member in self._members.values():
            status = member.status
            if status is not None and member.desired.polls:
                now = self._world.ports.clock.now()
                age_s = (now - status.listed_at).total_seconds() if status.listed_at else None
                age_s = time.monotonic() - member.since_s if age_s is None else age_s
                member.lease.set(metric.SCAN_AGE_SECONDS, max(0.0, age_s), connector=member.desired.name)

    # What it tells.

    async def _beat_for_ever(self) -> None:
        while True:
            try:
                await self._beat()
            except TillError as exc:
                logger.warning("heartbeat not told", extra=_facts(error=exc, code=exc.code))
            await asyncio.sleep(self._heartbeat_s)

    async def _beat(self) -> None:
        """Renew the claims, let go of those that somebody took, report."""
        members = [each for each in self._members.values() if each.claim is not None and not each.is_ending]
        outdated = await renew(self._world.pool, [each.claim for each in members if each.claim is not None])
        for member in members:
            if member.claim in outdated:
                logger.warning("claim lost", extra=_facts(member.desired.provider))
                self._not_before[member.desired.id] = (member.desired.version, time.monotonic() + _FENCED_S)
                member.end(fenced=True)
        for member in members:
            if not member.is_ending:
                await member.report(self._note(member))

    def _note(self, member: Member) -> str:
        """What the worker adds to a connector's report."""
        before = sum(each.left_behind for each in self._left if each.desired.id == member.desired.id)
        if not before:
            return ""
        return f"{before} calls of its source do not end, and hold memory until worker {self._world.worker} ends"

    async def _report_blocked(self, wanted: Desired, blocked: Blocked) -> None:
        problem = (
            f"its source blocked the event loop of a worker at {blocked.at:%H:%M:%S} UTC, and the worker had to end; "
            f"it runs again at {blocked.until:%H:%M:%S}, or once it is configured anew"
        )
        hint = "the source does in one go what takes long: let it await, or call in a thread"
        status = Status(State.DEGRADED, (problem,), hint, None, 0, 0, {})
        with contextlib.suppress(TillError):
            await Reporter(wanted.id, self._world.worker).tell(self._world.pool, status, ())

    # The end.

    async def _end(self) -> None:
        looking = asyncio.ensure_future(self._lookout.end())
        editing = asyncio.ensure_future(self._edits.end())
        for member in self._members.values():
            member.end()
        ends = [asyncio.ensure_future(member.ended()) for member in self._members.values()]
        await asyncio.wait([looking, editing, *ends], timeout=_ENDED_S)


def _facts(provider: str = "", **facts: object) -> dict[str, dict[str, object]]:
    named: dict[str, object] = {"component": MANAGER, **facts}
    if provider:
        named["provider"] = provider
    return {"facts": named}
