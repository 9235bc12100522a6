"""What a run found, as `bench/latest.json` and as `docs/benchmarks.md`."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.changes import ROWS_PER_S as CHANGES_PER_S
from bench.changes import ChangeLatency
from bench.latency import FILES_PER_S, ROWS_PER_S, Latency
from bench.watch import UNDISTURBED, Measured

ROOT = Path(__file__).parent
JSON = ROOT / "latest.json"
PAGE = ROOT.parent / "docs" / "benchmarks.md"

Rounds = Mapping[str, Sequence[Measured]]

# Key → what it is, for the page.
NAMES = {
    "limit_1": "the limit: the sink's statement fed from memory, 1 connection",
    "limit_4": "the limit, 4 connections",
    "till_1": "**Tillstream**, one sink worker",
    "till_2": "**Tillstream**, two sink workers",
    "faust_take": "a stock Faust agent with `take()`, flat upsert",
    "aiokafka_plain": "a plain aiokafka loop, flat upsert",
    "produce_rows": "our publisher, encoded events",
    "directory_limit": "a loop of `json.dumps` and batches",
    "directory_rows": "**Tillstream**, a CSV file in a watched folder → topic",
    "changes_rows": "**Tillstream**, rows that a database commits → topic",
    "sftp_mib_s": "**Tillstream**, a file of an SFTP server, verified → staging",
    "sftp_openssh_mib_s": "OpenSSH's `sftp`",
}
CONSUMERS = ("limit_1", "limit_4", "till_1", "till_2", "faust_take", "aiokafka_plain")
PRODUCERS = ("produce_rows", "directory_limit", "directory_rows", "changes_rows")
ROWS_WANTED, MIB_WANTED = 30_000, 200
DOWNLOADS = ("sftp_mib_s", "sftp_openssh_mib_s")


@dataclass(frozen=True, slots=True)
class Target:
    """A promise about two figures of one run."""

    key: str
    against: str
    least: float

    def ratio(self, figures: Mapping[str, float]) -> float:
        """How the two stand to each other."""
        return figures[self.key] / figures[self.against]


TARGETS = (
    Target("till_1", "limit_4", 0.60),
    Target("till_1", "faust_take", 4.0),
    Target("directory_rows", "directory_limit", 0.60),
    Target("sftp_mib_s", "sftp_openssh_mib_s", 0.80),
)


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that one run found."""

    rounds: Rounds
    latency: Latency
    changes: ChangeLatency
    event_bytes: float
    events: int
    quick: bool
    load_before: float
    seconds: float

    @property
    def figures(self) -> dict[str, float]:
        """The keys that others read: medians, in events or rows per second where no unit is named."""
        found = {name: round(median(rounds)) for name, rounds in self.rounds.items()}
        return {
            **found,
            "latency_p50_ms": round(self.latency.p50_ms, 1),
            "latency_p99_ms": round(self.latency.p99_ms, 1),
            "changes_latency_p50_ms": round(self.changes.p50_ms, 1),
            "changes_latency_p99_ms": round(self.changes.p99_ms, 1),
            "rss_mib_worker": round(max(each.rss_mib for each in self.rounds["till_1"]), 1),
        }

    @property
    def disturbed(self) -> float:
        """The greatest share of the machine that somebody else took during a round."""
        return max(each.others for rounds in self.rounds.values() for each in rounds)


def median(rounds: Sequence[Measured]) -> float:
    """Events per second, of the round in the middle."""
    return statistics.median(each.per_second for each in rounds)


def write(run: Run, *, kept: str = "") -> None:
    """Both files; `kept` is what the page says of another run."""
    JSON.write_text(json.dumps(_json(run), indent=2) + "\n")
    PAGE.write_text(page(run) + kept)


