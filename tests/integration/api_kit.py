"""
The API on a real socket, for tests: `async with api(database) as client:` serves it over a migrated database.

`client` is an aiohttp session on its address; what needs Kafka is given `bootstrap` and `prefix`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from sinks.migrate import migrate
from sinks.pool import close_pool, open_pool
from streams.publisher import Producer
from tests.database import migrated
from tillstream.api.app import application
from tillstream.api.server import serving
from tillstream.api.world import World
from tillstream.config import Settings, load
from tillstream.health import Health
from tillstream.metrics import PrometheusMeter
from tillstream.wiring import api_world

NOWHERE = "127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole."""

    status: int
    headers: Mapping[str, str]
    text: str
    body: Any


class Client:
    """Sends to one API. Paths are below `/api/v1` unless they begin with another family's."""

    def __init__(self, session: aiohttp.ClientSession, url: str, world: World) -> None:
        self.session, self.url, self.world = session, url, world

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """One request; `path` as it is."""
        async with self.session.request(method, self.url + path, allow_redirects=False, **options) as answer:
            text = await answer.text()
            is_json = "json" in answer.headers.get("Content-Type", "")
            return Answer(
                answer.status, answer.headers, text, await answer.json(content_type=None) if is_json else None
            )

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", f"/api/v1{path}", **options)

    async def post(self, path: str, body: object = None, **options: Any) -> Answer:
        given = {} if body is None else {"json": body}
        return await self.ask("POST", f"/api/v1{path}", **given, **options)

    async def put(self, path: str, body: object, **options: Any) -> Answer:
        return await self.ask("PUT", f"/api/v1{path}", json=body, **options)

    async def patch(self, path: str, body: object, **options: Any) -> Answer:
        return await self.ask("PATCH", f"/api/v1{path}", json=body, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.ask("DELETE", f"/api/v1{path}", **options)


def settings_of(home: Path, database: str, *, bootstrap: str = NOWHERE, prefix: str = "till", **more: str) -> Settings:
    """Settings of an installation of the test's own."""
    chosen = {"home": str(home), "postgres.dsn": database, "kafka.bootstrap": bootstrap, "topic.prefix": prefix, **more}
    variables = {f"TILL_{key.upper().replace('.', '_')}": value for key, value in chosen.items()}
    return load(environ=variables).settings


@contextlib.asynccontextmanager
async def api(
    home: Path, database: str | None, *, bootstrap: str = NOWHERE, prefix: str = "till", fresh: bool = True, **more: str
) -> AsyncIterator[Client]:
    """
    The API over a migrated database, on a socket; without a database it has none, as before PostgreSQL answers.

    Unless it is `fresh`, what the database holds stays.
    """
    settings = settings_of(
        home, database or "postgresql://127.0.0.1:1/none", bootstrap=bootstrap, prefix=prefix, **more
    )
    async with Producer(bootstrap, deadline_s=10) as producer:
        world = api_world(settings, producer, meter=PrometheusMeter(), health=Health())
        if database is not None:
            await (migrated(database) if fresh else migrate(database))
            world.opened = await open_pool(database, size=8, application="till-api-test", durable=False)
        try:
            async with (
                serving(application(world), host="127.0.0.1", port=0, run=home / "run") as (served, _),
                aiohttp.ClientSession() as session,
            ):
                try:
                    yield Client(session, served.url, world)
                finally:
                    await world.stop()
        finally:
            if world.opened is not None:
                await close_pool(world.opened)


async def until(ask: Any, *, within_s: float = 60.0) -> Any:
    """What `ask` gives once that is true; asked again and again."""
    async with asyncio.timeout(within_s):
        while True:
            if found := await ask():
                return found
            await asyncio.sleep(0.05)


async def address(home: Path) -> str | None:
    """Where the API process of this home serves; None until its database answers it."""
    try:
        url = str(json.loads((home / "run" / "api.json").read_text())["url"])
        async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/connectors") as answer:
            return url if answer.status == 200 else None
    except (OSError, ValueError, aiohttp.ClientError):
        return None
