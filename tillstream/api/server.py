"""
uvicorn inside our own process shell: it takes no signals, logs no requests, and ends within a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from schemas.errors import ConfigError
from tillstream.http import Endpoint, announced

ROLE = "api"
SHUTDOWN_S = 4  # for requests that are being answered; a whole process has 9 s
KEEP_ALIVE_S = 30
_BACKLOG = 512
_STARTED_S = 0.01
_MOST_CONNECTIONS = 512


class _Server(uvicorn.Server):
    """A server whose process handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp, *, host: str, port: int, run: Path
) -> AsyncIterator[tuple[Endpoint, asyncio.Task[None]]]:
    """
    Serve while the context lasts; `port` 0 takes a free one. The task ends early only if the server fails.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        limit_concurrency=_MOST_CONNECTIONS,
    )
    with bound_to(host, port) as listening, announced(ROLE, host, listening.getsockname()[1], run) as endpoint:
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]), name="http")
        try:
            while not server.started and not task.done():  # noqa: ASYNC110  uvicorn offers nothing to wait for
                await asyncio.sleep(_STARTED_S)
            yield endpoint, task
        finally:
            server.should_exit = True
            await asyncio.wait({task})
            task.result()


@contextlib.contextmanager
def bound_to(host: str, port: int) -> Iterator[socket.socket]:
    """
    A socket that listens while the context lasts.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        raise ConfigError(
            f"http: cannot listen on {host}:{port}: {exc.strerror or exc}",
            hint="set http.api_port to a free port, or to 0 for any",
        ) from exc
    # asyncio turns Nagle's algorithm off only where a socket says that it is TCP, and it says so to those it accepts:
    # without that each answer waits 40 ms for the client's delayed acknowledgement
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=bound.detach())
    try:
        yield listening
    finally:
        listening.close()
