from __future__ import annotations

import re
from pathlib import Path

import connectors
from connectors import directory
from connectors.runner import Runner
from connectors.testing import CONNECTOR, ManualClock, Memory, run_through

SAMPLES = Path(connectors.__file__).parents[1] / "samples" / "directory"


async def read(**options: object) -> Memory:
    memory, clock = Memory(), ManualClock()
    config = directory.DirectoryConfig.model_validate({"directory": str(SAMPLES), "rest_s": 0, **options})
    await run_through(Runner(CONNECTOR, directory.SPEC, config, memory.ports(clock), epoch=1), clock=clock)
    return memory


async def test_the_samples_show_every_fate_at_the_source() -> None:
    memory = await read()

    counts = memory.last_run.counts
    assert counts.balanced
    assert counts.published > 15
    assert counts.skipped == 1
    assert {letter.reason for letter in memory.letters} == {
        "truncated",
        "invalid_amount",
        "missing_reference",
        "unknown_asset",
    }


async def test_every_sample_is_told_of_in_the_readme() -> None:
    first = (SAMPLES.parent / "README.md").read_text().split("\n## ")[1]
    told = re.findall(r"^\| `([^`/]+)`", first, re.MULTILINE)

    assert sorted(told) == sorted(path.name for path in SAMPLES.iterdir() if path.is_file())


async def test_the_first_sample_is_the_tutorials() -> None:
    memory = await read(pattern="001.json")

    (event,) = memory.events
    assert event.payment
    assert event.payment.model_dump(mode="json") == {
        "provider": "example",
        "reference": "001",
        "parent_reference": None,
        "type": "payin",
        "status": "succeeded",
        "amount": 100,
        "asset": "USD",
        "scheme": "",
        "effective_at": None,
        "raw": None,
    }
