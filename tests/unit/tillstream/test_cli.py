from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
import typer.main
import yaml
from pydantic import BaseModel

from schemas import errors
from schemas.errors import TillError
from tillstream import config
from tillstream.api.v1.action import TaskShape
from tillstream.api.v1.activity import ActivityShape
from tillstream.api.v1.connector import ConnectorShape
from tillstream.api.v1.cursor import CursorShape
from tillstream.api.v1.run import FileShape, RunShape
from tillstream.api.v1.template import TemplateShape
from tillstream.api.v1.version import VersionShape
from tillstream.cli import connector, connector_columns, context, happening, output, run
from tillstream.cli.app import tree
from tillstream.cli.deadletter import State
from tillstream.cli.exit import MEANINGS, ExitStatus, status_of
from tillstream.cli.place import origin_of, place_of
from tillstream.cli.rows import Columns
from tillstream.cli.stack import Teller
from tillstream.cli.tree import commands
from tillstream.cli.worker import WorkerRole
from tillstream.config import Role
from tillstream.control.connector import Standing
from tillstream.control.letter import LetterState
from tillstream.control.run import RunStatus
from tillstream.embedded.state import StackState

HELP_TIMES = 5  # what importing Typer and Rich takes; 2.4 measured


def till(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TILL_")}
    return subprocess.run(
        [sys.executable, "-m", "tillstream", *arguments],
        capture_output=True, text=True, timeout=30, env={**environment, **variables}, check=False,
    )  # fmt: skip


def test_the_help_is_there_at_once_and_imports_nothing_heavy() -> None:
    def cpu_s(*arguments: str) -> float:
        """The least of three: other tests run beside this one, and a machine may be slow."""
        found = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(found)

    loaded = subprocess.run(
        [sys.executable, "-c", "import sys; from tillstream.cli.app import app; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip

    assert cpu_s("-m", "tillstream", "--help") < HELP_TIMES * cpu_s("-c", "import typer, rich.table, asyncio, json")
    assert not {"faust", "aiokafka", "asyncpg", "aiohttp", "pydantic", "orjson", "tillstream.wiring"} & set(loaded)


def test_nouns_are_singular_and_every_command_has_help() -> None:
    root = tree()

    assert set(root.commands) >= {
        "up", "down", "status", "doctor", "demo", "worker", "migrate", "version", "config",
        "payment", "deadletter", "ledger", "replay", "run", "connector", "topic",
    }  # fmt: skip
    assert [problem for name, group in groups(root) for problem in undocumented(name, group)] == []
    assert [problem for name, command in commands(root) for problem in undocumented(name, command)] == []


# Typer's commands are Click's, which it hides
def groups(group: Any, name: str = "till") -> Iterator[tuple[str, Any]]:
    yield name, group
    for inner, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from groups(command, f"{name} {inner}")


def undocumented(name: str, command: Any) -> list[str]:
    """What of a command, its arguments and its options is not told."""
    first = (command.help or "").split("\n")[0]
    found = [] if first.strip().endswith(".") else [f"{name}: its help is no sentence: {first!r}"]
    return found + [f"{name}: {each.name} has no help" for each in command.params if not (each.help or "").strip()]


def test_what_has_no_help_is_found() -> None:
    silent = typer.Typer(add_completion=False)

    @silent.command("run")
    def run(what: str, fast: Annotated[bool, typer.Option(help=" ")] = False) -> None:
        pass

    @silent.command("stop")
    def stop(why: Annotated[str, typer.Argument(help="Why.")]) -> None:
        """Stop it"""

    root = typer.main.get_command(silent)

    assert [each for name, command in commands(root) for each in undocumented(name, command)] == [
        "till run: its help is no sentence: ''",
        "till run: what has no help",
        "till run: fast has no help",
        "till stop: its help is no sentence: 'Stop it'",
    ]


def test_the_page_of_the_command_line_has_every_command_argument_and_option_and_what_holds_for_all() -> None:
    page = (Path(__file__).parents[3] / "docs/cli.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0].strip("`"): part for part in page.split("\n## ")}

    for name, command in commands(tree()):
        arguments = re.compile(rf"{name}( \[?[A-Z_]+\]?)*")
        (section,) = [text for title, text in sections.items() if arguments.fullmatch(title)]
        assert command.help.split("\n")[0] in section, name
        for parameter in command.params:
            shown = parameter.opts if parameter.opts[0].startswith("-") else [parameter.name.upper()]
            told = all(f"`{each}" in section or f", {each}" in section for each in shown)
            assert told or parameter.name == "help", f"{name} {parameter.name}"
    for status in ExitStatus:
        assert f"| {status.value} | {MEANINGS[status]} |" in sections["Exit statuses"]
    for each in output.Output:
        assert f"| `{each.value}` | {output.MEANINGS[each]} |" in sections["Output"]
    for variable in (*config.OTHER_VARIABLES, "TILL_HOME", "NO_COLOR"):
        assert f"| `{variable}` |" in sections["Variables"]
    assert "wins over" in sections["Variables"]


def test_options_of_rows_are_on_what_prints_rows_and_on_nothing_that_changes_something() -> None:
    with_columns = {name for name, command in commands(tree()) if "columns" in {each.name for each in command.params}}

    assert {"till payment list", "till deadletter show", "till source list", "till status"} <= with_columns
    assert with_columns.isdisjoint({"till deadletter redrive", "till connector delete", "till topic asyncapi"})


def test_the_roles_of_the_command_line_are_those_of_the_settings() -> None:
    assert [role.value for role in WorkerRole] == [role.value for role in Role]


def test_the_words_of_runs_and_connectors_are_those_that_there_are() -> None:
    assert [each.value for each in run.Status] == [each.value for each in RunStatus]
    assert [each.value for each in connector.Status] == [each.value for each in Standing]


@pytest.mark.parametrize(
    ("shown", "model"),
    [
        (run.RUNS, RunShape),
        (run.FILES, FileShape),
        (happening.EVENTS, ActivityShape),
        (connector_columns.CONNECTORS, ConnectorShape),
        (connector_columns.TASKS, TaskShape),
        (connector_columns.CURSORS, CursorShape),
        (connector_columns.VERSIONS, VersionShape),
        (connector_columns.TEMPLATES, TemplateShape),
    ],
)
def test_csv_has_all_fields_of_the_apis_models(shown: Columns, model: type[BaseModel]) -> None:
    assert list(shown.fields) == list(model.model_fields)


def test_a_letters_states_are_those_that_there_are() -> None:
    assert [state.value for state in State] == [*(state.value for state in LetterState), "all"]


def test_every_error_has_the_exit_status_that_is_documented_for_it() -> None:
    expected = {
        errors.NotFound: ExitStatus.NOT_FOUND,
        errors.Conflict: ExitStatus.CONFLICT,
        errors.StackBusy: ExitStatus.CONFLICT,
        errors.TimedOut: ExitStatus.TIMED_OUT,
        errors.ConfigError: ExitStatus.CONFIG,
        errors.BrokerUnavailable: ExitStatus.UNREACHABLE,
        errors.SinkUnavailable: ExitStatus.UNREACHABLE,
        errors.SinkMisconfigured: ExitStatus.FAILED,
        errors.StackError: ExitStatus.FAILED,
    }

    for kind, status in expected.items():
        assert status_of(kind("x")) is status
    assert set(MEANINGS) == set(ExitStatus)


def test_an_error_is_a_code_a_message_and_a_hint_and_cannot_forge_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error(TillError("file a\x1b[2J.csv\nis bad", hint="mend it"))

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "error [internal]: file a\\x1b[2J.csv\nis bad\n  hint: mend it\n"


def test_wrong_settings_are_told_all_at_once_with_their_own_status() -> None:
    done = till("config", "show", TILL_SINK_SLICE_EVENTS="0", TILL_KAFAK_BOOTSTRAP="x:1")

    assert done.returncode == ExitStatus.CONFIG
    assert done.stdout == ""
    assert "2 settings are wrong:" in done.stderr
    assert "did you mean TILL_KAFKA_BOOTSTRAP?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["nonsense"], ["--set", "x", "version"], ["worker", "juggler"], ["payment"]])
def test_a_wrong_command_line_has_the_status_of_usage(arguments: list[str]) -> None:
    assert till(*arguments).returncode == ExitStatus.USAGE


def test_settings_are_shown_with_secrets_masked_and_their_origin(tmp_path: Path) -> None:
    variables = {"TILL_POSTGRES_DSN": "postgresql://u:hunter22@h/d", "TILL_HOME": str(tmp_path)}

    shown = json.loads(
        till("--set", "sink.slice_events=7", "config", "show", "--origin", "-o", "json", **variables).stdout
    )

    assert shown["postgres.dsn"] == {"value": "postgresql://u:***@h/d", "origin": "TILL_POSTGRES_DSN"}
    assert shown["sink.slice_events"] == {"value": "7", "origin": "--set"}
    assert set(shown) == {setting.key for setting in config.all_settings()}


def test_the_version_is_printed_for_people_and_programs() -> None:
    assert re.search(r"^tillstream +\d+\.\d+", till("version").stdout)
    assert json.loads(till("version", "-o", "json").stdout)["tillstream"]


def test_no_stack_runs_in_an_empty_home(tmp_path: Path) -> None:
    assert json.loads(till("--home", str(tmp_path), "status", "-o", "json").stdout)["running"] is False
    down = till("--home", str(tmp_path), "down")
    assert (down.returncode, down.stdout) == (0, "")
    assert f"no stack runs in {tmp_path}" in down.stderr


@dataclass(frozen=True)
class Row:
    id: UUID
    at: datetime
    amount: Decimal
    status: ExitStatus
    path: Path
    names: tuple[str, ...]


ROW = Row(UUID(int=1), datetime(2025, 1, 10, tzinfo=UTC), Decimal(12), ExitStatus.CONFIG, Path("/x"), ("a", "é"))


def test_json_is_plain_and_exact(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_data(output.Output.JSON, [ROW])
    told = json.loads(capsys.readouterr().out)
    output.print_data(output.Output.YAML, [ROW])

    assert yaml.safe_load(capsys.readouterr().out) == told
    assert told == [
        {
            "id": "00000000-0000-0000-0000-000000000001",
            "at": "2025-01-10T00:00:00Z",
            "amount": 12,
            "status": 9,
            "path": "/x",
            "names": ["a", "é"],
        }
    ]


def test_a_table_in_a_pipe_is_not_folded_and_obeys_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300

    output.print_table(("name", "count", "on"), [(f"[red]a\x1b[31m\n{long}", 3, True), ("b", 12, None)])

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "[red]a\\x1b[31m\\n" + long in lines[1]
    assert lines[1].split()[-2:] == ["3", "yes"]


def test_an_empty_table_is_a_note_and_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("name",), [], empty="nothing yet")

    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "nothing yet\n")


def test_without_a_stack_and_without_servers_of_ones_own_an_error_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"TILL_HOME": str(tmp_path), "TILL_KAFKA_BOOTSTRAP": "kafka:9092"}
    monkeypatch.setattr(context, "_LOADED", [config.load(environ=settings)])
    silent_database, silent_broker = errors.SinkUnavailable("no answer"), errors.BrokerUnavailable("no answer")

    told = context.explained(silent_database)

    assert str(told) == f"no stack runs in {tmp_path}"
    assert "`till up`" in told.hint
    assert "TILL_KAFKA_BOOTSTRAP / TILL_POSTGRES_DSN" in told.hint
    assert context.explained(silent_broker) is silent_broker, "somebody named this one"
    refused = errors.SinkMisconfigured("no such table")
    assert context.explained(refused) is refused, "a server answers"


async def test_a_stack_whose_workers_are_not_ready_is_told_so_and_not_called_ready(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teller = Teller(tmp_path, patience_s=0)
    teller(StackState(1, "", ready=True))
    assert teller.asking is not None

    told = ""
    async with asyncio.timeout(10):
        while "not ready" not in told:
            await asyncio.sleep(0.01)
            told += capsys.readouterr().err
    teller.asking.cancel()

    assert "not ready after 0 s: worker api has not announced itself; worker connector has" in told
    assert "ready: Kafka" not in told


@pytest.mark.parametrize(
    ("place", "shown", "origin"),
    [
        ({"path": "/in/a.csv", "line": 7, "position": "row 6"}, "a.csv:7", "/in/a.csv:7"),
        ({"path": "https://api.example/v1", "source_object": "payments", "position": "x"}, "payments x", "payments x"),
        ({"source_object": "public.events", "position": "row 12"}, "public.events row 12", "public.events row 12"),
        ({"topic": "till.events", "partition": 3, "offset": 9, "source_object": "f"}, "till.events/3@9", "f"),
    ],
)
def test_a_place_is_a_files_line_or_what_its_source_calls_it_or_the_log(
    place: dict[str, object], shown: str, origin: str
) -> None:
    nothing = dict.fromkeys(("path", "line", "source_object", "position", "topic", "partition", "offset"))

    assert place_of({**nothing, **place}) == shown
    assert origin_of({**nothing, **place}) == origin


def test_a_file_that_is_not_there_is_told_as_that() -> None:
    done = till("source", "check", "-f", "/nowhere/bank.yaml")

    assert "/nowhere/bank.yaml: there is no such file" in done.stderr
    assert "hint: name a file that is there" in done.stderr


def test_a_kind_of_source_is_shown_as_on_its_page_without_markdown_links() -> None:
    done = till("source", "show", "http_api")

    page = (Path(__file__).parents[3] / "docs/sources/http_api.md").read_text(encoding="utf-8")
    assert "](" not in done.stdout + done.stderr
    assert "a secret's name: `${env:NAME}` or `${file:NAME}`" in done.stdout
    assert "a secret's name: `${env:NAME}` or `${file:NAME}`" in page
