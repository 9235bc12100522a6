"""
The only file that knows all packages: it builds each worker role out of them.

Every role starts without Kafka and PostgreSQL: it serves /metrics and /readyz at once, tells there what it waits for,
tries again with a capped backoff, and ends on SIGTERM at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from connectors.adapter import Adapters
from connectors.clock import SystemClock
from connectors.ports import Ports
from connectors.registry import specs
from connectors.thread import ThreadsByOwner
from schemas import failpoint
from schemas.errors import ConfigError, SinkMisconfigured, TillError
from schemas.topic import Topics, connectors_app_id, letters_app_id, sink_app_id, topics
from sinks.letters import LetterTable
from sinks.migrate import migrate, pending
from sinks.mirror import CheckpointMirror
from sinks.pool import DEFAULT_TIMEOUTS, Pool, Timeouts, close_pool, connection, open_pool
from sinks.postgres import PLANNER, PostgresSink
from streams import letters as letter_agent
from streams import payments
from streams.app import AppSettings, Key, RunSettings, live, make_app, transport_of
from streams.backoff import Backoff
from streams.fetch import SliceSettings
from streams.ingest import Ingest
from streams.lag import LagProbe
from streams.partition import partition_of
from streams.process import EXIT_CLEAN, EXIT_CRASH, Stop, run
from streams.provision import missing, provision
from streams.publisher import EventPublisher, LetterPublisher, Producer
from streams.state import ConnectorState
from tillstream.api.app import application
from tillstream.api.server import serving
from tillstream.api.world import World as ApiWorld
from tillstream.config import Environment, Role, Settings
from tillstream.control.claim import Claim, blame
from tillstream.control.fleet import Fleet, World
from tillstream.control.ledger import Unlisted, unlisted_letters
from tillstream.control.monitor import Monitor
from tillstream.control.run import PostgresRunLog
from tillstream.control.secret import SWEEP_S, SecretStore, Sweeper
from tillstream.health import Health
from tillstream.http import serve
from tillstream.metrics import PrometheusMeter
from tillstream.redaction import process_redactor
from tillstream.secret import folder_of, worker_secrets

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
App = Any  # a Faust app; only `streams` knows Faust

KAFKA, POSTGRES = "kafka", "postgres"
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
_WAITS_S = (0.2, 5.0)
_LOOK_S = 0.1
_API_LOOK_S = 2.0
_LAG_S = 10.0  # for an answer of the API: the monitor waits longer
# most filters of a list are not there: one plan for all of them would walk along the list for each
LISTS = {"plan_cache_mode": "force_custom_plan"}
CONNECTORS_FINISH_S = 5.8  # a member's own bound, so that leaving the group still fits into what a process has to end
BLAME_S = 5.0
FROZEN_FACTOR = 2  # the watchdog, which can name who blocks, comes first


def topics_of(settings: Settings) -> Topics:
    """The topic table of this installation."""
    chosen = settings.topic
    return topics(chosen.prefix, partitions=chosen.partitions, state_partitions=chosen.state_partitions)


def timeouts_of(settings: Settings) -> Timeouts:
    """What bounds every wait for PostgreSQL; the server's bound comes first."""
    statement_s = settings.postgres.command_timeout_s
    return Timeouts(lock_s=min(DEFAULT_TIMEOUTS.lock_s, statement_s), statement_s=statement_s, client_s=statement_s + 5)


async def prepare(settings: Settings) -> tuple[list[str], list[str]]:
    """
    Bring PostgreSQL and Kafka to what this version expects; the migrations applied and the topics created now.

    Raises:
        SinkError, BrokerError, ConfigError: as they say; running it again is safe.
    """
    applied = await migrate(settings.postgres.dsn.get_secret_value())
    replication = settings.topic.replication_factor
    created = await provision(settings.kafka.bootstrap, topics_of(settings).all(), replication=replication)
    return applied, created


async def lacking(settings: Settings) -> tuple[list[str], list[str]]:
    """
    What `prepare` would do: the migrations it would apply and the topics it would create. Changes nothing.

    Raises:
        As `prepare`.
    """
    pool = await open_pool(settings.postgres.dsn.get_secret_value(), size=1, application="till-cli", durable=False)
    try:
        async with connection(pool) as held:
            migrations = await pending(held)
    finally:
        await close_pool(pool)
    return migrations, await missing(settings.kafka.bootstrap, topics_of(settings).all())


