"""
Where connectors stand: the Faust table `connector_state`, fed by the state topic, and the checkpoint store on top of
it.

    runner ─ save ─▶ till.connector-state ─▶ agent ─▶ table (newest (epoch, seq) of each task) ─▶ mirror in PostgreSQL
                                                        └─ load, after a barrier: what was saved before it is applied

The table is the agent's alone: the runner never writes it. Faust may lose a table's last writes in a crash (its
changelog flush is bounded, not awaited), so a cursor may fall back and never run ahead; falling back costs duplicates,
which the sink absorbs.

A claim is announced on the same topic. From there on in the log, what an older epoch says is refused: the order of the
log decides, so every worker that ever reads it decides the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID, uuid4

import faust
from pydantic import ValidationError

from schemas import metric
from schemas.checkpoint import Checkpoint
from schemas.errors import BrokerUnavailable, Fenced, SinkError
from schemas.failpoint import failpoint
from schemas.metric import Meter
from schemas.topic import Topics
from streams.backoff import Backoff
from streams.partition import partition_of
from streams.publisher import CheckpointPublisher, Producer

log = logging.getLogger(__name__)

TABLE = "connector_state"
BARRIER_S = 60.0
_BARRIER_KEY = b"barrier/"
_EPOCH_KEY = b"epoch/"
_AT_A_TIME = 500  # checkpoints that are decoded before others get the event loop


class Mirror(Protocol):
    """The copy of the table that readers query."""

    async def mirror(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Store them where they are newer. Raises SinkError."""
        ...


