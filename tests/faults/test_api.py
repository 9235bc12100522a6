"""
What is asked for over HTTP, while whoever has it in hand is killed: it is done, once, and told as it is.

A run's steps, from the request to its end, and where somebody dies:

    step                                        who      failpoints
    ─────────────────────────────────────────── ──────── ─────────────────────────────────────────────────────────
     1  the key is reserved, the run written    API      api_before_commit, api_after_commit
     2  the answer kept, and sent               API      api_before_answer
     3  the connector claimed                   owner    after_claim
     4  the request taken                       owner    after_request_taken
     5  the run opened                          owner    after_run_opened
     6  the source listed                       owner    while_listing
     7  a batch read                            owner    after_read
     8  published                               owner    before_publish, after_publish
     9  checkpointed, and the checkpoint kept   owner    before_checkpoint, after_checkpoint, state_before_mirror
    10  read to its end                         owner    before_run_closed, after_run_closed
    11  stored                                  sink     before_commit, after_commit
    12  ended, confirmed by the sink            monitor  before_run_ended, after_run_ended

The API has no part in steps 3 to 12, and neither monitor nor sink in those before theirs. Other actions have the steps
1 and 2; a test, a redrive and a replay, which the API carries out itself, have failpoints of their own.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from connectors import sftp
from sinks.ledger import verify, verify_letters
from tests.faults import oracle
from tests.faults.house import Asked, House, open_house
from tests.faults.stage import CONNECTORS_SOON, Stage, Worker, until
from tests.faults.truth import REFUSED_SCHEME

OWNER_DIES = (
    "after_claim",
    "after_request_taken",
    "after_run_opened",
    "while_listing",
    "after_read",
    "before_publish",
    "after_publish",
    "before_checkpoint",
    "after_checkpoint",
    "state_before_mirror",
    "before_run_closed",
    "after_run_closed",
)  # in the order of a run's steps: who comes next gets one step further
SINK_DIES = ("before_commit", "after_commit")
MONITOR_DIES = ("before_run_ended", "after_run_ended")
ROWS = 2_100  # of a file: it is read in two batches
API_DIES = ("api_before_commit", "api_after_commit", "api_before_answer")
COMMIT = ("api_before_commit", "api_after_commit")
PACE = 20  # records a second of a run that is cancelled
SECRETS = ("hunter22 is secret", "hunter23 is secret")


@pytest.fixture
async def house(stage: Stage, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(stage, tmp_path) as made:
        yield made


async def balanced(stage: Stage) -> None:
    """Wait until the ledger and the list of letters balance."""

    async def balances() -> bool:
        return not [*await verify(stage.pool), *await verify_letters(stage.pool)]

    await until(balances, what="the ledger balances")


async def deaths(stage: Stage, role: str, points: tuple[str, ...]) -> Worker:
    """Start workers of a role that die at these points, one after the other; then one that lives."""
    for point in points:
        victim = stage.worker(f"{role}-{point}", role=role, failpoints=f"{point}=kill", **CONNECTORS_SOON)
        assert await victim.ended(within_s=120) == -signal.SIGKILL, point
    return stage.worker(role, role=role, **CONNECTORS_SOON)


async def test_a_run_that_is_asked_for_outlives_its_owner_its_sink_and_its_monitor_at_every_step(
    house: House,
) -> None:
    stage = house.stage
    stage.worker("letters", role="letters", **CONNECTORS_SOON)
    sink = asyncio.create_task(deaths(stage, "sink", SINK_DIES))
    monitor = asyncio.create_task(deaths(stage, "monitor", MONITOR_DIES))
    name = await house.connector("bank", rows=0)
    amounts = house.drop(name, "1", rows=ROWS, bad=1)
    asked = Asked("POST", f"/connectors/{name}/run", {"triggered_by": "USER_123"}, key="run")
    first = await house.ask(asked)
    assert (first.status, first.body["waiting"]) == (202, True)

    for point in OWNER_DIES:
        victim = stage.worker(f"owner-{point}", role="connector", failpoints=f"{point}=kill", **CONNECTORS_SOON)
        assert await victim.ended() == -signal.SIGKILL, point
    survivor = stage.worker("survivor", role="connector", **CONNECTORS_SOON)
    run = await house.ended(first.body["id"])

    assert (run["status"], run["waiting"], run["cancelled"]) == ("PARTIAL_SUCCESS", False, False)
    counts = {each: run[each] for each in ("read", "published", "rejected", "applied", "duplicate", "dead")}
    wanted = {"read": ROWS + 1, "published": ROWS, "rejected": 1, "applied": ROWS, "duplicate": 0, "dead": 0}
    assert counts == wanted
    assert [each["id"] for each in await house.runs_of(name)] == [run["id"]]
    assert (await house.again(asked)).body == first.body
    rows = await stage.pool.fetch("SELECT reference, amount FROM payments")
    assert {row["reference"]: row["amount"] for row in rows} == amounts
    log = await oracle.records_of(stage.bootstrap, stage.events)
    assert len({record.value for record in log}) == await stage.pool.fetchval("SELECT count(*) FROM payment_events")
    assert await house.happened(name, "run.ended") == await house.happened(name, "run.asked") == 1
    await balanced(stage)
    second = await house.ask(Asked("POST", f"/connectors/{name}/run", key="next"))
    again = await house.ended(second.body["id"])
    assert (again["status"], again["read"]) == ("SUCCESS", 0)
    for each in (survivor, await sink, await monitor):
        assert await each.stop() == 0


async def a_run(house: House, point: str) -> None:
    name = await house.connector(f"run {point}")
    asked = Asked("POST", f"/connectors/{name}/run", {"triggered_by": "USER_123"}, key=name)

    await house.dies(point, asked)

    first, second = await house.again(asked), await house.again(asked)
    assert (first.status, first.body) == (202, second.body)
    assert first.headers["Location"] == f"/api/v1/runs/{first.body['id']}"
    assert [each["id"] for each in await house.runs_of(name)] == [first.body["id"]]
    assert await house.happened(name, "run.asked") == 1


async def a_run_of_what_is_gone(house: House, point: str) -> None:
    """Who asks again is told of the run that was made, also where somebody has let go of its connector meanwhile."""
    name = await house.connector(f"gone {point}")
    asked = Asked("POST", f"/connectors/{name}/run", key=name)
    await house.dies(point, asked)
    [run] = await house.runs_of(name)

    assert (await house.ask(Asked("DELETE", f"/connectors/{name}"))).status == 204

    found = await house.again(asked)
    assert (found.status, found.body["id"]) == (202, run["id"])
    assert (found.body["status"], found.body["reason"]) == ("FAILED", "cancelled: its connector was deleted")


async def a_retry(house: House, point: str) -> None:
    name = await house.connector(f"retry {point}")
    run = (await house.ask(Asked("POST", f"/connectors/{name}/run"))).body["id"]
    await house.ask(Asked("POST", f"/runs/{run}/cancel"))
    asked = Asked("POST", f"/runs/{run}/retry", {"triggered_by": "USER_123"}, key=name)

    await house.dies(point, asked)

    first = await house.again(asked)
    assert (first.status, first.body) == (202, (await house.again(asked)).body)
    assert [each["id"] for each in await house.runs_of(name)] == [first.body["id"], run]


async def a_cancel(house: House, point: str) -> None:
    name = await house.connector(f"cancel {point}")
    run = (await house.ask(Asked("POST", f"/connectors/{name}/run"))).body["id"]
    asked = Asked("POST", f"/runs/{run}/cancel", {"by": "USER_123"}, key=name)

    await house.dies(point, asked)

    first = await house.again(asked)
    assert (first.status, first.body) == (202, (await house.again(asked)).body)
    assert (first.body["id"], first.body["status"], first.body["reason"]) == (run, "FAILED", "cancelled")
    assert await house.happened(name, "run.cancelled") == await house.happened(name, "run.ended") == 1
    assert (await house.get(f"/connectors/{name}"))["total_runs"] == 1
    other = await house.ask(Asked("POST", f"/runs/{run}/cancel", key=f"{name} by somebody else"))
    assert (other.status, other.body["code"]) == (409, "conflict")


async def a_pause(house: House, point: str) -> None:
    name = await house.connector(f"pause {point}")
    asked = Asked("POST", f"/connectors/{name}/pause", {"note": "the bank moves house", "by": "USER_123"}, key=name)

    await house.dies(point, asked)

    first = await house.again(asked)
    assert (first.status, first.body) == (200, (await house.again(asked)).body)
    assert (first.body["status"], first.body["pause_note"]) == ("PAUSED", "the bank moves house")
    assert await house.happened(name, "connector.paused") == 1


async def a_new_connector(house: House, point: str) -> None:
    """With a secret by value: what names it is there only where it is, and what was written too much is overwritten."""
    name = f"new {point}"
    made = {"name": name, "kind": "sftp", "configuration": of_sftp(SECRETS[0]), "status": "PAUSED"}
    asked = Asked("POST", "/connectors", made, key=name)

    await house.dies(point, asked)

    first = await house.again(asked)
    assert (first.status, first.body) == (201, (await house.again(asked)).body)
    assert [each["id"] for each in (await house.get(f"/connectors?q={name}"))["data"]] == [first.body["id"]]
    assert secrets_of(house, first.body) == {"password-1": SECRETS[0]}
    assert await house.happened(name, "connector.created") == 1


async def a_change(house: House, point: str) -> None:
    """PUT has no key, but the revision that it is meant for: sent again, it is refused where it was done."""
    name = f"change {point}"
    made = {"name": name, "kind": "sftp", "configuration": of_sftp(SECRETS[0]), "status": "PAUSED"}
    before = await house.ask(Asked("POST", "/connectors", made))
    wanted = {"name": name, "configuration": of_sftp(SECRETS[1]), "status": "PAUSED"}
    asked = Asked("PUT", f"/connectors/{name}", wanted, headers={"If-Match": before.headers["ETag"]})

    await house.dies(point, asked)

    now = await house.get(f"/connectors/{name}")
    done = point == "api_after_commit"
    assert now["version"] == (2 if done else 1)
    reference = now["configuration"]["password"]
    assert reference == f"${{file:{now['id']}/password-{now['version']}}}"
    assert secrets_of(house, now)[f"password-{now['version']}"] == SECRETS[done]
    second = await house.again(asked)
    assert second.status == (412 if done else 200)
    after = await house.get(f"/connectors/{name}")
    assert (after["version"], after["revision"]) == (2, before.body["revision"] + 1)
    assert secrets_of(house, after) == {"password-1": SECRETS[0], "password-2": SECRETS[1]}


async def a_deletion(house: House, point: str) -> None:
    name = await house.connector(f"delete {point}")
    run = (await house.ask(Asked("POST", f"/connectors/{name}/run"))).body["id"]
    asked = Asked("DELETE", f"/connectors/{name}")

    await house.dies(point, asked)

    done = point == "api_after_commit"
    found = await house.run_of(run)
    assert (found["status"], found["reason"]) == (
        ("FAILED", "cancelled: its connector was deleted") if done else ("RUNNING", "")
    )
    assert (await house.ask(asked)).status == (404 if done else 204)
    assert (await house.run_of(run))["status"] == "FAILED"
    assert await house.happened(name, "connector.deleted") == 1


async def what_is_described(house: House, point: str) -> None:
    """All of it or none, whoever asks how often."""
    names = [f"{each} {point}" for each in ("one", "two")]
    described = [{"name": each, "kind": "directory", "configuration": {"directory": "/nowhere"}} for each in names]
    paused = [{**each, "status": "PAUSED"} for each in described]
    asked = Asked("POST", "/connectors:apply", {"connectors": paused}, key=names[0])

    await house.dies(point, asked)

    there = [each["name"] for each in (await house.get("/connectors?limit=200"))["data"] if each["name"] in names]
    assert there == (names if point == "api_after_commit" else [])
    first = await house.again(asked)
    assert (first.status, first.body) == (200, (await house.again(asked)).body)
    for name in names:
        assert await house.happened(name, "connector.created") == 1


async def a_test(house: House, point: str) -> None:
    """Who asks again goes on with the run of before."""
    name = await house.connector(f"test {point}")
    asked = Asked("POST", f"/connectors/{name}/test", {"triggered_by": "USER_123"}, key=name)

    await house.dies(point, asked)

    [begun] = await house.runs_of(name)
    first = await house.again(asked)
    assert (first.status, first.body) == (200, (await house.again(asked)).body)
    assert first.body["run_id"] == begun["id"]
    [run] = await house.runs_of(name)
    crashed = "crashed: the process that tried the source ended"  # a monitor may have been faster than we
    assert (run["type"], run["status"], run["reason"]) in [("TEST", "SUCCESS", ""), ("TEST", "FAILED", crashed)]
    assert (first.body["ok"], first.body["error"]) == (run["status"] == "SUCCESS", run["reason"])
    assert await house.happened(name, "run.ended") == 1


async def a_test_that_nobody_asks_for_again(house: House, point: str) -> None:
    name = await house.connector(f"test alone {point}")
    asked = Asked("POST", f"/connectors/{name}/test", key=name)

    await house.dies(point, asked)

    [begun] = await house.runs_of(name)
    run = await house.ended(begun["id"], within_s=15)  # the monitor's timeout, several times
    assert (run["status"], run["reason"]) == ("FAILED", "crashed: the process that tried the source ended")
    late = await house.again(asked)
    assert (late.status, late.body["run_id"]) == (200, run["id"])
    assert (late.body["ok"], late.body["error"], late.body["steps"]) == (False, run["reason"], [])


CASES: tuple[tuple[Callable[[House, str], Awaitable[None]], tuple[str, ...]], ...] = (
    (a_run, API_DIES),
    (a_run_of_what_is_gone, API_DIES[1:2]),
    (a_retry, COMMIT),
    (a_cancel, API_DIES),
    (a_pause, COMMIT),
    (a_new_connector, API_DIES),
    (a_change, COMMIT),
    (a_deletion, COMMIT),
    (what_is_described, COMMIT),
    (a_test, ("after_test_opened",)),
    (a_test_that_nobody_asks_for_again, ("after_test_opened",)),
)


def of_sftp(password: str) -> dict[str, object]:
    return {**sftp.SPEC.example, "password": password}


def secrets_of(house: House, connector: dict[str, str]) -> dict[str, str]:
    """What is written for it, by file; unfinished files are none of its."""
    return {
        each.name: each.read_text().removesuffix("\n")
        for each in (house.secrets / connector["id"]).iterdir()
        if each.suffix != ".tmp"
    }


async def test_what_is_asked_for_is_done_once_wherever_the_api_is_killed(house: House) -> None:
    """And what still waits for a worker is done by the first that comes."""
    stage = house.stage
    monitor = stage.worker("monitor", role="monitor", **CONNECTORS_SOON)
    tried = [(case, point, asyncio.create_task(case(house, point))) for case, points in CASES for point in points]
    await asyncio.wait([task for *_, task in tried])
    problems = [f"{case.__name__}, {point}: {task.exception()!r}" for case, point, task in tried if task.exception()]
    assert not problems, "\n".join(problems)

    workers = [stage.worker(role, role=role, **CONNECTORS_SOON) for role in ("connector", "sink")]
    asked = await stage.pool.fetch("SELECT run FROM run_requests WHERE ended_at IS NULL")
    ended = [await house.ended(str(row["run"])) for row in asked]

    assert [(each["status"], each["published"], each["applied"]) for each in ended] == [("SUCCESS", 1, 1)] * 5
    assert await stage.pool.fetchval("SELECT count(*) FROM payments") == 5
    assert await stage.pool.fetchval("SELECT count(*) FROM connector_runs WHERE closed_at IS NULL") == 0
    await balanced(stage)
    for each in (*workers, monitor):
        assert await each.stop() == 0


async def test_a_redrive_and_a_replay_survive_the_api_that_carries_them_out(house: House) -> None:
    stage, pool = house.stage, house.stage.pool
    for role in ("sink", "letters", "monitor", "connector"):
        stage.worker(role, role=role, **CONNECTORS_SOON)
    name = await house.connector("bank", rows=0)
    amounts = house.drop(name, "1", rows=3, scheme=REFUSED_SCHEME)
    died = await house.ended((await house.ask(Asked("POST", f"/connectors/{name}/run"))).body["id"])
    assert (died["status"], died["published"], died["dead"]) == ("PARTIAL_SUCCESS", 3, 3)
    await until(lambda: pool.fetchval("SELECT count(*) = 3 FROM dead_letters"), what="the letters are listed")
    await pool.execute("ALTER TABLE payment_events DROP CONSTRAINT refused")  # what they died of is mended
    letters = [each["id"] for each in (await house.get("/dead-letters"))["data"]]

    for point, letter in zip(("before_redrive_sent", "after_redrive_sent", "api_before_answer"), letters, strict=True):
        await a_redrive(house, point, letter)
    for point in ("api_before_commit", "api_after_commit", "while_replaying"):
        await a_replay(house, point)

    rows = await pool.fetch("SELECT reference, amount, adjustments FROM payments")
    assert {row["reference"]: row["amount"] for row in rows} == amounts
    assert await pool.fetchval("SELECT count(*) FROM payment_events") == len(amounts)
    assert await pool.fetchval("SELECT count(*) FROM connector_runs WHERE closed_at IS NULL") == 0
    assert {row["status"] for row in await pool.fetch("SELECT status FROM connector_runs WHERE published = 0")} <= {
        "FAILED"
    }
    await balanced(stage)


async def a_redrive(house: House, point: str, letter: str) -> None:
    """Its letter is sent through again once, by this redrive or, where that sent nothing, by the next."""
    asked = Asked("POST", "/dead-letters:redrive", {"ids": [letter]}, key=point)

    await house.dies(point, asked)

    first = await house.again(asked)
    assert (first.status, first.body["sent"], (await house.again(asked)).body) == (202, [letter], first.body)
    run = await house.ended(first.body["run_id"])
    if point == "api_before_answer":
        assert (run["status"], run["published"], run["applied"]) == ("SUCCESS", 1, 1)
    else:
        assert (run["status"], run["reason"].partition(":")[0]) == ("FAILED", "crashed")
    second = await house.ask(Asked("POST", "/dead-letters:redrive", {"ids": [letter]}, key=f"{point}, once more"))
    if point == "before_redrive_sent":
        assert (second.status, second.body["sent"]) == (202, [letter])
        assert (await house.ended(second.body["run_id"]))["status"] == "SUCCESS"
    else:
        assert (second.status, second.body["sent"], len(second.body["refused"])) == (200, [], 1)
    assert (await house.get(f"/dead-letters/{letter}"))["redrives"] == (2 if point == "before_redrive_sent" else 1)


async def a_replay(house: House, point: str) -> None:
    """What was interrupted is told so once its heart has stopped, and leaves nothing behind."""
    pool, asked = house.stage.pool, Asked("POST", "/replays", {"requested_by": "USER_123"}, key=f"replay {point}")

    await house.dies(point, asked, answers=point == "while_replaying")

    first = await house.again(asked)
    assert (first.status, (await house.again(asked)).body) == (202, first.body)
    if point != "api_before_commit":
        await pool.execute(
            "UPDATE replays SET heartbeat_at = now() - interval '1 hour' WHERE id = $1", first.body["id"]
        )
        assert (await house.get(f"/replays/{first.body['id']}"))["status"] == "interrupted"
        first = await house.ask(Asked("POST", "/replays", key=f"replay {point}, once more"))
        assert first.status == 202, first
    found: list[str] = []

    async def over() -> bool:
        found[:] = [(await house.get(f"/replays/{first.body['id']}"))["status"]]
        return found != ["running"]

    await until(over, what="the replay ends")
    assert found == ["equal"]
    left = "SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, 'replay_')"
    assert await pool.fetchval(left) == 0


async def test_a_cancelled_run_ends_whoever_dies_or_freezes_and_the_next_run_reads_what_it_left(house: House) -> None:
    """
    One file, at a pace at which it takes minutes, and one run after the other that is cancelled in its midst: the API
    dies, the owner dies or freezes over the cancellation, and an owner is frozen that has events in its hands.
    """
    stage, pool = house.stage, house.stage.pool
    stage.worker("sink", role="sink", **CONNECTORS_SOON)
    # it would end what is cancelled after so long, if no owner did: here owners have to
    patient = {**CONNECTORS_SOON, "monitor_heartbeat_timeout_s": "600s"}
    stage.worker("monitor", role="monitor", **patient)
    name = await house.connector("bank", rows=0, records_per_s=PACE)
    amounts = house.drop(name, "1", rows=3_000)

    owner = an_owner(stage, "owner")
    first = await at_work(house, name)
    cancel = Asked("POST", f"/runs/{first}/cancel", key="first")
    await house.dies("api_after_commit", cancel)
    ended = [await cancelled(house, first)]
    assert (await house.again(cancel)).status == 202
    assert await owner.stop() == 0

    mortal = an_owner(stage, "mortal", "before_run_closed=kill@2")  # first it tells of the run before, to be sure
    second = await at_work(house, name)
    await house.ask(Asked("POST", f"/runs/{second}/cancel"))
    assert await mortal.ended() == -signal.SIGKILL
    zombie = an_owner(stage, "zombie", "before_run_closed=stop")
    ended.append(await cancelled(house, second))
    counted = "SELECT (counts->>'published')::integer FROM checkpoints WHERE run_id = $1"
    assert ended[-1]["published"] >= (await pool.fetchval(counted, second) or 0)  # its last checkpoint has a bound

    third = await at_work(house, name)
    await house.ask(Asked("POST", f"/runs/{third}/cancel"))
    await frozen(zombie)
    late = an_owner(stage, "late", "before_publish=stop@5")
    ended.append(await cancelled(house, third))
    await wakes(zombie)

    fourth = (await house.ask(Asked("POST", f"/connectors/{name}/run"))).body["id"]
    await frozen(late)
    await house.ask(Asked("POST", f"/runs/{fourth}/cancel"))
    heir = an_owner(stage, "heir")
    ended.append(await cancelled(house, fourth))
    await wakes(late)

    view = await house.ask(Asked("GET", f"/connectors/{name}"))
    faster = {"configuration": {**view.body["configuration"], "records_per_s": 0}}
    changed = Asked("PATCH", f"/connectors/{name}", faster, headers={"If-Match": view.headers["ETag"]})
    assert (await house.ask(changed)).status == 200
    last = await house.ended((await house.ask(Asked("POST", f"/connectors/{name}/run"))).body["id"])

    assert (last["status"], last["published"]) == ("SUCCESS", last["applied"] + last["duplicate"])
    assert await late_events(stage, ended[:3]) == 0  # of the fourth there are: who woke had them in its hands
    rows = await pool.fetch("SELECT reference, amount FROM payments")
    assert {row["reference"]: row["amount"] for row in rows} == amounts
    assert await pool.fetchval("SELECT count(*) FROM payment_events") == len(amounts)
    assert [await house.run_of(each["id"]) for each in ended[:3]] == ended[:3]  # no late word changed them
    assert await pool.fetchval("SELECT count(*) FROM connector_runs WHERE closed_at IS NULL") == 0
    await balanced(stage)
    assert await heir.stop() == 0


def an_owner(stage: Stage, name: str, failpoints: str = "") -> Worker:
    return stage.worker(name, role="connector", failpoints=failpoints, **CONNECTORS_SOON)


async def at_work(house: House, name: str) -> str:
    """Ask for a run, and wait until the sink holds something of it; its id."""
    run = (await house.ask(Asked("POST", f"/connectors/{name}/run"))).body["id"]

    async def stored() -> bool:
        return (await house.run_of(run))["applied"] > 0

    await until(stored, within_s=60, what="the run publishes")
    return str(run)


async def cancelled(house: House, run: str) -> dict[str, Any]:
    """The run, once it has ended, as it was cancelled."""
    found = await house.ended(run)
    assert (found["status"], found["reason"], found["cancelled"]) == ("FAILED", "cancelled", True)
    return dict(found)


async def frozen(worker: Worker) -> None:
    process = psutil.Process(worker.process.pid)
    await until(lambda: process.status() == psutil.STATUS_STOPPED, what=f"{worker.name} freezes")


async def wakes(worker: Worker) -> None:
    """Let a frozen owner go on until it finds out that it is succeeded; and end it."""
    worker.send(signal.SIGCONT)
    told = ("Connector uninstalled", "connector left behind")
    await until(lambda: any(each in worker.log for each in told), what=f"{worker.name} lets go")
    assert await worker.stop() == 0


async def late_events(stage: Stage, runs: list[dict[str, Any]]) -> int:
    """How many events were published under these runs after their ends."""
    ends = {each["id"]: datetime.fromisoformat(each["completed_at"]).timestamp() * 1_000 for each in runs}
    log = await oracle.records_of(stage.bootstrap, stage.events)
    return sum(record.timestamp > ends.get(dict(record.headers)["till-run"].decode(), math.inf) for record in log)
