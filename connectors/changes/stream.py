"""
Following the changes by logical decoding, through plain SQL.

    peek ─▶ decode ─▶ records ─▶ (the runner publishes them and writes a checkpoint) ─▶ advance the slot to it

A peek shows what stands after the slot's confirmed position and moves nothing, so whatever happens, it can be looked at
again. PostgreSQL decodes whole transactions and keeps what it shows on its own disk; we fetch it through a cursor, so a
transaction of any size passes in pieces, and the place between two pieces is the number of its changes that are done.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from connectors.changes import slot
from connectors.changes.assembler import Assembler, Incomplete, Readers
from connectors.changes.catalog import TableFacts
from connectors.changes.decoder import UNCHANGED
from connectors.changes.identifier import quoted
from connectors.changes.option import Snapshot, StreamOptions
from connectors.changes.pace import Pacemaker, arrived, pending
from connectors.changes.place import Origin, Place
from connectors.changes.session import Session
from connectors.changes.slot import SlotState
from connectors.changes.tablecopy import copy
from connectors.ports import Clock
from connectors.source import Batch
from schemas.errors import ChangesLost, SourceMisconfigured
from schemas.failpoint import failpoint

FETCH_ROWS = 500  # messages fetched at a time: one holds a row, and a row may be large
LET_GO_S = 0.5  # advancing a slot reads the log once more
STATE_S = 10.0
_MOST_PEEKED = 1 << 30  # what the server takes for a count


async def begin(session: Session, options: StreamOptions, origin: Origin, tables: Sequence[TableFacts]) -> Place:
    """
    The place to begin at: the slot's. Where an operator allowed it, publication and slot are made, in this order.

    Raises:
        SourceMisconfigured: pause; they are not there.
    """
    made = await slot.make_publication(session, options.publication, tables) if options.create else False
    state = await slot.slot_state(session, options.slot)
    if state is None and not options.create:
        raise SourceMisconfigured(
            f'replication slot "{options.slot}" does not exist', hint=f"run: {slot.create_slot(options.slot)}"
        )
    if state is None:
        state = await slot.make_slot(session, options.slot)
        failpoint("after_slot_made")
    elif made:
        # Before the publication nothing was published, and older servers fail at it. The copy reads those rows.
        confirmed = await slot.log_end(session)
        await slot.advance(session, options.slot, confirmed)
        state = state._replace(confirmed=confirmed)
    return Place(origin, options.slot, state.confirmed)


class Stream:
    """One reading. `durable` tells up to where a checkpoint stands; `watch` is told the slot's state now and then."""

    def __init__(
        self,
        session: Session,
        options: StreamOptions,
        readers: Readers,
        *,
        clock: Clock,
        durable: Callable[[], int],
        watch: Callable[[SlotState], None],
    ) -> None:
        self._session = session
        self._options = options
        self._readers = readers
        self._clock = clock
        self._durable = durable
        self._watch = watch
        self._confirmed = 0
        self._let_go_s = self._watched_s = float("-inf")
        self._peek_rows = options.peek_rows
        self._saw_all = False

    async def batches(self, place: Place) -> AsyncGenerator[Batch, None]:
        """
        The rows that were there before, then the changes, until nothing changes for a while or the time is over.

        Raises:
            ChangesLost, SourceMisconfigured: pause. Also what `Session` raises.
        """
        yield Batch((), (), place.cursor())
        for table in self._options.tables:
            if str(table) not in place.copied and self._options.snapshot is Snapshot.NEVER:
                place.copied.append(str(table))
            if str(table) not in place.copied:
                facts = self._readers.facts_of(str(table))
                copied = copy(
                    self._session,
                    place,
                    facts,
                    self._readers.of_table(facts),
                    clock=self._clock,
                    checkpoint_s=self._options.checkpoint_s,
                )
                async with contextlib.aclosing(copied) as batches:
                    async for batch in batches:
                        yield batch
        async with contextlib.aclosing(self._changes(place)) as batches:
            async for batch in batches:
                yield batch

    async def _changes(self, place: Place) -> AsyncGenerator[Batch, None]:
        assembler = Assembler(place, self._readers, self._options.on_delete)
        pace = Pacemaker(self._options.pace, self._clock)
        looked_at, told_at = -1, place.done
        while not pace.is_over:
            with pending(self._let_go()) as letting_go:
                while not await arrived(letting_go):
                    yield Batch((), (), place.cursor())
                letting_go.result()
            began_s, found = self._clock.monotonic(), False
            end = await slot.log_end(self._session)
            if end != looked_at:
                async with contextlib.aclosing(self._peek(assembler)) as batches:
                    async for batch in batches:
                        found, told_at = found or bool(batch.read), place.done
                        pace.speaks()
                        yield batch
                if self._saw_all:
                    # the end was asked for before the look, so all that was committed before it has been seen
                    place.done, looked_at = max(place.done, end), end
            if len(assembler.gathered) or (told_at != place.done and pace.is_silent):
                found, told_at = found or bool(len(assembler.gathered)), place.done
                pace.speaks()
                yield assembler.gathered.batch(place.cursor())
            pace.looked(found=found)
            if self._saw_all:
                await pace.pause(took_s=self._clock.monotonic() - began_s)
        if told_at != place.done:
            yield Batch((), (), place.cursor())

    async def _peek(self, assembler: Assembler) -> AsyncGenerator[Batch, None]:
        """Look once; what does not fill a batch stays gathered. `_saw_all` tells whether it came to the log's end."""
        place, limit, shown = assembler.place, self._peek_rows, 0
        before = (place.done, place.transaction, place.index)
        arguments = (self._options.slot, limit, quoted(self._options.publication))
        async with self._session.portal(slot.PEEK, *arguments) as portal:
            more = True
            while more:
                with pending(portal.fetch(FETCH_ROWS)) as page:
                    while not await arrived(page):
                        yield Batch((), (), place.cursor())
                    rows = page.result()
                more = len(rows) == FETCH_ROWS
                shown += len(rows)
                for (data,) in rows:
                    incomplete = assembler.take(data)
                    if incomplete is not None:
                        assembler.complete(incomplete, await self._row_now(incomplete))
                if assembler.gathered.is_full:
                    yield assembler.gathered.batch(place.cursor())
        self._saw_all = shown < limit
        moved = before != (place.done, place.transaction, place.index)
        # what is published and not let go of yet is shown again, and must not fill every look
        self._peek_rows = self._options.peek_rows if moved or self._saw_all else min(2 * limit, _MOST_PEEKED)

    async def _row_now(self, found: Incomplete) -> Mapping[str, str | None] | None:
        """The values that were not sent, of the row as it is by now; None if it is gone or cannot be named."""
        table = self._readers.facts_of(found.reader.table)
        lacks = [name for name, value in zip(found.reader.names, found.values, strict=True) if value is UNCHANGED]
        if not table.key or any(name in lacks for name in table.key):
            return None
        selected = ", ".join(f"{quoted(name)}::text" for name in lacks)
        types = zip(table.key, table.key_types, strict=True)
        where = " AND ".join(f"{quoted(name)} = ${n}::text::{type_}" for n, (name, type_) in enumerate(types, 1))
        key = [found.values[place] for place in found.reader.places(table.key)]
        statement = f"SELECT {selected} FROM {table.name.sql} WHERE {where}"  # noqa: S608 quoted
        row = await self._session.row(statement, *key)
        return None if row is None else dict(zip(lacks, row, strict=True))

    async def _let_go(self) -> None:
        """Advance the slot to what a checkpoint holds, and have its state looked at, each now and then."""
        now_s, durable = self._clock.monotonic(), self._durable()
        if durable > self._confirmed and now_s - self._let_go_s >= LET_GO_S:
            self._confirmed, self._let_go_s = durable, now_s
            await slot.advance(self._session, self._options.slot, durable)
            failpoint("after_slot_advanced")
        if now_s - self._watched_s >= STATE_S:
            self._watched_s = now_s
            state = await slot.slot_state(self._session, self._options.slot)
            if state is None:
                raise ChangesLost(f'replication slot "{self._options.slot}" was dropped')
            self._watch(state)
