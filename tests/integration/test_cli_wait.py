"""`--wait`: a run watched to its end by a process of its own, while the API dies and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sinks.pool import Pool, close_pool, open_pool
from tests.database import migrated
from tests.integration import api_kit
from tillstream.cli.exit import ExitStatus
from tillstream.control import run as runs
from tillstream.control.run import RunStatus

PATIENCE_S = 90


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=2)
    yield opened
    await close_pool(opened)


@contextlib.contextmanager
def api_process(home: Path, database: str) -> Iterator[subprocess.Popen[bytes]]:
    """`till worker api`, on a port of its own each time."""
    variables = {"TILL_HOME": str(home), "TILL_HTTP_API_PORT": "0", "TILL_POSTGRES_DSN": database,
                 "TILL_KAFKA_BOOTSTRAP": api_kit.NOWHERE}  # fmt: skip
    home.mkdir(exist_ok=True)
    with (home / "api.log").open("ab") as out:
        command = [sys.executable, "-m", "tillstream", "worker", "api"]
        process = subprocess.Popen(command, env={**environment(), **variables}, stdout=out, stderr=out, cwd=home)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TILL_")}


async def asked(home: Path) -> tuple[str, str]:
    """Where the API is, and a run that somebody asked for."""
    url = await api_kit.until(lambda: api_kit.address(home), within_s=PATIENCE_S)
    async with aiohttp.ClientSession() as session:
        body = {"name": f"c{time.monotonic_ns()}x", "kind": "directory", "configuration": {"directory": "/in"}}
        async with session.post(f"{url}/api/v1/connectors", json=body) as answer:
            made = await answer.json()
        async with session.post(f"{url}/api/v1/connectors/{made['id']}/run") as answer:
            return url, (await answer.json())["id"]


@contextlib.asynccontextmanager
async def waiting(home: Path, run_id: str, *words: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """`till run wait`, as a process."""
    command = [sys.executable, "-m", "tillstream", "--home", str(home), "run", "wait", run_id, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = await asyncio.create_subprocess_exec(*command, env=environment(), **pipes)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def end(pool: Pool, run_id: str, status: RunStatus) -> None:
    """As the monitor does."""
    async with pool.acquire() as held:
        assert await runs.close(held, run_id, status) is not None  # type: ignore[arg-type]


async def test_a_run_is_watched_to_its_end_though_the_api_dies_and_comes_back_elsewhere(
    pool: Pool, database: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    async with asyncio.timeout(PATIENCE_S):
        with api_process(home, database) as first:
            before, run_id = await asked(home)
            async with waiting(home, run_id, "-o", "jsonl") as till:
                assert till.stdout is not None
                begun = json.loads(await till.stdout.readline())
                assert (begun["id"], begun["status"]) == (run_id, "RUNNING")

                first.kill()
                await asyncio.to_thread(first.wait)
                await end(pool, run_id, RunStatus.PARTIAL_SUCCESS)
                with api_process(home, database):
                    rest, errors = await till.communicate()
                    assert json.loads((home / "run" / "api.json").read_text())["url"] != before

    assert till.returncode == ExitStatus.PARTIAL, errors
    assert [json.loads(line)["status"] for line in rest.splitlines()] == ["PARTIAL_SUCCESS"]


async def test_ctrl_c_leaves_a_run_and_says_how_to_come_back_and_others_get_lines_or_a_bar(
    pool: Pool, database: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    async with asyncio.timeout(PATIENCE_S):
        with api_process(home, database):
            _, run_id = await asked(home)

            async with waiting(home, run_id) as left:
                assert left.stderr is not None
                line = (await left.stderr.readline()).decode()
                assert (
                    line
                    == f"run {run_id} waits for a worker: 0 read, 0 published, 0 rejected, 0 skipped, 0 confirmed\n"
                )
                left.send_signal(signal.SIGINT)
                out, told = await left.communicate()
            assert (left.returncode, out) == (ExitStatus.INTERRUPTED, b"")
            assert f"`till --home {home} run wait {run_id}` attaches again" in told.decode()
            assert "Traceback" not in told.decode()

            leader, follower = pty.openpty()
            async with waiting(home, run_id, "-o", "json", stderr=follower) as shown:
                os.close(follower)
                seen = b""
                while b"waits for a worker" not in seen:
                    seen += await asyncio.to_thread(os.read, leader, 4_096)
                draining = asyncio.create_task(asyncio.to_thread(drain, leader))
                await end(pool, run_id, RunStatus.SUCCESS)
                assert shown.stdout is not None
                told_end = json.loads(await shown.stdout.read())
                assert await shown.wait() == ExitStatus.OK
                await draining
            os.close(leader)

    assert (told_end["id"], told_end["status"]) == (run_id, "SUCCESS")


def drain(leader: int) -> None:
    """Take what a terminal shows until nobody writes to it."""
    with contextlib.suppress(OSError):
        while os.read(leader, 4_096):
            pass
