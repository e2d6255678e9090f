"""
What stream-monitor needs of a broker, asked of the embedded one and of a real Apache Kafka by the
same tests.

Rule of the file: a test says what every Kafka does. What only the embedded broker does (bounds,
refusals) is in tests/unit/test_demo_broker.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    CorruptRecordException,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from stream_monitor.demo.broker import start_in_thread
from stream_monitor.kafka.alter_configs import SetTopicConfigs

DEADLINE_S = 30


@pytest.fixture(scope="module", params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def bootstrap(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "embedded":
        with start_in_thread() as broker:
            yield broker.bootstrap
            assert not broker.broker.errors, "a client was not understood"
    else:
        kafka = request.getfixturevalue("kafka")
        yield kafka if isinstance(kafka, str) else kafka.bootstrap


def run(test):
    async def bounded():
        async with asyncio.timeout(DEADLINE_S):
            return await test

    return asyncio.run(bounded())


def name(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:8]}"


@contextlib.asynccontextmanager
async def started(client) -> AsyncIterator:
    await client.start()
    try:
        yield client
    finally:
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())


async def make_topic(bootstrap: str, topic: str, partitions: int = 1, **config: str) -> None:
    async with started(AIOKafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        await admin.create_topics(
            [
                NewTopic(
                    topic,
                    partitions,
                    1,
                    topic_configs={key.replace("_", "."): value for key, value in config.items()},
                )
            ]
        )


async def read(bootstrap: str, topic: str, count: int, partitions: int = 1, **options) -> list:
    """Read `count` records from the beginning, without a group."""
    async with started(
        AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **options,
        )
    ) as consumer:
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        records: list[Any] = []
        while len(records) < count:
            records += [
                record
                for part in (await consumer.getmany(timeout_ms=500)).values()
                for record in part
            ]
        return records


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_as_they_were_sent(bootstrap, codec, idempotent):
    async def body():
        topic = name("codec")
        await make_topic(bootstrap, topic)
        async with started(
            AIOKafkaProducer(
                bootstrap_servers=bootstrap,
                compression_type=codec,
                enable_idempotence=idempotent,
                acks="all",
                linger_ms=5,
            )
        ) as producer:
            sent = [
                await producer.send(
                    topic,
                    value=b"v%d" % i if i % 7 else None,
                    key=b"k%d" % i if i % 7 != 1 else None,
                    headers=[("h", b"1"), ("none", None)],
                    timestamp_ms=1_700_000_000_000 + i,
                )
                for i in range(300)
            ]
            offsets = [(await future).offset for future in sent]
        assert offsets == list(range(300))
        for isolation in ("read_uncommitted", "read_committed"):
            got = await read(bootstrap, topic, 300, isolation_level=isolation)
            assert [(r.value, r.key, r.timestamp) for r in got] == [
                (
                    b"v%d" % i if i % 7 else None,
                    b"k%d" % i if i % 7 != 1 else None,
                    1_700_000_000_000 + i,
                )
                for i in range(300)
            ]
            assert got[0].headers == (("h", b"1"), ("none", None))

    run(body())


def test_a_topic_has_the_partitions_it_was_made_with_and_can_get_more(bootstrap):
    async def body():
        topic = name("parts")
        await make_topic(bootstrap, topic, 3)
        async with started(AIOKafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
            assert len((await admin.describe_topics([topic]))[0]["partitions"]) == 3
            with pytest.raises(TopicAlreadyExistsError):
                raise_errors(await admin.create_topics([NewTopic(topic, 3, 1)]))
            raise_errors(await admin.create_partitions({topic: NewPartitions(5)}))
            assert len((await admin.describe_topics([topic]))[0]["partitions"]) == 5
            raise_errors(await admin.delete_topics([topic]))
            for _ in range(50):
                if topic not in await admin.list_topics():
                    break
                await asyncio.sleep(0.1)
            assert topic not in await admin.list_topics()

    run(body())


def raise_errors(response) -> None:
    for _topic, code, *_ in getattr(response, "topic_errors", None) or getattr(
        response, "topic_error_codes", []
    ):
        if code:
            raise for_code(code)


def test_configuration_of_a_topic_is_kept_and_can_be_changed(bootstrap):
    async def described(admin, topic):
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answers[0].resources[0][4]}

    async def body():
        topic = name("config")
        await make_topic(bootstrap, topic, cleanup_policy="compact", retention_ms="86400000")
        async with started(AIOKafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
            config = await described(admin, topic)
            assert (
                config["cleanup.policy"],
                config["retention.ms"],
                config["min.insync.replicas"],
            ) == ("compact", "86400000", "1")
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "1000000"})]
            )
            config = await described(admin, topic)
            assert (config["cleanup.policy"], config["retention.ms"]) == ("delete", "1000000")
            answer = await admin._send_request(
                SetTopicConfigs({topic: {"retention.bytes": "12345"}})
            )
            assert [code for code, *_ in answer.resources] == [0]
            while (config := await described(admin, topic))["retention.bytes"] != "12345":  # noqa: ASYNC110 - the answer comes before the metadata has it
                await asyncio.sleep(0.1)
            assert config["retention.ms"] == "1000000", "what was not named was set back"

    run(body())


def test_a_record_above_max_message_bytes_is_refused(bootstrap):
    async def body():
        topic = name("large")
        await make_topic(bootstrap, topic, max_message_bytes="2000")
        async with started(AIOKafkaProducer(bootstrap_servers=bootstrap)) as producer:
            assert (await producer.send_and_wait(topic, b"x" * 1_000)).offset == 0
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_and_wait(topic, b"x" * 3_000)
            assert (await producer.send_and_wait(topic, b"x")).offset == 1

    run(body())


def test_a_batch_with_a_wrong_checksum_is_refused(bootstrap):
    async def body():
        topic = name("crc")
        await make_topic(bootstrap, topic)
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=0,
            is_transactional=0,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=-1,
            batch_size=10_000,
        )
        builder.append(0, 1_700_000_000_000, b"k", b"value", [])
        good = bytes(builder.build())
        bad = good[:-1] + bytes([good[-1] ^ 1])
        async with started(AIOKafkaProducer(bootstrap_servers=bootstrap)) as producer:
            await producer.partitions_for(topic)
            node = producer.client.cluster.leader_for_partition(TopicPartition(topic, 0))
            codes = []
            for data in (bad, good):
                answer = await producer.client.send(
                    node,
                    ProduceRequest(
                        transactional_id=None,
                        required_acks=-1,
                        timeout=5_000,
                        topics=[(topic, [(0, data)])],
                    ),
                )
                codes.append(answer.topics[0][1][0][1])
        assert codes == [CorruptRecordException.errno, 0]
        assert [record.value for record in await read(bootstrap, topic, 1)] == [b"value"]

    run(body())


def test_a_repeated_batch_of_an_idempotent_producer_is_stored_once(bootstrap):
    def batch(producer_id: int, sequence: int) -> bytes:
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=0,
            is_transactional=0,
            producer_id=producer_id,
            producer_epoch=0,
            base_sequence=sequence,
            batch_size=10_000,
        )
        for number in range(2):
            builder.append(number, 1_700_000_000_000, b"k", b"%d" % (sequence + number), [])
        return bytes(builder.build())

    async def body():
        topic = name("repeat")
        await make_topic(bootstrap, topic)
        async with started(
            AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
        ) as producer:
            await producer.send_and_wait(topic, b"first")
            own_id = producer._txn_manager.producer_id
            node = producer.client.cluster.leader_for_partition(TopicPartition(topic, 0))
            answers = []
            for sequence in (1, 3, 1, 9, 5):
                request = ProduceRequest(
                    transactional_id=None,
                    required_acks=-1,
                    timeout=5_000,
                    topics=[(topic, [(0, batch(own_id, sequence))])],
                )
                answers.append(
                    tuple((await producer.client.send(node, request)).topics[0][1][0][1:3])
                )
        assert answers == [(0, 1), (0, 3), (0, 1), (45, -1), (0, 5)]
        assert [record.value for record in await read(bootstrap, topic, 7)] == [
            b"first",
            b"1",
            b"2",
            b"3",
            b"4",
            b"5",
            b"6",
        ]

    run(body())


def test_offsets_by_beginning_end_and_time(bootstrap):
    async def body():
        topic = name("offsets")
        await make_topic(bootstrap, topic)
        partition = TopicPartition(topic, 0)
        async with started(AIOKafkaProducer(bootstrap_servers=bootstrap)) as producer:
            for i in range(5):
                await producer.send_and_wait(
                    topic, b"x", timestamp_ms=1_700_000_000_000 + 1_000 * i
                )
        async with started(AIOKafkaConsumer(bootstrap_servers=bootstrap)) as consumer:
            assert await consumer.beginning_offsets([partition]) == {partition: 0}
            assert await consumer.end_offsets([partition]) == {partition: 5}
            found = await consumer.offsets_for_times({partition: 1_700_000_001_500})
            assert (found[partition].offset, found[partition].timestamp) == (2, 1_700_000_002_000)
            assert await consumer.offsets_for_times({partition: 1_800_000_000_000}) == {
                partition: None
            }

    run(body())


def test_reading_beyond_the_end_is_out_of_range(bootstrap):
    async def body():
        topic = name("range")
        await make_topic(bootstrap, topic)
        partition = TopicPartition(topic, 0)
        async with started(
            AIOKafkaConsumer(
                bootstrap_servers=bootstrap, auto_offset_reset="none", enable_auto_commit=False
            )
        ) as consumer:
            consumer.assign([partition])
            consumer.seek(partition, 10)
            with pytest.raises(OffsetOutOfRangeError):
                await consumer.getone()

    run(body())


def test_new_records_wake_a_waiting_reader(bootstrap):
    async def body():
        topic = name("wake")
        await make_topic(bootstrap, topic)
        async with (
            started(AIOKafkaProducer(bootstrap_servers=bootstrap)) as producer,
            started(
                AIOKafkaConsumer(
                    topic,
                    bootstrap_servers=bootstrap,
                    fetch_max_wait_ms=20_000,
                    auto_offset_reset="earliest",
                )
            ) as consumer,
        ):
            waiting = asyncio.ensure_future(consumer.getone())
            await asyncio.sleep(0.3)
            await producer.send_and_wait(topic, b"now")
            async with asyncio.timeout(10):
                assert (await waiting).value == b"now"

    run(body())


def test_committed_offsets_carry_metadata_and_outlive_the_member(bootstrap):
    async def body():
        topic, group = name("commit"), name("group")
        await make_topic(bootstrap, topic, 2)
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        async with started(
            AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
        ) as consumer:
            consumer.assign([first, second])
            await consumer.commit({first: (7, "where it was")})
        async with started(AIOKafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
            assert (await admin.list_consumer_group_offsets(group))[first] == (7, "where it was")
        async with started(
            AIOKafkaConsumer(
                topic, bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False
            )
        ) as consumer:
            await assigned(consumer, 2)
            assert await consumer.committed(first) == 7
            assert await consumer.committed(second) is None
            assert await consumer.position(first) == 7

    run(body())


async def assigned(consumer, count: int) -> None:
    while len(consumer.assignment()) != count:
        await consumer.getmany(timeout_ms=50)


def test_members_share_the_partitions_and_take_over(bootstrap):
    async def body():
        topic, group = name("members"), name("group")
        await make_topic(bootstrap, topic, 4)
        options = {
            "bootstrap_servers": bootstrap,
            "group_id": group,
            "session_timeout_ms": 6_000,
            "heartbeat_interval_ms": 200,
            "enable_auto_commit": False,
        }
        async with started(AIOKafkaConsumer(topic, **options)) as first:
            await assigned(first, 4)
            second = AIOKafkaConsumer(topic, **options)
            await second.start()
            await asyncio.gather(assigned(first, 2), assigned(second, 2))
            assert first.assignment() | second.assignment() == {
                TopicPartition(topic, number) for number in range(4)
            }
            await second.stop()
            await assigned(first, 4)

    run(body())


def test_an_unknown_topic_is_said_to_be_unknown(bootstrap):
    async def body():
        async with started(AIOKafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
            with pytest.raises(UnknownTopicOrPartitionError):
                raise_errors(await admin.delete_topics([name("absent")]))

    run(body())


def test_librdkafka_speaks_to_it_too(bootstrap):
    confluent = pytest.importorskip("confluent_kafka")
    admin_module = pytest.importorskip("confluent_kafka.admin")
    topic, group = name("librdkafka"), name("group")
    quiet = {"bootstrap.servers": bootstrap, "log_level": 0}
    admin = admin_module.AdminClient(quiet)
    admin.create_topics([admin_module.NewTopic(topic, 2, 1)])[topic].result(DEADLINE_S)
    failed = []
    producer = confluent.Producer({**quiet, "enable.idempotence": True, "compression.type": "zstd"})
    for i in range(200):
        producer.produce(
            topic,
            b"v%d" % i,
            key=b"%d" % i,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    assert producer.flush(DEADLINE_S) == 0
    assert failed == []
    consumer = confluent.Consumer(
        {
            **quiet,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    try:
        consumer.subscribe([topic])
        values: set[bytes] = set()
        while len(values) < 200:
            message = consumer.poll(DEADLINE_S)
            assert message is not None
            assert message.error() is None
            values.add(message.value())
        consumer.commit(asynchronous=False)
        stored = consumer.committed(
            [confluent.TopicPartition(topic, number) for number in range(2)], timeout=DEADLINE_S
        )
        assert sum(part.offset for part in stored) == 200
    finally:
        consumer.close()
    assert values == {b"v%d" % i for i in range(200)}
