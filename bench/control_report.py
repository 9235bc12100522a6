"""What `bench/control.py` found, as `bench/control.json` and as the last section of `docs/benchmarks.md`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench.control import CLIENTS, WANTED_MS, Found, Times, Variant
from bench.report import PAGE, machine
from bench.watch import UNDISTURBED

JSON = Path(__file__).parent / "control.json"
HEADING = "## What the API answers"
NEWLINE = "\n"


def write(found: Found) -> None:
    """Both files; what else the page says stays."""
    JSON.write_text(json.dumps(_json(found), indent=1) + "\n")
    PAGE.write_text(spliced(PAGE.read_text(), section(found)))


def spliced(page: str, text: str) -> str:
    """The page with this as its last section, in place of the one of an earlier run."""
    return f"{page.partition(HEADING)[0].rstrip()}\n\n{text}"


def kept(page: str) -> str:
    """The section as it stands on the page, or nothing."""
    _, heading, text = page.partition(HEADING)
    return f"\n{heading}{text}" if heading else ""


def _json(found: Found) -> dict[str, object]:
    return {
        **asdict(found),
        "missed": [f"{each.endpoint} ({each.variant})" for each in found.missed],
        "disturbed": found.disturbed,
        "machine": machine(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def section(found: Found) -> str:
    """The section of the page: the slowest variant of each endpoint, by p99."""
    on, size, told = machine(), found.size, found.listening
    worst: dict[str, Variant] = {}
    for each in found.variants:
        if each.endpoint not in worst or each.times.p99_ms > worst[each.endpoint].times.p99_ms:
            worst[each.endpoint] = each
    many = Counter(each.endpoint for each in found.variants)
    return f"""{HEADING}

Milliseconds until an answer is there whole, of an API process over {size.connectors} connectors, {size.runs:,} runs,
{size.files:,} files, {size.payments:,} payments, {size.letters:,} dead letters and {size.activity:,} rows of activity
({found.gib} GiB). Each variant of each endpoint that `openapi.json` has (first pages, deep ones, each filter where it
finds much and little, what is not there) is asked {found.variants[0].times.requests} times by one client. Of each
endpoint the variant with the greatest p99 is shown; all are in `bench/control.json`.

{on["cores"]} cores ({on["cpu"]}), {on["memory_gib"]} GiB, {on["system"]}, Python {on["python"]}.
Load before the run: {found.load_before:.1f}. During a variant others took at most {found.disturbed:.0%} of the machine.

{_disturbance(found)}{_verdict(found)}

| | variants | slowest | p50 | p95 | p99 | most | CPU ms: API | PostgreSQL |
|---|--:|---|--:|--:|--:|--:|--:|--:|
{NEWLINE.join(_row(each, many[endpoint]) for endpoint, each in worst.items())}

{CLIENTS} clients at a time, every endpoint equally often, none of them ever waiting
({found.together.requests:,} requests): {_times(found.together)}.
That is more than two cores can do at once; the slowest there are {_slowest(found.mixed)}.

`GET /api/v1/events`: a listener that was away has its first event after
{_times(told.first)}; from a commit until a listener is told
{_times(told.told)}.
`POST /api/v1/ledger:verify`, which recounts every table: {found.proof_s:.0f} s.
Filling took {found.filled_s:.0f} s, everything {found.seconds:.0f} s; peak RSS of the API {found.rss_mib:.0f} MiB.
"""


def _verdict(found: Found) -> str:
    wanted, many = f"Wanted: p99 below {WANTED_MS:.0f} ms.", len(found.variants)
    if not found.missed:
        return f"{wanted} **Met** by each of {many} variants."
    told = ", ".join(f"`{each.endpoint}` ({each.variant}) {each.times.p99_ms:.0f} ms" for each in found.missed)
    return f"{wanted} **Not met** by {len(found.missed)} of {many} variants: {told}."


def _disturbance(found: Found) -> str:
    if found.disturbed <= UNDISTURBED:
        return ""
    return "**The machine was busy with other work during this run: times are too long, CPU times stand.**\n\n"


def _row(each: Variant, many: int) -> str:
    times = each.times
    told = (times.p50_ms, times.p95_ms, times.p99_ms, times.most_ms, each.api_ms, each.postgres_ms)
    return f"| `{each.endpoint}` | {many} | {each.variant} | {' | '.join(f'{figure:.1f}' for figure in told)} |"


def _times(times: Times) -> str:
    middle = f"p50 {times.p50_ms:.0f} ms, p95 {times.p95_ms:.0f} ms"
    return f"{middle}, p99 **{times.p99_ms:.0f} ms**, most {times.most_ms:.0f} ms"


def _slowest(mixed: Mapping[str, Times]) -> str:
    slowest = sorted(mixed.items(), key=lambda each: -each[1].p99_ms)[:3]
    return ", ".join(f"`{endpoint}` (p99 {times.p99_ms:.0f} ms)" for endpoint, times in slowest)
