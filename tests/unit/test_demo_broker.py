"""
What only the embedded broker does: bounds, refusals, a clean end.

What every Kafka does is in tests/kafka/test_broker_contract.py.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import TransactionalIdAuthorizationFailed
from aiokafka.protocol.fetch import FetchRequest_v4
from aiokafka.protocol.group import JoinGroupRequest_v0
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from stream_monitor.demo.broker import Broker, start_in_thread
from stream_monitor.demo.groups import EMPTY, STABLE, Group, Join
from stream_monitor.demo.log import PartitionLog
from stream_monitor.demo.protocol import VERSIONS, Error

RECORD_BYTES_MAX = 1_048_588


def batch(
    *values: bytes,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    transactional: bool = False,
    time_ms: int = 1_700_000_000_000,
) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=transactional,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        batch_size=1 << 20,
    )
    for number, value in enumerate(values):
        builder.append(number, time_ms + number, None, value, [])
    return bytes(builder.build())


def test_only_the_newest_bytes_are_kept():
    log = PartitionLog(bytes_max=1_000)
    for number in range(50):
        assert log.append(batch(b"x" * 100), RECORD_BYTES_MAX) == (Error.NONE, number)
    assert (log.end, log.bytes <= 1_000) == (50, True)
    assert 0 < log.start < 50
    assert log.read(log.start - 1, 1 << 20) is None
    assert log.read(log.end, 1 << 20) == b""
    assert len(read(log, log.start, 1 << 20)) == log.bytes


def test_the_newest_batch_stays_even_when_it_is_larger_than_the_bound():
    log = PartitionLog(bytes_max=10)
    log.append(batch(b"old"), RECORD_BYTES_MAX)
    log.append(batch(b"x" * 500), RECORD_BYTES_MAX)
    assert (log.start, log.end) == (1, 2)


def read(log: PartitionLog, offset: int, limit: int) -> bytes:
    found = log.read(offset, limit)
    assert found is not None
    return found


def test_a_read_begins_with_the_batch_that_holds_the_offset_and_ends_at_the_limit():
    log = PartitionLog(bytes_max=1 << 20)
    first, second, third = batch(b"0", b"1", b"2"), batch(b"3"), batch(b"4")
    assert log.append(first + second + third, RECORD_BYTES_MAX) == (Error.NONE, 0)
    assert struct.unpack_from(">q", read(log, 2, 1))[0] == 0
    assert len(read(log, 2, 1)) == len(first)
    assert len(read(log, 2, len(first) + len(second))) == len(first) + len(second)
    assert struct.unpack_from(">q", read(log, 3, 1))[0] == 3
    assert log.at_time(1_700_000_000_002)[0] == 0
    assert log.at_time(1_700_000_000_003) == (-1, -1)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"short", Error.INVALID_RECORD),
        (batch(b"x")[:-1], Error.INVALID_RECORD),
        (batch(b"x") + b"rest", Error.INVALID_RECORD),
        (batch(b"x")[:16] + b"\x01" + batch(b"x")[17:], Error.INVALID_RECORD),
        (batch(b"x")[:-1] + b"?", Error.CORRUPT_MESSAGE),
        (
            batch(b"x", producer_id=1, epoch=0, sequence=0, transactional=True),
            Error.INVALID_TXN_STATE,
        ),
        (batch(b"x" * 2_000), Error.MESSAGE_TOO_LARGE),
    ],
)
def test_what_is_no_good_batch_is_refused_and_nothing_of_the_request_is_stored(data, error):
    log = PartitionLog(bytes_max=1 << 20)
    assert log.append(batch(b"good") + data, 1_000) == (error, -1)
    assert log.end == 0


def test_an_older_epoch_of_a_producer_is_refused_and_a_newer_one_begins_at_zero():
    log = PartitionLog(bytes_max=1 << 20)
    assert (
        log.append(batch(b"a", producer_id=7, epoch=1, sequence=0), RECORD_BYTES_MAX).error
        == Error.NONE
    )
    assert (
        log.append(batch(b"b", producer_id=7, epoch=0, sequence=1), RECORD_BYTES_MAX).error
        == Error.INVALID_PRODUCER_EPOCH
    )
    assert (
        log.append(batch(b"c", producer_id=7, epoch=2, sequence=1), RECORD_BYTES_MAX).error
        == Error.OUT_OF_ORDER_SEQUENCE
    )
    assert log.append(batch(b"d", producer_id=7, epoch=2, sequence=0), RECORD_BYTES_MAX) == (
        Error.NONE,
        1,
    )


def test_sequences_wrap_after_two_to_the_31():
    log = PartitionLog(bytes_max=1 << 20)
    assert log.append(
        batch(b"a", b"b", producer_id=7, epoch=0, sequence=2**31 - 2), RECORD_BYTES_MAX
    ) == (Error.NONE, 0)
    assert log.append(batch(b"c", producer_id=7, epoch=0, sequence=0), RECORD_BYTES_MAX) == (
        Error.NONE,
        2,
    )


def join(member: str, *protocols: str, session_s: float = 10.0, rebalance_s: float = 10.0) -> Join:
    return Join(
        member,
        "client",
        session_s,
        rebalance_s,
        "consumer",
        dict.fromkeys(protocols or ("range",), b"meta"),
    )


@pytest.mark.virtual_time
async def test_a_silent_member_is_taken_out_and_the_others_join_again():
    group = Group(join_delay_s=0.0)
    first, second = (
        asyncio.ensure_future(group.join(join(""))),
        asyncio.ensure_future(group.join(join("", session_s=1.0))),
    )
    leader, follower = await first, await second
    assert (leader.generation, len(leader.members), follower.members) == (1, 2, ())
    waiting = asyncio.ensure_future(group.sync(follower.member, 1, []))
    await asyncio.sleep(0)
    assert await group.sync(leader.member, 1, [(leader.member, b"a"), (follower.member, b"b")]) == (
        Error.NONE,
        b"a",
    )
    assert (await waiting, group.state) == ((Error.NONE, b"b"), STABLE)
    now_s = asyncio.get_running_loop().time()
    assert group.reap(now_s + 0.9) == []
    assert group.reap(now_s + 2.0) == [follower.member]
    assert group.heartbeat(leader.member, 1) == Error.REBALANCE_IN_PROGRESS
    assert group.heartbeat(follower.member, 1) == Error.UNKNOWN_MEMBER_ID
    again = await group.join(join(leader.member))
    assert (again.generation, len(again.members)) == (2, 1)
    assert group.leave(leader.member) == Error.NONE
    assert group.state == EMPTY
    group.close()


@pytest.mark.virtual_time
async def test_members_without_a_common_protocol_are_refused():
    group = Group(join_delay_s=0.0)
    joined = await asyncio.gather(group.join(join("", "range")), group.join(join("", "sticky")))
    assert {answer.error for answer in joined} == {Error.INCONSISTENT_GROUP_PROTOCOL}
    group.close()


@pytest.mark.virtual_time
async def test_a_commit_of_another_generation_or_from_outside_a_living_group_is_refused():
    group = Group(join_delay_s=0.0)
    assert group.commit("", -1, {("t", 0): (5, "")}) == Error.NONE
    member = await group.join(join(""))
    await group.sync(member.member, 1, [])
    assert group.commit(member.member, 0, {("t", 0): (6, "")}) == Error.ILLEGAL_GENERATION
    assert group.commit("", -1, {("t", 0): (7, "")}) == Error.UNKNOWN_MEMBER_ID
    assert group.commit(member.member, 1, {("t", 0): (8, "m")}) == Error.NONE
    assert group.offsets == {("t", 0): (8, "m")}
    group.close()


async def test_transactions_are_refused_when_the_producer_starts():
    async with Broker() as broker:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id="t")
        with pytest.raises(TransactionalIdAuthorizationFailed):
            await producer.start()
        await producer.stop()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">i", 3) + b"abc",
        struct.pack(">i", -1),
        struct.pack(">ihhih", 10, 999, 0, 1, -1),
        struct.pack(">ihhih", 10, 1, 4, 1, -1),
        struct.pack(">ihhihb", 11, 0, 7, 1, -1, 9),
    ],
)
async def test_a_client_that_does_not_speak_kafka_is_hung_up_on_and_counted(said, caplog):
    with caplog.at_level(logging.WARNING):
        async with Broker() as broker:
            reader, writer = await asyncio.open_connection(*broker.bootstrap.split(":"))
            writer.write(said)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            assert sum(broker.errors.values()) == 1
    assert "does not understand" in caplog.text


def test_every_version_that_is_offered_has_a_handler():
    broker = Broker()
    assert {key for key, _, _ in VERSIONS} - {18} == set(broker._handlers.by_api_key)


async def test_it_stops_with_a_reader_and_a_member_waiting_and_leaves_no_task():
    def request(api_key: int, version: int, body) -> bytes:
        data = struct.pack(">hhih", api_key, version, 1, -1) + body.encode()
        return struct.pack(">i", len(data)) + data

    broker = await Broker(join_delay_s=60).start()
    before = asyncio.all_tasks()
    broker.topics.create("t")
    clients = []
    for said in (
        request(1, 4, FetchRequest_v4(-1, 60_000, 1, 1_000, 0, [("t", [(0, 0, 1_000)])])),
        request(11, 0, JoinGroupRequest_v0("g", 60_000, "", "consumer", [("range", b"")])),
    ):
        reader, writer = await asyncio.open_connection(*broker.bootstrap.split(":"))
        writer.write(said)
        clients.append((reader, writer))
    while len(asyncio.all_tasks() - before) < 6:  # noqa: ASYNC110, for each client: its connection, its sender, its answer
        await asyncio.sleep(0.01)
    await broker.stop()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for reader, writer in clients:
        assert await reader.read() == b""
        writer.close()
    assert left == set()


async def test_a_reader_that_fell_behind_jumps_to_what_is_kept():
    async with Broker(bytes_max=5_000, partitions=1) as broker:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=0)
        await producer.start()
        for _ in range(30):
            await producer.send_and_wait("t", b"x" * 500)
        await producer.stop()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest"
        )
        await consumer.start()
        partition = TopicPartition("t", 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        record = await consumer.getone()
        start = (await consumer.beginning_offsets([partition]))[partition]
        await consumer.stop()
    assert record.offset == start > 0


def test_a_taken_port_is_an_error_of_the_caller():
    with (
        start_in_thread() as broker,
        pytest.raises(OSError, match=r"address already in use|Only one usage"),
    ):
        start_in_thread(port=int(broker.bootstrap.split(":")[1]))


@pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])
async def test_the_broker_dates_the_records_of_a_topic_that_says_so(kind):
    async with Broker(partitions=1) as broker:
        broker.topics.create("t", 1, [("message.timestamp.type", kind)])
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=0)
        await producer.start()
        before = time.time_ns() // 1_000_000
        written = await producer.send_and_wait("t", b"x", timestamp_ms=17)
        after = time.time_ns() // 1_000_000
        await producer.stop()
        consumer = AIOKafkaConsumer(
            "t", bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest"
        )
        await consumer.start()
        record = await consumer.getone()  # it checks the sum
        await consumer.stop()
    if kind == "CreateTime":
        assert (record.timestamp, record.timestamp_type) == (17, 0)
    else:
        assert before <= record.timestamp == written.timestamp <= after
        assert (record.timestamp_type, written.timestamp_type) == (1, 1)
