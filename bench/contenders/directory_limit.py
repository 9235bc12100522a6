"""A plain loop: dictionaries, json.dumps, aiokafka's batches, the same partitioner. No file, no checkpoint."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time

from aiokafka import AIOKafkaProducer

from bench.contender import Order
from bench.flat import run
from bench.history import CONNECTOR, PARTITIONS, PATH, RUN, START, records, rows
from streams.partition import partition_of

BATCH = 1_000
BATCH_BYTES = 512 * 1_024


async def main(order: Order) -> None:
    """Send `events`, a batch of rows at a time; then wait to be killed."""
    lines = list(rows(records(order.events)))
    producer = AIOKafkaProducer(
        bootstrap_servers=order.bootstrap, acks="all", enable_idempotence=False, linger_ms=0, max_batch_size=BATCH_BYTES
    )
    await producer.start()
    constant = {
        "connector_id": str(CONNECTOR.id),
        "connector": CONNECTOR.name,
        "run_id": str(RUN),
        "source_object": hashlib.sha256(PATH.encode()).hexdigest(),
        "path": PATH,
        "revision_at": START.isoformat(),
        "revision_seq": 0,
    }
    created_at = START.isoformat()
    headers = (
        ("till-run", str(RUN).encode()),
        ("till-connector", str(CONNECTOR.id).encode()),
        ("till-version", b"1.0"),
    )
    pending: list[asyncio.Future[object]] = []
    for start in range(0, len(lines), BATCH):
        batches = {partition: producer.create_batch() for partition in range(PARTITIONS)}
        now_ms = int(time.time() * 1_000)
        for number, line in enumerate(lines[start : start + BATCH], start):
            reference, parent, type_, status, amount, asset, scheme, effective_at = line
            identifier = hashlib.sha256(f"{constant['source_object']}{number}".encode()).hexdigest()[:32]
            key = f"acme/{parent or reference}"
            value = json.dumps(
                {
                    "schema_version": "1.0",
                    "id": identifier,
                    "foreign_id": key,
                    "type": f"payment.{status}",
                    "headers": {},
                    "created_at": created_at,
                    "payment": {
                        "provider": CONNECTOR.provider,
                        "reference": reference,
                        "parent_reference": parent or None,
                        "type": type_,
                        "status": status,
                        "amount": int(amount),
                        "asset": asset,
                        "scheme": scheme,
                        "effective_at": effective_at,
                        "raw": None,
                    },
                    "lineage": {**constant, "position": f"row {number}", "line": number + 2},
                },
                separators=(",", ":"),
            ).encode()
            batches[partition_of(key.encode(), PARTITIONS)].append(
                key=key.encode(), value=value, timestamp=now_ms, headers=[("till-event", identifier.encode()), *headers]
            )
        for future in pending:
            await future
        pending = [
            await producer.send_batch(batch, order.topic, partition=partition)
            for partition, batch in batches.items()
            if batch.record_count()
        ]
    for future in pending:
        await future
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main(Order.given()))
