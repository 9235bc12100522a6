"""Payments, dead letters, the ledger and replays over HTTP, over what a sink and a broker really hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas.letter import Stage
from schemas.topic import topics
from sinks.letters import LetterTable
from sinks.postgres import PostgresSink
from sinks.read import page_payments
from streams.provision import provision
from streams.publisher import EventPublisher, Producer
from streams.reader import find_range
from streams.replay import replay as apply_live
from tests.integration import api_kit
from tests.integration.api_kit import Client
from tests.integration.test_api_connectors import made
from tests.integration.test_api_frame import problem
from tests.integration.test_discard import a_letter
from tests.integration.test_replay import message
from tests.model.history import PLACE, record
from tests.services import Kafka

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def sink(api: Client, database: str) -> AsyncIterator[PostgresSink]:
    opened = await PostgresSink.open(database)
    yield opened
    await opened.close()


async def paged(api: Client, path: str) -> list[Any]:
    """All elements of a list, page by page."""
    found, after = [], ""
    while True:
        answer = await api.get(f"{path}{after}")
        assert answer.status == 200, answer.text
        found += answer.body["data"]
        if answer.body["next"] is None:
            return found
        after = f"{'&' if '?' in path else '?'}after={answer.body['next']}"


async def test_payments_are_filtered_and_paged(api: Client, sink: PostgresSink) -> None:
    records = [record("succeeded", 100 + n, reference=f"R{n}", at=n + 1) for n in range(5)]
    records.append(record("pending", 7, reference="R9"))
    await sink.apply(PLACE, records, next_offset=6)

    everything = await paged(api, "/payments?limit=2")

    assert [each["reference"] for each in everything] == ["R9", "R4", "R3", "R2", "R1", "R0"]
    assert (everything[1]["amount"], everything[1]["status"], everything[1]["asset"]) == (104, "succeeded", "USD")
    assert [each["reference"] for each in await paged(api, "/payments?status=pending")] == ["R9"]
    assert [each["reference"] for each in await paged(api, "/payments?reference=R3")] == ["R3"]
    assert [each["reference"] for each in await paged(api, "/payments?provider=example&reference=R3")] == ["R3"]
    assert await paged(api, "/payments?provider=example&reference=R3&status=pending") == []
    assert len(await paged(api, "/payments?type=payin&asset=USD&limit=1")) == 6
    assert await paged(api, "/payments?provider=nobody") == []
    since = everything[2]["created_at"].replace("+", "%2B")
    assert [each["reference"] for each in await paged(api, f"/payments?since={since}")] == ["R4", "R3"]
    problem(await api.get("/payments?status=gone"), 422, "invalid")


async def test_payments_of_a_connector_are_those_that_it_brought(
    api: Client, sink: PostgresSink, tmp_path: Path, database: str
) -> None:
    await made(api, "bank", tmp_path)
    await sink.apply(PLACE, [record("succeeded", 100)], next_offset=1)

    assert await paged(api, "/payments?connector=bank") == []
    problem(await api.get("/payments?connector=nobody"), 404, "not_found")


async def test_a_page_that_looks_at_few_goes_on_where_it_stood(
    sink: PostgresSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record("succeeded", n + 1, reference=f"R{n}") for n in range(10)]
    await sink.apply(PLACE, records, next_offset=10)
    monkeypatch.setattr("sinks.read._LOOKED", 3)

    found, place, pages = [], None, 0
    while True:
        page, place = await page_payments(sink.pool, after=place, limit=2)
        found += [each.payment.reference for each in page]
        pages += 1
        if place is None:
            break

    assert found == [f"R{n}" for n in reversed(range(10))]
    assert pages >= 5


async def test_the_last_proof_tells_what_does_not_balance_until_the_next(api: Client, sink: PostgresSink) -> None:
    await sink.apply(PLACE, [record("succeeded", 100)], next_offset=1)
    await api.world.pool.execute("UPDATE payments SET amount = 99")

    found = (await api.post("/ledger:verify")).body
    await api.world.pool.execute("UPDATE payments SET amount = 100")
    kept = (await api.get("/ledger")).body
    mended = (await api.post("/ledger:verify")).body

    assert (found["balanced"], found["wrong"]) == (False, True)
    assert [(each["hop"], each["problem"]) for each in found["findings"]] == [
        ("payments", "the payment is not what its events say")
    ]
    assert kept == found
    assert (mended["balanced"], mended["findings"]) == (True, [])
    assert mended["began_at"] > found["verified_at"]


async def test_seed_000s_pages_look_at_few_and_show_each_payment_once_while_more_come_in(
    api: Client, sink: PostgresSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is looked at: a filter that matches little costs no more than one that matches all."""
    monkeypatch.setattr("sinks.read._LOOKED", 3)
    records = [record(("pending", "succeeded")[n % 2], n + 1, reference=f"R{n}") for n in range(10)]
    await sink.apply(PLACE, records, next_offset=10)

    found, pages, path = [], 0, "/payments?status=pending&limit=5"
    while path:
        answer = await api.ask("GET", path)
        found += [each["reference"] for each in answer.body["data"]]
        pages += 1
        late = record("pending", 1, reference=f"late{pages}")
        await sink.apply(PLACE, [late], next_offset=10 + pages)
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")

    assert found == [f"R{n}" for n in reversed(range(0, 10, 2))]
    assert pages == 4  # of three payments each, of which one or two are pending
    assert (await api.ask("GET", "/payments?status=settled")).body["data"] == []


