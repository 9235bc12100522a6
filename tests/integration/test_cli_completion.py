"""Completion, in a real bash."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.cli_kit import Till, commands, served
from tillstream.cli.completion import Shell
from tillstream.cli.exit import ExitStatus

Complete = Callable[..., list[str]]
BASH = """
source "$1"; shift
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
_till_completion "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def till(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Till]:
    with commands(
        monkeypatch, capsys, tmp_path, HOME=str(tmp_path / "user"), TILL_HOME=str(tmp_path / "home")
    ) as found:
        yield found


@pytest.fixture
def complete(till: Till, tmp_path: Path) -> Complete:
    """What a bash that has read the installed script offers for the last word."""
    (tmp_path / "user").mkdir()
    assert till("completion", "install", "bash").returncode == 0
    program = tmp_path / "bin" / "till"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tillstream "$@"\n')
    program.chmod(0o755)
    script = tmp_path / "user" / ".bash_completions" / "till.sh"

    def offers(*words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", BASH, "bash", str(script), "till", *words],
            capture_output=True, text=True, timeout=120, check=True,
            env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.stderr == ""
        return [line for line in done.stdout.splitlines() if line]

    return offers


def test_commands_options_and_their_values_are_completed(complete: Complete) -> None:
    assert complete("payme") == ["payment"]
    assert {"list", "show", "lineage", "tail"} <= set(complete("payment", ""))
    assert complete("payment", "list", "--col") == ["--columns"]
    assert complete("payment", "list", "-o", "j") == ["json", "jsonl"]
    assert complete("deadletter", "list", "--state", "r") == ["redriven"]


def test_names_that_the_api_knows_are_completed_whatever_is_in_them(
    complete: Complete, till: Till, tmp_path: Path, database: str
) -> None:
    with served(tmp_path / "home", database) as url:
        for name in ("bank one", "bank$two", "bank*"):
            body = {
                "name": name,
                "kind": "directory",
                "configuration": {"directory": str(tmp_path)},
                "provider": "bank",
            }
            asked = Request(f"{url}/api/v1/connectors", json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urlopen(asked) as answer:
                assert answer.status == 201

        assert complete("deadletter", "list", "--connector", "ban") == ["bank\\ one", "bank\\$two", "bank\\*"]
        assert complete("deadletter", "list", "--connector", "bank\\ o") == ["bank\\ one"]
        assert complete("deadletter", "list", "--connector", "'bank o") == ["bank one"]
        assert complete("deadletter", "list", "--connector", "zebra") == []
        home = str(tmp_path / "home")
        assert complete("--home", home, "deadletter", "list", "--connector", "bank\\ o") == ["bank\\ one"]


def test_where_no_api_answers_nothing_is_offered_and_nothing_is_said(complete: Complete, tmp_path: Path) -> None:
    """Also where something takes a connection and never answers."""
    import socket

    assert complete("deadletter", "list", "--connector", "b") == []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (tmp_path / "home" / "run").mkdir(parents=True)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert complete("--api", url, "deadletter", "list", "--connector", "b") == []
        assert complete("--api", "nonsense", "deadletter", "list", "--connector", "b") == []


def test_the_script_is_shown_and_installed_once_for_each_shell(till: Till, tmp_path: Path) -> None:
    user = tmp_path / "user"
    user.mkdir()
    (user / ".bashrc").write_text("alias x=y\n")

    for shell in Shell:
        shown = till("completion", "show", shell.value).stdout
        assert "_TILL_COMPLETE" in shown
        planned = till("completion", "install", shell.value, "--dry-run")
        assert planned.stderr.startswith("would write ~/.")
    assert [file.name for file in user.iterdir()] == [".bashrc"]
    for shell in Shell:
        first = till("completion", "install", shell.value)
        before = {file: file.read_text() for file in user.rglob("*") if file.is_file()}
        second = till("completion", "install", shell.value)
        assert first.returncode == second.returncode == 0
        assert {file: file.read_text() for file in user.rglob("*") if file.is_file()} == before
    assert (user / ".bashrc").read_text().startswith("alias x=y\n")
    assert (user / ".bash_completions" / "till.sh").read_text() == till("completion", "show", "bash").stdout


def test_the_shell_is_that_of_its_variable_or_has_to_be_named(
    till: Till, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert till("completion", "show").stdout == till("completion", "show", "fish").stdout
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert till("completion", "show").returncode == ExitStatus.USAGE
    (tmp_path / "user").write_text("no folder")
    refused = till("completion", "install", "bash")
    assert (refused.returncode, "Traceback" in refused.stderr) == (ExitStatus.CONFIG, False)
