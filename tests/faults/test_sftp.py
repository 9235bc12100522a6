"""Workers killed while they read from an SFTP server: in each phase, and the payments are those of the files."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from connectors import sftp
from sinks.ledger import verify, verify_letters
from tests.faults import oracle
from tests.faults.stage import CONNECTORS_SOON, Stage, Worker, until
from tests.sftp_server import PASSWORD, Server, sftp_server
from tillstream.control import connector, run
from tillstream.control.run import RunStatus

FILES, ROWS = 2, 2_100  # of each round; a file is read in two batches, and downloaded in two pieces
HEADER = "reference,type,status,asset,amount,note\n"
OPTIONS = {
    "poll_s": 0.1,
    "checkpoint_s": 0,
    "error_backoff_s": 0.1,
    "checksum_ext": ".sha256",
    "after_read": "move",
    "move_to": "done",
    "password": "${env:TILL_SECRET_SFTP}",
}
SOON = {**CONNECTORS_SOON, "secret_sftp": PASSWORD}

# What the server is asked for when the worker dies: an operation, and how often it comes first.
PHASES = {
    "list": ("scandir", 2),
    "checksum": ("open", 1),
    "download": ("read", 3),
    "verify": ("fstat", 2),
    "move": ("rename", 1),
    "look after the move": ("lstat", 4),
}
# and what the worker itself passes: reading and parsing, publishing, the checkpoint
POINTS = ("after_read=kill@3", "after_publish=kill@2", "before_checkpoint=kill@4", "after_checkpoint=kill@4")


async def test_workers_killed_in_each_phase_lose_no_row_and_double_none_and_every_file_is_put_away(
    stage: Stage, tmp_path: Path
) -> None:
    async with sftp_server(tmp_path) as server:
        configuration = {**server.config, **OPTIONS}
        await connector.create(stage.pool, name="bank", spec=sftp.SPEC, configuration=configuration)
        others = [stage.worker(role, role=role, **SOON) for role in ("sink", "monitor", "letters")]
        rounds = 0
        for point in POINTS:
            _drop(tmp_path, rounds)
            victim = stage.worker(f"victim-{rounds}", role="connector", failpoints=point, **SOON)
            assert await victim.ended() == -signal.SIGKILL, point
            rounds += 1
        for phase, (operation, times) in PHASES.items():
            _drop(tmp_path, rounds)
            victim = stage.worker(f"victim-{rounds}", role="connector", **SOON)
            server.hooks[operation] = _killing(victim, server, operation, times)
            assert await victim.ended() == -signal.SIGKILL, phase
            rounds += 1
        _drop(tmp_path, rounds)
        survivor = stage.worker("survivor", role="connector", **SOON)

        expected = {
            f"F{number}R{row}": 1_000_000 * number + row
            for number in range((rounds + 1) * FILES)
            for row in range(ROWS)
        }
        await until(lambda: _stored(stage, len(expected)), within_s=90, what="all rows are there")
        await until(lambda: _all_ended(stage), within_s=60, what="every run has ended")
        await until(lambda: _balances(stage), what="the ledger balances")
        await until(lambda: not list(tmp_path.glob("*.csv*")), within_s=60, what="every file is put away")

        amounts = await stage.pool.fetch("SELECT reference, amount FROM payments")
        assert {row["reference"]: row["amount"] for row in amounts} == expected
        assert len(list((tmp_path / "done").iterdir())) == 2 * (rounds + 1) * FILES
        log = [json.loads(record.value) for record in await oracle.records_of(stage.bootstrap, stage.events)]
        assert len({event["id"] for event in log}) == len(expected) < len(log)
        for worker in (survivor, *others):
            assert await worker.stop() == 0


def _drop(folder: Path, number: int) -> None:
    """Files as a bank puts them: whole from the moment they are there, each with its checksum."""
    for file in range(number * FILES, (number + 1) * FILES):
        rows = (f"F{file}R{row},payin,succeeded,EUR,{1_000_000 * file + row},{'x' * 40}\n" for row in range(ROWS))
        text = HEADER + "".join(rows)
        digest = hashlib.sha256(text.encode()).hexdigest()
        for name, content in ((f"{file}.csv", text), (f"{file}.csv.sha256", f"{digest}  {file}.csv\n")):
            draft = folder / f".{name}"
            draft.write_text(content)
            os.utime(draft, (1_700_000_000 + file, 1_700_000_000 + file))
            draft.rename(folder / name)


def _killing(victim: Worker, server: Server, operation: str, times: int) -> Callable[..., Awaitable[None]]:
    left = times

    async def kill(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            del server.hooks[operation]
            victim.send(signal.SIGKILL)

    return kill


async def _stored(stage: Stage, payments: int) -> bool:
    found = await stage.pool.fetchval("SELECT count(*) FROM payments")
    assert found <= payments
    return bool(found == payments)


async def _all_ended(stage: Stage) -> bool:
    return all(each.status is not RunStatus.RUNNING for each in await run.list_runs(stage.pool))


async def _balances(stage: Stage) -> bool:
    return not [*await verify(stage.pool), *await verify_letters(stage.pool)]