def work(role: Role, settings: Settings) -> int:
    """
    Be a worker until SIGTERM or SIGINT: the process's exit status, 0 when it was asked to end.

    Raises:
        ConfigError: the settings cannot work, such as a port that is taken.
    """
    failpoint.arm(settings.failpoints, production=settings.environment is Environment.PRODUCTION)
    roles: dict[Role, Callable[[_Worker], Awaitable[int]]] = {
        Role.SINK: _sink,
        Role.CONNECTOR: _connector,
        Role.LETTERS: _letters,
        Role.MONITOR: _monitor,
        Role.API: _api,
    }
    refused: list[ConfigError] = []

    async def main(stop: Stop) -> int:
        worker = _Worker(role, settings, stop)
        try:
            async with _probes(worker):
                return await roles[role](worker)
        except ConfigError as exc:
            refused.append(exc)
            return EXIT_CRASH

    status = run(main, frozen_s=settings.sink.watchdog_s * FROZEN_FACTOR)
    if refused:
        raise refused[0]
    return status


@dataclass(slots=True)
class _Worker:
    """What every role has."""

    role: Role
    settings: Settings
    stop: Stop
    meter: PrometheusMeter = field(default_factory=PrometheusMeter)
    health: Health = field(default_factory=Health)

    @property
    def topics(self) -> Topics:
        return topics_of(self.settings)

    @property
    def name(self) -> str:
        return f"{self.role}@{socket.gethostname()}:{os.getpid()}"

    async def eventually(self, subject: str, make: Callable[[], Awaitable[Made]]) -> Made | None:
        """What `make` gives once it succeeds; None if the process has to end before."""
        backoff = Backoff(*_WAITS_S)
        self.health.wait(subject, "not asked yet")
        while not self.stop.requested:
            try:
                made = await make()
            except TillError as exc:
                self.health.wait(subject, f"{exc}; {exc.hint}")
                if backoff.tries == 0:
                    logger.error("waiting", extra={"facts": {"for": subject, "error": exc, "hint": exc.hint}})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stop.wait(), backoff.next_s())
            else:
                self.health.clear(subject)
                return made
        return None

    async def pool(self, session: Mapping[str, str] = NO_SETTINGS) -> Pool:
        """
        A pool on the migrated database. `session` are settings of its connections.

        Raises:
            SinkError: it does not answer, or is not migrated.
        """
        postgres = self.settings.postgres
        pool = await open_pool(
            postgres.dsn.get_secret_value(),
            size=postgres.pool_size,
            timeouts=timeouts_of(self.settings),
            application=f"till-{self.role}",
            settings=session,
        )
        try:
            await _migrated(pool)
        except BaseException:
            await close_pool(pool)
            raise
        return pool

    async def topics_are_there(self, producer: Producer) -> bool:
        """Wait until every topic is there with the partitions that the settings say; False if we have to end before."""

        async def make() -> bool:
            for spec in self.topics.all():
                found = await producer.partitions(spec.name)
                if found != spec.partitions:
                    raise ConfigError(
                        f"topic {spec.name} has {found} partitions, the settings say {spec.partitions}",
                        hint="set topic.partitions (or topic.state_partitions) to what the topic has",
                    )
            return True

        return bool(await self.eventually(KAFKA, make))

    def app_settings(self) -> AppSettings:
        kafka, sink = self.settings.kafka, self.settings.sink
        return AppSettings(
            bootstrap=kafka.bootstrap,
            session_timeout_s=kafka.session_timeout_s,
            heartbeat_s=kafka.session_timeout_s / 3,
            slices=SliceSettings(max_records=sink.slice_events, max_bytes=sink.slice_bytes),
        )

    def run_settings(self) -> RunSettings:
        return RunSettings(stall_s=self.settings.sink.watchdog_s)


@contextlib.asynccontextmanager
async def _probes(worker: _Worker) -> AsyncIterator[None]:
    """The little web server of a worker. The API has these routes among its own."""
    if worker.role is Role.API:
        yield
        return
    settings = worker.settings
    endpoint = serve(
        worker.role.value,
        host=settings.http.host,
        port=settings.http.port(worker.role),
        run=_run(settings),
        meter=worker.meter,
        health=worker.health,
    )
    async with endpoint as served:
        logger.info("worker serves", extra={"facts": {"role": worker.role.value, "url": served.url}})
        yield


