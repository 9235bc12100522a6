"""
Faust apps as Tillstream runs them: what is set and why, and how one lives and dies as a process.

    app = make_app("till-sink", settings)
    topic = slices_of(app, "till.events", lanes=lanes, sink_offsets=sink.next_offsets)
    app.agent(topic, concurrency=1)(payments)
    raise SystemExit(run_app(app))
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, cast

import faust
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list
from mode import CrashingSupervisor

from schemas.metric import Meter
from streams.backoff import Backoff
from streams.calm import calm
from streams.consumer import SinkOffsets
from streams.fetch import SliceSettings
from streams.lanes import Lanes
from streams.process import EXIT_CLEAN, EXIT_CRASH, STOP_WITHIN_S, Stop, run
from streams.transport import SliceTransport
from streams.watchdog import STALL_S, Watchdog, end_process

log = logging.getLogger(__name__)

Key = tuple[str, int]
# Watched beside the partitions: a blocked event loop makes no progress, nor does a worker that never joins its group.
EVENT_LOOP: Key = ("event loop", 0)
GROUP: Key = ("group", 0)
_CRASH_LOOK_S = 0.2
_TURN_S = 0.5
_BROKER_WAITS_S = (0.2, 5.0)
_DEFAULT_PORT = 9092


@dataclass(frozen=True, slots=True)
class AppSettings:
    """
    How an app talks to Kafka. Seconds and bytes.

    The session timeout is how long a worker that was killed keeps its partitions; brokers refuse less than their
    `group.min.session.timeout.ms`.
    """

    bootstrap: str = "127.0.0.1:9092"
    session_timeout_s: float = 10.0
    heartbeat_s: float = 3.0
    rebalance_timeout_s: float = 20.0  # more than revoking takes, see SliceSettings
    request_timeout_s: float = 30.0  # more than a rebalance takes: joining is one long request
    poll_interval_s: float = 600.0  # the watchdog acts long before
    commit_interval_s: float = 0.5
    metadata_age_s: float = 30.0  # how soon new partitions of a topic are noticed
    max_poll_records: int = 500  # of topics without slices
    credentials: Any = None  # what `faust.auth` offers, or an ssl.SSLContext; Faust types it as a union of its own
    slices: SliceSettings = field(default_factory=SliceSettings)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a worker process ends. The parts of stopping add up to less than `stop_within_s`, which is enforced."""

    finish_s: float = 3.0  # for the slices being applied, and what else has to come to an end
    leave_s: float = 2.5  # for Faust and aiokafka to stop, which tells the group to go on without us
    stop_within_s: float = STOP_WITHIN_S
    stall_s: float = STALL_S  # 0: no watchdog
    lag_every_s: float = 5.0  # how often the watchdog's lag is asked of the broker


class App(faust.App):
    """A Faust app that touches no disk: our tables live in memory and in their changelog topics."""

    async def on_first_start(self) -> None:
        """Faust would make a data directory in the current one."""


def make_app(name: str, settings: AppSettings, *, meter: Meter | None = None) -> faust.App:
    """
    A Faust app that keeps what we promise.

    `name` is its id and its consumer group: a new name reads every topic from the beginning.
    """
    app = App(
        name,
        broker=[f"kafka://{address.strip()}" for address in settings.bootstrap.split(",")],
        broker_credentials=settings.credentials,
        broker_client_id=name,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_request_timeout=settings.request_timeout_s,
        broker_max_poll_interval=settings.poll_interval_s,
        broker_max_poll_records=settings.max_poll_records,
        broker_commit_interval=settings.commit_interval_s,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=int(settings.metadata_age_s * 1_000),
        processing_guarantee="at_least_once",
        producer_acks=-1,
        # Waiting for unacked messages has no bound in Faust: a database outage would block every rebalance and SIGTERM.
        stream_wait_empty=False,
        # Faust's default restarts an agent that raised at the next message, so the one that failed would be lost.
        agent_supervisor=CrashingSupervisor,
        # Topics are provisioned: Faust would make them with one replica and eight partitions.
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        store="memory://",
        # Faust's own server shows tables to everybody.
        web_enabled=False,
        worker_redirect_stdouts=False,
        autodiscover=False,
    )
    app.transport = SliceTransport(app.conf.broker_consumer, app, settings=settings.slices, meter=meter)
    return app


def transport_of(app: faust.App) -> SliceTransport:
    """Our transport in the app: holds, readiness, lag."""
    return cast(SliceTransport, app.transport)


def slices_of(
    app: faust.App, topic: str, *, lanes: Lanes[Any], sink_offsets: SinkOffsets | None = None
) -> faust.TopicT:
    """
    The topic as a stream of slices. Its agent submits each event to `lanes` and acks nothing itself.

    Args:
        app: from `make_app`.
        topic: its name.
        lanes: what revocation and shutdown wait for.
        sink_offsets: the next offset of each partition as the sink holds it; consumption never starts after it.
    """
    return transport_of(app).opt_in(topic, lanes=lanes, sink_offsets=sink_offsets)


