"""What tests of the HTTP source run on: servers that say each byte a test wants, and a source that asks them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from connectors.context import SourceContext
from connectors.http_api import HttpApiConfig, HttpApiSource
from connectors.secret import GivenSecrets, Secrets
from connectors.source import Batch, Cursor, Task
from connectors.testing import CONNECTOR, ManualClock

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Answerer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]

RESOURCE: Mapping[str, Any] = {
    "name": "payments",
    "path": "/list",
    "query": {"from": "{from}", "to": "{to}"},
    "records": "$.data",
    "time": "$.created_at",
    "time_format": "unix_s",
}
CONFIG: Mapping[str, Any] = {
    "allow_networks": ["127.0.0.0/8"],
    "date_format": "unix_s",
    "type": "payin",
    "columns": {"reference": "id", "asset": "currency"},
    "status_map": {"captured": "succeeded", "created": "pending", "authorized": "authorised"},
    "answer_s": 0.5,
    "connect_s": 2.0,
    "request_s": 3.0,
}


class SteadyClock(ManualClock):
    """The wall stands where a test puts it; sleeps really end."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(min(seconds, 0.01))


@asynccontextmanager
async def raw_server(answer: Answerer | bytes) -> AsyncIterator[str]:
    """A server that reads each request's head, and then does what the test says, or says what the test says."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(head, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answered(body: bytes | str, *headers: str, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """A whole and honest HTTP answer."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + data


@asynccontextmanager
async def source_of(
    url: str,
    resource: Mapping[str, Any] | None = None,
    *,
    clock: ManualClock | None = None,
    secrets: Mapping[str, str] | Secrets | None = None,
    production: bool = False,
    **options: Any,
) -> AsyncIterator[HttpApiSource]:
    """The source under test, asking `url`."""
    config = {**CONFIG, "api_base_url": url, "resources": [{**RESOURCE, **(resource or {})}], **options}
    context = SourceContext(
        CONNECTOR.id,
        CONNECTOR.name,
        clock or SteadyClock(NOW),
        secrets=GivenSecrets(secrets) if secrets is None or isinstance(secrets, Mapping) else secrets,
        production=production,
    )
    source = HttpApiSource(HttpApiConfig.model_validate(config), context)
    try:
        yield source
    finally:
        await source.close()


async def tasks_of(source: HttpApiSource, known: Mapping[str, Cursor] | None = None) -> list[Task]:
    """What it has to do."""
    return [item async for page in source.tasks(known or {}) for item in page if isinstance(item, Task)]


async def batches_of(source: HttpApiSource, since: Cursor | None = None) -> list[Batch]:
    """All that its first task reads."""
    (task, *_) = await tasks_of(source)
    return [batch async for batch in source.read(task, since)]


def references(batches: list[Batch]) -> list[str]:
    """Whose records they are, in order."""
    return [record.payment.reference for batch in batches for record in batch.records]
