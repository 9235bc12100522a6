"""The embedded database server under what happens to database servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
import pytest

from schemas.errors import StackBusy, StackError
from tests import services
from tillstream.embedded import postgres
from tillstream.embedded.port import LOOPBACK
from tillstream.embedded.postgres import SERVER_IDENTITY, EmbeddedPostgres, answers
from tillstream.embedded.process import Command, Identity, Process, holds, still_runs

PROBE_S = 0.5
SOON_S = 10.0
IS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    with services.open_directory() as path:
        yield path


async def query(server: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(server.dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_a_killed_server_keeps_what_was_committed_and_nothing_else(own_postgres: EmbeddedPostgres):
    await query(own_postgres, "CREATE TABLE payment (id int)")
    await query(own_postgres, "INSERT INTO payment VALUES (1)")
    connection = await asyncpg.connect(own_postgres.dsn)
    await connection.execute("BEGIN")
    await connection.execute("INSERT INTO payment VALUES (2)")

    own_postgres.kill()
    connection.terminate()
    await own_postgres.start()

    assert await query(own_postgres, "SELECT array_agg(id) FROM payment") == [1]


async def test_a_killed_server_leaves_no_process_however_busy_its_backends_were(own_postgres: EmbeddedPostgres):
    connection = await asyncpg.connect(own_postgres.dsn)
    busy = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 10000000000)"))
    assert await holds(lambda: is_busy(own_postgres), within_s=SOON_S)
    processes = [psutil.Process(own_postgres.process.pid), *own_postgres.process.family()]

    own_postgres.kill()

    assert not any(still_runs(process) for process in processes)
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await busy
    connection.terminate()


async def is_busy(server: EmbeddedPostgres) -> bool:
    statement = (
        "SELECT true FROM pg_stat_activity WHERE query LIKE 'SELECT count%generate_series%' AND state = 'active'"
    )
    return bool(await query(server, statement))


async def test_a_server_killed_again_and_again_starts_again_at_once(own_postgres: EmbeddedPostgres):
    """A restart right after kill -9 meets the former server's lock file, which names a process that has just ended."""
    for _ in range(5):
        own_postgres.kill()
        await own_postgres.start()

    assert await query(own_postgres, "SELECT 1") == 1


async def test_a_lock_file_that_names_a_strangers_process_does_not_keep_the_server_down(own_postgres: EmbeddedPostgres):
    """Process ids come round, and PostgreSQL takes whoever has the noted one for a server."""
    own_postgres.kill()
    # PostgreSQL asks the kernel whether it could signal the process, so the stranger must be of the same user.
    identity = SERVER_IDENTITY if IS_ROOT else None
    stranger = Process(Command(("/bin/sleep", "600"), log=own_postgres.directory / "stranger.log", identity=identity))
    note = own_postgres.data / "postmaster.pid"
    note.write_text(note.read_text().replace(note.read_text().split("\n")[0], str(stranger.pid), 1))

    await own_postgres.start()

    assert stranger.alive
    assert await query(own_postgres, "SELECT 1") == 1
    stranger.kill()


async def test_backends_that_outlive_their_killed_server_are_ended_before_the_next_one_starts(
    own_postgres: EmbeddedPostgres,
):
    """Only the head is killed, as the kernel's out-of-memory killer does it."""
    connection = await asyncpg.connect(own_postgres.dsn)
    backend = psutil.Process(connection.get_server_pid())
    backend.suspend()
    os.kill(own_postgres.process.pid, signal.SIGKILL)
    assert await own_postgres.process.ended(within_s=SOON_S)
    assert still_runs(backend)

    await own_postgres.start()

    assert not still_runs(backend)
    assert await query(own_postgres, "SELECT 1") == 1
    connection.terminate()


async def test_a_frozen_server_answers_nobody_until_it_is_thawed(own_postgres: EmbeddedPostgres):
    own_postgres.freeze()
    frozen = await answers(own_postgres.dsn, within_s=PROBE_S)
    own_postgres.thaw()

    assert not frozen
    assert await answers(own_postgres.dsn)


async def test_the_data_survives_a_stop_and_the_next_start_of_another_owner(own_postgres: EmbeddedPostgres):
    await query(own_postgres, "CREATE TABLE payment (id int)")
    dsn = own_postgres.dsn
    await own_postgres.stop()

    successor = EmbeddedPostgres(own_postgres.directory)
    await successor.start()

    assert successor.dsn == dsn
    assert await query(successor, "SELECT count(*) FROM payment") == 0
    await successor.stop()


async def test_a_port_that_somebody_else_has_taken_is_replaced(own_postgres: EmbeddedPostgres):
    former = own_postgres.port
    await own_postgres.stop()

    with socket.create_server((LOOPBACK, former)):
        await own_postgres.start()

    assert own_postgres.port != former
    assert await answers(own_postgres.dsn)
    assert await answers(own_postgres.tcp_dsn)


