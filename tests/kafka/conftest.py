"""
A real Apache Kafka: `KAFKA_BOOTSTRAP` when it is set, else one JVM from Maven's packages for each
process of the tests. Without either the tests are skipped, and in CI that is a failure.

Rule of the file: tests share a broker, each with topics of its own; one that hurts its broker
starts another.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kafka.site import Site

SCRIPT = Path(__file__).parents[2] / "scripts" / "kafka_server.py"
LONGEST_FIRST = (
    "test_chaos.py",
    "test_recovery.py",
    "test_security.py",
    "test_poison.py",
    "test_silent_ends.py",
    "test_followers.py",
    "test_abuse.py",
    "test_sources.py",
    "test_bench.py",
    "test_in_step.py",
)
"""Otherwise one process would wait for the other at the end."""

# Brokers of tests do not live long enough for the second compiler of the JVM to pay.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    order = {here / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


class Kafka(NamedTuple):
    bootstrap: str


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    if given := os.environ.get("KAFKA_BOOTSTRAP"):
        yield Kafka(given)
        return
    spec = importlib.util.spec_from_file_location("kafka_server", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    server = importlib.util.module_from_spec(spec)
    sys.modules["kafka_server"] = server
    spec.loader.exec_module(server)
    why = server.missing()
    if why is not None:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    broker = server.KafkaServer()
    try:
        broker.start()
        yield Kafka(broker.bootstrap)
    finally:
        broker.close()


@pytest.fixture
def site(kafka: Kafka, tmp_path: Path) -> Iterator[Site]:
    """Topics of one test; a worker that is still there is killed."""
    found = Site(kafka.bootstrap, tmp_path)
    yield found
    if found.process is not None:
        found.process.kill()
        found.process.wait(10)
