from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.services import Kafka
from tillstream.cli.exit import ExitStatus


def till(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TILL_")}
    return subprocess.run(
        [sys.executable, "-m", "tillstream", *arguments],
        capture_output=True, text=True, timeout=60, env={**environment, **variables}, check=False,
    )  # fmt: skip


def test_what_does_not_answer_has_its_own_status_and_no_traceback(tmp_path: Path) -> None:
    nowhere = {"TILL_POSTGRES_DSN": "postgresql://u:hunter22@127.0.0.1:1/d", "TILL_HOME": str(tmp_path)}

    done = till("payment", "list", **nowhere)

    assert done.returncode == ExitStatus.UNREACHABLE
    assert done.stderr.startswith("error [sink_unavailable]: PostgreSQL does not answer")
    assert "Traceback" not in done.stderr
    assert "hunter22" not in done.stdout + done.stderr
    assert "Traceback" in till("-v", "payment", "list", **nowhere).stderr


def test_a_broker_that_does_not_answer_has_the_same_status(tmp_path: Path) -> None:
    done = till("topic", "lag", TILL_KAFKA_BOOTSTRAP="127.0.0.1:1", TILL_HOME=str(tmp_path))

    assert done.returncode == ExitStatus.UNREACHABLE
    assert "error [broker_unavailable]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_without_our_tables_says_what_to_run(tmp_path: Path, database: str) -> None:
    done = till("payment", "list", TILL_POSTGRES_DSN=database, TILL_HOME=str(tmp_path))

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

    first = json.loads(till("migrate", "-o", "json", **variables).stdout)
    second = till("migrate", **variables)

    assert first["migrations"][0] == "0001_connectors.sql"
    assert f"{variables['TILL_TOPIC_PREFIX']}.events" in first["topics"]
    assert (second.returncode, second.stdout) == (0, "")
    assert "nothing to do" in second.stderr
