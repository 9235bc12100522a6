"""
The control plane on a stage: one API that lives, others that die at a failpoint, and a client that asks again.

A client that lost its answer sends the same request under the same key to whichever API there is, as one does to a
process that was started anew: an API keeps nothing of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.faults.stage import CONNECTORS_SOON, Stage, Worker, until

NEVER = {"cron": "0 0 1 1 *", "enabled": False}  # runs what is asked for, and nothing by itself
AT_WORK = "idempotency_in_progress"
_AT_A_TIME = 3  # victims


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a client; `key` makes it one that may be sent again."""

    method: str
    path: str
    body: object = None
    key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass(slots=True)
class House:
    """A stage with an API. `folder` holds what connectors read, and `secrets` what is given by value."""

    stage: Stage
    folder: Path
    session: aiohttp.ClientSession
    url: str = ""
    victims: int = 0
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_A_TIME))

    @property
    def secrets(self) -> Path:
        """The workers' folder of secrets."""
        return self.stage.home / "secrets"

    async def ask(self, asked: Asked, *, url: str = "") -> Answer:
        """Send it once."""
        headers = {**asked.headers, **({"Idempotency-Key": asked.key} if asked.key else {})}
        given = {} if asked.body is None else {"json": asked.body}
        sent = self.session.request(
            asked.method, f"{url or self.url}/api/v1{asked.path}", headers=headers, allow_redirects=False, **given
        )
        async with sent as answer:
            text = await answer.text()
            return Answer(answer.status, json.loads(text) if text else None, answer.headers.copy())

    async def get(self, path: str) -> Any:
        """What is there."""
        answer = await self.ask(Asked("GET", path))
        assert answer.status == 200, answer
        return answer.body

    async def again(self, asked: Asked) -> Answer:
        """Send it until nobody is at work on it any more: a database takes a moment to see that its client has died."""
        found: list[Answer] = []

        async def settled() -> bool:
            found[:] = [await self.ask(asked)]
            return not (isinstance(found[0].body, dict) and found[0].body.get("code") == AT_WORK)

        await until(settled, what=f"{asked} is not at work any more")
        return found[0]

    async def api(self, name: str, *, failpoints: str = "") -> tuple[Worker, str]:
        """Start an API, and wait until its database answers it; its address."""
        home = self.folder / f".{name}"
        settings = {"home": str(home), "secrets_folder": str(self.secrets), "http_api_port": "0"}
        worker = self.stage.worker(name, role="api", failpoints=failpoints, **{**CONNECTORS_SOON, **settings})
        worker.home = home
        found: list[str] = []

        async def answers() -> bool:
            assert worker.alive, worker.log
            url = worker._url()
            if url is None:
                return False
            with contextlib.suppress(aiohttp.ClientError):
                if (await self.ask(Asked("GET", "/connectors"), url=url)).status == 200:
                    found[:] = [url]
            return bool(found)

        await until(answers, what=f"{name} answers")
        return worker, found[0]

    async def dies(self, point: str, asked: Asked, *, answers: bool = False) -> None:
        """Let an API be asked that dies at this failpoint. Nobody gets an answer, or it `answers` first."""
        async with self.places:
            self.victims += 1
            victim, url = await self.api(f"{point}-{self.victims}", failpoints=f"{point}=kill")
            with contextlib.suppress(aiohttp.ClientError) if answers else pytest.raises(aiohttp.ClientError):
                await self.ask(asked, url=url)
            assert await victim.ended() == -signal.SIGKILL, point

    async def connector(self, name: str, *, rows: int = 1, **options: object) -> str:
        """A connector of its own that reads a folder when it is asked to, with one file in it; its name."""
        folder = self.folder / name
        folder.mkdir()
        self.drop(name, "1", rows=rows)
        configuration = {"directory": str(folder), "rest_s": 0, "checkpoint_s": 0, **options}
        made = {"name": name, "kind": "directory", "configuration": configuration, "schedule": NEVER}
        answer = await self.ask(Asked("POST", "/connectors", made))
        assert answer.status == 201, answer
        return name

    def drop(self, name: str, file: str, *, rows: int, bad: int = 0, **more: object) -> dict[str, int]:
        """A file for it, the last `bad` lines of which are no payments; amounts by reference."""
        amounts = {f"{name}/{file}/{row}": 1_000 + row for row in range(rows)}
        lines = [
            json.dumps(
                {"type": "payin", "reference": key, "status": "succeeded", "asset": "USD", "amount": amount, **more}
            )
            for key, amount in amounts.items()
        ]
        lines += [f'{{"type": "payin", "reference": "bad{row}"' for row in range(bad)]
        written = self.folder / name / f".{file}.tmp"
        written.write_text("\n".join(lines))
        written.rename(self.folder / name / f"{file}.jsonl")
        return amounts

    async def run_of(self, run: str) -> Any:
        """One run."""
        return await self.get(f"/runs/{run}")

    async def runs_of(self, name: str) -> list[Any]:
        """Its runs, the newest first."""
        return list((await self.get(f"/runs?connector={name}"))["data"])

    async def ended(self, run: str, *, within_s: float = 60.0) -> Any:
        """The run, once it has ended."""
        found: list[Any] = []

        async def over() -> bool:
            found[:] = [await self.run_of(run)]
            return found[0]["completed_at"] is not None

        await until(over, within_s=within_s, what=lambda: f"the run ends: {found}")
        return found[0]

    async def happened(self, name: str, kind: str) -> int:
        """How often that happened to it, as the activity tells."""
        query = """
            SELECT count(*) FROM activity a JOIN connectors c ON c.id = a.connector_id WHERE c.name = $1 AND a.kind = $2
        """
        return int(await self.stage.pool.fetchval(query, name, kind))


@contextlib.asynccontextmanager
async def open_house(stage: Stage, folder: Path) -> AsyncIterator[House]:
    """The house, with its API."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        house = House(stage, folder, session)
        _, house.url = await house.api("api")
        yield house
