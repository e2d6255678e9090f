"""A worker before it reads anything: brokers that go away, and a stop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError

from stream_monitor.errors import BrokerError
from stream_monitor.kafka import topics
from stream_monitor.runtime import worker
from stream_monitor.settings import HttpSettings, KafkaSettings, Settings, WorkerSettings

SETTINGS = Settings(worker=WorkerSettings(metrics=HttpSettings(port=0)))


async def test_a_broker_that_goes_away_at_the_start_is_one_line(monkeypatch, capsys):
    async def ensure(settings):
        raise NodeNotReadyError("node 1")

    monkeypatch.setattr(topics, "ensure", ensure)
    with pytest.raises(BrokerError, match=r"no connection to Kafka at 127\.0\.0\.1:9092"):
        await worker.Worker(SETTINGS, {}).run()
    assert capsys.readouterr().out.startswith("listening on ")


@pytest.mark.virtual_time
async def test_where_there_are_several_brokers_another_is_asked(monkeypatch):
    errors = [NodeNotReadyError("node 1"), KafkaConnectionError("Connection at b:9092 closed")]

    async def ensure(settings):
        if errors:
            raise errors.pop(0)

    async def there(*_):
        return {"observations": 4, "snapshots": 4}

    monkeypatch.setattr(topics, "ensure", ensure)
    monkeypatch.setattr(topics, "describe", there)
    for name in ("demand_access", "check_transactions", "read_baselines"):
        monkeypatch.setattr(worker, name, there)
    several = Settings(kafka=KafkaSettings(bootstrap_servers="a:9092,b:9092"))
    partitions, read = await worker.Worker(several, {})._prepare()
    assert (partitions, dict[str, object](read)) == (4, {"observations": 4, "snapshots": 4})
    errors.append(KafkaConnectionError("Unable to bootstrap from [('a', 9092), ('b', 9092)]"))
    with pytest.raises(BrokerError, match="no connection to Kafka at a:9092,b:9092"):
        await worker.Worker(several, {})._prepare()


@pytest.mark.parametrize("step", ["ensure", "describe"])
async def test_sigterm_ends_a_worker_that_still_waits_for_something(monkeypatch, capsys, step):
    async def at_once(*_):
        return {}

    async def forever(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    for name in ("demand_access", "check_transactions", "read_baselines"):
        monkeypatch.setattr(worker, name, at_once)
    for name in ("ensure", "describe"):
        monkeypatch.setattr(topics, name, forever if name == step else at_once)
    await asyncio.wait_for(worker.Worker(SETTINGS, {}).run(), 60)


def test_river_is_imported_before_the_group_is_joined():
    """In a process of its own: what a worker prepares imports it, and nothing before does."""
    code = """
import asyncio, sys
from stream_monitor.runtime import worker
async def there(*_): return {"observations": 4, "snapshots": 4}
for name in ("demand_access", "check_transactions", "read_baselines"):
    setattr(worker, name, there)
worker.topics.ensure = worker.topics.describe = there
made = worker.Worker(worker.Settings(), {})
print("river" in sys.modules)
asyncio.run(made._prepare())
print("river" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["False", "True"]