def _json(run: Run) -> dict[str, object]:
    return {
        **run.figures,
        "ratios": {f"{each.key}/{each.against}": round(each.ratio(run.figures), 3) for each in TARGETS},
        "rss_mib": {name: round(max(each.rss_mib for each in rounds), 1) for name, rounds in run.rounds.items()},
        "rounds": {name: [asdict(each) for each in rounds] for name, rounds in run.rounds.items()},
        "latency": asdict(run.latency),
        "changes_latency": asdict(run.changes),
        "event_bytes": round(run.event_bytes),
        "events": run.events,
        "quick": run.quick,
        "machine": machine(),
        "load_before": run.load_before,
        "disturbed": round(run.disturbed, 3),
        "seconds": round(run.seconds),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine() -> dict[str, object]:
    """What it ran on."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("aiokafka", "faust-streaming", "asyncpg", "msgspec", "pydantic")},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def page(run: Run) -> str:
    """`docs/benchmarks.md`."""
    on = machine()
    length = "quick, " if run.quick else ""
    rounds = max(len(each) for each in run.rounds.values())
    late, changes = run.latency, run.changes
    text = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. How each figure is measured and what limits it:",
        "[decisions/010-performance.md](decisions/010-performance.md).",
        "",
        f"One run ({length}{rounds} rounds, medians), one topic of 4 partitions, {run.events} events of",
        f"{run.event_bytes:.0f} bytes, a tenth of them about a payment named before. Contenders take turns, every",
        "second round backwards, each from a fresh database and the beginning of the topic.",
        f"Broker, database and contender share one machine: {on['cores']} cores ({on['cpu']}),",
        f"{on['memory_gib']} GiB, {on['system']}, Python {on['python']}.",
        "PostgreSQL on a disk, `synchronous_commit=on`. Only ratios carry over.",
        f"Load before the run: {run.load_before:.1f}.",
        f"During a round others took at most {run.disturbed:.0%} of the machine.",
        "",
        *_disturbance(run),
        "## Topic → PostgreSQL",
        "",
        *_table(run, CONSUMERS, "events/s"),
        "",
        "Tillstream's statement does more than the flat upsert of the two others: event rows that absorb redeliveries,",
        "a fold over all of a payment's events, the ledger of the run, offsets; and it validates as much as they do.",
        "",
        "## Files and tables → topic",
        "",
        *_table(run, PRODUCERS, "rows/s"),
        "",
        f"Of a database's changes {ROWS_WANTED:,} rows/s are wanted, in less than {MIB_WANTED} MiB.",
        "PostgreSQL's time there is for decoding its log; the rows were committed before, a thousand in a transaction.",
        "",
        "## SFTP server → disk",
        "",
        f"A file of {run.rounds[DOWNLOADS[0]][0].events} MiB that no compression makes smaller, from one server of",
        "OpenSSH's, with each client's own choice of cipher. Ours holds the login, the listing and the SHA-256.",
        "",
        *_downloads(run),
        "",
        "## Targets",
        "",
        "| ratio | wanted | found | |",
        "|---|---|---|---|",
        *(_target(each, run.figures) for each in TARGETS),
        "",
        "## Latency",
        "",
        "From the rename of a file into the watched folder to the commit of its rows, at",
        f"{ROWS_PER_S} rows/s in {FILES_PER_S} files/s, polled every {late.poll_s * 1_000:.0f} ms, both workers up:",
        f"p50 **{late.p50_ms:.0f} ms**, p99 **{late.p99_ms:.0f} ms**, most {late.most_ms:.0f} ms ({late.rows} rows).",
        "Both ends are read from one clock: before the rename, and PostgreSQL's commit time of the row.",
        f"Peak RSS: sink {late.sink_rss_mib:.0f} MiB, connector {late.connector_rss_mib:.0f} MiB.",
        "",
        f"From the commit of a row in a followed database to the commit of its event, at {CHANGES_PER_S} rows/s:",
        f"p50 **{changes.p50_ms:.0f} ms**, p99 **{changes.p99_ms:.0f} ms**, most {changes.most_ms:.0f} ms.",
        f"{changes.rows} rows; both are commit times of one server.",
        "",
    ]
    return "\n".join(text)


def _disturbance(run: Run) -> list[str]:
    if run.disturbed <= UNDISTURBED:
        return []
    return ["**The machine was busy with other work during this run: wall times are too slow, CPU times stand.**", ""]


def _table(run: Run, names: Sequence[str], unit: str) -> list[str]:
    lines = [
        f"| | {unit} | lowest to highest | CPU µs: itself | Kafka | PostgreSQL | peak RSS MiB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in names:
        rounds = run.rounds[name]
        rates = [each.per_second for each in rounds]
        cpu = {who: statistics.median(each.cpu_us[who] for each in rounds) for who in rounds[0].cpu_us}
        lines.append(
            f"| {NAMES[name]} (`{name}`) | {median(rounds):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} |"
            f" {cpu['contender']:.1f} | {cpu['kafka']:.1f} | {cpu['postgres']:.1f} |"
            f" {max(each.rss_mib for each in rounds):.0f} |"
        )
    return lines


def _downloads(run: Run) -> list[str]:
    lines = ["| | MiB/s | lowest to highest | CPU ms per MiB: itself | server |", "|---|--:|--:|--:|--:|"]
    for name in DOWNLOADS:
        rounds = run.rounds[name]
        rates = [each.per_second for each in rounds]
        client, server = (
            statistics.median(each.cpu_us[who] for each in rounds) / 1_000 for who in ("contender", "server")
        )
        lines.append(
            f"| {NAMES[name]} (`{name}`) | {median(rounds):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} |"
            f" {client:.1f} | {server:.1f} |"
        )
    return lines


def _target(target: Target, figures: Mapping[str, float]) -> str:
    ratio = target.ratio(figures)
    met = "met" if ratio >= target.least else "**not met**"
    return f"| `{target.key}` / `{target.against}` | ≥ {target.least:g} | {ratio:.2f} | {met} |"
