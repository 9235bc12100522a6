"""
A source tried once, step by step, changing nothing: what `till source check` and a console's "Test" button show.

It runs where it is called, with the secrets that are there; a worker elsewhere may see another network.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from connectors.context import SourceContext
from connectors.source import CheckStep, Source
from connectors.spec import ConnectorConfig, SourceSpec
from connectors.thread import Threads, ThreadsByOwner, own_threads
from connectors.wait import Leftovers, abandon, bounded
from schemas.errors import SourceBroken, TillError

CHECK_S = 60.0
_CLOSE_S = 2.0
_MAKE = "make the source"
_TRY = "try the source"


async def check(
    spec: SourceSpec, config: ConnectorConfig, context: SourceContext, *, within_s: float = CHECK_S
) -> list[CheckStep]:
    """
    The steps that were tried, in order; the last one may have failed. Raises nothing.

    A source that does not answer in time, or fails with what is none of our errors, is a step that failed. Its blocking
    calls hold up no exit: the event loop gets an executor that keeps them apart.
    """
    began = time.monotonic()
    asyncio.get_running_loop().set_default_executor(ThreadsByOwner())
    with tempfile.TemporaryDirectory(prefix="till-check-") as staging, own_threads(Threads("check")):
        try:
            source = spec.factory(config, _apart(context, Path(staging)))
        except Exception as exc:  # a stranger's code may fail in any way
            return [_failed(_MAKE, began, exc)]
        left = Leftovers()
        try:
            return await _tried(source, left, within_s=within_s)
        finally:
            await bounded(source.close, _CLOSE_S, left, what="closing the source")


async def _tried(source: Source, left: Leftovers, *, within_s: float) -> list[CheckStep]:
    began = time.monotonic()
    checking: asyncio.Task[Sequence[CheckStep]] = asyncio.create_task(_steps(source), name="check")
    await asyncio.wait({checking}, timeout=within_s)
    if not checking.done():
        await abandon(checking, left)
        detail, hint = f"no answer within {within_s:g} s", "is the address right, and is there a way to it?"
        return [CheckStep(_TRY, ok=False, duration_s=time.monotonic() - began, detail=detail, hint=hint)]
    error = SourceBroken("it cancelled itself") if checking.cancelled() else checking.exception()
    return [_failed(_TRY, began, error)] if error is not None else list(checking.result())


async def _steps(source: Source) -> Sequence[CheckStep]:
    return await source.check()


def _apart(context: SourceContext, staging: Path) -> SourceContext:
    """A check leaves nothing behind, and disturbs nothing that a worker stages."""
    return SourceContext(
        connector_id=context.connector_id,
        connector=context.connector,
        clock=context.clock,
        secrets=context.secrets,
        meter=context.meter,
        staging=staging,
        production=context.production,
        adapters=context.adapters,
    )


def _failed(name: str, began: float, exc: BaseException) -> CheckStep:
    told = str(exc) if isinstance(exc, TillError) else f"internal error: {type(exc).__name__}: {exc}"
    hint = exc.hint if isinstance(exc, TillError) else SourceBroken.hint
    return CheckStep(name, ok=False, duration_s=time.monotonic() - began, detail=told, hint=hint)
