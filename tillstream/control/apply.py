"""
Connectors brought to what files describe: created, changed, paused, resumed, or left as they are; all of them or none.

What changes is told key by key. A dry run goes the same way and takes everything back, so that it finds what a real one
would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from uuid import UUID, uuid4

from connectors.secret_text import masked
from connectors.spec import SourceSpec
from schemas.errors import ConfigError, Conflict
from sinks.pool import Connection, Pool
from tillstream.control import connector as connectors
from tillstream.control import edit
from tillstream.control.attempt import attempt
from tillstream.control.connector import Configuration, ConnectorView
from tillstream.control.difference import Difference, differences, flat
from tillstream.control.document import Document
from tillstream.control.schedule import Schedule
from tillstream.control.schedule import problems as schedule_problems
from tillstream.control.secret import Sealed, SecretStore
from tillstream.control.statement import statements


class Change(StrEnum):
    """What became of a connector."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one described connector. `version` is that of its configuration."""

    id: UUID
    name: str
    kind: str
    change: Change
    version: int
    differences: tuple[Difference, ...]


async def apply(
    pool: Pool,
    wanted: Sequence[Document],
    specs: Mapping[str, SourceSpec],
    *,
    secrets: SecretStore | None = None,
    dry_run: bool = False,
) -> list[Applied]:
    """
    Bring them about, in one transaction; with `dry_run` take it back.

    `secrets` takes what is given by value, unless it is what the connector has already; without it, that is refused.

    Raises:
        ConfigError: everything that is wrong with their configurations, at once; nothing was touched. Conflict: the
            present state does not allow it. SinkError: as routed.
    """
    known = [_checked(document, specs, secrets) for document in wanted]
    problems = [problem for _, found in known for problem in found]
    if problems:
        raise ConfigError("\n  ".join(["what is described cannot be:", *problems]))
    keeper = _Keeper(secrets)
    async with attempt(pool, dry_run=dry_run) as held:
        done = [
            await _apply(held, document, spec, keeper)
            for document, (spec, _) in zip(wanted, known, strict=True)
            if spec is not None
        ]
        if not dry_run:
            await keeper.write()
    return done


class _Keeper:
    """Takes the secrets out of configurations, and holds them until all of them can be written."""

    def __init__(self, store: SecretStore | None) -> None:
        self._store = store
        self._taken: list[Sealed] = []

    async def taken(
        self, spec: SourceSpec, configuration: Configuration, identifier: UUID, before: ConnectorView | None = None
    ) -> Configuration:
        """The configuration as it is kept."""
        if self._store is None:
            return configuration
        version = 1 if before is None else before.version + 1
        sealed = self._store.sealed(spec, configuration, connector_id=identifier, version=version)
        if before is not None:
            sealed = await asyncio.to_thread(self._store.resealed, sealed, before.configuration)
        self._taken.append(sealed)
        return sealed.configuration

    async def write(self) -> None:
        """Return once every secret is durable."""
        if self._store is not None:
            for sealed in self._taken:
                await asyncio.to_thread(self._store.write, sealed)


def _checked(
    document: Document, specs: Mapping[str, SourceSpec], secrets: SecretStore | None
) -> tuple[SourceSpec | None, list[str]]:
    if document.kind not in specs:
        there = ", ".join(sorted(specs))
        return None, [f"{document.place}: kind: there is no source {document.kind!r}; there are {there}"]
    spec = specs[document.kind]
    provider = document.provider or document.name
    configuration = document.configuration
    problems: list[str] = []
    if secrets is not None:
        sealed, problems = secrets.judged(spec, configuration, connector_id=uuid4(), version=1)
        configuration = sealed.configuration
    problems += connectors.judged(spec, configuration, name=document.name, provider=provider)[1]
    problems += schedule_problems(document.schedule or Schedule())
    return spec, [f"{document.place}: {problem}" for problem in problems]


async def _apply(held: Connection, document: Document, spec: SourceSpec, keeper: _Keeper) -> Applied:
    before = await connectors.named(held, document.name)
    if before is None:
        return await _created(held, document, spec, keeper)
    if before.kind != document.kind:
        raise Conflict(
            f"{document.place}: connector {document.name!r} is of kind {before.kind!r}, and stays so",
            hint="choose another name for another kind of source",
        )
    before = await edit.locked(held, before.id, expected=None)
    provider, status = document.provider or before.provider, document.status or before.status
    plan = document.schedule or before.schedule
    configuration = await keeper.taken(spec, document.configuration, before.id, before)
    found = tuple(_differences(before, configuration, provider, status.value, plan, spec))
    if (before.configuration, before.provider) != (configuration, provider):
        await connectors.change(held, before, configuration=configuration, provider=provider)
    if before.schedule != plan:
        await held.execute(statements()["schedule_connector"], before.id, plan.enabled, plan.cron, plan.timezone)
    if before.status is not status:
        await connectors.switch(held, before.id, status)
    after = await connectors.named(held, document.name)
    version = after.version if after else before.version
    change = Change.CHANGED if found else Change.UNCHANGED
    return Applied(before.id, document.name, document.kind, change, version, found)


async def _created(held: Connection, document: Document, spec: SourceSpec, keeper: _Keeper) -> Applied:
    provider, identifier = document.provider or document.name, uuid4()
    configuration = await keeper.taken(spec, document.configuration, identifier)
    await connectors.insert(
        held,
        name=document.name,
        spec=spec,
        configuration=configuration,
        provider=provider,
        schedule=document.schedule,
        identifier=identifier,
    )
    if document.status is not None:
        await connectors.switch(held, identifier, document.status)
    status = document.status or connectors.ConnectorStatus.ACTIVE
    described = {"kind": document.kind, "provider": provider, "status": status.value}
    found = [Difference(key, None, value) for key, value in described.items()]
    if document.schedule is not None:
        found += [Difference(key, None, value) for key, value in flat(asdict(document.schedule), "schedule")]
    told = masked(configuration, spec.config)
    found += [Difference(key, None, value) for key, value in flat(told, "configuration")]
    return Applied(identifier, document.name, document.kind, Change.CREATED, 1, tuple(found))


def _differences(  # noqa: PLR0917
    before: ConnectorView, configuration: Configuration, provider: str, status: str, plan: Schedule, spec: SourceSpec
) -> Iterator[Difference]:
    if before.provider != provider:
        yield Difference("provider", before.provider, provider)
    if before.status.value != status:
        yield Difference("status", before.status.value, status)
    yield from differences(asdict(before.schedule), asdict(plan), "schedule", hide=dict)
    hide = partial(masked, model=spec.config)
    yield from differences(before.configuration, configuration, "configuration", hide=hide)
