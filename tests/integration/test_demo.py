"""
`till demo` as a newcomer runs it, and every command of `till` against the stack that it leaves up.

The demonstration starts once for the module: Kafka, PostgreSQL, topics, tables, one worker of each role, the samples,
and a bank, a gateway and a shop that go on while the commands are tried.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen
from uuid import UUID

import asyncpg
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import services
from tests.promql import asked, dashboards, queries
from tillstream.cli.exit import ExitStatus

START_S = 120.0
STOP_S = 25.0
FATES = ("read", "published", "rejected", "filtered", "applied", "duplicate", "dead", "payments", "adjustments")
# what each kind of source reads in a demonstration, whenever and wherever it is shown
SOURCES = {
    kind: dict(zip(FATES, numbers, strict=True))
    for kind, numbers in {
        "directory": (25, 21, 4, 0, 19, 2, 0, 13, 19),
        "sftp": (10, 10, 0, 0, 10, 0, 0, 10, 10),
        "http_api": (13, 13, 0, 0, 13, 0, 0, 12, 13),
        "postgres_changes": (16, 11, 1, 4, 11, 0, 0, 8, 11),
    }.items()
}
TOTALS = {fate: sum(each[fate] for each in SOURCES.values()) for fate in FATES}
STALE = 3
FOLDER = SOURCES["directory"]
REPLAY = ("replay", "create", "--wait")
PARTNERS = {"demo-bank": "sftp", "demo-gateway": "http_api", "demo-shop": "postgres_changes"}


@dataclass
class Stack:
    """A running demonstration."""

    home: Path
    process: subprocess.Popen[bytes]
    out: Path
    notes: Path

    def till(self, *arguments: str, status: int = 0, home: bool = True) -> subprocess.CompletedProcess[str]:
        options = ["--home", str(self.home)] if home else []
        done = subprocess.run(
            [sys.executable, "-m", "tillstream", *options, *arguments],
            capture_output=True, text=True, timeout=START_S, cwd=self.home.parent, env=environment(), check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.till(*arguments, "-o", "json", status=status).stdout)

    def references(self, provider: str) -> set[str]:
        listed = self.json("payment", "list", "--provider", provider, "--limit", "500")["data"]
        return {each["reference"] for each in listed}

    def servers(self) -> dict[str, dict[str, Any]]:
        """The partners' processes, as their supervisor tells of them."""
        told = json.loads((self.home / "demo" / "demo" / "run" / "stack.json").read_text())
        return {child["name"]: child for child in told["children"]}


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TILL_") or name == "TILL_CACHE"}


