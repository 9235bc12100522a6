"""
The events of the benchmark: one history of payments, the same for every contender and every run.

Made from a seed, and encoded as the directory source does. A tenth of the events touch a payment that an earlier one
named; most payments succeed, some fail, some are captured, settled, refunded or disputed.
"""

from __future__ import annotations

import csv
import hashlib
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from connectors.envelope import Connector, Envelope
from connectors.ports import Message
from connectors.record import PaymentFacts
from connectors.source import SourceRecord, Task
from schemas.payment import PaymentType, Status

PARTITIONS = 4
REPEATS = 0.10  # the share of events about a payment that an earlier event named
SEED = 20_260_101
START = datetime(2026, 1, 1, tzinfo=UTC)
CONNECTOR = Connector(UUID(int=SEED), "acme-payins", "acme")
RUN = UUID(int=SEED + 1)
PATH = "payins-2026-01-01.csv"
COLUMNS = ("reference", "parent_reference", "type", "status", "amount", "asset", "scheme", "effective_at")

# Of events that name a payment for the first time.
_FIRST = {
    Status.SUCCEEDED: 74,
    Status.FAILED: 9,
    Status.PENDING: 6,
    Status.AUTHORISED: 6,
    Status.CANCELLED: 3,
    Status.EXPIRED: 2,
}
_NEXT = {
    Status.SETTLED: 45,
    Status.PARTIALLY_REFUNDED: 20,
    Status.REFUNDED: 20,
    Status.CAPTURED: 10,
    Status.DISPUTE: 5,
}
_OWN_REFERENCE = {Status.PARTIALLY_REFUNDED, Status.REFUNDED, Status.CAPTURED}
_SCHEMES = ("visa", "mastercard", "upi", "sepa")
_ASSETS = ("EUR/2", "USD/2", "INR/2")


def records(count: int, *, seed: int = SEED, prefix: str = "pay") -> Iterator[SourceRecord]:
    """`count` records in the order of the source."""
    chance = random.Random(seed)
    first, first_weights = list(_FIRST), list(_FIRST.values())
    later, later_weights = list(_NEXT), list(_NEXT.values())
    known: list[tuple[str, int, str, str, datetime]] = []
    for number in range(count):
        if known and chance.random() < REPEATS:
            reference, amount, asset, scheme, at = known[chance.randrange(len(known))]
            status = chance.choices(later, later_weights)[0]
            own, parent = reference, None
            if status in _OWN_REFERENCE:
                own, parent = f"{reference}-{number}", reference
                amount = amount // 2 or 1
            at += timedelta(minutes=chance.randrange(1, 10_000))
        else:
            reference = own = f"{prefix}_{chance.getrandbits(64):016x}"
            parent = None
            status = chance.choices(first, first_weights)[0]
            amount, asset, scheme = chance.randrange(100, 1_000_000), chance.choice(_ASSETS), chance.choice(_SCHEMES)
            at = START + timedelta(milliseconds=250 * number)
            known.append((reference, amount, asset, scheme, at))
        facts = PaymentFacts(own, parent, PaymentType.PAYIN, status, amount, asset, scheme, at, None)
        yield SourceRecord(f"row {number}", facts, number + 2)


def messages(count: int, *, seed: int = SEED) -> Sequence[Message]:
    """The same, as the directory source publishes them."""
    task = Task(PATH, hashlib.sha256(PATH.encode()).hexdigest(), hashlib.sha256(PATH.encode()).hexdigest(), PATH)
    envelope = Envelope(CONNECTOR, RUN, task, START)
    return envelope.prepare(records(count, seed=seed), (), START).messages


def rows(found: Iterator[SourceRecord]) -> Iterator[tuple[str, ...]]:
    """The same, as the lines of a partner's file, without its header."""
    for facts in (record.payment for record in found):
        yield (
            facts.reference,
            facts.parent_reference or "",
            facts.type.value,
            facts.status.value,
            str(facts.amount),
            facts.asset,
            facts.scheme,
            "" if facts.effective_at is None else facts.effective_at.isoformat(),
        )


def write_csv(path: Path, found: Iterator[SourceRecord]) -> None:
    """A partner's file with these records."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows(found))