async def test_a_second_server_in_the_same_directory_is_refused(own_postgres: EmbeddedPostgres):
    with pytest.raises(StackBusy, match="is already run by process"):
        await EmbeddedPostgres(own_postgres.directory).start()

    assert await own_postgres.is_ready()


async def test_commits_are_durable_whatever_the_configuration_file_says(own_postgres: EmbeddedPostgres):
    with (own_postgres.data / "postgresql.conf").open("a") as file:
        file.write("synchronous_commit = off\nfsync = off\nlisten_addresses = '*'\n")
    await own_postgres.stop()
    await own_postgres.start()

    assert await query(own_postgres, "SHOW synchronous_commit") == "on"
    assert await query(own_postgres, "SHOW fsync") == "on"
    assert await query(own_postgres, "SHOW listen_addresses") == LOOPBACK
    assert await query(own_postgres, "SHOW data_checksums") == "on"


@pytest.mark.parametrize("way", ["dsn", "tcp_dsn"])
async def test_nobody_comes_in_without_the_password(own_postgres: EmbeddedPostgres, way: str):
    parts = urlsplit(getattr(own_postgres, way))
    wrong = urlunsplit(parts._replace(netloc=parts.netloc.replace(parts.password or "", "guess")))

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)


async def test_the_password_and_the_data_are_readable_by_their_owner_alone(own_postgres: EmbeddedPostgres):
    assert stat.S_IMODE((own_postgres.directory / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(own_postgres.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(own_postgres.data.stat().st_mode) == 0o700


async def test_root_runs_the_server_under_a_user_that_nothing_else_has(own_postgres: EmbeddedPostgres):
    expected = SERVER_IDENTITY.uid if IS_ROOT else os.getuid()

    found = set()
    for process in own_postgres.process.family():
        with contextlib.suppress(psutil.NoSuchProcess):  # PostgreSQL ends workers of its own at any moment
            found.add(process.uids().effective)

    assert found == {expected}
    assert psutil.Process(own_postgres.process.pid).uids().effective == expected


async def test_another_user_cannot_even_reach_the_socket(own_postgres: EmbeddedPostgres):
    """Needs a second user, so only root sees it refused; everybody sees that the owner is let in."""
    stranger = Identity(54_321, 54_321) if IS_ROOT else None
    command = ("/bin/sh", "-c", f"cd {own_postgres.socket} && echo reached")
    attempt = Process(Command(command, log=own_postgres.directory / "attempt.log", identity=stranger))
    assert await attempt.ended(within_s=SOON_S)

    assert (attempt.log_tail() == "reached") != IS_ROOT


async def test_a_home_that_the_servers_user_cannot_pass_to_is_refused_with_the_folders_name(folder: Path):
    """As root; any other user runs the server as themselves, and needs nobody's permission."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "postgres")

    if IS_ROOT:
        with pytest.raises(StackError, match=f"others cannot pass {closed}") as caught:
            await server.start()
        assert "TILL_HOME" in caught.value.hint
    else:
        await server.start()
        await server.stop()


async def test_a_path_too_long_for_a_socket_gets_its_socket_elsewhere(folder: Path):
    server = EmbeddedPostgres(folder / ("long-" * 20) / "postgres")
    server.directory.parent.mkdir()
    await server.start()

    assert server.directory not in server.socket.parents
    assert await answers(server.dsn)

    await server.stop()
    shutil.rmtree(server.socket)


async def test_a_socket_folder_that_somebody_else_prepared_is_not_used(folder: Path):
    server = EmbeddedPostgres(folder / "postgres")
    server.directory.mkdir()
    server.socket.mkdir(mode=0o777)
    server.socket.chmod(0o777)

    with pytest.raises(StackError, match="is not ours alone"):
        await server.start()


async def test_programs_that_the_servers_user_cannot_reach_are_copied_to_where_it_can(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """A virtual environment in root's closed home directory is the usual case in a container."""
    closed = folder / "venv"
    closed.mkdir()
    site = postgres.wheel_programs().parents[2]
    shutil.copytree(site / postgres.PACKAGE / postgres.PROGRAMS, closed / postgres.PACKAGE / postgres.PROGRAMS)
    shutil.copytree(site / f"{postgres.PACKAGE}.libs", closed / f"{postgres.PACKAGE}.libs")
    (closed / postgres.PACKAGE / "__init__.py").touch()
    closed.chmod(0o700)
    monkeypatch.syspath_prepend(closed)
    assert closed in postgres.wheel_programs().parents

    server = EmbeddedPostgres(folder / "postgres", environment={"TILL_CACHE": str(folder / "cache")})
    await server.start()

    assert await answers(server.dsn)
    assert (folder / "cache").exists() == IS_ROOT
    await server.stop()


async def test_programs_that_do_not_run_are_refused_with_a_way_out(folder: Path):
    server = EmbeddedPostgres(folder / "postgres", environment={"TILL_POSTGRES_BIN": str(folder)})

    with pytest.raises(StackError, match="do not run") as caught:
        await server.start()

    assert "TILL_POSTGRES_DSN" in caught.value.hint
    assert not server.data.exists()
