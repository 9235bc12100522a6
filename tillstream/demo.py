"""
The demonstration: a stack, a connector of every kind of source, what they read while it runs, and what became of it.

A watched folder gets the sample files one after the other; a bank, a payment gateway and a shop with a database hold
theirs ready (`tillstream/partner.py`). Every demonstration has connectors, servers and a folder of its own, so it can
be shown again on kept data. Nothing here prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import yaml

from connectors.registry import specs
from schemas.errors import ConfigError, TillError, TimedOut
from schemas.letter import DeadLetter
from sinks.ledger import Finding
from sinks.pool import Pool, close_pool, open_pool
from sinks.read import PaymentDetail, list_payments
from tillstream import stack
from tillstream.config import Loaded, Settings
from tillstream.control import connector as connectors
from tillstream.control import ledger, letter, run, worker
from tillstream.control.apply import apply
from tillstream.control.document import documents
from tillstream.embedded.home import Home
from tillstream.embedded.postgres import EmbeddedPostgres
from tillstream.embedded.state import Endpoints, StackState
from tillstream.embedded.supervisor import Observer, StackOptions, Supervisor, running, status
from tillstream.partner import Bank, Partner, PaymentGateway, Shop, drop_secrets, link_secrets
from tillstream.wiring import unlisted_of

logger = logging.getLogger(__name__)

_CHECKOUT = Path(__file__).parents[1] / "samples"  # of a checkout; a wheel carries none
SAMPLES = _CHECKOUT / "directory"
DESCRIBED = _CHECKOUT / "demo"
KIND = "directory"
DEADLINE_S = 120.0
_ASK_EVERY_S = 0.1
_SWEEP_S = 0.5  # the demonstration's monitor looks often, so that runs end while somebody watches
_LEAVE_S = 4.0  # of the 15 s of a stack that ends

Found = TypeVar("Found")
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """What one connector read, in the words of the run ledger, and what it left."""

    read: int = 0
    published: int = 0
    rejected: int = 0
    filtered: int = 0
    applied: int = 0
    duplicate: int = 0
    dead: int = 0
    payments: int = 0
    adjustments: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """The whole demonstration in the words of the run ledger; `sources` has each kind of source by itself."""

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
    sources: Mapping[str, SourceCounts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """
    What was shown: counts, payments, dead letters, and where to go on.

    `partners` says where the others are, by connector; they have more to tell as long as the demonstration is open.
    """

    counts: Counts
    payments: Sequence[PaymentDetail]
    letters: Sequence[DeadLetter]
    findings: Sequence[Finding]
    connector: str
    partners: Mapping[str, str]
    folder: Path
    home: Path
    joined: bool  # the stack ran before, and goes on


@dataclass(slots=True)
class _Stage:
    """The running demonstration. `connectors` has those that it made, by kind of source."""

    pool: Pool
    settings: Settings
    name: str
    place: Home
    started_s: float
    unlisted: ledger.Unlisted
    partners: Sequence[Partner]
    first_payment_s: float | None = None
    dropped: set[str] = field(default_factory=set)
    connectors: dict[str, UUID] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The watched one."""
        return self.place.root / "incoming"

    def name_of(self, partner: Partner) -> str:
        """The partner's connector."""
        return f"{self.name}-{partner.name}"

    async def runs(self, kind: str) -> list[run.RunView]:
        return await run.list_runs(self.pool, connector_id=self.connectors[kind], limit=1_000)


@contextlib.asynccontextmanager
async def demonstrate(
    loaded: Loaded,
    *,
    samples: Path | None = None,
    started_s: float,
    once: bool = False,
    tell: Tell,
    observer: Observer | None = None,
    partner_observer: Observer | None = None,
) -> AsyncIterator[Demonstration]:
    """
    The demonstration, finished, with its stack and its partners still running; without `once` these go on.

    A stack that ran before goes on afterwards. The connectors of partners end with them; what they brought stays.
    With `once` the folder's connector is deleted from a stack that ran before, too.

    `started_s` is the monotonic instant that "seconds to the first payment" counts from. The observers are told of the
    stack's parts, and of the partners' servers.

    Raises:
        ConfigError: there are no samples. StackError: a part cannot start. TimedOut: the samples did not come through.
    """
    files = _files(samples or SAMPLES)
    joined = _running(loaded) is not None
    async with contextlib.AsyncExitStack() as opened:
        settings = await opened.enter_async_context(_stack(loaded, observer))
        dsn = settings.postgres.dsn.get_secret_value()
        pool = await open_pool(dsn, size=4, application="till-demo", durable=False)
        opened.push_async_callback(close_pool, pool)
        stage, around = await _set(pool, settings, started_s)
        supervisor = Supervisor(around, observer=partner_observer)
        opened.push_async_callback(supervisor.stop)
        opened.push_async_callback(_leave, stage, everything=joined and once)
        shown = await _play(stage, files, supervisor, tell)
        going_on = asyncio.create_task(_go_on(stage)) if not once else None
        try:
            yield replace(shown, joined=joined)
        finally:
            if going_on is not None:
                going_on.cancel()
                await asyncio.wait({going_on})


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