class ConnectorState:
    """
    The table, its agent and the store, for one Faust app. Create it before the app starts; `load` and `save` work
    once it runs.

    Implements `connectors.ports.CheckpointStore`.
    """

    def __init__(self, app: faust.App, topics: Topics, producer: Producer, mirror: Mirror, meter: Meter) -> None:
        self._topics = topics
        self._producer = producer
        self._publisher = CheckpointPublisher(producer, topics)
        self._mirror = mirror
        self._meter = meter
        self._barriers: dict[bytes, asyncio.Future[None]] = {}
        self._epochs: dict[UUID, int] = {}
        # Faust's generics stop at object
        self._table: Any = app.Table(
            TABLE,
            partitions=topics.connector_state.partitions,
            # From the types Faust takes the codec of the changelog, "raw"; without them recovery would read JSON.
            key_type=bytes,
            value_type=bytes,
        )
        source = app.topic(
            topics.connector_state.name, key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw"
        )
        app.agent(source, name="connector_state_keeper", concurrency=1)(self._keep)

    async def load(self, connector_id: UUID) -> Mapping[str, Checkpoint]:
        """
        The newest checkpoint of every task, by task key: everything saved before this call included.

        Raises:
            BrokerUnavailable: retry; the barrier did not come back, because another worker owns the partition or the
                app is not ready.
        """
        await self._barrier(connector_id)
        prefix = f"{connector_id}/".encode()
        saved = [value for key, value in list(self._table.items()) if key.startswith(prefix)]
        found: dict[str, Checkpoint] = {}
        for index, value in enumerate(saved):
            if index % _AT_A_TIME == _AT_A_TIME - 1:
                await asyncio.sleep(0)
            checkpoint = Checkpoint.model_validate_json(value)
            found[checkpoint.task] = checkpoint
            self._saw(connector_id, checkpoint.epoch)
        return found

    async def save(self, checkpoint: Checkpoint) -> None:
        """
        Return once the broker acknowledged the checkpoint.

        Raises:
            BrokerUnavailable: retry. Fenced: pause; a newer epoch was seen.
        """
        newest = self.newest_epoch(checkpoint.connector_id)
        if newest > checkpoint.epoch:
            raise Fenced(
                f"epoch {checkpoint.epoch} of connector {checkpoint.connector_id} has been succeeded by {newest}"
            )
        await self._publisher.publish(checkpoint)
        failpoint("after_checkpoint")

    def newest_epoch(self, connector_id: UUID) -> int:
        """The greatest epoch seen for the connector, 0 if none: a claim must go above it."""
        announced = int(self._table.get(_epoch_key(connector_id)) or 0)
        return max(announced, self._epochs.get(connector_id, 0))

    async def announce(self, connector_id: UUID, epoch: int) -> None:
        """
        Return once the log holds the claim: what an older epoch says after it is refused, by whoever reads it.

        Raises:
            BrokerUnavailable: retry.
        """
        claim = _Marker(_epoch_key(connector_id), str(epoch).encode())
        await self._producer.send(self._topics.connector_state.name, [(self._partition(connector_id), claim)])

    async def _keep(self, stream: Any) -> None:
        """The agent: one message at a time, in order; nothing raises out of it."""
        async for key, value in stream.items():
            await self._apply(key, value)

    async def _apply(self, key: bytes | None, value: bytes | None) -> None:
        if key is not None and key.startswith(_BARRIER_KEY):
            waiting = self._barriers.pop(value or b"", None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
            return
        if key is not None and key.startswith(_EPOCH_KEY):
            self._claimed(key, value)
            return
        checkpoint = _checkpoint(key, value)
        if checkpoint is None or key is None or value is None:
            return
        if checkpoint.epoch < self.newest_epoch(checkpoint.connector_id):
            facts = {"connector": str(checkpoint.connector_id), "epoch": checkpoint.epoch, "task": checkpoint.task}
            log.warning("checkpoint of an outdated epoch refused", extra={"facts": facts})
            self._meter.add(metric.CHECKPOINTS_REFUSED_TOTAL)
            return
        self._saw(checkpoint.connector_id, checkpoint.epoch)
        stored = self._table.get(key)
        known = None if stored is None else Checkpoint.model_validate_json(stored)
        if checkpoint.newer_than(known):
            self._table[key] = value
            failpoint("state_before_mirror")
        elif known is not None and known.newer_than(checkpoint):
            return
        # else it comes again: whoever took it before may have died before its copy
        await self._copy(checkpoint)
        self._meter.add(metric.CHECKPOINTS_TOTAL)

    def _claimed(self, key: bytes, value: bytes | None) -> None:
        """A claim was announced: from here on the log is its epoch's."""
        try:
            connector_id, epoch = UUID(key.removeprefix(_EPOCH_KEY).decode()), int(value or b"")
        except ValueError:
            log.error("a message on the state topic is no claim", extra={"facts": {"key": repr(key)[:200]}})
            return
        if epoch > self.newest_epoch(connector_id):
            self._table[key] = value

    def _saw(self, connector_id: UUID, epoch: int) -> None:
        self._epochs[connector_id] = max(self._epochs.get(connector_id, 0), epoch)

    def _partition(self, connector_id: UUID) -> int:
        return partition_of(str(connector_id).encode(), self._topics.connector_state.partitions)

    async def _copy(self, checkpoint: Checkpoint) -> None:
        """To the mirror, waiting out every failure: readers may be late, never wrong."""
        backoff = Backoff()
        while True:
            try:
                return await self._mirror.mirror([checkpoint])
            except SinkError as exc:
                if backoff.tries == 0:
                    log.error("checkpoint not mirrored yet", extra={"facts": {"error": str(exc), "code": exc.code}})
                await asyncio.sleep(backoff.next_s())

    async def _barrier(self, connector_id: UUID) -> None:
        partition = self._partition(connector_id)
        nonce = uuid4().hex.encode()
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._barriers[nonce] = waiting
        try:
            # one key for each partition, so that compaction keeps one of them
            marker = _Marker(_BARRIER_KEY + str(partition).encode(), nonce)
            await self._producer.send(self._topics.connector_state.name, [(partition, marker)])
            await asyncio.wait_for(waiting, BARRIER_S)
        except TimeoutError as exc:
            raise BrokerUnavailable(
                f"the state of connector {connector_id} did not catch up within {BARRIER_S:.0f} s",
                hint="another worker owns its partition, or the state agent is stuck: see its log",
            ) from exc
        finally:
            self._barriers.pop(nonce, None)


class _Marker:
    """A message that is no checkpoint: it marks a moment, or a claim."""

    __slots__ = ("headers", "key", "value")

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key = key
        self.value = value
        self.headers: Sequence[tuple[str, bytes]] = ()


def _epoch_key(connector_id: UUID) -> bytes:
    return _EPOCH_KEY + str(connector_id).encode()


def _checkpoint(key: bytes | None, value: bytes | None) -> Checkpoint | None:
    """
    The checkpoint, or None for what nobody of ours wrote: it is logged and passed over, for nothing can be done with
    it.
    """
    if value is None:
        return None
    try:
        checkpoint = Checkpoint.model_validate_json(value)
    except (ValidationError, json.JSONDecodeError) as exc:
        log.error(
            "a message on the state topic is no checkpoint",
            extra={"facts": {"key": repr(key)[:200], "error": str(exc)[:200]}},
        )
        return None
    return checkpoint if key == checkpoint.key.encode("utf-8", "surrogatepass") else None
