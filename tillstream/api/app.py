"""
The application: its routers, in the order in which they are tried, the error handlers and the limits.

`document()` is its OpenAPI 3.1 description, which needs no server and no database.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from schemas.errors import TillError
from tillstream.api import compat, problem, v1
from tillstream.api.address import Segments, no_dry_run, only_known_parameters, whole_segments
from tillstream.api.compat.envelope import Envelope
from tillstream.api.guard import Guard
from tillstream.api.idempotency import Idempotent
from tillstream.api.probe import router as probe
from tillstream.api.world import World
from tillstream.redaction import process_redactor

_SUMMARY = "Payments from everywhere, through Kafka, into one PostgreSQL table: connectors, payments, dead letters."


def application(world: World | None = None) -> FastAPI:
    """The application over `world`; without one it tells its document and serves nothing else."""
    app = FastAPI(
        title="Tillstream",
        version=version("tillstream"),
        summary=_SUMMARY,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation,
        dependencies=[Depends(whole_segments)],
    )
    app.state.world = world
    redact = process_redactor().redact if world is None else world.redact
    app.add_middleware(Segments)  # the inner one
    app.add_middleware(Idempotent, world=world)
    app.add_middleware(Guard, redact=redact)
    app.add_middleware(Envelope)  # the outer one
    _handle_errors(app, redact)
    app.include_router(probe)
    for router in v1.ROUTERS:
        app.include_router(router, dependencies=[Depends(only_known_parameters)])
    for router in compat.ROUTERS:  # the seeds' clients may say more than is heeded
        app.include_router(router, dependencies=[Depends(no_dry_run)])
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # as FastAPI's own pages say
    return app


# a JSON document
def document() -> dict[str, Any]:
    """The OpenAPI document of all routes."""
    return application().openapi()


def request_id(request: Request) -> str:
    """The id that the guard gave the request."""
    return str(request.state.request_id)


def _handle_errors(app: FastAPI, redact: Callable[[str], str]) -> None:
    async def ours(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, TillError)  # noqa: S101  Starlette types handlers loosely
        if problem.status_of(exc) == 500:
            raise exc  # a bug: the guard logs it
        return problem.answer_of(exc, request_id=request_id(request), redact=redact)

    async def invalid(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, RequestValidationError)  # noqa: S101
        return problem.of_validation(exc, request_id=request_id(request), redact=redact)

    async def refused(request: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, HTTPException)  # noqa: S101
        return problem.of_http(exc, request_id=request_id(request))

    app.add_exception_handler(TillError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)


def _operation(route: APIRoute) -> str:
    return f"{route.tags[0]}_{route.name.strip('_')}" if route.tags else route.name.strip("_")


def _described(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, made once, with what its routes do not say themselves: the shape of problems."""
    if app.openapi_schema is None:
        found = FastAPI.openapi(app)
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        shape = problem.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(shape.pop("$defs", {}))
        schemas["Problem"] = shape
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        found["components"]["schemas"] = dict(sorted(schemas.items()))
        app.openapi_schema = found
    return app.openapi_schema
