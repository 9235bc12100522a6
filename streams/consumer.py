# ruff: noqa: SLF001  # Faust has no public way in: tests/unit/streams/test_transport_contract.py pins each private name
"""
Faust's consumer, taught to hand out slices. What it promises is told in `streams/transport.py`.

Faust's fetch loop (`Consumer._drain_messages`) asks `getmany` for records and passes each on as a message. For a topic
that opted in, the one "record" of a partition that `_getmany` returns is a whole slice, and `_to_message` wraps it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message
from faust.types.transports import TPorTopicSet
from mode import Service

from schemas import metric
from schemas.errors import Disposition, TillError
from schemas.metric import Meter
from streams.backoff import Backoff
from streams.fetch import CALL_S, Fetched, SliceSettings, SliceThread, Want
from streams.hold import Holds
from streams.inflight import InFlight
from streams.lanes import Lanes
from streams.position import Because, Start, start_of
from streams.slice import Slice

log = logging.getLogger(__name__)

SinkOffsets = Callable[[str], Awaitable[Mapping[int, int]]]
Result = TypeVar("Result")

START_UNKNOWN = "start_unknown"  # the hold of a partition until the broker and the sink have said where it starts
_FETCH_PAUSE_S = 1.0  # after a fetch that failed: what is wrong there does not heal in milliseconds
_TROUBLE_S = 10.0  # after a fetch that failed: several later ones would have failed by then, too
_START_WAITS_S = (0.2, 5.0)
_LOOK_EVERY_S = 1.0  # for topics that the broker does not know yet


@dataclass(frozen=True, slots=True)
class OptedIn:
    """A topic whose stream is made of slices."""

    lanes: Lanes[Any]
    sink_offsets: SinkOffsets | None


class Assignments(Protocol):
    """Who else has to do with which partitions are ours. Both are called on the main loop."""

    async def revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        """These are let go of: return, within seconds, once nothing of ours goes on in them."""
        ...

    def assigned(self, partitions: Collection[tuple[str, int]]) -> None:
        """These are ours from now on; all that are."""
        ...


class NoAssignments:
    """Nobody else."""

    async def revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        """Nothing to do."""

    def assigned(self, partitions: Collection[tuple[str, int]]) -> None:
        """Nothing to do."""


class SliceRoom(Protocol):
    """The transport, as its consumer sees it."""

    settings: SliceSettings
    meter: Meter
    holds: Holds
    opted_in: dict[str, OptedIn]
    assignments: Assignments


class SliceMessage(ConsumerMessage):
    """The message that carries a slice through Faust, and the receipt that a lane signs."""

    __slots__ = ("finished", "inflight", "ticket")

    def __init__(self, whole: Slice, inflight: InFlight, *, tp: TP, generation_id: int) -> None:
        newest = whole.records[-1]
        super().__init__(
            whole.topic,
            whole.partition,
            whole.first_offset,
            newest.timestamp / 1_000,
            newest.timestamp_type,
            headers=None,
            key=None,
            value=cast(Any, whole),  # Faust expects bytes, and looks into them only to decode
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=whole.size_bytes,
            tp=tp,
            generation_id=generation_id,
        )
        self.inflight = inflight
        self.ticket = inflight.track(whole.first_offset, whole.next_offset, whole.size_bytes)
        self.finished = False

    @property
    def is_ours(self) -> bool:
        """False once the partition was revoked, or rewound to below this slice."""
        return self.inflight.holds(self.ticket)

    def finish(self) -> None:
        """Every effect of the slice is durable: an ack counts from now on."""
        self.finished = True


@dataclass(slots=True, eq=False)
class _Owned:
    """A partition of an opted-in topic, assigned to us in one generation of the group."""

    tp: TP
    generation: int
    inflight: InFlight | None = None  # None until its start is known
    fetch_again_at: float = 0.0
    trouble: str = ""  # why it could not be read the last time
    troubled_at: float = 0.0


class SliceConsumer(driver.Consumer):
    """Faust's Kafka consumer, with slices for the topics that opted in."""

    _thread: SliceThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._owned: dict[TP, _Owned] = {}
        self._undelivered: dict[TP, Fetched] = {}
        self._starting: asyncio.Future[None] | None = None
        self._commit_lock = asyncio.Lock()
        self._is_starved = False
        self.stopping = False
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> SliceThread:
        # A loop of the same kind as the main one: uvloop's, where that is in use.
        thread = SliceThread(self, loop=self.loop, thread_loop=type(self.loop)(), beacon=self.beacon)
        thread._close_thread_loop_on_stop = True
        return thread

    @property
    def _room(self) -> SliceRoom:
        return cast(SliceRoom, self.transport)

    def _is_mine(self, tp: TP) -> bool:
        return tp.topic in self._room.opted_in

    # Reading

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[Any]]:  # noqa: ASYNC109
        active = active_partitions or set()
        # What Faust dropped between here and the stream comes first, or there would be a hole.
        again = {tp: each for tp, each in self._undelivered.items() if tp in active and not each.inflight.forgotten}
        if again:
            return self._deliverable(again)
        wants = self._wants(active)
        stock = {tp for tp in active if not self._is_mine(tp)}
        arrived = await self._in_thread(self._thread.fetch(stock, wants, timeout))
        mine = {tp: arrived.pop(tp)[0] for tp in wants if tp in arrived}
        return {**arrived, **self._deliverable(await self._consistent(mine))}

    def _wants(self, active: set[TP]) -> dict[TP, Want]:
        """The partitions that may be read now, and how much of each."""
        settings, now = self._room.settings, time.monotonic()
        in_flight_bytes = sum(each.inflight.size_bytes for each in self._owned.values() if each.inflight)
        wants: dict[TP, Want] = {}
        self._is_starved = False
        for tp, owned in self._owned.items():
            inflight = owned.inflight
            if inflight is None or inflight.forgotten or self.stopping or tp not in active:
                continue
            full = inflight.unacked >= settings.max_slices_in_flight
            crowded = inflight.unacked > 0 and in_flight_bytes >= settings.max_bytes_in_flight
            if full or crowded or owned.fetch_again_at > now or self._room.holds.of(tp.topic, tp.partition):
                self._is_starved = True
            else:
                wants[tp] = Want(inflight, inflight.position, settings.max_records, settings.max_bytes)
        return wants

    async def _consistent(self, arrived: Mapping[TP, Fetched]) -> dict[TP, Fetched]:
        """What continues its partition. The rest is dealt with here."""
        good: dict[TP, Fetched] = {}
        for tp, fetched in arrived.items():
            inflight = fetched.inflight
            if inflight.forgotten:
                continue
            if fetched.error is not None:
                await self._failed(tp, inflight, fetched.error)
                continue
            self._owned[tp].trouble = ""
            if fetched.first_offset != inflight.position:
                await self._moved(tp, inflight, fetched.first_offset)
            elif fetched.records:
                good[tp] = fetched
            else:
                inflight.skip(fetched.next_offset)
        return good

    async def _failed(self, tp: TP, inflight: InFlight, error: BaseException) -> None:
        log.error("fetch failed", extra={"facts": {**_facts(tp), "error": repr(error)}})
        owned, now = self._owned[tp], time.monotonic()
        owned.fetch_again_at, owned.troubled_at = now + _FETCH_PAUSE_S, now
        owned.trouble = f"{type(error).__name__}: {error}"
        await self._seek_back(tp, inflight)  # aiokafka steps over a record that is too large for it

    async def _moved(self, tp: TP, inflight: InFlight, position: int) -> None:
        """Our position is not in the log any more, or aiokafka gave records away that never reached us."""
        if position < inflight.position:
            self._report_reset(tp, wanted=inflight.position, position=position)
            inflight.rewind(position)
            return
        try:
            async with asyncio.timeout(CALL_S):
                beginning, _ = (await self._in_thread(self._thread.bounds([tp])))[tp]
        except (KafkaError, TimeoutError):
            return  # the next fetch tells the same
        if beginning > inflight.position:
            self._report_reset(tp, wanted=inflight.position, position=beginning)
            inflight.skip(beginning)
        await self._seek_back(tp, inflight)

    async def _seek_back(self, tp: TP, inflight: InFlight) -> None:
        with contextlib.suppress(KafkaError):  # not assigned any more
            await self._in_thread(self._thread.seek_to({tp: inflight.position}))

    def _report_reset(self, tp: TP, *, wanted: int | None, position: int) -> None:
        facts = {**_facts(tp), "wanted": wanted, "position": position}
        log.error("offset not in the log any more: reading on from the earliest", extra={"facts": facts})
        self._room.meter.add(metric.OFFSET_RESETS_TOTAL, topic=tp.topic, partition=str(tp.partition))

    def _deliverable(self, fetched: Mapping[TP, Fetched]) -> dict[TP, list[Any]]:
        self._undelivered = dict(fetched)
        return {tp: [each] for tp, each in fetched.items()}

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not isinstance(record, Fetched):
            return super()._to_message(tp, record)
        self._undelivered.pop(tp, None)
        # Faust would drop a slice below the one before it (after a rewind), and take the inside of slices for gaps.
        self._read_offset[tp] = None
        whole = Slice(
            tp.topic, tp.partition, record.records, record.first_offset, record.next_offset, record.size_bytes
        )
        return SliceMessage(whole, record.inflight, tp=tp, generation_id=self.app.consumer_generation_id)

    def highwater(self, tp: TP) -> int:
        """The end of the partition as last heard of; 0 while a rebalance is going on, where Faust's fails."""
        try:
            return super().highwater(tp) or 0
        except (AssertionError, AttributeError):
            return 0

    # Acks and commits

    def ack(self, message: Message) -> bool:
        """Take back a slice that a lane has finished, or one of Faust's own messages."""
        if not isinstance(message, SliceMessage):
            return super().ack(message)
        self._unacked_messages.discard(message)
        if not message.finished:
            facts = {**_facts(message.tp), "offset": message.offset}
            log.error("ack of a slice that no lane has finished: refused", extra={"facts": facts})
            return False
        counts = message.inflight.ack(message.ticket)
        if self._is_starved:
            self._thread.wake()
        return counts

    def _filter_tps_with_pending_acks(self, topics: TPorTopicSet | None = None) -> Any:
        return (tp for tp in super()._filter_tps_with_pending_acks(topics) if not self._is_mine(tp))

    async def force_commit(self, topics: TPorTopicSet | None = None, start_new_transaction: bool = True) -> bool:
        """Commit the finished prefix of every slice partition, then Faust's own topics."""
        done = await self.commit_slices()
        return await super().force_commit(topics, start_new_transaction=start_new_transaction) or done

    async def commit_slices(self, tps: Collection[TP] | None = None) -> bool:
        """
        Commit the finished prefix of the partitions we own, or of those among `tps`.

        False if a commit failed: that is logged and changes nothing, the same prefix is offered the next time.
        """
        async with self._commit_lock:
            good = True
            for generation, owned in self._by_generation(tps).items():
                offsets = {each.tp: offset for each in owned if (offset := _committable(each)) is not None}
                if offsets:
                    good = await self._commit_prefix(offsets, generation) and good
            return good

    def _by_generation(self, tps: Collection[TP] | None) -> dict[int, list[_Owned]]:
        found: dict[int, list[_Owned]] = {}
        for owned in self._owned.values():
            if tps is None or owned.tp in tps:
                found.setdefault(owned.generation, []).append(owned)
        return found

    async def _commit_prefix(self, offsets: Mapping[TP, int], generation: int) -> bool:
        inflights = {tp: inflight for tp in offsets if (inflight := self._owned[tp].inflight)}
        try:
            async with asyncio.timeout(self._room.settings.commit_timeout_s):
                await self._in_thread(self._thread.commit_in_generation(offsets, generation))
        except (ConsumerStoppedError, KafkaError, TimeoutError) as exc:
            facts = {"generation": generation, "partitions": len(offsets), "error": repr(exc)}
            log.warning("commit failed: it is tried again while the partitions are ours", extra={"facts": facts})
            return False
        for tp, inflight in inflights.items():
            inflight.committed_to(offsets[tp])
        self.app.monitor.on_tp_commit(dict(offsets))
        return True

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Without a deadline it waits for the broker for ever, and so does everybody else who wants to commit.
        try:
            async with asyncio.timeout(self._room.settings.commit_timeout_s):
                return await self._in_thread(self._thread._commit(offsets))
        except (ConsumerStoppedError, TimeoutError):
            log.warning("commit without an answer", extra={"facts": {"partitions": len(offsets)}})
            return False

    # Rebalancing

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish or abandon what is in flight, commit the prefix, forget it; then Faust's own handling."""
        self.stop_flow()
        try:
            await asyncio.gather(
                self._room.assignments.revoked([(tp.topic, tp.partition) for tp in revoked]),
                self._let_go({tp for tp in revoked if tp in self._owned}),
            )
        finally:
            await super().on_partitions_revoked(revoked)

    async def _let_go(self, tps: set[TP]) -> None:
        if self._starting is not None:
            self._starting.cancel()
        timeout_s = self._room.settings.revoke_timeout_s
        ends = [
            opted_in.lanes.revoke([tp for tp in tps if tp.topic == topic], timeout_s=timeout_s)
            for topic, opted_in in self._room.opted_in.items()
        ]
        await asyncio.gather(*ends)
        await self.commit_slices(tps)
        for tp in tps:
            self._forget(self._owned.pop(tp))

    def _forget(self, owned: _Owned) -> None:
        if owned.inflight:
            owned.inflight.forget()
        self._undelivered.pop(owned.tp, None)
        self._room.holds.forget(owned.tp.topic, owned.tp.partition)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Find out in the background where the partitions start; meanwhile Faust's own handling."""
        mine = [_Owned(tp, generation_id) for tp in assigned if self._is_mine(tp)]
        for owned in mine:
            if stale := self._owned.get(owned.tp):
                self._forget(stale)
            self._owned[owned.tp] = owned
            self._room.holds.hold(owned.tp.topic, owned.tp.partition, START_UNKNOWN)
        if mine:
            self._starting = self.add_future(self._start_all(mine))
        self._room.assignments.assigned([(tp.topic, tp.partition) for tp in assigned])
        await super().on_partitions_assigned(assigned, generation_id)

    async def _start_all(self, owned: list[_Owned]) -> None:
        """Seek each partition to its start. Keeps trying: the database may be away, and the broker too."""
        backoff = Backoff(*_START_WAITS_S)
        while True:
            reason = await self._try_to_start(owned)
            if reason is None:
                return
            if backoff.tries == 0:
                log.warning("start positions not known yet", extra={"facts": {"error": repr(reason)}})
            await asyncio.sleep(backoff.next_s())

    async def _try_to_start(self, owned: list[_Owned]) -> BaseException | None:
        """None if they have started; else why not, if waiting may heal it."""
        try:
            starts = await self._starts([each.tp for each in owned])
            async with asyncio.timeout(CALL_S):
                await self._in_thread(self._thread.seek_to({tp: start.offset for tp, start in starts.items()}))
        except (ConsumerStoppedError, KafkaError, OSError, TimeoutError) as exc:
            return exc
        except TillError as exc:
            if exc.disposition in {Disposition.RETRY, Disposition.PAUSE}:
                return exc
            raise
        for each in owned:
            if self._owned.get(each.tp) is each:
                self._start(each, starts[each.tp])
        return None

    async def _starts(self, tps: list[TP]) -> dict[TP, Start]:
        sinks = {topic: await self._sink_offsets(topic) for topic in {tp.topic for tp in tps}}
        async with asyncio.timeout(CALL_S):
            committed = await self._in_thread(self._thread.committed(tps))
            bounds = await self._in_thread(self._thread.bounds(tps))
        return {
            tp: start_of(
                tp.partition,
                committed=committed.get(tp),
                sink=sinks[tp.topic],
                beginning=bounds[tp][0],
                end=bounds[tp][1],
            )
            for tp in tps
        }

    async def _sink_offsets(self, topic: str) -> Mapping[int, int] | None:
        ask = self._room.opted_in[topic].sink_offsets
        if ask is None:
            return None
        async with asyncio.timeout(CALL_S):
            return await ask(topic)

    def _start(self, owned: _Owned, start: Start) -> None:
        tp = owned.tp
        if start.because is Because.OUT_OF_RANGE:
            self._report_reset(tp, wanted=start.wanted, position=start.offset)
        facts = {**_facts(tp), "offset": start.offset, "because": start.because.value}
        log.info("partition starts", extra={"facts": facts})
        owned.inflight = InFlight(start.offset, committed=start.committed)
        self._room.holds.release(tp.topic, tp.partition, START_UNKNOWN)

    @Service.task
    async def _look_for_topics(self) -> None:
        async for _ in self.itertimer(_LOOK_EVERY_S, name="look for topics"):
            with contextlib.suppress(ConsumerStoppedError, KafkaError, TimeoutError):
                async with asyncio.timeout(CALL_S):
                    await self._in_thread(self._thread.look_for_topics())

    async def perform_seek(self) -> None:
        """Faust's seek after a rebalance, for its own topics: slice partitions have a start of their own."""
        stock = [tp for tp in self.assignment() if not self._is_mine(tp)]
        # If this takes longer than Faust's request timeout, Faust ends recovery silently and never consumes again.
        async with asyncio.timeout(self.app.conf.broker_request_timeout * 0.9):
            offsets = await self._in_thread(self._thread.seek_stock_to_committed(stock))
        for tp, offset in offsets.items():
            self._read_offset[tp] = offset
            if offset is not None:
                self._committed_offset[tp] = offset or None

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing. Faust's detector only logs, and fails if a rebalance comes in between; see `streams/watchdog.py`."""

    # What others ask

    @property
    def is_ready(self) -> bool:
        """
        Whether we take part in the group, and every slice partition that is ours knows where it starts.

        With more workers than partitions one may own none: it stands by.
        """
        try:
            return (bool(self.assignment()) or self.is_member) and all(each.inflight for each in self._owned.values())
        except ConsumerNotStarted:  # Faust's answer until its thread has come up
            return False

    @property
    def is_member(self) -> bool:
        """Whether we take part in the group; with more workers than partitions, one may own nothing for ever."""
        return self._thread.is_member

    def troubles(self) -> dict[tuple[str, int], str]:
        """Why partitions of ours cannot be read though the broker answers. Safe to call from any thread."""
        now, owned = time.monotonic(), list(self._owned.values())
        return {
            (each.tp.topic, each.tp.partition): each.trouble
            for each in owned
            if each.trouble and now - each.troubled_at < _TROUBLE_S
        }

    def progress(self) -> dict[tuple[str, int], int]:
        """Slices finished since the assignment, by topic and partition. Safe to call from any thread."""
        owned = list(self._owned.values())
        return {(each.tp.topic, each.tp.partition): each.inflight.acked_total if each.inflight else 0 for each in owned}

    async def lag(self) -> dict[tuple[str, int], int]:
        """
        Offsets from what is finished to the end of the log, by topic and partition; asks the broker.

        Raises:
            KafkaError, TimeoutError: it does not answer. Disposition: retry.
        """
        owned = dict(self._owned)
        async with asyncio.timeout(CALL_S):
            bounds = await self._in_thread(self._thread.bounds(owned))
        return {
            (tp.topic, tp.partition): bounds[tp][1] - (each.inflight.done_to if each.inflight else bounds[tp][0])
            for tp, each in owned.items()
        }

    def wake(self) -> None:
        """There may be more to read than a moment ago."""
        self._thread.wake()

    async def _in_thread(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run it on the thread's loop; cancelled there if it is here. Faust's own queue has two workers: both can
        hang.
        """
        if self._thread.thread_loop.is_closed():
            work.close()
            raise ConsumerStoppedError
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._thread.thread_loop))


def _committable(owned: _Owned) -> int | None:
    return owned.inflight.committable() if owned.inflight else None


def _facts(tp: TP) -> dict[str, object]:
    return {"topic": tp.topic, "partition": tp.partition}
