"""
What an address says: names with a `/` in them, sent as `%2F`, and parameters, of which none is passed over in silence.

A server decodes a path before it is matched, so that `%2F` would part a name in two. Here it is matched as it was sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from tillstream.api.problem import Refusal

_SLASH = "\x00"  # stands for a `/` inside of a segment: the guard lets no NUL through
_SHOWN = 100
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
DRY_RUN = "dry_run"


class Segments:
    """ASGI middleware, the innermost: a `/` that was sent as `%2F` parts no segments."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and b"%2f" in scope.get("raw_path", b"").lower():
            segments = scope["raw_path"].decode("ascii", "replace").split("/")
            scope["path"] = "/".join(unquote(segment).replace("/", _SLASH) for segment in segments)
        await self._app(scope, receive, send)


async def whole_segments(request: Request) -> None:
    """A dependency of every route, before its parameters are read: what `Segments` kept together, as it was meant."""
    given = request.scope["path_params"]
    given.update({name: value.replace(_SLASH, "/") for name, value in given.items() if isinstance(value, str)})


async def only_known_parameters(request: Request) -> None:
    """
    A dependency: pass if the route knows every parameter that is given.

    Raises:
        Refusal: `invalid`; it does not know one.
    """
    route = request.scope["route"]
    known = known_parameters(route)
    unknown = sorted(request.query_params.keys() - known)
    if unknown:
        told, there_are = unknown[0][:_SHOWN], f"there are {', '.join(sorted(known))}" if known else "there is none"
        raise Refusal("invalid", f"{told!r} is no parameter of this route; {there_are}", field=told)


async def no_dry_run(request: Request) -> None:
    """
    A dependency of routes that know no dry run: pass if none is asked for. Elsewhere parameters that are not known do
    no harm; passing over this one would do what was only to be tried.

    Raises:
        Refusal: `invalid`; one is asked for.
    """
    if DRY_RUN in request.query_params and request.method not in _SAFE:
        raise Refusal(
            "invalid", "this route knows no dry run; nothing was done", hint="those of /api/v1 do", field=DRY_RUN
        )


def known_parameters(route: APIRoute) -> frozenset[str]:
    """The parameters that a route takes in its address."""
    return frozenset(_named(route.dependant))


def _named(dependant: Dependant) -> Iterator[str]:
    for each in dependant.query_params:
        yield each.alias
    for other in dependant.dependencies:
        yield from _named(other)
