"""
A connector's source tried as a TEST run (seed 003): its row is there while it goes on, and tells each step afterwards.

It is made and ended by the process that is asked, with the secrets and the way out of a worker. Nothing is published
and the connector's status stays as it is; seed 003's counters move, which health and the rate of `/api/v1` leave out.
If the process dies, the monitor ends the run by its heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from connectors.context import SourceContext
from connectors.source import CheckStep
from connectors.spec import SourceSpec
from schemas.errors import NotFound, TillError
from schemas.failpoint import failpoint
from sinks.pool import Pool, connection
from sinks.prepared import storable
from tillstream.control import run
from tillstream.control.check import CHECK_S, check
from tillstream.control.connector import ConnectorView, checked
from tillstream.control.run import RunStatus
from tillstream.control.statement import statements

logger = logging.getLogger(__name__)

TRIGGERED_BY = "MANUAL_TEST"  # seed 003, where nobody says who
CANCELLED = "cancelled"
_BEAT_S = 2.0  # well within the monitor's heartbeat timeout, and a cancellation is noticed so soon
_CONFIGURATION = "read the configuration"


@dataclass(frozen=True, slots=True)
class Trial:
    """
    How a try ended. `steps` are those that were tried, in order; `error` is the detail of the one that failed.

    `found` are names of what the source holds, such as files, as far as the steps met them.
    """

    run_id: UUID
    number: int
    ok: bool
    error: str
    hint: str
    steps: tuple[CheckStep, ...]
    found: tuple[str, ...]
    duration_s: float


async def try_out(
    pool: Pool,
    view: ConnectorView,
    specs: Mapping[str, SourceSpec],
    context: SourceContext,
    *,
    triggered_by: str = "",
    within_s: float = CHECK_S,
    redact: Callable[[str], str] = str,
    run_id: UUID | None = None,
) -> Trial:
    """
    Try the connector's source once, as it is configured, and keep how it went as a TEST run.

    A configuration that cannot work, or a kind that is not known here, is a step that failed. `redact` takes secrets
    out of what a source says. With a `run_id` that was begun before, go on with that run, or tell how it ended.

    Raises:
        NotFound: the connector is deleted. SinkError: as routed; the run then ends by its heartbeat.
    """
    again, run_id = run_id is not None, run_id or uuid4()
    async with connection(pool) as held:
        arguments = (run_id, view.id, triggered_by or TRIGGERED_BY)
        number = await held.fetchval(statements()["open_test"], *arguments)
    if number is None:
        raise NotFound(f"there is no connector {view.name!r}", hint="`till connector list` shows all")
    if again and (before := await run.find_run(pool, str(run_id))).completed_at is not None:
        return _kept(before)
    failpoint("after_test_opened")
    began = time.monotonic()
    steps = [_redacted(step, redact) for step in await _watched(pool, run_id, _steps(view, specs, context, within_s))]
    failed = next((step for step in steps if not step.ok), None)
    trial = Trial(
        run_id=run_id,
        number=number,
        ok=failed is None,
        error=failed.detail if failed else "",
        hint=failed.hint if failed else "",
        steps=tuple(steps),
        found=tuple(dict.fromkeys(name for step in steps for name in step.found)),
        duration_s=time.monotonic() - began,
    )
    if not await _keep(pool, trial):  # somebody ended it meanwhile: the monitor, if nothing was heard for too long
        return _kept(await run.find_run(pool, str(run_id)))
    return trial


def _kept(view: run.RunView) -> Trial:
    """How a TEST run ended, as its row tells. One whose process died has no steps."""
    details = view.details or {}
    told = details.get("steps", [])
    steps = tuple(
        CheckStep(each["name"], each["ok"], each["duration_s"], each["detail"], each["hint"]) for each in told
    )
    return Trial(
        run_id=view.id,
        number=view.number or 0,
        ok=view.status is RunStatus.SUCCESS,
        error=view.reason,
        hint=next((step.hint for step in steps if not step.ok), ""),
        steps=steps,
        found=tuple(details.get("files_found", ())),
        duration_s=view.duration_s or 0.0,
    )


async def _steps(
    view: ConnectorView, specs: Mapping[str, SourceSpec], context: SourceContext, within_s: float
) -> list[CheckStep]:
    began = time.monotonic()
    try:
        spec = specs.get(view.kind)
        if spec is None:
            there = ", ".join(sorted(specs))
            raise NotFound(f"there is no source of kind {view.kind!r} here", hint=f"there are: {there}")
        names = {"name": view.name, "provider": view.provider, "known_as": view.name}
        config = checked(spec, view.configuration, **names)
    except TillError as exc:
        took_s = time.monotonic() - began
        return [CheckStep(_CONFIGURATION, ok=False, duration_s=took_s, detail=str(exc), hint=exc.hint)]
    return await check(spec, config, context, within_s=within_s)


async def _watched(pool: Pool, run_id: UUID, trying: Coroutine[None, None, list[CheckStep]]) -> Sequence[CheckStep]:
    """The steps, while the run's heart beats; where somebody cancels it, a step that says so."""
    work = asyncio.create_task(trying, name="test")
    beating = asyncio.create_task(_beat(pool, run_id), name="heartbeat of a test")
    began = time.monotonic()
    try:
        await asyncio.wait({work, beating}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        return [CheckStep("try the source", ok=False, duration_s=time.monotonic() - began, detail=CANCELLED)]
    finally:
        for each in (work, beating):
            each.cancel()
        await asyncio.wait({work, beating})


async def _beat(pool: Pool, run_id: UUID) -> None:
    """Say that it goes on; return where it should not."""
    while True:
        await asyncio.sleep(_BEAT_S)
        with contextlib.suppress(TillError):  # the next beat may be heard
            async with connection(pool) as held:
                row = await held.fetchrow(statements()["beat_test"], run_id)
            if row is None or row["cancelled"]:
                return


async def _keep(pool: Pool, trial: Trial) -> bool:
    """Whether that is how it ended."""
    status = RunStatus.SUCCESS if trial.ok else RunStatus.FAILED
    # a source may say anything: what jsonb cannot hold is spelled out
    details = {"steps": [_told(step) for step in trial.steps], "files_found": [storable(name) for name in trial.found]}
    async with connection(pool) as held, held.transaction():
        ended = await run.close(held, trial.run_id, status, reason=storable(trial.error) or None)
        if ended is not None:
            await held.execute(statements()["detail_test"], trial.run_id, json.dumps(details))
    logger.info("connector tested", extra={"facts": {"run": trial.run_id, "status": status.value}})
    return ended is not None


def _told(step: CheckStep) -> dict[str, object]:
    return {
        "name": step.name,
        "ok": step.ok,
        "duration_s": round(step.duration_s, 3),
        "detail": storable(step.detail),
        "hint": storable(step.hint),
    }


def _redacted(step: CheckStep, redact: Callable[[str], str]) -> CheckStep:
    found = tuple(redact(name) for name in step.found)
    return CheckStep(step.name, step.ok, step.duration_s, redact(step.detail), redact(step.hint), found)
