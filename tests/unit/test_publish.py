"""Events are sent as they are, when they are due, and sending stops when it is told to."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_monitor.cli.produce import MAX, REALTIME, command, paced, parse_rate, shifted
from stream_monitor.demo.broker import Broker
from stream_monitor.errors import BrokerError, InputError
from stream_monitor.inputs import InputOptions, open_events
from stream_monitor.kafka.publish import Background, Publisher, publish
from stream_monitor.settings import KafkaSettings


async def received(bootstrap: str, topic: str) -> list[tuple[bytes | None, bytes]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(4)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        left = sum((await consumer.end_offsets(partitions)).values())
        records: list[Any] = []
        while len(records) < left:
            records += [
                (record.key, record.value)
                for part in (await consumer.getmany(timeout_ms=500)).values()
                for record in part
            ]
        return records
    finally:
        await consumer.stop()


async def test_a_file_arrives_as_it_is_read(tmp_path):
    path = tmp_path / "churn.csv"
    path.write_text(
        "prediction,label,age\n" + "".join(f"1,{number % 2},{number}\n" for number in range(1_000))
    )

    async with (
        Broker() as broker,
        Publisher(
            KafkaSettings(bootstrap_servers=broker.bootstrap, topic_prefix="x-")
        ) as publisher,
    ):
        with open_events(InputOptions(table=str(path))) as stream:
            async with Background(lambda: paced(stream, MAX)) as events:
                complete = await publish(publisher, events, asyncio.Event())
        predictions = await received(broker.bootstrap, "x-predictions")
        labels = await received(broker.bootstrap, "x-labels")
    assert (complete, publisher.sent) == (True, {"predictions": 1_000, "labels": 1_000})
    with open_events(InputOptions(table=str(path))) as stream:
        expected = list(stream)
    assert sorted(predictions) == sorted(
        (key, value) for kind, value, key, _ in expected if kind == "predictions"
    )
    assert sorted(labels) == sorted(
        (key, value) for kind, value, key, _ in expected if kind == "labels"
    )


async def test_an_event_without_an_id_has_no_key():
    async with (
        Broker() as broker,
        Publisher(KafkaSettings(bootstrap_servers=broker.bootstrap)) as publisher,
    ):
        await publisher.send("predictions", b"bad", b"")
        await publisher.flush()
        assert await received(broker.bootstrap, "predictions") == [(None, b"bad")]


async def test_events_wait_until_they_are_due():
    async with (
        Broker() as broker,
        Publisher(KafkaSettings(bootstrap_servers=broker.bootstrap)) as publisher,
    ):
        async with Background(
            lambda: [("predictions", b"{}", b"k", number * 0.1) for number in range(4)]
        ) as events:
            began_s = time.monotonic()
            await publish(publisher, events, asyncio.Event())
            took_s = time.monotonic() - began_s
    assert took_s >= 0.29


async def test_stopping_flushes_and_says_that_not_all_was_sent():
    async with (
        Broker() as broker,
        Publisher(KafkaSettings(bootstrap_servers=broker.bootstrap)) as publisher,
    ):
        stop = asyncio.Event()
        async with Background(
            lambda: (("predictions", b"{}", b"k", number * 0.01) for number in itertools.count())
        ) as events:
            complete = await publish(
                publisher, events, stop, lambda due_s: stop.set() if due_s > 0.1 else None
            )
        assert not [thread for thread in threading.enumerate() if thread.name == "input"]
    assert (complete, publisher.sent["predictions"]) == (False, 12)


async def test_a_live_input_that_says_nothing_does_not_keep_it_from_ending():
    silence = threading.Event()

    def lines():
        yield "predictions", b"{}", b"k", 0.0
        silence.wait(120)

    async with (
        Broker() as broker,
        Publisher(KafkaSettings(bootstrap_servers=broker.bootstrap)) as publisher,
    ):
        stop = asyncio.Event()

        async def told_to_stop() -> None:
            while publisher.sent["predictions"] < 1:  # noqa: ASYNC110, as a signal would come
                await asyncio.sleep(0.01)
            stop.set()

        async with Background(lines, live=True) as events, asyncio.TaskGroup() as tasks:
            tasks.create_task(told_to_stop())
            complete = await publish(publisher, events, stop)
    assert (complete, publisher.sent["predictions"]) == (False, 1)
    silence.set()


async def test_an_error_of_reading_is_raised_where_events_are_sent():
    def broken():
        yield "predictions", b"{}", b"k", 0.0
        raise InputError("p.csv: line 7: malformed")

    async def body():
        async with (
            Broker() as broker,
            Publisher(KafkaSettings(bootstrap_servers=broker.bootstrap)) as publisher,
            Background(broken, live=True) as events,
        ):
            await publish(publisher, events, asyncio.Event())

    with pytest.raises(InputError, match="line 7"):
        await body()


async def test_a_refused_record_ends_it():
    async def body():
        async with Broker() as broker:
            broker.topics.create("predictions", 1, [("max.message.bytes", "100")])
            async with Publisher(KafkaSettings(bootstrap_servers=broker.bootstrap)) as publisher:
                await publisher.send("predictions", b"x" * 1_000, b"k")
                await publisher.flush()

    with pytest.raises(BrokerError, match="a record was refused"):
        await body()


async def test_a_broker_that_is_not_there_is_named():
    async def body():
        async with Publisher(KafkaSettings(bootstrap_servers="127.0.0.1:9")):
            pytest.fail("connected")

    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:9"):
        await body()


@pytest.mark.parametrize("text", ["0", "-5/s", "fast", "5/m", ""])
def test_rates_that_are_none(text):
    with pytest.raises(InputError, match="N/s"):
        parse_rate(text)


def test_realtime_keeps_the_distances_of_the_times():
    events = [("predictions", b"{}", b"", time_ms) for time_ms in (1_000, 1_000, 4_000)]
    assert [due_s for *_, due_s in paced(events, REALTIME)] == [0.0, 0.0, 3.0]


def test_shifting_moves_usable_timestamps_only():
    assert json.loads(shifted(b'{"timestamp": 1700000000000, "x": 1.5}', 250)) == {
        "timestamp": 1_700_000_000_250,
        "x": 1.5,
    }
    for value in (b"bad", b"[1]", b'{"timestamp": "soon"}', b'{"timestamp": NaN}'):
        assert shifted(value, 250) == value


def test_the_command_has_an_example_and_all_its_options():
    assert {
        "maps",
        "ignore",
        "interval",
        "label_delay",
        "rate",
        "now",
        "simulate",
        "broker",
        "config",
        "topic_prefix",
    } <= {option.name for option in command.params}
    assert "Examples:" in (command.help or "")
