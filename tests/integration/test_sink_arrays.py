"""Arrays that we encode ourselves arrive as asyncpg would have sent them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from sinks import arrays
from sinks.arrays import BIGINTS, INSTANTS, INTEGERS, SMALLINTS, TEXTS, UUIDS, ArrayType, take_arrays

DIGEST = bytes(range(16))


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Any]:
    held = await asyncpg.connect(database)
    take_arrays(held)
    yield held
    await held.close()


VALUES: list[tuple[ArrayType, list[Any]]] = [
    (TEXTS, ["a", None, "", "é", "x" * 5_000, "€" * 500]),
    (TEXTS, ["all", "of", "them"]),
    (BIGINTS, [1, None, -5, 2**63 - 1, -(2**63)]),
    (BIGINTS, [7, 8]),
    (INTEGERS, [None, 2**31 - 1]),
    (SMALLINTS, [1, -2]),
    (UUIDS, [UUID(int=1), None, UUID(bytes=DIGEST)]),
    (INSTANTS, [datetime(1, 1, 1, tzinfo=UTC), None, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]),
    (INSTANTS, [datetime(2026, 1, 1, 1, 2, 3, 4, tzinfo=UTC), datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]),
    (TEXTS, []),
]


@pytest.mark.parametrize(("type_", "values"), VALUES)
async def test_arrays_arrive_as_they_were_sent(connection: Any, type_: ArrayType, values: list[Any]) -> None:
    encoded = type_.array([type_.encode(values[:1]), type_.encode(values[1:])], len(values))

    for sent in (values, tuple(values), encoded):
        assert await connection.fetchval(f"SELECT $1::{type_.name}[]", sent) == values


@pytest.mark.parametrize(("type_", "values"), VALUES)
async def test_the_server_reads_what_asyncpg_would_have_sent(
    database: str, connection: Any, type_: ArrayType, values: list[Any]
) -> None:
    if type_ is INSTANTS:
        values = [datetime(2026, 1, 1, tzinfo=UTC), None]  # asyncpg takes the first and the last for infinities
    plain = await asyncpg.connect(database)

    spelled = [await each.fetchval(f"SELECT $1::{type_.name}[]::text", values) for each in (plain, connection)]

    assert spelled[0] == spelled[1]
    await plain.close()


async def test_digests_become_uuids_and_their_halves(connection: Any) -> None:
    row = await connection.fetchrow(
        "SELECT $1::uuid[] AS whole, $2::bigint[] AS high, $3::bigint[] AS low",
        UUIDS.array([arrays.digests([DIGEST, b"\xff" * 16])], 2),
        BIGINTS.array([arrays.halves([DIGEST, b"\xff" * 16], 0)], 2),
        BIGINTS.array([arrays.halves([DIGEST, b"\xff" * 16], 8)], 2),
    )

    assert row["whole"] == [UUID(bytes=DIGEST), UUID(bytes=b"\xff" * 16)]
    assert row["high"] == [int.from_bytes(DIGEST[:8]), -1]
    assert row["low"] == [int.from_bytes(DIGEST[8:]), -1]


@pytest.mark.parametrize("value", ["text", {"a": 1}, 5, [1], [["a"], ["b"]]])
async def test_what_is_no_array_of_texts_is_refused(connection: Any, value: Any) -> None:
    with pytest.raises(asyncpg.DataError):
        await connection.fetchval("SELECT $1::text[]", value)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
async def test_text_that_postgres_cannot_hold_is_refused_by_it(connection: Any, text: str) -> None:
    with pytest.raises(asyncpg.DataError) as refused:
        await connection.fetchval("SELECT $1::text[]", ["good", text])

    assert refused.value.sqlstate == "22021"
