from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from streams.lanes import Lanes
from streams.slice import Slice


@dataclass(slots=True)
class Receipt:
    """What the transport's message is to a lane."""

    is_ours: bool = True
    finished: bool = False

    def finish(self) -> None:
        self.finished = True


@dataclass(slots=True)
class Event:
    value: Slice
    message: Receipt = field(default_factory=Receipt)


def event(number: int, *, partition: int = 0) -> Event:
    return Event(Slice("topic", partition, [], number, number + 1, 0))


class Hands:
    """Applies slices when the test lets it, and tells what happened in which order."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self._gates: dict[int, asyncio.Event] = {}

    async def prepare(self, whole: Slice) -> Slice:
        self.story.append(f"prepare {whole.first_offset}")
        return whole

    async def apply(self, whole: Slice) -> None:
        self.story.append(f"apply {whole.first_offset}")
        await self._gate(whole.first_offset).wait()
        self.story.append(f"applied {whole.first_offset}")

    def done(self, each: Event) -> None:
        assert each.message.finished
        self.story.append(f"done {each.value.first_offset}")

    def let(self, *numbers: int) -> None:
        for number in numbers:
            self._gate(number).set()

    def _gate(self, number: int) -> asyncio.Event:
        return self._gates.setdefault(number, asyncio.Event())


async def soon(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(3):
        while not condition():  # noqa: ASYNC110  the condition is the story of the hands
            await asyncio.sleep(0)


async def settled() -> None:
    """Everything that can happen without an outside event has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
async def lanes(hands: Hands) -> Any:
    made = Lanes(hands.prepare, hands.apply)
    yield made
    await made.close(timeout_s=0)


async def test_slices_of_a_partition_are_applied_one_after_the_other_in_order(
    lanes: Lanes[Slice], hands: Hands
) -> None:
    hands.let(0, 1, 2)

    for number in range(3):
        lanes.submit(event(number), done=hands.done)

    await soon(lambda: "done 2" in hands.story)
    applied = [line for line in hands.story if not line.startswith("prepare")]
    assert applied == [f"{what} {number}" for number in range(3) for what in ("apply", "applied", "done")]


async def test_next_slice_is_prepared_while_the_one_before_it_is_being_applied(
    lanes: Lanes[Slice], hands: Hands
) -> None:
    for number in range(4):
        lanes.submit(event(number), done=hands.done)

    await settled()

    assert hands.story == ["prepare 0", "prepare 1", "apply 0"]


async def test_partitions_are_applied_at_once(lanes: Lanes[Slice], hands: Hands) -> None:
    for partition in range(3):
        lanes.submit(event(partition, partition=partition), done=hands.done)

    await settled()

    assert {"apply 0", "apply 1", "apply 2"} <= set(hands.story)


async def test_done_may_be_a_coroutine_function(lanes: Lanes[Slice], hands: Hands) -> None:
    async def done(each: Event) -> bool:
        hands.done(each)
        return True

    hands.let(0)
    lanes.submit(event(0), done=done)

    await soon(lambda: "done 0" in hands.story)


async def test_slice_is_not_done_before_its_effect_is_durable(lanes: Lanes[Slice], hands: Hands) -> None:
    one = event(0)
    lanes.submit(one, done=hands.done)

    await settled()

    assert hands.story == ["prepare 0", "apply 0"]
    assert not one.message.finished


@pytest.mark.parametrize("stage", ["prepare", "apply"])
async def test_exception_out_of_a_handler_fails_everything_and_no_slice_is_done_any_more(stage: str) -> None:
    hands = Hands()
    bug = RuntimeError("a bug")

    async def prepare(whole: Slice) -> Slice:
        if stage == "prepare" and whole.first_offset == 1:
            raise bug
        return whole

    async def apply(whole: Slice) -> None:
        if stage == "apply" and whole.first_offset == 1:
            raise bug
        await hands.apply(whole)

    lanes = Lanes(prepare, apply)
    lanes.submit(event(7, partition=1), done=hands.done)
    hands.let(0, 2)

    for number in range(3):
        lanes.submit(event(number), done=hands.done)

    assert await lanes.wait_failed() is bug
    hands.let(7)
    lanes.submit(event(8, partition=1), done=hands.done)
    await settled()
    assert not {"done 1", "done 2", "done 7", "done 8"} & set(hands.story)