async def test_pages_of_letters_show_each_once_while_more_are_listed(api: Client) -> None:
    letters = [a_letter(row).model_copy(update={"failed_at": AT}) for row in range(7)]
    for offset, each in enumerate(letters):
        await LetterTable(api.world.pool).put(each, partition=0, offset=offset)

    found, after, page = [], "", 0
    while after is not None:
        answer = (await api.get(f"/dead-letters?limit=2{after and f'&after={after}'}")).body
        found += [each["id"] for each in answer["data"]]
        after, page = answer["next"], page + 1
        late = a_letter(40 + page).model_copy(update={"failed_at": AT + timedelta(minutes=page)})
        await LetterTable(api.world.pool).put(late, partition=0, offset=100 + page)

    assert found == sorted(each.id for each in letters)


async def test_a_group_of_letters_tells_its_newest_whosever_they_are(api: Client, tmp_path: Path) -> None:
    """A letter may have a connector's name and no connector: then it is in a group of its own."""
    owner = (await made(api, "bank", tmp_path))["id"]
    for row, (connector_id, minutes) in enumerate([(owner, 1), (owner, 3), (None, 9), (None, 7), (owner, 2)]):
        letter = a_letter(row).model_copy(
            update={
                "connector_id": connector_id and UUID(connector_id),
                "connector": "bank",
                "failed_at": AT + timedelta(minutes=minutes),
                "message": f"after {minutes} minutes",
            }
        )
        await LetterTable(api.world.pool).put(letter, partition=0, offset=row)

    groups = (await api.get("/dead-letters/groups")).body["data"]
    discarded = (
        await api.post("/dead-letters:discard", {"ids": [groups[0]["last_id"]], "note": "n", "by": "ops"})
    ).body
    left = (await api.get("/dead-letters/groups?connector=bank")).body["data"]
    gone = (await api.get("/dead-letters/groups?state=discarded")).body["data"]

    assert [(each["connector_id"], each["letters"], each["message"]) for each in groups] == [
        (owner, 3, "after 3 minutes"),
        (None, 2, "after 9 minutes"),
    ]
    assert len(discarded["discarded"]) == 1
    assert [(each["letters"], each["message"]) for each in left] == [(2, "after 2 minutes")]
    assert [(each["letters"], each["message"]) for each in gone] == [(1, "after 3 minutes")]


