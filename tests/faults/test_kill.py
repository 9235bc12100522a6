"""kill -9 at the moments that hurt: between the database's commit, the dead letter's ack and the offset's commit."""

from __future__ import annotations

import signal

from tests.faults.stage import Stage, until
from tests.faults.truth import History

KILLS = (
    "after_commit=kill@1",
    "after_letter_ack=kill@1",
    "mid_bisect=kill@1",
    "after_commit=kill@2",
    "mid_bisect=kill@3",
    "after_letter_ack=kill@2",
    "after_commit=kill@3",
    "after_letter_ack=kill@3",
    "mid_bisect=kill@5",
    "after_commit=kill@4",
)


SOON_S = "1500ms"  # until a killed worker's partitions are free: most of this test's time


async def test_ten_kills_at_the_worst_moments_lose_nothing_and_double_nothing(stage: Stage) -> None:
    history = History(seed=1)
    async with stage.observed():
        for number, failpoint in enumerate(KILLS):
            worker = stage.worker(f"victim-{number}", failpoints=failpoint, kafka_session_timeout_s=SOON_S)
            await stage.publish(history.load(120, garbage=3, refused=3))
            assert await worker.ended() == -signal.SIGKILL, failpoint

        survivor, lister = stage.worker("survivor"), stage.worker("lister", role="letters")
        await stage.check(history.truth)

    # Some were published twice, and none is listed twice.
    poison = {sent.event_id for sent in history.truth.poison}
    await until(lambda: _listed(stage, len(poison)), what="every letter is listed")
    assert {row["event_id"] for row in await stage.pool.fetch("SELECT event_id FROM dead_letters")} == poison
    assert await stage.letters() >= len(poison)
    assert await survivor.stop() == 0
    assert await lister.stop() == 0


async def _listed(stage: Stage, count: int) -> bool:
    return bool(await stage.pool.fetchval("SELECT count(*) FROM dead_letters") == count)
