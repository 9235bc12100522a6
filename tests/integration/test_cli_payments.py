"""Payments, dead letters, replays, the ledger and the lag as commands, over the API."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from pydantic import BaseModel

from schemas.letter import DeadLetter, Stage
from schemas.topic import topics
from sinks.letters import LetterTable
from sinks.pool import Pool, close_pool, open_pool
from sinks.postgres import PostgresSink
from streams.provision import provision
from streams.publisher import EventPublisher, Producer
from streams.reader import find_range
from streams.replay import replay as apply_live
from tests.cli_kit import Till, commands, served
from tests.integration.test_discard import a_letter, copies
from tests.integration.test_replay import message
from tests.model.history import PLACE, record
from tests.services import Kafka
from tillstream.api.v1 import (
    action,
    activity,
    connector,
    cursor,
    dead_letter,
    lag,
    ledger,
    payment,
    replay,
    run,
    version,
)
from tillstream.cli.connector import CONNECTORS, CURSORS, TASKS, VERSIONS
from tillstream.cli.deadletter import GROUPS, LETTERS, WHOLE
from tillstream.cli.exit import ExitStatus
from tillstream.cli.happening import EVENTS as EVENTS_OF_RUNS
from tillstream.cli.ledger import FINDINGS
from tillstream.cli.payment import EVENTS, PAYMENTS
from tillstream.cli.replay import REPLAYS
from tillstream.cli.run import FILES, RUNS
from tillstream.cli.topic import LAG


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def url(home: Path, database: str) -> Iterator[str]:
    with served(home, database) as found:
        yield found


@pytest.fixture
def till(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, home: Path, url: str
) -> Iterator[Till]:
    with commands(monkeypatch, capsys, tmp_path, TILL_HOME=str(home)) as found:
        yield found


def api(url: str, path: str) -> Any:
    """What the API itself answers."""
    with urlopen(f"{url}/api/v1{path}") as answer:
        return json.load(answer)


def with_pool(database: str, work: Callable[[Pool], Awaitable[Any]]) -> Any:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Pool]:
        pool = await open_pool(database, size=2, application="test", durable=False)
        try:
            yield pool
        finally:
            await close_pool(pool)

    async def run() -> Any:
        async with opened() as pool:
            return await work(pool)

    return asyncio.run(run())


def apply(database: str, *references: str, first: int = 0) -> None:
    """A payment each, in this order."""

    async def run() -> None:
        sink = await PostgresSink.open(database)
        try:
            records = [
                record("succeeded", 12_50 + n, reference=each, at=first + n + 1) for n, each in enumerate(references)
            ]
            await sink.apply(PLACE, records, next_offset=first + len(records))
        finally:
            await sink.close()

    asyncio.run(run())


def put(database: str, *letters: DeadLetter) -> None:
    async def work(pool: Pool) -> None:
        for offset, each in enumerate(letters):
            await LetterTable(pool).put(each, partition=0, offset=offset)

    with_pool(database, work)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (payment.PaymentShape, PAYMENTS.fields),
        (payment.EventShape, EVENTS.fields),
        (dead_letter.LetterShape, LETTERS.fields),
        (dead_letter.LetterDetail, WHOLE),
        (dead_letter.GroupShape, GROUPS.fields),
        (replay.ReplayShape, REPLAYS.fields),
        (lag.PartitionLagShape, LAG.fields),
        (ledger.FindingShape, FINDINGS.fields),
        (activity.ActivityShape, EVENTS_OF_RUNS.fields),
        (run.RunShape, RUNS.fields),
        (run.FileShape, FILES.fields),
        (connector.ConnectorShape, CONNECTORS.fields),
        (action.TaskShape, TASKS.fields),
        (cursor.CursorShape, CURSORS.fields),
        (version.VersionShape, VERSIONS.fields),
    ],
)
def test_the_columns_of_csv_are_the_fields_of_the_apis_models(model: type[BaseModel], fields: tuple[str, ...]) -> None:
    assert tuple(model.model_fields) == fields


def test_payments_are_listed_in_every_format_as_the_api_gives_them(till: Till, url: str, database: str) -> None:
    assert till("payment", "list").stderr == "no payments yet\n"
    assert till("payment", "list", "--status", "settled").stderr == "no payments match\n"
    apply(database, "R0", "R1", "=R2")
    page = api(url, "/payments")

    assert till.json("payment", "list") == page
    assert yaml.safe_load(till("payment", "list", "-o", "yaml").stdout) == page
    lines = till("payment", "list", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == page["data"]
    rows = list(csv.reader(io.StringIO(till("payment", "list", "-o", "csv").stdout, newline="")))
    assert tuple(rows[0]) == PAYMENTS.fields
    assert [row[3] for row in rows[1:]] == ["'=R2", "R1", "R0"]
    assert [json.loads(row[-1]) for row in rows[1:]] == [each["adjustments"] for each in page["data"]]
    table = till("payment", "list", "--columns", "reference,amount,id", "--no-headers").stdout.splitlines()
    assert [line.split() for line in table] == [
        [each["reference"], f"{each['amount'] / 100:.2f}", each["id"]] for each in page["data"]
    ]


def test_a_page_of_payments_leads_to_the_next_and_a_long_list_is_many_pages(
    till: Till, url: str, database: str
) -> None:
    apply(database, *(f"R{n}" for n in range(205)))

    first = till("payment", "list", "--limit", "3", "-o", "json")
    body = json.loads(first.stdout)
    rest = till.json("payment", "list", "--limit", "9000", "--after", body["next"])
    lines = till("payment", "list", "--limit", "204", "-o", "jsonl")

    assert first.stderr == f"more: --after {body['next']}\n"
    assert (len(body["data"]), len(rest["data"]), rest["next"]) == (3, 202, None)
    assert [each["reference"] for each in body["data"] + rest["data"]] == [f"R{n}" for n in reversed(range(205))]
    assert len(lines.stdout.splitlines()) == 204
    assert lines.stderr.startswith("more: --after ")


def test_filters_are_the_apis_and_a_wrong_one_is_usage(till: Till, database: str) -> None:
    apply(database, "R0", "R1")

    def references(*options: str) -> list[str]:
        return [each["reference"] for each in till.json("payment", "list", *options)["data"]]

    assert references("--reference", "R1", "--provider", "example") == ["R1"]
    assert references("--asset", "USD", "--type", "payin", "--status", "succeeded") == ["R1", "R0"]
    assert references("--from", "2000-01-01", "--to", "2000-01-02T00:00:00Z") == []
    wrong = till("payment", "list", "--status", "sttled")
    assert (wrong.returncode, wrong.stdout) == (ExitStatus.USAGE, "")
    assert "partially_refunded" in wrong.stderr
    assert till("payment", "list", "--from", "2000-01-01T00:00:00").returncode == ExitStatus.USAGE
    assert till("payment", "list", "--connector", "nobody").returncode == ExitStatus.NOT_FOUND
    assert till("payment", "list", "--after", "nonsense").returncode == ExitStatus.USAGE


def test_a_payment_is_shown_and_followed_back_by_id_and_by_reference(till: Till, url: str, database: str) -> None:
    apply(database, "R0", "a/b")
    _, one = api(url, "/payments")["data"]

    assert till.json("payment", "show", "R0") == till.json("payment", "show", one["id"]) == one
    assert till.json("payment", "show", "a/b")["reference"] == "a/b"
    assert "12.50 USD" in till("payment", "show", "R0").stdout
    assert till("payment", "show", "R0", "--columns", "status", "--no-headers").stdout.split()[0] == "succeeded"
    lineage = till.json("payment", "lineage", "R0")
    assert lineage == api(url, f"/payments/{one['id']}/lineage")
    (event,) = [json.loads(line) for line in till("payment", "lineage", "R0", "-o", "jsonl").stdout.splitlines()]
    assert event == lineage["events"][0]
    assert f"{PLACE.topic}/{PLACE.partition}@" in till("payment", "lineage", "R0").stdout
    for verb in ("show", "lineage"):
        missing = till("payment", verb, "nothing")
        assert missing.returncode == ExitStatus.NOT_FOUND
        assert missing.stderr.startswith("error [not_found]: there is no payment 'nothing'")


def test_tail_tells_what_is_there_and_what_comes_until_it_is_interrupted(
    till: Till, home: Path, url: str, database: str
) -> None:
    apply(database, "R0", "R1", "R2")

    with following(home, "-n", "2", "-o", "jsonl") as lines:
        assert [json.loads(next(lines))["reference"] for _ in range(2)] == ["R1", "R2"]
        apply(database, "R3", "R4", first=3)
        assert [json.loads(next(lines))["reference"] for _ in range(2)] == ["R3", "R4"]
    assert till("payment", "tail", "-o", "json").returncode == ExitStatus.USAGE
    assert till("payment", "tail", "--status", "sttled").returncode == ExitStatus.USAGE


@contextlib.contextmanager
def following(home: Path, *options: str) -> Iterator[Iterator[str]]:
    """The lines of a `tail`, which Ctrl-C ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tillstream", "payment", "tail", *options],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "TILL_HOME": str(home)},
    )  # fmt: skip
    assert process.stdout is not None
    deadline = threading.Timer(120, process.kill)  # then there is no next line
    deadline.start()
    with process:
        try:
            yield iter(process.stdout)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == ExitStatus.INTERRUPTED
        finally:
            deadline.cancel()
            process.kill()


