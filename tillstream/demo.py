"""
The demonstration: a stack, a watched folder, the sample files dropped into it while it runs, and what became of them.

Every demonstration has a connector and a folder of its own, so it can be shown again on kept data. Nothing here prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from connectors.registry import specs
from schemas.errors import ConfigError, TimedOut
from schemas.letter import DeadLetter
from sinks.ledger import Finding
from sinks.pool import Pool, close_pool, open_pool
from sinks.read import PaymentDetail
from tillstream import stack
from tillstream.config import Loaded, Settings
from tillstream.control import connector as connectors
from tillstream.control import ledger, letter, payment, run, worker
from tillstream.embedded.home import Home
from tillstream.embedded.state import StackState
from tillstream.embedded.supervisor import Observer, running, status
from tillstream.wiring import unlisted_of

SAMPLES = Path(__file__).parents[1] / "samples" / "directory"  # of a checkout; a wheel carries none
KIND = "directory"
DEADLINE_S = 120.0
_ASK_EVERY_S = 0.1
_SWEEP_S = 0.5  # the demonstration's monitor looks often, so that runs end while somebody watches
_OPTIONS = {"poll_s": 0.25, "rest_s": 0.5}

Found = TypeVar("Found")
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Counts:
    """The whole demonstration in the words of the run ledger."""

    read: int = 0
    published: int = 0
    rejected: int = 0
    filtered: int = 0
    applied: int = 0
    duplicate: int = 0
    stale: int = 0
    dead: int = 0
    payments: int = 0
    adjustments: int = 0
    balanced: bool = False
    seconds_to_first_payment: float | None = None


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What was shown: counts, payments, dead letters, and where to go on."""

    counts: Counts
    payments: Sequence[PaymentDetail]
    letters: Sequence[DeadLetter]
    findings: Sequence[Finding]
    connector: str
    folder: Path
    home: Path
    joined: bool  # the stack ran before, and goes on


@dataclass(slots=True)
class _Stage:
    """The running demonstration."""

    pool: Pool
    home: Path
    name: str
    connector_id: UUID
    folder: Path
    started_s: float
    unlisted: ledger.Unlisted
    first_payment_s: float | None = None
    dropped: set[str] = field(default_factory=set)

    async def runs(self) -> list[run.RunView]:
        return await run.list_runs(self.pool, connector_id=self.connector_id, limit=1_000)


@contextlib.asynccontextmanager
async def demonstrate(
    loaded: Loaded,
    *,
    samples: Path | None = None,
    started_s: float,
    once: bool = False,
    tell: Tell,
    observer: Observer | None = None,
) -> AsyncIterator[Demonstration]:
    """
    The demonstration, finished, with its stack still running.

    A stack that ran before goes on afterwards; with `once` the demonstration's connector is then deleted from it.

    `started_s` is the monotonic instant that "seconds to the first payment" counts from.

    Raises:
        ConfigError: there are no samples. StackError: a part cannot start. TimedOut: the samples did not come through.
    """
    files = _files(samples or SAMPLES)
    joined = _running(loaded) is not None
    async with _stack(loaded, observer) as settings:
        pool = await open_pool(settings.postgres.dsn.get_secret_value(), size=2, application="till-demo", durable=False)
        try:
            stage = await _set(pool, settings, started_s)
            try:
                tell(f"watching {stage.folder}")
                yield replace(await _play(stage, files, tell), joined=joined)
            finally:
                if joined and once:
                    await connectors.delete(pool, await connectors.find(pool, str(stage.connector_id)))
        finally:
            await close_pool(pool)


@contextlib.asynccontextmanager
async def _stack(loaded: Loaded, observer: Observer | None) -> AsyncIterator[Settings]:
    """The running stack of the home, or one of our own."""
    found = _running(loaded)
    if found is not None:
        yield stack.at(loaded.settings, found.endpoints)
        return
    monitor = loaded.settings.monitor.model_copy(update={"interval_s": _SWEEP_S})
    shown = replace(
        loaded,
        settings=loaded.settings.model_copy(update={"monitor": monitor}),
        origins={**loaded.origins, "monitor.interval_s": "demo"},
    )
    async with running(stack.options(shown), observer=observer) as supervisor:
        yield stack.at(loaded.settings, supervisor.state.endpoints)


def _running(loaded: Loaded) -> StackState | None:
    found = status(Home(loaded.settings.home))
    return found if found is not None and found.ready else None


async def _set(pool: Pool, settings: Settings, started_s: float) -> _Stage:
    """A connector of its own, and its folder."""
    taken = await connectors.taken(pool)
    name = next(name for name in _names() if name not in taken)
    folder = settings.home / "demo" / name
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {**_OPTIONS, "directory": str(folder)}
    identifier = await connectors.create(pool, name=name, spec=specs()[KIND], configuration=configuration)
    return _Stage(pool, settings.home, name, identifier, folder, started_s, unlisted_of(settings))


