"""Connectors brought to what files describe, on a real PostgreSQL, and as commands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from connectors import directory, http_api
from connectors.clock import SystemClock
from connectors.context import SourceContext
from connectors.registry import specs
from connectors.source import CheckStep
from connectors.spec import ConnectorConfig, SourceSpec
from schemas.errors import ConfigError, Conflict
from sinks.pool import Pool, close_pool, open_pool
from tests.cli_kit import Till, commands, served
from tests.database import migrated
from tillstream.cli.exit import ExitStatus
from tillstream.control import connector as connectors
from tillstream.control.apply import Applied, Change, apply
from tillstream.control.check import check
from tillstream.control.connector import ConnectorStatus
from tillstream.control.document import Document
from tillstream.control.run import PostgresRunLog


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=2)
    yield opened
    await close_pool(opened)


def described(name: str = "bank", *, kind: str = "directory", **options: object) -> Document:
    return Document(f"{name}.yaml", name, kind, {"directory": "/in", **options})


def told(done: Applied) -> list[tuple[str, object, object]]:
    return [(each.key, each.before, each.after) for each in done.differences]


async def test_it_is_created_changed_key_by_key_and_then_is_as_described(pool: Pool) -> None:
    [created] = await apply(pool, [described(columns={"amount": "Amt"})], specs())
    assert (created.change, created.version) == (Change.CREATED, 1)
    assert ("configuration.columns.amount", None, "Amt") in told(created)

    wanted = described(poll_s=5, columns={"amount": "Sum"})
    [changed] = await apply(pool, [wanted], specs())
    assert (changed.id, changed.change, changed.version) == (created.id, Change.CHANGED, 2)
    assert told(changed) == [("configuration.columns.amount", "Amt", "Sum"), ("configuration.poll_s", None, 5)]

    [again] = await apply(pool, [wanted], specs())
    assert (again.change, again.version, again.differences) == (Change.UNCHANGED, 2, ())


async def test_its_status_is_part_of_what_is_described(pool: Pool) -> None:
    paused = Document("x", "bank", "directory", {"directory": "/in"}, status=ConnectorStatus.PAUSED)
    await apply(pool, [paused], specs())
    assert (await connectors.find(pool, "bank")).status is ConnectorStatus.PAUSED

    await apply(pool, [described()], specs())
    assert (await connectors.find(pool, "bank")).status is ConnectorStatus.PAUSED, "nothing is said of it"

    active = Document("x", "bank", "directory", {"directory": "/in"}, status=ConnectorStatus.ACTIVE)
    [done] = await apply(pool, [active], specs())
    assert told(done) == [("status", "PAUSED", "ACTIVE")]
    assert (await connectors.find(pool, "bank")).version == 1


async def test_a_dry_run_tells_the_same_and_changes_nothing(pool: Pool) -> None:
    [planned] = await apply(pool, [described()], specs(), dry_run=True)
    assert planned.change is Change.CREATED
    assert await connectors.list_connectors(pool) == []
    await apply(pool, [described()], specs())

    [planned] = await apply(pool, [described(poll_s=5)], specs(), dry_run=True)

    assert (planned.change, planned.version, len(planned.differences)) == (Change.CHANGED, 2, 1)
    assert (await connectors.find(pool, "bank")).configuration == {"directory": "/in"}


async def test_everything_wrong_is_told_at_once_and_none_of_the_others_is_applied(pool: Pool) -> None:
    with pytest.raises(ConfigError) as caught:
        await apply(
            pool,
            [described("good"), described("bad", poll_s="often", colour=1), described("worse", kind="pigeon")],
            specs(),
        )

    lines = str(caught.value).splitlines()[1:]
    assert [line.strip().partition(": ")[0] for line in lines] == ["bad.yaml", "bad.yaml", "worse.yaml"]
    assert "poll_s" in lines[0]
    assert "got str" in lines[0]
    assert "colour is not an option of `directory`" in lines[1]
    assert "there is no source 'pigeon'; there are directory" in lines[2]
    assert await connectors.list_connectors(pool) == []


async def test_what_the_present_state_does_not_allow_takes_everything_back(pool: Pool) -> None:
    await apply(pool, [described("bank")], specs())
    view = await connectors.find(pool, "bank")
    await PostgresRunLog(pool).open(uuid4(), view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
    other = Document("bank.yaml", "bank", "directory", {"directory": "/in"}, provider="another")

    with pytest.raises(Conflict, match="is frozen"):
        await apply(pool, [described("second"), other], specs())
    pigeon = SourceSpec("pigeon", "", directory.DirectoryConfig, directory.DirectorySource, "")
    with pytest.raises(Conflict, match="is of kind 'directory', and stays so"):
        await apply(pool, [described("bank", kind="pigeon")], {"pigeon": pigeon})

    assert [each.name for each in await connectors.list_connectors(pool)] == ["bank"]


# --- checks ---


class Odd:
    def __init__(self, config: ConnectorConfig, context: SourceContext) -> None:
        self.how = config.filter_test_ids.value
        if self.how == "always":
            raise KeyError("made wrong")

    async def check(self) -> list[CheckStep]:
        if self.how == "never":
            await asyncio.Event().wait()
        raise ZeroDivisionError

    async def close(self) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("how", "detail"),
    [
        ("always", "internal error: KeyError: 'made wrong'"),
        ("never", "no answer within 0.2 s"),
        ("in_production", "internal error: ZeroDivisionError: "),
    ],
)
async def test_a_source_that_fails_in_its_own_way_is_a_failed_step(how: str, detail: str) -> None:
    spec = SourceSpec("odd", "", ConnectorConfig, Odd, "")  # type: ignore[arg-type]
    config = ConnectorConfig.model_validate({"filter_test_ids": how})

    [step] = await check(spec, config, SourceContext(uuid4(), "odd", SystemClock()), within_s=0.2)

    assert (step.ok, step.detail) == (False, detail)
    assert step.hint


# --- commands ---


@pytest.fixture
def till(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, database: str
) -> Iterator[Till]:
    """The commands, with an API over an empty database."""
    home = tmp_path / "home"
    with served(home, database), commands(monkeypatch, capsys, tmp_path, TILL_HOME=str(home)) as found:
        monkeypatch.setenv("TILL_POSTGRES_DSN", database)  # `till source check` asks it itself
        yield found


YAML = """
name: bank
kind: directory
configuration:
  directory: in
  poll_s: 5
