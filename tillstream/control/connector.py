"""
Connectors as desired state: created, listed, reconfigured, paused, resumed, deleted. Workers compare it with what they
run.

A connector's id never changes; its name may. Its provider is part of keys in the log, so it freezes when the first run
opens.
"""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from pydantic import ValidationError

from connectors.secret_text import masked
from connectors.spec import ConnectorConfig, SourceSpec
from schemas.errors import ConfigError, Conflict, NotFound, PreconditionFailed
from schemas.payment import MAX_PROVIDER
from sinks.pool import Connection, Pool, connection
from tillstream.control import run
from tillstream.control.attempt import attempt
from tillstream.control.run import RunStatus
from tillstream.control.schedule import Schedule
from tillstream.control.schedule import problems as schedule_problems
from tillstream.control.statement import statements

# a connector's own configuration: any JSON object, which its source's model judges
Configuration = Mapping[str, Any]

MAX_NAME = 255  # seed 003's column
NUMBERED = "conn_"  # seed 004's spelling of a number
_UNKNOWN_HEALTH = "unknown"
_SHOWN = 48  # characters of a value that a problem may quote
# pydantic's names of what is no word of ours, or no number as it should be: there a secret has no place
_EXPECTS_NO_SECRET = frozenset({
    "enum", "literal_error", "bool_type", "bool_parsing", "int_type", "int_parsing", "int_from_float", "float_type",
    "float_parsing", "greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number",
})  # fmt: skip
# seed 003's types know banks and gateways only; other kinds have none
TYPES = {"sftp": "BANK_SFTP", "http_api": "PG_API", "postgres_changes": "PG_DATABASE"}


