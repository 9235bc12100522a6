"""A source that a test writes line by line, on the runner's own contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from connectors.ports import Clock
from connectors.record import PaymentFacts
from connectors.runner import Runner
from connectors.source import Batch, CheckStep, Cursor, Rejection, Skipped, SourceRecord, Task
from connectors.spec import ConnectorConfig, SourceSpec
from connectors.testing import CONNECTOR, Faults, ManualClock, Memory, run_ids
from schemas.metric import Meter, NullMeter
from schemas.payment import PaymentType, Status


@dataclass
class Script:
    """
    What a source does. `objects` maps keys to batches; each batch is a list of references.

    A reference that begins with `bad` is a rejection. `listing_errors` and `reading_errors` are raised once each, in
    turn; `hang` names keys whose reading never goes on, `listing_hangs` the same of the listing.
    """

    objects: dict[str, list[list[str]]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    listing_errors: list[BaseException] = field(default_factory=list)
    reading_errors: dict[str, list[BaseException]] = field(default_factory=dict)
    hang: set[str] = field(default_factory=set)
    listing_hangs: bool = False
    status: Status = Status.SUCCEEDED
    listings: int = 0
    known: Mapping[str, Cursor] = field(default_factory=dict)
    reading: list[str] = field(default_factory=list)
    most_reading: int = 0
    read_from: list[tuple[str, Any]] = field(default_factory=list)
    closed: int = 0
    recurring: bool = False


class ScriptedSource:
    """Follows its script."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def check(self) -> Sequence[CheckStep]:
        return [CheckStep("script", True, 0.0)]

    async def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:
        script = self._script
        script.listings += 1
        script.known = dict(known)
        if script.listing_hangs:
            await asyncio.Event().wait()
        if script.listing_errors:
            raise script.listing_errors.pop(0)
        yield script.skipped
        for key in script.objects:
            names = script.names.get(key, [key])
            yield [Task(name, key, key, f"/in/{name}", script.recurring) for name in names]
        yield []

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        script = self._script
        script.read_from.append((task.key, since))
        script.reading.append(task.key)
        script.most_reading = max(script.most_reading, len(script.reading))
        try:
            begin = 0 if since is None else since["batch"]
            for index, references in enumerate(script.objects[task.key][begin:], begin):
                await asyncio.sleep(0)
                if script.reading_errors.get(task.key):
                    raise script.reading_errors[task.key].pop(0)
                yield self._batch(index, references)
            if task.key in script.hang:
                await asyncio.Event().wait()
        finally:
            script.reading.remove(task.key)

    async def close(self) -> None:
        self._script.closed += 1

    def _batch(self, index: int, references: Sequence[str]) -> Batch:
        good, bad = [], []
        for number, reference in enumerate(references):
            position = f"row {index * 100 + number + 1}"
            if reference.startswith("bad"):
                bad.append(Rejection(position, "invalid_amount", "no amount", reference.encode(), number + 1))
            else:
                facts = PaymentFacts(reference, None, PaymentType.PAYIN, self._script.status, 1, "EUR", "", None, None)
                good.append(SourceRecord(position, facts, number + 1))
        return Batch(good, bad, {"batch": index + 1})


def make_runner(
    script: Script,
    memory: Memory | None = None,
    *,
    clock: Clock | None = None,
    faults: Faults | None = None,
    epoch: int = 1,
    production: bool = False,
    source: Callable[[Script], Any] = ScriptedSource,
    going_on: Collection[UUID] = (),
    redact: Callable[[str], str] = str,
    meter: Meter | None = None,
    version: int = 1,
    **options: object,
) -> Runner:
    """A runner of the script."""
    spec = SourceSpec(
        "scripted", "A script.", ConnectorConfig, lambda config, context: source(script), "batch", "directory"
    )
    config = ConnectorConfig.model_validate({"checkpoint_s": 0, "stop_s": 0.5, **options})
    ports = replace(
        (memory or Memory()).ports(clock or ManualClock(), faults), redact=redact, meter=meter or NullMeter()
    )
    new_run_id = run_ids(epoch)
    connector = replace(CONNECTOR, version=version)
    return Runner(
        connector, spec, config, ports, epoch=epoch, production=production, going_on=going_on, new_run_id=new_run_id
    )
