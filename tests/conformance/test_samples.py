"""
Every `samples/<kind>/<case>/` holds a connector, an input, and what becomes of it, a line a record:

    connector.yaml    the connector, as `till connector apply` reads it
    input.*           what the source has, a file or a folder
    expected.jsonl    the events in their order, then what was rejected, then how many were left out

What is expected of a new case is printed by this test when it fails: read it, and keep it if it is right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.clock import SystemClock
from connectors.envelope import Connector
from connectors.registry import specs
from connectors.runner import Runner
from connectors.secret import GivenSecrets
from connectors.testing import CONNECTOR, START, Memory, run_through
from schemas.event import ConnectorEvent
from schemas.letter import DeadLetter
from tests.conformance.feeds import FEEDS
from tillstream.control.document import documents

SAMPLES = Path(__file__).parents[2] / "samples"
CASES = sorted(path.parent for kind in FEEDS for path in SAMPLES.glob(f"{kind}/*/connector.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
async def test_a_sample_becomes_what_is_expected_of_it(case: Path, tmp_path: Path) -> None:
    memory = await read(case, tmp_path)

    found = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in told(memory))
    file = case / "expected.jsonl"
    expected = file.read_text(encoding="utf-8") if file.exists() else ""
    assert found == expected, f"{file} should be, if this is right:\n{found}"
    assert memory.last_run.counts.balanced


def test_every_sample_is_whole_and_told_of_in_the_readme() -> None:
    told = re.findall(r"^\| `([^`]+/[^`]+)`", (SAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert {case.parent.name for case in CASES} == set(FEEDS)
    assert {f"{case.parent.name}/{case.name}" for case in CASES} <= set(told)
    assert all(sorted(path.name.partition(".")[0] for path in case.iterdir()) == PARTS for case in CASES)


PARTS = ["connector", "expected", "input"]


async def read(case: Path, folder: Path) -> Memory:
    """Run the case's connector over its input once."""
    (described,) = documents((case / "connector.yaml").read_text(encoding="utf-8"), place=case.name)
    spec, configuration = specs()[described.kind], described.configuration
    spec.config.model_validate(configuration)  # as it is, not only as it is tested
    (given,) = case.glob("input*")
    memory = Memory()
    connector = Connector(CONNECTOR.id, described.name, described.provider or described.name)
    async with FEEDS[spec.kind](given, configuration, folder) as fed:
        config = spec.config.model_validate({**configuration, **fed.overrides})
        ports = replace(
            memory.ports(_Clock(fed.moment)), secrets=GivenSecrets(fed.secrets), staging=folder.with_name("staging")
        )
        await run_through(Runner(connector, spec, config, ports, epoch=1))
    return memory


class _Clock(SystemClock):
    """The wall clock stands still."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment

    def now(self) -> datetime:
        return self._moment


def told(memory: Memory) -> Iterator[dict[str, Any]]:
    """A line for each record, without what says nothing."""
    for event in memory.events:
        yield _event(event)
    for letter in memory.letters:
        yield _rejected(letter)
    counts = memory.last_run.counts
    if counts.filtered:
        yield {"filtered": counts.filtered}


def _event(event: ConnectorEvent) -> dict[str, Any]:
    assert event.payment is not None
    assert event.lineage is not None
    payment = event.payment.model_dump(mode="json", exclude={"provider"})
    revision = event.lineage.model_dump(mode="json")["revision_at"]
    return {
        "event": event.type,
        "foreign_id": event.foreign_id,
        "payment": {name: value for name, value in payment.items() if value not in (None, "")},
        **({"headers": dict(event.headers)} if event.headers else {}),
        "position": event.lineage.position,
        **({"revision_at": revision} if event.lineage.revision_at != START else {}),
    }


def _rejected(letter: DeadLetter) -> dict[str, Any]:
    raw = letter.value_bytes() or b""
    return {
        "rejected": letter.reason,
        "message": letter.message,
        "position": letter.position,
        "raw": raw.decode("utf-8", "backslashreplace"),
    }
