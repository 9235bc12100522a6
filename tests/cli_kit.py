"""
The commands against a real API, for tests.

`with served(home, database) as url:` runs the API in a thread of its own, where `run/api.json` of the home tells of it;
`Till` runs commands within this process, because starting Python for each takes seconds on a busy machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import api_kit
from tillstream.cli import main

START_S = 60.0


@contextlib.contextmanager
def served(home: Path, database: str, **options: Any) -> Iterator[str]:
    """The API over a migrated database, as `api_kit.api` gives it; its address."""
    stopping: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    is_up, found = threading.Event(), {}

    async def serve() -> None:
        stop = asyncio.Event()
        stopping.append((asyncio.get_running_loop(), stop))
        async with api_kit.api(home, database, **options) as client:
            found["url"] = client.url
            is_up.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as exc:
            found["error"] = exc
        finally:
            is_up.set()

    thread = threading.Thread(target=run, name="api", daemon=True)
    thread.start()
    assert is_up.wait(START_S)
    try:
        if "url" not in found:
            raise AssertionError("the API did not start") from found.get("error")
        yield found["url"]
    finally:
        loop, stop = stopping[0]
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join(START_S)
        assert not thread.is_alive()
    if "error" in found:
        raise found["error"]


class Till:
    """The commands. `variables` are those of every one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, stdin: str | io.StringIO = "") -> subprocess.CompletedProcess[str]:
        self.monkeypatch.setattr(sys, "argv", ["till", *arguments])
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(stdin) if isinstance(stdin, str) else stdin)
        try:
            main()
            status = 0
        except SystemExit as exc:
            status = int(exc.code or 0)
        told = self.capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, told.out, told.err)

    def json(self, *arguments: str, stdin: str = "") -> Any:
        """What a command that must succeed prints."""
        done = self(*arguments, "-o", "json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextlib.contextmanager
def commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, **variables: str
) -> Iterator[Till]:
    """The commands, in a working directory and with variables of their own."""
    for name in os.environ:
        if name.startswith("TILL_") and not name.startswith("TILL_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TILL_CONTEXTS", str(folder / "contexts.toml"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Till(monkeypatch, capsys)
    root.handlers[:] = handlers
    root.setLevel(level)


Cut = Callable[[bytes], bool]
"""Whether the answer to a request that begins so is lost on the way."""


@contextlib.asynccontextmanager
async def losing(url: str, cut: Cut) -> AsyncIterator[str]:
    """The same API behind a wire that passes requests on, and may lose what is answered."""
    host, port = url.removeprefix("http://").split(":")
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection(host, int(port))
        lost = False

        async def forth() -> None:
            nonlocal lost
            while chunk := await reader.read(65_536):
                lost = lost or cut(chunk)
                to_there.write(chunk)

        async def back() -> None:
            while chunk := await there.read(65_536):
                if lost:  # it was answered, and nobody hears it
                    return
                writer.write(chunk)

        forth_task, back_task = asyncio.create_task(forth()), asyncio.create_task(back())
        try:
            await asyncio.wait({forth_task, back_task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (forth_task, back_task):
                task.cancel()
            await asyncio.wait({forth_task, back_task})
            to_there.close()
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()
