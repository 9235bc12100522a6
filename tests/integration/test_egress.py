"""The guarded way out on real sockets: a canary listens on loopback, and must not be reached."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import aiohttp
import pytest
from aiohttp import web

from connectors import network
from connectors.egress import guarded_connector
from connectors.network import Guard
from schemas.errors import SourceError, SourceMisconfigured


class Canary:
    """Counts who reaches it."""

    def __init__(self) -> None:
        self.reached = 0
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        self.reached += 1
        if request.path == "/away":
            raise web.HTTPFound(request.query["to"])
        return web.Response(text="reached")


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    found = Canary()
    app = web.Application()
    app.router.add_get("/{any:.*}", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


@asynccontextmanager
async def session(*allowed: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=guarded_connector(Guard(allowed), timeout_s=5)) as opened:
        yield opened


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "localhost.", "[::ffff:127.0.0.1]", "[::1]", "[::]"),
        *("2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "0", "0.0.0.0"),
        "ok.example@127.0.0.1",
    ],
)
async def test_no_spelling_of_loopback_reaches_it(canary: Canary, host: str) -> None:
    async with session() as opened:
        with pytest.raises((SourceError, aiohttp.ClientError)):
            await opened.get(f"http://{host}:{canary.port}/")

    assert canary.reached == 0


async def test_an_allowed_range_is_reached_and_a_redirect_out_of_it_is_not(canary: Canary) -> None:
    async with session("127.0.0.1/32") as opened:
        assert await (await opened.get(f"http://127.0.0.1:{canary.port}/")).text() == "reached"
        with pytest.raises(SourceMisconfigured, match=r"leads to 127\.0\.0\.2"):
            await opened.get(f"http://127.0.0.1:{canary.port}/away", params={"to": f"http://127.0.0.2:{canary.port}/"})

    assert canary.reached == 2


async def test_a_redirect_by_name_is_checked_too(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "resolved", lambda host, port: [ip_address("169.254.169.254")])

    async with session("127.0.0.1/32") as opened:
        with pytest.raises(SourceMisconfigured, match=r"leads to 169\.254\.169\.254"):
            await opened.get(f"http://127.0.0.1:{canary.port}/away", params={"to": "http://metadata.example/latest"})


async def test_a_name_that_changes_its_mind_between_check_and_connection_is_connected_to_as_checked(
    canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The name server says the allowed address first and another one ever after: one request asks it once.
    """
    asked = []

    def resolved(host: str, port: int) -> list[network.Address]:
        asked.append(host)
        return [ip_address("127.0.0.1" if len(asked) == 1 else "127.0.0.3")]

    monkeypatch.setattr(network, "resolved", resolved)

    async with session("127.0.0.1/32") as opened:
        assert (await opened.get(f"http://rebinding.example:{canary.port}/")).status == 200

    assert (asked, canary.reached) == (["rebinding.example"], 1)


async def test_a_plain_connection_reaches_what_is_allowed_and_nothing_else(canary: Canary) -> None:
    (await Guard(["127.0.0.0/8"]).connect("127.0.0.1", canary.port, timeout_s=10)).close()

    for host in ("127.0.0.1", "localhost", "::ffff:127.0.0.1"):
        with pytest.raises(SourceMisconfigured):
            await Guard().connect(host, canary.port, timeout_s=10)
