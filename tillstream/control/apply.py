"""
Connectors brought to what files describe: created, changed, paused, resumed, or left as they are; all of them or none.

What changes is told key by key. A dry run goes the same way and takes everything back, so that it finds what a real one
would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from uuid import UUID

from connectors.secret_text import masked
from connectors.spec import SourceSpec
from schemas.errors import ConfigError, Conflict
from sinks.pool import Connection, Pool, connection
from tillstream.control import connector as connectors
from tillstream.control.connector import Configuration, ConnectorView
from tillstream.control.difference import Difference, differences, flat
from tillstream.control.document import Document


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
    pool: Pool, wanted: Sequence[Document], specs: Mapping[str, SourceSpec], *, dry_run: bool = False
) -> list[Applied]:
    """
    Bring them about, in one transaction; with `dry_run` take it back.

    Raises:
        ConfigError: everything that is wrong with their configurations, at once; nothing was touched. Conflict: the
            present state does not allow it. SinkError: as routed.
    """
    known = [_checked(document, specs) for document in wanted]
    problems = [problem for _, found in known for problem in found]
    if problems:
        raise ConfigError("\n  ".join(["what is described cannot be:", *problems]))
    async with connection(pool) as held:
        transaction = held.transaction()
        await transaction.start()
        try:
            done = [
                await _apply(held, document, spec)
                for document, (spec, _) in zip(wanted, known, strict=True)
                if spec is not None
            ]
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.rollback() if dry_run else transaction.commit())
    return done


def _checked(document: Document, specs: Mapping[str, SourceSpec]) -> tuple[SourceSpec | None, list[str]]:
    if document.kind not in specs:
        there = ", ".join(sorted(specs))
        return None, [f"{document.place}: kind: there is no source {document.kind!r}; there are {there}"]
    spec = specs[document.kind]
    provider = document.provider or document.name
    _, problems = connectors.judged(spec, document.configuration, name=document.name, provider=provider)
    return spec, [f"{document.place}: {problem}" for problem in problems]


async def _apply(held: Connection, document: Document, spec: SourceSpec) -> Applied:
    before = await connectors.named(held, document.name)
    if before is None:
        return await _created(held, document, spec)
    if before.kind != document.kind:
        raise Conflict(
            f"{document.place}: connector {document.name!r} is of kind {before.kind!r}, and stays so",
            hint="choose another name for another kind of source",
        )
    provider, status = document.provider or before.provider, document.status or before.status
    found = tuple(_differences(before, document.configuration, provider, status.value, spec))
    if (before.configuration, before.provider) != (document.configuration, provider):
        await connectors.change(held, before, configuration=document.configuration, provider=provider)
    if before.status is not status:
        await connectors.switch(held, before.id, status)
    after = await connectors.named(held, document.name)
    version = after.version if after else before.version
    change = Change.CHANGED if found else Change.UNCHANGED
    return Applied(before.id, document.name, document.kind, change, version, found)


async def _created(held: Connection, document: Document, spec: SourceSpec) -> Applied:
    provider = document.provider or document.name
    identifier = await connectors.insert(
        held, name=document.name, spec=spec, configuration=document.configuration, provider=provider
    )
    if document.status is not None:
        await connectors.switch(held, identifier, document.status)
    status = document.status or connectors.ConnectorStatus.ACTIVE
    described = {"kind": document.kind, "provider": provider, "status": status.value}
    found = [Difference(key, None, value) for key, value in described.items()]
    told = masked(document.configuration, spec.config)
    found += [Difference(key, None, value) for key, value in flat(told, "configuration")]
    return Applied(identifier, document.name, document.kind, Change.CREATED, 1, tuple(found))


def _differences(
    before: ConnectorView, configuration: Configuration, provider: str, status: str, spec: SourceSpec
) -> Iterator[Difference]:
    if before.provider != provider:
        yield Difference("provider", before.provider, provider)
    if before.status.value != status:
        yield Difference("status", before.status.value, status)
    hide = partial(masked, model=spec.config)
    yield from differences(before.configuration, configuration, "configuration", hide=hide)
