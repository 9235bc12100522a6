"""Objects of which no record could be used: told as long as they are there, and read again under another mapping."""

from __future__ import annotations

from connectors.runner import State
from connectors.testing import ManualClock, Memory, eventually, run_through, running
from tests.unit.connectors.scripted import Script, make_runner


async def test_what_could_not_be_used_is_read_once_more_under_each_new_configuration() -> None:
    script, memory = Script({"a": [["bad 1", "bad 2"]], "b": [["3", "bad 4"]]}), Memory()
    await run_through(make_runner(script, memory, version=1))
    await run_through(make_runner(script, memory, version=1, epoch=2))
    assert script.read_from == [("a", None), ("b", None)]

    await run_through(make_runner(script, memory, version=2, epoch=3))
    await run_through(make_runner(script, memory, version=2, epoch=4))
    assert script.read_from[2:] == [("a", None)]

    script.objects["a"] = [["1", "2"]]  # as a corrected mapping reads it
    await run_through(make_runner(script, memory, version=3, epoch=5))
    await run_through(make_runner(script, memory, version=4, epoch=6))
    assert script.read_from[3:] == [("a", None)]
    assert memory.last_run.counts.published == 2


async def test_a_checkpoint_of_old_is_of_no_configuration_and_its_object_is_read_again_where_it_was_of_no_use() -> None:
    script, memory = Script({"a": [["bad 1"]], "b": [["3"]]}), Memory()
    await run_through(make_runner(script, memory))
    for key, checkpoint in memory.state.items():
        memory.state[key] = checkpoint.model_copy(update={"configuration_version": 0, "used": False})

    await run_through(make_runner(script, memory, epoch=2))

    assert script.read_from == [("a", None), ("b", None), ("a", None)]


async def test_what_was_of_use_before_it_was_forced_again_is_not_read_under_every_configuration() -> None:
    script, memory = Script({"a": [["1"], ["bad 2"]]}), Memory()
    runner = make_runner(script, memory, checkpoint_s=0)
    await run_through(runner)
    state = memory.state["a"]
    # a stop came between the two batches: the second run rejects all that it reads
    memory.state["a"] = state.model_copy(update={"done": False, "cursor": {"batch": 1}})
    await run_through(make_runner(script, memory, epoch=2))

    await run_through(make_runner(script, memory, epoch=3, version=2))

    assert [since for _, since in script.read_from] == [None, {"batch": 1}]


async def test_a_connector_whose_object_is_of_no_use_is_degraded_and_says_why_until_it_is_used() -> None:
    script, memory, clock = Script({"a": [["bad 1"]]}), Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock)

    async with running(runner):
        await eventually(lambda: memory.letters and not runner.status.open_runs and clock.sleeps(10))
        assert runner.status.state is State.DEGRADED
        assert runner.status.problems == ("a: no record of it could be used: no amount",)
        assert "mapping" in runner.status.hint
        clock.advance(10)
        await eventually(lambda: script.listings == 2 and clock.sleeps(10))
        assert runner.status.state is State.DEGRADED
        del script.objects["a"]
        script.objects["b"] = [["2"]]
        clock.advance(10)
        await eventually(lambda: script.listings == 3 and memory.log and clock.sleeps(10))
        clock.advance(10)
        await eventually(lambda: script.listings == 4 and clock.sleeps(10))
        script.objects["c"] = [["3"]]
        clock.advance(10)
        await eventually(lambda: len(memory.log) == 2 and not runner.status.open_runs)
        assert runner.status.problems == ()


async def test_a_restarted_connector_still_says_that_an_object_is_of_no_use() -> None:
    script, memory, clock = Script({"a": [["bad 1"]]}), Memory(), ManualClock()
    await run_through(make_runner(script, memory))
    runner = make_runner(script, memory, clock=clock, epoch=2)

    async with running(runner):
        await eventually(lambda: script.listings == 2 and clock.sleeps(10))
        assert runner.status.problems == ("a: no record of it could be used",)


async def test_a_letter_says_how_to_read_again_after_the_mapping_was_corrected() -> None:
    script, memory = Script({"a": [["1", "bad 2"]]}), Memory()

    await run_through(make_runner(script, memory))

    assert memory.letters[0].hint.endswith(
        "correct the mapping of the connector, then `till connector run example --force`"
    )
