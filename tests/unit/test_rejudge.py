"""
`rejudge` on the embedded broker, held to a fold of the same records from their beginning, and to
the story that the rows tell.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.cli.rejudge_lines import lasting, report_of
from stream_monitor.config import parse
from stream_monitor.demo.broker import start_in_thread
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.offline.alarms import NEAR_MS, Alarm, counts, side_by_side
from stream_monitor.offline.rejudging import Beginning, Rejudging, Side
from stream_monitor.settings import CoreSettings
from stream_monitor.stages import snapshots
from stream_monitor.times import rfc3339

MINUTE, HOUR = 60_000, 3_600_000
MODELS = "{baseline: {rows: 200}, windows: [last_200], drift: {features: off, errors: off}"
PRESENT = (
    f"defaults: {MODELS}, quality: {{missing_ratio: 0.1, min_rows: 50}}, "
    "thresholds: {accuracy: 0.2}}\n"
)
NEW = (
    f"defaults: {MODELS}, quality: {{missing_ratio: 0.9, min_rows: 50}}, "
    "thresholds: {accuracy: {min: 0.8, window: last_200, min_labels: 100}}}\n"
)


class LogLine(NamedTuple):
    value: bytes
    time_ms: int


def story(now_ms: int = 0, hours: float = 1.5) -> list[LogLine]:
    """
    Twelve rows a minute of a model with an accuracy of 0.95. One field is missing in the last 40
    minutes, and the model is wrong half of the time in the last 20 minutes.
    """
    now_ms = now_ms or time.time_ns() // 1_000_000
    ingest, found = Ingest(1), []
    rng = np.random.default_rng(3)
    began_ms = now_ms - round(hours * HOUR)
    for step in range(int(hours * 60)):
        at = began_ms + step * MINUTE
        left_ms = now_ms - at
        predictions: list[bytes | None] = []
        labels: list[bytes | None] = []
        for i in range(12):
            name = {"event_id": f"{step}-{i}", "model": "fraud", "timestamp": at}
            right = rng.random() > (0.5 if left_ms <= 20 * MINUTE else 0.05)
            answer = int(rng.random() < 0.4)
            x = None if left_ms <= 40 * MINUTE and i % 3 == 0 else float(rng.normal())
            predictions.append(
                json.dumps({**name, "prediction": answer, "features": {"x": x}}).encode()
            )
            labels.append(json.dumps({**name, "label": answer if right else 1 - answer}).encode())
        offsets = np.arange(step * 12, step * 12 + 12)
        for kind, values in (("predictions", predictions), ("labels", labels)):
            ingest.take(f"{kind}@x/0", kind, values, offsets, np.full(12, at, np.int64))
        found += [LogLine(value, at) for value in ingest.flush(at).get(0, [])]
    return found


def folded(core: CoreSettings, records: list[LogLine]) -> tuple[Shard, list[Any]]:
    """The fold of these records, and the alert events that it tells, as JSON."""
    shard = Shard(0, core)
    for record in records:
        shard.fold(record.value)
    return shard, [json.loads(o.value) for o in shard.outbox if o.topic == "alerts"]


class Kafka:
    """The embedded broker with a log of observations."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap, self.folder = bootstrap, folder

    def config(self, name: str, text: str, bootstrap: str = "") -> str:
        path = self.folder / name
        path.write_text(f"kafka: {{bootstrap_servers: '{bootstrap or self.bootstrap}'}}\n{text}")
        return str(path)

    def write(self, records: list[LogLine], stored: tuple[int, Shard] | None = None) -> None:
        asyncio.run(self._write(records, stored))

    async def _write(self, records: list[LogLine], stored: tuple[int, Shard] | None) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        names = ("observations", "snapshots", "alerts", "baselines")
        await admin.create_topics([NewTopic(name, 1, 1) for name in names])
        await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, max_request_size=4 << 20)
        await producer.start()
        try:
            for position, record in enumerate(records):
                if stored is not None and position == stored[0]:
                    await self._store(producer, stored[1], position, record.time_ms)
                await producer.send_and_wait(
                    "observations", record.value, partition=0, timestamp_ms=record.time_ms
                )
        finally:
            await producer.stop()

    async def _store(
        self, producer: AIOKafkaProducer, shard: Shard, position: int, time_ms: int
    ) -> None:
        async def send(key: bytes, value: bytes | None) -> int:
            sent = await producer.send_and_wait(
                "snapshots", value, key=key, partition=0, timestamp_ms=time_ms - 1
            )
            return int(sent.offset)

        none = snapshots.Manifest()
        await snapshots.write(0, position, shard.config, shard.snapshot(), none, 0, send)

    def tell(self, alerts: list[bytes]) -> None:
        asyncio.run(self._tell(alerts))

    async def _tell(self, alerts: list[bytes]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        for alert in alerts:
            await producer.send_and_wait("alerts", alert, key=b"k")
        await producer.stop()

    def everything(self) -> dict[str, Any]:
        """What the cluster has: topics with their ends, and groups."""
        return asyncio.run(self._everything())

    async def _everything(self) -> dict[str, Any]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await admin.start()
        await consumer.start()
        try:
            found = await admin.describe_topics(await admin.list_topics())
            every = [
                TopicPartition(t["topic"], p["partition"]) for t in found for p in t["partitions"]
            ]
            consumer.assign(every)
            ends = await consumer.end_offsets(every)
            return {"ends": ends, "groups": await admin.list_consumer_groups()}
        finally:
            await consumer.stop()
            await admin.close()


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    with start_in_thread(partitions=1) as broker:
        yield Kafka(broker.bootstrap, tmp_path)


def rejudge(*arguments: str, code: int = 0) -> Any:
    run = CliRunner().invoke(cli, ["rejudge", *arguments])
    if run.exception is not None and not isinstance(run.exception, SystemExit):
        if code == 0:
            raise run.exception
        return str(run.exception)
    assert run.exit_code == code, run.output
    return json.loads(run.stdout) if "--json" in arguments else run.stdout


def test_alarms_of_both_configurations_are_side_by_side_as_a_fold_of_the_whole_log_has_them(kafka):
    records = story()
    at = next(i for i, r in enumerate(records) if r.time_ms >= records[-1].time_ms - 64 * MINUTE)
    present, new = parse(PRESENT).core, parse(NEW).core
    kafka.write(records, (at, folded(present, records[:at])[0]))
    before = kafka.everything()
    out = kafka.folder / "would.jsonl"

    report = rejudge(
        "--since", "1h", "--config", kafka.config("new.yaml", NEW), "--alerts", str(out), "--json"
    )

    told = [json.loads(line) for line in out.read_text().splitlines()]
    since = report["since"]
    expected = [a for a in folded(new, records)[1] if a["starts_at"] >= since]
    assert told == expected, "from a snapshot, and with another configuration before it"
    assert [(a["kind"], a["subject"], a["in"]) for a in report["alarms"]] == [
        ("data_quality", "x", "only was"),
        ("performance", "accuracy", "only would"),
    ]
    assert any("newest snapshot" in note for note in report["notes"])
    (counted,) = report["models"].values()
    assert (counted["were"], counted["would_have_been"], counted["both"]) == (1, 1, 0)
    assert counted["were_a_day"] == pytest.approx(1 / counted["days"])
    assert counted["days"] == pytest.approx(1 / 24, rel=0.02)
    assert kafka.everything() == before, "it writes nothing and joins no group"


def test_clean_hours_have_no_alarm_in_either(kafka):
    now_ms = time.time_ns() // 1_000_000
    kafka.write([r for r in story(now_ms + HOUR, 2.5) if r.time_ms < now_ms])
    present = kafka.config("present.yaml", PRESENT)
    report = rejudge(
        "--since", "1h", "--config", kafka.config("new.yaml", NEW), "--present", present, "--json"
    )
    assert report["alarms"] == []
    (counted,) = report["models"].values()
    assert (counted["were"], counted["would_have_been"]) == (0, 0)


def test_without_a_snapshot_models_learn_first_and_the_text_says_so(kafka):
    kafka.write(story())
    new, present = kafka.config("new.yaml", NEW), kafka.config("present.yaml", PRESENT)
    shown = rejudge("--since", "1h", "--learn", "20m", "--config", new, "--present", present)
    assert "learn from offset" in shown
    assert "data_quality" in shown
    assert "still fires" in shown
    whole = rejudge("--since", "1h", "--config", new, "--present", present, "--json")
    assert whole["notes"] == [], "the log is there from its first record on: nothing is missing"
    learnt = rejudge(
        "--since", "10m", "--learn", "0s", "--config", new, "--present", present, "--json"
    )
    assert learnt["learning"] == ["fraud"]
    assert learnt["alarms"] == [] == list(learnt["models"])


def test_a_record_that_is_none_is_left_out_and_named(kafka):
    records = story()
    kafka.write([*records[:9], LogLine(b"no record", records[9].time_ms), *records[9:]])
    new, present = kafka.config("new.yaml", NEW), kafka.config("present.yaml", PRESENT)
    report = rejudge("--since", "1h", "--config", new, "--present", present, "--json")
    assert [(u["partition"], u["offset"]) for u in report["unreadable"]] == [(0, 9)]
    assert "unknown format" in report["unreadable"][0]["why"]
    assert report["rows"] == 24 * len(records)
    assert len(report["alarms"]) == 2


def test_each_fault_has_its_words(kafka):
    new = kafka.config("new.yaml", NEW)
    assert "does not exist; a worker creates it" in rejudge("--config", new, code=1)
    kafka.write([])
    assert "observations is empty" in rejudge("--config", new, code=2)
    kafka.write(story(hours=0.2))
    assert "did you mean 'fraud'" in rejudge("--config", new, "--model", "fruad", code=2)
    assert "--since: 'noon' is not a duration" in rejudge(
        "--config", new, "--since", "noon", code=2
    )
    gone = kafka.config("gone.yaml", NEW, bootstrap="127.0.0.1:1")
    assert "127.0.0.1:1" in rejudge("--config", gone, code=1)


def test_a_log_that_begins_after_since_says_when(tmp_path):
    with start_in_thread(partitions=1, bytes_max=50_000) as broker:
        kafka = Kafka(broker.bootstrap, tmp_path)
        kafka.write(story())
        new, present = kafka.config("new.yaml", NEW), kafka.config("present.yaml", PRESENT)
        report = rejudge("--since", "80m", "--config", new, "--present", present, "--json")
    begins, learns = report["notes"]
    assert "observations begins at" in begins
    assert "after --since" in begins
    assert "models learn from offset" in learns


def test_alarms_that_were_told_come_from_the_topic(kafka):
    records = story()
    kafka.write(records)
    told = [a for a in folded(parse(PRESENT).core, records)[1] if a["status"] == "firing"]
    alerts = [msgspec.json.encode({**alert, "detector": "another"}) for alert in told]
    kafka.tell([*alerts, b"{"])
    report = rejudge(
        "--since", "1h", "--config", kafka.config("new.yaml", NEW), "--were", "told", "--json"
    )
    assert [a["was"]["detector"] for a in report["alarms"] if a["was"]] == ["another"]


def test_ctrl_c_ends_it_at_once_without_a_traceback(kafka):
    kafka.write(story())
    program = (
        "import os, signal\n"
        "from stream_monitor.offline.rejudging import Rejudging\n"
        "fold = Rejudging.fold\n"
        "def stopped(self, offset, record, appended_ms):\n"
        "    if offset == 10: os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert offset < 30, 'it goes on'\n"
        "    return fold(self, offset, record, appended_ms)\n"
        "Rejudging.fold = stopped\n"
        "from stream_monitor.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program, "rejudge", "--config", kafka.config("new.yaml", NEW)]
    ended = subprocess.run(  # noqa: PLW1510, its code is tested
        command, capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    assert "Traceback" not in ended.stderr


def alarm(start_ms: int, end_ms: int | None, **more: Any) -> Alarm:
    found = Alarm("m", "1", "", "latency", "latency", "a", "warning", start_ms, end_ms, "slow")
    return found._replace(**more)


@pytest.mark.parametrize(
    ("was", "would", "where"),
    [
        (alarm(0, 10), alarm(5, None, detector="b"), ["both"]),
        (alarm(0, 10), alarm(10 + NEAR_MS, None), ["both"]),
        (alarm(0, 10), alarm(11 + NEAR_MS, None), ["only was", "only would"]),
        (alarm(0, None), alarm(90 * HOUR, None), ["both"]),
        (alarm(0, 10), alarm(0, 10, subject="errors"), ["only was", "only would"]),
        (alarm(0, 10), alarm(0, 10, version="2"), ["only was", "only would"]),
    ],
)
def test_two_alarms_are_one_if_they_are_about_the_same_at_the_same_time(was, would, where):
    assert [row.where for row in side_by_side([was], [would])] == where


def test_an_alarm_meets_one_other_only_and_those_from_before_do_not_count():
    rows = side_by_side([alarm(0, None)], [alarm(0, None), alarm(2, None)])
    assert [row.where for row in rows] == ["both", "only would"]
    (count,) = counts(rows, {"m": 1}, 86_400_001)
    assert (count.was, count.would, count.both, count.a_day(count.would)) == (0, 1, 0, 1.0)


def test_a_length_of_time_is_brief():
    assert [lasting(s) for s in (0, 59.9, 60, 3_600, 90_061)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h",
        "1 d 1 h",
    ]


def test_experiments_in_the_log_are_judged_again_in_both():
    began_ms, rng, ingest = 1_760_000_000_000, np.random.default_rng(1), Ingest(1)
    arms = ["control", "b"]
    started = {
        "schema": 1,
        "type": "experiment_started",
        "model": "m",
        "at": rfc3339(began_ms),
        "experiment": "x",
        "unit": "user",
        "arms": arms,
        "weights": {"control": 50, "b": 50},
        "primary": {"metric": "features.spent", "effect": 0.5, "cap": 100},
        "duration": ["10m", "30d"],
    }
    one = np.zeros(1, np.int64)
    ingest.take("lifecycle@x/0", "lifecycle", [json.dumps(started).encode()], one, one + began_ms)
    records = ingest.flush(began_ms)[0]
    for step in range(60):
        at, values = began_ms + step * MINUTE // 2, []
        for i in range(30):
            arm = int(rng.random() < 0.5)
            row = {
                "event_id": f"{step}-{i}",
                "model": "m",
                "timestamp": at,
                "variant": arms[arm],
                "unit": f"u{step}-{i}",
                "prediction": 1,
                "features": {"spent": float(rng.normal(20 + 0.8 * arm, 2))},
            }
            values.append(json.dumps(row).encode())
        offsets = np.arange(step * 30, step * 30 + 30)
        ingest.take("predictions@x/0", "predictions", values, offsets, np.full(30, at))
        records += ingest.flush(at)[0]
    side = Side(CoreSettings(), {})
    rejudging = Rejudging(1, side, side, since_ms=began_ms)
    rejudging.begin(0, Beginning(0, whole=True))
    for offset, record in enumerate(records):
        rejudging.fold(offset, record, None)
    rejudging.end()
    (verdict,) = report_of(rejudging, [], 1 / 30)["verdicts"]
    assert (verdict["experiment"], verdict["arm"], verdict["verdict"]) == ("x", "b", "promote")
    assert verdict["was"] == verdict["would_have_been"]
