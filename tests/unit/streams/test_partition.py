"""The vectors are the Java client's own: `UtilsTest.testMurmur2` of Apache Kafka."""

from __future__ import annotations

import aiokafka.partitioner
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.partition import murmur2, partition_of

JAVA = [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)]


@pytest.mark.parametrize(("key", "expected"), JAVA)
def test_murmur2_is_the_java_clients(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


@given(st.binary(max_size=80), st.integers(1, 64))
def test_partitions_are_those_of_aiokafkas_default_partitioner(key: bytes, count: int) -> None:
    partitions = list(range(count))

    assert partition_of(key, count) == aiokafka.partitioner.DefaultPartitioner()(key, partitions, partitions)
