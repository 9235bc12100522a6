"""`till context`, as commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_kit import Till, commands
from tillstream.cli.exit import ExitStatus


@pytest.fixture
def till(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Till]:
    with commands(monkeypatch, capsys, tmp_path) as found:
        yield found


def test_contexts_are_added_used_listed_and_removed(till: Till, tmp_path: Path) -> None:
    assert till("context", "list").stderr.startswith("no contexts yet")
    assert till("context", "list", "-o", "csv").stdout.splitlines() == ["name,url,current"]
    planned = till("context", "add", "bank", "https://till.bank.example", "--dry-run")
    assert (planned.returncode, planned.stderr) == (0, "context bank would be added\n")
    assert not (tmp_path / "contexts.toml").exists()

    assert till.json("context", "add", "bank", "https://till.bank.example/") == {
        "name": "bank",
        "url": "https://till.bank.example",
        "current": True,
    }
    plain = till("context", "add", "lab", "http://lab.example:8080", "--use")
    assert "warning: http://lab.example:8080 is neither https nor this machine" in plain.stderr
    assert till("context", "add", "lab", "http://lab.example:8080").returncode == 0, "it is so already"
    assert till("context", "add", "lab", "https://other.example").returncode == ExitStatus.CONFLICT
    assert [each["current"] for each in till.json("context", "list")] == [False, True]
    shown = till("context", "show")
    assert "http://lab.example:8080" in shown.stdout
    assert "context lab (current)" in shown.stdout

    assert till.json("context", "use", "bank", "--dry-run")["current"] is True
    assert till.json("context", "show")["url"] == "http://lab.example:8080"
    assert till.json("context", "use", "bank")["current"] is True
    assert till.json("--context", "lab", "context", "show")["origin"] == "context lab (--context)"
    assert till("context", "use", "nobody").returncode == ExitStatus.NOT_FOUND
    assert till("context", "remove", "bank").returncode == 0
    assert till("context", "remove", "bank").returncode == ExitStatus.NOT_FOUND
    assert [each["name"] for each in till.json("context", "list")] == ["lab"]


@pytest.mark.parametrize("url", ["https://u:canary@a.example", "https://a.example?token=canary", "ftp://a"])
def test_an_address_that_cannot_be_is_refused(till: Till, url: str, tmp_path: Path) -> None:
    done = till("context", "add", "x", url)

    assert done.returncode == ExitStatus.CONFIG
    assert "canary" not in done.stdout + done.stderr
    assert not (tmp_path / "contexts.toml").exists()
