"""Stopping aiokafka's clients: within a bound, and without what they raise while their broker is away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiokafka.errors import KafkaError

_STOP_S = 5.0


async def closed(stop: Coroutine[Any, Any, None]) -> None:
    """
    Wait for a client's own `stop` or `close`, no longer than 5 s.

    In a task: a consumer cancels its fetches, and lets the cancellation of one that waits out a dead broker escape, as
    if whoever stops it had been cancelled.
    """
    stopping = asyncio.ensure_future(stop)
    await asyncio.wait({stopping}, timeout=_STOP_S)
    if not stopping.done():
        stopping.cancel()
    elif not stopping.cancelled() and not isinstance(stopping.exception(), KafkaError | TimeoutError | OSError):
        stopping.result()