async def _set(pool: Pool, settings: Settings, started_s: float) -> tuple[_Stage, StackOptions]:
    """A name and a folder of its own, and what runs around it: the partners' servers."""
    taken = await connectors.taken(pool)
    name = next(name for name in _names() if name not in taken)
    place = Home(settings.home / "demo" / name)
    secrets = link_secrets(place, settings.secrets.folder or settings.home / "secrets", f"demo/{name}")
    dsn = settings.postgres.dsn.get_secret_value()
    server = EmbeddedPostgres(Home(settings.home).postgres)
    is_ours = _is_at(server, dsn)
    if not is_ours:  # we make no databases in a server that is somebody's own
        server = EmbeddedPostgres(place.postgres)
    shop = Shop(place, secrets, server, f"{name.replace('-', '_')}_shop")
    partners: list[Partner] = [Bank(place, secrets), PaymentGateway(place, secrets), shop]

    async def before_workers(_: Endpoints) -> None:
        await asyncio.gather(*(each.open() for each in partners))

    around = StackOptions(
        home=place,
        services=tuple(each.service for each in partners if each.service is not None),
        kafka="",  # there is no part of it here
        postgres_dsn="" if is_ours else None,
        before_workers=before_workers,
    )
    return _Stage(pool, settings, name, place, started_s, unlisted_of(settings), partners), around


def _is_at(server: EmbeddedPostgres, dsn: str) -> bool:
    try:
        return server.dsn == dsn
    except (OSError, TillError):  # it was never started
        return False