def processes_of(home: Path) -> list[str]:
    """Everything that runs on behalf of the home, by command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
            if process.pid != os.getpid() and any(str(home) in word for word in words):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with services.open_directory() as folder:
        home = folder / "home"
        out, notes = folder / "out", folder / "notes"
        command = [sys.executable, "-m", "tillstream", "--home", str(home), "demo"]
        with out.open("wb") as stdout, notes.open("wb") as stderr:
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=folder, env=environment())
        until = time.monotonic() + START_S
        while "the stack stays up" not in notes.read_text():
            assert process.poll() is None, notes.read_text()
            assert time.monotonic() < until, notes.read_text()
            time.sleep(0.2)
        running = Stack(home, process, out, notes)
        yield running
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_S)


def served(home: Path) -> list[tuple[str, dict[str, str]]]:
    """Every series that a worker of the home serves."""
    found = []
    for file in (home / "run").glob("*.json"):
        address = json.loads(file.read_text()).get("url")
        if address is None:  # the stack tells of itself too
            continue
        with urlopen(f"{address}/metrics", timeout=START_S) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        found += [(sample.name, sample.labels) for family in families for sample in family.samples]
    return found


def test_dashboards_have_something_to_show_while_nothing_is_wrong(stack: Stack) -> None:
    until = time.monotonic() + START_S
    missing = {"everything"}
    while missing:  # the partners' records come one after another
        assert time.monotonic() < until, missing
        time.sleep(0.2)
        series = served(stack.home)
        missing = {
            f"{file}, {panel['title']}: {selector.name}{list(selector.matchers)}"
            for file, board in dashboards().items()
            for panel, target in queries(board)
            for selector in asked(target["expr"]).selectors
            if selector.name != "up"
            and not selector.is_of_a_fault
            and not any(selector.takes(name, labels) for name, labels in series)
        }


def test_the_demonstration_shows_payments_fates_letters_and_three_commands_that_work(stack: Stack) -> None:
    text = stack.out.read_text()

    assert re.search(r"P-2001 .*partially_refunded +35\.00 +USD", text)
    assert re.search(r"source +read +published +rejected +filtered +applied +of which stale +duplicate +dead", text)
    for kind, counts in SOURCES.items():
        read, published, rejected, filtered, applied, duplicate, dead, *_ = counts.values()
        fates = rf"{read} +{published} +{rejected} +{filtered} +{applied} +{duplicate} +{dead}"
        assert re.search(rf"^{kind} +{fates} *$", text, re.MULTILINE), kind
    assert re.search(r"^all +64 +55 +5 +4 +53 +3 +2 +0 *$", text, re.MULTILINE)
    for provider in ("demo", *PARTNERS):
        assert re.search(rf"^{provider} +\S+ +pay(in|out) ", text, re.MULTILINE), provider
    assert re.search(r"demo-gateway +pay_00000000000003 +payin +refunded +0\.00 +INR +2", text)
    assert re.search(r"demo-shop +order-0001 +payin +refunded +0\.00 +EUR +2", text)
    assert "invalid_amount" in text
    assert "missing_reference" in text
    assert "The ledger balances: 64 read = 55 published + 5 rejected + 4 filtered" in text
    commands = text.split("Try next:\n")[1].split("\n\n")[0].strip().splitlines()
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)
        assert "till" in words[0]
        stack.till(*words[1:], home=False)


def test_samples_are_dropped_while_the_stack_runs_and_not_before(stack: Stack) -> None:
    notes = stack.notes.read_text()

    assert notes.index("watching ") < notes.index("dropping 001.json")
    assert notes.index("sink: running") < notes.index("watching ")
    for place in ("sftp://bank@127.0.0.1:", "http://127.0.0.1:", "postgresql://127.0.0.1:"):
        assert notes.index("watching ") < notes.index(f"reading {place}")
    until(lambda: "ready: Kafka 127.0.0.1:" in stack.notes.read_text())
    assert "postgresql://tillstream:***@" in stack.notes.read_text()


def test_payments_come_as_the_api_gives_them(stack: Stack) -> None:
    body = stack.json("payment", "list", "--reference", "001")

    (one,) = body["data"]
    assert body.keys() == {"data", "next"}
    (adjustment,) = one["adjustments"]
    assert one["id"] == "eyJwcm92aWRlciI6ImRlbW8iLCJyZWZlcmVuY2UiOiIwMDEiLCJ0eXBlIjoicGF5aW4ifQ=="
    assert {name: one[name] for name in ("reference", "type", "provider", "status", "amount", "asset")} == {
        "reference": "001",
        "type": "payin",
        "provider": "demo",
        "status": "succeeded",
        "amount": 100,
        "asset": "USD",
    }
    assert (adjustment["status"], adjustment["amount"], adjustment["connector_name"]) == ("succeeded", 100, "demo")


def test_a_page_of_payments_leads_to_the_next(stack: Stack) -> None:
    seen: list[str] = []
    after: list[str] = []
    while True:
        body = stack.json("payment", "list", "--provider", "demo", "--limit", "5", *after)
        seen += [each["reference"] for each in body["data"]]
        if body["next"] is None:
            break
        after = ["--after", body["next"]]

    assert len(seen) == len(set(seen)) == FOLDER["payments"]


def test_a_payment_is_shown_with_its_adjustments_and_the_file_and_line_of_each_event(stack: Stack) -> None:
    one = stack.json("payment", "show", "P-2001")
    lineage = stack.json("payment", "lineage", "P-2001")

    assert sorted(each["signed_amount"] for each in one["adjustments"]) == [-1500, 5000]
    assert (one["amount"], one["status"], one["flags"]) == (3500, "partially_refunded", [])
    places = {(Path(each["path"]).name, each["line"]) for each in lineage["events"]}
    assert places == {("003-refund-first.json", 1), ("004-payments.jsonl", 1)}
    assert "003-refund-first.json:1" in stack.till("payment", "lineage", "P-2001").stdout
    by_id = stack.json("payment", "show", one["id"])
    assert by_id == one
    assert "35.00 USD" in stack.till("payment", "show", "P-2001").stdout


def test_runs_are_listed_and_shown(stack: Stack) -> None:
    runs = stack.json("run", "list", "--connector", "demo", "--limit", "100")["data"]

    assert {each["status"] for each in runs} == {"SUCCESS", "PARTIAL_SUCCESS"}
    for key in ("read", "published", "rejected", "applied", "duplicate", "dead"):
        assert sum(each[key] for each in runs) == FOLDER[key]
    shown = stack.json("run", "show", runs[0]["id"][:12])
    assert shown == runs[0]
    assert "PARTIAL_SUCCESS" in stack.till("run", "list", "--connector", "demo").stdout
    stack.till("run", "show", str(runs[0]["number"]))


def test_dead_letters_are_listed_and_shown_with_their_bytes(stack: Stack) -> None:
    letters = stack.json("deadletter", "list", "--connector", "demo", "--reason", "invalid_amount")

    (one,) = letters["data"]
    assert "value" not in one
    assert (Path(one["path"]).name, one["line"], one["stage"]) == ("009-poison-row.csv", 3, "source")
    assert b"P-4002" in stack.till("deadletter", "show", one["id"][:12], "--raw").stdout.encode()
    assert stack.json("deadletter", "show", one["id"])["value"]
    table = stack.till("deadletter", "list").stdout
    assert "009-poison-row.csv:3" in table


def test_a_letter_that_never_was_an_event_is_refused_for_redrive_with_what_to_do(stack: Stack) -> None:
    told = stack.json("deadletter", "redrive", "--all", "--dry-run", status=ExitStatus.CONFLICT)

    assert told["sent"] == []
    assert {each["code"] for each in told["refused"]} == {"not_an_event"}
    assert any("correct the mapping of" in each["hint"] for each in told["refused"])
    stack.till("deadletter", "redrive", status=ExitStatus.USAGE)


def test_the_ledger_balances_and_a_replay_finds_no_difference(stack: Stack) -> None:
    verified = stack.json("ledger", "verify", "--wait", "30")
    assert (verified["balanced"], verified["wrong"], verified["findings"]) == (True, False, [])

    replayed = stack.json(*REPLAY)["report"]

    assert (replayed["equal"], replayed["left"]) == (True, 0)
    assert replayed["records"] >= TOTALS["published"]
    nothing = stack.json(*REPLAY, "--from", "2000-01-01", "--to", "2000-01-02T00:00:00Z")["report"]
    assert nothing["records"] == 0
    refused = stack.till("replay", "create", "--from", "2000-01-01T00:00:00", status=ExitStatus.USAGE)
    assert "names no offset" in refused.stderr


def test_connectors_are_created_paused_and_shown_with_their_health(stack: Stack) -> None:
    planned = stack.json("connector", "create", "other", "-O", "directory=/nowhere/at/all", "--dry-run")
    assert planned["name"] == "other"
    assert "other" not in {each["name"] for each in stack.json("connector", "list")["data"]}
    wrong = stack.till("connector", "create", "other", "-O", "poll_s=x", status=ExitStatus.CONFIG)
    assert "missing directory to watch" in wrong.stderr
    assert "poll_s" in wrong.stderr

    stack.till("connector", "create", "other", "-O", "directory=/nowhere/at/all", "-O", "poll_s=0.2")

    until = time.monotonic() + 30
    while "no such file" not in (view := stack.json("connector", "show", "other"))["cause"].lower():
        assert time.monotonic() < until, view
        time.sleep(0.3)
    assert view["health"] == "degraded"
    taken = stack.till("connector", "create", "other", "-O", "directory=/tmp", status=ExitStatus.CONFLICT)
    assert "error [conflict]" in taken.stderr
    stack.till("connector", "pause", "other")
    while (view := stack.json("connector", "show", "other"))["health"] != "paused":
        assert time.monotonic() < until, view
        time.sleep(0.3)
    assert {each["name"] for each in stack.json("connector", "list")["data"]} >= {"demo", "other"}


def test_lag_is_zero_and_every_group_is_there(stack: Stack) -> None:
    lags = stack.json("topic", "lag")["data"]

    assert {each["group"] for each in lags} == {"till-sink", "till-connectors", "till-letters"}
    until(
        lambda: (
            sum(each["lag_events"] for each in stack.json("topic", "lag")["data"] if each["group"] == "till-sink") == 0
        )
    )


def test_the_stack_tells_its_state_and_doctor_finds_nothing_wrong(stack: Stack) -> None:
    state = stack.json("status")

    assert state["ready"] is True
    assert {each["role"] for each in state["workers"]} == {"sink", "connector", "letters", "monitor", "api"}
    assert {each["name"] for each in state["processes"]} >= {"kafka", "postgres", "sink", "monitor"}
    assert "running" in stack.till("status").stdout
    findings = stack.json("doctor")["findings"]
    assert [each for each in findings if not each["ok"]] == []


def test_settings_are_shown_with_their_origin_and_without_secrets(stack: Stack) -> None:
    shown = stack.json("config", "show", "--origin")

    assert shown["postgres.dsn"]["origin"] == "running stack"
    assert "***" in shown["postgres.dsn"]["value"]
    assert shown["home"] == {"value": str(stack.home), "origin": "--set"}
    assert shown["sink.slice_events"]["origin"] == "default"


def test_passwords_are_nowhere_but_where_they_are_kept(stack: Stack) -> None:
    dsn = json.loads((stack.home / "run" / "stack.json").read_text())["endpoints"]["postgres_dsn"]
    password = urlsplit(dsn).password
    assert password
    assert len(password) > 20
    stack.till("-v", "payment", "list")

    logs = [*(stack.home / "logs").iterdir(), *(stack.home / "demo" / "demo" / "logs").iterdir()]
    texts = {file: file.read_text(errors="replace") for file in logs}
    texts |= {stack.out: stack.out.read_text(), stack.notes: stack.notes.read_text()}
    for worker in stack.json("status")["workers"]:
        with urlopen(f"{worker['url']}/metrics") as answer:
            texts[worker["role"]] = answer.read().decode()
    shown = [["connector", "show", name, "-o", "json"] for name in PARTNERS]
    for arguments in (["status"], ["status", "-o", "json"], ["config", "show"], ["-v", "run", "list"], *shown):
        done = stack.till(*arguments)
        texts[" ".join(arguments)] = done.stdout + done.stderr

    kept = [file for file in (stack.home / "secrets").rglob("*") if file.is_file()]
    assert {file.name for file in kept} == {"password", "key_id", "key_secret"}
    secrets = [password, *(file.read_text() for file in kept)]
    assert [str(name) for name, text in texts.items() if any(secret in text for secret in secrets)] == []
    for file in (stack.home / "run" / "stack.json", *(stack.home / "postgres").glob("password*"), *kept):
        assert file.stat().st_mode & 0o077 == 0, file


def test_what_is_not_there_has_a_status_a_code_and_a_hint_and_no_traceback(stack: Stack) -> None:
    for arguments in (
        ("payment", "show", "no-such-reference"),
        ("run", "show", "ffffffff-ffff"),
        ("deadletter", "show", "ffffffffffff"),
        ("connector", "show", "nobody"),
        ("connector", "create", "x", "--kind", "carrier-pigeon"),
    ):
        refused = stack.till(*arguments, status=ExitStatus.NOT_FOUND)
        assert refused.stdout == ""
        assert refused.stderr.startswith("error [not_found]: ")
        assert "hint: " in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_second_demonstration_uses_the_running_stack_and_leaves_it_up(stack: Stack) -> None:
    done = stack.till("demo", "--once", "-o", "json")

    counts = json.loads(done.stdout)
    assert (counts["sources"], counts["balanced"]) == (SOURCES, True)
    assert counts["seconds_to_first_payment"] > 0
    assert "stopping\n" not in done.stderr
    assert "the stack goes on" in done.stderr
    assert "ready: Kafka" in stack.notes.read_text()
    assert not [each["name"] for each in stack.json("connector", "list")["data"] if each["name"].startswith("demo-2")]
    assert asyncio.run(fetch(stack.home, "SELECT slot_name FROM pg_replication_slots")) == ["demo_shop"]
    assert processes_of(stack.home / "demo" / "demo-2") == []
    assert stack.json("run", "list", "--connector", "demo-2")["data"]
    assert stack.json("status")["ready"] is True
    assert stack.process.poll() is None


def test_the_partners_go_on_after_the_demonstration_and_their_payments_come_in(stack: Stack) -> None:
    for provider, kind in PARTNERS.items():
        until(lambda: len(stack.references(provider)) > SOURCES[kind]["payments"] + 1, seconds=90)  # noqa: B023

    assert "AXIS_RECON_20250111.csv" in {file.name for file in (stack.home / "demo/demo/sftp/files/upload").iterdir()}
    assert stack.json("ledger", "verify", "--wait", "30")["balanced"] is True


def test_a_killed_bank_and_a_killed_gateway_are_back_and_nothing_of_theirs_is_lost(stack: Stack) -> None:
    before = stack.servers()
    for child in before.values():
        os.kill(child["pid"], signal.SIGKILL)
    until(lambda: all(each["restarts"] > before[name]["restarts"] for name, each in stack.servers().items()))
    known = {provider: stack.references(provider) for provider in ("demo-bank", "demo-gateway")}
    files = sorted((stack.home / "demo/demo/sftp/files/upload").glob("*.csv"))

    for provider, references in known.items():
        until(lambda: stack.references(provider) > references, seconds=90)  # noqa: B023
    health = {each["name"]: each["health"] for each in stack.json("connector", "list")["data"]}
    until(lambda: {stack.json("connector", "show", name)["health"] for name in PARTNERS} == {"healthy"}, seconds=60)

    rows = {line.split(",")[0] for file in files for line in file.read_text().splitlines()[1:]}
    assert rows <= stack.references("demo-bank"), health
    assert len([name for name in stack.references("demo-gateway") if name < "pay_00000000001000"]) == 12
    assert {each["pid"] for each in stack.servers().values()}.isdisjoint(each["pid"] for each in before.values())
    assert stack.json("ledger", "verify", "--wait", "30")["balanced"] is True


def test_a_record_that_the_database_refuses_dies_alone_and_is_redriven_once_the_cause_is_gone(stack: Stack) -> None:
    """
    A constraint that somebody added refuses one of three rows. The others go through; after the constraint is dropped,
    the dead one goes through too, as a run of its own.
    """
    asyncio.run(execute(stack.home, "ALTER TABLE payments ADD CONSTRAINT no_francs CHECK (asset <> 'CHF')"))
    folder = stack.home.parent / "francs"
    folder.mkdir()
    rows = "F1,payin,succeeded,USD,1\nF2,payin,succeeded,CHF,2\nF3,payin,succeeded,EUR,3\n"
    (folder / "a.csv").write_text("reference,type,status,asset,amount\n" + rows)
    stack.till("connector", "create", "francs", "-O", f"directory={folder}", "-O", "poll_s=0.2", "-O", "rest_s=0")

    (letter,) = until(lambda: stack.json("deadletter", "list", "--connector", "francs", "--stage", "sink")["data"])
    (run,) = until(
        lambda: [each for each in stack.json("run", "list", "--connector", "francs")["data"] if each["completed_at"]]
    )
    assert (letter["reason"], letter["sqlstate"]) == ("sink_refused", "23514")
    assert (run["status"], run["applied"], run["dead"]) == ("PARTIAL_SUCCESS", 2, 1)
    assert "F2" in stack.till("deadletter", "show", letter["id"], "--raw").stdout

    asyncio.run(execute(stack.home, "ALTER TABLE payments DROP CONSTRAINT no_francs"))
    planned = stack.json("deadletter", "redrive", letter["id"][:12], "--dry-run")
    assert (planned["sent"], planned["run_id"]) == ([letter["id"]], None)
    redriven = stack.json("deadletter", "redrive", letter["id"][:12])
    until(lambda: stack.json("run", "show", redriven["run_id"])["status"] == "SUCCESS")
    until(lambda: stack.json("deadletter", "show", letter["id"])["state"] == "redriven")

    assert stack.json("deadletter", "list", "--connector", "francs")["data"] == []
    assert {each["reference"] for each in stack.json("payment", "list", "--provider", "francs")["data"]} == {
        "F1",
        "F2",
        "F3",
    }
    shown = stack.json("run", "show", run["id"])
    assert (shown["status"], shown["dead"]) == ("PARTIAL_SUCCESS", 1)
    assert stack.json("ledger", "verify", "--wait", "10")["balanced"] is True
    assert stack.json(*REPLAY)["status"] == "equal"
    stack.till("connector", "pause", "francs")


def test_a_row_that_a_corrected_file_mended_is_found_among_the_letters_and_let_go(stack: Stack) -> None:
    folder = stack.home.parent / "mended"
    folder.mkdir()
    header, rows = "reference,type,status,asset,amount\n", "M1,payin,succeeded,USD,1\nM2,payin,succeeded,USD,{}\n"
    (folder / "a.csv").write_text(header + rows.format("oops"))
    (folder / "b.csv").write_text(header + rows.format("wrong").replace("M", "N"))
    stack.till("connector", "create", "mended", "-O", f"directory={folder}", "-O", "poll_s=0.2", "-O", "rest_s=0")
    mine = ("deadletter", "list", "--connector", "mended")
    until(lambda: len(stack.json(*mine)["data"]) == 2)
    assert stack.json(*mine, "--corrected")["data"] == []

    (folder / "a.csv").write_text(header + rows.format("2"))
    (letter,) = until(lambda: stack.json(*mine, "--corrected")["data"])
    assert letter["path"].endswith("a.csv")
    choice = ("deadletter", "discard", "--connector", "mended", "--corrected", "--note", "came again")
    assert stack.json(*choice, "--dry-run")["discarded"] == [letter["id"]]
    assert stack.json(*choice, "--by", "ops")["discarded"] == [letter["id"]]

    (left,) = stack.json(*mine)["data"]
    assert left["path"].endswith("b.csv")
    assert "discarded by ops: came again" in stack.till(*mine, "--state", "discarded").stdout
    assert len(stack.json(*mine, "--state", "all", "--run", letter["run_id"])["data"]) >= 1
    assert stack.json("deadletter", "discard", letter["id"][:12], "--note", "again")["known"] == [letter["id"]]
    assert stack.json("ledger", "verify", "--wait", "10")["balanced"] is True
    stack.till("connector", "pause", "mended")


def until(ask: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


async def execute(home: Path, statement: str) -> None:
    await fetch(home, statement)


async def fetch(home: Path, statement: str) -> list[Any]:
    """The first column of every row."""
    held = await asyncpg.connect(json.loads((home / "run" / "stack.json").read_text())["endpoints"]["postgres_dsn"])
    try:
        return [row[0] for row in await held.fetch(statement)]
    finally:
        await held.close()


def test_ctrl_c_stops_everything_and_the_data_is_there_when_the_stack_is_up_again(stack: Stack) -> None:
    """
    The last test of the module: it ends the demonstration, and starts the same home with `till up`.
    """
    until = time.monotonic() + START_S
    while len(stack.references("demo-bank")) == SOURCES["sftp"]["payments"]:  # the bank has a file more every 20 s
        assert time.monotonic() < until
        time.sleep(0.2)
    stack.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert stack.process.wait(STOP_S) == 0, stack.notes.read_text()
    assert time.monotonic() - began < STOP_S
    assert processes_of(stack.home) == []
    assert stack.json("status", status=ExitStatus.FAILED)["running"] is False

    again = subprocess.Popen(
        [sys.executable, "-m", "tillstream", "--home", str(stack.home), "up"],
        stderr=subprocess.DEVNULL, cwd=stack.home.parent, env=environment(),
    )  # fmt: skip
    try:
        until = time.monotonic() + START_S
        while subprocess.run(
            [sys.executable, "-m", "tillstream", "--home", str(stack.home), "status"],
            capture_output=True, env=environment(), check=False,
        ).returncode:  # fmt: skip
            assert again.poll() is None
            assert time.monotonic() < until
        assert len(stack.references("demo")) == FOLDER["payments"]
        assert len(stack.references("demo-bank")) > SOURCES["sftp"]["payments"]
        # partners ended with their demonstration: nothing is left that would look for them, or hold the log back
        assert not {each["name"] for each in stack.json("connector", "list")["data"]} & set(PARTNERS)
        assert asyncio.run(fetch(stack.home, "SELECT slot_name FROM pg_replication_slots")) == []
        assert [file for file in (stack.home / "secrets").rglob("*") if file.is_file()] == []
        assert stack.json("ledger", "verify", "--wait", "30")["balanced"] is True
        what_was_lost_is_named_and_mended(stack)
        assert f"would stop the stack in {stack.home}" in stack.till("down", "--dry-run").stderr
        assert again.poll() is None
        stack.till("down")
        assert again.wait(STOP_S) == 0
    finally:
        if again.poll() is None:
            again.terminate()
            again.wait(STOP_S)
    assert processes_of(stack.home) == []


def what_was_lost_is_named_and_mended(stack: Stack) -> None:
    """Somebody deletes an event row: the ledger names its run, no demonstration ends with 0, replay brings it back."""
    run_id = asyncio.run(lose_an_event(stack.home))

    findings = stack.json("ledger", "verify", status=ExitStatus.FAILED)["findings"]
    assert str(run_id) in {each["run"] for each in findings}
    assert stack.json("demo", "--once", status=ExitStatus.FAILED)["balanced"] is False
    assert stack.json(*REPLAY, status=ExitStatus.FAILED)["status"] == "different"
    mended = stack.json(*REPLAY, "--apply")["report"]
    assert (mended["mended"]["events"], mended["left"]) == (1, 0)
    assert stack.json("ledger", "verify")["balanced"] is True


async def lose_an_event(home: Path) -> UUID:
    dsn = json.loads((home / "run" / "stack.json").read_text())["endpoints"]["postgres_dsn"]
    held = await asyncpg.connect(dsn)
    try:
        query = "DELETE FROM payment_events WHERE reference = 'P-1006' AND provider = 'demo' RETURNING run"
        return (await held.fetch(query))[0]["run"]
    finally:
        await held.close()


def test_once_prints_one_json_object_and_leaves_nothing_running() -> None:
    with services.open_directory() as folder:
        home = folder / "home"
        done = subprocess.run(
            [sys.executable, "-m", "tillstream", "--home", str(home), "demo", "--once", "-o", "json"],
            capture_output=True, text=True, timeout=START_S, cwd=folder, env=environment(), check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        counts = json.loads(done.stdout)
        assert counts.pop("sources") == SOURCES
        assert counts.pop("seconds_to_first_payment") > 0
        assert counts == {**TOTALS, "stale": STALE, "balanced": True}
        assert processes_of(home) == []
        assert {each.name for each in folder.iterdir()} == {"home"}


def test_a_demonstration_without_samples_starts_nothing_and_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tillstream", "demo", "--once", "--samples", str(tmp_path)],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment(), check=False,
    )  # fmt: skip

    assert done.returncode == ExitStatus.CONFIG
    assert "there are no sample files" in done.stderr
    assert "starting" not in done.stderr
