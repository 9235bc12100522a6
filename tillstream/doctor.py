"""
What is wrong with this machine, this home or these servers, and how to mend it.

Functions that look and answer findings; nothing is changed, started or printed. `examine` asks all of them.
"""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from schemas.errors import StackError, TillError
from sinks.pool import close_pool, open_pool
from sinks.statement import statements
from tillstream.control import connector
from tillstream.control.verdict import HealthState
from tillstream.dsn import mask_url
from tillstream.embedded import jar, kafka, postgres
from tillstream.embedded.home import ROOT_UID, Home, closed_ancestor, default_cache
from tillstream.embedded.java import find_java
from tillstream.embedded.port import PortBook, is_free
from tillstream.embedded.state import read_state

DISTRIBUTION = "tillstream"
PACKAGES = ("schemas", "connectors", "streams", "sinks", "tillstream")
OLDEST_PYTHON = (3, 11)
GIB = 2**30
# A new stack writes 0.2 GiB before its first payment (Kafka's indexes, PostgreSQL's log); payments need room beyond.
NEEDED_DISK_BYTES = 2 * GIB
# Resident, measured: Kafka 0.35 GiB, PostgreSQL 0.15 GiB, four workers 0.1 GiB each; and room for its page cache.
NEEDED_MEMORY_BYTES = 3 * GIB // 2
DATABASE_S = 5.0
PROGRAM_S = 20.0
# Years, in minutes: an idle consumer group must find its place again after any pause.
LONG_ENOUGH_MIN = 60 * 24 * 365
LINUX_MEMORY = Path("/proc/meminfo")
_UNWELL = (HealthState.DEGRADED, HealthState.DOWN, HealthState.PAUSED)
_MOST_CONNECTORS = 1_000
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
CONTAINER_USE = Path("/sys/fs/cgroup/memory.current")


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that was looked at: `what` was found, and `fix` says how to mend it when it is not `ok`.

    A `warning` is not well either, but nothing that the stack itself could be blamed for.
    """

    name: str
    ok: bool
    what: str
    fix: str = ""
    warning: bool = False


async def examine(
    home: Home,
    *,
    environment: Mapping[str, str] | None = None,
    kafka_bootstrap: str | None = None,
    postgres_dsn: str | None = None,
) -> list[Finding]:
    """
    Every finding, in the order in which a person mends them.

    `kafka_bootstrap` and `postgres_dsn` are servers of one's own; without them the embedded ones are meant, and asked
    when they run.
    """
    environment = os.environ if environment is None else environment
    running = read_state(home)
    findings = [python_version(), *foreign_packages(), home_directory(home, embedded_postgres=postgres_dsn is None)]
    findings += [disk(home), memory(), stack(home)]
    if kafka_bootstrap is None:
        findings += [java(environment), jars(default_cache(environment) / "jars")]
    if postgres_dsn is None:
        findings.append(postgres_programs(environment))
    if running is None:
        findings += ports(home)
    if asked := kafka_bootstrap or (running and running.endpoints.kafka):
        findings += await kafka_server(asked)
    if dsn := postgres_dsn or (running and running.endpoints.postgres_dsn):
        findings += await postgres_server(dsn)
        findings += await connectors(dsn)
    return findings


def python_version(version: Sequence[int] = sys.version_info[:3]) -> Finding:
    """Whether this Python is new enough."""
    text = ".".join(map(str, version))
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", tuple(version) >= OLDEST_PYTHON, f"Python {text}", f"use Python {oldest} or newer")


def foreign_packages(owners: Mapping[str, Sequence[str]] | None = None) -> list[Finding]:
    """
    Whether another distribution owns one of our package names.

    pip installs two owners of a name in silence, and removing one takes files of the other away.
    """
    known = importlib.metadata.packages_distributions() if owners is None else owners
    rivals = {name: sorted(set(known.get(name, ())) - {DISTRIBUTION}) for name in PACKAGES}
    found = [
        Finding(
            "packages",
            ok=False,
            what=f"the package name {name} belongs to {', '.join(others)} as well as to {DISTRIBUTION}",
            fix=f"pip uninstall {' '.join(others)} and install {DISTRIBUTION} again, or give it its own environment",
        )
        for name, others in rivals.items()
        if others
    ]
    return found or [Finding("packages", ok=True, what=f"nobody else owns {', '.join(PACKAGES)}")]


def home_directory(home: Home, *, embedded_postgres: bool, uid: int | None = None) -> Finding:
    """Whether the home can be written and, where PostgreSQL runs under another user, be reached by that one."""
    place = _existing(home.root)
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("home", ok=False, what=f"{place} cannot be written", fix="set TILL_HOME to a place of your own")
    server = postgres.SERVER_IDENTITY
    if embedded_postgres and (os.geteuid() if uid is None else uid) == ROOT_UID:
        closed = closed_ancestor(home.root.parent, uid=server.uid, gid=server.gid)
        if closed is not None:
            what = f"as root, PostgreSQL runs under a user of its own, who cannot pass {closed}"
            return Finding("home", ok=False, what=what, fix=f"set TILL_HOME to another place, or chmod o+x {closed}")
    return Finding("home", ok=True, what=str(home.root))


def disk(home: Home, *, needed_bytes: int = NEEDED_DISK_BYTES) -> Finding:
    """Whether the home's disk has room."""
    free = shutil.disk_usage(_existing(home.root)).free
    what = f"{free / GIB:.1f} GiB free for {home.root}"
    fix = f"free some space, or set TILL_HOME to a disk with at least {needed_bytes / GIB:.1f} GiB"
    return Finding("disk", free >= needed_bytes, what, fix)


