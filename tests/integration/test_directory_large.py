"""Files larger than memory may be: read in bounded memory, resumed by seeking."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from connectors import directory
from connectors.context import SourceContext
from connectors.files import content
from connectors.source import Task
from connectors.testing import CONNECTOR, ManualClock

MIB = 1_048_576
ROW_BYTES = 2_048
HEADER = b"reference,type,status,asset,amount,note\n"
MOST_RSS_MIB = 300

READ_ALL = """
import asyncio, json, pathlib, re, sys
from connectors import directory
from connectors.clock import SystemClock
from connectors.runner import Ports, Runner
from connectors.testing import CONNECTOR, Memory, run_through

class Counted:
    count = 0
    async def publish(self, messages):
        self.count += len(messages)

async def main():
    memory, publisher = Memory(), Counted()
    ports = memory.ports(SystemClock())
    ports = Ports(publisher, ports.dead_letters, ports.checkpoints, ports.runs, ports.clock)
    config = directory.DirectoryConfig(directory=sys.argv[1], rest_s=0)
    await run_through(Runner(CONNECTOR, directory.SPEC, config, ports, epoch=1))
    # not ru_maxrss: what a child inherits of its parent's peak counts there
    rss_mib = int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
    letters = [(letter.reason, letter.size_bytes) for letter in memory.letters]
    print(json.dumps({"rss_mib": rss_mib, "published": publisher.count, "letters": letters}))

asyncio.run(main())
"""


def row(number: int) -> bytes:
    return (b"r%d,payin,succeeded,EUR,100," % number).ljust(ROW_BYTES - 1, b"x") + b"\n"


def read_in_a_process(folder: Path) -> dict[str, object]:
    """What a process of its own read of the folder, and the most memory it had."""
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    rows = 200 * MIB // ROW_BYTES
    with (tmp_path / "large.csv").open("wb") as file:
        file.write(HEADER)
        for first in range(0, rows, 1_000):
            file.write(b"".join(row(number) for number in range(first, min(first + 1_000, rows))))

    result = read_in_a_process(tmp_path)

    assert result["published"] == rows
    assert float(str(result["rss_mib"])) < MOST_RSS_MIB


@pytest.mark.parametrize("name", ["holes.csv", "holes.json", "holes.jsonl"])
def test_a_record_larger_than_memory_is_one_letter_and_needs_no_more_memory(tmp_path: Path, name: str) -> None:
    """
    A hole of a sparse file: no newline, no end, 200 MiB of NUL.
    """
    with (tmp_path / name).open("wb") as file:
        file.write(HEADER if name == "holes.csv" else b"")
        begin = file.tell()
        file.truncate(200 * MIB)

    result = read_in_a_process(tmp_path)

    assert result["letters"] == [["record_too_large", 200 * MIB - begin]]
    assert float(str(result["rss_mib"])) < MOST_RSS_MIB


async def test_reading_goes_on_at_the_end_of_a_file_of_a_gigabyte_and_a_half_by_seeking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, end = tmp_path / "large.csv", 1_500 * MIB
    with path.open("wb") as file:
        file.write(HEADER)
        file.truncate(end)
        file.seek(end)
        file.write(row(1) + row(2))
    seen: list[int] = []
    read = content._read
    monkeypatch.setattr(content, "_read", lambda fd, offset, size: (seen.append(offset), read(fd, offset, size))[1])
    stamp = content.stamp(path.stat())
    header = HEADER.decode().strip().split(",")
    cursor = {
        "file": path.name, "stamp": stamp, "format": "csv", "offset": end, "row": 700_000, "line": 700_002,
        "encoding": "utf-8", "header": header, "delimiter": ",",
    }  # fmt: skip
    config = directory.DirectoryConfig(directory=str(tmp_path), rest_s=0)
    source = directory.DirectorySource(config, SourceContext(CONNECTOR.id, CONNECTOR.name, ManualClock()))

    tasks = [item async for page in source.tasks({"sha": cursor}) for item in page]
    batches = [batch async for batch in source.read(tasks[0], cursor)] if isinstance(tasks[0], Task) else []

    assert [(r.position, r.line, r.payment.reference) for batch in batches for r in batch.records] == [
        ("row 700001", 700_002, "r1"),
        ("row 700002", 700_003, "r2"),
    ]
    assert seen == [end]
    await source.close()