Worker = Callable[[], AbstractAsyncContextManager[faust.App]]


def run_app(
    worker: faust.App | Worker,
    *,
    settings: RunSettings | None = None,
    held: Callable[[], Collection[Key]] = tuple,
    progress: Callable[[], Mapping[Key, int]] = dict,
    meter: Meter | None = None,
) -> int:
    """
    Run a worker process to its end and return its exit status; what hangs then ends with the process.

    0 after SIGTERM or SIGINT; 1 if an agent, a lane or Faust crashed; 70 if nothing moved although there was lag, or if
    stopping took too long.

    Args:
        worker: the app; or what makes it within the running loop, and puts away afterwards what it needs (pools).
        settings: bounds.
        held: partitions that wait for a declared reason, beside those that the transport holds.
        progress: numbers that grow when something gets done within a slice, by partition, for slices that take long.
        meter: where the watchdog reports.
    """
    chosen = settings or RunSettings()

    async def main(stop: Stop) -> int:
        made = contextlib.nullcontext(worker) if isinstance(worker, faust.App) else worker()
        async with made as app:
            return await live(app, stop, settings=chosen, held=held, progress=progress, meter=meter)

    return run(main, stop_within_s=chosen.stop_within_s)


async def live(
    app: faust.App,
    stop: Stop,
    *,
    settings: RunSettings | None = None,
    held: Callable[[], Collection[Key]] = tuple,
    progress: Callable[[], Mapping[Key, int]] = dict,
    meter: Meter | None = None,
    finish: Callable[[], Awaitable[None]] | None = None,
    blame: Callable[[str], None] | None = None,
) -> int:
    """
    As `run_app`, within a process that somebody else runs and that has to do before and after: the exit status.

    Args:
        app: from `make_app`.
        stop: the wish to end.
        settings: bounds.
        held: as `run_app`'s.
        progress: as `run_app`'s.
        meter: as `run_app`'s.
        finish: what else to bring to its end before the group goes on without us; it is given `finish_s`.
        blame: told, in the watchdog's thread and just before the process ends, which task blocked the event loop.
    """
    calm()
    return await _Life(app, stop, settings or RunSettings(), _Signs(held, progress, finish, blame), meter).live()


@dataclass(frozen=True, slots=True)
class _Signs:
    """What others tell the watchdog, and what they have to do at the end."""

    held: Callable[[], Collection[Key]]
    progress: Callable[[], Mapping[Key, int]]
    finish: Callable[[], Awaitable[None]] | None = None
    blame: Callable[[str], None] | None = None


