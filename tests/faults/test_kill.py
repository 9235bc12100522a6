"""kill -9 at the moments that hurt: between the database's commit, the dead letter's ack and the offset's commit."""

from __future__ import annotations

import signal

from tests.faults.stage import Stage, until
from tests.faults.truth import History

# Some die soon, in what their predecessors did and did not commit; some far on, and leave much of that behind.
# Each round brings some 450 records, so about 10 slices and 30 commits, 4 letters, 15 cuts by half.
KILLS = (
    "after_commit=kill@1",
    "after_letter_ack=kill@3",
    "mid_bisect=kill@1",
    "after_commit=kill@24",
    "mid_bisect=kill@5",
    "after_letter_ack=kill@1",
    "after_commit=kill@8",
    "after_letter_ack=kill@4",
    "mid_bisect=kill@10",
    "after_commit=kill@16",
)
SLICE = "50"
SOON = {"kafka_session_timeout_s": "1500ms"}  # until a killed worker's partitions are free: most of this test's time


async def test_ten_kills_at_the_worst_moments_lose_nothing_and_double_nothing(stage: Stage) -> None:
    history = History(seed=1)
    async with stage.observed():
        for number, failpoint in enumerate(KILLS):
            worker = stage.worker(f"victim-{number}", failpoints=failpoint, sink_slice_events=SLICE, **SOON)
            await stage.publish(history.load(150, garbage=3, refused=3))
            assert await worker.ended() == -signal.SIGKILL, failpoint

        survivor, lister = stage.worker("survivor"), stage.worker("lister", role="letters")
        await stage.check(history.truth)
        assert await survivor.metric("tillstream_events_total", outcome="redelivered") > 0

    # Some were published twice, and none is listed twice.
    poison = {sent.event_id for sent in history.truth.poison}
    await until(lambda: _listed(stage, len(poison)), what="every letter is listed")
    assert {row["event_id"] for row in await stage.pool.fetch("SELECT event_id FROM dead_letters")} == poison
    assert await stage.letters() > len(poison)
    assert await survivor.stop() == 0
    assert await lister.stop() == 0


async def _listed(stage: Stage, count: int) -> bool:
    return bool(await stage.pool.fetchval("SELECT count(*) FROM dead_letters") == count)