def memory(*, needed_bytes: int = NEEDED_MEMORY_BYTES) -> Finding:
    """Whether there is memory for a whole stack; a container's limit counts."""
    available = available_memory_bytes()
    if available is None:
        return Finding("memory", ok=True, what="this system does not tell how much memory is available")
    what = f"{available / GIB:.1f} GiB of memory available"
    fix = f"an embedded stack takes about {needed_bytes / GIB:.1f} GiB: end other programs, or raise the limit"
    return Finding("memory", available >= needed_bytes, what, fix)


def stack(home: Home) -> Finding:
    """Whether a stack runs in this home."""
    running = read_state(home)
    what = (
        f"no stack runs in {home.root}" if running is None else f"process {running.pid} runs the stack of {home.root}"
    )
    return Finding("stack", ok=True, what=what)


def java(environment: Mapping[str, str]) -> Finding:
    """Whether there is a Java for the embedded broker."""
    try:
        found = find_java(environment)
    except StackError as exc:
        return Finding("java", ok=False, what=str(exc), fix=exc.hint)
    return Finding("java", ok=True, what=f"Java {found.major} ({found.origin}: {found.program})")


def jars(cache: Path) -> Finding:
    """Whether the embedded broker's jars are in the cache and exactly what the lock pins."""
    wanted = jar.locked_jars()
    present = [each for each in wanted if (cache / each.file_name).exists()]
    altered = [each.coordinates for each in present if not jar.is_intact(cache / each.file_name, each)]
    if altered:
        what = f"{len(altered)} cached jars differ from jars.lock: {', '.join(altered[:3])}"
        return Finding(
            "jars", ok=False, what=what, fix=f"find out what altered {cache}; they are fetched again if needed"
        )
    megabytes = sum(each.size_bytes for each in wanted if each not in present) / 1e6
    rest = f"; {megabytes:.0f} MB are fetched at the first start" if megabytes else ""
    return Finding("jars", ok=True, what=f"{len(present)} of {len(wanted)} jars cached and verified{rest}")


def postgres_programs(environment: Mapping[str, str]) -> Finding:
    """Whether the embedded server's programs run on this machine."""
    try:
        chosen = environment.get("TILL_POSTGRES_BIN")
        programs = Path(chosen).expanduser() if chosen else postgres.wheel_programs()
        command = [str(programs / "postgres"), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_S, check=True)
    except StackError as exc:
        return Finding("postgres programs", ok=False, what=str(exc), fix=exc.hint)
    except (OSError, subprocess.SubprocessError) as exc:
        what = f"{programs / 'postgres'} does not run: {getattr(exc, 'stderr', '') or exc}"
        fix = "set TILL_POSTGRES_BIN to the programs of a local PostgreSQL, or TILL_POSTGRES_DSN to a server"
        return Finding("postgres programs", ok=False, what=what.strip(), fix=fix)
    return Finding("postgres programs", ok=True, what=f"{done.stdout.strip()} ({programs})")


def ports(home: Home) -> list[Finding]:
    """Whether the ports that a stopped stack used are still free."""
    found = []
    for service, folder in (("kafka", home.kafka), ("postgres", home.postgres)):
        for name, port in PortBook(folder / "ports.json").noted().items():
            if not is_free(port):
                what = f"port {port} of {service} ({name.lower()}) is taken{_by_whom(port)}"
                fix = "end that program, or let the next start choose another port and tell your clients"
                found.append(Finding("ports", ok=False, what=what, fix=fix))
    return found or [Finding("ports", ok=True, what="the ports of this home are free")]