async def test_a_payment_is_followed_back_to_its_records(api: Client, sink: PostgresSink) -> None:
    await sink.apply(PLACE, [record("succeeded", 100), record("refunded", 30, reference="r1", at=2)], next_offset=2)
    (listed,) = (await api.get("/payments")).body["data"]

    shown = await api.get(f"/payments/{listed['id']}")
    lineage = (await api.get(f"/payments/{listed['id']}/lineage")).body

    assert shown.body == listed
    assert lineage["payment"] == listed
    assert [each["status"] for each in lineage["events"]] == ["succeeded", "refunded"]
    assert all(each["topic"] == PLACE.topic and each["partition"] == PLACE.partition for each in lineage["events"])
    assert {each["run"] for each in lineage["events"]} == {each["run"] for each in listed["adjustments"]}
    problem(await api.get("/payments/none"), 404, "not_found")
    problem(await api.get("/payments/none/lineage"), 404, "not_found")


async def test_dead_letters_are_listed_grouped_shown_and_let_go(api: Client) -> None:
    letters = [a_letter(row) for row in range(5)]
    for offset, each in enumerate(letters):
        await LetterTable(api.world.pool).put(each, partition=0, offset=offset)

    listed = await paged(api, "/dead-letters?limit=2")
    (group,) = (await api.get("/dead-letters/groups")).body["data"]
    shown = (await api.get(f"/dead-letters/{letters[0].id}")).body

    assert [each["id"] for each in listed] == [each.id for each in reversed(letters)]
    assert (group["letters"], group["reason"], group["last_id"]) == (5, "invalid_amount", letters[4].id)
    assert (shown["value"], shown["state"]) == ("YSxi", "open")
    assert "value" not in listed[0]
    problem(await api.get("/dead-letters/zz"), 404, "not_found")
    ids = [letters[0].id, letters[1].id]
    problem(await api.post("/dead-letters:discard", {"ids": ids}), 422, "invalid")
    problem(await api.post("/dead-letters:discard", {"note": "n", "by": "ops"}), 422, "invalid")
    body = {"ids": [*ids, "0" * 32], "note": "mended", "by": "ops"}
    tried = (await api.post("/dead-letters:discard?dry_run=true", body)).body
    assert (tried["discarded"], len(await paged(api, "/dead-letters"))) == (sorted(ids), 5)
    done = (await api.post("/dead-letters:discard", body)).body
    assert (sorted(done["discarded"]), [each["code"] for each in done["refused"]]) == (sorted(ids), ["not_found"])
    assert {each["id"] for each in await paged(api, "/dead-letters?state=discarded")} == set(ids)
    by_reason = {"reason": "invalid_amount", "note": "all", "by": "ops"}
    assert len((await api.post("/dead-letters:discard", by_reason)).body["discarded"]) == 3


async def test_letters_of_files_that_came_again_are_listed_grouped_and_let_go_by_that(api: Client) -> None:
    mended, other = a_letter(1), a_letter(2, file="lonely", path="in/b.csv")
    for offset, each in enumerate((mended, other)):
        await LetterTable(api.world.pool).put(each, partition=0, offset=offset)
    await api.world.pool.execute(
        "INSERT INTO event_origins (id, connector, source_object, path, topic, log_partition, first_seen_at)"
        " VALUES (gen_random_uuid(), $1, 'new', $2, 't', 0, timestamptz '2030-01-01Z')",
        mended.connector_id,
        mended.path,
    )

    listed = await paged(api, "/dead-letters?corrected=true")
    groups = (await api.get("/dead-letters/groups?corrected=true")).body["data"]
    done = (await api.post("/dead-letters:discard", {"corrected": True, "note": "came again", "by": "ops"})).body

    assert [each["id"] for each in listed] == [mended.id]
    assert [each["letters"] for each in groups] == [1]
    assert done["discarded"] == [mended.id]
    assert [each["id"] for each in await paged(api, "/dead-letters")] == [other.id]


