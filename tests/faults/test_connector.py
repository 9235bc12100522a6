"""Connector workers killed between publishing and checkpoint: from files to payments, nothing is lost or doubled."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from connectors import directory
from schemas.event import ConnectorEvent
from sinks.ledger import verify, verify_letters
from tests.faults import oracle
from tests.faults.stage import CONNECTORS_SOON, Stage, until
from tillstream.control import connector, run
from tillstream.control.run import RunStatus

# The first worker finds nothing left by others: its checkpoints 1 and 2 tell of files found, the third of rows read.
KILLS = (
    "after_checkpoint=kill@3",
    "after_publish=kill@2",
    "before_checkpoint=kill@4",
    "state_before_mirror=kill@4",
    "after_claim=kill",
    "while_listing=kill@2",
    "after_read=kill@3",
    "before_publish=kill@4",
)
FILES, ROWS = 2, 2_100  # of each round; a file is read in two batches


async def test_connectors_killed_at_the_worst_moments_lose_no_row_and_their_ledger_balances(
    stage: Stage, tmp_path: Path
) -> None:
    configuration = {"directory": str(tmp_path), "poll_s": 0.1, "rest_s": 0, "checkpoint_s": 0}
    await connector.create(stage.pool, name="bank", spec=directory.SPEC, configuration=configuration)
    others = [stage.worker(role, role=role, **CONNECTORS_SOON) for role in ("sink", "monitor", "letters")]
    for number, failpoint in enumerate(KILLS):
        victim = stage.worker(f"victim-{number}", role="connector", failpoints=failpoint, **CONNECTORS_SOON)
        _drop(tmp_path, first=number * FILES)
        assert await victim.ended() == -signal.SIGKILL, failpoint
    survivor = stage.worker("survivor", role="connector", **CONNECTORS_SOON)
    _drop(tmp_path, first=len(KILLS) * FILES)

    files = (len(KILLS) + 1) * FILES
    await until(lambda: _holds(stage, payments=files * ROWS, letters=files), within_s=60, what="all rows are there")
    await until(lambda: _all_ended(stage), what="every run has ended")
    await until(lambda: _balances(stage), what="the ledger balances")

    amounts = await stage.pool.fetch("SELECT reference, amount FROM payments")
    assert {row["reference"]: row["amount"] for row in amounts} == {
        f"F{file}R{row}": 10_000 * file + row for file in range(files) for row in range(ROWS)
    }
    log = [json.loads(record.value) for record in await oracle.records_of(stage.bootstrap, stage.events)]
    assert len({event["id"] for event in log}) == files * ROWS <= len(log)
    assert {ConnectorEvent.model_validate_json(json.dumps(event)).id for event in log} == {
        row["event_id"] for row in await stage.pool.fetch("SELECT event_id FROM payment_events")
    }
    statuses = [each.status for each in await run.list_runs(stage.pool)]
    assert RunStatus.PARTIAL_SUCCESS in statuses  # each file has a bad row
    assert RunStatus.SUCCESS not in statuses
    for worker in (survivor, *others):
        assert await worker.stop() == 0


def _drop(folder: Path, *, first: int) -> None:
    """Files as partners leave them: each with a row that is no payment."""
    for file in range(first, first + FILES):
        payments = [
            {"type": "payin", "reference": f"F{file}R{row}", "status": "succeeded", "asset": "USD", "amount": amount}
            for row, amount in enumerate(range(10_000 * file, 10_000 * file + ROWS))
        ]
        lines = [
            *map(json.dumps, payments[1:]),
            f'{{"type": "payin", "reference": "bad{file}"',
            json.dumps(payments[0]),
        ]
        written = folder / f".{file}.tmp"
        written.write_text("\n".join(lines))
        written.rename(folder / f"{file}.jsonl")


async def _holds(stage: Stage, *, payments: int, letters: int) -> bool:
    query = "SELECT (SELECT count(*) FROM payments) AS payments, (SELECT count(*) FROM dead_letters) AS letters"
    row = await stage.pool.fetchrow(query)
    assert row["payments"] <= payments
    assert row["letters"] <= letters
    return bool(row["payments"] == payments and row["letters"] == letters)


async def _all_ended(stage: Stage) -> bool:
    return all(each.status is not RunStatus.RUNNING for each in await run.list_runs(stage.pool))


async def _balances(stage: Stage) -> bool:
    return not [*await verify(stage.pool), *await verify_letters(stage.pool)]
