"""Redrives that are slow, many, or cut short, on a real broker and a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from schemas.errors import BrokerUnavailable, Conflict
from sinks.ledger import verify
from streams.publisher import KeyedMessage, Producer
from streams.reader import find_range
from streams.replay import replay as store_all
from tests.faults.stage import until
from tests.integration.test_monitor import World, a_letter, published, put, replace_settings
from tests.integration.test_monitor import world as world  # noqa: PLC0414  a fixture
from tillstream.control import letter, run
from tillstream.control.letter import LetterState
from tillstream.control.run import RunStatus


class Slow(Producer):
    """A producer whose broker takes its time: `before` is awaited before each send, which is told its number."""

    before: Callable[[int], Awaitable[None]]
    sends = 0

    async def send(self, topic: str, partitioned: Sequence[tuple[int, KeyedMessage]]) -> None:
        self.sends += 1
        await self.before(self.sends)
        await super().send(topic, partitioned)


@pytest.fixture
async def slow(world: World) -> AsyncIterator[Slow]:
    async with Slow(world.kafka.bootstrap) as producer:
        yield producer


async def take_all(world: World) -> None:
    """What the sink does with what is on the topic."""
    events = await find_range(world.kafka.bootstrap, world.topics.events.name)
    await store_all(world.kafka.bootstrap, events, world.sink)


async def test_a_redrive_that_takes_long_lives_as_long_as_it_takes(
    world: World, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word of it, the monitor would end its run, and the letters could be redriven once more meanwhile."""
    monkeypatch.setattr(letter, "_HEARTBEAT_S", 0.1)
    world.monitor.settings = replace_settings(world.monitor.settings, heartbeat_timeout_s=2.0)
    dead = a_letter(world, 1)
    await put(world, dead)

    async def longer_than_the_monitor_waits(_: int) -> None:
        old = "SELECT count(*) FROM connector_runs WHERE started_at < now() - interval '4 s'"
        await until(lambda: world.pool.fetchval(old))
        await world.monitor.sweep()

    slow.before = longer_than_the_monitor_waits
    await world.monitor.sweep()  # it ends no run before it has watched for as long
    done = await letter.redrive(world.pool, slow, world.topics, [dead.id])
    await take_all(world)
    await world.monitor.sweep()
    await world.monitor.sweep()

    assert done.run_id is not None
    view = await world.view(done.run_id)
    assert (view.status, view.published, view.dead) == (RunStatus.PARTIAL_SUCCESS, 1, 1)
    assert (await letter.show(world.pool, dead.id)).state is LetterState.REDRIVEN
    assert await verify(world.pool) == []


@pytest.mark.parametrize("end", ["broker", "monitor"])
async def test_of_a_redrive_that_ends_midway_what_was_sent_is_redriven_and_the_rest_may_be_sent_again(
    world: World, slow: Slow, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(letter, "_AT_ONCE", 2)
    letters = [a_letter(world, n) for n in range(5)]
    await put(world, *letters)
    ids = [each.id for each in letters]

    async def ends(number: int) -> None:
        if number == 2 and end == "broker":
            raise BrokerUnavailable("gone")
        if number == 2:
            (open_run,) = await run.list_runs(world.pool)
            async with world.pool.acquire() as held:
                await run.close(held, open_run.id, RunStatus.FAILED, reason="its worker died")

    slow.before = ends
    with pytest.raises(BrokerUnavailable if end == "broker" else Conflict):
        await letter.redrive(world.pool, slow, world.topics, ids)
    (failed,) = await run.list_runs(world.pool)
    await take_all(world)
    await world.monitor.sweep()

    assert failed.status is RunStatus.FAILED
    sent = ids[:2] if end == "broker" else ids[:4]
    states = {each: (await letter.show(world.pool, each)).state for each in ids}
    assert [each for each in ids if states[each] is LetterState.REDRIVEN] == sent
    rest = await letter.redrive(world.pool, world.producer, world.topics, ids)
    assert sorted(rest.sent) == sorted(set(ids) - set(sent))
    assert {each.message for each in rest.refused} == {"it was redriven already"}
    await take_all(world)
    assert await verify(world.pool) == []


async def test_many_letters_are_redriven_some_at_a_time_and_the_run_shows_how_far_it_is(
    world: World, slow: Slow
) -> None:
    letters = [a_letter(world, n % 60).model_copy(update={"id": f"{n:032x}", "offset": n}) for n in range(500)]
    await put(world, *letters)
    seen: list[int] = []

    async def note(_: int) -> None:
        seen.append((await run.list_runs(world.pool))[0].published)

    slow.before = note
    done = await letter.redrive(world.pool, slow, world.topics, [each.id for each in letters])

    assert seen == list(range(0, 500, 50))
    assert (len(done.sent), len(await published(world))) == (500, 500)
