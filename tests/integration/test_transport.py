"""The slice transport on a real broker, in real processes: what it hands out, what it commits, how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from tests.integration.transport_kit import Bench, Worker, bench, until
from tests.services import Kafka

NewTopic = Callable[..., Awaitable[str]]


@pytest.fixture
async def room(kafka: Kafka, new_topic: NewTopic, tmp_path: Path) -> AsyncIterator[Bench]:
    """A topic of two partitions and its workers."""
    async with bench(kafka.bootstrap, await new_topic("events", partitions=2), tmp_path) as made:
        yield made


async def test_worker_killed_with_slices_in_flight_loses_nothing(room: Bench) -> None:
    total = await room.produce([b"%d" % number for number in range(3_000)], partitions=2)
    for round_number in range(2):
        worker = room.worker(slice_s=0.05, slices={"max_records": 50}, app={"session_timeout_s": 1.5})
        seen = len(room.applied())
        await until(lambda seen=seen: len(room.applied()) > seen + 500)  # type: ignore[misc]
        assert sum(in_flight for in_flight, _, _ in worker.owned().values()) > 0, round_number
        worker.send(signal.SIGKILL)
        await worker.exit_status()

    room.worker()

    await until(lambda: len(room.done()) == total)
    await room.all_committed()


async def test_stopped_worker_commits_what_it_did_and_nothing_more(room: Bench) -> None:
    await room.produce([b"%d" % number for number in range(3_000)], partitions=2)
    worker = room.worker(slice_s=0.1, slices={"max_records": 100})
    await until(lambda: len(room.applied()) > 500)

    asked_at = time.monotonic()
    status = await worker.stop()

    assert status == 0, worker.log()
    assert time.monotonic() - asked_at < 20.0
    did = {partition: 1 + max(o for p, o, _ in room.applied() if p == partition) for partition in (0, 1)}
    assert await room.committed() == did


async def test_next_worker_takes_over_at_once_from_one_that_was_stopped(room: Bench) -> None:
    await room.produce([b"1", b"2"], partitions=2)
    first = room.worker("first", app={"session_timeout_s": 20.0})
    await until(lambda: len(room.done()) == 2)
    await first.stop()
    await room.produce([b"3", b"4"], partitions=2)

    room.worker("second", app={"session_timeout_s": 20.0})

    await until(lambda: len(room.done()) == 4, within_s=10)
    assert len(room.applied()) == 4, "the second worker did something again that was committed"


async def test_handler_that_hangs_stops_neither_heartbeats_nor_the_other_partition_nor_sigterm(room: Bench) -> None:
    worker = room.worker(on_key={"hang": "hang"}, app={"session_timeout_s": 1.5}, run={"finish_s": 1.0})
    await worker.ready()
    hung = await room.producer.send_and_wait(room.topic, b"hangs", key=b"hang", partition=0)
    await until(lambda: worker.events("behaves"))
    frozen_until = time.monotonic() + 2.5  # more than the session timeout

    sent = 0
    while time.monotonic() < frozen_until:
        await room.producer.send_and_wait(room.topic, b"goes on", key=b"k", partition=1)
        sent += 1
        await until(lambda sent=sent: len(room.applied()) == sent)  # type: ignore[misc]

    assert worker.log().count("(Re-)joining group") == 1, "the group thought it dead"
    asked_at = time.monotonic()
    assert await worker.stop() == 0
    assert time.monotonic() - asked_at < 40.0
    assert await room.committed() == {1: sent}
    assert (0, hung.offset) not in room.done()


async def test_handler_that_blocks_the_event_loop_cannot_keep_the_process(room: Bench) -> None:
    await room.produce([b"blocks"], key=b"block")
    worker = room.worker(on_key={"block": "block"}, run={"stop_within_s": 2.0})
    await until(lambda: worker.events("behaves"))

    asked_at = time.monotonic()
    status = await worker.stop()

    assert status == 70
    assert time.monotonic() - asked_at < 24.0
    assert await room.committed() == {}


async def test_exception_out_of_a_handler_ends_the_process_and_its_slice_comes_again(room: Bench) -> None:
    await room.produce([b"good", b"bad", b"never reached"], key=b"k")
    await room.produce([b"bad"], key=b"raise")
    await room.produce([b"after"], key=b"k")

    worker = room.worker(on_key={"raise": "raise"}, slices={"max_records": 1})

    assert await worker.exit_status() == 1
    assert "the handler raises" in worker.log()
    assert room.done() == {(0, 0), (0, 1), (0, 2)}
    assert (await room.committed()).get(0, 0) <= 3
    room.worker("next")
    await until(lambda: len(room.done()) == 5)


async def test_exception_out_of_an_agent_ends_the_process(room: Bench) -> None:
    worker = room.worker(agent="raises")

    assert await worker.exit_status() == 1
    assert "the agent raises" in worker.log()


async def test_ack_that_no_lane_stands_behind_commits_nothing(room: Bench) -> None:
    """Faust acks by itself in many places; here an agent does it on purpose."""
    await room.produce([b"%d" % number for number in range(10)])
    worker = room.worker(agent="acks")

    await until(lambda: "ack of a slice that no lane has finished" in worker.log())
    await worker.stop()

    assert await room.committed() == {}


async def test_no_progress_while_there_is_lag_ends_the_process(room: Bench) -> None:
    await room.produce([b"hangs"], key=b"hang")

    worker = room.worker(on_key={"hang": "hang"}, run={"stall_s": 2.0, "lag_every_s": 0.2})

    assert await worker.exit_status() == 70
    assert "no progress while there is lag" in worker.log()


async def test_partition_on_hold_waits_while_the_other_goes_on_and_the_group_stays(room: Bench) -> None:
    (room.folder / "hold").touch()
    worker = room.worker(
        hold=(0,), app={"session_timeout_s": 1.5, "heartbeat_s": 0.3}, run={"stall_s": 2.0, "lag_every_s": 0.2}
    )
    await worker.ready()
    await room.produce([b"held", b"free"], partitions=2)

    await until(lambda: (1, 0) in room.done())
    held_until = time.monotonic() + 3.5
    while time.monotonic() < held_until:
        await room.producer.send_and_wait(room.topic, b"free", partition=1)

    assert not any(partition == 0 for partition, _ in room.done())
    (room.folder / "hold").unlink()
    await until(lambda: (0, 0) in room.done())
    assert worker.log().count("(Re-)joining group") == 1


async def test_what_is_in_flight_is_bounded_in_slices_and_bytes(room: Bench) -> None:
    await room.produce([b"x" * 10_000] * 2_000, partitions=2, key=b"hang")

    worker = room.worker(
        on_key={"hang": "hang"},
        slices={"max_records": 100, "max_bytes": 200_000, "max_slices_in_flight": 3, "max_bytes_in_flight": 500_000},
    )

    await until(lambda: sum(in_flight for in_flight, _, _ in worker.owned().values()) >= 3)
    states = worker.events("owned")
    assert max(max((part[0] for part in state.values()), default=0) for state in states) <= 3
    assert max(sum(part[1] for part in state.values()) for state in states) <= 500_000 + 2 * (200_000 + 10_500)


async def test_records_written_by_other_clients_arrive_raw(room: Bench, kafka: Kafka) -> None:
    """Every compression, null keys, tombstones and headers."""
    written = []
    for compression in ("gzip", "snappy", "lz4", "zstd"):
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=compression, linger_ms=50)
        await producer.start()
        headers = [("run", b"\xff\x00"), ("none", None)]
        values = [f"{compression}-{number}".encode() for number in range(200)]
        sends = [await producer.send(room.topic, value, partition=0, headers=headers) for value in values]
        sends.append(await producer.send(room.topic, None, key=b"tombstone", partition=0))
        written += [value.decode() for value in values] + ["null"]
        await asyncio.gather(*sends)
        await producer.stop()

    worker = room.worker()

    await until(lambda: len(room.applied()) == len(written), what=worker.log())
    assert [value for _, _, value in room.applied()] == written
    await room.all_committed()


async def test_transaction_markers_at_the_end_of_a_log_are_committed_past(room: Bench, kafka: Kafka) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"{room.topic}-writer")
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(room.topic, b"one", partition=0)
    await producer.stop()
    assert (await room.ends())[0] == 2, "one record and one marker"

    room.worker()

    await room.all_committed()
    assert room.done() == {(0, 0)}


async def test_consumption_starts_at_the_sinks_offset_if_that_is_lower_and_never_moves_the_group_back(
    room: Bench,
) -> None:
    """A restored database: the group is at 40, the sink holds 10 of one partition and nothing of the other."""
    await room.produce([b"%d" % number for number in range(80)], partitions=2)
    first = room.worker("first")
    await room.all_committed()
    await first.stop()
    (room.folder / "first.journal").unlink()
    (room.folder / "sink").write_text(json.dumps({"0": 10}))

    second = room.worker("second", sink=str(room.folder / "sink"), slices={"max_records": 7})

    await until(lambda: len(room.done()) == 70)
    assert room.done() == {(0, offset) for offset in range(10, 40)} | {(1, offset) for offset in range(40)}
    await room.produce([b"next"])
    await room.all_committed()
    assert min((await room.committed()).values()) >= 40
    assert "sink_is_behind" in second.log()


async def test_sink_that_does_not_answer_is_asked_again_and_nothing_is_read_before_it_does(room: Bench) -> None:
    await room.produce([b"1", b"2"], partitions=2)
    worker = room.worker(
        sink=str(room.folder / "sink"),
        app={"session_timeout_s": 1.5, "heartbeat_s": 0.3},
        run={"stall_s": 2.0, "lag_every_s": 0.2},
    )
    await until(lambda: "start positions not known yet" in worker.log())
    waited_until = time.monotonic() + 3.5
    await until(lambda: time.monotonic() > waited_until)
    assert room.applied() == []

    (room.folder / "sink").write_text("{}")

    await until(lambda: len(room.done()) == 2)
    assert worker.log().count("(Re-)joining group") == 1


async def test_offset_that_was_deleted_from_the_log_becomes_the_earliest_and_is_reported(room: Bench) -> None:
    await room.produce([b"%d" % number for number in range(20)])
    first = room.worker("first")
    await room.all_committed()
    await first.stop()
    await room.produce([b"deleted unread"] * 10)
    await room.produce([b"there"] * 5)
    tp = TopicPartition(room.topic, 0)
    await room.admin.delete_records({tp: RecordsToDelete(before_offset=30)})

    worker = room.worker("second")

    await room.all_committed()
    assert {offset for _, offset, value in room.applied() if value == "there"} == set(range(30, 35))
    assert "offset not in the log any more" in worker.log()


async def test_records_deleted_under_a_running_worker_are_passed_and_reported(room: Bench) -> None:
    worker = room.worker(hold=(0,))
    await worker.ready()
    (room.folder / "hold").touch()
    await room.produce([b"x"] * 30)
    await asyncio.sleep(0)
    await room.admin.delete_records({TopicPartition(room.topic, 0): RecordsToDelete(before_offset=20)})

    (room.folder / "hold").unlink()

    await room.all_committed()
    assert room.done() >= {(0, offset) for offset in range(20, 30)}


async def test_topic_of_stock_faust_works_beside_one_with_slices(room: Bench, new_topic: NewTopic) -> None:
    stock = await new_topic("stock")
    worker = room.worker(stock_topic=stock)
    await worker.ready()

    await room.produce([b"%d" % number for number in range(100)], partitions=2)
    for number in range(100):
        await room.producer.send_and_wait(stock, b"%d" % number)

    await until(lambda: len(worker.events("stock")) == 100 and len(room.done()) == 100)
    assert worker.events("stock") == [str(number) for number in range(100)]
    assert await worker.stop() == 0


async def test_single_record_reaches_an_idle_worker_within_milliseconds(room: Bench) -> None:
    worker = room.worker()
    await worker.ready()

    for number in range(40):
        await room.producer.send_and_wait(room.topic, b"%d" % number, partition=number % 2)
        await until(lambda number=number: len(room.applied()) > number)  # type: ignore[misc]

    late_s = worker.events("late_s")
    assert statistics.median(late_s) < 0.05, late_s


async def test_two_workers_joining_and_leaving_under_load_lose_nothing_and_never_move_offsets_back(
    room: Bench,
) -> None:
    committed, moves_back = {0: 0, 1: 0}, []

    async def watch() -> None:
        while True:
            for partition, offset in (await room.committed()).items():
                if offset < committed[partition]:
                    moves_back.append((partition, committed[partition], offset))
                committed[partition] = offset
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    mood = {"slice_s": 0.02, "slices": {"max_records": 100}, "app": {"session_timeout_s": 2.0}}
    room.worker("steady", **mood)
    async with room.load():
        for number in range(2):
            guest = room.worker(f"guest {number}", **mood)
            await until(lambda guest=guest: guest.events("slice"))  # type: ignore[misc]
            if number:
                guest.send(signal.SIGKILL)
            await _gone(guest)

    await room.all_done()
    watching.cancel()
    assert moves_back == []


async def _gone(worker: Worker) -> None:
    worker.send(signal.SIGTERM)
    await worker.exit_status()


async def test_worker_that_joins_or_leaves_in_order_makes_nobody_do_anything_twice(room: Bench) -> None:
    """Revocation waits for what is being applied, and commits it."""
    mood = {"slice_s": 0.05, "slices": {"max_records": 100}}
    first = room.worker("first", **mood)
    async with room.load():
        await until(lambda: first.events("slice"))
        second = room.worker("second", **mood)
        await until(lambda: second.events("slice"))
        await first.stop()

    await room.all_done()
    assert len(room.applied()) == len(room.done())


async def test_slice_that_faust_drops_is_handed_out_again(room: Bench) -> None:
    worker = room.worker(flaps=True, slices={"max_records": 5})
    await worker.ready()

    total = await room.produce([b"x"] * 1_000, partitions=2)

    await until(lambda: len(room.done()) == total)
    assert len(room.applied()) == total
    await room.all_committed()


async def test_topic_that_is_made_after_the_worker_has_started_is_consumed(
    kafka: Kafka, new_topic: NewTopic, topic_prefix: str, tmp_path: Path
) -> None:
    """So is one that a broker did not know when it had just started, and the group's leader asked."""
    async with bench(kafka.bootstrap, f"{topic_prefix}late", tmp_path) as room:
        worker = room.worker()
        await until(lambda: "worker started" in worker.log())

        await new_topic("late", partitions=2)
        await room.produce([b"1", b"2"], partitions=2)

        await until(lambda: len(room.done()) == 2, within_s=10, what=worker.log())


