"""The archive and `collect` on a real Kafka, against a batch join of the same events."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from stream_monitor.kafka import topics
from stream_monitor.lifecycle_settings import Archive
from stream_monitor.settings import KafkaSettings, Settings, WorkerSettings
from stream_monitor.training.collect import collect
from stream_monitor.training.sources import ArchiveSource, KafkaSource
from tests.training_world import Stream, as_read, oracle, write

pytestmark = pytest.mark.kafka
MODEL = "fraud/EU ü"


def archiver(config: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stream_monitor", "archive", "--config", str(config), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def archived(config: Path) -> dict[str, Any]:
    out, _ = archiver(config, "--once", "--json").communicate(timeout=60)
    told: dict[str, Any] = json.loads(out)
    return told


def test_what_is_collected_is_a_batch_join_and_what_kafka_deleted_is_named(kafka, tmp_path):
    name, kept = f"t{uuid.uuid4().hex[:8]}", tmp_path / "kept"
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap, topic_prefix=f"{name}."),
        worker=WorkerSettings(group=name),
        archive=Archive(path=str(kept)),
    )
    config = tmp_path / "monitor.yaml"
    config.write_text(
        f"kafka: {{bootstrap_servers: '{kafka.bootstrap}', topic_prefix: {name}.}}\n"
        f"worker: {{group: {name}}}\narchive: {{path: '{kept}'}}\n"
    )

    async def made() -> None:
        async with topics.admin(settings) as client:
            await topics.create(
                settings, client, dict.fromkeys(("predictions", "labels", "observations"), 2)
            )

    asyncio.run(made())
    stream = Stream(seed=21)
    asyncio.run(write(settings, stream.more(150)))
    killed = archiver(config)
    deadline = time.monotonic() + 30
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    killed.kill()
    killed.wait()
    assert archived(config)["rows"] > 150
    expected = [as_read(row) for row in oracle(stream.sent, MODEL, 0, 1 << 60)]
    for row in expected:
        del row["features.later"]
    output = tmp_path / "x.parquet"
    for source in (ArchiveSource(kept), KafkaSource(settings)):
        collect(source, MODEL, None, None, output)
        assert pq.read_table(output).to_pylist() == expected
    ends = json.loads((kept / "reached" / "1.json").read_text())["offset"]
    asyncio.run(write(settings, stream.more(50)))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    cut = TopicPartition(f"{name}.observations", 1, ends + 1)
    for done in admin.delete_records([cut]).values():
        done.result(30)
    assert archived(config)["holes"] == 1
    (hole,) = collect(ArchiveSource(kept), MODEL, None, None, output).holes
    assert (hole.partition, hole.first, hole.end) == (1, ends, ends + 1)
