"""Workers that come, go, freeze and wake while there is work: the group passes partitions on, and nothing else."""

from __future__ import annotations

import asyncio
import signal

from tests.faults.stage import Stage, open_stage, until
from tests.faults.truth import History
from tests.services import Kafka


async def test_a_worker_frozen_in_a_transaction_is_succeeded_and_its_late_commits_change_nothing(stage: Stage) -> None:
    history = History(seed=2)
    zombie = stage.worker("zombie")
    await stage.publish(history.load(100, garbage=1))
    await stage.drained()

    async with stage.observed():
        async with stage.pool.acquire() as held, held.transaction():
            await held.execute("LOCK TABLE payments IN SHARE MODE")
            await stage.publish(history.load(100, garbage=1, refused=1))
            await until(stage.blocked, what="the worker is within its transaction")
            await stage.looked()
            zombie.send(signal.SIGSTOP)
        heir = stage.worker("heir")
        await stage.publish(history.load(100))
        await stage.drained()

        started = zombie.log.count("partition starts")
        zombie.send(signal.SIGCONT)
        # frozen for long enough, it has nothing left to commit: its transaction has ended without it
        await until(
            lambda: "commit failed" in zombie.log or zombie.log.count("partition starts") > started,
            what="the zombie finds out",
        )
        await zombie.ready()
        await stage.publish(history.load(100, garbage=1, refused=1))
        await stage.check(history.truth)

    assert await zombie.stop() == 0
    assert await heir.stop() == 0


async def test_workers_that_join_leave_and_die_under_load_lose_nothing(kafka: Kafka, database: str) -> None:
    history = History(seed=3)
    async with open_stage(kafka.bootstrap, database, partitions=4) as stage:
        enough = asyncio.Event()

        async def publish() -> None:
            while not enough.is_set():
                await stage.publish(history.load(30, garbage=1))
                await asyncio.sleep(0)

        async with stage.observed():
            first = stage.worker("first")
            await first.ready()
            load = asyncio.create_task(publish())
            second = stage.worker("second")
            await second.ready()
            assert await first.stop() == 0
            third = stage.worker("third")
            await third.ready()
            second.send(signal.SIGKILL)
            fourth = stage.worker("fourth")
            await fourth.ready()
            assert await third.stop() == 0
            enough.set()
            await load
            await stage.check(history.truth)

        assert await fourth.stop() == 0
