"""Seed 004: `/ops/connectors`, the same connectors in camel case, named `conn_<number>`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from tillstream.api.compat import action
from tillstream.api.compat.connectors import SeedSummary, SeedTestFailed, Status
from tillstream.api.compat.install import SeedUninstalled
from tillstream.api.compat.run import By, add_actions
from tillstream.api.compat.shape import Body, Instant, given, takes
from tillstream.api.idempotency import ReservedDep
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.connector import IfMatch, etag_of, expected_of
from tillstream.api.world import World, WorldDep
from tillstream.control import dialect, history
from tillstream.control.connector import ConnectorView, Standing
from tillstream.control.history import SeedHealth

router = APIRouter(prefix="/ops/connectors", tags=["seed-004"], responses=PROBLEMS)

Configuration = dict[str, Any]  # a source's own: any JSON object


class OpsConnector(BaseModel):
    """One connector. `health_status` is NEVER_RUN, HEALTHY, WARNING or CRITICAL; `backlog`: files not through."""

    id: str
    name: str
    type: str
    provider: str
    status: str
    config: Configuration
    health_status: str
    last_run_at: Instant | None
    last_run_status: str | None
    last_success_at: Instant | None
    backlog: int
    success_rate: int
    total_runs: int
    created_at: Instant
    updated_at: Instant


class OpsOneConnector(OpsConnector):
    """One connector, by itself."""

    success: bool = True


class OpsConnectors(BaseModel):
    """Connectors by number."""

    success: bool = True
    connectors: list[OpsConnector]
    summary: SeedSummary


class OpsFound(BaseModel):
    """The source answers as it should, and these are the names of its files, if it has files."""

    success: Literal[True] = True
    filesFound: list[str]  # noqa: N815  the seed's key


class OpsNewConnector(Body):
    """A connector that is to be. Its schedule and time zone are in `config`."""

    name: str
    type: str
    provider: str
    config: Configuration


class OpsChangedConnector(Body):
    """What is to be different; `config` is given whole."""

    name: str | None = None
    status: Standing | None = None
    type: str | None = Field(default=None, description="As it is: it never changes.")
    provider: str | None = Field(default=None, description="As it is: it never changes.")
    config: Configuration | None = None


_TOLD = frozenset(OpsOneConnector.model_fields)
_BESIDE = _TOLD - frozenset(OpsChangedConnector.model_fields)


@router.get("")
async def list_connectors(
    world: WorldDep,
    status: Status | None = None,
    type_: Annotated[str | None, Query(alias="type")] = None,
    provider: str | None = None,
    search: Annotated[str | None, Query(max_length=255, description="Part of a name or provider.")] = None,
) -> OpsConnectors:
    """List connectors. The summary counts those of every status."""
    health = await history.health(world.pool)
    found = await action.listed(
        world,
        lambda view: (
            view.number in health
            and action.holds(search, view.name, view.provider)
            and type_ in (None, health[view.number].type)
            and provider in (None, view.provider)
        ),
        status,
    )
    return OpsConnectors(
        connectors=[OpsConnector(**_told(world, view, health[view.number])) for view in found.connectors],
        summary=SeedSummary(**found.summary),
    )


@router.post("", status_code=201, openapi_extra=takes(OpsNewConnector))
async def create_connector(
    world: WorldDep,
    response: Response,
    reserved: ReservedDep,
    body: Annotated[
        OpsNewConnector, Depends(given(OpsNewConnector, beside=_TOLD - frozenset(OpsNewConnector.model_fields)))
    ],
) -> OpsOneConnector:
    """Make a connector. Secrets in `config` are kept apart and never told again."""
    view = await action.made(world, body.name, dialect.of_seed_004(body.type, body.provider, body.config), reserved)
    response.headers["Location"] = f"/ops/connectors/conn_{view.number}"
    response.headers["ETag"] = etag_of(view)
    return await _one(world, view)


@router.get("/{ref}")
async def show_connector(ref: str, world: WorldDep, response: Response) -> OpsOneConnector:
    """One connector and how it fares."""
    view = await action.found(world, ref)
    response.headers["ETag"] = etag_of(view)
    return await _one(world, view)


@router.put("/{ref}", openapi_extra=takes(OpsChangedConnector))
async def change_connector(
    ref: str,
    world: WorldDep,
    response: Response,
    body: Annotated[OpsChangedConnector, Depends(given(OpsChangedConnector, beside=_BESIDE))],
    if_match: IfMatch = None,
) -> OpsOneConnector:
    """Change it; its worker starts it anew, from where it stood. What is not given stays."""
    view = await action.found(world, ref)
    before = await _one(world, view)
    action.insist({"type": before.type, "provider": view.provider}, {"type": body.type, "provider": body.provider})
    configuration, plan = (None, dialect.Plan()) if body.config is None else dialect.of_config_004(body.config)
    done = await action.changed(
        world,
        view,
        name=body.name,
        status=None if body.status is None else body.status.wanted,
        configuration=configuration,
        plan=plan,
        expected=expected_of(view, if_match),
    )
    response.headers["ETag"] = etag_of(done)
    return await _one(world, done)


@router.delete("/{ref}")
async def delete_connector(ref: str, world: WorldDep, if_match: IfMatch = None) -> SeedUninstalled:
    """Delete it. Its runs and payments stay."""
    view = await action.found(world, ref)
    await action.deleted(world, view, expected=expected_of(view, if_match))
    return SeedUninstalled()


@router.post("/{ref}/test", openapi_extra=takes(By))
async def test_connector(
    ref: str, world: WorldDep, reserved: ReservedDep, body: Annotated[By, Depends(given(By))]
) -> OpsFound | SeedTestFailed:
    """Try its source, now, and name the files that it would read. Nothing is published, its status stays."""
    trial = await action.tried(world, await action.found(world, ref), reserved, by=body.triggered_by)
    if not trial.ok:
        return SeedTestFailed(error=trial.error, run_id=trial.number)
    return OpsFound(filesFound=list(trial.found))


add_actions(router)


async def _one(world: World, view: ConnectorView) -> OpsOneConnector:
    health = await history.health(world.pool, [view.number])
    return OpsOneConnector(**_told(world, view, health[view.number]))


def _told(world: World, view: ConnectorView, health: SeedHealth) -> dict[str, Any]:
    view = action.shown(world, view)
    schedule = view.schedule
    plan = {"schedule": schedule.cron, "scheduleEnabled": schedule.enabled} if schedule.cron else {}
    return {
        "id": f"conn_{view.number}",
        "name": view.name,
        "type": health.type,
        "provider": view.provider,
        "status": view.standing.value,
        "config": {**dialect.camel(view.configuration), **plan, "timezone": _zone(view)},
        "health_status": health.health_status,
        "last_run_at": health.last_run_at,
        "last_run_status": health.last_run_status,
        "last_success_at": health.last_success_at,
        "backlog": health.backlog,
        "success_rate": view.success_rate,
        "total_runs": view.total_runs,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
    }


def _zone(view: ConnectorView) -> str:
    return str(view.configuration.get("timezone") or view.schedule.timezone)