class ConnectorStatus(StrEnum):
    """Seed 003's words for what an operator wants of a connector."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"


class Standing(StrEnum):
    """
    Seed 003's words for how a connector stands.

    FAILED: it is wanted active, and paused itself over an error, or its last three runs failed. It is not once a run
    succeeds, or it is resumed or configured anew.
    """

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    FAILED = "FAILED"

    @property
    def wanted(self) -> ConnectorStatus | None:
        """What who says so wants of it; None: as it is."""
        return None if self is Standing.FAILED else ConnectorStatus(self.value)


@dataclass(frozen=True, slots=True)
class Label:
    """Seed 003's words for a connector: its type, if its kind has one, and whose source it is."""

    type: str | None
    source_entity: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Something slow that the source is at, such as a download."""

    descriptor: str
    done_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ReportView:
    """
    What its worker last told of a connector. `skipped` counts what the last listing could not use, by reason.

    `left_behind` are calls of its source that were given up and do not end.
    """

    worker: str
    state: str
    reported_at: datetime
    listed_at: datetime | None
    open_runs: int
    active: int
    pending: int
    left_behind: int
    skipped: Mapping[str, int]
    progress: tuple[Progress, ...]


@dataclass(frozen=True, slots=True)
class ConnectorView:
    """
    One connector as operators see it. `number` is seed 003's id, `version` that of its configuration, `revision` rises
    with every change that an operator makes; `health` and `cause` are the monitor's verdict.

    `type` and `source_entity` are seed 003's; its counters and rate count tests, too.
    """

    id: UUID
    number: int
    name: str
    kind: str
    provider: str
    provider_frozen: bool
    status: ConnectorStatus
    configuration: Configuration
    health: str
    cause: str
    version: int
    success_rate: int
    total_runs: int
    last_run_at: datetime | None
    last_run_status: str
    created_at: datetime
    report: ReportView | None
    schedule: Schedule
    revision: int
    type: str
    source_entity: str
    pause_note: str
    last_run_details: Mapping[str, Any] | None
    success_count: int
    failure_count: int
    updated_at: datetime
    deleted_at: datetime | None
    tests: int
    tests_passed: int
    failed: bool

    @property
    def standing(self) -> Standing:
        """How it stands: what an operator wants of it, or that it fails."""
        if self.failed and self.status is ConnectorStatus.ACTIVE:
            return Standing.FAILED
        return Standing(self.status)

    @property
    def runs(self) -> int:
        """How many runs have ended that were no tests."""
        return max(0, self.total_runs - self.tests)

    @property
    def runs_succeeded(self) -> int:
        """How many of `runs` ended SUCCESS."""
        return max(0, self.success_count - self.tests_passed)


async def create(
    pool: Pool,
    *,
    name: str,
    spec: SourceSpec,
    configuration: Configuration,
    provider: str | None = None,
    schedule: Schedule | None = None,
    label: Label | None = None,
    identifier: UUID | None = None,
    by: str = "",
    dry_run: bool = False,
) -> UUID:
    """
    Create an active connector and return its id, a new one or `identifier`; with `dry_run` only check.

    Raises:
        ConfigError: everything that is wrong with it, at once. Conflict: the name is taken. SinkError: as routed.
    """
    chosen = provider or name
    insist(spec, configuration, name=name, provider=chosen, schedule=schedule)
    async with connection(pool) as held:
        if dry_run:
            if await named(held, name) is not None:
                raise _taken(name)
            return identifier or uuid4()
        async with held.transaction():
            return await insert(
                held,
                name=name,
                spec=spec,
                configuration=configuration,
                provider=chosen,
                schedule=schedule,
                label=label,
                identifier=identifier,
                by=by,
            )


def insist(
    spec: SourceSpec, configuration: Configuration, *, name: str, provider: str, schedule: Schedule | None = None
) -> None:
    """
    See that a connector can be so.

    Raises:
        ConfigError: everything that is wrong with it, at once.
    """
    _, problems = judged(spec, configuration, name=name, provider=provider)
    problems += schedule_problems(schedule or Schedule())
    if problems:
        raise wrong(name, problems)


async def insert(
    held: Connection,
    *,
    name: str,
    spec: SourceSpec,
    configuration: Configuration,
    provider: str,
    schedule: Schedule | None = None,
    label: Label | None = None,
    identifier: UUID | None = None,
    by: str = "",
) -> UUID:
    """
    Create a connector that was judged, in the caller's transaction; its id.

    Raises:
        Conflict: the name is taken.
    """
    identifier, kind, plan = identifier or uuid4(), spec.kind, schedule or Schedule()
    said = label or Label(TYPES.get(kind), provider)
    await held.fetchval(statements()["set_actor"], by)
    row = (name, said.type, said.source_entity, kind, json.dumps(configuration), provider)
    planned = (plan.enabled, plan.cron, plan.timezone)
    if await held.fetchval(statements()["create_connector"], identifier, *row, *planned) is None:
        raise _taken(name)
    return identifier


def checked(
    spec: SourceSpec, configuration: Configuration, *, name: str, provider: str, known_as: str | None = None
) -> ConnectorConfig:
    """
    The source's own model of the configuration. A name that the connector has already, `known_as`, is not judged again.

    Raises:
        ConfigError: every problem, by key, with the value's type.
    """
    model, problems = judged(spec, configuration, name=name, provider=provider, known_as=known_as)
    if problems or model is None:
        raise wrong(name, problems)
    return model


def judged(
    spec: SourceSpec, configuration: Configuration, *, name: str, provider: str, known_as: str | None = None
) -> tuple[ConnectorConfig | None, list[str]]:
    """
    The source's own model of the configuration, and every problem, by key, with the value's type.

    The value itself is told where it can be no secret. A name that the connector has already, `known_as`, is not judged
    again.
    """
    problems = [] if name == known_as else name_problems(name)
    if not 0 < len(provider) <= MAX_PROVIDER or not provider.isprintable():
        problems.append(f"provider: must be 1 to {MAX_PROVIDER} printable characters")
    model: ConnectorConfig | None = None
    try:
        model = spec.config.model_validate(configuration)
    except ValidationError as exc:
        problems += [_problem(error, spec, configuration) for error in exc.errors(include_url=False)]
    except Exception as exc:  # a plugin's validators may fail in any way, and must not end a worker
        problems.append(f"configuration: `{spec.kind}` failed to judge it: {type(exc).__name__}")
    return model, problems


def name_problems(name: str) -> list[str]:
    """What is wrong with a connector's name: it must not read as a number, and show as what it is."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        return [f"name: must be 1 to {MAX_NAME} printable characters, with no space at either end"]
    if name.isdecimal() or name.lower().startswith(NUMBERED):
        return [f"name: must not be a number, nor begin with {NUMBERED}: connectors are also found by their number"]
    return []


def wrong(name: str, problems: list[str]) -> ConfigError:
    """The error that tells of all these problems, each of which begins with its field."""
    return ConfigError("\n  ".join([f"connector {name!r} cannot be as it is described:", *problems]))


def _taken(name: str) -> Conflict:
    update = f"till connector update {shlex.quote(name)} -O key=value"
    return Conflict(
        f"a connector named {name!r} is there already", hint=f"choose another name, or change it: `{update}`"
    )


def in_force(spec: SourceSpec, configuration: Configuration) -> dict[str, object]:
    """
    Every option with the value that holds, given or not; of a configuration that cannot work, what is given.

    To be shown: secrets that it spells are masked.
    """
    try:
        held = spec.config.model_validate(configuration).model_dump(mode="json")
    except ValidationError:
        held = dict(configuration)
    return masked(held, spec.config)


def shown(view: ConnectorView, spec: SourceSpec | None) -> ConnectorView:
    """As people may see it: `***` where an old configuration spells a secret. Without a spec, by the options' names."""
    return replace(view, configuration=masked(view.configuration, spec.config if spec else None))


