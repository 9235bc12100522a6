"""Connectors: made, shown, changed, let go of; run, paused, resumed. Before they are saved: `unsaved.py`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from pydantic import AliasChoices, Field, model_validator

from connectors.clock import SystemClock
from connectors.context import SourceContext
from connectors.spec import SourceSpec
from schemas.errors import ConfigError, NotFound, PreconditionFailed
from tillstream.api.idempotency import ReservedDep
from tillstream.api.problem import PROBLEMS, Refusal
from tillstream.api.v1.shape import USUAL, After, Body, DryRun, Limit, Model, Page, cursor_of, place_of, text
from tillstream.api.v1.source_type import spec_of
from tillstream.api.world import World, WorldDep
from tillstream.config import Environment
from tillstream.control import connector as connectors
from tillstream.control import edit, template
from tillstream.control.connector import ConnectorStatus, ConnectorView, Standing
from tillstream.control.edit import Described, Wish
from tillstream.control.schedule import Schedule

router = APIRouter(prefix="/api/v1/connectors", tags=["connectors"], responses=PROBLEMS)

IfMatch = Annotated[
    str | None, Header(alias="If-Match", max_length=200, description="The ETag that the change is meant for.")
]
# any JSON object, which the source's own model judges
Configuration = dict[str, Any]


class ProgressShape(Model):
    """Something slow that the source is at, such as a download."""

    descriptor: str
    done_bytes: int
    size_bytes: int


class ReportShape(Model):
    """What its worker last told of a connector."""

    worker: str
    state: str
    reported_at: datetime
    listed_at: datetime | None
    open_runs: int
    active: int
    pending: int
    left_behind: int
    skipped: dict[str, int]
    progress: list[ProgressShape]


class ScheduleShape(Model):
    """One with a `cron` does not poll, and runs when it is asked to: nothing here starts it by the clock."""

    cron: str | None
    timezone: str
    enabled: bool


class ConnectorShape(Model):
    """
    One connector. `number`, `type` and `source_entity` are seed 003's; `version` is its configuration's.

    `revision` rises with every change that an operator makes; `health` is the monitor's word. `status` FAILED: it is
    wanted ACTIVE, and paused itself over an error, or its last three runs failed.
    """

    id: UUID
    number: int
    name: str
    kind: str
    provider: str
    provider_frozen: bool
    status: Standing = Field(validation_alias=AliasChoices("standing", "status"))
    configuration: Configuration
    health: str
    cause: str
    version: int
    success_rate: int
    total_runs: int
    last_run_at: datetime | None
    last_run_status: str
    created_at: datetime
    updated_at: datetime
    schedule: ScheduleShape
    revision: int
    type: str
    source_entity: str
    pause_note: str
    report: ReportShape | None


class ConnectorDetail(ConnectorShape):
    """One connector with every option that holds, given or not."""

    options: Configuration


class ScheduleBody(Body):
    """Five fields of cron, in a zone, which nothing here acts on: it runs when asked. Without `cron` it polls."""

    cron: str | None = Field(default=None, max_length=100)
    timezone: str = Field(default=Schedule().timezone, max_length=64)
    enabled: bool = False


class NewConnector(Body):
    """
    A connector that is to be. Without `provider` its template's is it, or its name; the first run freezes it.

    Of a `template` (`GET /templates`) it has the kind, and the options that are not given here.
    """

    name: str = Field(min_length=1, max_length=255)
    kind: str | None = Field(default=None, min_length=1, max_length=100, description="Its template's, if it has one.")
    template: str | None = Field(default=None, min_length=1, max_length=100)
    configuration: Configuration = Field(default_factory=dict)
    provider: str | None = Field(default=None, max_length=255)
    status: ConnectorStatus = ConnectorStatus.ACTIVE
    schedule: ScheduleBody = ScheduleBody()
    by: str = Field(default="", max_length=100, description="Who says so.")

    @model_validator(mode="after")
    def _is_of_a_kind(self) -> Self:
        if self.kind is None and self.template is None:
            raise ValueError("name its kind, or a template")
        return self

    def described(self) -> Described:
        """
        What is wanted, its template filled in.

        Raises:
            NotFound: there is no such template. Refusal: `invalid`; it is one of another kind.
        """
        kind, provider, configuration = self.kind or "", self.provider, self.configuration
        if self.template is not None:
            held = template.find(self.template)
            if self.kind not in (None, held.kind):
                raise Refusal("invalid", f"template {held.name!r} is of kind {held.kind!r}", field="kind")
            kind, provider, configuration = held.kind, provider or held.provider, held.filled(configuration)
        return Described(
            name=self.name,
            kind=kind,
            provider=provider or self.name,
            status=self.status,
            configuration=configuration,
            schedule=Schedule(**self.schedule.model_dump()),
        )


class WholeConnector(Body):
    """
    All that can be changed of a connector. Without `provider` it stays what it was.

    `status` FAILED, as an answer may say it, changes nothing of it.
    """

    name: str = Field(min_length=1, max_length=255)
    configuration: Configuration
    provider: str | None = Field(default=None, max_length=255)
    status: Standing = Standing.ACTIVE
    schedule: ScheduleBody = ScheduleBody()


class Patch(Body):
    """What is to change: a JSON merge patch (RFC 7396), in which null takes a key away. `status` FAILED is as it is."""

    name: str | None = Field(default=None, max_length=255)
    configuration: Configuration | None = None
    provider: str | None = Field(default=None, max_length=255)
    status: Standing | None = None
    # as far as it changes
    schedule: dict[str, Any] | None = None


class StepShape(Model):
    """One step of a trial: what was tried, how long it took, what to do if it failed."""

    name: str
    ok: bool
    duration_s: float
    detail: str
    hint: str
    found: list[str]


class DifferenceShape(Model):
    """One key that is other than before; null: it was not there, or is not there any more."""

    key: str
    # what JSON has
    before: Any
    after: Any


@router.get("")
async def list_connectors(
    world: WorldDep,
    q: Annotated[str | None, Query(max_length=255, description="Part of a name or provider.")] = None,
    status: Standing | None = None,
    kind: Annotated[str | None, Query(max_length=100)] = None,
    health: Annotated[str | None, Query(max_length=50)] = None,
    limit: Limit = USUAL,
    after: After = None,
) -> Page[ConnectorShape]:
    """Connectors by name."""
    filtered_by = ["connectors", q, status, kind, health]
    place = place_of(after, filtered_by=filtered_by, kinds=(text,))
    wanted = connectors.Filter(q, status, kind, health)
    views, more = await connectors.page(world.pool, wanted, after=None if place is None else place[0], limit=limit)
    return Page(
        data=[ConnectorShape.of(connectors.shown(view, spec_or_none(world, view.kind))) for view in views],
        next=None if more is None else cursor_of([more], filtered_by=filtered_by),
    )


@router.post("", status_code=201)
async def create_connector(
    body: NewConnector, world: WorldDep, response: Response, reserved: ReservedDep, dry_run: DryRun = False
) -> ConnectorDetail:
    """Make a connector; a worker starts it within seconds."""
    described = body.described()
    spec_of(world, described.kind)
    known = await _known(world, reserved.id) if reserved.again else None
    if known is None:
        known = await edit.create(
            world.pool,
            described,
            world.specs,
            by=body.by,
            secrets=world.store,
            identifier=reserved.id,
            dry_run=dry_run,
        )
    response.headers["Location"] = f"/api/v1/connectors/{known.id}"
    return answer_of(world, known, response)


@router.get("/{ref}")
async def show_connector(ref: str, world: WorldDep, response: Response) -> ConnectorDetail:
    """One connector, by id, number, `conn_<number>` or name."""
    return answer_of(world, await found(world, ref), response)


@router.put("/{ref}")
async def replace_connector(
    ref: str,
    body: WholeConnector,
    world: WorldDep,
    response: Response,
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> ConnectorDetail:
    """Replace it; the worker starts it anew where its configuration changed, from where it stood."""

    def wish(now: Described) -> Described:
        return Described(
            name=body.name,
            kind=now.kind,
            provider=body.provider or now.provider,
            status=body.status.wanted or now.status,
            configuration=body.configuration,
            schedule=Schedule(**body.schedule.model_dump()),
        )

    return await _changed(world, ref, wish, response, if_match, dry_run=dry_run)


@router.patch("/{ref}")
async def patch_connector(
    ref: str, body: Patch, world: WorldDep, response: Response, if_match: IfMatch = None, dry_run: DryRun = False
) -> ConnectorDetail:
    """Change some of it: a JSON merge patch (RFC 7396)."""
    given = body.model_dump(mode="json", exclude_unset=True)
    if body.status is Standing.FAILED:
        del given["status"]
    wish = edit.patch_of(given)
    return await _changed(world, ref, wish, response, if_match, dry_run=dry_run)


@router.delete("/{ref}", status_code=204)
async def delete_connector(ref: str, world: WorldDep, if_match: IfMatch = None, dry_run: DryRun = False) -> Response:
    """Delete it: its worker stops it within seconds, its name is free, its runs and payments stay."""
    view = await found(world, ref)
    expected = expected_of(view, if_match)
    if not dry_run:
        await connectors.delete(world.pool, view, expected=expected)
    return Response(status_code=204)


async def found(world: World, ref: str) -> ConnectorView:
    """
    The connector of this id, number, `conn_<number>` or name.

    Raises:
        NotFound: there is none.
    """
    return await connectors.find(world.pool, ref)


def etag_of(view: ConnectorView) -> str:
    """What changes with every change that an operator makes."""
    return f'"{view.revision}"'


def context_of(world: World, identifier: UUID, name: str) -> SourceContext:
    """What a worker here would give the connector's source."""
    return SourceContext(
        connector_id=identifier,
        connector=name,
        clock=SystemClock(),
        secrets=world.secrets,
        production=world.settings.environment is Environment.PRODUCTION,
        adapters=world.adapters,
    )


