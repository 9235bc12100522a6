"""Server-sent events, read as the HTML standard says (§9.2.6), from bytes that come in any pieces."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tillstream.cli.problem import ApiForeign

_MOST_CHARS = 4 * 2**20  # of one event: ours have a kilobyte


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `alive`: it has no data, and tells that the stream stands, and its position."""

    id: str
    kind: str = ""
    # a JSON object
    data: dict[str, Any] = field(default_factory=dict)
    alive: bool = False


async def parsed(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """
    The events of a stream, to its end; one that was cut is none.

    Raises:
        ApiForeign: what comes is no stream of events of this API.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest, block = "", _Block()
    async for chunk in chunks:
        rest += decoder.decode(chunk)
        *lines, rest = rest.replace("\r\n", "\n").split("\n")
        if len(rest) > _MOST_CHARS or block.size > _MOST_CHARS:
            raise ApiForeign("what comes as events is too long to be one")
        for line in lines:
            if line:
                block.take(line)
                continue
            if (event := block.event()) is not None:
                yield event
            block = _Block()


class _Block:
    """The lines between two empty ones."""

    def __init__(self) -> None:
        self.size = 0
        self._id: str | None = None
        self._kind = ""
        self._data: list[str] = []

    def take(self, line: str) -> None:
        """One more line."""
        self.size += len(line)
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._id = value
        elif name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)

    def event(self) -> Event | None:
        """What they tell; None: a comment alone."""
        if not self._data:
            return None if self._id is None else Event(self._id, alive=True)
        try:
            data = json.loads("\n".join(self._data))
        except (ValueError, RecursionError) as exc:
            raise ApiForeign("an event's data is no JSON") from exc
        if not isinstance(data, dict):
            raise ApiForeign("an event's data is no JSON object")
        return Event(self._id or "", self._kind, data)
