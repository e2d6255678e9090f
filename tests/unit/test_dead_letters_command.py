"""`dead-letters`: counted, shown and sent again, on the embedded broker."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_monitor.cli import main
from stream_monitor.demo.broker import start_in_thread

NOW_MS = time.time_ns() // 1_000_000
LETTERS: list[tuple[str, int, str, bytes, bytes | None, int, dict[str, bytes]]] = [
    ("x.predictions", 5, "wrong_type", b'{"event_id": "a"}', b"k1", 7_200_000, {}),
    ("x.predictions", 6, "invalid_json", b"\xff\x00", None, 3_000, {}),
    ("x.labels", 1, "wrong_type", b"", b"k2", 2_500, {"stream-monitor.truncated": b"5000000"}),
    ("x.observations", 9, "ended_worker", b"rows", None, 2_000, {}),
    ("x.labels", 2, "wrong_type", b'{"event_id": "\x1b[2J"}', b"\xfe", 1_000, {}),
    ("x.labels", 2, "wrong_type", b'{"event_id": "\x1b[2J"}', b"\xfe", 900, {}),
]


@pytest.fixture
def broker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with start_in_thread(partitions=1) as running:
        (tmp_path / "monitor.yaml").write_text(
            f"kafka: {{bootstrap_servers: '{running.bootstrap}', topic_prefix: 'x.'}}\n"
        )
        yield running.bootstrap


@pytest.fixture
def letters(broker):
    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=broker)
        await producer.start()
        for topic, offset, reason, value, key, ago_ms, more in LETTERS:
            headers = {
                "__connect.errors.topic": topic.encode(),
                "__connect.errors.partition": b"3",
                "__connect.errors.offset": str(offset).encode(),
            }
            headers |= {
                "__connect.errors.exception.message": b"`x` is \x1b[2J wrong",
                "stream-monitor.reason": reason.encode(),
                **more,
            }
            await producer.send_and_wait(
                "x.dead-letters",
                value,
                key,
                partition=0,
                timestamp_ms=NOW_MS - ago_ms,
                headers=list(headers.items()),
            )
        await producer.stop()

    asyncio.run(send())
    return broker


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["stream-monitor", "dead-letters", *arguments])
        code = 0
        try:
            main()
        except SystemExit as e:
            code = int(e.code or 0)
        found = capsys.readouterr()
        assert "Traceback" not in found.err
        assert "\x1b" not in found.out + found.err
        return code, found.out, found.err

    return run


def read(bootstrap: str, topic: str) -> list[tuple[bytes | None, bytes, int]]:
    async def body() -> list[tuple[bytes | None, bytes, int]]:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            tp = TopicPartition(topic, 0)
            consumer.assign([tp])
            end = (await consumer.end_offsets([tp]))[tp]
            await consumer.seek_to_beginning(tp)
            out: list[Any] = []
            while len(out) < end:
                out += (await consumer.getmany(tp, timeout_ms=200)).get(tp, [])
            return [(r.key, r.value, r.timestamp) for r in out]
        finally:
            await consumer.stop()

    return asyncio.run(body())


def test_they_are_counted_and_the_newest_come_first(letters, call):
    code, out, _ = call("list", "--limit", "2")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["3", "x.labels", "wrong_type"]
    assert {tuple(line.split()) for line in lines[1:4]} == {
        ("1", "x.predictions", "wrong_type"),
        ("1", "x.predictions", "invalid_json"),
        ("1", "x.observations", "ended_worker"),
    }
    assert [line.split()[0] for line in lines[5:]] == ["0:5", "0:4"]
    assert "x.labels/3:2  wrong_type  `x` is ?[2J wrong" in lines[5]


def test_filters(letters, call):
    def found(*arguments: str) -> list[str]:
        return [
            line["position"]
            for line in map(json.loads, call("list", "--json", *arguments)[1].splitlines())
            if "position" in line
        ]

    assert found() == ["0:5", "0:4", "0:3", "0:2", "0:1", "0:0"]
    assert found("--topic", "predictions") == found("--topic", "x.predictions") == ["0:1", "0:0"]
    assert found("--topic", "predictions", "--since", "1h") == ["0:1"]
    assert found("--reason", "invalid_json", "--reason", "ended_worker") == ["0:3", "0:1"]
    assert call("list", "--reason", "too_deep")[1] == "no dead letters\n"


def test_one_is_shown_by_position_or_from_the_newest(letters, call):
    assert "hex ff00" in call("show", "0:1")[1]
    newest = call("show", "1")[1]
    assert 'value      {"event_id": "?[2J"}' in newest
    assert "key        hex fe" in newest
    assert "position   0:0" in call("show", "6")[1]
    found = json.loads(call("show", "0:2", "--json")[1])
    assert found.pop("time").endswith("Z")
    assert found == {
        "position": "0:2",
        "topic": "x.labels",
        "source": "3:1",
        "reason": "wrong_type",
        "message": "`x` is \x1b[2J wrong",
        "truncated": 5_000_000,
        "key": "k2",
        "value": "",
        "value_bytes": 0,
    }
    assert "13 more bytes" in call("show", "0:0", "--bytes", "4")[1]
    for wrong, code, says in (
        ("7", 1, "dead letter 7 does not exist"),
        ("0:99", 1, "dead letter 0:99 does not exist"),
        ("x", 2, "is not a position"),
        ("0", 2, "is not a position"),
    ):
        assert (call("show", wrong)[0], says in call("show", wrong)[2]) == (code, True)


def test_they_are_sent_again_once_as_they_came(letters, call):
    assert call("replay", "--yes")[0] == 2
    assert "add --yes" in call("replay", "--reason", "wrong_type")[2]
    code, out, _ = call("replay", "--reason", "wrong_type", "--dry-run")
    assert (code, out) == (
        0,
        "would send: 1 to x.labels, 1 to x.predictions\nleft out: 1 without their value\n",
    )
    code, out, _ = call(
        "replay", "--reason", "wrong_type", "--reason", "ended_worker", "--yes", "--json"
    )
    assert (code, json.loads(out)) == (
        0,
        {
            "sent": True,
            "records": {"x.predictions": 1, "x.labels": 1},
            "left_out": {"without their value": 1, "of another topic": 1},
        },
    )
    assert read(letters, "x.predictions") == [(b"k1", b'{"event_id": "a"}', NOW_MS - 7_200_000)]
    assert read(letters, "x.labels") == [(b"\xfe", b'{"event_id": "\x1b[2J"}', NOW_MS - 900)]
    assert call("replay", "--reason", "too_deep")[1] == "nothing to send\n"


def test_without_the_topic(broker, call):
    code, _, err = call("list")
    assert (code, "x.dead-letters does not exist yet" in err) == (1, True)
