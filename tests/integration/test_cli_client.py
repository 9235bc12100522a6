"""The commands' client of the API: against the real one, through a wire that loses answers, and against strangers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from schemas.errors import NotFound
from tests.cli_kit import losing
from tests.integration import api_kit
from tillstream.cli.address import Address
from tillstream.cli.client import Client
from tillstream.cli.exit import ExitStatus, status_of
from tillstream.cli.path import connector_path, part
from tillstream.cli.problem import ApiForeign, ApiProblem, ApiUnavailable

FOLDER = {"kind": "directory", "configuration": {"directory": "/in"}}


@contextlib.asynccontextmanager
async def client_of(url: str, **options: float) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(lambda: Address(url, "the test"), session, **options)


async def test_connectors_are_made_changed_and_listed_page_by_page(api: api_kit.Client) -> None:
    async with client_of(api.url) as client:
        for number in range(5):
            await client.post("/connectors", {"name": f"c{number}", **FOLDER})
        first = await client.ask("GET", "/connectors/c0")
        await client.patch("/connectors/c0", {"configuration": {"poll_s": 9}}, etag=first.etag)

        with pytest.raises(ApiProblem) as moved:
            await client.patch("/connectors/c0", {"configuration": {"poll_s": 8}}, etag=first.etag)
        names = [row["name"] async for row in client.pages("/connectors", limit=3)]
        everyone = await client.rows("/connectors")
        none = await client.rows("/connectors", {"status": "PAUSED"}, limit=3)

    assert (moved.value.code, status_of(moved.value)) == ("precondition_failed", ExitStatus.CONFLICT)
    assert names == ["c0", "c1", "c2"]
    assert [each["name"] for each in everyone] == [f"c{number}" for number in range(5)]
    assert none == []


@pytest.mark.parametrize(
    ("ask", "status", "code"),
    [
        (lambda client: client.get("/connectors/nobody"), ExitStatus.NOT_FOUND, "not_found"),
        (lambda client: client.get("/connectors", {"limit": 0}), ExitStatus.USAGE, "invalid"),
        (lambda client: client.post("/connectors", {"name": "x", "kind": "directory"}), ExitStatus.CONFIG, "config"),
        (lambda client: client.put("/connectors/taken", FOLDER, etag='"9"'), ExitStatus.USAGE, "invalid"),
        (lambda client: client.post("/connectors", {"name": "taken", **FOLDER}), ExitStatus.CONFLICT, "conflict"),
    ],
)
async def test_a_refusal_keeps_its_code_its_hint_and_its_exit_status(
    api: api_kit.Client, ask: Callable[[Client], Awaitable[object]], status: ExitStatus, code: str
) -> None:
    async with client_of(api.url) as client:
        await client.post("/connectors", {"name": "taken", **FOLDER})

        with pytest.raises(ApiProblem) as refused:
            await ask(client)

    assert (refused.value.code, status_of(refused.value)) == (code, status)
    assert refused.value.hint


async def test_every_key_that_is_wrong_is_told(api: api_kit.Client) -> None:
    async with client_of(api.url) as client:
        with pytest.raises(ApiProblem) as refused:
            await client.post("/connectors", {"name": "x", "kind": "directory", "configuration": {"poll_s": "often"}})

    assert "poll_s: " in str(refused.value)
    assert "directory" in str(refused.value)


async def test_a_route_that_the_api_has_not_is_another_version(api: api_kit.Client) -> None:
    async with client_of(api.url) as client:
        with pytest.raises(ApiForeign, match="has no GET /api/v1/tomorrow: it is of another version"):
            await client.get("/tomorrow")


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a b?c#d%2f", "über:ω", "(x)\\y"])
async def test_a_connector_is_found_by_any_name(api: api_kit.Client, name: str) -> None:
    async with client_of(api.url) as client:
        made = await client.post("/connectors", {"name": name, **FOLDER})

        assert (await client.get(connector_path(name)))["id"] == made["id"]
        with pytest.raises(ApiProblem) as missing:
            await client.get(connector_path(f"{name}/no"))
        assert missing.value.code == "not_found"
        with pytest.raises(NotFound):
            connector_path("")


async def test_a_post_whose_answer_is_lost_is_sent_again_and_makes_one(api: api_kit.Client) -> None:
    losses = iter([True, True])

    def cut(chunk: bytes) -> bool:
        return chunk.startswith(b"POST") and next(losses, False)

    async with losing(api.url, cut) as url, client_of(url) as client:
        made = await client.post("/connectors", {"name": "once", **FOLDER})

    async with api.world.pool.acquire() as held:
        assert [row["id"] for row in await held.fetch("SELECT id FROM connectors")] == [UUID(made["id"])]
    assert next(losses, None) is None, "both were lost"


async def test_a_change_whose_answer_is_lost_is_not_sent_again(api: api_kit.Client) -> None:
    """It may have been made, and then the ETag is another's."""
    async with client_of(api.url) as client:
        await client.post("/connectors", {"name": "x", **FOLDER})
        etag = (await client.ask("GET", "/connectors/x")).etag
    sent: list[bytes] = []

    def cut(chunk: bytes) -> bool:
        sent.append(chunk)
        return True

    async with losing(api.url, cut) as url, client_of(url) as client:
        with pytest.raises(ApiUnavailable, match="the connection was lost"):
            await client.patch("/connectors/x", {"configuration": {"poll_s": 8}}, etag=etag)

    assert len([each for each in sent if each.startswith(b"PATCH")]) == 1


