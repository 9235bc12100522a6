"""Seed 003: `/connectors` with its envelopes. A connector is named by number, `conn_<number>` or name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from tillstream.api.compat import action
from tillstream.api.compat.run import By, add_actions
from tillstream.api.compat.shape import Body, Instant, given, takes
from tillstream.api.idempotency import ReservedDep
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.connector import IfMatch, etag_of, expected_of
from tillstream.api.world import World, WorldDep
from tillstream.control import dialect
from tillstream.control.connector import ConnectorView, Standing
from tillstream.control.dialect import Plan

router = APIRouter(prefix="/connectors", tags=["seed-003"], responses=PROBLEMS)

Status = Literal["ACTIVE", "PAUSED", "FAILED", "TESTING"]
Configuration = dict[str, Any]  # a source's own: any JSON object


class SeedConnector(BaseModel):
    """One connector of the list."""

    id: str
    name: str
    connector_type: str | None
    source_entity: str
    status: str
    success_rate: int
    last_run_at: Instant | None
    last_run_status: str | None
    total_runs: int


class SeedConnectorDetail(SeedConnector):
    """One connector with all that seed 003's table has of it."""

    connection_config: Configuration
    schedule_enabled: bool
    schedule_cron: str | None
    schedule_timezone: str
    last_run_details: dict[str, Any] | None  # any JSON object
    success_count: int
    failure_count: int
    created_at: Instant
    updated_at: Instant


class SeedSummary(BaseModel):
    """How many there are, whatever the list was restricted to."""

    total: int
    active: int
    paused: int
    failed: int


class SeedConnectors(BaseModel):
    """Connectors by number."""

    success: bool = True
    connectors: list[SeedConnector]
    summary: SeedSummary


class SeedShown(BaseModel):
    """One connector."""

    success: bool = True
    connector: SeedConnectorDetail


class SeedDone(SeedShown):
    """One connector, made or changed."""

    message: str


class SeedTested(BaseModel):
    """The source answers as it should."""

    success: Literal[True] = True
    message: str = "Connection successful"
    run_id: int


class SeedTestFailed(BaseModel):
    """The source was tried, and this is why it did not do."""

    success: Literal[False] = False
    error: str
    run_id: int


class SeedNewConnector(Body):
    """A connector that is to be."""

    name: str
    connector_type: str
    source_entity: str = Field(max_length=100)
    connection_config: Configuration = Field(default_factory=dict)
    schedule_enabled: bool | None = None
    schedule_cron: str | None = None
    schedule_timezone: str | None = None


class SeedChangedConnector(Body):
    """What is to be different; `connection_config` is given whole."""

    name: str | None = None
    status: Standing | None = None
    connector_type: str | None = Field(default=None, description="As it is: it never changes.")
    source_entity: str | None = Field(default=None, description="As it is: it never changes.")
    connection_config: Configuration | None = None
    schedule_enabled: bool | None = None
    schedule_cron: str | None = None
    schedule_timezone: str | None = None

    @property
    def plan(self) -> Plan:
        """When it runs."""
        cron = "" if self.schedule_cron is None and "schedule_cron" in self.model_fields_set else self.schedule_cron
        return Plan(cron, self.schedule_timezone, self.schedule_enabled)


_TOLD = frozenset(SeedConnectorDetail.model_fields)  # an answer may be sent back, changed
_BESIDE = _TOLD - frozenset(SeedChangedConnector.model_fields)


@router.get("")
async def list_connectors(
    world: WorldDep,
    status: Status | None = None,
    connector_type: str | None = None,
    source_entity: str | None = None,
    search: Annotated[str | None, Query(max_length=255, description="Part of a name or source entity.")] = None,
) -> SeedConnectors:
    """List connectors. The summary counts those of every status."""
    found = await action.listed(
        world,
        lambda view: (
            action.holds(search, view.name, view.source_entity)
            and connector_type in (None, view.type)
            and source_entity in (None, view.source_entity)
        ),
        status,
    )
    return SeedConnectors(
        connectors=[SeedConnector(**_row(view)) for view in found.connectors], summary=SeedSummary(**found.summary)
    )