async def kafka_server(bootstrap: str) -> list[Finding]:
    """Whether a broker answers, makes no topics by itself, and keeps consumers' offsets long enough."""
    if not any([await kafka.answers(broker.strip()) for broker in bootstrap.split(",")]):
        fix = "start the broker, or correct kafka.bootstrap (TILL_KAFKA_BOOTSTRAP)"
        return [Finding("kafka", ok=False, what=f"no broker answers at {bootstrap}", fix=fix)]
    try:
        settings = await kafka.broker_settings(bootstrap)
    except StackError as exc:
        return [Finding("kafka", ok=False, what=str(exc), fix="let this client describe the broker's configuration")]
    automatic = settings.get("auto.create.topics.enable") == "true"
    retention_min = int(settings.get("offsets.retention.minutes", 0))
    return [
        Finding("kafka", ok=True, what=f"a broker answers at {bootstrap}"),
        Finding(
            "kafka topics",
            ok=not automatic,
            what=f"auto.create.topics.enable is {'on: a misspelt topic comes to life' if automatic else 'off'}",
            fix="set auto.create.topics.enable=false on the brokers",
        ),
        Finding(
            "kafka offsets",
            ok=retention_min >= LONG_ENOUGH_MIN,
            what=f"a group that pauses finds its place again for {retention_min / 60 / 24:.0f} days",
            fix="set offsets.retention.minutes to years: a sink that pauses longer starts from the sink's own offsets",
        ),
    ]


async def postgres_server(dsn: str) -> list[Finding]:
    """Whether the database answers, and whether what it calls committed survives a crash."""
    address = mask_url(dsn)
    try:
        connection = await asyncpg.connect(dsn, timeout=DATABASE_S, command_timeout=DATABASE_S)
        try:
            rows = await connection.fetch(
                "SELECT name, setting FROM pg_settings WHERE name = ANY($1)", list(DURABILITY)
            )
            version = connection.get_settings().server_version.split()[0]
            left_behind = [row["schema"] for row in await connection.fetch(statements()["left_behind"])]
        finally:
            await connection.close()
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        fix = "start the server, or correct postgres.dsn (TILL_POSTGRES_DSN)"
        return [Finding("postgres", ok=False, what=f"no answer from {address}: {type(exc).__name__}", fix=fix)]
    found = [Finding("postgres", ok=True, what=f"PostgreSQL {version} answers at {address}")]
    found += [durability(row["name"], row["setting"]) for row in sorted(rows)]
    if left_behind:
        what = f"{len(left_behind)} replays ended without dropping their tables: {', '.join(left_behind[:3])}"
        fix = "`till replay create` drops them before it begins; or DROP SCHEMA … CASCADE"
        found.append(Finding("postgres replays", ok=False, what=what, fix=fix))
    return found


async def connectors(dsn: str) -> list[Finding]:
    """A warning for each connector that is not well, with its cause; none of a database that tells of no connectors."""
    try:
        pool = await open_pool(dsn, size=2, application="till-doctor", durable=False)
        try:
            listed, _ = await connector.page(pool, limit=_MOST_CONNECTORS)
        finally:
            await close_pool(pool)
    except TillError:
        return []  # what is wrong with the database itself is told above
    views = [view for view in listed if view.status is connector.ConnectorStatus.ACTIVE]
    unwell = [view for view in views if view.health in _UNWELL or view.failed]
    found = [
        Finding(
            f"connector {view.name}",
            ok=True,
            what=": ".join(filter(None, ["failed" if view.failed else view.health, view.cause])),
            fix=f"till connector show {shlex.quote(view.name)}",
            warning=True,
        )
        for view in unwell
    ]
    return found or [Finding("connectors", ok=True, what=f"{len(views)} are active, and none is unwell")]


# What is lost when it is off, for every setting that a commit's durability depends on.
DURABILITY = {
    "fsync": "a crash of the machine can destroy the whole database",
    "full_page_writes": "a crash of the machine can leave pages half written",
    "synchronous_commit": "a crash loses payments that were already acknowledged",
}


def durability(setting: str, value: str) -> Finding:
    """Whether this setting leaves commits durable."""
    what = f"{setting} is {value}" + (f": {DURABILITY[setting]}" if value == "off" else "")
    return Finding(
        f"postgres {setting}", value != "off", what, f"ALTER SYSTEM SET {setting} = on, then pg_reload_conf()"
    )


def available_memory_bytes() -> int | None:
    """Memory that programs can still get: the system's or the container's, whichever is less; None if nobody tells."""
    known = [each for each in (_linux_available_bytes(), _container_available_bytes()) if each is not None]
    return min(known, default=None)


def _linux_available_bytes() -> int | None:
    try:
        lines = LINUX_MEMORY.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _container_available_bytes() -> int | None:
    try:
        return int(CONTAINER_LIMIT.read_text()) - int(CONTAINER_USE.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None


def _existing(path: Path) -> Path:
    """The nearest directory on the way to the path that exists."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())


def _by_whom(port: int) -> str:
    """` by NAME (process N)` where the system tells."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return ""
