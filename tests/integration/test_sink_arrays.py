"""What we tell asyncpg about arrays changes nothing that it sends."""

from __future__ import annotations

from collections import deque
from typing import Any

import asyncpg
import pytest
from asyncpg.protocol import protocol

from sinks import flat


def test_asyncpg_has_the_name_that_we_set() -> None:
    flat.encode_flat_arrays()

    assert isinstance([], getattr(protocol, flat.NAME))
    assert not isinstance("text", getattr(protocol, flat.NAME))


@pytest.mark.parametrize(
    ("type_", "value", "comes_back"),
    [
        ("text", ("a", None, "", "é"), ["a", None, "", "é"]),
        ("bigint", [1, None, -5], [1, None, -5]),
        ("bigint", [], []),
        ("bigint", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("boolean", deque([True, False]), [True, False]),
        ("bytea", [b"\x00", b""], [b"\x00", b""]),
    ],
)
async def test_arrays_arrive_as_they_were_sent(database: str, type_: str, value: Any, comes_back: list[Any]) -> None:
    flat.encode_flat_arrays()
    connection = await asyncpg.connect(database)

    arrived = await connection.fetchval(f"SELECT $1::{type_}[]", value)

    assert arrived == comes_back
    await connection.close()


@pytest.mark.parametrize("value", ["text", {"a": 1}, 5])
async def test_what_is_no_array_is_still_refused(database: str, value: Any) -> None:
    flat.encode_flat_arrays()
    connection = await asyncpg.connect(database)

    with pytest.raises(asyncpg.DataError):
        await connection.fetchval("SELECT $1::text[]", value)

    await connection.close()
