"""Secrets that are given by value: kept in files, named by reference, told nowhere, removed when nobody names them."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from connectors import sftp
from schemas.errors import ConfigError, Conflict
from sinks.pool import Pool, close_pool, open_pool
from tests.database import migrated
from tillstream.control import connector as connectors
from tillstream.control import edit
from tillstream.control import version as versions
from tillstream.control.connector import ConnectorStatus, ConnectorView
from tillstream.control.edit import Described, patch_of
from tillstream.control.secret import Identity, SecretStore, Sweeper
from tillstream.secret import WorkerSecrets

SPECS = {"sftp": sftp.SPEC}
SECRET = "hunter22 is secret"
KEY = "-----BEGIN KEY-----\nabcdef\n-----END KEY-----\n"
REFERENCE = {"password": "${env:SFTP_PASS}"}
CONFIGURATION = {"host": "sftp.bank.example", "username": "till", "path": "/in", "pattern": "*.csv"}


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=4)
    yield opened
    await close_pool(opened)


@pytest.fixture
def registered() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, registered: list[str]) -> SecretStore:
    return SecretStore(tmp_path / "secrets", registered.extend)


async def _create(pool: Pool, store: SecretStore | None, **options: Any) -> ConnectorView:
    given = options.pop("given", {"password": SECRET})
    wanted = Described("bank", "sftp", "BANK", ConnectorStatus.ACTIVE, {**_base(), **given})
    return await edit.create(pool, wanted, SPECS, secrets=store, **options)


def _base() -> dict[str, Any]:
    return {name: value for name, value in CONFIGURATION.items() if name in sftp.SftpConfig.model_fields}


def _resolve(store: SecretStore, reference: str) -> str:
    """As a worker does."""
    folder = WorkerSecrets(names=(), folder=store.folder, register=lambda _: None, learn=lambda _: None)
    return folder.resolve(reference)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_secret_given_by_value_is_a_reference_that_workers_resolve(
    pool: Pool, store: SecretStore, registered: list[str]
) -> None:
    view = await _create(pool, store, given={"password": SECRET, "private_key": KEY})

    references = view.configuration["password"], view.configuration["private_key"]
    assert references == (f"${{file:{view.id}/password-1}}", f"${{file:{view.id}/private_key-1}}")
    assert [_resolve(store, each) for each in references] == [SECRET, KEY]
    assert registered == [SECRET, KEY]
    folder = store.folder / str(view.id)
    assert (_mode(folder), [_mode(file) for file in folder.iterdir()]) == (0o700, [0o600, 0o600])


async def test_no_row_of_the_database_ever_holds_it(pool: Pool, store: SecretStore) -> None:
    view = await _create(pool, store)
    changed = await edit.change(
        pool, view.id, patch_of({"configuration": {"password": "another " + SECRET}}), SPECS, secrets=store
    )
    await connectors.delete(pool, changed.view)

    assert SECRET not in repr(changed) + repr(await versions.versions(pool, view.id))
    tables = await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for table in tables:
        rows = await pool.fetch(f"SELECT to_jsonb(t)::text AS row FROM {table['tablename']} t")
        assert not [row for row in rows if "hunter22" in row["row"]], table["tablename"]


async def test_a_changed_secret_is_another_file_and_the_old_one_goes_when_nobody_names_it(
    pool: Pool, store: SecretStore
) -> None:
    view, sweeper = await _create(pool, store), Sweeper(store)
    await edit.change(pool, view.id, patch_of({"configuration": {"password": "new " + SECRET}}), SPECS, secrets=store)
    after = await connectors.find(pool, "bank")
    assert _resolve(store, after.configuration["password"]) == "new " + SECRET
    assert _resolve(store, view.configuration["password"]) == SECRET  # a worker may still use it

    swept = [await sweeper.sweep(pool) for _ in range(3)]

    assert swept == [set(), {f"{view.id}/password-1"}, set()]
    assert _resolve(store, after.configuration["password"]) == "new " + SECRET
    await connectors.delete(pool, after)
    assert [await sweeper.sweep(pool) for _ in range(2)][1] == {f"{view.id}/password-2"}
    assert list(store.folder.iterdir()) == []


@pytest.mark.parametrize("moment", ["before it looks", "after it looked"])
async def test_what_a_process_that_died_left_behind_is_not_removed_once_it_is_written_anew(
    pool: Pool, store: SecretStore, moment: str
) -> None:
    """The file of a change that was cut short has the name of the next one: which may come in the midst of a sweep."""
    view = await _create(pool, store)
    left = store.folder / str(view.id) / "password-2"
    left.write_text("of a change that nobody committed")
    patch = patch_of({"configuration": {"password": "new " + SECRET}})

    class Interrupted(SecretStore):
        def unused(self, used: Collection[str]) -> Mapping[str, Identity]:
            if moment == "before it looks":
                change()
            found = super().unused(used)
            if moment == "after it looked":
                change()
            return found

    loop, sweeps = asyncio.get_running_loop(), 0

    def change() -> None:
        nonlocal sweeps
        sweeps += 1
        if sweeps == 2:
            changing = edit.change(pool, view.id, patch, SPECS, secrets=store)
            asyncio.run_coroutine_threadsafe(changing, loop).result(60)

    sweeper = Sweeper(Interrupted(store.folder, store.register))
    removed = [await sweeper.sweep(pool) for _ in range(2)]

    now = await connectors.find(pool, "bank")
    assert now.configuration["password"] == f"${{file:{view.id}/password-2}}"
    assert _resolve(store, now.configuration["password"]) == "new " + SECRET
    assert removed == [set(), set()]
    assert [await sweeper.sweep(pool) for _ in range(2)][1] == {f"{view.id}/password-1"}
    assert _resolve(store, now.configuration["password"]) == "new " + SECRET


async def test_a_sweep_leaves_alone_what_is_not_ours(pool: Pool, store: SecretStore) -> None:
    view, sweeper = await _create(pool, store), Sweeper(store)
    theirs = [store.folder / "axis", store.folder / str(view.id) / "note.txt", store.folder / "keys" / "password-1"]
    for file in theirs:
        file.parent.mkdir(exist_ok=True)
        file.write_text("theirs")
    elsewhere = store.folder.parent / "elsewhere"
    elsewhere.write_text("theirs")
    (store.folder / str(view.id) / "password-7").symlink_to(elsewhere)

    for _ in range(3):
        assert await sweeper.sweep(pool) == set()

    assert all(file.read_text() == "theirs" for file in [*theirs, elsewhere])


async def test_references_stay_as_they_are_and_a_reference_that_is_none_is_refused(
    pool: Pool, store: SecretStore
) -> None:
    view = await _create(pool, store, given={"password": "${env:SFTP_PASS}"})
    assert view.configuration["password"] == "${env:SFTP_PASS}"
    assert not store.folder.exists()

    with pytest.raises(ConfigError, match="password"):
        await edit.change(
            pool, view.id, patch_of({"configuration": {"password": "${evn:SFTP_PASS}"}}), SPECS, secrets=store
        )
    other = {"password": None, "private_key": "${file:keys/bank}"}
    await edit.change(pool, view.id, patch_of({"configuration": other}), SPECS, secrets=store)
    assert "password" not in (await connectors.find(pool, "bank")).configuration


@pytest.mark.parametrize("secret", ["abc", "  a  ", "abc\x00def", "\ud800 long enough", "x" * 65_536])
async def test_what_could_not_be_kept_is_refused_and_not_quoted(pool: Pool, store: SecretStore, secret: str) -> None:
    with pytest.raises(ConfigError, match="password: ") as caught:
        await _create(pool, store, given={"password": secret})

    assert repr(secret)[1:-1] not in str(caught.value)
    assert secret not in str(caught.value)
    assert await connectors.list_connectors(pool) == []


@pytest.mark.parametrize("how", ["nothing is written", "no store"])
async def test_what_is_refused_leaves_no_secret_behind(pool: Pool, store: SecretStore, how: str) -> None:
    if how == "no store":
        with pytest.raises(ConfigError, match="by reference"):
            await _create(pool, None)
    else:
        with pytest.raises(ConfigError, match="port"):
            await _create(pool, store, given={"password": SECRET, "port": "many"})
        await _create(pool, store, dry_run=True)
        await _create(pool, store, given=REFERENCE)
        with pytest.raises(Conflict):
            await _create(pool, store)
    assert not store.folder.exists()


async def test_a_folder_that_cannot_be_written_is_told_and_nothing_changes(pool: Pool, store: SecretStore) -> None:
    """A file in its place: root, too, cannot write into that."""
    view = await _create(pool, store, given=REFERENCE)
    store.folder.write_text("")

    with pytest.raises(ConfigError, match="password: a secret is taken by value only where") as caught:
        await edit.change(pool, view.id, patch_of({"configuration": {"password": SECRET}}), SPECS, secrets=store)

    assert "${env:NAME}" in caught.value.hint
    assert SECRET not in str(caught.value)
    assert await connectors.find(pool, "bank") == view


async def test_a_write_that_was_cut_short_leaves_what_was_there(
    pool: Pool, store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: the file's name still means what it meant, or nothing."""
    view = await _create(pool, store, given=REFERENCE)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="No space left"):
            await edit.change(pool, view.id, patch_of({"configuration": {"password": SECRET}}), SPECS, secrets=store)

    assert [file for file in store.folder.rglob("*") if file.is_file()] == []
    after = await edit.change(pool, view.id, patch_of({"configuration": {"password": SECRET}}), SPECS, secrets=store)
    assert json.dumps(after.view.configuration).count(SECRET) == 0
    assert _resolve(store, after.view.configuration["password"]) == SECRET