async def _migrated(pool: Pool) -> None:
    async with connection(pool) as held:
        missing = await pending(held)
    if missing:
        raise SinkMisconfigured(f"the database lacks {', '.join(missing)}", hint="run `till migrate`")


async def _sink(worker: _Worker) -> int:
    settings = worker.settings
    async with _opened(worker, session=PLANNER) as (pool, producer):
        if pool is None:
            return EXIT_CLEAN
        sink = PostgresSink(pool, timeouts=timeouts_of(settings))
        ingest = Ingest(sink, LetterPublisher(producer, worker.topics), worker.meter)
        app = make_app(sink_app_id(settings.topic.prefix), worker.app_settings(), meter=worker.meter)
        payments.register(app, worker.topics, ingest, sink_offsets=sink.next_offsets)
        _watch_assignment(worker, app)
        worker.health.probe("partitions", lambda: _holds(ingest))

        def held() -> Collection[Key]:
            return [(place.topic, place.partition) for place in list(ingest.holds)]

        def progress() -> dict[Key, int]:
            return {(place.topic, place.partition): steps for place, steps in list(ingest.steps.items())}

        bounds = worker.run_settings()
        return await live(app, worker.stop, settings=bounds, held=held, progress=progress, meter=worker.meter)


async def _connector(worker: _Worker) -> int:
    settings = worker.settings
    # a source's blocking calls run in threads of its own
    asyncio.get_running_loop().set_default_executor(ThreadsByOwner())
    async with _opened(worker) as (pool, producer):
        if pool is None:
            return EXIT_CLEAN
        app = make_app(connectors_app_id(settings.topic.prefix), worker.app_settings(), meter=worker.meter)
        state = ConnectorState(app, worker.topics, producer, CheckpointMirror(pool), worker.meter)
        _watch_assignment(worker, app)
        owned = _OwnedState(state, worker.topics)
        ports = Ports(
            publisher=EventPublisher(producer, worker.topics, meter=worker.meter),
            dead_letters=LetterPublisher(producer, worker.topics),
            checkpoints=owned,
            runs=PostgresRunLog(pool, worker.meter),
            clock=SystemClock(),
            meter=worker.meter,
            secrets=worker_secrets(settings),
            staging=settings.home / "staging",
            adapters=Adapters(settings.connector.modules),
            redact=process_redactor().redact,
        )
        production = settings.environment is Environment.PRODUCTION
        world = World(pool, ports, owned, specs(), worker.name, production)
        fleet = Fleet(world, refresh_s=settings.connector.refresh_s, heartbeat_s=settings.connector.heartbeat_s)
        owned.fleet = fleet
        transport_of(app).assignments = owned
        worker.health.probe("sources", lambda: fleet.complaint)
        sailing = asyncio.create_task(_sail(fleet, worker, app), name="fleet")

        async def finish() -> None:
            fleet.stop()
            await asyncio.wait({sailing})

        try:
            return await live(
                app,
                worker.stop,
                settings=replace(worker.run_settings(), finish_s=CONNECTORS_FINISH_S),
                meter=worker.meter,
                finish=finish,
                blame=lambda task: _blame(task, fleet, settings),
            )
        finally:
            sailing.cancel()


class _OwnedState:
    """
    The connector state, and whose it is: the state topic's partitions decide which worker runs a connector.

    From the moment in which partitions are revoked they are not owned, and the fleet lets go of its connectors before
    the group hears that we have let go. `fleet` is told of both.
    """

    def __init__(self, state: ConnectorState, table: Topics) -> None:
        self.load = state.load
        self.save = state.save
        self.newest_epoch = state.newest_epoch
        self.announce = state.announce
        self.fleet: Fleet | None = None
        self._topic = table.connector_state
        self._owned: frozenset[int] = frozenset()

    def owns(self, connector_id: UUID) -> bool:
        """Whether its partition is assigned to this worker now."""
        return partition_of(str(connector_id).encode(), self._topic.partitions) in self._owned

    async def revoked(self, partitions: Collection[Key]) -> None:
        """Let go of the connectors of these partitions, within a bound."""
        self._owned -= self._of_state(partitions)
        if self.fleet is not None:
            await self.fleet.release()

    def assigned(self, partitions: Collection[Key]) -> None:
        """All that are ours now."""
        self._owned = self._of_state(partitions)
        if self.fleet is not None:
            self.fleet.assigned()

    def _of_state(self, partitions: Collection[Key]) -> frozenset[int]:
        return frozenset(number for topic, number in partitions if topic == self._topic.name)