def test_dead_letters_are_listed_grouped_shown_and_let_go(till: Till, url: str, database: str) -> None:
    assert till("deadletter", "list").stderr == "no dead letters\n"
    letters = [a_letter(row) for row in range(3)]
    put(database, *letters)

    page = till.json("deadletter", "list")
    assert page == api(url, "/dead-letters")
    assert [each["id"] for each in page["data"]] == [each.id for each in reversed(letters)]
    assert till.json("deadletter", "groups") == api(url, "/dead-letters/groups")
    assert till("deadletter", "groups", "-o", "csv").stdout.splitlines()[0] == ",".join(GROUPS.fields)
    one = letters[0]
    assert till.json("deadletter", "show", one.id[:12]) == api(url, f"/dead-letters/{one.id}")
    assert "a,b" in till("deadletter", "show", one.id[:12]).stdout
    assert till("deadletter", "show", one.id, "-o", "csv").stdout.splitlines()[0] == ",".join(WHOLE)
    assert till("deadletter", "show", "f" * 12).returncode == ExitStatus.NOT_FOUND
    wrong = till("deadletter", "list", "--reason", "nonsense")
    assert (wrong.returncode, "invalid_amount" in wrong.stderr) == (ExitStatus.USAGE, True)
    assert till("deadletter", "list", "--reason", "event_id_reused").stderr == "no dead letters\n"

    assert till("deadletter", "discard", one.id).returncode == ExitStatus.USAGE, "it needs a note"
    assert till("deadletter", "discard", "--note", "n").returncode == ExitStatus.USAGE, "it needs letters"
    planned = till.json("deadletter", "discard", one.id[:12], "--note", "mended", "--dry-run")
    assert planned == {"dry_run": True, "discarded": [one.id], "known": [], "refused": []}
    assert len(till.json("deadletter", "list")["data"]) == 3
    assert till.json("deadletter", "discard", one.id[:12], "--note", "mended", "--by", "ops")["discarded"] == [one.id]
    assert till.json("deadletter", "discard", one.id[:12], "--note", "again")["known"] == [one.id]
    assert "discarded by ops: mended" in till("deadletter", "list", "--state", "discarded").stdout
    refused = till("deadletter", "redrive", "--all", "--dry-run")
    assert refused.returncode == ExitStatus.CONFLICT
    assert "not_an_event" in refused.stdout
    assert till("deadletter", "redrive").returncode == ExitStatus.USAGE


