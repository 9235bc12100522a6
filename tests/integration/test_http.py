from __future__ import annotations

import json
import os
from pathlib import Path

import aiohttp
import pytest

from schemas import metric
from schemas.errors import ConfigError
from tillstream.embedded.lock import OwnerLock
from tillstream.health import Health
from tillstream.http import serve
from tillstream.metrics import PrometheusMeter


async def test_a_worker_serves_its_metrics_and_tells_why_it_is_not_ready(tmp_path: Path) -> None:
    meter, health = PrometheusMeter(), Health()
    meter.set(metric.RUNS_AWAITING_SINK, 5)
    health.wait("kafka", "no answer from 127.0.0.1:1")

    async with (
        serve("sink", host="127.0.0.1", port=0, run=tmp_path / "run", meter=meter, health=health) as endpoint,
        aiohttp.ClientSession(endpoint.url) as client,
    ):
        told = json.loads((tmp_path / "run" / "sink.json").read_text())
        assert (told["pid"], told["port"], told["url"]) == (os.getpid(), endpoint.port, endpoint.url)
        async with client.get("/livez") as answer:
            assert answer.status == 200
        async with client.get("/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["reasons"]["kafka"].startswith("no answer from 127.0.0.1:1")
        health.clear("kafka")
        async with client.get("/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"ready": True, "reasons": {}})
        async with client.get("/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert "tillstream_runs_awaiting_sink 5.0" in await answer.text()
        async with client.get("/stats") as answer:
            assert answer.status == 404

    assert list((tmp_path / "run").glob("*.json")) == []


async def test_a_port_that_is_taken_is_told_as_a_setting(tmp_path: Path) -> None:
    parts = {"meter": PrometheusMeter(), "health": Health(), "run": tmp_path}
    async with serve("sink", host="127.0.0.1", port=0, **parts) as first:
        with pytest.raises(ConfigError, match=f"http: cannot listen on 127.0.0.1:{first.port}") as caught:
            async with serve("sink", host="127.0.0.1", port=first.port, **parts):
                raise AssertionError
    assert "http.sink_port" in caught.value.hint


async def test_a_second_worker_of_a_role_does_not_hide_the_first(tmp_path: Path) -> None:
    first = OwnerLock(tmp_path / "sink.announced.lock")
    first.acquire(what="another sink")
    # What a killed worker left says nothing, even if its process id belongs to somebody else by now.
    (tmp_path / "monitor.json").write_text(json.dumps({"pid": os.getppid()}))
    parts = {"meter": PrometheusMeter(), "health": Health(), "run": tmp_path}

    async with (
        serve("sink", host="127.0.0.1", port=0, **parts) as sink,
        serve("monitor", host="127.0.0.1", port=0, **parts) as monitor,
    ):
        assert sink.file.name == f"sink-{os.getpid()}.json"
        assert monitor.file.name == "monitor.json"
    first.release()
