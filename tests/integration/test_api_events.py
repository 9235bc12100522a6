"""Server-sent events: nothing is missed, nothing is kept without end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from tests.integration import api_kit
from tests.integration.api_kit import Client
from tests.integration.test_api_connectors import made
from tests.integration.test_api_frame import problem


async def events(api: Client, *, after: str | None = None, query: str = "") -> AsyncIterator[dict[str, Any]]:
    """The events of a stream, until it ends; the first tells that it is there."""
    headers = {} if after is None else {"Last-Event-ID": after}
    async with api.session.get(f"{api.url}/api/v1/events{query}", headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        fields: dict[str, Any] = {}
        async for line in answer.content:
            text = line.decode().rstrip("\n")
            if text:
                name, _, value = text.partition(": ")  # a comment has no name
                fields[name] = value
                continue
            yield fields
            fields = {}


async def test_what_happens_is_told_and_who_comes_back_misses_nothing(api: Client, tmp_path: Path) -> None:
    async with asyncio.timeout(60):
        stream = events(api)
        first = await anext(stream)
        assert first["retry"]
        await made(api, "bank", tmp_path)
        told = await heard(stream, "connector.created")
        assert json.loads(told["data"])["connector"] == "bank"
        assert json.loads(told["data"])["id"] == told["id"]
        await stream.aclose()
        await api.post("/connectors/bank/pause", {"note": "n", "by": "ops"})
        await api.post("/connectors/bank/resume")

        again = events(api, after=told["id"])

        paused = await heard(again, "connector.paused")
        assert json.loads(paused["data"])["actor"] == "ops"
        await heard(again, "connector.resumed")
        await again.aclose()


async def test_a_stream_of_one_connector_tells_of_no_other(api: Client, tmp_path: Path) -> None:
    await made(api, "one", tmp_path)
    await made(api, "two", tmp_path)
    async with asyncio.timeout(60):
        stream = events(api, query="?connector=two")
        await anext(stream)

        await api.post("/connectors/one/run")
        await api.post("/connectors/two/run")

        opened = await heard(stream, "run.opened")
        assert json.loads(opened["data"])["connector"] == "two"
        await stream.aclose()
    problem(await api.get("/events?connector=none"), 404, "not_found")
    problem(await api.get("/events", headers={"Last-Event-ID": "x"}), 422, "invalid")


async def test_a_quiet_stream_has_a_heartbeat(api: Client) -> None:
    api.world.heartbeat_s = 0.2
    async with asyncio.timeout(60):
        stream = events(api)
        await anext(stream)

        beat = await anext(stream)

        assert beat[""] == "heartbeat"
        await stream.aclose()


async def test_a_listener_that_leaves_is_forgotten(api: Client) -> None:
    async with asyncio.timeout(60):
        stream = events(api)
        await anext(stream)
        assert len(api.world.streams) == 1

        await stream.aclose()

        await api_kit.until(lambda: is_empty(api))


async def test_a_listener_that_takes_nothing_is_let_go_of(api: Client, database: str) -> None:
    """It reads the head and then nothing, while more happens than the system's buffers hold."""
    api.world.patience_s = 0.5
    address = urlsplit(api.url)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.connect((address.hostname, address.port))
        raw.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await api_kit.until(lambda: listens(api))
        held = await asyncpg.connect(database)
        for _ in range(40):
            await held.execute(
                "INSERT INTO activity (kind, facts) SELECT 'run.read', jsonb_build_object('x', repeat('x', 4000))"
                " FROM generate_series(1, 200)"
            )

        await api_kit.until(lambda: is_empty(api))

        await held.close()


async def test_the_process_ends_while_somebody_listens(database: str, tmp_path: Path) -> None:
    async with asyncio.timeout(60):
        async with api_kit.api(tmp_path, database) as api:
            stream = events(api)
            await anext(stream)
            await api.world.stop()
            assert [each async for each in stream] == []


async def heard(stream: AsyncIterator[dict[str, Any]], kind: str) -> dict[str, Any]:
    async for each in stream:
        if each.get("event") == kind:
            return each
    raise AssertionError(f"the stream ended before {kind}")


async def is_empty(api: Client) -> bool:
    return not api.world.streams


async def listens(api: Client) -> bool:
    return bool(api.world.streams)