async def test_handler_that_cancels_itself_is_a_failure_and_not_an_end() -> None:
    """asyncio would swallow it: the lane would be gone, its slice never done, and nobody told."""

    async def cancels_itself(_: Slice) -> None:
        raise asyncio.CancelledError

    lanes = Lanes.of(cancels_itself)
    lanes.submit(event(0), done=lambda _: None)

    assert isinstance(await lanes.wait_failed(), asyncio.CancelledError)


async def test_revocation_waits_for_the_slice_being_applied_and_drops_those_behind_it(
    lanes: Lanes[Slice], hands: Hands
) -> None:
    for number in range(3):
        lanes.submit(event(number), done=hands.done)
    await settled()

    revoked = asyncio.create_task(lanes.revoke([("topic", 0)], timeout_s=5))
    await settled()
    assert not revoked.done()
    hands.let(0, 1, 2)
    await revoked

    assert "done 0" in hands.story
    assert not {"apply 1", "apply 2"} & set(hands.story)


async def test_revocation_abandons_a_slice_that_takes_too_long(lanes: Lanes[Slice], hands: Hands) -> None:
    one = event(0)
    lanes.submit(one, done=hands.done)
    await settled()

    await lanes.revoke([("topic", 0)], timeout_s=0.01)
    hands.let(0)
    await settled()

    assert hands.story == ["prepare 0", "apply 0"]
    assert not one.message.finished
    assert lanes.failure is None


async def test_other_partitions_go_on_while_one_is_revoked(lanes: Lanes[Slice], hands: Hands) -> None:
    lanes.submit(event(0), done=hands.done)
    lanes.submit(event(1, partition=1), done=hands.done)
    await settled()

    await lanes.revoke([("topic", 0)], timeout_s=0.01)
    hands.let(1)

    await soon(lambda: "done 1" in hands.story)


async def test_error_on_the_way_out_of_an_abandoned_slice_is_no_bug() -> None:
    """A driver that is cancelled in a transaction raises what it likes."""

    async def apply(_: Slice) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("cancelled in a transaction")

    lanes = Lanes.of(apply)
    lanes.submit(event(0), done=lambda _: None)
    await settled()

    await lanes.revoke([("topic", 0)], timeout_s=0.01)

    assert lanes.failure is None


async def test_partition_that_comes_back_waits_for_a_handler_that_was_left_behind(
    monkeypatch: pytest.MonkeyPatch, hands: Hands
) -> None:
    monkeypatch.setattr("streams.lanes.CANCEL_S", 0.01)

    async def resists(whole: Slice) -> None:
        if whole.first_offset == 0:
            await _through_cancellation(hands.apply(whole))
        else:
            await hands.apply(whole)

    lanes = Lanes.of(resists)
    lanes.submit(event(0), done=hands.done)
    await settled()
    await lanes.revoke([("topic", 0)], timeout_s=0.01)

    hands.let(1)
    lanes.submit(event(1), done=hands.done)
    await settled()
    assert "apply 1" not in hands.story
    hands.let(0)

    await soon(lambda: "done 1" in hands.story)
    assert hands.story.index("applied 0") < hands.story.index("apply 1")
    await lanes.close(timeout_s=0)


async def _through_cancellation(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue


async def test_slice_of_a_revoked_partition_is_not_applied(lanes: Lanes[Slice], hands: Hands) -> None:
    late = event(0)
    late.message.is_ours = False

    lanes.submit(late, done=hands.done)

    await settled()
    assert hands.story == []


async def test_closed_lanes_take_nothing(lanes: Lanes[Slice], hands: Hands) -> None:
    await lanes.close(timeout_s=1)

    lanes.submit(event(0), done=hands.done)

    await settled()
    assert hands.story == []
    assert lanes.busy == 0


async def test_busy_counts_what_is_submitted_and_not_done(lanes: Lanes[Slice], hands: Hands) -> None:
    for number in range(3):
        lanes.submit(event(number), done=hands.done)
    hands.let(0)
    await soon(lambda: "done 0" in hands.story)
    await settled()

    assert lanes.busy == 2
