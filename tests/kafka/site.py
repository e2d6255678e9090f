"""
Topics of one test on a real Kafka, the worker that reads them, and what it leaves there.

Rule of the file: nothing of it is shared between tests, so that each begins with empty topics.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer

from bench import chaos_check

DEADLINE_S = 60
CONFIG = """
kafka: {{bootstrap_servers: '{bootstrap}', topic_prefix: '{prefix}'}}
worker: {{group: '{prefix}group', instance_id: one, max_record_bytes: 960000, metrics: {{port: 0}}}}
limits: {{models: 20, versions: 3, features: 30, segments: 10, categories: 10}}
defaults: {{baseline: {{rows: 100}}, segments: [country]}}
"""


class Site:
    """Topics of one test, and the worker that reads them."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap, self.folder, self.prefix = bootstrap, folder, f"t{random.randrange(10**9)}."
        self.file = folder / "monitor.yaml"
        self.file.write_text(CONFIG.format(bootstrap=bootstrap, prefix=self.prefix))
        self.log = ""
        self.process: subprocess.Popen[str] | None = None
        self.codes: list[int] = []
        """How workers ended."""

    def start(self, program: Sequence[str] = ("-m", "stream_monitor"), **environment: str) -> None:
        log = self.folder / f"{len(self.codes)}.log"
        with log.open("w") as err:
            command = [sys.executable, *program, "worker", "--config", str(self.file)]
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env={**os.environ, **environment},
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]

    def ended(self) -> int:
        """Waits for the end of the worker."""
        assert self.process is not None
        code = self.process.wait(DEADLINE_S)
        self.log = (self.folder / f"{len(self.codes)}.log").read_text()
        self.codes.append(code)
        self.process = None
        return code

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def metrics(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(self.url + "/metrics", timeout=5) as response:
                lines = response.read().decode().splitlines()
        except OSError:
            return {}
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in lines
            if line and not line.startswith("#")
        }

    def predictions(self, model: str = "m") -> float:
        return self.metrics().get(f'model_predictions_total{{model="{model}",version=""}}', 0)

    def wait(self, what: str, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if condition():
                return
            if self.process is None or self.process.poll() is not None:
                pytest.fail(
                    "the worker ended: "
                    f"{(self.folder / f'{len(self.codes)}.log').read_text()[-3_000:]}"
                )
            time.sleep(0.1)
        pytest.fail(f"not within {DEADLINE_S} s: {what}; {self.metrics()}")

    def ready(self) -> None:
        self.wait("ready", lambda: self.metrics().get("stream_monitor_ready") == 1)

    def send(self, records: Sequence[Any], topic: str = "predictions", **options: Any) -> None:
        """
        Values, or arguments of `produce`; all to one partition, so that a bad one could stop the
        good ones.
        """
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5, **options})
        for record in records:
            arguments = record if isinstance(record, dict) else {"value": record}
            producer.produce(self.prefix + topic, **{"key": b"k", "partition": 0, **arguments})
            producer.poll(0)
        assert producer.flush(30) == 0

    def letters(self, expected: int = 0) -> list[Message]:
        """Dead letters, as soon as so many are there."""
        topic = self.prefix + "dead-letters"
        if expected:
            self.wait("dead letters", lambda: len(read_all(self.bootstrap, topic)) >= expected)
        return read_all(self.bootstrap, topic)


def read_all(bootstrap: str, topic: str) -> list[Message]:
    """What is committed on a topic now."""
    return list(itertools.chain(*chaos_check.read(bootstrap, topic).values()))


def header(message: Message, name: str) -> str:
    value = dict(message.headers() or [])[name]
    assert isinstance(value, bytes)
    return value.decode()


def value(message: Message) -> bytes:
    """The value of a record that has one."""
    found = message.value()
    assert found is not None
    return found


def reasons(letters: list[Message]) -> Counter[str]:
    return Counter(header(m, "stream-monitor.reason") for m in letters)
