"""Every configuration that a connector ever had, what differs between them, and what happened to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from connectors.secret_text import masked
from connectors.spec import SourceSpec
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.activity import ActivityShape
from tillstream.api.v1.connector import DifferenceShape, found, spec_or_none
from tillstream.api.v1.shape import USUAL, After, Limit, Model, Page, cursor_of, number, place_of
from tillstream.api.world import World, WorldDep
from tillstream.control import activity
from tillstream.control import version as versions

router = APIRouter(prefix="/api/v1/connectors/{ref}", tags=["connectors"], responses=PROBLEMS)
_MOST = 2**31 - 1
VersionNumber = Annotated[int, Query(ge=0, le=_MOST)]


class VersionShape(Model):
    """One configuration, and the provider that came with it. `made_by` is empty where nobody said who."""

    version: int
    kind: str
    provider: str
    # any JSON object, as its source took it
    configuration: dict[str, Any]
    made_at: datetime
    made_by: str


@router.get("/versions")
async def list_versions(ref: str, world: WorldDep, limit: Limit = USUAL, after: After = None) -> Page[VersionShape]:
    """The newest first."""
    view = await found(world, ref)
    filtered_by = ["versions", view.id]
    place = place_of(after, filtered_by=filtered_by, kinds=(number,))
    before = None if place is None else min(place[0], _MOST)
    listed = await versions.versions(world.pool, view.id, before=before, limit=limit + 1)
    more = len(listed) > limit
    return Page(
        data=[_shape(world, each) for each in listed[:limit]],
        next=cursor_of([listed[limit - 1].version], filtered_by=filtered_by) if more else None,
    )


@router.get("/versions/diff")
async def compare_versions(
    ref: str,
    world: WorldDep,
    from_: Annotated[int, Query(alias="from", ge=0, le=_MOST)],
    to: VersionNumber,
) -> Page[DifferenceShape]:
    """What changed from one to the other, key by key."""
    view = await found(world, ref)
    return Page(
        data=[
            DifferenceShape.of(each)
            for each in await versions.compared(world.pool, view.id, from_, to, _specs(world, view.kind))
        ]
    )


@router.get("/versions/{version}")
async def show_version(ref: str, version: Annotated[int, Path(ge=0, le=_MOST)], world: WorldDep) -> VersionShape:
    """One of them."""
    view = await found(world, ref)
    return _shape(world, await versions.version(world.pool, view.id, version))


@router.get("/events")
async def list_connector_events(
    ref: str, world: WorldDep, limit: Limit = USUAL, after: After = None
) -> Page[ActivityShape]:
    """What happened to it and its runs, the newest first."""
    view = await found(world, ref)
    filtered_by = ["events", view.id]
    place = place_of(after, filtered_by=filtered_by, kinds=(number,))
    before = None if place is None else place[0]
    listed = await activity.of_connector(world.pool, view.id, before=before, limit=limit + 1)
    more = len(listed) > limit
    return Page(
        data=[ActivityShape.told(each) for each in listed[:limit]],
        next=cursor_of([listed[limit - 1].position.id], filtered_by=filtered_by) if more else None,
    )


def _shape(world: World, each: versions.Version) -> VersionShape:
    spec = spec_or_none(world, each.kind)
    return VersionShape.of(replace(each, configuration=masked(each.configuration, spec.config if spec else None)))


def _specs(world: World, kind: str) -> dict[str, SourceSpec]:
    spec = spec_or_none(world, kind)
    return {} if spec is None else {kind: spec}
