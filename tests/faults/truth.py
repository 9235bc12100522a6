"""
The generator, which owns the truth: records, and what has to become of each, whatever order and faults they meet.

What a payment must look like is plain arithmetic here, not the sink's fold: the two agree, or one is wrong.
"""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

PROVIDER = "example"
NO_RUN = UUID(int=0)
CONNECTOR = UUID("6f1d4c1e-0000-4000-8000-000000000001")
REFUSED_SCHEME = "refused"  # a stage's database has a CHECK against it: 23514, found by PostgreSQL alone
HUGE_LINE = 2**40  # a valid event, and no `integer`: found by the client library, before anything is sent
GARBAGE = b'{"schema_version": "1.0", "id": '

_SNAPSHOTS = ("pending", "authorised", "succeeded", "settled", "failed")
_DELTAS = ("captured", "partially_refunded", "refunded", "refund_reversed")
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sent:
    """
    One record, and its fate: stored, or dead for `reason`.

    `event_id` and `run_id` are those under which the sink must count it; without an event id, it is its place in the
    log.
    No two different records of a history have the same key and value.
    """

    event_id: str
    run_id: UUID
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    reason: str = ""

    @property
    def name(self) -> str:
        """What to call it."""
        return self.event_id or f"{self.reason} under the key {self.key!r}"

    @property
    def is_poison(self) -> bool:
        """Whether a dead letter is its fate."""
        return bool(self.reason)


@dataclass(slots=True)
class Expected:
    """What a payment must look like once all its records are in: business columns only."""

    initial: int
    status: str = "succeeded"
    refunded: int = 0
    adjustments: int = 0

    @property
    def amount(self) -> int:
        """What is left of it."""
        return self.initial - self.refunded


@dataclass(slots=True)
class Truth:
    """Everything that was to be published, in the order of its making."""

    sent: list[Sent] = field(default_factory=list)
    payments: dict[str, Expected] = field(default_factory=dict)
    ledger: dict[UUID, Counter[str]] = field(default_factory=dict)

    @property
    def poison(self) -> list[Sent]:
        """Every record that must die."""
        return [each for each in self.sent if each.is_poison]

    @property
    def stored(self) -> set[str]:
        """The event ids that must have a row."""
        return {each.event_id for each in self.sent if not each.is_poison}