class _Life:
    """One app from its start to its end."""

    def __init__(
        self,
        app: faust.App,
        stop: Stop,
        settings: RunSettings,
        signs: _Signs,
        meter: Meter | None,
    ) -> None:
        self.app = app
        self.stop = stop
        self.settings = settings
        self.transport = transport_of(app)
        self.lanes = list({id(each.lanes): each.lanes for each in self.transport.opted_in.values()}.values())
        self._signs = signs
        self._meter = meter
        self._lag: dict[Key, int] = {}
        self._turns = 0
        self._member_turns = 0

    async def live(self) -> int:
        """Until somebody wants it to stop (0) or something crashes (1)."""
        if not await self._broker_answers():
            return EXIT_CLEAN
        tasks = {
            "start": asyncio.create_task(self._started()),
            "crash": asyncio.create_task(self._crashed()),
            "stop": asyncio.create_task(self.stop.wait()),
            "turn": asyncio.create_task(self._turn()),
            "lag": asyncio.create_task(self._measure_lag()),
            **{f"lanes {i}": asyncio.create_task(lanes.wait_failed()) for i, lanes in enumerate(self.lanes)},
        }
        async with self._watched():
            done, _ = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            # From here on a crash has its own bound too.
            self.stop.request(EXIT_CRASH)
            status = EXIT_CLEAN if done == {tasks["stop"]} else EXIT_CRASH
            for name, task in tasks.items():
                if task in done and name != "stop" and (exc := task.exception()):
                    log.critical("the worker failed", exc_info=exc, extra={"facts": {"part": name}})
        await self._end()
        for task in tasks.values():
            task.cancel()
        return EXIT_CRASH if self.app.crashed else status

    async def _started(self) -> None:
        """Start the app; does not return unless that fails."""
        await self.app.start()
        log.info("worker started", extra={"facts": {"app": self.app.conf.id}})
        await asyncio.Event().wait()

    async def _crashed(self) -> None:
        while not self.app.crashed:  # noqa: ASYNC110  mode's event, set from another thread, wakes nobody
            await asyncio.sleep(_CRASH_LOOK_S)
        log.critical("the app crashed", exc_info=self.app.crash_reason)

    async def _end(self) -> None:
        """Hand out nothing more, finish or abandon what is applied, commit the prefix, leave the group. Bounded."""
        started_at = time.monotonic()
        consumer = self.transport.consumer
        if consumer is not None:
            consumer.stopping = True
            consumer.stop_flow()
        await asyncio.gather(*(lanes.close(timeout_s=self.settings.finish_s) for lanes in self.lanes), self._finish())
        if consumer is not None and consumer.started:
            await consumer.commit_slices()
        try:
            async with asyncio.timeout(self.settings.leave_s):
                await self.app.stop()
        except TimeoutError:
            log.warning("the app does not stop: leaving without", extra={"facts": {"after_s": self.settings.leave_s}})
        except Exception:
            log.exception("the app stopped with an error")
        log.info("worker stopped", extra={"facts": {"seconds": round(time.monotonic() - started_at, 2)}})

    async def _finish(self) -> None:
        if self._signs.finish is not None:
            finishing = asyncio.ensure_future(self._signs.finish())
            await asyncio.wait({finishing}, timeout=self.settings.finish_s)

    async def _broker_answers(self) -> bool:
        """Wait for the broker, for ever; False if somebody wants to stop before. Faust would crash without one."""
        backoff = Backoff(*_BROKER_WAITS_S)
        while not self.stop.requested:
            try:
                return await _ask_broker(self.app)
            except (KafkaError, OSError, TimeoutError) as exc:
                log.warning("broker unreachable", extra={"facts": {"error": str(exc), "tries": backoff.tries + 1}})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), backoff.next_s())
        return False

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        if not self.settings.stall_s:
            yield
            return
        watchdog = Watchdog(self._lags, self._progress, self._held, self.settings.stall_s)
        if self._meter is not None:
            watchdog.meter = self._meter
        loop = asyncio.get_running_loop()
        watchdog.start(lambda stalled: self._stalled(stalled, loop))
        try:
            yield
        finally:
            watchdog.stop()

    def _stalled(self, stalled: list[Key], loop: asyncio.AbstractEventLoop) -> None:
        """In the watchdog's thread: name the task that blocks the event loop, if one does, and end the process."""
        running = asyncio.current_task(loop)
        if EVENT_LOOP in stalled and running is not None:
            log.critical("a task blocks the event loop", extra={"facts": {"task": running.get_name()}})
            if self._signs.blame is not None:
                self._signs.blame(running.get_name())
        end_process(stalled)

    def _lags(self) -> Mapping[Key, int]:
        return {**self._lag, EVENT_LOOP: 1}

    def _progress(self) -> Mapping[Key, int]:
        consumer = self.transport.consumer
        done = consumer.progress() if consumer else {}
        for key, steps in self._signs.progress().items():
            done[key] = done.get(key, 0) + steps
        return {**done, EVENT_LOOP: self._turns, GROUP: self._member_turns}

    def _held(self) -> Collection[Key]:
        held = {key for key in list(self._lag) if self.transport.holds.of(*key)}
        return held.union(self._signs.held())

    async def _turn(self) -> None:
        while True:
            self._turns += 1
            await asyncio.sleep(_TURN_S)

    async def _measure_lag(self) -> None:
        """
        What the watchdog knows of the broker.

        While that does not answer, nobody knows the lag, and nobody stalls. If it answers others and not our consumer,
        then our consumer is what stands still.
        """
        while True:
            await asyncio.sleep(self.settings.lag_every_s)
            consumer = self.transport.consumer
            if consumer is None or not consumer.started:
                self._lag = {GROUP: 1} if await self._broker_answers_now() else {}
                continue
            try:
                self._lag = {**await consumer.lag(), GROUP: 1}
            except (ConsumerStoppedError, KafkaError, TimeoutError, OSError):
                answers = await self._broker_answers_now()
                self._lag = {**dict.fromkeys(consumer.progress(), 1), GROUP: 1} if answers else {}
            self._member_turns += consumer.is_member

    async def _broker_answers_now(self) -> bool:
        try:
            async with asyncio.timeout(self.settings.lag_every_s):
                return await _ask_broker(self.app)
        except (KafkaError, OSError, TimeoutError):
            return False


async def _ask_broker(app: faust.App) -> bool:
    client = AIOKafkaClient(
        bootstrap_servers=server_list(app.transport.url, _DEFAULT_PORT),
        client_id=app.conf.broker_client_id,
        **credentials_to_aiokafka_auth(app.conf.broker_credentials, app.conf.ssl_context),
    )
    try:
        await client.bootstrap()
    finally:
        await client.close()
    return True