# pydantic's own error mapping
def _problem(error: Mapping[str, Any], spec: SourceSpec, configuration: Configuration) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "configuration"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, spec.config.model_fields, n=1, cutoff=0.75)
        meant = f"did you mean {near[0]}? " if near else ""
        return f"{key} is not an option of `{spec.kind}`; {meant}see docs/sources.md"
    is_missing = error["type"] == "missing" or error.get("input") in ("", None)
    got = "" if is_missing else f"; got {type(error['input']).__name__}{_told(error, spec, configuration)}"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}{got}"


# pydantic's own error mapping
def _told(error: Mapping[str, Any], spec: SourceSpec, configuration: Configuration) -> str:
    """The value itself, where a word of ours or a number was expected and no secret stands; else nothing."""
    value = error["input"]
    if error["type"] not in _EXPECTS_NO_SECRET or not isinstance(value, str | int | float):
        return ""
    held: Any = masked(configuration, spec.config)
    for part in error["loc"]:
        try:
            held = held[part]
        except (KeyError, IndexError, TypeError):
            return ""
    if held != value:
        return ""
    text = f"{value[:_SHOWN]}…" if isinstance(value, str) and len(value) > _SHOWN else value
    return f" {text!r}"


async def list_connectors(pool: Pool) -> list[ConnectorView]:
    """
    All of them, by name.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        return [_view(row) for row in await held.fetch(statements()["list_connectors"], None, False)]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which connectors. `q` is part of a name or of seed 003's source entity, `status` a `Standing`; None: any."""

    q: str | None = None
    status: str | None = None
    kind: str | None = None
    health: str | None = None
    type: str | None = None


async def page(
    pool: Pool, wanted: Filter | None = None, *, after: str | None = None, limit: int = 50
) -> tuple[list[ConnectorView], str | None]:
    """
    Living connectors by name, after this name; and the name to go on after, None at the end.

    Raises:
        SinkError: as routed.
    """
    of = wanted or Filter()
    async with connection(pool) as held:
        arguments = (of.q, of.status, of.kind, of.health, of.type, after, limit + 1)
        rows = await held.fetch(statements()["page_connectors"], *arguments)
    found = [_view(row) for row in rows[:limit]]
    return found, found[-1].name if len(rows) > limit else None


async def count_by_status(pool: Pool) -> dict[str, int]:
    """
    How many living connectors stand how.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as held:
        return {row["status"]: row["connectors"] for row in await held.fetch(statements()["count_connectors"])}


async def by_id(held: Connection, connector_id: UUID) -> ConnectorView:
    """
    The living connector, on the caller's connection.

    Raises:
        NotFound: there is none.
    """
    rows = await held.fetch(statements()["list_connectors"], str(connector_id), False)
    for row in rows:
        if row["id"] == connector_id:
            return _view(row)
    raise NotFound(f"there is no connector {connector_id}", hint="`till connector list` shows all")


async def taken(pool: Pool) -> set[str]:
    """
    The names and providers of all connectors that there ever were.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as held:
        return {row["name"] for row in await held.fetch(statements()["taken_names"])}


async def find(pool: Pool, wanted: str) -> ConnectorView:
    """
    The connector of this name, id or number; `conn_1` is a number, too.

    Raises:
        NotFound: there is none. SinkError: as routed.
    """
    return await _found(pool, wanted, deleted_too=False)


async def find_ever(pool: Pool, wanted: str) -> ConnectorView:
    """
    As `find`; where no living connector is meant, the one that was deleted last.

    Raises:
        NotFound: there never was one. SinkError: as routed.
    """
    return await _found(pool, wanted, deleted_too=True)


async def _found(pool: Pool, wanted: str, *, deleted_too: bool) -> ConnectorView:
    async with connection(pool) as held:
        rows = await held.fetch(statements()["list_connectors"], wanted, deleted_too)
    if not rows:
        raise NotFound(f"there is no connector {wanted!r}", hint="`till connector list` shows all")
    by_name = [row for row in rows if row["name"] == wanted]
    return _view((by_name or rows)[0])


async def set_status(pool: Pool, connector_id: UUID, status: ConnectorStatus) -> None:
    """
    Pause or resume it; workers follow within seconds.

    Raises:
        NotFound: there is none. SinkError: as routed.
    """
    async with connection(pool) as held:
        await switch(held, connector_id, status)


async def switch(
    held: Connection, connector_id: UUID, status: ConnectorStatus, *, note: str = "", by: str = ""
) -> None:
    """
    As `set_status`, in the caller's transaction.

    Raises:
        NotFound: there is none.
    """
    if await held.fetchval(statements()["set_connector_status"], connector_id, status.value, note, by) is None:
        raise NotFound(f"there is no connector {connector_id}")


