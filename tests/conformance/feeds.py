"""
How a sample's input reaches a source of each kind: through the real source, on a real server where it needs one.

A source that comes new adds one function here, and samples of its own below `samples/<kind>/`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from connectors.changes.config import PostgresChangesConfig
from connectors.http_api import HttpApiConfig
from connectors.testing import START
from tests.integration.changes_kit import source_database
from tests.services import own_postgres
from tests.sftp_server import PASSWORD, sftp_server

# the sample's configuration
Configuration = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fed:
    """
    A source that holds the input. `overrides` say where it is; everything else is the sample's own configuration.

    `secrets` are what its references stand for, `moment` is what the clock says.
    """

    overrides: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict)
    moment: datetime = START


# the input's path, the sample's configuration, an empty folder
Feed = Callable[[Path, Configuration, Path], AbstractAsyncContextManager[Fed]]


@asynccontextmanager
async def directory(given: Path, configuration: Configuration, folder: Path) -> AsyncIterator[Fed]:
    """A watched folder with the file in it."""
    shutil.copy(given, folder / given.name)
    yield Fed({"directory": str(folder), "pattern": "*", "rest_s": 0})


@asynccontextmanager
async def http_api(given: Path, configuration: Configuration, folder: Path) -> AsyncIterator[Fed]:
    """An API that answers with the file of each resource once, and with nothing more after it."""
    resources = HttpApiConfig.model_validate(configuration).resources
    places = {each.path.partition("{")[0].strip("/"): each.name for each in resources}
    answers = {place: (given / f"{name}.json").read_text(encoding="utf-8") for place, name in places.items()}

    async def answer(asked: web.Request) -> web.Response:
        place = next((place for place in answers if place in asked.path), "")
        return web.Response(text=answers.pop(place, "[]"), content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    references = re.findall(r"\$\{[^}]*\}", json.dumps(configuration))
    async with TestServer(app) as server:
        # one task after the other, so that the records have one order
        overrides = {"api_base_url": str(server.make_url("/")), "allow_networks": ["127.0.0.0/8"], "parallel": 1}
        yield Fed(overrides, dict.fromkeys(references, "canary-secret"))


@asynccontextmanager
async def sftp(given: Path, configuration: Configuration, folder: Path) -> AsyncIterator[Fed]:
    """A server with the files in the folder that the connector reads."""
    shutil.copytree(given, folder / str(configuration["remote_path"]).strip("/"))
    async with sftp_server(folder) as server:
        elsewhere = {name: value for name, value in server.config.items() if name not in {"password", "remote_path"}}
        yield Fed({**elsewhere, "parallel": 1}, {configuration["password"]: PASSWORD})


@asynccontextmanager
async def postgres_changes(given: Path, configuration: Configuration, folder: Path) -> AsyncIterator[Fed]:
    """A database that the file fills, with a publication and a slot after it: what is there is read by the copy."""
    tables = PostgresChangesConfig.model_validate(configuration).table_names
    async with own_postgres() as server, source_database(server.dsn) as source:
        await source.execute(given.read_text(encoding="utf-8"))
        for table in tables:
            await source.execute(f"GRANT USAGE ON SCHEMA {table.schema} TO {source.reader}")
            await source.execute(f"GRANT SELECT ON {table.sql} TO {source.reader}")
        await source.publish(*(table.sql for table in tables))
        here = source.config(*map(str, tables), mode=configuration.get("mode", "logical"))
        yield Fed(here, {configuration["password"]: source.reader_password, **source.secrets})


FEEDS: Mapping[str, Feed] = {
    "directory": directory,
    "http_api": http_api,
    "postgres_changes": postgres_changes,
    "sftp": sftp,
}