async def test_frozen_worker_commits_nothing_when_it_thaws_and_joins_again(room: Bench) -> None:
    mood = {"slice_s": 0.3, "slices": {"max_records": 20}, "app": {"session_timeout_s": 2.0, "heartbeat_s": 0.3}}
    zombie = room.worker("zombie", **mood)
    await zombie.ready()
    total = await room.produce([b"x"] * 400, partitions=2)
    await until(lambda: len(room.applied()) > 40)
    in_flight = 3 * 2 * 20  # slices, partitions, records

    zombie.send(signal.SIGSTOP)
    heir = room.worker("heir", app={"session_timeout_s": 2.0, "heartbeat_s": 0.3})
    await until(lambda: len(room.done()) == total)
    await room.all_committed()
    at_the_end = await room.committed()
    await heir.stop()  # the group is empty now: from a commit without a generation it would take anything
    zombie.send(signal.SIGCONT)

    joined = zombie.log().count("Joined group")
    await until(lambda: zombie.log().count("Joined group") > joined)
    await until(lambda: zombie.events("ready")[-1])
    await room.produce([b"again"] * 2, partitions=2)
    await until(lambda: len(room.done()) == total + 2)
    twice = len(room.applied()) - len(room.done())
    assert twice <= in_flight, "the zombie moved the group back"
    assert min((await room.committed()).values()) >= min(at_the_end.values())
