"""`/api/v1`: one router a noun, its models beside it."""

from __future__ import annotations

from fastapi import APIRouter

from tillstream.api.v1 import (
    action,
    connector,
    cursor,
    dead_letter,
    event,
    lag,
    ledger,
    payment,
    replay,
    run,
    source_type,
    template,
    unsaved,
    version,
)

ROUTERS: tuple[APIRouter, ...] = (
    source_type.router,
    template.router,
    connector.router,
    action.router,
    unsaved.router,
    cursor.router,
    version.router,
    run.router,
    payment.router,
    dead_letter.router,
    dead_letter.actions,
    ledger.router,
    ledger.actions,
    replay.router,
    event.router,
    lag.router,
)

__all__ = ["ROUTERS"]
