"""
`stream-monitor topics` on a real Kafka: made, found as specified, repaired, and nothing done twice.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner

from stream_monitor.cli.topics import command
from stream_monitor.errors import BrokerError
from stream_monitor.kafka.alter_configs import SetTopicConfigs
from stream_monitor.kafka.topic_changes import Difference, apply, look
from stream_monitor.schema import topics
from stream_monitor.settings import KafkaSettings, Settings

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka: Any) -> Settings:
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=kafka.bootstrap, topic_prefix=f"t{random.randrange(10**9)}."
        )
    )


@pytest.fixture
def monitor(settings: Settings, tmp_path: Path):
    path = tmp_path / "monitor.yaml"
    path.write_text(
        f"kafka: {{bootstrap_servers: '{settings.kafka.bootstrap_servers}', topic_prefix: "
        f"'{settings.kafka.topic_prefix}'}}\n"
    )

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(
            command, [*arguments[:1], "--config", str(path), *arguments[1:]]
        )
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    return run


def set_by_hand(settings: Settings, topic: str, **config: str) -> None:
    wanted = {key.replace("_", "."): value for key, value in config.items()}

    async def body() -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
        await client.start()
        answer = await client._send_request(
            SetTopicConfigs({settings.kafka.topic_prefix + topic: wanted})
        )
        await client.close()
        assert [code for code, *_ in answer.resources] == [0]
        async with asyncio.timeout(20):  # the answer comes before the broker's metadata has it
            while not (await look(settings.kafka))[topic].config.items() >= wanted.items():  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    asyncio.run(body())


def test_made_clean_altered_by_hand_repaired_and_then_nothing(settings, monitor):
    prefix = settings.kafka.topic_prefix
    assert len(monitor("check", code=1).splitlines()) == len(topics()) + 1
    made = monitor("apply")
    assert all(
        f"made {prefix}{name}, partitions: {spec.partitions}" in made
        for name, spec in topics().items()
    )
    assert monitor("check") == "all topics are as specified\n"
    found = asyncio.run(look(settings.kafka))
    for name, spec in topics().items():
        assert found[name].config.items() >= spec.config.items()

    set_by_hand(settings, "labels", retention_ms="3600000", segment_bytes="123456789")
    assert (
        monitor("check", code=1)
        == f"{prefix}labels: retention.ms is 3600000, expected 604800000\n1 difference(s)\n"
    )
    assert (
        monitor("apply", "--dry-run")
        == f"would set retention.ms of {prefix}labels: 3600000 -> 604800000\n"
    )
    assert monitor("apply") == f"set retention.ms of {prefix}labels: 3600000 -> 604800000\n"
    assert monitor("check") == "all topics are as specified\n"
    assert monitor("apply") == "nothing to change\n"
    assert asyncio.run(look(settings.kafka))["labels"].config["segment.bytes"] == "123456789", (
        "a setting that is not specified was set back"
    )


def test_partitions_grow_where_they_may_and_are_refused_where_rows_would_move(settings, monitor):
    prefix = settings.kafka.topic_prefix
    monitor("apply", "--partitions", "observations=6")
    assert monitor("check") == "all topics are as specified\n"
    assert (
        monitor("apply", "--partitions", "predictions=7")
        == f"added partitions to {prefix}predictions: 4 -> 7\n"
    )
    refused = monitor("apply", "--partitions", "observations=8", code=1)
    assert f"delete {prefix}observations and {prefix}snapshots" in refused
    found = asyncio.run(look(settings.kafka))
    assert {
        name: found[name].partitions
        for name in ("predictions", "observations", "snapshots", "labels")
    } == {"predictions": 7, "observations": 6, "snapshots": 6, "labels": 4}


def test_what_kafka_refuses_is_said_in_its_words(settings, monitor):
    monitor("apply")
    wrong = Difference(
        topic="labels", aspect="retention.ms", want="soon", have="604800000", repair="alter"
    )
    with pytest.raises(BrokerError, match=r"labels: .*retention\.ms"):
        asyncio.run(apply(settings, [wrong]))
