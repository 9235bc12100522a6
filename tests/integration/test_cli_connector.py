"""`till connector` and `till run`, over a real API."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sinks.pool import Connection, close_pool, open_pool
from tests.cli_kit import Till, commands, served
from tillstream.cli.exit import ExitStatus
from tillstream.control import run as runs
from tillstream.control.run import RunStatus


@pytest.fixture
def till(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, database: str
) -> Iterator[Till]:
    """The commands, with an API over an empty database."""
    home = tmp_path / "home"
    with served(home, database), commands(monkeypatch, capsys, tmp_path, TILL_HOME=str(home)) as found:
        yield found


def in_database(dsn: str, work: Callable[[Connection], Awaitable[Any]]) -> Any:
    async def do() -> Any:
        pool = await open_pool(dsn, size=1)
        try:
            async with pool.acquire() as held:
                return await work(held)
        finally:
            await close_pool(pool)

    return asyncio.run(do())


def ended(dsn: str, run_id: str, status: RunStatus, reason: str = "") -> None:
    """End a run as the monitor does."""
    in_database(dsn, lambda held: runs.close(held, run_id, status, reason=reason or None))  # type: ignore[arg-type]


def test_a_connector_is_created_from_a_relative_path_updated_and_deleted(till: Till, tmp_path: Path) -> None:
    created = till("connector", "create", "bank", "-O", "directory=in")
    shown = till.json("connector", "show", "bank")
    assert created.returncode == 0
    assert f"warning: there is no folder {tmp_path / 'in'} here yet" in created.stderr
    assert shown["configuration"] == {"directory": str(tmp_path / "in")}

    taken = till("connector", "create", "bank", "-O", "directory=/tmp")
    assert taken.returncode == ExitStatus.CONFLICT
    assert "till connector update bank" in taken.stderr

    (tmp_path / "out").mkdir()
    planned = till("connector", "update", "bank", "-O", "directory=out", "--dry-run")
    assert (planned.returncode, planned.stderr) == (0, "connector bank can be updated\n")
    wrong = till("connector", "update", "bank", "-O", "colour=red")
    assert wrong.returncode == ExitStatus.CONFIG
    assert "colour is not an option of `directory`; see docs/sources.md" in wrong.stderr
    assert till("connector", "update", "bank").returncode == ExitStatus.USAGE
    for option in ("poll_s=3", "rest_s=0", "rest_s=null", "directory=out"):
        assert till("connector", "update", "bank", "-O", option).returncode == 0
    mapped = till("connector", "update", "bank", "-O", "timezone=UTC")
    assert "read again with `till connector run bank --force`" in mapped.stderr
    unmapped = till("connector", "update", "bank", "-O", "timezone=null", "-O", "poll_s=3", "--dry-run")
    assert "--force" not in unmapped.stderr
    assert till("connector", "update", "bank", "-O", "timezone=null").returncode == 0
    shown = till.json("connector", "show", "bank")
    assert shown["configuration"] == {"directory": str(tmp_path / "out"), "poll_s": 3}
    assert {name: shown["options"][name] for name in ("poll_s", "parallel", "records_per_s", "filters")} == {
        "poll_s": 3.0,
        "parallel": 4,
        "records_per_s": 0.0,
        "filters": [],
    }
    told = till("connector", "show", "bank").stdout.splitlines()
    assert [line.split()[1:] for line in told if "records_per_s" in line] == [["0.0", "(default)"]]

    assert till("connector", "delete", "bank", "--dry-run").returncode == 0
    assert till("connector", "delete", "bank").returncode == 0
    assert till("connector", "show", "bank").returncode == ExitStatus.NOT_FOUND
    assert till("connector", "delete", "bank").returncode == ExitStatus.NOT_FOUND
    assert till("connector", "create", "bank", "-O", "directory=/tmp").returncode == 0


def test_connectors_are_listed_by_what_they_are_and_how_they_fare(till: Till, database: str) -> None:
    assert till("connector", "list").stderr.startswith("no connectors yet")
    assert till("connector", "health").returncode == 0
    for name in ("one", "two", "a/b [x]"):
        assert till("connector", "create", name, "-O", "directory=/in").returncode == 0
    assert till("connector", "pause", "two", "--note", "the bank moves").returncode == 0

    assert [each["name"] for each in till.json("connector", "list")["data"]] == ["a/b [x]", "one", "two"]
    assert [each["name"] for each in till.json("connector", "list", "--status", "paused")["data"]] == ["two"]
    assert [each["name"] for each in till.json("connector", "list", "--search", "[x]")["data"]] == ["a/b [x]"]
    assert [each["name"] for each in till.json("connector", "list", "--limit", "1")["data"]] == ["a/b [x]"]
    assert till("connector", "list", "--kind", "sftp").stderr == "no connectors match\n"
    assert till.json("connector", "show", "a/b [x]")["name"] == "a/b [x]"
    shown = till("connector", "show", "two").stdout
    assert re.search("^paused because +the bank moves$", shown, re.MULTILINE)
    assert till("connector", "show", "").returncode == ExitStatus.NOT_FOUND

    in_database(
        database,
        lambda held: held.execute(
            "INSERT INTO connector_verdicts (connector_id, state, cause)"
            " SELECT c.id, 'degraded', 'rest' FROM connectors c JOIN sp_v2_connectors s ON s.id = c.row_id"
            " WHERE s.name = 'one'"
        ),
    )
    sick = till("connector", "health", "-o", "json")
    assert sick.returncode == ExitStatus.FAILED
    assert json.loads(sick.stdout)["data"][0]["name"] == "one"
    assert till("connector", "health", "two").returncode == 0


_STOPPED = """
INSERT INTO connector_reports (connector_id, state, problem, hint, runs_open, pending, skipped)
SELECT id, 'paused', 'refused', '', 0, 0, '{}' FROM connectors WHERE name = $1
"""


def test_a_connector_that_stopped_itself_is_not_well(till: Till, database: str) -> None:
    for name in ("a well one", "stopped"):
        assert till("connector", "create", name, "-O", "directory=/in").returncode == 0
    in_database(database, lambda held: held.execute(_STOPPED, "stopped"))

    told = till("connector", "health", "-o", "json")

    assert told.returncode == ExitStatus.FAILED
    first = json.loads(told.stdout)["data"][0]
    assert (first["name"], first["status"]) == ("stopped", "FAILED")
    assert till("connector", "health", "stopped").returncode == ExitStatus.FAILED
    assert till("connector", "health", "a well one").returncode == 0


def test_a_schedule_is_not_taken_for_a_clock(till: Till) -> None:
    made = till("connector", "create", "nightly", "-O", "directory=/in", "--cron", "0 3 * * *", "--timezone", "UTC")

    assert made.returncode == 0
    assert "nothing here starts it by the clock" in made.stderr
    assert "by the clock" not in till("connector", "create", "polls", "-O", "directory=/in").stderr


def test_a_connector_is_made_of_a_template_and_what_it_asks_for(till: Till) -> None:
    found = till.json("connector", "templates")["data"]
    assert found
    assert found[0]["name"] in till("connector", "templates").stdout

    for each in found:
        words = ("connector", "create", f"of {each['name']}", "--template", each["name"])
        given = [
            part for asked in each["placeholders"] for part in ("-O", f"{asked['field']}={word(asked['example'])}")
        ]
        if given:
            assert till(*words).returncode == ExitStatus.CONFIG, "it is told what is missing"
        made = till.json(*words, *given, "--dry-run")
        assert (made["kind"], made["name"]) == (each["kind"], f"of {each['name']}")
    assert till("connector", "create", "x", "--template", "none").returncode == ExitStatus.NOT_FOUND


def word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_its_past_is_told(till: Till) -> None:
    till("connector", "create", "bank", "-O", "directory=/in")
    till("connector", "update", "bank", "-O", "poll_s=5")
    till("connector", "update", "bank", "-O", "poll_s=7", "--cron", "0 3 * * *", "--timezone", "UTC", "--name", "axis")

    assert [each["version"] for each in till.json("connector", "versions", "axis")["data"]] == [3, 2, 1]
    assert till.json("connector", "versions", "axis", "2")["configuration"]["poll_s"] == 5
    assert "poll_s" in till("connector", "versions", "axis", "2").stdout
    assert till("connector", "diff", "axis").stdout == "~ configuration.poll_s: 5 -> 7\n"
    assert till("connector", "diff", "axis", "1").stdout == "+ configuration.poll_s: 7\n"
    assert till("connector", "diff", "axis", "2", "2").stderr == "nothing is other than it was\n"
    assert till("connector", "diff", "axis", "9").returncode == ExitStatus.NOT_FOUND
    kinds = [each["kind"] for each in till.json("connector", "events", "axis")["data"]]
    assert kinds[-1] == "connector.created"
    assert {"connector.configured", "connector.renamed", "connector.scheduled"} <= set(kinds)
    assert till("connector", "events", "axis", "--follow", "-o", "json").returncode == ExitStatus.USAGE
    assert "0 3 * * * UTC" in till("connector", "show", "axis").stdout
    assert till("connector", "update", "axis", "--cron", "").returncode == 0
    assert till.json("connector", "show", "axis")["schedule"] == {"cron": None, "timezone": "UTC", "enabled": False}
    for nothing in ("tasks", "cursors", "history"):
        assert till.json("connector", nothing, "axis")["data"] == []
        assert till("connector", nothing, "axis").stderr


def test_a_source_is_tried_judged_and_tried_unsaved(till: Till, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("name: good\nkind: directory\nconfiguration: {directory: in}\n")
    bad.write_text("name: bad\nkind: directory\nconfiguration: {directory: nowhere, poll_s: often}\n")

    assert till("connector", "check", "-f", str(good)).returncode == 0
    assert till("connector", "validate", "-f", str(good)).stderr == "all of it can be\n"
    wrong = till("connector", "validate", "-f", str(bad), "-f", str(good))
    assert wrong.returncode == ExitStatus.CONFIG
    assert "poll_s" in wrong.stdout
    assert till("connector", "check", "-f", str(bad)).returncode == ExitStatus.CONFIG
    assert till("connector", "list").stderr.startswith("no connectors yet"), "nothing was saved"

    till("apply", "-f", str(good))
    tried = till.json("connector", "test", "good")
    assert tried["ok"] is True
    (tmp_path / "in").rmdir()
    failed = till("connector", "test", "good")
    assert failed.returncode == ExitStatus.FAILED
    assert "failed" in failed.stdout
    assert [each["type"] for each in till.json("connector", "history", "good")["data"]] == ["TEST", "TEST"]
    assert [each["type"] for each in till.json("run", "list", "--type", "test", "--limit", "1")["data"]] == ["TEST"]


def test_a_dry_run_of_any_change_changes_nothing(till: Till, database: str) -> None:
    assert till("connector", "create", "bank", "-O", "directory=/in", "--dry-run").returncode == 0
    assert till.json("connector", "list")["data"] == []
    till("connector", "create", "bank", "-O", "directory=/in")
    asked = till.json("connector", "run", "bank")
    before = till.json("connector", "show", "bank")

    for words in (
        ("update", "bank", "-O", "poll_s=5"), ("delete", "bank"), ("pause", "bank"), ("resume", "bank"),
        ("run", "bank"), ("run", "bank", "--wait"),
    ):  # fmt: skip
        done = till("connector", *words, "--dry-run")
        assert done.returncode == 0, done.stderr
        assert done.stderr
    assert till("run", "cancel", asked["id"], "--dry-run").stderr == f"run {asked['id']} would be cancelled\n"

    assert till.json("connector", "show", "bank") == before
    assert [each["id"] for each in till.json("run", "list")["data"]] == [asked["id"]]
    assert till.json("run", "show", asked["id"])["cancelled"] is False
    ended(database, asked["id"], RunStatus.FAILED, "rest")
    assert till("run", "retry", asked["id"], "--dry-run").stderr == "a run of bank can be asked for: MANUAL\n"
    assert len(till.json("run", "list")["data"]) == 1
    again = till.json("run", "retry", asked["id"])
    assert {each["id"] for each in till.json("run", "list")["data"]} == {asked["id"], again["id"]}


def test_runs_are_listed_by_what_they_are_and_end_with_their_status(till: Till, database: str) -> None:
    till("connector", "create", "bank", "-O", "directory=/in")
    one, two, three = (till.json("connector", "run", "bank", "--force")["id"] for _ in range(3))
    ended(database, one, RunStatus.SUCCESS)
    ended(database, two, RunStatus.PARTIAL_SUCCESS)
    ended(database, three, RunStatus.FAILED, "the disk\x1b[2J is full")

    statuses = [till("run", "wait", each).returncode for each in (one, two, three)]
    assert statuses == [ExitStatus.OK, ExitStatus.PARTIAL, ExitStatus.FAILED]
    told = till("run", "wait", three).stderr
    assert "\x1b" not in told
    assert "the disk\\x1b[2J is full" in told
    assert [each["id"] for each in till.json("run", "list", "--status", "success")["data"]] == [one]
    assert till.json("run", "list", "--from", "2999-01-01")["data"] == []
    assert len(till.json("run", "list", "--to", "2999-01-01T00:00:00+05:30")["data"]) == 3
    assert till("run", "list", "--from", "yesterday").returncode == ExitStatus.USAGE
    assert till.json("run", "files", one)["data"] == []
    kinds = [each["kind"] for each in till.json("run", "events", one)["data"]]
    assert (kinds[0], kinds[-1]) == ("run.opened", "run.ended")
    followed = till("run", "events", one, "--follow", "-o", "jsonl")
    assert [json.loads(line)["kind"] for line in followed.stdout.splitlines()] == kinds
    assert till("run", "show", "").returncode == ExitStatus.NOT_FOUND
    lines = till("run", "wait", one, "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["SUCCESS"]


def test_somebody_at_a_terminal_is_asked_before_a_connector_is_deleted(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    till("connector", "create", "bank", "-O", "directory=/in")

    asked = till("connector", "delete", "bank", stdin=Terminal("n\n"))
    assert asked.returncode != 0
    assert "Delete connector bank? Its 0 runs and its payments stay." in asked.stdout + asked.stderr
    assert till("connector", "show", "bank").returncode == 0
    assert till("connector", "delete", "bank", "--yes", stdin=Terminal("")).returncode == 0
    till("connector", "create", "bank", "-O", "directory=/in")
    assert till("connector", "delete", "bank", stdin=Terminal("y\n")).returncode == 0
    assert till("connector", "show", "bank").returncode == ExitStatus.NOT_FOUND


# --- files ---


def test_what_is_exported_is_applied_again_without_a_change(till: Till, tmp_path: Path) -> None:
    columns = {"amount": "Amt", "reference": "1e5", "status": "null"}
    (tmp_path / "in").mkdir()
    for name in ("plain", "true", "1e5", "a: b #c", "é/ü", "=x"):
        options = ("-O", "directory=in", "-O", f"columns={json.dumps(columns)}")
        made = till("connector", "create", name, *options)
        assert made.returncode == 0, made.stderr
    till("connector", "update", "plain", "--cron", "*/5 * * * *", "--timezone", "UTC")
    till("connector", "pause", "1e5")
    before = till.json("connector", "list")["data"]

    for form in ("yaml", "json"):
        exported = till("export", "-o", form)
        assert exported.returncode == 0
        differs = till("diff", "-f", "-", stdin=exported.stdout)
        assert (differs.returncode, differs.stdout, differs.stderr) == (0, "", "all is as described\n")
        applied = till.json("apply", "-f", "-", stdin=exported.stdout)
        assert {each["change"] for each in applied["connectors"]} == {"unchanged"}
    assert till.json("connector", "list")["data"] == before
    exported = till("export", "plain")
    one = yaml.safe_load(exported.stdout)
    assert one["schedule"] == {"cron": "*/5 * * * *", "timezone": "UTC", "enabled": True}

    till("connector", "delete", "plain")
    elsewhere = till("apply", "-f", "-", stdin=exported.stdout)
    assert elsewhere.stdout.startswith("connector plain created\n")
    assert '+ schedule.cron: "*/5 * * * *"' in elsewhere.stdout
    assert till("export", "plain").stdout == exported.stdout


def test_a_secret_is_exported_as_what_refers_to_it(till: Till) -> None:
    options = {
        "host": "sftp.example",
        "username": "bank",
        "password": "canary-abcdefgh",
        "host_key": f"SHA256:{'A' * 43}",
        "remote_path": "/upload",
        "pattern": "*.csv",
    }
    given = [word for key, value in options.items() for word in ("-O", f"{key}={value}")]
    made = till("connector", "create", "bank", "--kind", "sftp", *given)
    assert made.returncode == 0, made.stderr

    exported = till("export", "bank")

    assert "canary" not in exported.stdout + exported.stderr
    assert "${file:" in exported.stdout
    assert till("diff", "-f", "-", stdin=exported.stdout).returncode == 0


def test_a_folder_of_files_is_applied_and_what_is_wrong_has_the_place_of_its_file(till: Till, tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "b.yml").write_text("name: b\nkind: directory\nconfiguration: {directory: /in}\n")
    (folder / "a.yaml").write_text("name: a\nkind: directory\nconfiguration: {directory: here}\n---\n"
                                   "name: c\nkind: directory\nschedule: {cron: 0 3 * * *}\n"
                                   "configuration: {directory: /in}\n")  # fmt: skip
    (folder / "notes.txt").write_text("{")
    (folder / ".hidden.yaml").write_text("{")
    (folder / "empty").mkdir()

    planned = till("diff", "-f", str(folder))
    assert planned.returncode == ExitStatus.FAILED
    assert planned.stdout.count("would be created") == 3
    assert till.json("connector", "list")["data"] == []
    applied = till("apply", "-f", str(folder))
    assert [line for line in applied.stdout.splitlines() if not line.startswith(" ")] == [
        "connector a created", "connector c created", "connector b created",
    ]  # fmt: skip
    assert till.json("connector", "show", "a")["configuration"]["directory"] == str(folder / "here")
    assert till.json("connector", "show", "c")["schedule"]["enabled"] is True
    assert till("diff", "-f", str(folder)).returncode == 0

    (folder / "d.json").write_text('{"name": "d", "kind": "directory", "configuration": {"poll_s": "often"}}')
    wrong = till("apply", "-f", str(folder))
    assert wrong.returncode == ExitStatus.CONFIG
    assert f"{folder / 'd.json'}: " in wrong.stderr
    assert "poll_s" in wrong.stderr
    assert "connectors.3" not in wrong.stderr
    (folder / "d.json").write_text('{"name": "a", "kind": "directory", "configuration": {"directory": "/in"}}')
    twice = till("apply", "-f", str(folder))
    assert twice.returncode == ExitStatus.CONFIG
    assert "'a' is described in" in twice.stderr
    assert till("apply", "-f", str(folder / "empty")).returncode == ExitStatus.CONFIG
