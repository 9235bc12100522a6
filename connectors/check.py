"""The steps of a check: each is an attempt, timed, whose failure is told with what mends it."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import NamedTuple

from connectors.source import Batch, CheckStep
from schemas.errors import SourceMisconfigured, TillError


class Told(NamedTuple):
    """What a step has to say, and names of what the source holds, such as files, as far as the step met them."""

    detail: str
    found: tuple[str, ...] = ()


async def step(name: str, attempt: Awaitable[object]) -> CheckStep:
    """
    An attempt, awaited and timed, as one line of a check.

    `check` returns `[await step("log in", self._log_in()), ...]`. A text that the attempt returns, or a `Told`, is
    told; of anything else only that it came. It fails with the message and the hint of a `TillError`; whatever else is
    raised is a bug of the source and passes.
    """
    began_s = time.monotonic()
    try:
        result = await attempt
    except TillError as exc:
        return CheckStep(name, False, time.monotonic() - began_s, str(exc), exc.hint)
    told = result if isinstance(result, Told) else Told(result if isinstance(result, str) else "")
    return CheckStep(name, True, time.monotonic() - began_s, told.detail, found=told.found)


def understood(batch: Batch, *, of: str) -> str:
    """
    How much of a sample became payments, in words. `of` is what to compare the options with: "a record of the API".

    Raises:
        SourceMisconfigured: none of its records did.
    """
    if batch.rejections and not batch.records:
        first = batch.rejections[0]
        raise SourceMisconfigured(
            f"none of {batch.read} records is understood; the first: {first.reason}: {first.message}",
            hint=f"compare columns, status_map, date_format and amount_unit with {of}",
        )
    told = f"of {batch.read}: {len(batch.records)} understood"
    told += f", {batch.filtered} left out" if batch.filtered else ""
    if batch.rejections:
        told += f", {len(batch.rejections)} rejected ({batch.rejections[0].reason})"
    return told


__all__ = ["Told", "step", "understood"]