def test_raw_writes_a_letters_bytes_and_nothing_else(till: Till, home: Path, database: str) -> None:
    put(database, a_letter(1).model_copy(update={"value": "AP8NCg=="}))
    (row,) = till.json("deadletter", "list")["data"]

    done = subprocess.run(
        [sys.executable, "-m", "tillstream", "deadletter", "show", row["id"], "--raw"],
        capture_output=True, timeout=60, check=True, env={**os.environ, "TILL_HOME": str(home)},
    )  # fmt: skip

    assert (done.stdout, done.stderr) == (b"\x00\xff\r\n", b"")


@pytest.mark.parametrize("verb", [("redrive", "--all"), ("discard", "--stage", "sink", "--note", "n")])
def test_every_letter_is_meant_where_no_limit_is_set(
    till: Till, database: str, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    """Also those beyond what the API takes at once."""
    monkeypatch.setattr("tillstream.cli.letters.MOST", 500)
    where = {"stage": Stage.SINK, "topic": topics("till").events.name, "key": "aw=="}
    with_pool(database, lambda pool: copies(pool, a_letter(1).model_copy(update=where), 1_234))

    def told(*options: str) -> int:
        answer = till.json("deadletter", *verb, "--dry-run", *options)
        ids = answer["sent"] if verb[0] == "redrive" else answer["discarded"]
        assert len(ids) == len(set(ids))
        return len(ids)

    assert told() == 1_234
    assert told("--limit", "1100") == 1_100
    assert told("--limit", "300") == 300


def test_letters_are_redriven_the_log_is_replayed_and_the_ledger_and_the_lag_are_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    home: Path,
    kafka: Kafka,
    database: str,
    topic_prefix: str,
) -> None:
    prefix = topic_prefix.rstrip(".")
    table = topics(prefix)
    asyncio.run(provision(kafka.bootstrap, table.all()))
    where = {"stage": Stage.SINK, "topic": table.events.name, "partition": 0, "offset": 0, "key": "YQ=="}
    with (
        served(home, database, bootstrap=kafka.bootstrap, prefix=prefix),
        commands(monkeypatch, capsys, tmp_path, TILL_HOME=str(home)) as till,
    ):
        asyncio.run(published_and_stored(kafka.bootstrap, prefix, database))
        equal = till.json("replay", "create", "--wait")
        assert (equal["status"], equal["report"]["records"], equal["requested_by"]) == ("equal", 5, "CLI")
        with_pool(database, lambda pool: pool.execute(f"DELETE FROM payment_events WHERE {ONE}"))
        different = till("replay", "create", "--wait", "-o", "json")
        assert (different.returncode, json.loads(different.stdout)["status"]) == (ExitStatus.FAILED, "different")
        planned = till.json("replay", "create", "--apply", "--dry-run")
        begun = till.json("replay", "create", "--apply")
        assert planned["id"] != begun["id"]
        mended = till("replay", "show", begun["id"], "--wait")
        assert (mended.returncode, "mended: 1 events" in mended.stderr) == (0, True), mended.stderr
        assert [each["status"] for each in till.json("replay", "list")["data"]] == ["mended", "different", "equal"]
        assert till("replay", "show", "0" * 32).returncode == ExitStatus.NOT_FOUND
        assert till("replay", "create", "--from", "2025-01-01T00:00:00").returncode == ExitStatus.USAGE
        lags = lag_of(till)
        assert {each["topic"] for each in lags["data"]} >= {table.events.name}
        assert till("topic", "lag", "-o", "csv").stdout.startswith(",".join(LAG.fields))

        put(database, a_letter(1).model_copy(update=where))
        (letter,) = till.json("deadletter", "list")["data"]
        tried = till.json("deadletter", "redrive", letter["id"][:12], "--dry-run")
        sent = till.json("deadletter", "redrive", letter["id"][:12])
        assert (tried["sent"], tried["run_id"], sent["sent"]) == ([letter["id"]], None, [letter["id"]])
        assert till.json("deadletter", "list", "--run", sent["run_id"][:8])["data"] == []
        again = till("deadletter", "redrive", "--all")
        assert (again.returncode, "it is being redriven" in again.stdout) == (ExitStatus.CONFLICT, True)
        verified = till("ledger", "verify", "-o", "json")
        report = json.loads(verified.stdout)
        assert (report["balanced"], report["wrong"]) == (False, True), "a letter that no run counted"
        assert verified.returncode == ExitStatus.FAILED
        assert till("ledger", "verify", "-o", "csv").stdout.splitlines()[0] == ",".join(FINDINGS.fields)


