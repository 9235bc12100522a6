"""
Where connectors stand: the Faust table `connector_state`, fed by the state topic, and the checkpoint store on top of
it.

    runner ─ save ─▶ till.connector-state ─▶ agent ─▶ table (newest (epoch, seq) of each task) ─▶ mirror in PostgreSQL
                                                        └─ load, after a barrier: what was saved before it is applied

The table is the agent's alone: the runner never writes it. Faust may lose a table's last writes in a crash (its
changelog flush is
bounded, not awaited), so a cursor may fall back and never run ahead; falling back costs duplicates, which the sink
absorbs.
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
        found = [Checkpoint.model_validate_json(value) for key, value in self._table.items() if key.startswith(prefix)]
        return {checkpoint.task: checkpoint for checkpoint in found}

    async def save(self, checkpoint: Checkpoint) -> None:
        """
        Return once the broker acknowledged the checkpoint.

        Raises:
            BrokerUnavailable: retry. Fenced: pause; a newer epoch was seen.
        """
        newest = self._epochs.get(checkpoint.connector_id, 0)
        if newest > checkpoint.epoch:
            raise Fenced(
                f"epoch {checkpoint.epoch} of connector {checkpoint.connector_id} has been succeeded by {newest}"
            )
        await self._publisher.publish(checkpoint)
        failpoint("after_checkpoint")

    def newest_epoch(self, connector_id: UUID) -> int:
        """The greatest epoch seen for the connector, 0 if none: a claim must go above it."""
        return self._epochs.get(connector_id, 0)

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
        checkpoint = _checkpoint(key, value)
        if checkpoint is None or key is None or value is None:
            return
        self._epochs[checkpoint.connector_id] = max(self._epochs.get(checkpoint.connector_id, 0), checkpoint.epoch)
        known = self._table.get(key)
        if not checkpoint.newer_than(None if known is None else Checkpoint.model_validate_json(known)):
            return
        self._table[key] = value
        failpoint("state_before_mirror")
        await self._copy(checkpoint)
        self._meter.add(metric.CHECKPOINTS_TOTAL, connector=str(checkpoint.connector_id))

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
        partition = partition_of(str(connector_id).encode(), self._topics.connector_state.partitions)
        nonce = uuid4().hex.encode()
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._barriers[nonce] = waiting
        try:
            await self._producer.send(self._topics.connector_state.name, [(partition, _Barrier(partition, nonce))])
            await asyncio.wait_for(waiting, BARRIER_S)
        except TimeoutError as exc:
            raise BrokerUnavailable(
                f"the state of connector {connector_id} did not catch up within {BARRIER_S:.0f} s",
                hint="another worker owns its partition, or the state agent is stuck: see its log",
            ) from exc
        finally:
            self._barriers.pop(nonce, None)


class _Barrier:
    """A message that marks a moment. One key per partition, so that compaction keeps one of them."""

    __slots__ = ("headers", "key", "value")

    def __init__(self, partition: int, nonce: bytes) -> None:
        self.key = _BARRIER_KEY + str(partition).encode()
        self.value = nonce
        self.headers: Sequence[tuple[str, bytes]] = ()


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
