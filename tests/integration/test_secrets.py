"""
A canary secret, a server that repeats whatever it is told, and a source that takes no care: the canary shows nowhere.

The source's own care is the conformance suite's to test. Here it has none, so that what is left is ours.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from connectors.context import SourceContext
from connectors.log import extra
from connectors.record import PaymentFacts
from connectors.runner import Runner
from connectors.secret import SecretReference
from connectors.source import Batch, CheckStep, Cursor, Rejection, Skipped, SourceRecord, Task
from connectors.spec import ConnectorConfig, SourceSpec
from connectors.testing import CONNECTOR, Memory, eventually, running
from schemas.errors import SourceUnavailable
from schemas.payment import PaymentType, Status
from tests.integration.http_kit import SteadyClock
from tillstream import logs
from tillstream.health import Health
from tillstream.http import application
from tillstream.metrics import PrometheusMeter
from tillstream.redaction import Redactor, process_redactor
from tillstream.secret import WorkerSecrets

CANARY = 'c4n/ry+"4711"\\ü'
BASIC = base64.b64encode(f"user:{CANARY}".encode()).decode()
SPELLINGS = (CANARY, quote(CANARY, safe=""), BASIC, json.dumps(CANARY)[1:-1], repr(CANARY)[1:-1], "4711")
logger = logging.getLogger(__name__)


async def repeat(request: web.Request) -> web.Response:
    """Whatever was said, in every way that servers say it."""
    told = {"url": str(request.rel_url), "query": dict(request.query), "headers": dict(request.headers)}
    return web.json_response({**told, "again": json.dumps(told), "text": repr(told)}, status=500, reason="no: " + BASIC)


@asynccontextmanager
async def parrot() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", repeat)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


class CarelessConfig(ConnectorConfig):
    url: str
    password: SecretReference


class CarelessSource:
    """Says all it hears, and what it knows, in errors, logs, problems and messages."""

    def __init__(self, config: CarelessConfig, context: SourceContext) -> None:
        self._url = config.url
        self._password = context.secrets.resolve(config.password)

    async def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:
        yield [Skipped("locked", "unreadable", f"cannot open {self._url}?password={self._password}")]
        yield [Task(name, name, name) for name in ("repeated", "bug", "thread", "rejected")]

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        if task.key == "bug":
            raise KeyError(self._password)
        if task.key == "thread":
            thread = threading.Thread(target=self._fail)
            thread.start()
            await asyncio.to_thread(thread.join)
        heard = await self._ask()
        logger.info("heard %s", heard, extra=extra(heard=heard, password=self._password))
        if task.key == "repeated":
            raise SourceUnavailable(heard, hint=f"is {self._password!r} right? {BASIC}")
        facts = PaymentFacts("p-1", None, PaymentType.PAYIN, Status.SUCCEEDED, 1, "EUR", "", None, None)
        rejection = Rejection("2", "bad", f"{heard} for {self._password}", b"the row itself")
        yield Batch([SourceRecord("1", facts)], [rejection], {"at": 2})

    async def check(self) -> Sequence[CheckStep]:
        return [CheckStep("ask", ok=False, duration_s=0.0, detail=await self._ask(), hint=self._password)]

    async def close(self) -> None:
        logger.warning("closing %r", self._password, extra=extra())

    def _fail(self) -> None:
        raise ValueError(self._password)

    async def _ask(self) -> str:
        headers = {"Authorization": f"Basic {BASIC}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            try:
                async with session.get(self._url, params={"key": self._password}, raise_for_status=False) as answer:
                    heard = await answer.text()
                    answer.raise_for_status()
            except aiohttp.ClientResponseError as exc:
                logger.exception("asked in vain", extra=extra(error=exc, request=exc.request_info))
        return heard


SPEC = SourceSpec("careless", "Takes no care.", CarelessConfig, CarelessSource, "nothing")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that this process logs, at every level, in both formats."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    handlers, level, written = list(root.handlers), root.level, io.StringIO()
    redactor = process_redactor()
    logs.configure(level="debug", format_="logfmt", redactor=redactor, stream=written)
    second = logging.StreamHandler(written)
    second.setFormatter(logs.JsonFormatter(redactor))
    root.addHandler(second)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)


@pytest.fixture(autouse=True)
def _register(monkeypatch: pytest.MonkeyPatch) -> None:
    """A register of this test's own: the process's would remember the canary."""
    process_redactor.cache_clear()
    yield_to = Redactor()
    for module in ("tillstream.redaction", "tillstream.http", "tests.integration.test_secrets"):
        monkeypatch.setattr(f"{module}.process_redactor", lambda: yield_to)


async def test_a_secret_that_a_server_repeats_to_a_careless_source_shows_nowhere(log: io.StringIO) -> None:
    redactor, memory, meter = process_redactor(), Memory(), PrometheusMeter()
    secrets = WorkerSecrets(
        names=["CANARY"],
        folder=None,
        register=redactor.register,
        learn=redactor.learn,
        environ={"CANARY": CANARY},
    )
    async with parrot() as url:
        config = CarelessConfig(url=url, password="${env:CANARY}", max_retries=1, error_backoff_s=0.001, stop_s=1)
        ports = replace(memory.ports(SteadyClock()), secrets=secrets, redact=redactor.redact, meter=meter)
        runner = Runner(CONNECTOR, SPEC, config, ports, epoch=1)
        async with running(runner) as task:
            await eventually(lambda: runner.status.listed_at and not runner.status.active and memory.log)
            status, tasks = runner.status, runner.tasks()
            runner.stop()
            await asyncio.wait_for(task, 30)

    letters = [letter.model_copy(update={"value": None}) for letter in memory.letters]
    shown = {
        "log": log.getvalue(),
        "status": repr(status),
        "tasks": repr(tasks),
        "runs": repr(memory.runs),
        "letters": repr(letters),
        "topic": repr(memory.log),
        "checkpoints": repr(memory.state),
        "metrics": meter.exposition().decode(),
    }
    leaks = {place for place, text in shown.items() for spelling in SPELLINGS if spelling in text}
    assert not leaks
    assert shown["log"].count("***") > 20
    assert "asked in vain" in shown["log"]
    assert "Traceback" in shown["log"]
    assert all("***" in shown[place] for place in ("status", "tasks", "runs", "letters"))


async def test_what_a_worker_says_over_http_is_redacted_too() -> None:
    process_redactor().register([CANARY])
    health, meter = Health(), PrometheusMeter()
    health.wait("sources", f"401 for {CANARY}")
    async with TestServer(application(meter, health)) as server, aiohttp.ClientSession() as session:
        ready = await (await session.get(server.make_url("/readyz"))).text()
        measured = await (await session.get(server.make_url("/metrics"))).text()

    assert "401 for ***" in ready
    assert CANARY not in ready + measured


async def test_a_check_on_the_command_line_shows_no_secret(tmp_path: Path) -> None:
    described = {
        "name": "parrot",
        "kind": "http_api",
        "configuration": {
            "api_base_url": "",
            "authentication_type": "api_key",
            "api_key": "${env:TILL_SECRET_CANARY}",
            "api_key_name": "key",
            "api_key_place": "query",
            "allow_networks": ["127.0.0.0/8"],
            "resources": [{"name": "payments", "path": "/payments", "time": "$.at", "query": {"from": "{from}"}}],
        },
    }
    environment = {**os.environ, "TILL_SECRET_CANARY": CANARY, "TILL_HOME": str(tmp_path / "home")}
    async with parrot() as url:
        described["configuration"]["api_base_url"] = url  # type: ignore[index]
        file = tmp_path / "connector.yaml"
        file.write_text(json.dumps(described))
        command = [sys.executable, "-m", "tillstream", "-v", "source", "check", "-f", str(file)]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "500" in said
    assert not [spelling for spelling in SPELLINGS if spelling in said]
