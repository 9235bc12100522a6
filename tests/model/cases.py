"""What a set of events comes to: one row for each rule. The fold in Python and the statement both answer to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sinks.base import Record
from tests.model.history import day, record


@dataclass(frozen=True)
class Case:
    """`because` is the rule; `expected` names the columns that it decides."""

    because: str
    records: Callable[[], Sequence[Record]]
    expected: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.because.replace(" ", "-")


def case(because: str, records: Callable[[], Sequence[Record]], **expected: Any) -> Case:
    return Case(because, records, expected)


CASES = [
    # status
    case(
        "the later instant is the state",
        lambda: [record("succeeded", at=2), record("failed", at=3)],
        status="failed",
        status_rank=30,
        status_at=day(3),
    ),
    case(
        "an older instant that comes late is not",
        lambda: [record("settled", at=3), record("pending", at=1)],
        status="settled",
        created_at=day(1),
    ),
    case(
        "the higher rank decides at one instant",
        lambda: [record("succeeded", at=2), record("pending", at=2), record("failed", at=2)],
        status="succeeded",
    ),
    case(
        "failed expired and cancelled have an order at one instant",
        lambda: [record("cancelled", at=2), record("failed", at=2), record("expired", at=2)],
        status="cancelled",
    ),
    case(
        "a late authorisation goes forward from failed",
        lambda: [record("failed", at=2), record("authorised", at=3)],
        status="authorised",
    ),
    case(
        "a bank's return of a payout goes back from succeeded",
        lambda: [record("succeeded", at=2), record("failed", at=9)],
        status="failed",
        amount=0,
    ),
    case(
        "among the undated the higher rank is the state",
        lambda: [record("succeeded"), record("pending"), record("settled"), record("authorised")],
        status="settled",
        status_at=None,
    ),
    case(
        "an undated adjustment of higher rank wins over the dated state",
        lambda: [record("pending", at=5), record("succeeded")],
        status="succeeded",
        status_at=None,
        created_at=day(5),
    ),
    case(
        "an undated adjustment of lower rank loses against the dated state",
        lambda: [record("succeeded", at=5), record("pending")],
        status="succeeded",
    ),
    case(
        "the dated one wins where the ranks are equal",
        lambda: [record("succeeded", 100, at=5), record("succeeded", 90)],
        status_at=day(5),
        initial_amount=100,
    ),
    case(
        "an undated rank competes with the dated state and not with every dated rank",
        lambda: [record("settled", at=1), record("pending", at=2), record("authorised")],
        status="authorised",
        initial_amount=100,
        amount=0,
    ),
    case(
        "at equal instant and rank the newer key is the state",
        lambda: [record("succeeded", 100, at=2, revision=1), record("succeeded", 90, at=2, revision=0)],
        initial_amount=100,
    ),
    case(
        "revisions of one instant are ordered by their sequence",
        lambda: [record("succeeded", 100, at=2, seq=1), record("succeeded", 90, at=2, seq=2)],
        initial_amount=90,
    ),
    case(
        "a key is as old as its oldest event so that a row sent again stays old",
        lambda: [
            record("succeeded", 100, at=2, revision=0),
            record("succeeded", 90, at=2, revision=1),
            record("succeeded", 100, at=2, revision=2),
        ],
        initial_amount=90,
        adjustments=2,
    ),
    case(
        "a key is as old as its oldest event by sequence too",
        lambda: [
            record("succeeded", 100, at=2, seq=1),
            record("succeeded", 90, at=2, seq=2),
            record("succeeded", 100, at=2, seq=3),
        ],
        initial_amount=90,
    ),
    case(
        "a refund is the state when it is later",
        lambda: [record("succeeded", at=1), record("refunded", at=2)],
        status="refunded",
    ),
    case(
        "a reversed refund goes back from refunded with a newer instant",
        lambda: [
            record("succeeded", 100, at=1),
            record("refunded", 100, at=2),
            record("refund_reversed", 100, at=3, reference="rr", parent="001"),
        ],
        status="refund_reversed",
        amount=100,
    ),
    case(
        "a reversed refund loses against the refund while both are undated",
        lambda: [record("succeeded"), record("refunded"), record("refund_reversed", reference="rr", parent="001")],
        status="refunded",
        amount=100,
    ),
    # what moves no status
    case(
        "an absolute moves no status",
        lambda: [record("pending", at=1), record("adjusted", 50, at=9)],
        status="pending",
        status_at=day(1),
        amount=50,
    ),
    case(
        "a dispute moves neither status nor amount",
        lambda: [record("succeeded", 100, at=1), record("dispute", 100, at=9)],
        status="succeeded",
        amount=100,
        dispute="dispute",
        adjustments=2,
    ),
    case(
        "only an absolute leaves the status unknown",
        lambda: [record("adjusted", 50, at=1)],
        status="unknown",
        status_key=None,
        status_rank=0,
        status_at=None,
        amount=50,
        initial_amount=None,
        created_at=day(1),
        awaiting_original=True,
    ),
    case(
        "only a dispute leaves status and amount as if nothing were known",
        lambda: [record("dispute", 70, at=1, asset="EUR", scheme="visa")],
        status="unknown",
        status_key=None,
        amount=0,
        dispute="dispute",
        asset="EUR",
        scheme="visa",
        awaiting_original=True,
        over_refund=False,
    ),
    case(
        "the dispute is the greatest of dispute won and lost whatever their instants",
        lambda: [record("dispute_lost", at=1), record("dispute", at=3), record("dispute_won", at=2)],
        dispute="dispute_lost",
    ),
    case(
        "a dispute that is won shows",
        lambda: [record("dispute", at=1), record("dispute_won", at=2)],
        dispute="dispute_won",
    ),
    # amounts
    case("money that moved counts", lambda: [record("succeeded", 100)], amount=100, initial_amount=100),
    case("settled money counts", lambda: [record("settled", 100)], amount=100),
    case("an authorisation counts nothing", lambda: [record("authorised", 100)], amount=0, initial_amount=100),
    case("a failure counts nothing", lambda: [record("failed", 100)], amount=0, initial_amount=100),
    case(
        "an authorisation and its captures count once",
        lambda: [
            record("authorised", 100, at=1),
            record("captured", 60, at=2, reference="c1", parent="001"),
            record("captured", 40, at=3, reference="c2", parent="001"),
        ],
        amount=100,
        initial_amount=100,
        status="captured",
        adjustments=3,
    ),
    case(
        "the greatest snapshot gives amount and initial amount also while a delta is the state",
        lambda: [
            record("succeeded", 100, at=1),
            record("succeeded", 120, at=2),
            record("partially_refunded", 20, at=3),
        ],
        initial_amount=120,
        amount=100,
    ),
    case(
        "the greatest snapshot is found among snapshots alone",
        lambda: [record("authorised", 100, at=1), record("refunded", 10, at=5), record("succeeded", 90)],
        status="refunded",
        initial_amount=90,
        amount=80,
    ),
    case(
        "deltas add up with their signs",
        lambda: [
            record("succeeded", 100, at=1),
            record("partially_refunded", 30, at=2, reference="r1", parent="001"),
            record("refunded", 20, at=3, reference="r2", parent="001"),
            record("refund_reversed", 5, at=4, reference="r3", parent="001"),
        ],
        amount=55,
    ),
    case(
        "one refund under one reference counts once however often it is told",
        lambda: [record("succeeded", 100), *(record("refunded", 30, at=number) for number in (1, 2, 3))],
        amount=70,
        adjustments=2,
    ),
    case(
        "a partial and a whole refund of one reference are two",
        lambda: [record("succeeded", 100), record("partially_refunded", 30), record("refunded", 30)],
        amount=40,
        adjustments=3,
    ),
    case(
        "the newest absolute is the amount",
        lambda: [record("succeeded", 100, at=1), record("adjusted", 80, at=2), record("adjusted", 90, at=3)],
        amount=90,
        initial_amount=100,
    ),
    case("an absolute of zero counts", lambda: [record("succeeded", 100, at=1), record("adjusted", 0, at=2)], amount=0),
    case(
        "a dated delta after the absolute counts",
        lambda: [record("succeeded", 100, at=1), record("adjusted", 80, at=2), record("refunded", 30, at=3)],
        amount=50,
    ),
    case(
        "a dated delta before the absolute does not count",
        lambda: [record("succeeded", 100, at=1), record("adjusted", 80, at=3), record("refunded", 30, at=2)],
        amount=80,
    ),
    case(
        "a dated delta at the absolute's instant does not count",
        lambda: [record("succeeded", 100, at=1), record("adjusted", 80, at=2), record("refunded", 30, at=2)],
        amount=80,
    ),
    case(
        "an undated delta counts after any absolute",
        lambda: [record("succeeded", 100, at=1), record("adjusted", 80, at=2), record("refunded", 30)],
        amount=50,
    ),
    case(
        "an undated absolute stands before everything dated",
        lambda: [record("succeeded", 100, at=1), record("adjusted", 80), record("refunded", 30, at=1)],
        amount=50,
    ),
    case(
        "a dated absolute is newer than an undated one",
        lambda: [record("adjusted", 80), record("adjusted", 70, at=1), record("adjusted", 60, at=0.5)],
        amount=70,
    ),
    case(
        "among undated absolutes the newer key counts",
        lambda: [record("adjusted", 80, revision=2), record("adjusted", 70, revision=1)],
        amount=80,
    ),
    case(
        "the sum of many great amounts does not overflow",
        lambda: [
            record("succeeded", 10**16 - 1),
            *(record("captured", 10**16 - 1, reference=f"c{number}", parent="001") for number in range(1_000)),
        ],
        amount=1_001 * (10**16 - 1),
    ),
    case(
        "a negative snapshot is no refund",
        lambda: [record("succeeded", -100)],
        amount=-100,
        over_refund=False,
    ),
    # keys
    case(
        "the same fact from two files is one adjustment",
        lambda: [record("succeeded", 100, at=1, path="a"), record("succeeded", 100, at=1, path="b", revision=3)],
        adjustments=1,
        amount=100,
    ),
    case(
        "a snapshot with another amount is another adjustment",
        lambda: [record("succeeded", 100, at=1), record("succeeded", 101, at=1)],
        adjustments=2,
    ),
    case(
        "the greatest revision represents a key",
        lambda: [
            record("succeeded", 100),
            record("refunded", 30, at=1, revision=1),
            record("refunded", 20, at=1, revision=2),
        ],
        amount=80,
        conflicting_amounts=True,
        adjustments=2,
    ),
    case(
        "a corrected instant of a delta holds with the newer revision",
        lambda: [record("refunded", 30, at=5, revision=1), record("refunded", 30, at=2, revision=2)],
        status_at=day(2),
        created_at=day(2),
        conflicting_amounts=False,
    ),
    # assets and flags
    case(
        "the greatest snapshot gives the asset",
        lambda: [record("authorised", 100, at=1, asset="EUR"), record("succeeded", 100, at=2, asset="USD")],
        asset="USD",
        asset_mismatch=True,
    ),
    case(
        "a delta in another asset is kept flagged and left out of the amount",
        lambda: [record("succeeded", 100, at=1), record("refunded", 30, at=2, asset="EUR")],
        amount=100,
        asset="USD",
        asset_mismatch=True,
        adjustments=2,
        status="refunded",
    ),
    case(
        "an absolute in another asset is left out of the amount",
        lambda: [
            record("succeeded", 100, at=1),
            record("adjusted", 30, at=2, asset="EUR"),
            record("adjusted", 80, at=1.5),
        ],
        amount=80,
        asset_mismatch=True,
    ),
    case(
        "two spellings of an asset are two assets",
        lambda: [record("succeeded", 100, at=1, asset="USD"), record("refunded", 30, at=2, asset="USD/2")],
        asset_mismatch=True,
        amount=100,
    ),
    case(
        "a dispute in another asset is flagged too",
        lambda: [record("succeeded", 100, at=1), record("dispute", 100, at=2, asset="EUR")],
        asset_mismatch=True,
    ),
    case(
        "a refund beyond what moved is flagged",
        lambda: [record("succeeded", 100, at=1), record("refunded", 130, at=2)],
        amount=-30,
        over_refund=True,
    ),
    case(
        "a refund of an authorisation is flagged",
        lambda: [record("authorised", 100), record("refunded", 1)],
        over_refund=True,
    ),
    case(
        "a whole refund is not flagged",
        lambda: [record("succeeded", 100), record("refunded", 100)],
        amount=0,
        over_refund=False,
    ),
    case(
        "a refund beyond an absolute is flagged without a snapshot too",
        lambda: [record("adjusted", 100, at=1), record("refunded", 130, at=2)],
        over_refund=True,
        awaiting_original=True,
        amount=-30,
    ),
    case(
        "a refund that an absolute has overtaken does not flag",
        lambda: [record("succeeded", 100, at=1), record("refunded", 130, at=2), record("adjusted", -5, at=3)],
        amount=-5,
        over_refund=False,
    ),
    case(
        "events of one key that disagree on the amount are flagged",
        lambda: [record("refunded", 30), record("refunded", 31)],
        conflicting_amounts=True,
        adjustments=1,
    ),
    case(
        "events of one key that disagree on the asset are flagged",
        lambda: [record("succeeded", 30), record("succeeded", 30, asset="EUR", revision=1)],
        conflicting_amounts=True,
        asset="EUR",
        asset_mismatch=False,
    ),
    # before the original
    case(
        "a refund before its payment waits for it",
        lambda: [record("refunded", 30, at=2, asset="EUR", scheme="visa")],
        status="refunded",
        initial_amount=None,
        amount=-30,
        asset="EUR",
        scheme="visa",
        awaiting_original=True,
        over_refund=False,
        created_at=day(2),
    ),
    case(
        "the original completes it",
        lambda: [record("refunded", 30, at=2), record("succeeded", 100, at=1)],
        status="refunded",
        initial_amount=100,
        amount=70,
        awaiting_original=False,
    ),
    case(
        "without a snapshot the greatest delta gives the asset",
        lambda: [
            record("refunded", 30, at=2, asset="EUR", reference="a", parent="001"),
            record("captured", 50, at=3, asset="USD", reference="b", parent="001"),
            record("adjusted", 1, at=9, asset="JPY"),
        ],
        asset="USD",
        amount=50,
        asset_mismatch=True,
    ),
    # the rest
    case("an unknown instant renders as none", lambda: [record("succeeded")], created_at=None, status_at=None),
    case(
        "the first instant of any adjustment is when it was created",
        lambda: [record("succeeded", at=5), record("dispute", at=2), record("refunded", at=9)],
        created_at=day(2),
    ),
    case(
        "the scheme is that of the adjustment that gives the asset",
        lambda: [record("authorised", at=1, scheme="visa"), record("succeeded", at=2, scheme="upi")],
        scheme="upi",
    ),
    case(
        "a snapshot that names no scheme does not take one away",
        lambda: [
            record("succeeded", at=1, scheme="visa"),
            record("settled", at=2),
            record("refunded", at=3, scheme="card"),
        ],
        scheme="visa",
    ),
]
