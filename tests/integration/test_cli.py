from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import Kafka
from tillstream.cli.exit import ExitStatus
from tillstream.cli.output import Output


def till(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TILL_")}
    return subprocess.run(
        [sys.executable, "-m", "tillstream", *arguments],
        capture_output=True, text=True, timeout=60, cwd=cwd, env={**environment, **variables}, check=False,
    )  # fmt: skip


def test_what_does_not_answer_has_its_own_status_and_no_traceback(tmp_path: Path) -> None:
    nowhere = {"TILL_POSTGRES_DSN": "postgresql://u:hunter22@127.0.0.1:1/d", "TILL_HOME": str(tmp_path)}

    done = till("migrate", **nowhere)

    assert done.returncode == ExitStatus.UNREACHABLE
    assert done.stderr.startswith("error [sink_unavailable]: PostgreSQL does not answer")
    assert "Traceback" not in done.stderr
    assert "hunter22" not in done.stdout + done.stderr
    assert "Traceback" in till("-v", "migrate", **nowhere).stderr


def test_a_broker_that_does_not_answer_has_the_same_status(tmp_path: Path, database: str) -> None:
    servers = {"TILL_KAFKA_BOOTSTRAP": "127.0.0.1:1", "TILL_POSTGRES_DSN": database}

    done = till("migrate", "--dry-run", TILL_HOME=str(tmp_path), **servers)

    assert done.returncode == ExitStatus.UNREACHABLE
    assert done.stderr.startswith("error [broker_unavailable]")
    assert done.stderr.count("\n") == 2, "the error and its hint, and no line of a library's log"
    assert "Traceback" not in done.stderr


def test_a_database_without_our_tables_says_what_to_run(tmp_path: Path, database: str) -> None:
    done = till("source", "check", "bank", TILL_POSTGRES_DSN=database, TILL_HOME=str(tmp_path))

    assert done.returncode == ExitStatus.FAILED
    assert "error [sink_misconfigured]" in done.stderr
    assert "`till migrate`" in done.stderr


def test_migrate_makes_tables_and_topics_once_and_tells_what_it_did(
    tmp_path: Path, kafka: Kafka, database: str, topic_prefix: str
) -> None:
    variables = {
        "TILL_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "TILL_POSTGRES_DSN": database,
        "TILL_HOME": str(tmp_path),
        "TILL_TOPIC_PREFIX": topic_prefix.rstrip("."),
    }

    planned = [json.loads(till("migrate", "--dry-run", "-o", "json", **variables).stdout) for _ in range(2)]
    first = json.loads(till("migrate", "-o", "json", **variables).stdout)
    second = till("migrate", **variables)
    nothing = till("migrate", "--dry-run", **variables)

    assert planned == [first | {"dry_run": True}] * 2
    assert "nothing to do" in nothing.stderr
    assert first["migrations"][0] == "0001_connectors.sql"
    assert f"{variables['TILL_TOPIC_PREFIX']}.events" in first["topics"]
    assert (second.returncode, second.stdout) == (0, "")
    assert "nothing to do" in second.stderr


@pytest.mark.parametrize("output", list(Output))
def test_what_is_printed_for_somebody_who_reads_no_further_ends_in_silence(tmp_path: Path, output: Output) -> None:
    reads, writes = os.pipe()
    os.close(reads)

    done = subprocess.run(
        [sys.executable, "-m", "tillstream", "source", "list", "-o", output.value],
        stdout=writes, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        env={**os.environ, "TILL_HOME": str(tmp_path)},
    )  # fmt: skip

    os.close(writes)
    assert (done.returncode, done.stderr) == (ExitStatus.FAILED, ""), "as Click has it"