async def test_letters_are_sent_through_again_as_one_run(
    kafka: Kafka, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    prefix = topic_prefix.rstrip(".")
    await provision(kafka.bootstrap, topics(prefix).all())
    async with api_kit.api(tmp_path / "home", database, bootstrap=kafka.bootstrap, prefix=prefix) as api:
        table, dead = topics(prefix), a_letter(1)
        letter = dead.model_copy(
            update={"stage": Stage.SINK, "topic": table.events.name, "partition": 0, "offset": 0, "key": "YQ=="}
        )
        await LetterTable(api.world.pool).put(letter, partition=0, offset=0)
        key = {"Idempotency-Key": "once"}

        tried = await api.post("/dead-letters:redrive?dry_run=true", {"ids": [letter.id]})
        first = await api.post("/dead-letters:redrive", {"ids": [letter.id]}, headers=key)
        second = await api.post("/dead-letters:redrive", {"ids": [letter.id]}, headers=key)
        refused = await api.post("/dead-letters:redrive", {"every": True})

        assert (tried.status, tried.body["sent"], tried.body["run_id"]) == (200, [letter.id], None)
        assert (first.status, first.body["sent"]) == (202, [letter.id])
        assert first.headers["Location"] == f"/api/v1/runs/{first.body['run_id']}"
        assert second.body == first.body
        assert (refused.status, refused.body["sent"]) == (200, [])
        assert refused.body["refused"][0]["code"] == "conflict"
        run = (await api.ask("GET", first.headers["Location"])).body
        assert (run["type"], run["published"], run["awaiting_sink"]) == ("MANUAL", 1, True)


async def test_the_log_is_replayed_and_the_ledger_and_the_lag_are_told(
    kafka: Kafka, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    prefix = topic_prefix.rstrip(".")
    table = topics(prefix)
    await provision(kafka.bootstrap, table.all())
    async with api_kit.api(tmp_path / "home", database, bootstrap=kafka.bootstrap, prefix=prefix) as api:
        async with Producer(kafka.bootstrap) as producer:
            await EventPublisher(producer, table).publish([message(n) for n in range(20)])
        live = await PostgresSink.open(database)
        await apply_live(kafka.bootstrap, await find_range(kafka.bootstrap, table.events.name), live)
        await live.close()

        started = await api.post("/replays", {"requested_by": "USER_123"})
        assert (started.status, started.body["status"]) == (202, "running")
        ended = await api_kit.until(lambda: ended_replay(api, started.headers["Location"]))

        assert (ended["status"], ended["error"], ended["report"]["records"]) == ("equal", "", 20)
        assert (await api.get("/replays")).body["data"] == [ended]
        problem(await api.get("/replays/00000000-0000-0000-0000-000000000000"), 404, "not_found")
        wrong = {"since": "2025-01-02T00:00:00Z", "until": "2025-01-01T00:00:00Z"}
        problem(await api.post("/replays", wrong), 422, "config")
        unknown = (await api.get("/ledger")).body
        assert (unknown["balanced"], unknown["findings"], unknown["verified_at"]) == (None, [], None)
        proof = (await api.post("/ledger:verify")).body
        assert (proof["balanced"], proof["wrong"], proof["findings"]) == (True, False, [])
        assert (await api.get("/ledger")).body == proof
        # a new cluster has no coordinator until somebody has asked for it
        lag = await api_kit.until(lambda: measured(api))
        assert {each["group"] for each in lag} == {f"{prefix}-sink", f"{prefix}-connectors", f"{prefix}-letters"}


async def test_a_replay_whose_process_died_is_interrupted_and_another_may_begin(api: Client) -> None:
    await api.world.pool.execute(
        "INSERT INTO replays (id, apply, heartbeat_at) VALUES (gen_random_uuid(), false, now() - interval '1 minute')"
    )
    (dead,) = (await api.get("/replays")).body["data"]
    assert (dead["status"], dead["ended_at"]) == ("interrupted", None)

    begun = await api.post("/replays")

    assert begun.status == 202
    ended = await api_kit.until(lambda: ended_replay(api, begun.headers["Location"]))
    assert ended["status"] == "failed"
    assert "check the brokers" in ended["error"]
    await api.world.pool.execute("INSERT INTO replays (id, apply) VALUES (gen_random_uuid(), false)")
    problem(await api.post("/replays"), 409, "conflict")


async def ended_replay(api: Client, path: str) -> dict[str, Any] | None:
    found: dict[str, Any] = (await api.ask("GET", path)).body
    return found if found["status"] != "running" else None


async def measured(api: Client) -> list[dict[str, Any]] | None:
    answer = await api.get("/lag")
    if answer.status == 503:
        problem(answer, 503, "broker_unavailable")
        return None
    return list(answer.body["data"])