async def delete(pool: Pool, view: ConnectorView, *, by: str = "", expected: int | None = None) -> None:
    """
    Delete it: its worker stops it within seconds, its name is free, its runs and payments stay.

    Runs that were asked for end, cancelled. `expected` is the revision that the caller saw.

    Raises:
        NotFound: it was deleted before. PreconditionFailed: it has changed. SinkError: as routed.
    """
    async with attempt(pool, dry_run=False) as held:
        await held.fetchval(statements()["set_actor"], by)
        row = await held.fetchrow(statements()["lock_connector"], view.id)
        if row is not None and expected is not None and row["revision"] != expected:
            raise PreconditionFailed(f"connector {view.name!r} has changed: it is at revision {row['revision']}")
        await held.execute(statements()["lock_open_runs"], view.id)
        for row in await held.fetch(statements()["open_requests"], [view.id]):
            await run.close(held, row["run"], RunStatus.FAILED, reason="cancelled: its connector was deleted")
        if await held.fetchval(statements()["delete_connector"], view.id) is None:
            raise NotFound(f"there is no connector {view.name!r}", hint="`till connector list` shows all")
        await held.execute(statements()["refuse_cursor_edits"], view.id, "its connector was deleted")


async def configure(
    pool: Pool,
    view: ConnectorView,
    *,
    spec: SourceSpec,
    configuration: Configuration,
    provider: str | None = None,
    dry_run: bool = False,
) -> None:
    """
    Replace its configuration; the worker starts it anew, from where it stood. With `dry_run` only check.

    Raises:
        ConfigError: it is wrong. Conflict: the provider is frozen. SinkError: as routed.
    """
    chosen = provider or view.provider
    checked(spec, configuration, name=view.name, provider=chosen)
    if dry_run:
        if chosen != view.provider and view.provider_frozen:
            raise _frozen(view)
        return
    async with connection(pool) as held:
        await change(held, view, configuration=configuration, provider=chosen)


async def change(held: Connection, view: ConnectorView, *, configuration: Configuration, provider: str) -> None:
    """
    Replace a configuration by one that was judged, in the caller's transaction.

    Raises:
        Conflict: the provider is frozen.
    """
    arguments = (view.id, json.dumps(configuration), provider)
    if await held.fetchval(statements()["configure_connector"], *arguments) is None:
        raise _frozen(view)


async def named(held: Connection, name: str) -> ConnectorView | None:
    """The living connector of exactly this name."""
    rows = await held.fetch(statements()["list_connectors"], name, False)
    return next((_view(row) for row in rows if row["name"] == name), None)


def _frozen(view: ConnectorView) -> Conflict:
    return Conflict(
        f"the provider of {view.name!r} is frozen since its first run: it is part of the keys of what is published",
        hint="create another connector for another provider",
    )


# asyncpg's records are mappings of anything
def _view(row: Mapping[str, Any]) -> ConnectorView:
    return ConnectorView(
        id=row["id"],
        number=row["number"],
        name=row["name"],
        kind=row["kind"],
        provider=row["provider"],
        provider_frozen=row["provider_frozen_at"] is not None,
        status=ConnectorStatus(row["status"]),
        configuration=json.loads(row["connection_config"]),
        health=row["health"] or _UNKNOWN_HEALTH,
        cause=row["cause"] or "",
        version=row["configuration_version"],
        success_rate=row["success_rate"],
        total_runs=row["total_runs"],
        last_run_at=row["last_run_at"],
        last_run_status=row["last_run_status"] or "",
        created_at=row["created_at"],
        report=None if row["reported_at"] is None else _report(row),
        schedule=Schedule(row["schedule_cron"], row["schedule_timezone"] or "UTC", bool(row["schedule_enabled"])),
        revision=row["revision"],
        type=row["connector_type"] or "",
        source_entity=row["source_entity"],
        pause_note=row["pause_note"],
        last_run_details=json.loads(row["last_run_details"]) if row["last_run_details"] else None,
        success_count=row["success_count"],
        failure_count=row["failure_count"],
        updated_at=row["updated_at"] or row["created_at"],
        deleted_at=row["deleted_at"],
        tests=row["tests"],
        tests_passed=row["tests_passed"],
        failed=row["failed"],
    )


def _report(row: Mapping[str, Any]) -> ReportView:
    return ReportView(
        worker=row["worker"],
        state=row["worker_state"],
        reported_at=row["reported_at"],
        listed_at=row["listed_at"],
        open_runs=row["runs_open"],
        active=row["active"],
        pending=row["pending"],
        left_behind=row["left_behind"],
        skipped=json.loads(row["skipped"]),
        progress=tuple(Progress(*each) for each in json.loads(row["progress"])),
    )
