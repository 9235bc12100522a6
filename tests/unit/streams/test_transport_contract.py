"""
Every private name of Faust and aiokafka that the transport touches, and every function whose inside it relies on.

The transport replaces parts of libraries that promise nothing about them. When this fails after an upgrade, the change
may be harmless or may lose payments: read it, adapt `streams/fetch.py` and `streams/consumer.py`, then change the pin.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.consumer.fetcher import Fetcher, FetchError, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment, SubscriptionState, TopicPartitionState
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.structs import OffsetAndMetadata
from faust.app.base import App
from faust.serializers.schemas import Schema
from faust.transport import base as faust_base
from faust.transport import consumer as faust_consumer
from faust.transport.conductor import Conductor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import CrashingSupervisor, Service
from mode.threads import ServiceThread

from streams.batch import Batches, read_any_header
from streams.consumer import SliceConsumer, SliceMessage
from streams.fetch import SliceThread
from streams.transport import SliceSchema, SliceTransport
from tests.foreign import batch_with


def test_versions_are_the_ones_that_were_read() -> None:
    assert (version("faust-streaming"), version("aiokafka"), version("mode-streaming")) == ("0.15.3", "0.14.0", "0.7.1")


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (driver.AIOKafkaConsumerThread, "__post_init__", ["self"]),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer", ["self", "transport"]),
        (driver.AIOKafkaConsumerThread, "_ensure_consumer", ["self"]),
        (driver.AIOKafkaConsumerThread, "_commit", ["self", "offsets"]),
        (driver.AIOKafkaConsumerThread, "assignment", ["self"]),
        (ServiceThread, "__init__", ["self", "executor", "loop", "thread_loop", "Worker", "kwargs"]),
        (driver.Consumer, "_new_consumer_thread", ["self"]),
        (driver.Consumer, "_to_message", ["self", "tp", "record"]),
        (driver.Consumer, "_getmany", ["self", "active_partitions", "timeout"]),
        (driver.Consumer, "_commit", ["self", "offsets"]),
        (driver.Consumer, "_filter_tps_with_pending_acks", ["self", "topics"]),
        (driver.Consumer, "ack", ["self", "message"]),
        (driver.Consumer, "force_commit", ["self", "topics", "start_new_transaction"]),
        (driver.Consumer, "highwater", ["self", "tp"]),
        (driver.Consumer, "perform_seek", ["self"]),
        (driver.Consumer, "stop_flow", ["self"]),
        (driver.Consumer, "verify_event_path", ["self", "now", "tp"]),
        (driver.Consumer, "on_partitions_revoked", ["self", "revoked"]),
        (driver.Consumer, "on_partitions_assigned", ["self", "assigned", "generation_id"]),
        (driver.Transport, "create_consumer", ["self", "callback", "kwargs"]),
        (driver, "server_list", ["urls", "default_port"]),
        (driver, "credentials_to_aiokafka_auth", ["credentials", "ssl_context"]),
        (
            Schema,
            "compile",
            ["self", "app", "on_key_decode_error", "on_value_decode_error", "default_propagate"],
        ),
        (App, "create_event", ["self", "key", "value", "headers", "message"]),
        (App, "on_first_start", ["self"]),
        (AIOKafkaConsumer, "seek", ["self", "partition", "offset"]),
        (AIOKafkaConsumer, "seek_to_committed", ["self", "partitions"]),
        (AIOKafkaClient, "bootstrap", ["self"]),
        (AIOKafkaClient, "force_metadata_update", ["self"]),
        (ClusterMetadata, "partitions_for_topic", ["self", "topic"]),
        (GroupCoordinator, "_handle_metadata_update", ["self", "cluster"]),
        (Service, "itertimer", ["self", "interval", "max_drift_correction", "sleep", "clock", "name"]),
        (Fetcher, "_notify", ["self", "future"]),
        (Fetcher, "_create_fetch_waiter", ["self"]),
        (Fetcher, "fetched_records", ["self", "partitions", "timeout", "max_records"]),
        (Fetcher, "beginning_offsets", ["self", "partitions", "timeout_ms"]),
        (Fetcher, "end_offsets", ["self", "partitions", "timeout_ms"]),
        (FetchResult, "check_assignment", ["self", "tp"]),
        (FetchResult, "has_more", ["self"]),
        (FetchResult, "_update_position", ["self"]),
        (GroupCoordinator, "ensure_coordinator_known", ["self"]),
        (GroupCoordinator, "_do_commit_offsets", ["self", "assignment", "offsets"]),
        (GroupCoordinator, "fetch_committed_offsets", ["self", "partitions"]),
        (SubscriptionState, "fetch_context", ["self"]),
        (SubscriptionState, "wait_for_assignment", ["self"]),
    ],
)
def test_signature_is_the_one_that_is_called_or_overridden(owner: Any, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (
            AIOKafkaConsumer,
            ["_fetch_max_wait_ms", "_fetch_min_bytes", "_max_partition_fetch_bytes", "_max_poll_records"],
        ),
        (AIOKafkaConsumer, ["_fetcher", "_coordinator", "_subscription", "_closed", "_client"]),
        (Fetcher, ["_subscriptions", "_records", "_wait_consume_future", "_closed"]),
        (FetchResult, ["_partition_records"]),
        (FetchError, ["_error"]),
        (PartitionRecords, ["next_fetch_offset"]),
        (GroupCoordinator, ["generation", "_commit_lock"]),
        (faust_consumer.Consumer, ["_read_offset", "_committed_offset", "_unacked_messages", "flow_active", "app"]),
        (faust_consumer.ThreadDelegateConsumer, ["_thread"]),
        (driver.AIOKafkaConsumerThread, ["_consumer", "tp_last_committed_at"]),
        (ServiceThread, ["thread_loop", "_close_thread_loop_on_stop"]),
        (Service, ["_crashed"]),
    ],
)
def test_attribute_is_set_where_it_is_read(owner: type, names: list[str]) -> None:
    source = inspect.getsource(owner)
    assert [name for name in names if not re.search(rf"self\.{name}\b(: [^=]+)? = |\b{name}: ", source)] == []


def test_properties_are_still_there() -> None:
    assert isinstance(inspect.getattr_static(SubscriptionState, "reassignment_in_progress"), property)
    assert isinstance(inspect.getattr_static(SubscriptionState, "subscription"), property)
    assert isinstance(inspect.getattr_static(SubscriptionState, "topics"), property)
    assert isinstance(inspect.getattr_static(Service, "crashed"), property)
    assert isinstance(inspect.getattr_static(Service, "crash_reason"), property)
    assert isinstance(inspect.getattr_static(App, "transport"), property)


def test_parts_of_our_transport_are_the_ones_that_faust_makes() -> None:
    assert SliceTransport.Consumer is SliceConsumer
    assert issubclass(SliceTransport, driver.Transport)
    assert issubclass(SliceConsumer, driver.Consumer)
    assert issubclass(SliceThread, driver.AIOKafkaConsumerThread)
    assert "Consumer" in vars(faust_base.Transport)


def test_partitions_of_both_libraries_are_equal_as_keys() -> None:
    assert {TP("t", 1): "found"}[TopicPartition("t", 1)] == "found"  # type: ignore[index]


def test_message_takes_what_a_slice_gives_it() -> None:
    assert list(inspect.signature(ConsumerMessage.__init__).parameters)[1:14] == [
        "topic",
        "partition",
        "offset",
        "timestamp",
        "timestamp_type",
        "headers",
        "key",
        "value",
        "checksum",
        "serialized_key_size",
        "serialized_value_size",
        "tp",
        "time_in",
    ]
    assert "generation_id" in inspect.signature(ConsumerMessage.__init__).parameters
    assert not set(SliceMessage.__slots__) & {
        name for base in ConsumerMessage.__mro__ for name in getattr(base, "__slots__", ())
    }


def test_record_has_the_fields_that_are_read() -> None:
    names = set(inspect.signature(ConsumerRecord).parameters)
    assert names >= {"offset", "timestamp", "timestamp_type", "key", "value", "headers"}
    assert names >= {"serialized_key_size", "serialized_value_size"}
    assert OffsetAndMetadata._fields == ("offset", "metadata")


def test_supervisor_that_ends_the_process_leaves_the_service_unsupervised() -> None:
    """That is how mode knows to crash every parent instead of restarting the agent."""
    service = faust.Service()

    CrashingSupervisor()._contribute_to_service(service)

    assert service.supervisor is None


async def test_slice_schema_passes_the_value_on_untouched() -> None:
    app = faust.App("contract", broker="kafka://127.0.0.1:1", store="memory://", web_enabled=False)
    topic = app.topic("t", schema=SliceSchema())
    value: Any = ["anything"]

    event = await topic.decode(ConsumerMessage("t", 0, 5, 1.0, 0, None, None, value, None, 0, 0, TP("t", 0)))

    assert event.value is value
    assert event.message.offset == 5


# What is overridden in part, worked around, or taken over. The comment says what the transport takes for granted there.
RELIED_ON: dict[str, tuple[Callable[..., Any], str]] = {
    # yields `_to_message(tp, record)` for each record of `_getmany`, drops them when flow, generation or activity
    # changed
    "Consumer.getmany": (faust_consumer.Consumer.getmany, "ed605d75c38f5f78"),
    "Consumer._wait_next_records": (faust_consumer.Consumer._wait_next_records, "752244f3f59cc601"),
    # drops what is below `_read_offset`, counts gaps above it; does neither where that is None
    "Consumer._drain_messages": (faust_consumer.Consumer._drain_messages, "1e3ea3fe2aef8f15"),
    # one commit at a time; `on_stop` commits once more
    "Consumer.commit": (faust_consumer.Consumer.commit, "ae2d22e6a71fb5ac"),
    "Consumer.force_commit": (faust_consumer.Consumer.force_commit, "0376a3e596ff59d4"),
    "Consumer.on_stop": (faust_consumer.Consumer.on_stop, "901ab0bfed12381a"),
    # stop the flow, clear the queues, wait for nothing (stream_wait_empty)
    "Consumer.on_partitions_revoked": (faust_consumer.Consumer.on_partitions_revoked, "cf6dea67c9917bbb"),
    "Consumer.on_partitions_assigned": (faust_consumer.Consumer.on_partitions_assigned, "36d0ccc1d9d0bdeb"),
    "App._on_partitions_revoked": (App._on_partitions_revoked, "0027c877c934445c"),
    "App._on_partitions_assigned": (App._on_partitions_assigned, "17261bd5ac1c783a"),
    "App._stop_consumer": (App._stop_consumer, "4da113c2a0174fa6"),
    # the revocation callback is awaited before the group is joined again
    "ThreadDelegateConsumer.threadsafe_partitions_revoked": (
        faust_consumer.ThreadDelegateConsumer.threadsafe_partitions_revoked,
        "4ac88566854ec3ca",
    ),
    "AIOKafkaConsumerThread._create_worker_consumer": (
        driver.AIOKafkaConsumerThread._create_worker_consumer,
        "cf2bd17deb6b914a",
    ),
    "AIOKafkaConsumerThread._fetch_records": (driver.AIOKafkaConsumerThread._fetch_records, "1af66617510337a0"),
    "Conductor._update_tp_index": (Conductor._update_tp_index, "4ccc8a9f5334955a"),
    # aiokafka: the settings are read here, not in the constructor
    "AIOKafkaConsumer.start": (AIOKafkaConsumer.start, "8fd53f8f9dabdb5e"),
    # what `_read` does instead
    "FetchResult.getall": (FetchResult.getall, "08d68320faa221a8"),
    "FetchResult.check_assignment": (FetchResult.check_assignment, "70eb7d6a112b3097"),
    "FetchResult._update_position": (FetchResult._update_position, "84c3509ca7d6c856"),
    "PartitionRecords._unpack_records": (PartitionRecords._unpack_records, "d96e7ddc21862755"),
    "Fetcher.fetched_records": (Fetcher.fetched_records, "82fbb9fe21f88a46"),
    # resets a position that is out of range to `auto_offset_reset`; steps over a record that is too large
    "Fetcher._proc_fetch_request": (Fetcher._proc_fetch_request, "83d5b5568a0d9178"),
    "Fetcher._update_fetch_positions": (Fetcher._update_fetch_positions, "77dd7612f7ea54b4"),
    "Fetcher.seek_to": (Fetcher.seek_to, "82aa49ec9c2edd60"),
    "TopicPartitionState": (TopicPartitionState, "96fbbe704e57b204"),
    "Assignment": (Assignment, "8f93afd5e6b2ec28"),
    # takes the generation when it builds the request, without awaiting anything before
    "GroupCoordinator._do_commit_offsets": (GroupCoordinator._do_commit_offsets, "07c6ffd69cff12b8"),
    "GroupCoordinator._on_join_prepare": (GroupCoordinator._on_join_prepare, "5d9d7bca6a4b310d"),
    "GroupCoordinator.reset_generation": (GroupCoordinator.reset_generation, "605167384c41393b"),
    # rejoins when the partitions of a topic have changed
    "GroupCoordinator._handle_metadata_update": (GroupCoordinator._handle_metadata_update, "84604f2aa578ad56"),
    # leaves the group after `max_poll_interval` without a fetch
    "GroupCoordinator._heartbeat_routine": (GroupCoordinator._heartbeat_routine, "ae77560842854aa9"),
    "SubscriptionState.fetch_context": (SubscriptionState.fetch_context, "49fbba69b9cec310"),
}


@pytest.mark.parametrize("name", RELIED_ON)
def test_code_that_is_relied_on_is_the_code_that_was_read(name: str) -> None:
    code, pin = RELIED_ON[name]
    assert fingerprint(code) == pin, f"{name} has changed: read it, adapt the transport, pin the new one"


def fingerprint(code: Callable[..., Any]) -> str:
    """Of what it does, the same on every Python: comments, docstrings and layout do not count."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(code)))
    kept: list[str] = []
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in {tokenize.COMMENT, tokenize.NL}:
            continue
        statement.append(token)
        if token.type in {tokenize.NEWLINE, tokenize.ENDMARKER}:
            words = [
                each for each in statement if each.type not in {tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE}
            ]
            if any(each.type != tokenize.STRING for each in words):
                kept += [_MARKS.get(each.type, "".join(each.string.split())) for each in statement]
            statement.clear()
    return hashlib.sha256("".join(kept).encode()).hexdigest()[:16]


_MARKS = {tokenize.INDENT: "{", tokenize.DEDENT: "}", tokenize.NEWLINE: ";"}


def test_reset_strategy_earliest_is_known_to_aiokafka() -> None:
    earliest = aiokafka_fetcher.OffsetResetStrategy.from_str("earliest")
    assert earliest == aiokafka_fetcher.OffsetResetStrategy.EARLIEST


def test_fetcher_makes_its_records_by_the_name_that_is_replaced() -> None:
    """`streams/batch.py` puts its own class there."""
    assert "MemoryRecords(part_data[-1])" in inspect.getsource(Fetcher._proc_fetch_request)
    read_any_header()

    assert aiokafka_fetcher.MemoryRecords is Batches
    assert list(inspect.signature(_DefaultRecordBatchPy._maybe_uncompress).parameters) == ["self"]
    assert {"_buffer", "_pos", "_num_records"} <= set(vars(_DefaultRecordBatchPy(batch_with(b"k", b"v", []))))