class History:
    """Makes records that no two histories share, and writes down what must become of them."""

    def __init__(self, seed: int = 0, *, foreign: bool = False) -> None:
        """A `foreign` one is another team's: no headers, no lineage, and so no run."""
        self.truth = Truth()
        self.run = NO_RUN if foreign else uuid.uuid4()
        self._name = uuid.uuid4().hex[:8]
        self._random = random.Random(seed)
        self._foreign = foreign
        self._numbers = 0

    def load(self, payments: int, *, garbage: int = 0, refused: int = 0) -> list[Sent]:
        """
        A mixed load of about three records for each payment, duplicates of all kinds among them, in random order.

        `garbage` does not decode; `refused` decodes and is refused, half by PostgreSQL and half by its client.
        """
        made = [self._payment() for _ in range(payments)]
        for records in self._random.sample(made, payments // 10):
            records.extend(self._redelivered(records))
        made += [[self.garbage()] for _ in range(garbage)]
        made += [[self.refused(by_client=bool(number % 2))] for number in range(refused)]
        return self.interleaved(made)

    def interleaved(self, groups: Iterable[list[Sent]]) -> list[Sent]:
        """The groups mixed at random; within a group the order stays, as it does within a Kafka key."""
        queues = [list(reversed(group)) for group in groups if group]
        order = [index for index, queue in enumerate(queues) for _ in queue]
        self._random.shuffle(order)
        return [queues[index].pop() for index in order]

    def good(self, reference: str = "", headers: tuple[tuple[str, bytes], ...] | None = None, **facts: Any) -> Sent:
        """One payment in one record."""
        reference = reference or self.reference("P")
        amount = facts.pop("amount", None) or self._random.randrange(1_000, 100_000)
        self.truth.payments[reference] = expected = Expected(amount)
        return self._stored(self.event(reference, "succeeded", amount, at=1, **facts), expected, headers)

    def once_more(self, sent: Sent) -> Sent:
        """The very same event once more: a redelivery, which counts nowhere."""
        self.truth.sent.append(sent)
        return sent

    def again(self, good: Sent) -> Sent:
        """The fact of a `good` one under another event id: a duplicate."""
        event = json.loads(good.value or b"")
        payment, lineage = event["payment"], event.get("lineage")
        parent = payment["parent_reference"]
        made = self.event(
            payment["reference"], payment["status"], payment["amount"], at=0, parent=parent, lineage=lineage
        )
        made["payment"] = payment
        self._count(self.run, "duplicate")
        return self._stored(made)

    def more(self, reference: str) -> Sent:
        """One more refund of a payment."""
        expected, refund = self.truth.payments[reference], self._random.randrange(1, 100)
        expected.status, expected.refunded = "partially_refunded", expected.refunded + refund
        own = self.reference(f"{reference}-")
        event = self.event(own, "partially_refunded", refund, at=3, parent=reference)
        return self._stored(event, expected)

    def garbage(self) -> Sent:
        """Bytes that are no event."""
        event_id = self._event_id("garbage")
        return self.unnamed(event_id, f"{PROVIDER}/{event_id}".encode(), GARBAGE + event_id.encode(), "undecodable")

    def tombstone(self) -> Sent:
        """A key without a value."""
        event_id = self._event_id("tombstone")
        return self.unnamed(event_id, f"{PROVIDER}/{event_id}".encode(), None, "tombstone")

    def keyless(self) -> Sent:
        """A good event without a key."""
        event = self.event(self.reference("K"), "succeeded", 100, at=1)
        return self.unnamed(event["id"], None, encode(event), "null_key")

    def unnamed(self, event_id: str, key: bytes | None, value: bytes | None, reason: str) -> Sent:
        """Poison that only its headers name, or nobody where it is a foreign client's."""
        return self.dead("" if self._foreign else event_id, key, value, reason)

    def refused(self, *, by_client: bool) -> Sent:
        """A valid event that cannot be stored, which nobody knows before it is tried."""
        reference = self.reference("R")
        fault: dict[str, Any] = (
            {"lineage": {"line": HUGE_LINE}} if by_client and not self._foreign else {"scheme": REFUSED_SCHEME}
        )
        event = self.event(reference, "succeeded", 100, at=1, **fault)
        return self.dead(event["id"], event["foreign_id"].encode(), encode(event), "sink_refused")

    def dead(
        self,
        event_id: str,
        key: bytes | None,
        value: bytes | None,
        reason: str,
        *,
        headers: tuple[tuple[str, bytes], ...] | None = None,
    ) -> Sent:
        """A record that must die."""
        chosen = self._headers(event_id, self.run) if headers is None else headers
        made = Sent(event_id, self.run, key, value, chosen, reason)
        self.truth.sent.append(made)
        self._count(self.run, "dead")
        return made

    def event(
        self,
        reference: str,
        status: str,
        amount: int,
        *,
        at: float,
        parent: str | None = None,
        lineage: Mapping[str, Any] | None = None,
        **facts: Any,
    ) -> dict[str, Any]:
        """An event as JSON has it. `at` is in days."""
        event_id = self._event_id(reference)
        body = {
            "schema_version": "1.0",
            "id": event_id,
            "foreign_id": f"{PROVIDER}/{parent or reference}",
            "type": f"payment.{status}",
            "headers": {},
            "created_at": _instant(0),
            "payment": {
                "provider": PROVIDER,
                "reference": reference,
                "parent_reference": parent,
                "type": "payin",
                "status": status,
                "amount": amount,
                "asset": "USD",
                "scheme": "",
                "effective_at": _instant(at),
                "raw": f"{reference},{status},{amount}",
                **facts,
            },
        }
        if not self._foreign:
            body["lineage"] = {
                "connector_id": str(CONNECTOR),
                "connector": PROVIDER,
                "run_id": str(self.run),
                "source_object": "ab" * 32,
                "position": f"row {self._numbers}",
                "path": "in/load.jsonl",
                "line": self._numbers,
                "revision_at": _instant(0),
                "revision_seq": 0,
                **(lineage or {}),
            }
        return body

    def tangle(self, payments: int, records: int) -> list[Sent]:
        """
        Records of a few payments that tie wherever they can: instants, ranks, revisions, amounts, assets, references.

        Their order must not matter. What comes of them is not told here: it must be the same, whatever the order.
        """
        references = [self.reference("T") for _ in range(payments)]
        return [self._stored(self._knot(self._random.choice(references))) for _ in range(records)]

    def _knot(self, reference: str) -> dict[str, Any]:
        pick = self._random.choice
        status = pick([*_SNAPSHOTS, *_DELTAS, "adjusted", "dispute", "dispute_won"])
        is_delta = status in _DELTAS
        at = pick([None, 1.0, 1.0, 2.0, 3.0])
        event = self.event(
            f"{reference}-{pick('abc')}" if is_delta else reference,
            status,
            pick([0, 10, 10, 70]),
            at=at or 0,
            parent=reference if is_delta else None,
            asset=pick(["USD", "USD", "USD", "EUR"]),
            scheme=pick(["", "visa", "upi"]),
            raw=pick([None, "one", "two"]),
            lineage={"revision_at": _instant(pick([0, 0, 1])), "revision_seq": pick([0, 1])},
        )
        if at is None:
            event["payment"]["effective_at"] = None
        return event

    def labelled(self, sent: Sent, name: str) -> Sent:
        """The same record with one more header; PEP 383 for a name that is not UTF-8."""
        self.truth.sent.remove(sent)
        made = replace(sent, headers=(*sent.headers, (name, b"v")))
        self.truth.sent.append(made)
        return made

    def _payment(self) -> list[Sent]:
        """Pending, succeeded, perhaps a refund, perhaps the same fact under a second id."""
        reference = self.reference("P")
        initial, refund = self._random.randrange(1_000, 100_000), self._random.randrange(1, 1_000)
        self.truth.payments[reference] = expected = Expected(initial)
        records = [
            self._stored(self.event(reference, "pending", initial, at=0), expected),
            self._stored(self.event(reference, "succeeded", initial, at=1), expected),
        ]
        if self._random.random() < 0.3:
            own = f"{reference}-refund"
            event = self.event(own, "partially_refunded", refund, at=2, parent=reference)
            records.append(self._stored(event, expected))
            expected.status, expected.refunded = "partially_refunded", refund
        if self._random.random() < 0.2:
            self._random.shuffle(records)
        if self._random.random() < 0.1:
            records.append(self.again(records[0]))
        return records

    def _redelivered(self, records: list[Sent]) -> list[Sent]:
        """The same event again, which counts nowhere; and one of ours under another run, a duplicate there."""
        if self._foreign:
            return [self.once_more(records[0])]
        again, elsewhere, run = self.once_more(records[0]), records[-1], uuid.uuid5(self.run, "another run")
        repeated = Sent(elsewhere.event_id, run, elsewhere.key, elsewhere.value, self._headers(elsewhere.event_id, run))
        self._count(run, "duplicate")
        self.truth.sent.append(repeated)
        return [again, repeated]

    def _stored(
        self,
        event: dict[str, Any],
        expected: Expected | None = None,
        headers: tuple[tuple[str, bytes], ...] | None = None,
    ) -> Sent:
        chosen = self._headers(event["id"], self.run) if headers is None else headers
        made = Sent(event["id"], self.run, event["foreign_id"].encode(), encode(event), chosen)
        self.truth.sent.append(made)
        if expected is not None:
            expected.adjustments += 1
            self._count(self.run, "applied")
        return made

    def _count(self, run: UUID, outcome: str) -> None:
        self.truth.ledger.setdefault(run, Counter())[outcome] += 1

    def _headers(self, event_id: str, run: UUID) -> tuple[tuple[str, bytes], ...]:
        if self._foreign:
            return ()
        return (("till-event", event_id.encode()), ("till-run", str(run).encode()))

    def _event_id(self, what: str) -> str:
        self._numbers += 1
        return f"{self._name}-{self._numbers}-{what}"[:200]

    def reference(self, kind: str) -> str:
        """A reference that nothing else has."""
        self._numbers += 1
        return f"{kind}{self._name}{self._numbers}"


def encode(event: Mapping[str, Any]) -> bytes:
    """Compact JSON."""
    return json.dumps(event, separators=(",", ":")).encode()


def _instant(days: float) -> str:
    return (_START + timedelta(days=days)).isoformat().replace("+00:00", "Z")
