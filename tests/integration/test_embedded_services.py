"""The fixtures themselves: what every other integration test stands on."""

from __future__ import annotations

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.services import Kafka


async def test_a_message_sent_to_the_sessions_broker_is_read_back(kafka: Kafka, new_topic):
    topic = await new_topic("events", partitions=2)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, b"1 EUR")

    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as consumer:
        message = await consumer.getone()

    assert message.value == b"1 EUR"


async def test_each_test_gets_an_empty_database_of_its_own(database: str, postgres):
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE seen (id int)")
    await connection.close()

    other = await postgres.create_database()
    connection = await asyncpg.connect(postgres.dsn_of(other))
    tables = await connection.fetch("SELECT 1 FROM information_schema.tables WHERE table_name = 'seen'")
    await connection.close()
    await postgres.drop_database(other)

    assert tables == []


async def test_two_own_servers_and_two_own_brokers_run_side_by_side(own_kafka, own_postgres, kafka: Kafka, postgres):
    assert own_kafka.bootstrap != kafka.bootstrap
    assert await own_kafka.is_ready()
    assert await own_postgres.is_ready()
