"""
A connector changed as a whole: its name, provider, status, configuration and schedule, in one transaction.

Whoever changes may say which revision they saw: if it is another by now nothing changes. Of two who saw the same one
wins, and the other is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from connectors.spec import SourceSpec
from schemas.errors import ConfigError, Conflict, NotFound, PreconditionFailed
from sinks.pool import Connection, Pool
from tillstream.control import connector as connectors
from tillstream.control.attempt import attempt
from tillstream.control.connector import Configuration, ConnectorStatus, ConnectorView, Label
from tillstream.control.difference import Difference, differences, hiding, merged
from tillstream.control.schedule import Schedule, form_problems
from tillstream.control.schedule import problems as schedule_problems
from tillstream.control.secret import Sealed, SecretStore
from tillstream.control.statement import statements

_KEYS = ("name", "kind", "provider", "status", "configuration", "schedule")


@dataclass(frozen=True, slots=True)
class Described:
    """A connector as somebody wants it."""

    name: str
    kind: str
    provider: str
    status: ConnectorStatus
    configuration: Configuration
    schedule: Schedule = field(default_factory=Schedule)

    @classmethod
    def of(cls, view: ConnectorView) -> Described:
        """As it is."""
        return cls(view.name, view.kind, view.provider, view.status, view.configuration, view.schedule)

    # any JSON object
    def document(self) -> dict[str, Any]:
        """As JSON: what a merge patch is applied to."""
        schedule = {"cron": self.schedule.cron, "timezone": self.schedule.timezone, "enabled": self.schedule.enabled}
        return {
            "name": self.name,
            "kind": self.kind,
            "provider": self.provider,
            "status": self.status.value,
            "configuration": dict(self.configuration),
            "schedule": schedule,
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Described:
        """
        What the document describes; its configuration is not looked into.

        Raises:
            ConfigError: everything that is wrong with its form.
        """
        problems = list(_form(document))
        if problems:
            raise ConfigError("\n  ".join(["what is described cannot be:", *problems]))
        schedule = Schedule(**(document.get("schedule") or {}))
        return cls(
            document["name"],
            document["kind"],
            document.get("provider") or document["name"],
            ConnectorStatus(document.get("status", ConnectorStatus.ACTIVE.value)),
            document["configuration"],
            schedule,
        )


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of it: the connector as it is now, or with a dry run would be, and what differs."""

    view: ConnectorView
    differences: tuple[Difference, ...]


# from the connector as it is to the one that is wanted
Wish = Callable[[Described], Described]


def patch_of(patch: Mapping[str, Any]) -> Wish:
    """
    The wish of a JSON merge patch. `schedule: null` is no schedule.

    The wish raises ConfigError: what comes out has not the form of a connector.
    """

    def wish(described: Described) -> Described:
        document = merged(described.document(), patch)
        schedule = document.get("schedule")
        if isinstance(schedule, dict) and "cron" not in schedule:
            document["schedule"] = {**schedule, "cron": None}
        return Described.parse(document)

    return wish


async def change(
    pool: Pool,
    connector_id: UUID,
    wish: Wish,
    specs: Mapping[str, SourceSpec],
    *,
    expected: int | None = None,
    by: str = "",
    note: str = "",
    secrets: SecretStore | None = None,
    dry_run: bool = False,
) -> Changed:
    """
    Bring it about, and tell what changed; with `dry_run` take it back. `expected` is the revision that the caller saw.

    `note` is kept where this pauses it; `secrets` takes what is given by value. Without it, that is refused.

    Raises:
        NotFound: it is deleted. PreconditionFailed: it is of another revision. ConfigError: everything that is wrong
            with what is wanted. Conflict: its kind, a frozen provider, a name that is taken. SinkError: as routed.
    """
    async with attempt(pool, dry_run=dry_run) as held:
        changed, sealed = await _change(
            held, connector_id, wish, specs, expected=expected, by=by, note=note, secrets=secrets
        )
        if secrets is not None and sealed is not None and not dry_run:
            await asyncio.to_thread(secrets.write, sealed)
    return changed


async def _change(
    held: Connection,
    connector_id: UUID,
    wish: Wish,
    specs: Mapping[str, SourceSpec],
    *,
    expected: int | None,
    by: str,
    note: str,
    secrets: SecretStore | None,
) -> tuple[Changed, Sealed | None]:
    before = await locked(held, connector_id, expected=expected, by=by)
    old, sealed = Described.of(before), None
    new = wish(old)
    if secrets is not None and new.kind in specs:
        version = before.version + 1
        sealed = secrets.sealed(specs[new.kind], new.configuration, connector_id=before.id, version=version)
        new = replace(new, configuration=sealed.configuration)
    _judge(before, new, specs)
    if (new.configuration, new.provider) != (old.configuration, old.provider):
        await connectors.change(held, before, configuration=new.configuration, provider=new.provider)
    if new.name != old.name:
        await _rename(held, before, new.name)
    if new.schedule != old.schedule:
        plan = new.schedule
        await held.execute(statements()["schedule_connector"], before.id, plan.enabled, plan.cron, plan.timezone)
    if new.status is not old.status:
        await connectors.switch(held, before.id, new.status, note=note, by=by)
    after = await connectors.by_id(held, before.id)
    spec = specs.get(new.kind)
    hide = hiding(spec.config if spec else None)
    return Changed(after, tuple(differences(old.document(), new.document(), hide=hide))), sealed


