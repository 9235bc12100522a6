"""
Seed 000: `POST /connectors/{name}` installs, `DELETE` uninstalls, `GET …/tasks` lists tasks.

A name says what is installed: a kind of source (`directory`), or a provider with a template (`razorpay`). Any other
name is a folder's, as `example` is in the seed; a key `kind` in the body says it otherwise. The rest of the body is the
source's own configuration, JSON whatever its Content-Type says.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from connectors.task import TaskStatus
from schemas import identity
from schemas.errors import ConfigError
from tillstream.api.compat import action
from tillstream.api.compat.shape import Instant, takes, whole
from tillstream.api.idempotency import ReservedDep
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.connector import IfMatch, expected_of
from tillstream.api.v1.source_type import spec_of
from tillstream.api.world import World, WorldDep
from tillstream.control import dialect
from tillstream.control.connector import ConnectorView
from tillstream.control.report import tasks_of

router = APIRouter(prefix="/connectors", tags=["seed-000"], responses=PROBLEMS)


class SeedInstalledConnector(BaseModel):
    """A connector that is there now."""

    id: str
    name: str
    status: str


class SeedInstalled(BaseModel):
    """It is installed; a worker starts it within seconds."""

    success: bool = True
    connector: SeedInstalledConnector
    message: str = "Connector installed"


class SeedUninstalled(BaseModel):
    """It is not there any more. What it brought stays."""

    success: bool = True
    message: str = "Connector deleted successfully"


class SeedTask(BaseModel):
    """One task. Its id is its descriptor as canonical JSON in base64."""

    provider: str
    descriptor: str
    createdAt: Instant  # noqa: N815  the seed's key
    status: str
    error: str
    state: Any  # any JSON value of the source's own
    id: str


@router.post("/{name}", status_code=201, openapi_extra=takes())
async def install(
    name: str,
    world: WorldDep,
    response: Response,
    reserved: ReservedDep,
    body: Annotated[dict[str, Any], Depends(whole)],
) -> SeedInstalled:
    """Install a connector under this name. The provider of its payments is the name."""
    if name.isdecimal() or name.startswith("conn_"):
        raise ConfigError(
            f"{name!r} is a connector's number and cannot be installed", hint="install it under a name of your choice"
        )
    view = await action.made(world, name, dialect.of_install(name, body, world.specs), reserved)
    response.headers["Location"] = f"/connectors/{view.number}"
    return SeedInstalled(connector=SeedInstalledConnector(id=str(view.number), name=view.name, status=view.status))


@router.delete("/{ref}")
async def uninstall(ref: str, world: WorldDep, if_match: IfMatch = None) -> SeedUninstalled:
    """Uninstall a connector (seed 003: delete it), by name or number. Its runs and payments stay."""
    view = await action.found(world, ref)
    await action.deleted(world, view, expected=expected_of(view, if_match))
    return SeedUninstalled()


@router.get("/{ref}/tasks")
async def list_tasks(ref: str, world: WorldDep) -> list[SeedTask]:
    """Its tasks: the listing first, then what it found, the oldest first."""
    view = await action.found(world, ref)
    told = [
        SeedTask(
            provider=view.provider,
            descriptor=each.descriptor,
            createdAt=each.created_at,
            status=each.status,
            error=each.error,
            state=each.state,
            id=each.id,
        )
        for each in await tasks_of(world.pool, view.id)
    ]
    return told or [_first(world, view)]


def _first(world: World, view: ConnectorView) -> SeedTask:
    """The task that lists: it waits for a worker."""
    descriptor = spec_of(world, view.kind).listing
    return SeedTask(
        provider=view.provider,
        descriptor=descriptor,
        createdAt=view.created_at,
        status=TaskStatus.PENDING,
        error="",
        state={},
        id=identity.task_id(descriptor),
    )
