"""
`till ledger verify`: does every record have exactly one fate, and are the payments what their events say?

Names the run and the hop where a record was dropped, doubled or altered. Reads one snapshot, changes nothing.

    read ─source─▶ published ─topic─▶ the sink's counts ─ledger─▶ event rows ─events─▶ their hashes ─payments─▶ fold
         └───────▶ rejected ──┐                      └─▶ dead ──┐
                              └──────────letters────────────────┴─▶ the list of dead letters
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sinks.pool import WHOLE_TABLE_S, Connection, Pool, snapshot
from sinks.statement import LIVE_SCHEMA, statements

_MOST = 1_000  # findings of one kind; beyond that, one is as good as all


class Hop(StrEnum):
    """Between which two counts something is wrong."""

    SOURCE = "source"  # what was read, and its fates
    TOPIC = "topic"  # what was published, and what the sink confirmed
    LEDGER = "ledger"  # what the sink counted, and its rows
    EVENTS = "events"  # event rows, and what their hashes say
    PAYMENTS = "payments"  # payments, and the fold of their events
    LETTERS = "letters"  # what was rejected or died, and the list of dead letters


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that does not balance. `run` is None where it is about a payment rather than a run.

    `awaiting` findings heal by themselves: the sink has not confirmed everything yet. An `unlisted` one does if the
    letter is still on its way from the topic to the list, which PostgreSQL alone cannot tell.
    """

    hop: Hop
    run: UUID | None
    subject: str
    problem: str
    awaiting: bool = False
    unlisted: bool = False


async def verify(pool: Pool, *, schema: str = LIVE_SCHEMA) -> list[Finding]:
    """
    Everything that does not balance, by hop; an empty list is the proof. `verify_letters` has the hop of the letters.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    sql = statements(schema)
    async with snapshot(pool) as held:
        return [
            *await _runs(held, sql),
            *await _ledger(held, sql),
            *await _events(held, sql),
            *await _payments(held, sql),
        ]


async def verify_letters(pool: Pool, *, schema: str = LIVE_SCHEMA) -> list[Finding]:
    """
    Every dead letter that the list lost, doubled or altered; an empty list is the proof.

    Each rejected record of a run and each event that was counted dead is held against the letters that are listed.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    sql = statements(schema)
    async with snapshot(pool) as held:
        return [*await _rejected(held, sql), *await _dead(held, sql), *await _altered(held, sql)]


async def _runs(held: Connection, sql: Mapping[str, str]) -> list[Finding]:
    findings = []
    for row in await held.fetch(sql["verify_runs"], timeout=WHOLE_TABLE_S):
        fates = row["published"] + row["rejected"] + row["filtered"]
        whole = row["reading_finished_at"] is not None
        if whole and row["read"] != fates:
            problem = f"read {row['read']}, published + rejected + filtered {fates}"
            findings.append(Finding(Hop.SOURCE, row["run"], row["connector"], problem))
        findings += _confirmed(row, whole=whole)
    return findings


# asyncpg's records are mappings of anything
def _confirmed(row: Mapping[str, Any], *, whole: bool) -> list[Finding]:
    """
    Published against confirmed.

    Of a run that crashed, or failed while reading, its last checkpoints are all that is known for sure: the sink may
    have more.
    """
    run, name, confirmed, published = row["run"], row["connector"], row["confirmed"], row["published"]
    if not whole:
        if confirmed >= row["checkpointed"]:
            return []
        problem = f"its last checkpoints say {row['checkpointed']} published, the sink confirmed {confirmed}"
        return [Finding(Hop.TOPIC, run, name, problem)]
    if confirmed != published:
        awaiting = row["closed_at"] is None and confirmed < published
        return [Finding(Hop.TOPIC, run, name, f"published {published}, the sink confirmed {confirmed}", awaiting)]
    if row["confirmed_sum"] != row["published_sum"]:
        return [
            Finding(
                Hop.TOPIC, run, name, f"the sink confirmed {confirmed} events, but not the ones that were published"
            )
        ]
    return []


async def _ledger(held: Connection, sql: Mapping[str, str]) -> list[Finding]:
    findings = []
    for row in await held.fetch(sql["verify_ledger"], timeout=WHOLE_TABLE_S):
        counted, rows = row["ledger_events"] or 0, row["row_events"] or 0
        problem = f"the ledger says {counted} {row['outcome']}, the rows say {rows}"
        if counted == rows:
            problem = f"the ledger's {counted} {row['outcome']} are other events than those in the rows"
        findings.append(Finding(Hop.LEDGER, row["run"], f"{row['topic']}/{row['log_partition']}", problem))
    return findings


async def _events(held: Connection, sql: Mapping[str, str]) -> list[Finding]:
    return [
        Finding(Hop.EVENTS, row["run"], row["event_id"], f"altered after it was stored: {', '.join(row['differs'])}")
        for row in await held.fetch(sql["verify_events"], _MOST, timeout=WHOLE_TABLE_S)
    ]


async def _payments(held: Connection, sql: Mapping[str, str]) -> list[Finding]:
    words = {
        "missing": "its events are there, the payment is not",
        "without events": "the payment is there, its events are not",
        "differs": "the payment is not what its events say",
    }
    return [
        Finding(Hop.PAYMENTS, None, row["id"], words[row["problem"]])
        for row in await held.fetch(sql["verify_payments"], _MOST, timeout=WHOLE_TABLE_S)
    ]


async def _rejected(held: Connection, sql: Mapping[str, str]) -> list[Finding]:
    findings = []
    for row in await held.fetch(sql["verify_rejected"], _MOST, timeout=WHOLE_TABLE_S):
        listed, rejected = row["listed"], row["rejected"] if row["whole"] else row["checkpointed"]
        problem = f"{rejected} records were rejected, {listed} letters are listed"
        if not row["whole"]:
            problem = f"its last checkpoints say {rejected} rejected, {listed} letters are listed"
        elif listed == rejected:
            problem = f"{listed} letters are listed, but not those of the records that were rejected"
        findings.append(Finding(Hop.LETTERS, row["run"], row["connector"], problem, unlisted=listed < rejected))
    return findings


async def _dead(held: Connection, sql: Mapping[str, str]) -> list[Finding]:
    findings = []
    for row in await held.fetch(sql["verify_deaths"], _MOST, timeout=WHOLE_TABLE_S):
        problem = "it tells of another death than the one that was counted"
        if not row["listed"]:
            problem = "its event is counted dead, and it is not listed"
        findings.append(Finding(Hop.LETTERS, row["run"], row["letter_id"], problem, unlisted=not row["listed"]))
    for row in await held.fetch(sql["verify_undead"], _MOST, timeout=WHOLE_TABLE_S):
        problem = "it is listed, and its event is not counted dead"
        findings.append(Finding(Hop.LETTERS, row["run"], row["letter_id"], problem, awaiting=not row["passed"]))
    return findings


async def _altered(held: Connection, sql: Mapping[str, str]) -> list[Finding]:
    return [
        Finding(Hop.LETTERS, row["run"], row["letter_id"], f"altered: {', '.join(row['differs'])}")
        for row in await held.fetch(sql["verify_letters"], _MOST, timeout=WHOLE_TABLE_S)
    ]