def _blame(task: str, fleet: Fleet, settings: Settings) -> None:
    """
    In the watchdog's thread, before it ends the process: let the connector whose task blocks the event loop wait.

    Else the worker would block again as soon as it is back, and no other connector of its partitions would ever run.
    """
    name = task.partition(": ")[0]
    claim = fleet.running_as(name)
    if claim is None:
        return
    try:
        asyncio.run(asyncio.wait_for(_tell_blame(claim, settings.postgres.dsn.get_secret_value()), BLAME_S))
    except Exception as exc:  # the process ends whatever happens here
        logger.critical("could not tell which source blocked", extra={"facts": {"connector": name, "error": repr(exc)}})


async def _tell_blame(claim: Claim, dsn: str) -> None:
    pool = await open_pool(dsn, size=1, application="till-watchdog")
    async with connection(pool) as held:
        await blame(held, claim)
    await close_pool(pool)


async def _letters(worker: _Worker) -> int:
    async with _opened(worker) as (pool, _):
        if pool is None:
            return EXIT_CLEAN
        app = make_app(letters_app_id(worker.settings.topic.prefix), worker.app_settings(), meter=worker.meter)
        letter_agent.register(app, worker.topics, LetterTable(pool))
        _watch_assignment(worker, app)
        return await live(app, worker.stop, settings=worker.run_settings(), meter=worker.meter)


async def _monitor(worker: _Worker) -> int:
    settings = worker.settings
    async with LagProbe(settings.kafka.bootstrap) as probe:
        monitor = Monitor(
            open_pool=worker.pool,
            probe=probe,
            settings=settings.monitor,
            watched=watched_groups(settings),
            events_topic=worker.topics.events.name,
            workers=_run(settings),
            meter=worker.meter,
            health=worker.health,
        )
        async with monitor:
            while not worker.stop.requested:
                await _or_stop(asyncio.create_task(monitor.sweep()), worker.stop)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(worker.stop.wait(), settings.monitor.interval_s)
    return EXIT_CLEAN


async def _api(worker: _Worker) -> int:
    settings = worker.settings
    # a source that is tried runs its blocking calls in threads of its own
    asyncio.get_running_loop().set_default_executor(ThreadsByOwner())
    async with Producer(settings.kafka.bootstrap, meter=worker.meter) as producer:
        world = api_world(settings, producer, meter=worker.meter, health=worker.health)
        http = settings.http
        server = serving(application(world), host=http.api_host, port=http.api_port, run=_run(settings))
        async with server as (served, serves):
            logger.info("worker serves", extra={"facts": {"role": worker.role.value, "url": served.url}})
            reaching = asyncio.create_task(_reach(worker, world), name="reach")
            sweeping = asyncio.create_task(_sweep(world), name="sweep of secrets")
            stopping = asyncio.create_task(worker.stop.wait())
            await asyncio.wait({stopping, serves, reaching}, return_when=asyncio.FIRST_COMPLETED)
            await world.stop()
            for task in (reaching, stopping, sweeping):
                task.cancel()
            await asyncio.wait({reaching, stopping, sweeping})
            if reaching.done() and not reaching.cancelled():
                reaching.result()
        if world.opened is not None:
            await close_pool(world.opened)
    return EXIT_CLEAN if worker.stop.requested else EXIT_CRASH


def api_world(settings: Settings, producer: Producer, *, meter: PrometheusMeter, health: Health) -> ApiWorld:
    """What the API answers from, before its database has answered."""
    return ApiWorld(
        settings=settings,
        topics=topics_of(settings),
        producer=producer,
        specs=specs(),
        secrets=worker_secrets(settings),
        adapters=Adapters(settings.connector.modules),
        unlisted=unlisted_of(settings),
        probe=LagProbe(settings.kafka.bootstrap, deadline_s=_LAG_S),
        watched=watched_groups(settings),
        redact=process_redactor().redact,
        store=SecretStore(folder_of(settings), process_redactor().register),
        meter=meter,
        health=health,
    )


