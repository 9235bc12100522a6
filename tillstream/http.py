"""
The little web server of every worker: /metrics, /livez, /readyz. It has no login and tells no content of any record.

Its address is told in `run/<role>.json` of the home, so that a free port can be found by others.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from schemas.errors import ConfigError, StackBusy
from tillstream.embedded.lock import OwnerLock
from tillstream.health import Health
from tillstream.metrics import CONTENT_TYPE, PrometheusMeter
from tillstream.redaction import process_redactor

_SHUTDOWN_S = 1.0  # a scrape takes milliseconds; a worker that ends waits no longer for one


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a worker's server listens, and how others find it."""

    role: str
    host: str
    port: int
    file: Path

    @property
    def url(self) -> str:
        """Its base address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@contextlib.asynccontextmanager
async def serve(
    role: str, *, host: str, port: int, run: Path, meter: PrometheusMeter, health: Health
) -> AsyncIterator[Endpoint]:
    """
    Serve while the context lasts; `port` 0 takes a free one.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    runner = web.AppRunner(application(meter, health), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        bound = await _listen(runner, host, port, role)
        with announced(role, host, bound, run) as endpoint:
            yield endpoint
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def announced(role: str, host: str, port: int, run: Path) -> Iterator[Endpoint]:
    """
    Tell in `run/<role>.json` where a server listens, while the context lasts.

    Raises:
        ConfigError: the folder cannot be written.
    """
    with _place(run, role) as file:
        yield _announce(Endpoint(role, host, port, file))


def application(meter: PrometheusMeter, health: Health) -> web.Application:
    """The three routes."""
    redact = process_redactor().redact

    async def metrics(_: web.Request) -> web.Response:
        body = redact(meter.exposition().decode())
        return web.Response(body=body.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def readyz(_: web.Request) -> web.Response:
        reasons = {subject: redact(reason) for subject, reason in health.reasons().items()}
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app


async def _listen(runner: web.AppRunner, host: str, port: int, role: str) -> int:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as exc:
        raise ConfigError(
            f"http: cannot listen on {host}:{port}: {exc.strerror or exc}",
            hint=f"set http.{role}_port to a free port, or to 0 for any; http.host to an address of this machine",
        ) from exc
    bound: int = runner.addresses[0][1]
    return bound


@contextlib.contextmanager
def _place(run: Path, role: str) -> Iterator[Path]:
    """`run/<role>.json`, unless another living worker of this role has it: then one with our process id."""
    lock = OwnerLock(run / f"{role}.announced.lock")  # `<role>.lock` is the supervisor's
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(what=f"the worker {role}")
    except OSError as exc:
        raise ConfigError(
            f"home: {run} cannot be written: {exc.strerror}", hint="set TILL_HOME to a directory of its own"
        ) from exc
    except StackBusy:
        file = run / f"{role}-{os.getpid()}.json"
    else:
        file = run / f"{role}.json"
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def _announce(endpoint: Endpoint) -> Endpoint:
    body = {
        "role": endpoint.role,
        "pid": os.getpid(),
        "host": endpoint.host,
        "port": endpoint.port,
        "url": endpoint.url,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    written = endpoint.file.with_suffix(f".{os.getpid()}.tmp")
    written.write_text(json.dumps(body), encoding="utf-8")
    written.replace(endpoint.file)  # readers see all of it or none
    return endpoint
