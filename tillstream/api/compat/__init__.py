"""The seeds' families of routes, word for word, over the services of `/api/v1`."""

from __future__ import annotations

from fastapi import APIRouter

from tillstream.api.compat import connectors, install, ops, payments

# Seed 003's `GET /connectors/{ref}` and seed 000's `POST /connectors/{name}` are one path with two methods.
ROUTERS: tuple[APIRouter, ...] = (payments.router, connectors.router, install.router, ops.router)

__all__ = ["ROUTERS"]