"""


def test_commands_apply_check_and_ask_for_runs(till: Till, tmp_path: Path, database: str) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "bank.yaml").write_text(YAML)
    where = str(folder / "bank.yaml")

    missing = till("source", "check", "-f", where, "-o", "json")
    assert missing.returncode == ExitStatus.FAILED
    assert json.loads(missing.stdout)[0]["ok"] is False
    (folder / "in").mkdir()
    assert till("source", "check", "-f", where).returncode == 0

    planned = till("connector", "apply", "-f", where, "--dry-run")
    assert planned.stdout.splitlines()[0] == "connector bank would be created"
    applied = till("connector", "apply", "-f", where, "-o", "yaml")
    assert yaml.safe_load(applied.stdout)["connectors"][0]["change"] == "created"
    (folder / "bank.yaml").write_text(YAML.replace("5", "7"))
    changed = till("connector", "apply", "-f", where)
    assert changed.stdout.splitlines() == ["connector bank changed, version 2", "  ~ configuration.poll_s: 5 -> 7"]
    assert "--force" not in changed.stderr
    (folder / "bank.yaml").write_text(YAML.replace("5", "7") + "  columns: {amount: Betrag}\n")
    mapped = till("connector", "apply", "-f", where)
    assert "read again with `till connector run bank --force`" in mapped.stderr
    (folder / "bank.yaml").write_text(YAML.replace("5", "7"))
    assert till("connector", "apply", "-f", where).returncode == 0
    shown = yaml.safe_load(till("connector", "show", "bank", "-o", "yaml").stdout)
    assert (shown["version"], shown["configuration"]["directory"]) == (4, str(folder / "in"))
    assert till("source", "check", "bank").returncode == 0

    asked = json.loads(till("connector", "run", "bank", "--force", "-o", "json").stdout)
    row = till("run", "show", asked["id"]).stdout
    assert "RUNNING (awaiting a worker)" in row
    late = till("connector", "run", "bank", "--wait", "--timeout", "1")
    assert late.returncode == ExitStatus.TIMED_OUT
    assert "waits for a worker" in late.stderr
    assert till("connector", "run", "bank", "--from", "2025-01-08").returncode == (ExitStatus.CONFIG)
    cancelled = till("run", "cancel", asked["id"][:8])
    assert (cancelled.returncode, "is cancelled" in cancelled.stderr) == (0, True)
    assert till("run", "cancel", asked["id"][:8]).returncode == ExitStatus.CONFLICT
    assert json.loads(till("connector", "tasks", "bank", "-o", "json").stdout) == {"data": [], "next": None}
    paused = till("connector", "pause", "bank", "-o", "json")
    assert json.loads(paused.stdout)["status"] == "PAUSED"
    refused = till("connector", "run", "bank")
    assert refused.returncode == ExitStatus.CONFLICT


def test_a_secret_that_an_old_configuration_spells_is_shown_nowhere(till: Till, tmp_path: Path, database: str) -> None:
    resource = {"name": "r", "query": {"from": "{from}", "to": "{to}", "api_key": "canary-1"}}
    api = {
        "api_base_url": "https://x.example",
        "type": "payin",
        "request_headers": {"Authorization": "Bearer canary-2"},
    }
    old = {**api, "resources": [resource], "token": "canary-3"}
    asyncio.run(inserted(database, "api", http_api.SPEC, old))
    described = {**api, "request_headers": {}, "resources": [{**resource, "query": {"from": "{from}", "to": "{to}"}}]}
    file = tmp_path / "api.yaml"
    file.write_text(yaml.safe_dump({"name": "api", "kind": "http_api", "configuration": described}))

    outputs = [
        till("connector", *words, *more)
        for words in (["show", "api"], ["list"], ["pause", "api"], ["apply", "--dry-run", "-f", str(file)])
        for more in ([], ["-o", "json"], ["-o", "yaml"])
    ]

    assert [each.returncode for each in outputs] == [0] * len(outputs)
    told = "".join(each.stdout + each.stderr for each in outputs)
    assert "canary" not in told
    assert "request_headers.Authorization" in told
    assert "***" in told


async def inserted(dsn: str, name: str, spec: SourceSpec, configuration: dict[str, object]) -> None:
    """As an earlier version has taken it."""
    opened = await open_pool(dsn, size=1)
    async with opened.acquire() as held:
        await connectors.insert(held, name=name, spec=spec, configuration=configuration, provider=name)
    await close_pool(opened)


def test_kinds_are_listed_and_shown_with_their_options(till: Till) -> None:
    listed = json.loads(till("source", "list", "-o", "json").stdout)
    assert {"directory", "sftp", "http_api", "postgres_changes"} <= {each["kind"] for each in listed}

    shown = yaml.safe_load(till("source", "show", "sftp", "-o", "yaml").stdout)
    keys = [each["key"] for each in shown["options"]]
    assert keys.index("host") < keys.index("poll_s")
    assert till("source", "show", "pigeon").returncode == ExitStatus.NOT_FOUND
    assert till("source", "check").returncode == ExitStatus.USAGE