@contextlib.asynccontextmanager
async def trying(world: World) -> AsyncIterator[None]:
    """
    Try a source meanwhile; not many at a time.

    Raises:
        Refusal: enough are being tried.
    """
    if world.trials.locked():
        raise Refusal("too_many_requests", "enough sources are being tried already", retry_after_s=5)
    async with world.trials:
        yield


def spec_or_none(world: World, kind: str) -> SourceSpec | None:
    """The kind of source; None for one that is not here."""
    try:
        return world.specs.get(kind)
    except ConfigError:  # a plugin that cannot be imported
        return None


def answer_of(world: World, view: ConnectorView, response: Response) -> ConnectorDetail:
    """One connector as it is answered, with its ETag."""
    response.headers["ETag"] = etag_of(view)
    spec = spec_or_none(world, view.kind)
    told = connectors.shown(view, spec)
    options = dict(told.configuration) if spec is None else connectors.in_force(spec, view.configuration)
    return ConnectorDetail.model_validate({**ConnectorShape.of(told).model_dump(), "options": options})


async def _known(world: World, identifier: UUID) -> ConnectorView | None:
    try:
        return await connectors.find(world.pool, str(identifier))
    except NotFound:
        return None


async def _changed(
    world: World, ref: str, wish: Wish, response: Response, if_match: str | None, *, dry_run: bool
) -> ConnectorDetail:
    view = await found(world, ref)
    if if_match is None:
        raise Refusal(
            "precondition_required",
            "a change names the state that it is meant for",
            hint="send the connector's ETag as If-Match",
        )
    expected = expected_of(view, if_match)
    done = await edit.change(
        world.pool, view.id, wish, world.specs, expected=expected, secrets=world.store, dry_run=dry_run
    )
    return answer_of(world, done.view, response)


def expected_of(view: ConnectorView, if_match: str | None) -> int | None:
    """
    The revision that a change is meant for; None for any.

    Raises:
        PreconditionFailed: it is not the one that there is.
    """
    if if_match is None:
        return None
    tags = [each.strip() for each in if_match.split(",")]
    if "*" in tags:
        return None
    if etag_of(view) not in tags:
        raise PreconditionFailed("the connector has changed since", hint=PreconditionFailed.hint)
    return view.revision