ONE = "digest = (SELECT digest FROM payment_events ORDER BY digest LIMIT 1)"


async def published_and_stored(bootstrap: str, prefix: str, database: str) -> None:
    """Five events, in the log and in the tables."""
    table = topics(prefix)
    async with Producer(bootstrap) as producer:
        await EventPublisher(producer, table).publish([message(n) for n in range(5)])
    live = await PostgresSink.open(database)
    await apply_live(bootstrap, await find_range(bootstrap, table.events.name), live)
    await live.close()


def lag_of(till: Till) -> dict[str, Any]:
    """A new cluster has no coordinator until somebody has asked for it."""
    until = time.monotonic() + 120
    while (done := till("topic", "lag", "-o", "json")).returncode != 0:
        assert time.monotonic() < until, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_ledger_without_findings_balances_and_an_api_without_a_broker_has_no_lag_to_tell(
    till: Till,
) -> None:
    nothing = till("ledger", "show")
    assert (nothing.returncode, "nobody has verified" in nothing.stderr) == (ExitStatus.PARTIAL, True)
    verified = till.json("ledger", "verify", "--wait", "5")
    assert (verified["balanced"], verified["wrong"], verified["findings"]) == (True, False, [])
    assert till.json("ledger", "show") == verified
    assert till("ledger", "verify").stderr.startswith("the ledger balances, as of 20")
    assert till("ledger", "verify", "-o", "jsonl").stdout == ""
