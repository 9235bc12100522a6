"""
One stack: starts its parts in order, restarts what dies, stops in reverse order, leaves nothing running.

Kafka and PostgreSQL start side by side, the workers after both are ready.
Nothing of a stack outlives its supervisor: the kernel ends the children of a killed one, and where a system cannot do
that, the next start or `down` ends them. One supervisor for each home, told by a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from schemas.errors import StackError
from tillstream.embedded.home import Home
from tillstream.embedded.kafka import EmbeddedKafka, KafkaOptions
from tillstream.embedded.postgres import EmbeddedPostgres
from tillstream.embedded.process import end_leftover, holds
from tillstream.embedded.service import Service
from tillstream.embedded.state import (
    Child,
    ChildState,
    Endpoints,
    StackState,
    now,
    read_state,
    remove_state,
    stack_lock,
    write_state,
)
from tillstream.embedded.worker import WorkerCommand, WorkerService

logger = logging.getLogger(__name__)

WATCH_S = 0.1
FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 30.0
# Who has lived this long and dies had another reason than the last time, and starts again at once.
SETTLED_S = 60.0
# A stack stops within 15 s: workers have 9 s, Kafka and PostgreSQL 5 s.
BACKEND_GRACE_S = 5.0
DOWN_S = 20.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Observer = Callable[[StackState], None]


@dataclass(frozen=True, slots=True)
class StackOptions:
    """
    What a stack consists of.

    `kafka` (host:port) and `postgres_dsn` name servers of one's own, which are then neither started nor stopped.
    `services` are parts that start and stop with the workers.
    `before_workers` runs once when both answer: topics, migrations. `environment` is where TILL_JAVA, TILL_CACHE,
    TILL_MAVEN_REPOSITORY and TILL_POSTGRES_BIN are read; by default the process's.
    """

    home: Home
    workers: tuple[WorkerCommand, ...] = ()
    services: tuple[Service, ...] = ()
    kafka: str | None = None
    postgres_dsn: str | None = None
    kafka_options: KafkaOptions = field(default_factory=KafkaOptions)
    before_workers: Callable[[Endpoints], Awaitable[None]] | None = None
    environment: Mapping[str, str] | None = None


class Supervisor:
    """Runs one stack. `start`, then `stop`; or use `running`."""

    def __init__(self, options: StackOptions, *, observer: Observer | None = None) -> None:
        """`observer` is told the state after every change."""
        home = options.home
        self._options = options
        self._observer = observer
        self._lock = stack_lock(home)
        self._kafka = _kafka(options) if options.kafka is None else None
        self._postgres = _postgres(options) if options.postgres_dsn is None else None
        self._backends: list[Service] = [each for each in (self._kafka, self._postgres) if each is not None]
        for backend in self._backends:
            backend.grace_s = BACKEND_GRACE_S
        self._workers = [
            WorkerService(worker, home=home, endpoints=lambda: self._state.endpoints) for worker in options.workers
        ]
        self._others = [*options.services, *self._workers]
        self._keepers: list[asyncio.Task[None]] = []
        self._children = {each.name: Child(each.name, ChildState.STOPPED, now(), str(each.log)) for each in self._parts}
        self._state = StackState(os.getpid(), now())

    @property
    def state(self) -> StackState:
        """The stack at this instant."""
        return self._state

    async def start(self) -> None:
        """
        Return when every part is ready.

        Raises:
            StackBusy: another process runs the stack of this home.
            StackError: a part cannot start; the others have been stopped.
        """
        home = self._options.home
        home.create()
        self._lock.acquire(what=f"the stack in {home.root}")
        try:
            end_leftovers(home)
            await self._start_all(self._backends)
            self._note_endpoints()
            if self._options.before_workers is not None:
                await self._options.before_workers(self._state.endpoints)
            await self._start_all(self._others)
        except BaseException:
            await self.stop()
            raise
        self._keepers = [asyncio.create_task(self._keep(each), name=f"keeper {each.name}") for each in self._parts]
        self._publish(replace(self._state, ready=True))

    async def stop(self) -> None:
        """Stop the workers, then the servers; within 15 s, by force where asking does not help. Safe to call twice."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        for stage in (self._others, self._backends):
            await asyncio.gather(*(self._stop_one(each) for each in stage))
        if self._lock.held:
            remove_state(self._options.home)
            self._lock.release()

    def kill(self) -> None:
        """End everything by force at once."""
        for each in reversed(self._parts):
            if each.pid is not None:
                each.kill()

    @property
    def _parts(self) -> list[Service]:
        return [*self._backends, *self._others]

    async def _start_all(self, services: Sequence[Service]) -> None:
        """Side by side; the first failure is raised when all have come to an end, so that none is left half started."""
        outcomes = await asyncio.gather(*(self._start_one(each) for each in services), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _start_one(self, service: Service) -> None:
        self._tell(service, ChildState.STARTING)
        await service.start()
        self._tell(service, ChildState.RUNNING)

    async def _stop_one(self, service: Service) -> None:
        await service.stop()
        self._tell(service, ChildState.STOPPED)

    async def _keep(self, service: Service) -> None:
        """Start the service again whenever it has ended, ever more slowly if it keeps ending."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            began = time.monotonic()
            while service.alive:  # noqa: ASYNC110 (a process tells its end to nobody but its parent's question)
                await asyncio.sleep(WATCH_S)
            if time.monotonic() - began > SETTLED_S:
                backoff_s = FIRST_BACKOFF_S
            self._tell_ended(service, again_in_s=backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
            try:
                await service.start()
            except StackError as exc:
                facts = {"service": service.name, "error": str(exc), "hint": exc.hint}
                logger.error("service does not start", extra={"facts": facts})
                continue
            self._tell(service, ChildState.RUNNING)
            self._note_endpoints()

    def _tell_ended(self, service: Service, *, again_in_s: float) -> None:
        child = self._children[service.name]
        status = service.exit_status
        facts = {"service": service.name, "status": status, "restarts": child.restarts + 1, "again-in-s": again_in_s}
        logger.warning("service ended", extra={"facts": facts})
        self._children[service.name] = replace(child, restarts=child.restarts + 1, last_exit=status)
        self._tell(service, ChildState.RESTARTING)

    def _note_endpoints(self) -> None:
        """Where the servers are now. A server that had to move takes the workers with it: they start again."""
        options = self._options
        endpoints = Endpoints(
            kafka=self._kafka.bootstrap if self._kafka is not None else options.kafka or "",
            postgres_dsn=self._postgres.dsn if self._postgres is not None else options.postgres_dsn or "",
        )
        moved = self._state.ready and endpoints != self._state.endpoints
        self._publish(replace(self._state, endpoints=endpoints))
        if moved:
            logger.warning("a server has moved", extra={"facts": {"kafka": endpoints.kafka}})
            for worker in self._workers:
                if worker.alive:
                    worker.process.signal(signal.SIGTERM)  # its keeper starts it again

    def _tell(self, service: Service, state: ChildState) -> None:
        child = self._children[service.name]
        self._children[service.name] = replace(child, state=state, since=now(), pid=service.pid)
        self._publish(replace(self._state, children=tuple(self._children.values())))

    def _publish(self, state: StackState) -> None:
        self._state = state
        if self._lock.held:
            write_state(self._options.home, state)
        if self._observer is not None:
            self._observer(state)


@contextlib.asynccontextmanager
async def running(options: StackOptions, *, observer: Observer | None = None) -> AsyncIterator[Supervisor]:
    """
    A stack that is ready, and stopped when the context ends.

    Raises:
        StackError: as `Supervisor.start`.
    """
    supervisor = Supervisor(options, observer=observer)
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


def up(options: StackOptions, *, observer: Observer | None = None) -> None:
    """
    Run a stack until SIGINT, SIGTERM or SIGHUP; returns when all of it has stopped. A second signal ends it by force.

    To be called in the main thread: children end with the thread that started them.

    Raises:
        StackError: as `Supervisor.start`.
    """
    asyncio.run(_up(Supervisor(options, observer=observer)))


def down(home: Home, *, within_s: float = DOWN_S) -> bool:
    """
    Tell the stack of this home to stop and wait until it has. Returns whether one was running.

    Raises:
        StackError: it has not stopped in time.
    """
    lock = stack_lock(home)
    owner = lock.owner()
    if owner is None:
        end_leftovers(home)
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(owner, signal.SIGTERM)
        os.kill(owner, signal.SIGCONT)  # a frozen one must wake up to obey
    if not asyncio.run(holds(lambda: lock.owner() is None, within_s=within_s)):
        hint = f"kill -9 {owner} ends it and all its children"
        raise StackError(
            f"the stack in {home.root} (process {owner}) has not stopped after {within_s:.0f} s", hint=hint
        )
    return True


def status(home: Home) -> StackState | None:
    """The running stack of this home, or None."""
    return read_state(home)


def end_leftovers(home: Home) -> None:
    """End what a killed supervisor of this home left running, workers first. Only for who holds the stack's lock."""
    notes: list[Path] = [*home.run.glob("*.pid"), *home.kafka.glob("*.pid"), *home.postgres.glob("*.pid")]
    for note in notes:
        end_leftover(note)


def _kafka(options: StackOptions) -> EmbeddedKafka:
    home = options.home
    log = home.logs / "kafka.log"
    return EmbeddedKafka(home.kafka, log=log, options=options.kafka_options, environment=options.environment)


def _postgres(options: StackOptions) -> EmbeddedPostgres:
    home = options.home
    return EmbeddedPostgres(home.postgres, log=home.logs / "postgres.log", environment=options.environment)


async def _up(supervisor: Supervisor) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            supervisor.kill()
        asked.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    starting = asyncio.create_task(supervisor.start())
    stopping = asyncio.create_task(asked.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            await stopping
    finally:
        stopping.cancel()
        starting.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await supervisor.stop()
