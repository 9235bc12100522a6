"""`/api/v1`: one router a noun, its models beside it."""

from __future__ import annotations

from fastapi import APIRouter

from tillstream.api.v1 import lag, source_type

ROUTERS: tuple[APIRouter, ...] = (source_type.router, lag.router)

__all__ = ["ROUTERS"]
