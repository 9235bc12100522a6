"""The workers as others see them: asked over their little web servers, found through `run/*.json` of the home."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_ANSWER_S = 3.0


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker: whether it answers, whether it is ready, and if not why."""

    role: str
    url: str
    answers: bool
    ready: bool
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def problem(self) -> str:
        """Why it does not do its work, in one line; empty if it does."""
        if not self.answers:
            return f"worker {self.role} does not answer"
        return (
            ""
            if self.ready
            else f"worker {self.role}: " + "; ".join(f"{key}: {why}" for key, why in self.reasons.items())
        )


async def look(run: Path) -> list[WorkerView]:
    """Every worker that announced itself in `run`, by role. Never raises for one that is gone."""
    found = await asyncio.to_thread(_announced, run)
    return await look_at(found)


async def look_at(workers: Sequence[tuple[str, str]]) -> list[WorkerView]:
    """The workers of these (role, base address)."""
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        return list(await asyncio.gather(*(_ask(client, role, url) for role, url in workers)))


async def scrape(url: str) -> str:
    """A worker's metrics as text; empty if it does not answer."""
    try:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout) as client, client.get(f"{url}/metrics") as answer:
            return await answer.text() if answer.ok else ""
    except (aiohttp.ClientError, TimeoutError, OSError):
        return ""


def samples_of(text: str, name: str, **labels: str) -> list[float]:
    """The values of a metric's series with these labels, out of a worker's metrics."""
    return [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


async def _ask(client: aiohttp.ClientSession, role: str, url: str) -> WorkerView:
    try:
        async with client.get(f"{url}/readyz") as answer:
            body = await answer.json()
        reasons = {str(key): str(why) for key, why in body["reasons"].items()}
        return WorkerView(role, url, answers=True, ready=bool(body["ready"]), reasons=reasons)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return WorkerView(role, url, answers=False, ready=False)


def _announced(run: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str, int]] = []
    for file in sorted(run.glob("*.json")):
        try:
            body = json.loads(file.read_text(encoding="utf-8"))
            found.append((str(body["role"]), str(body["url"]), int(body["pid"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not a worker's, or just being replaced
    return [(role, url) for role, url, pid in found if pid != os.getpid()]
