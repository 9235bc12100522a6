"""Dead letters: listed, grouped, shown, sent through again, let go."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator

from schemas.letter import Stage
from tillstream.api.idempotency import ReservedDep
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.run import run_url
from tillstream.api.v1.shape import USUAL, After, Body, DryRun, Limit, Model, Page, cursor_of, instant, place_of, text
from tillstream.api.world import World, WorldDep
from tillstream.control import connector as connectors
from tillstream.control import letter, letter_page
from tillstream.control.letter import LetterState, LetterView

router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead-letters"], responses=PROBLEMS)
actions = APIRouter(prefix="/api/v1", tags=["dead-letters"], responses=PROBLEMS)

MOST = 10_000
MOST_USUALLY = 1_000
_BYTES = ("key", "value", "headers")


class LetterShape(Model):
    """One dead letter without its bytes, and what became of it."""

    id: str
    stage: Stage
    reason: str
    message: str
    hint: str
    attempts: int
    failed_at: datetime
    event_id: str
    run_id: UUID | None
    connector_id: UUID | None
    connector: str
    topic: str
    partition: int | None
    offset: int | None
    path: str
    position: str
    line: int | None
    source_object: str
    size_bytes: int
    truncated: bool
    sqlstate: str
    state: LetterState
    redrives: int
    redrive_run_id: UUID | None
    redriven_at: datetime | None
    discarded_at: datetime | None
    discarded_by: str | None
    discard_note: str | None


class LetterDetail(LetterShape):
    """One dead letter, whole; bytes are base64."""

    key: str | None
    value: str | None
    headers: list[tuple[str, str | None]]
    sha256: str


class GroupShape(Model):
    """Letters that died of the same: how many, since when, and the newest of them."""

    stage: Stage
    reason: str
    connector: str
    connector_id: UUID | None
    letters: int
    first_at: datetime
    last_at: datetime
    last_id: str
    message: str
    hint: str


class Chosen(Body):
    """Letters by id, or all open ones that match; the newest come first."""

    ids: list[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]] = Field(default_factory=list, max_length=MOST)
    stage: Stage | None = None
    reason: str | None = Field(default=None, max_length=200)
    connector: str | None = Field(default=None, max_length=255, description="Its id, number or name.")
    run: UUID | None = None
    every: bool = Field(default=False, description="Every open letter.")
    corrected: bool = Field(default=False, description="Only of files that came again with other content since.")
    limit: int = Field(default=MOST_USUALLY, ge=1, le=MOST)

    @model_validator(mode="after")
    def _names_some(self) -> Chosen:
        by = (self.stage, self.reason, self.connector, self.run)
        if bool(self.ids) + (any(each is not None for each in by) or self.corrected or self.every) != 1:
            raise ValueError(
                "name letters by `ids`, or choose them by stage, reason, connector, run, `corrected` or `every`"
            )
        return self


class RedriveBody(Chosen):
    """Letters to send through again."""

    triggered_by: str = Field(default="MANUAL", min_length=1, max_length=100)


class DiscardBody(Chosen):
    """Letters to let go, why, and who says so."""

    note: str = Field(min_length=1, max_length=letter.MAX_NOTE)
    by: str = Field(min_length=1, max_length=letter.MAX_NAME)


class RefusedShape(Model):
    """A letter to which that cannot be done, and why."""

    id: str
    code: str
    message: str
    hint: str


class Redriven(Model):
    """Letters under way again as one run, and those that were refused."""

    dry_run: bool
    run_id: UUID | None
    sent: list[str]
    refused: list[RefusedShape]


class Discarded(Model):
    """Letters that were let go; `known` were before, and keep their note."""

    dry_run: bool
    discarded: list[str]
    known: list[str]
    refused: list[RefusedShape]


ReasonQuery = Annotated[str | None, Query(max_length=200)]
ConnectorQuery = Annotated[str | None, Query(max_length=255, description="Its id, number or name.")]
CorrectedQuery = Annotated[bool, Query(description="Only letters of files that came again with other content since.")]
StateQuery = Annotated[Literal["open", "redriven", "discarded", "all"], Query(description="What became of it.")]


@router.get("")
async def list_letters(
    world: WorldDep,
    stage: Stage | None = None,
    reason: ReasonQuery = None,
    connector: ConnectorQuery = None,
    state: StateQuery = "open",
    run: UUID | None = None,
    corrected: CorrectedQuery = False,
    limit: Limit = USUAL,
    after: After = None,
) -> Page[LetterShape]:
    """Dead letters without their bytes, the newest first."""
    wanted = await _wanted(world, stage, reason, connector, state, run, corrected)
    filtered_by = ["letters", stage, reason, wanted.connector_id, state, run, corrected]
    place = place_of(after, filtered_by=filtered_by, kinds=(instant, text))
    begin = None if place is None else (place[0], place[1])
    found = await letter_page.page(world.pool, wanted, limit=limit + 1, after=begin)
    more, last = len(found) > limit, found[limit - 1].letter if len(found) > limit else None
    return Page(
        data=[_shape(each) for each in found[:limit]],
        next=cursor_of([last.failed_at.isoformat(), last.id], filtered_by=filtered_by) if more and last else None,
    )


@router.get("/groups")
async def list_groups(
    world: WorldDep,
    stage: Stage | None = None,
    reason: ReasonQuery = None,
    connector: ConnectorQuery = None,
    state: StateQuery = "open",
    run: UUID | None = None,
    corrected: CorrectedQuery = False,
) -> Page[GroupShape]:
    """Dead letters by what they died of, the largest groups first; at most 200."""
    wanted = await _wanted(world, stage, reason, connector, state, run, corrected)
    return Page(data=[GroupShape.of(each) for each in await letter_page.groups(world.pool, wanted)])


@router.get("/{letter_id}")
async def show_letter(letter_id: str, world: WorldDep) -> LetterDetail:
    """One dead letter, whole, by its id or the beginning of it."""
    view = await letter.show(world.pool, letter_id)
    whole = {name: getattr(view.letter, name) for name in (*_BYTES, "sha256")}
    return LetterDetail.model_validate({**_shape(view).model_dump(), **whole})


@actions.post(
    "/dead-letters:redrive",
    status_code=202,
    responses={200: {"model": Redriven, "description": "Nothing is under way."}},
)
async def redrive_letters(
    body: RedriveBody, world: WorldDep, response: Response, reserved: ReservedDep, dry_run: DryRun = False
) -> Redriven:
    """Send letters through again, as a run of its own; each is redriven once the sink has confirmed that run."""
    ids = await _chosen(world, body)
    done = await letter.redrive(
        world.pool,
        world.producer,
        world.topics,
        ids,
        triggered_by=body.triggered_by,
        dry_run=dry_run,
        run_id=reserved.id,
    )
    if done.run_id is not None:
        response.headers["Location"] = run_url(done.run_id)
    else:
        response.status_code = 200
    return Redriven(
        dry_run=dry_run,
        run_id=done.run_id,
        sent=list(done.sent),
        refused=[RefusedShape.of(each) for each in done.refused],
    )


@actions.post("/dead-letters:discard")
async def discard_letters(body: DiscardBody, world: WorldDep, dry_run: DryRun = False) -> Discarded:
    """Let open letters go, for good, with a note. Discarding one again changes nothing."""
    ids = await _chosen(world, body)
    done = await letter.discard(world.pool, ids, note=body.note, by=body.by, dry_run=dry_run)
    return Discarded(
        dry_run=dry_run,
        discarded=list(done.done),
        known=list(done.known),
        refused=[RefusedShape.of(each) for each in done.refused],
    )


async def _chosen(world: World, body: Chosen) -> list[str]:
    if body.ids:
        return body.ids
    wanted = await _wanted(world, body.stage, body.reason, body.connector, LetterState.OPEN, body.run, body.corrected)
    return [each.letter.id for each in await letter_page.page(world.pool, wanted, limit=body.limit)]


async def _wanted(
    world: World,
    stage: Stage | None,
    reason: str | None,
    connector: str | None,
    state: str,
    run: UUID | None,
    corrected: bool,
) -> letter_page.Wanted:
    owner = None if connector is None else (await connectors.find_ever(world.pool, connector)).id
    return letter_page.Wanted(stage, reason, owner, None if state == "all" else LetterState(state), run, corrected)


def _shape(view: LetterView) -> LetterShape:
    fields = LetterShape.model_fields
    # the letter's own fields, and what became of it
    values: dict[str, Any] = {name: getattr(view.letter, name) for name in fields if hasattr(view.letter, name)}
    told = {name: getattr(view, name) for name in fields if name not in values}
    return LetterShape(**values, **told)
