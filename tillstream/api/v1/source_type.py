"""The kinds of source."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from fastapi import APIRouter

from connectors.spec import ConnectorConfig, SourceSpec
from schemas.errors import ConfigError, NotFound
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.shape import Model, Page
from tillstream.api.world import World, WorldDep

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/api/v1/source-types", tags=["source-types"], responses=PROBLEMS)


class SourceType(Model):
    """One kind of source."""

    kind: str
    summary: str
    resumes_from: str
    takes_dates: bool
    main_task: str


class SourceTypeDetail(SourceType):
    """One kind of source, with what its configuration may say."""

    notes: str
    # a configuration of the source's own, and JSON Schema
    example: dict[str, Any]
    configuration_schema: dict[str, Any]


@router.get("")
async def list_source_types(world: WorldDep) -> Page[SourceType]:
    """Every kind of source, plugins too; one that cannot be imported is left out, and logged."""
    found = []
    for kind in sorted(world.specs):
        try:
            found.append(_summary(world.specs[kind]))
        except ConfigError as exc:
            logger.warning("a plugin cannot be used", extra={"facts": {"kind": kind, "error": exc, "hint": exc.hint}})
    return Page(data=found)


@router.get("/{kind}")
async def show_source_type(kind: str, world: WorldDep) -> SourceTypeDetail:
    """One kind of source: the JSON Schema of its configuration, an example, notes."""
    spec = spec_of(world, kind)
    return SourceTypeDetail(
        **_summary(spec).model_dump(),
        notes=spec.notes,
        example=dict(spec.example),
        configuration_schema=_schema(spec.config),
    )


def spec_of(world: World, kind: str) -> SourceSpec:
    """
    The kind of source of this name.

    Raises:
        NotFound: there is none. ConfigError: it is a plugin that cannot be imported.
    """
    if kind not in world.specs:
        raise NotFound(f"there is no source of kind {kind!r}", hint=f"there are: {', '.join(sorted(world.specs))}")
    return world.specs[kind]


# a JSON Schema
@cache  # it takes a few milliseconds to make, and never changes
def _schema(config: type[ConnectorConfig]) -> dict[str, Any]:
    return config.model_json_schema()


def _summary(spec: SourceSpec) -> SourceType:
    return SourceType(
        kind=spec.kind,
        summary=spec.summary,
        resumes_from=spec.resumes_from,
        takes_dates=spec.takes_dates,
        main_task=spec.listing,
    )
