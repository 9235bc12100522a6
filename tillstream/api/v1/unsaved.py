"""
Connectors before they are saved: judged, tried, and brought about as documents describe them.

A secret may be given by value everywhere here. Judging and trying use it and forget it; what is brought about keeps it
as `POST /connectors` does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal
from uuid import UUID, uuid4

from fastapi import APIRouter
from pydantic import Field

from connectors.secret_text import MASK
from connectors.spec import SourceSpec
from tillstream.api.idempotency import ReservedDep
from tillstream.api.problem import PROBLEMS, Refusal
from tillstream.api.v1.connector import (
    Configuration,
    DifferenceShape,
    NewConnector,
    ScheduleBody,
    StepShape,
    context_of,
    trying,
)
from tillstream.api.v1.shape import Body, DryRun, Model
from tillstream.api.v1.source_type import spec_of
from tillstream.api.world import World, WorldDep
from tillstream.control import apply as applying
from tillstream.control import check as checking
from tillstream.control import connector as connectors
from tillstream.control.connector import Standing
from tillstream.control.document import Document
from tillstream.control.edit import Described
from tillstream.control.schedule import Schedule
from tillstream.control.secret import Sealed, Unkept

router = APIRouter(prefix="/api/v1", tags=["connectors"], responses=PROBLEMS)

MOST_DOCUMENTS = 500
CHECK_S = 60.0


class ProblemShape(Model):
    """One thing that is wrong with a configuration."""

    field: str
    message: str


class Validation(Model):
    """Whether a configuration can be, and every problem if not."""

    valid: bool
    problems: list[ProblemShape]
    options: Configuration


class Trial(Model):
    """A source tried once, changing nothing."""

    ok: bool
    steps: list[StepShape]


class DescribedBody(Body):
    """
    One connector as `connector.yaml` describes it. A provider, status or schedule that is not given stays; so does the
    status with FAILED.
    """

    name: str = Field(min_length=1, max_length=255)
    kind: str = Field(min_length=1, max_length=100)
    configuration: Configuration
    provider: str | None = Field(default=None, max_length=255)
    status: Standing | None = None
    schedule: ScheduleBody | None = None

    def document(self, place: str) -> Document:
        """As a file at this place would describe it."""
        plan = None if self.schedule is None else Schedule(**self.schedule.model_dump())
        status = None if self.status is None else self.status.wanted
        return Document(place, self.name, self.kind, self.configuration, self.provider, status, plan)


class ApplyBody(Body):
    """Connectors to bring about, all or none."""

    connectors: list[DescribedBody] = Field(min_length=1, max_length=MOST_DOCUMENTS)


class AppliedShape(Model):
    """What became of one described connector."""

    id: UUID
    name: str
    kind: str
    change: Literal["created", "changed", "unchanged"]
    version: int
    differences: list[DifferenceShape]


class Applied(Model):
    """What became of all of them."""

    dry_run: bool
    connectors: list[AppliedShape]


@router.post("/connectors:validate")
async def validate_connector(body: NewConnector, world: WorldDep) -> Validation:
    """Whether a configuration can be, without any I/O: every problem at once."""
    wanted = body.described()
    spec = spec_of(world, wanted.kind)
    sealed, problems = _sealed(world, spec, wanted)
    model, found = connectors.judged(spec, sealed.configuration, name=wanted.name, provider=wanted.provider)
    told = [each.partition(": ") for each in [*problems, *found]]
    shown = connectors.in_force(spec, sealed.configuration)
    return Validation(
        valid=model is not None and not told,
        problems=[
            ProblemShape(field=field if colon else "", message=world.redact(message if colon else field))
            for field, colon, message in told
        ],
        options={**shown, **dict.fromkeys(sealed.options, MASK)},
    )


@router.post("/connectors:check")
async def check_connector(body: NewConnector, world: WorldDep, reserved: ReservedDep) -> Trial:
    """Try a configuration that is not saved, step by step, from here; nothing is changed and nothing published."""
    wanted = body.described()
    spec = spec_of(world, wanted.kind)
    sealed, problems = _sealed(world, spec, wanted)
    if problems:
        raise connectors.wrong(wanted.name, problems)
    config = connectors.checked(spec, sealed.configuration, name=wanted.name, provider=wanted.provider)
    context = context_of(world, reserved.id, wanted.name)
    context = replace(context, secrets=Unkept(sealed, context.secrets))
    async with trying(world):
        steps = await checking.check(spec, config, context, within_s=CHECK_S)
    shapes = [StepShape.of(step) for step in steps]
    for each in shapes:
        each.detail, each.hint = world.redact(each.detail), world.redact(each.hint)
        each.found = [world.redact(name) for name in each.found]
    return Trial(ok=all(each.ok for each in shapes), steps=shapes)


@router.post("/connectors:apply")
async def apply_connectors(body: ApplyBody, world: WorldDep, dry_run: DryRun = False) -> Applied:
    """Bring connectors to what is described: create, change, pause or resume them; all or none."""
    names = [each.name for each in body.connectors]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refusal("invalid", f"described twice: {', '.join(twice)}", field="connectors")
    wanted = [each.document(f"connectors.{index}") for index, each in enumerate(body.connectors)]
    done = await applying.apply(world.pool, wanted, world.specs, secrets=world.store, dry_run=dry_run)
    return Applied(dry_run=dry_run, connectors=[AppliedShape.of(each) for each in done])


def _sealed(world: World, spec: SourceSpec, wanted: Described) -> tuple[Sealed, list[str]]:
    """The configuration without the secrets that it spells, which stay in this request; and why one could not be."""
    return world.store.judged(spec, wanted.configuration, connector_id=uuid4(), version=1)
