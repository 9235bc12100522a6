"""Files by their content (seed 004): what checkpoints tell of them, however often and in whatever order they come."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from connectors import directory
from connectors.context import SourceContext
from connectors.files.day import day_of
from connectors.source import Task
from connectors.testing import ManualClock
from schemas.checkpoint import Checkpoint, CheckpointFile, Counts
from sinks.mirror import CheckpointMirror
from sinks.pool import Pool, close_pool, open_pool
from tests.database import migrated
from tillstream.control import connector as connectors
from tillstream.control import file as files
from tillstream.control.file import FileView

SHA256 = hashlib.sha256(b"file").hexdigest()
RUN, NEXT = uuid4(), uuid4()
MET = datetime(2025, 1, 10, 20, tzinfo=UTC)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=2)
    yield opened
    await close_pool(opened)


@pytest.fixture
async def axis(pool: Pool) -> UUID:
    return await connectors.create(
        pool, name="axis", provider="AXIS", spec=directory.SPEC, configuration={"directory": "/in"}
    )


def checkpoint(connector_id: UUID, seq: int, **options: Any) -> Checkpoint:
    facts = CheckpointFile(
        name="AXIS_RECON_20250110.csv",
        path="sftp://axis/AXIS_RECON_20250110.csv",
        sha256=SHA256,
        size_bytes=4,
        day=date(2025, 1, 10),
        downloaded=options.pop("downloaded", False),
    )
    values = {"run_id": RUN, "epoch": 1, "task": SHA256, "file": facts, **options}
    return Checkpoint(connector_id=connector_id, seq=seq, revision_at=MET, updated_at=MET, **values)


def life(connector_id: UUID) -> list[Checkpoint]:
    return [
        checkpoint(connector_id, 1),
        checkpoint(connector_id, 2, cursor={"offset": 2}, counts=Counts(read=5, published=5)),
        checkpoint(connector_id, 3, cursor={"file": "a"}, counts=Counts(read=9, published=8, rejected=1), done=True),
    ]


async def only(pool: Pool) -> FileView:
    [found], after = await files.page(pool)
    assert after is None
    return found


async def test_a_file_goes_from_discovered_to_downloaded_to_normalized(pool: Pool, axis: UUID) -> None:
    mirror, seen = CheckpointMirror(pool), []
    for each in life(axis):
        await mirror.mirror([each])
        seen.append(await only(pool))

    assert [each.state for each in seen] == ["DISCOVERED", "DOWNLOADED", "NORMALIZED"]
    last = seen[-1]
    assert (last.connector, last.provider, last.cycle_date, last.sha256, last.size_bytes, last.run_id) == (
        "axis", "AXIS", date(2025, 1, 10), SHA256, 4, RUN,
    )  # fmt: skip
    assert (last.records, last.rejected, last.error, last.discovered_at, last.normalized_at) == (9, 1, "", MET, MET)
    assert await pool.fetchval("SELECT dedupe_key FROM recon_ingested_file") == f"AXIS|2025-01-10|{SHA256}"


async def test_what_was_downloaded_is_here_before_it_is_read(pool: Pool, axis: UUID) -> None:
    await CheckpointMirror(pool).mirror([checkpoint(axis, 1, downloaded=True)])

    assert (await only(pool)).state == "DOWNLOADED"


@pytest.mark.parametrize("order", [*permutations(range(3)), (0, 1, 2, 2, 1, 0), (2, 2, 0)], ids=str)
async def test_checkpoints_that_come_again_or_late_change_nothing(
    pool: Pool, axis: UUID, order: tuple[int, ...]
) -> None:
    mirror = CheckpointMirror(pool)
    for index in order:
        await mirror.mirror([life(axis)[index]])

    found = await only(pool)
    assert (found.state, found.records) == ("NORMALIZED", 9)


async def test_a_file_of_which_nothing_could_be_used_is_an_error_and_matched_stays_matched(
    pool: Pool, axis: UUID
) -> None:
    mirror = CheckpointMirror(pool)
    for each in life(axis):
        await mirror.mirror([each])
    await pool.execute("UPDATE recon_ingested_file SET state = 'MATCHED'")
    again = checkpoint(axis, 1, epoch=2, run_id=NEXT, cursor={"offset": 1}, counts=Counts(read=1, published=1))
    await mirror.mirror([again])
    assert ((await only(pool)).state, (await only(pool)).run_id) == ("MATCHED", NEXT)

    dead = checkpoint(axis, 2, epoch=2, done=True, cursor={"file": "a"}, counts=Counts(read=2, rejected=2))
    await mirror.mirror([dead])

    found = await only(pool)
    assert (found.state, found.error) == ("ERROR", "none of its records could be used")


async def test_the_same_bytes_from_a_providers_other_connector_have_the_first_ones_row(pool: Pool, axis: UUID) -> None:
    other = await connectors.create(
        pool, name="axis 2", provider="AXIS", spec=directory.SPEC, configuration={"directory": "/b"}
    )
    mirror = CheckpointMirror(pool)
    for each in [*life(axis), *life(other)]:
        await mirror.mirror([each])

    assert (await only(pool)).connector == "axis"


async def test_checkpoints_of_no_file_or_of_a_connector_that_is_not_known_tell_of_none(pool: Pool, axis: UUID) -> None:
    """A database that was restored may lack the connector: the mirror must not stand still for that."""
    await CheckpointMirror(pool).mirror([checkpoint(axis, 1, file=None, task="pages"), checkpoint(uuid4(), 1)])

    assert await files.page(pool) == ([], None)
    assert await pool.fetchval("SELECT count(*) FROM checkpoints") == 2


async def test_files_are_listed_by_connector_run_and_state_in_pages(pool: Pool, axis: UUID) -> None:
    mirror = CheckpointMirror(pool)
    for n in range(5):
        sha256 = hashlib.sha256(str(n).encode()).hexdigest()
        facts = CheckpointFile(
            name=f"{n}.csv", path="", sha256=sha256, size_bytes=n, day=date(2025, 1, 10), downloaded=False
        )
        run_id = RUN if n < 3 else NEXT
        await mirror.mirror([checkpoint(axis, 1, task=sha256, file=facts, run_id=run_id, done=n == 4)])

    first, after = await files.page(pool, connector_id=axis, limit=3)
    second, end = await files.page(pool, connector_id=axis, after=after, limit=3)

    assert [each.filename for each in first + second] == ["4.csv", "3.csv", "2.csv", "1.csv", "0.csv"]
    assert end is None
    assert len((await files.page(pool, run_id=RUN))[0]) == 3
    assert [each.filename for each in (await files.page(pool, state="NORMALIZED"))[0]] == ["4.csv"]
    assert (await files.page(pool, connector_id=uuid4()))[0] == []
    assert await pool.fetchval("SELECT backlog FROM connector_health") == 4


async def test_a_folders_task_tells_its_files_size_and_day(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("12345")
    late = datetime(2025, 1, 10, 20, 30, tzinfo=UTC).timestamp()  # the 11th in Kolkata
    os.utime(tmp_path / "a.csv", (late, late))
    config = directory.DirectoryConfig(directory=str(tmp_path), rest_s=0, timezone="Asia/Kolkata")
    source = directory.DirectorySource(config, SourceContext(uuid4(), "bank", ManualClock()))

    found = [task async for page in source.tasks({}) for task in page if isinstance(task, Task)]

    await source.close()
    assert [task.file for task in found] == [(5, date(2025, 1, 11), False)]


@pytest.mark.parametrize("changed_at_s", [-1e18, -1.0, 0.0, 1e18])
def test_a_file_of_any_time_has_a_day(changed_at_s: float) -> None:
    assert 1970 <= day_of(changed_at_s, UTC).year <= 9_999