async def _play(stage: _Stage, files: Sequence[Path], tell: Tell) -> Demonstration:
    stale_before = await _stale(stage.home)
    watching = asyncio.create_task(_first_payment(stage))
    try:
        for file in files:
            tell(f"dropping {file.name}")
            await _drop(stage, file)
        await _until("the runs to end", lambda: _ended(stage))
        letters = await _until("the dead letters to be listed", lambda: _letters(stage))
    finally:
        watching.cancel()
    payments = await _payments(stage)
    report = await ledger.check(stage.pool, wait_s=10.0, unlisted=stage.unlisted)
    counts = _counted(await stage.runs(), payments)
    return Demonstration(
        counts=replace(
            counts,
            stale=await _stale(stage.home) - stale_before,
            balanced=report.balanced,
            seconds_to_first_payment=stage.first_payment_s,
        ),
        payments=payments,
        letters=[view.letter for view in letters],
        findings=report.findings,
        connector=stage.name,
        folder=stage.folder,
        home=stage.home,
        joined=False,
    )


async def _drop(stage: _Stage, file: Path) -> None:
    """
    Copy the file beside the folder, rename it in, and wait until the sink has what is new in it.

    One after the other, so that what a sample says about order is what happens.
    """
    before = len(await stage.runs())
    data = await asyncio.to_thread(file.read_bytes)
    await asyncio.to_thread(_rename_in, stage.folder, file)
    digest = hashlib.sha256(data).hexdigest()
    if digest in stage.dropped:
        return  # the same content again is no work, and so no run
    stage.dropped.add(digest)

    async def confirmed() -> bool | None:
        runs = await stage.runs()
        return (len(runs) > before and all(_is_confirmed(each) for each in runs)) or None

    await _until(f"the sink to confirm {file.name}", confirmed)


def _is_confirmed(view: run.RunView) -> bool:
    read_to_its_end = view.awaiting_sink or view.completed_at is not None
    return read_to_its_end and view.published == view.applied + view.duplicate + view.dead


def _rename_in(folder: Path, file: Path) -> None:
    draft = folder.parent / f".{folder.name}.{file.name}.part"
    shutil.copyfile(file, draft)
    draft.replace(folder / file.name)


async def _first_payment(stage: _Stage) -> None:
    while stage.first_payment_s is None:
        page = await payment.list_payments(stage.pool, provider=stage.name, limit=1)
        if page.payments:
            stage.first_payment_s = round(time.monotonic() - stage.started_s, 2)
        await asyncio.sleep(_ASK_EVERY_S)


async def _ended(stage: _Stage) -> bool | None:
    return all(each.completed_at is not None for each in await stage.runs()) or None


async def _letters(stage: _Stage) -> list[letter.LetterView] | None:
    """The letters of this demonstration, once the list holds as many as the runs counted."""
    runs = await stage.runs()
    expected = sum(each.rejected + each.dead for each in runs)
    found = await letter.list_letters(stage.pool, letter.Filter(connector=stage.name, state=None), limit=1_000)
    ours = {each.id for each in runs}
    listed = [view for view in found if view.letter.run_id in ours]
    return listed if len(listed) >= expected else None


async def _payments(stage: _Stage) -> list[PaymentDetail]:
    found: list[PaymentDetail] = []
    after: str | None = None
    while True:
        page = await payment.list_payments(stage.pool, provider=stage.name, limit=500, after=after)
        found += page.payments
        after = page.next
        if after is None:
            return found


async def _stale(home: Path) -> int:
    """How many events were stale when they arrived: the sinks tell it, and nobody stores it."""
    total = 0.0
    for view in await worker.look(home / "run"):
        text = await worker.scrape(view.url)
        total += sum(worker.samples_of(text, "tillstream_events_total", outcome="stale"))
    return int(total)


async def _until(what: str, ask: Callable[[], Awaitable[Found | None]]) -> Found:
    """What `ask` answers, once it is not None."""
    until = time.monotonic() + DEADLINE_S
    while (answer := await ask()) is None:
        if time.monotonic() > until:
            raise TimedOut(f"waited {DEADLINE_S:.0f} s for {what}", hint="`till status` and the home's logs/ tell more")
        await asyncio.sleep(_ASK_EVERY_S)
    return answer


def _counted(runs: Sequence[run.RunView], payments: Sequence[PaymentDetail]) -> Counts:
    def total(name: str) -> int:
        return sum(getattr(each, name) for each in runs)

    return Counts(
        read=total("read"),
        published=total("published"),
        rejected=total("rejected"),
        filtered=total("filtered"),
        applied=total("applied"),
        duplicate=total("duplicate"),
        dead=total("dead"),
        payments=len(payments),
        adjustments=sum(each.payment.adjustments for each in payments),
    )


def _files(samples: Path) -> list[Path]:
    found = sorted(file for file in samples.glob("*") if file.is_file() and not file.name.startswith("."))
    if not found:
        raise ConfigError(
            f"there are no sample files in {samples}", hint="run it in a checkout, or name some: --samples"
        )
    return found


def _names() -> Iterator[str]:
    yield "demo"
    yield from (f"demo-{number}" for number in itertools.count(2))