async def _sweep(world: ApiWorld) -> None:
    """Remove secrets that no connector names any more, for ever."""
    sweeper = Sweeper(world.store)
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            removed = await sweeper.sweep(world.pool)
            if removed:
                logger.info("secrets removed", extra={"facts": {"files": len(removed)}})
        except (TillError, OSError) as exc:
            logger.warning("secrets not swept", extra={"facts": {"error": exc}})


async def _reach(worker: _Worker, world: ApiWorld) -> None:
    """Open the database once it answers, and tell from then on whether it and the topics are there."""
    opened, _ = await asyncio.gather(_opened_for(worker, world), worker.topics_are_there(world.producer))
    while opened:
        await asyncio.sleep(_API_LOOK_S)
        try:
            async with connection(world.pool) as held:
                await held.execute("SELECT 1")
        except TillError as exc:
            worker.health.wait(POSTGRES, f"{exc}; {exc.hint}")
        else:
            worker.health.clear(POSTGRES)


async def _opened_for(worker: _Worker, world: ApiWorld) -> bool:
    world.opened = await worker.eventually(POSTGRES, lambda: worker.pool(LISTS))
    return world.opened is not None


def _run(settings: Settings) -> Path:
    return settings.home / "run"


async def _or_stop(task: asyncio.Task[None], stop: Stop) -> None:
    """Wait for the task, or give it up when the process has to end."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        task.result()
    else:
        task.cancel()
        await asyncio.wait({task}, timeout=_LOOK_S)


def watched_groups(settings: Settings) -> dict[str, str]:
    """Each consumer group of this installation, and the topic that it consumes."""
    prefix, table = settings.topic.prefix, topics_of(settings)
    return {
        sink_app_id(prefix): table.events.name,
        connectors_app_id(prefix): table.connector_state.name,
        letters_app_id(prefix): table.dead_letters.name,
    }


def unlisted_of(settings: Settings) -> Unlisted:
    """How many letters of this installation are not listed yet, when asked."""
    group, topic = letters_app_id(settings.topic.prefix), topics_of(settings).dead_letters.name
    return unlisted_letters(settings.kafka.bootstrap, group=group, topic=topic)


@contextlib.asynccontextmanager
async def _opened(
    worker: _Worker, *, session: Mapping[str, str] = NO_SETTINGS
) -> AsyncIterator[tuple[Pool | None, Producer]]:
    """The database and a producer, once database and topics are there; no database: the process has to end before."""
    async with Producer(worker.settings.kafka.bootstrap, meter=worker.meter) as producer:
        pool, topics_are_there = await asyncio.gather(
            worker.eventually(POSTGRES, lambda: worker.pool(session)), worker.topics_are_there(producer)
        )
        try:
            yield pool if topics_are_there else None, producer
        finally:
            if pool is not None:
                await close_pool(pool)


async def _sail(fleet: Fleet, worker: _Worker, app: App) -> None:
    """Run the fleet once the app has its partitions; a bug in it ends the process."""
    try:
        while worker.health.reasons() and not worker.stop.requested:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.stop.wait(), _LOOK_S)
        stopping = asyncio.create_task(worker.stop.wait())
        stopping.add_done_callback(lambda _: fleet.stop())
        await fleet.run()
        stopping.cancel()
    except asyncio.CancelledError:
        raise
    except Exception as exc:
        logger.exception("a connector crashed")
        await app.crash(exc)


def _watch_assignment(worker: _Worker, app: App) -> None:
    transport = transport_of(app)

    def missing() -> str | None:
        ready = transport.consumer is not None and transport.consumer.is_ready
        return None if ready else "no partition assigned yet"

    def unread() -> str | None:
        troubles = {} if transport.consumer is None else transport.consumer.troubles()
        told = [f"{topic}/{partition} cannot be read: {why}" for (topic, partition), why in sorted(troubles.items())]
        return "; ".join(told) or None

    worker.health.probe("assignment", missing)
    worker.health.probe("reading", unread)


def _holds(ingest: Ingest) -> str | None:
    """Which partitions wait, for what, and the error behind it; partitions that share it are told together."""
    waiting: dict[str, list[str]] = {}
    for place, why in list(ingest.holds.items()):
        cause = ingest.causes.get(place, "")
        text = f"{why.value}: {cause}" if cause else why.value
        waiting.setdefault(text, []).append(f"{place.topic}/{place.partition}")
    return "; ".join(f"{', '.join(sorted(places))} waits for {text}" for text, places in waiting.items()) or None
