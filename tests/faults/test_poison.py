"""Records that nobody can store, in the midst of good ones; and a dead-letter topic that takes none."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.faults.stage import Stage, open_stage, until
from tests.faults.truth import PROVIDER, History, Sent, encode
from tests.services import Kafka

GOOD = 1_000
MAX_MINOR = 10**16 - 1
BREAKER_S = 10.0
DEATHS_IN_A_ROW = 100
DEEP = b"[" * 100_000 + b"]" * 100_000


def poison_of(history: History) -> list[Sent]:
    """Everything that was seen to pass some check on its way, and to kill a batch or a sum further on."""
    other = f"{PROVIDER}/somebody else".encode()
    return [
        # Text that is no text.
        _spoilt(history, b'"USD"', b'"U\x00D"', "undecodable"),
        _spoilt(history, b'"USD"', b'"U\xff\xfe"', "undecodable"),
        _spoilt(history, b'"USD"', b'"U\\ud800"', "undecodable"),
        _spoilt(history, b'"scheme":""', b'"scheme":"\\u0000"', "nul_character"),
        # Shapes.
        _spoilt(history, b'"headers":{}', b'"deep":' + DEEP, "undecodable"),
        _whole(history, b"", "undecodable"),
        _whole(history, b"[]", "invalid_event"),
        _whole(history, b'"text"', "invalid_event"),
        _spoilt(history, b'"1.0"', b'"2.0"', "unknown_version"),
        _spoilt(history, b'"succeeded"', b'"teleported"', "invalid_event"),
        _spoilt(history, b'"payin"', b'"refund"', "invalid_event"),
        _made(history, "R" * 4_096, "invalid_event"),
        # Amounts that are no integer of minor units.
        *(
            _spoilt(history, b'"amount":100', b'"amount":' + text, "invalid_event")
            for text in (b"1e400", b"100.5", b"100.0", b"9223372036854775808", b"1" * 400, b'"100"', b"true", b"null")
        ),
        *(
            _spoilt(history, b'"amount":100', b'"amount":' + text, reason)
            for text, reason in ((b"NaN", "invalid_event"), (b"Infinity", "invalid_event"), (b"1_000", "undecodable"))
        ),
        _spoilt(history, b'"amount":100', '"amount":\uff11\uff10\uff10'.encode(), "undecodable"),
        # Names.
        _spoilt(history, b'"amount":100', b'"amount":100,"amount":999999', "duplicate_key"),
        _spoilt(history, b'"amount":100', b'"amount" : 100,"\\u0061mount":999999', "duplicate_key"),
        _labelled(history, "a\udcff\udcfe", "undecodable_header"),
        # Instants that no calendar of ours has.
        *(
            _spoilt(history, b'"2026-01-02T00:00:00Z"', b'"%s"' % text, "invalid_event")
            for text in (
                b"300000-01-01T00:00:00Z",
                b"9999-12-31T23:59:59-14:00",
                b"2026-01-02T00:00:00",
                b"2026-02-30T00:00:00Z",
            )
        ),
        # Facts that do not hold together.
        _made(history, "", "missing_reference", status="refunded"),
        _made(history, "", "invalid_amount", status="refunded", parent="somebody", amount=-1),
        _moved(history, other, "wrong_key"),
        _moved(history, None, "null_key"),
        history.tombstone(),
        # What only PostgreSQL, or its client, finds out.
        history.refused(by_client=True),
        history.refused(by_client=False),
        _made(history, "", "sink_refused", lineage={"revision_seq": 2**63}),
    ]


def odd_but_good(history: History) -> list[Sent]:
    """What looks wrong and is not."""
    twice, again = history.good(), history.good()
    return [
        twice,
        history.once_more(twice),  # the same event twice in one statement
        again,
        history.again(again),  # the same key twice in one statement, under two event ids
        history.good("\u202e\U0001f4b8" * 50),
        history.good("R" * 255),
        history.good(amount=MAX_MINOR),
        history.good(amount=-MAX_MINOR),
        history.good(effective_at="0001-01-01T00:00:00Z"),
        history.good(effective_at="9999-12-31T23:59:59.999999Z"),
        history.good(unknown_field={"kept": [1, 2.5, None]}),
        history.good(raw='"; DROP TABLE payments; --'),
    ]


async def test_exactly_the_poison_dies_among_a_thousand_good_records(kafka: Kafka, database: str) -> None:
    history = History(seed=13)
    async with open_stage(kafka.bootstrap, database, partitions=1, sink_slice_events="5000") as stage:
        records = [[history.good()] for _ in range(GOOD)]
        records += [[each] for each in poison_of(history)] + [odd_but_good(history)]
        await stage.publish(history.interleaved(records))

        worker = stage.worker("sink")
        await stage.check(history.truth)

        assert await stage.letters() == len(history.truth.poison)
        assert worker.log.count("partition starts") == 1
        assert await worker.stop() == 0


async def test_a_refused_dead_letter_keeps_its_record_and_all_behind_it_until_it_is_taken(stage: Stage) -> None:
    history = History(seed=14)
    worker = stage.worker("sink")
    await stage.publish([history.good() for _ in range(50)], partition=0)
    await stage.drained()
    stood = await stage.ends()

    await _limit_letters(stage, bytes_=100)
    await stage.publish([history.garbage(), *(history.good() for _ in range(50))], partition=0)
    await stage.publish([history.good() for _ in range(50)], partition=1)
    await worker.waits_for("partitions", "dead_letters")
    await worker.shows("tillstream_held", reason="dead_letters", partition="0")
    await until(lambda: _is(stage.committed, {**stood, 1: 50}), what="the other partition goes on")
    assert await stage.stored() == {**stood, 1: 50}

    await _limit_letters(stage, bytes_=stage.topics.dead_letters.max_message_bytes)
    await stage.check(history.truth)
    assert await worker.reasons() == {}
    assert await worker.stop() == 0


async def test_a_partition_in_which_everything_dies_is_held_and_let_through_one_by_one(stage: Stage) -> None:
    history = History(seed=15)
    worker = stage.worker("sink")
    garbage = [history.garbage() for _ in range(150)]
    good = [history.good() for _ in range(300)]
    began = time.monotonic()
    await stage.publish(garbage, partition=0)
    await stage.publish(good[:200], partition=1)

    await worker.waits_for("partitions", "breaker")
    await worker.shows("tillstream_breaker_open", partition="0")
    await stage.publish(good[200:], partition=1)
    await until(lambda: _stored(stage, 1, 300), what="the other partition goes on")

    await until(lambda: _stored(stage, 0, DEATHS_IN_A_ROW + 1), what="one more is let through")
    await worker.waits_for("partitions", "breaker")
    died = await stage.letters()
    # however long we took to look: one for each pause since it opened, and one that is under way
    assert DEATHS_IN_A_ROW < died <= DEATHS_IN_A_ROW + (time.monotonic() - began) / BREAKER_S + 1
    assert await worker.stop() == 0


async def _stored(stage: Stage, partition: int, records: int) -> bool:
    return ((await stage.stored()) or {}).get(partition, 0) >= records


async def _is(ask: Callable[[], Awaitable[object]], wanted: object) -> bool:
    return await ask() == wanted


async def _limit_letters(stage: Stage, *, bytes_: int) -> None:
    """Let the broker take no larger message on the dead-letter topic."""
    name = stage.topics.dead_letters.name
    settings = {**stage.topics.dead_letters.settings, "max.message.bytes": str(bytes_)}
    await stage.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, settings)])
    await until(lambda: _has(stage.admin, name, str(bytes_)), what=f"{name} takes messages of {bytes_} bytes")


async def _has(admin: AIOKafkaAdminClient, name: str, value: str) -> bool:
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    (_, _, _, _, entries), *_ = answer.resources
    return any(entry[0] == "max.message.bytes" and entry[1] == value for entry in entries)


def _spoilt(history: History, old: bytes, new: bytes, reason: str) -> Sent:
    """A good event with one piece of its text replaced."""
    event = history.event(history.reference("S"), "succeeded", 100, at=1)
    value = encode(event)
    assert value.count(old) >= 1, old
    return history.dead(event["id"], event["foreign_id"].encode(), value.replace(old, new), reason)


def _whole(history: History, value: bytes, reason: str) -> Sent:
    """Another value altogether."""
    event_id = history.reference("W")
    return history.dead(event_id, f"{PROVIDER}/{event_id}".encode(), value, reason)


def _made(history: History, reference: str, reason: str, *, status: str = "succeeded", **facts: object) -> Sent:
    """A well-formed event that says what may not be said."""
    parent, amount = facts.pop("parent", None), facts.pop("amount", 100)
    event = history.event(reference or history.reference("M"), status, amount, at=1, parent=parent, **facts)  # type: ignore[arg-type]
    return history.dead(event["id"], event["foreign_id"].encode(), encode(event), reason)


def _labelled(history: History, name: str, reason: str) -> Sent:
    """A good event with a header of this name; a lone surrogate stands for a byte that is not UTF-8."""
    event = history.event(history.reference("L"), "succeeded", 100, at=1)
    sent = history.dead(event["id"], event["foreign_id"].encode(), encode(event), reason)
    return history.labelled(sent, name)


def _moved(history: History, key: bytes | None, reason: str) -> Sent:
    """A good event under another key."""
    event = history.event(history.reference("K"), "succeeded", 100, at=1)
    return history.dead(event["id"], key, encode(event), reason)
