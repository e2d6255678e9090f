"""
A real Apache Kafka: `KAFKA_BOOTSTRAP` when it is set, else one JVM from Maven's packages. Without
either the tests are skipped, and in CI that is a failure.
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
