"""
The gateway of the demonstration as a process of its own.

    python -m tillstream.embedded.gateway_server FOLDER --port PORT

It opens with payments whose lives are over, so that everybody reads the same of it. Whoever shares its folder lets it
take more (`StockedBook.go_on`), and halts it. The folder keeps when that was: a gateway that was killed has the same
books when it is back.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tillstream.embedded.gateway import Gateway
from tillstream.embedded.gateway_book import GrowingBook, Row

STOCK = 12  # payments; one of them failed, one was refunded
_EVERY_S = 600
_GROWS_EVERY_S = 3
_FIRST = 1_000  # number of the first payment that is taken later
_REFUNDED_AFTER = 5  # steps: as the growing book has it
_OVER = 2.0**40  # a time after all lives
_OPENED, _GOES_ON, _HALTED = "opened", "goes-on", "halted"  # files that hold an instant


@dataclass(frozen=True, slots=True)
class StockedBook:
    """A stock that stays as it is, and what comes once it goes on."""

    folder: Path
    opened: int

    @classmethod
    def of(cls, folder: Path) -> StockedBook:
        """The book of this folder, opened now if it is new."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, _noted(folder / _OPENED))

    def go_on(self) -> None:
        """Take payments from now on; safe to repeat."""
        _noted(self.folder / _GOES_ON)

    def halt(self) -> None:
        """Nothing happens any more."""
        _noted(self.folder / _HALTED)

    @property
    def records(self) -> int:
        """How many payments and refunds the stock has."""
        return len(self._stock.payments(0, self.opened, _OVER)) + len(self._stock.refunds(0, self.opened, _OVER))

    def payments(self, begin: int, end: int, now: float) -> list[Row]:
        """As the protocol `Book` says."""
        rows = self._stock.payments(begin, min(end, self.opened), _OVER)
        if growth := self._growth():
            last = self._last(now)
            rows += growth.payments(max(begin, growth.since + _FIRST * _GROWS_EVERY_S), min(end, last), last)
        return rows

    def refunds(self, begin: int, end: int, now: float) -> list[Row]:
        """As the protocol `Book` says."""
        rows = self._stock.refunds(begin, min(end, self.opened), _OVER)
        if growth := self._growth():
            first, last = growth.since + (_FIRST + _REFUNDED_AFTER) * _GROWS_EVERY_S, self._last(now)
            rows += growth.refunds(max(begin, first), min(end, last), last)
        return rows

    @property
    def _stock(self) -> GrowingBook:
        return GrowingBook(self.opened - STOCK * _EVERY_S + _EVERY_S // 2, every_s=_EVERY_S)

    def _growth(self) -> GrowingBook | None:
        since = _note(self.folder / _GOES_ON)
        return None if since is None else GrowingBook(since - _FIRST * _GROWS_EVERY_S, every_s=_GROWS_EVERY_S)

    def _last(self, now: float) -> int:
        halted = _note(self.folder / _HALTED)
        return int(now) if halted is None else min(int(now), halted)


def _note(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return None


def _noted(path: Path) -> int:
    """The instant that the file holds, or this one, which it then holds."""
    found = _note(path)
    if found is not None:
        return found
    at = int(time.time())
    draft = path.with_suffix(".part")
    draft.write_text(str(at))
    draft.replace(path)
    return at


async def _serve(folder: Path, port: int) -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    async with await Gateway(StockedBook.of(folder)).start(port):
        await asked.wait()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    asyncio.run(_serve(given.folder, given.port))


if __name__ == "__main__":
    _main()