async def test_nobody_is_waited_for_where_nobody_ever_answered() -> None:
    async with client_of("http://127.0.0.1:1", patience_s=1_000) as client:
        with pytest.raises(ApiUnavailable, match="no API answers at http") as silent:
            await client.get("/connectors")

    assert status_of(silent.value) is ExitStatus.UNREACHABLE
    assert silent.value.hint


async def test_without_its_database_the_api_is_asked_again_for_a_while(tmp_path: Path) -> None:
    async with api_kit.api(tmp_path, None) as api, client_of(api.url, patience_s=3) as client:
        with pytest.raises(ApiProblem) as refused:
            await client.get("/connectors")

    assert refused.value.retryable
    assert status_of(refused.value) is ExitStatus.UNREACHABLE


# --- strangers ---


@contextlib.asynccontextmanager
async def stranger(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


HTML = "text/html"
JSON = "application/json"


@pytest.mark.parametrize(
    ("status", "media", "body", "told"),
    [
        (200, HTML, "<html>hello</html>", "it answers 200 with text/html and no JSON"),
        (200, JSON, '{"data": [', "it answers 200 with JSON that is broken or cut"),
        (200, JSON, "[" * 100_000, "it answers 200 with JSON that is broken or cut"),
        (200, JSON, '{"data": 1}', "its list is none"),
        (200, JSON, "[1]", "its list is none"),
        (302, HTML, "", "it answers 302 with no JSON"),
        (404, JSON, '{"detail": "Not Found"}', "it answers 404 without a problem"),
        (404, JSON, '{"detail": "x", "code": "a\\u001b[2Jb"}', "it answers 404 without a problem"),
        (500, HTML, "oops", "it answers 500 with text/html and no JSON"),
        (502, HTML, "bad gateway", "it answers 502 with text/html and no JSON"),
    ],
)
async def test_what_is_not_our_api_is_told_as_that(status: int, media: str, body: str, told: str) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type=media, headers={"Location": "/elsewhere"})

    async with stranger(answer) as url, client_of(url) as client:
        with pytest.raises(ApiForeign) as foreign:
            await client.rows("/connectors")

    assert told in str(foreign.value)
    assert url in str(foreign.value)
    assert status_of(foreign.value) is ExitStatus.FAILED


async def test_what_speaks_no_http_is_told_as_that() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, client_of(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(ApiForeign, match="no HTTP that can be read"):
            await client.get("/connectors")


async def test_an_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tillstream.cli.client.MAX_BYTES", 2**20)

    async def answer(request: web.Request) -> web.StreamResponse:
        told = web.StreamResponse(headers={"Content-Type": JSON})
        await told.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await told.write(b" " * 65_536)
        return told

    async with stranger(answer) as url, client_of(url) as client:
        with pytest.raises(ApiForeign, match="more than 1 MiB"):
            await client.get("/connectors")


async def test_one_that_is_busy_is_asked_again_with_the_same_key() -> None:
    keys: list[str] = []
    problem = {"detail": "not now", "code": "sink_unavailable", "retryable": True}

    async def answer(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) < 3:
            code = problem | ({"code": "idempotency_in_progress"} if len(keys) == 2 else {})
            return web.json_response(code, status=503 if len(keys) == 1 else 409, headers={"Retry-After": "0.01"})
        return web.json_response({"ok": True}, status=202)

    async with stranger(answer) as url, client_of(url) as client:
        assert await client.post("/connectors/x/run") == {"ok": True}

    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_events_go_on_where_the_connection_was_lost() -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Last-Event-ID"))
        told = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await told.prepare(request)
        if len(seen) == 1:
            whole = 'retry: 1\nid: 5-0\n\nid: 6-1\nevent: run.ended\ndata: {"a": "é"}\n\n'.encode()
            for at in range(len(whole)):  # in single bytes, and then half an event
                await told.write(whole[at : at + 1])
            await told.write(b"id: 7-1\nevent: run.ended\ndata: {")
        else:
            await told.write(b': heartbeat\n\nid: 7-1\r\nevent: run.ended\r\ndata: {"a":\r\ndata: 2}\r\n\r\n')
            await request.content.read()
        return told

    found = []
    async with stranger(answer) as url, client_of(url) as client, contextlib.aclosing(client.events()) as events:
        async for event in events:
            found.append((event.id, event.kind, event.data, event.alive))
            if len(found) == 3:
                break

    assert found == [
        ("5-0", "", {}, True),
        ("6-1", "run.ended", {"a": "é"}, False),
        ("7-1", "run.ended", {"a": 2}, False),
    ]
    assert seen == [None, "6-1"]


async def test_an_event_that_is_none_is_told(api: api_kit.Client) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text="data: [1]\n\n", content_type="text/event-stream")

    async with stranger(answer) as url, client_of(url) as client:
        with pytest.raises(ApiForeign, match="no JSON object"):
            await anext(aiter(client.events()))


def test_a_part_of_a_path_leads_nowhere_else() -> None:
    assert [part(each) for each in ("..", ".", "a/b", "a?b#c", "é\udc80")] == [
        "%2E%2E", "%2E", "a%2Fb", "a%3Fb%23c", "%C3%A9%3F",
    ]  # fmt: skip