async def create(
    pool: Pool,
    wanted: Described,
    specs: Mapping[str, SourceSpec],
    *,
    label: Label | None = None,
    by: str = "",
    note: str = "",
    secrets: SecretStore | None = None,
    identifier: UUID | None = None,
    dry_run: bool = False,
) -> ConnectorView:
    """
    Create the connector as it is described; with `dry_run` take it back, so that it is shown and is not there.

    Its id is `identifier` if one is given.

    Raises:
        ConfigError: everything that is wrong with it, at once. Conflict: the name is taken. SinkError: as routed.
    """
    spec = specs.get(wanted.kind)
    if spec is None:
        there = ", ".join(sorted(specs))
        raise ConfigError(f"kind: there is no source {wanted.kind!r}; there are {there}")
    identifier, sealed, configuration = identifier or uuid4(), None, wanted.configuration
    if secrets is not None:
        sealed = secrets.sealed(spec, configuration, connector_id=identifier, version=1)
        configuration = sealed.configuration
    connectors.insist(spec, configuration, name=wanted.name, provider=wanted.provider, schedule=wanted.schedule)
    async with attempt(pool, dry_run=dry_run) as held:
        await connectors.insert(
            held,
            name=wanted.name,
            spec=spec,
            configuration=configuration,
            provider=wanted.provider,
            schedule=wanted.schedule,
            label=label,
            identifier=identifier,
            by=by,
        )
        if wanted.status is not ConnectorStatus.ACTIVE:
            await connectors.switch(held, identifier, wanted.status, note=note, by=by)
        view = await connectors.by_id(held, identifier)
        if secrets is not None and sealed is not None and not dry_run:
            await asyncio.to_thread(secrets.write, sealed)
    return view


async def locked(held: Connection, connector_id: UUID, *, expected: int | None, by: str = "") -> ConnectorView:
    """
    The connector, which nobody else changes before the caller's transaction ends.

    Raises:
        NotFound: it is deleted. PreconditionFailed: it is of another revision.
    """
    await held.fetchval(statements()["set_actor"], by)
    row = await held.fetchrow(statements()["lock_connector"], connector_id)
    if row is None:
        raise NotFound(f"there is no connector {connector_id}", hint="`till connector list` shows all")
    if expected is not None and row["revision"] != expected:
        raise PreconditionFailed(
            f"the connector has changed: it is at revision {row['revision']}, not {expected} any more",
            hint="look at it again, and repeat the change if it is still wanted",
        )
    return await connectors.by_id(held, connector_id)


async def pause(
    pool: Pool, connector_id: UUID, *, note: str = "", by: str = "", expected: int | None = None
) -> ConnectorView:
    """
    Pause it; workers follow within seconds. Paused again it keeps its status and gets the new note.

    Raises:
        NotFound: it is deleted. PreconditionFailed: it is of another revision. SinkError: as routed.
    """
    async with attempt(pool, dry_run=False) as held:
        await locked(held, connector_id, expected=expected, by=by)
        await connectors.switch(held, connector_id, ConnectorStatus.PAUSED, note=note, by=by)
        return await connectors.by_id(held, connector_id)


async def resume(pool: Pool, connector_id: UUID, *, by: str = "", expected: int | None = None) -> ConnectorView:
    """
    Let it run again; one that paused itself starts anew.

    Raises:
        NotFound: it is deleted. PreconditionFailed: it is of another revision. SinkError: as routed.
    """
    async with attempt(pool, dry_run=False) as held:
        await locked(held, connector_id, expected=expected, by=by)
        await connectors.switch(held, connector_id, ConnectorStatus.ACTIVE, by=by)
        return await connectors.by_id(held, connector_id)


def _judge(before: ConnectorView, new: Described, specs: Mapping[str, SourceSpec]) -> None:
    if new.kind != before.kind:
        raise Conflict(
            f"connector {before.name!r} is of kind {before.kind!r}, and stays so",
            hint="create another connector for another kind of source",
        )
    problems = list(schedule_problems(new.schedule))
    spec = specs.get(new.kind)
    if spec is None:
        problems.append(f"kind: there is no source {new.kind!r}; there are {', '.join(sorted(specs))}")
    elif (new.configuration, new.provider, new.name) != (before.configuration, before.provider, before.name):
        names = {"name": new.name, "provider": new.provider, "known_as": before.name}
        problems += connectors.judged(spec, new.configuration, **names)[1]
    if problems:
        raise ConfigError("\n  ".join([f"connector {before.name!r} cannot be as it is described:", *problems]))


async def _rename(held: Connection, before: ConnectorView, name: str) -> None:
    try:
        async with held.transaction():
            await held.execute(statements()["rename_connector"], before.id, name)
    except asyncpg.UniqueViolationError as exc:
        raise Conflict(f"a connector named {name!r} is there already", hint="choose another name") from exc


# what a body holds may be anything
def _form(document: Mapping[str, Any]) -> Iterator[str]:
    for key in document:
        if key not in _KEYS:
            yield f"{key}: is no key of a connector; there are {', '.join(_KEYS)}"
    for key in ("name", "kind", "configuration"):
        if key not in document:
            yield f"{key}: is missing"
    for key in ("name", "kind", "provider", "status"):
        if not isinstance(document.get(key, ""), str):
            yield f"{key}: must be text; got {type(document[key]).__name__}"
    status = document.get("status", ConnectorStatus.ACTIVE.value)
    if isinstance(status, str) and status not in {each.value for each in ConnectorStatus}:
        yield f"status: must be one of {', '.join(each.value for each in ConnectorStatus)}"
    if not isinstance(document.get("configuration", {}), dict):
        yield f"configuration: must be an object; got {type(document['configuration']).__name__}"
    yield from form_problems(document.get("schedule"))