@router.post("", status_code=201, openapi_extra=takes(SeedNewConnector))
async def create_connector(
    world: WorldDep,
    response: Response,
    reserved: ReservedDep,
    body: Annotated[
        SeedNewConnector, Depends(given(SeedNewConnector, beside=_TOLD - frozenset(SeedNewConnector.model_fields)))
    ],
) -> SeedDone:
    """Make a connector; a worker starts it within seconds, or its schedule does."""
    plan = Plan(body.schedule_cron, body.schedule_timezone, body.schedule_enabled)
    wanted = dialect.of_seed_003(body.connector_type, body.source_entity, body.connection_config, plan=plan)
    view = await action.made(world, body.name, wanted, reserved)
    response.headers["Location"] = f"/connectors/{view.number}"
    response.headers["ETag"] = etag_of(view)
    return SeedDone(connector=_detail(world, view), message="Connector created successfully")


@router.get("/{ref}")
async def show_connector(ref: str, world: WorldDep, response: Response) -> SeedShown:
    """One connector, whole."""
    view = await action.found(world, ref)
    response.headers["ETag"] = etag_of(view)
    return SeedShown(connector=_detail(world, view))


@router.put("/{ref}", openapi_extra=takes(SeedChangedConnector))
async def change_connector(
    ref: str,
    world: WorldDep,
    response: Response,
    body: Annotated[SeedChangedConnector, Depends(given(SeedChangedConnector, beside=_BESIDE))],
    if_match: IfMatch = None,
) -> SeedDone:
    """Change it; its worker starts it anew, from where it stood. What is not given stays."""
    view = await action.found(world, ref)
    told = {"connector_type": view.type, "source_entity": view.source_entity}
    action.insist(told, {"connector_type": body.connector_type, "source_entity": body.source_entity})
    done = await action.changed(
        world,
        view,
        name=body.name,
        status=None if body.status is None else body.status.wanted,
        configuration=body.connection_config,
        plan=body.plan,
        expected=expected_of(view, if_match),
    )
    response.headers["ETag"] = etag_of(done)
    return SeedDone(connector=_detail(world, done), message="Connector updated successfully")


@router.post("/{ref}/test", openapi_extra=takes(By))
async def test_connector(
    ref: str, world: WorldDep, reserved: ReservedDep, body: Annotated[By, Depends(given(By))]
) -> SeedTested | SeedTestFailed:
    """Try its source, now: a TEST run, which the history has. Nothing is published, its status stays."""
    trial = await action.tried(world, await action.found(world, ref), reserved, by=body.triggered_by)
    return SeedTested(run_id=trial.number) if trial.ok else SeedTestFailed(error=trial.error, run_id=trial.number)


add_actions(router)


def _row(view: ConnectorView) -> dict[str, Any]:
    return {
        "id": str(view.number),
        "name": view.name,
        "connector_type": view.type or None,
        "source_entity": view.source_entity,
        "status": view.standing.value,
        "success_rate": view.success_rate,
        "last_run_at": view.last_run_at,
        "last_run_status": view.last_run_status or None,
        "total_runs": view.total_runs,
    }


def _detail(world: World, view: ConnectorView) -> SeedConnectorDetail:
    view = action.shown(world, view)
    return SeedConnectorDetail(
        **_row(view),
        connection_config=dict(view.configuration),
        schedule_enabled=view.schedule.enabled,
        schedule_cron=view.schedule.cron,
        schedule_timezone=view.schedule.timezone,
        last_run_details=None if view.last_run_details is None else dict(view.last_run_details),
        success_count=view.success_count,
        failure_count=view.failure_count,
        created_at=view.created_at,
        updated_at=view.updated_at,
    )
