"""
The seeds' own examples, as their texts have them: what was sent with curl, and what was answered.

`seeds/*.md` are cut from the seeds word for word. A command is sent as it stands there, but to our address.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEEDS = Path(__file__).parent / "seeds"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"http://localhost:\d+")
_CURL_S = 60


@dataclass(frozen=True, slots=True)
class Example:
    """One command, and the JSON that the seed prints as its answer; None: it prints none."""

    command: str
    answer: Any

    def called(self, url: str, **instead: str) -> list[str]:
        """The command's words, to `url`. `instead` replaces texts, such as a port that is taken."""
        text = _ADDRESS.sub(url, self.command)
        for old, new in instead.items():
            text = text.replace(old, new)
        return shlex.split(text)


def examples(seed: str) -> list[Example]:
    """Every command of the seed's excerpt in its order, with the answer that follows it, if one does."""
    text = "\n".join(line.removeprefix("   ") for line in (SEEDS / f"{seed}.md").read_text("utf-8").splitlines())
    found: list[Example] = []
    for language, block in _BLOCK.findall(text):
        if language == "bash":
            commands, answer = _split(block)
            found += [Example(command, None) for command in commands]
            if answer is not None and not commands:  # the seed asks once more without saying so
                found.append(Example(found[-1].command, answer))
            elif answer is not None:
                found[-1] = Example(commands[-1], answer)
        elif language == "json" and found and found[-1].answer is None:
            found[-1] = Example(found[-1].command, json.loads(block))
    return found


def blocks(seed: str) -> list[Any]:
    """Every JSON block of the seed's excerpt, in its order."""
    text = (SEEDS / f"{seed}.md").read_text("utf-8")
    return [json.loads(block) for language, block in _BLOCK.findall(text) if language == "json"]


def _split(block: str) -> tuple[list[str], Any]:
    lines = [line for line in block.splitlines() if not line.lstrip().startswith("#")]
    begin = next((index for index, line in enumerate(lines) if line[:1] in "[{" and line), len(lines))
    said = "\n".join(lines[:begin]).replace("\\\n", " ")
    parts = re.split(r"^\s*curl ", said, flags=re.MULTILINE)[1:]
    shown = "\n".join(lines[begin:])
    return [f"curl {part.strip().removesuffix('| jq')}" for part in parts], json.loads(shown) if shown else None


async def sent(words: list[str]) -> tuple[int, Any]:
    """What curl gets: the status, and the body as JSON."""
    process = await asyncio.create_subprocess_exec(
        *words, "--silent", "--show-error", "--write-out", "\n%{http_code}", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(_CURL_S):
        out, _ = await process.communicate()
    body, _, status = out.decode().rpartition("\n")
    assert process.returncode == 0, body
    return int(status), json.loads(body) if body else None


def shape(value: Any) -> Any:
    """Keys in their order, and types, of any JSON value."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


def only(value: Any, like: Any) -> Any:
    """What `like` has keys for, in whatever depth: what is answered beside a seed's keys is left out."""
    if isinstance(value, dict) and isinstance(like, dict):
        return {key: only(each, like[key]) for key, each in value.items() if key in like}
    if isinstance(value, list) and isinstance(like, list) and like:
        return [only(each, like[min(index, len(like) - 1)]) for index, each in enumerate(value)]
    return value