async def _play(stage: _Stage, files: Sequence[Path], supervisor: Supervisor, tell: Tell) -> Demonstration:
    stale_before = await _stale(stage.settings.home)
    seen = asyncio.Event()
    watching = asyncio.create_task(_first_payment(stage, seen))
    try:
        await _together(_show_files(stage, files, tell), _show_partners(stage, supervisor, seen, tell))
        letters = await _until("the dead letters to be listed", lambda: _letters(stage))
    finally:
        watching.cancel()
    payments = {kind: await _payments(stage, provider) for kind, provider in _providers(stage).items()}
    report = await ledger.check(stage.pool, wait_s=10.0, unlisted=stage.unlisted)
    sources = {kind: _counted(await stage.runs(kind), found) for kind, found in payments.items()}
    return Demonstration(
        counts=replace(
            _summed(sources),
            stale=await _stale(stage.settings.home) - stale_before,
            balanced=report.balanced,
            seconds_to_first_payment=stage.first_payment_s,
        ),
        payments=[each for found in payments.values() for each in found],
        letters=[view.letter for view in letters],
        findings=report.findings,
        connector=stage.name,
        partners={stage.name_of(each): each.place() for each in stage.partners},
        folder=stage.folder,
        home=stage.settings.home,
        joined=False,
    )


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """All of them; none goes on when one has failed."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


# The folder.


async def _show_files(stage: _Stage, files: Sequence[Path], tell: Tell) -> None:
    stage.folder.mkdir(parents=True, exist_ok=True)
    await _connect(stage, KIND, stage.name, {"directory": str(stage.folder)})
    tell(f"watching {stage.folder}")
    for file in files:
        tell(f"dropping {file.name}")
        await _drop(stage, file)
    await _until("the runs to end", lambda: _ended(stage, KIND))


async def _drop(stage: _Stage, file: Path) -> None:
    """
    Copy the file beside the folder, rename it in, and wait until the sink has what is new in it.

    One after the other, so that what a sample says about order is what happens.
    """
    before = len(await stage.runs(KIND))
    data = await asyncio.to_thread(file.read_bytes)
    await asyncio.to_thread(_rename_in, stage.folder, file)
    digest = hashlib.sha256(data).hexdigest()
    if digest in stage.dropped:
        return  # the same content again is no work, and so no run
    stage.dropped.add(digest)

    async def confirmed() -> bool | None:
        runs = await stage.runs(KIND)
        return (len(runs) > before and all(_is_confirmed(each) for each in runs)) or None

    await _until(f"the sink to confirm {file.name}", confirmed)


def _is_confirmed(view: run.RunView) -> bool:
    read_to_its_end = view.awaiting_sink or view.completed_at is not None
    return read_to_its_end and view.published == view.applied + view.duplicate + view.dead


def _rename_in(folder: Path, file: Path) -> None:
    draft = folder.parent / f".{folder.name}.{file.name}.part"
    shutil.copyfile(file, draft)
    draft.replace(folder / file.name)


# The partners.


async def _show_partners(stage: _Stage, supervisor: Supervisor, first_payment: asyncio.Event, tell: Tell) -> None:
    """Their servers start once there is something to see: on a small machine they would hold it up."""
    await first_payment.wait()
    await supervisor.start()
    for partner in stage.partners:
        tell(f"reading {partner.place()}")
        await _connect(stage, partner.kind, stage.name_of(partner), partner.options())
    await _together(*(_show_partner(stage, each) for each in stage.partners))


async def _show_partner(stage: _Stage, partner: Partner) -> None:
    await _until(f"what the {partner.name} has", lambda: _has_read(stage, partner))
    await partner.offer_more()
    await _until(f"all that the {partner.name} has", lambda: _has_read(stage, partner))


async def _has_read(stage: _Stage, partner: Partner) -> bool | None:
    runs = await stage.runs(partner.kind)
    ended = all(each.completed_at is not None for each in runs)
    return (ended and sum(each.read for each in runs) >= partner.records) or None


async def _go_on(stage: _Stage) -> None:
    """The partners have more to tell, for as long as somebody looks."""
    for second in itertools.count(1):
        await asyncio.gather(*(each.go_on(second) for each in stage.partners))
        await asyncio.sleep(1.0)


async def _leave(stage: _Stage, *, everything: bool) -> None:
    """
    Let the partners fall silent and their connectors' runs end, then delete connectors and partners.

    With `everything` the folder's connector is deleted too.
    """
    for partner in stage.partners:
        partner.halt()
    theirs = [each.kind for each in stage.partners]
    leaving = [identifier for kind, identifier in stage.connectors.items() if everything or kind in theirs]
    try:
        async with asyncio.timeout(_LEAVE_S):
            await _until("the runs to end", lambda: _are_over(stage, theirs))
    except (TillError, TimeoutError) as exc:
        logger.warning("runs of the demonstration go on", extra={"facts": {"error": repr(exc)}})
    try:
        async with asyncio.timeout(_LEAVE_S):
            for identifier in leaving:
                await connectors.delete(stage.pool, await connectors.find(stage.pool, str(identifier)))
            await asyncio.gather(*(each.close() for each in stage.partners))
    except (TillError, TimeoutError) as exc:
        logger.warning("connectors of the demonstration stay", extra={"facts": {"error": repr(exc)}})
    drop_secrets(stage.place)


async def _are_over(stage: _Stage, kinds: Sequence[str]) -> bool | None:
    known = [kind for kind in kinds if kind in stage.connectors]
    return all([await _ended(stage, kind) for kind in known]) or None


# Both.


async def _connect(stage: _Stage, kind: str, name: str, here: Mapping[str, Any]) -> None:
    """
    Apply the described connector of that kind, with what is different here, as `till connector apply` would.

    Its description is kept in the demonstration's folder.
    """
    (described,) = documents((DESCRIBED / f"{kind}.yaml").read_text(encoding="utf-8"), place=kind)
    whole = {"name": name, "kind": kind, "configuration": {**described.configuration, **here}}
    file = stage.place.root / "connectors" / f"{kind}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), encoding="utf-8")
    wanted = documents(file.read_text(encoding="utf-8"), place=str(file))
    (applied,) = await apply(stage.pool, wanted, specs())
    stage.connectors[kind] = applied.id


def _providers(stage: _Stage) -> dict[str, str]:
    return {KIND: stage.name, **{each.kind: stage.name_of(each) for each in stage.partners}}


async def _first_payment(stage: _Stage, seen: asyncio.Event) -> None:
    while stage.first_payment_s is None:
        page = await list_payments(stage.pool, provider=stage.name, limit=1)
        if page.payments:
            stage.first_payment_s = round(time.monotonic() - stage.started_s, 2)
            seen.set()
        await asyncio.sleep(_ASK_EVERY_S)


async def _ended(stage: _Stage, kind: str) -> bool | None:
    return all(each.completed_at is not None for each in await stage.runs(kind)) or None


async def _letters(stage: _Stage) -> list[letter.LetterView] | None:
    """The letters of this demonstration, once the list holds as many as the runs counted."""
    listed: list[letter.LetterView] = []
    for kind, name in _providers(stage).items():
        runs = await stage.runs(kind)
        found = await letter.list_letters(stage.pool, letter.Filter(connector=name, state=None), limit=1_000)
        ours = {each.id for each in runs}
        mine = [view for view in found if view.letter.run_id in ours]
        if len(mine) < sum(each.rejected + each.dead for each in runs):
            return None
        listed += mine
    return listed


async def _payments(stage: _Stage, provider: str) -> list[PaymentDetail]:
    found: list[PaymentDetail] = []
    after: str | None = None
    while True:
        page = await list_payments(stage.pool, provider=provider, limit=500, after=after)
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


def _counted(runs: Sequence[run.RunView], payments: Sequence[PaymentDetail]) -> SourceCounts:
    def total(name: str) -> int:
        return sum(getattr(each, name) for each in runs)

    return SourceCounts(
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


def _summed(sources: Mapping[str, SourceCounts]) -> Counts:
    names = [each.name for each in fields(SourceCounts)]
    return Counts(sources=sources, **{name: sum(getattr(each, name) for each in sources.values()) for name in names})


def _files(samples: Path) -> list[Path]:
    found = sorted(file for file in samples.glob("*") if file.is_file() and not file.name.startswith("."))
    if not found or not DESCRIBED.is_dir():
        lacking = DESCRIBED if found else samples
        raise ConfigError(
            f"there are no sample files in {lacking}", hint="run it in a checkout, or name some: --samples"
        )
    return found


def _names() -> Iterator[str]:
    yield "demo"
    yield from (f"demo-{number}" for number in itertools.count(2))
