"""What holds for every route of the API: problems, limits, who may ask, and how its process starts and ends."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from schemas.errors import ConfigError
from tests.integration import api_kit
from tests.integration.api_kit import Client
from tillstream.api import body
from tillstream.api.server import bound_to
from tillstream.config import load


def problem(answer: api_kit.Answer, status: int, code: str) -> dict[str, Any]:
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = answer.body
    assert found["code"] == code, found
    assert found["status"] == status
    assert found["type"] == f"urn:tillstream:problem:{code}"
    assert found["instance"] == f"urn:request:{answer.headers['X-Request-ID']}"
    assert found["title"]
    assert found["detail"]
    return found


async def test_a_route_that_is_none_and_a_method_that_is_none_are_problems(api: Client) -> None:
    problem(await api.get("/nothing"), 404, "not_found")
    refused = await api.ask("BREW", "/api/v1/lag")
    problem(refused, 405, "method_not_allowed")
    assert refused.headers["Allow"] == "GET"


async def test_a_request_keeps_the_id_that_it_came_with_and_gets_one_otherwise(api: Client) -> None:
    given = await api.get("/nothing", headers={"X-Request-ID": "abc-1"})
    forged = await api.get("/nothing", headers={"X-Request-ID": "a b\tc"})

    assert given.headers["X-Request-ID"] == "abc-1"
    assert forged.headers["X-Request-ID"] not in ("", "a b\tc")


async def test_no_answer_waits_for_the_clients_delayed_acknowledgement() -> None:
    """asyncio turns Nagle's algorithm off only where a socket says that it is TCP: without that it is 40 ms each."""
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    with bound_to("127.0.0.1", 0) as listening:
        async with await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), sock=listening):
            _, client = await asyncio.open_connection(*listening.getsockname())
            served = await accepted.get()

            assert served.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

            for writer in (client, served):
                writer.close()
                await writer.wait_closed()


async def test_every_worker_route_is_there(api: Client) -> None:
    assert (await api.ask("GET", "/livez")).body == {"live": True}
    assert "tillstream_dependency_up" in (await api.ask("GET", "/metrics")).text
    assert (await api.ask("GET", "/readyz")).status == 200


async def test_a_body_over_a_mebibyte_is_refused_and_so_is_what_is_no_json(api: Client) -> None:
    path = "/connectors:validate"
    large = b'{"name":"' + b"x" * body.MAX_BYTES + b'"}'
    headers = {"Content-Type": "application/json"}

    async def chunks() -> Any:
        for at in range(0, len(large), 65_536):
            yield large[at : at + 65_536]

    problem(await api.post(path, data=io.BytesIO(large), headers=headers), 413, "too_large")
    problem(await api.post(path, data=chunks(), headers=headers), 413, "too_large")
    problem(await api.post(path, data=b"a=b", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"[1]", "must be a JSON object"),
        (b"{", "no JSON"),
        (b"\xff{}", "UTF-8"),
        (b'{"name": NaN}', "NaN"),
        (b'{"name": 1e999}', "too large"),
        (b'{"name": "a\\u0000b"}', "NUL"),
        (b'{"a\\ud800": 1}', "surrogate"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "64 levels"),
        (b'{"a":' + b"[" * 500_000, "64 levels"),
    ],
)
async def test_what_no_text_of_postgresql_can_hold_is_refused(api: Client, raw: bytes, why: str) -> None:
    answer = await api.post("/connectors:validate", data=raw, headers={"Content-Type": "application/json"})

    assert why in problem(answer, 422, "invalid")["detail"]


async def test_nul_in_an_address_is_refused(api: Client) -> None:
    problem(await api.get("/connectors/a%00b"), 422, "invalid")
    problem(await api.get("/connectors?q=a%00b"), 422, "invalid")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_page_from_elsewhere_cannot_use_the_api(api: Client, headers: dict[str, str]) -> None:
    problem(await api.get("/source-types", headers=headers), 403, "forbidden")


async def test_a_bug_is_told_by_its_requests_id_alone(api: Client, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise RuntimeError("hunter22 in a traceback")

    api.world.redact = lambda _: broken()

    answer = await api.ask("GET", "/readyz" if api.world.health.reasons() else "/metrics")

    found = problem(answer, 500, "internal")
    assert "hunter22" not in answer.text
    assert "RuntimeError" not in answer.text
    assert answer.headers["X-Request-ID"] in found["hint"]
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.facts["request"] == answer.headers["X-Request-ID"]  # type: ignore[attr-defined]


async def test_a_request_with_a_key_is_told_to_come_again_too(tmp_path: Path) -> None:
    """The key is asked for before any route is: what every POST of the command line does."""
    async with api_kit.api(tmp_path / "home", None) as client:
        client.world.health.wait("postgres", "PostgreSQL does not answer")
        answers = [
            await client.ask("POST", path, headers={"Idempotency-Key": "7b1f"})
            for path in ("/api/v1/connectors/1/run", "/connectors/1/run")
        ]

    for each in answers:
        assert (each.status, each.body["code"], each.body["retryable"]) == (503, "sink_unavailable", True)
        assert int(each.headers["Retry-After"]) >= 1


async def test_without_a_database_requests_are_told_to_come_again(tmp_path: Path) -> None:
    async with api_kit.api(tmp_path / "home", None) as client:
        client.world.health.wait("postgres", "PostgreSQL does not answer")

        lag = await client.get("/lag")

        assert problem(lag, 503, "broker_unavailable")["retryable"] is True
        assert int(lag.headers["Retry-After"]) >= 1
        assert (await client.get("/source-types")).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(ConfigError, match=r"http\.api_host|TILL_HTTP_API_HOST"):
        load(environ={"TILL_HTTP_API_HOST": host})


async def test_the_process_serves_before_its_servers_answer_and_ends_while_somebody_listens(tmp_path: Path) -> None:
    variables = {
        "TILL_HOME": str(tmp_path),
        "TILL_HTTP_API_PORT": "0",
        "TILL_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "TILL_POSTGRES_DSN": "postgresql://till:hunter22@127.0.0.1:1/till",
    }
    log = tmp_path / "api.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tillstream", "worker", "api"],
            env={**os.environ, **variables}, stdout=out, stderr=out, cwd=tmp_path,
        )  # fmt: skip
    try:
        told = tmp_path / "run" / "api.json"
        await api_kit.until(lambda: asyncio.to_thread(told.exists))
        url = json.loads(told.read_text())["url"]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/api/v1/source-types") as answer:
                assert answer.status == 200
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert not told.exists()
    assert "hunter22" not in log.read_text()
    assert "Traceback" not in log.read_text()
