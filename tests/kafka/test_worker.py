"""The worker as a process on a real Kafka: exact through kill -9, and a clean end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer

from tests.kafka.site import header, read_all, reasons, value

pytestmark = pytest.mark.kafka
DEADLINE_S = 60


class Process(NamedTuple):
    process: subprocess.Popen[str]
    url: str

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in lines
            if line and not line.startswith("#")
        }


@pytest.fixture
def prefix() -> str:
    return f"t{random.randrange(10**9)}."


def start(bootstrap: str, prefix: str, folder: Path, log: str) -> Process:
    """A worker with a name in its group: after a kill, the next one waits for no session."""
    config = folder / "monitor.yaml"
    config.write_text(
        f"kafka: {{bootstrap_servers: '{bootstrap}', topic_prefix: '{prefix}'}}\nworker: "
        f"{{group: '{prefix}group', instance_id: one, metrics: {{port: 0}}}}\n"
        "defaults: {baseline: {rows: 1000}}\n"
    )
    with (folder / log).open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream_monitor", "worker", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on http://"), (folder / log).read_text()
    return Process(process, line.split()[-1])


def wait(what: str, condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.2)
    pytest.fail(f"not within {DEADLINE_S} s: {what}")


def events(n: int, seed: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    rnd = random.Random(seed)
    now = int(time.time() * 1000) - n
    out = []
    for i in range(n):
        score = rnd.random()
        wrong = rnd.random() < (0.05 if i < n // 2 else 0.5)
        prediction = {
            "event_id": f"{seed}-{i}",
            "model": f"m{i % 3}",
            "version": "1",
            "timestamp": now + i,
            "prediction": int(score > 0.5),
            "score": score,
            "latency_ms": 5.0,
            "features": {"a": rnd.gauss(0, 1), "b": rnd.gauss(5, 2)},
        }
        out.append(
            (
                prediction,
                {
                    "event_id": f"{seed}-{i}",
                    "label": int(score > 0.5) ^ wrong,
                    "timestamp": now + i + 500,
                    **({"model": f"m{i % 3}"} if i % 2 else {}),
                },
            )
        )
    return out


def send(bootstrap: str, prefix: str, rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    for prediction, label in rows:
        producer.produce(
            prefix + "predictions", json.dumps(prediction).encode(), prediction["event_id"].encode()
        )
        producer.produce(prefix + "labels", json.dumps(label).encode(), label["event_id"].encode())
        producer.poll(0)
    assert producer.flush(30) == 0


def test_counts_are_exact_through_kill_and_every_alert_is_there_once(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    rows = events(9_000, seed=1)
    worker = start(kafka.bootstrap, prefix, tmp_path, "0.log")
    kills = 0
    try:
        wait("ready", lambda: worker.metrics().get("stream_monitor_ready") == 1)
        for part in range(3):
            send(kafka.bootstrap, prefix, rows[part * 3_000 : (part + 1) * 3_000])
            if part < 2:
                time.sleep(0.3 + part)
                worker.process.kill()
                worker.process.wait(10)
                kills += 1
                worker = start(kafka.bootstrap, prefix, tmp_path, f"{kills}.log")
        want = Counter(p["model"] for p, _ in rows)

        def settled() -> bool:
            m = worker.metrics()
            return all(
                m.get(f'model_labels_total{{model="{k}",version="1"}}') == n
                for k, n in want.items()
            )

        wait("all pairs counted", settled)
        metrics = worker.metrics()
        for model, n in want.items():
            assert metrics[f'model_predictions_total{{model="{model}",version="1"}}'] == n
            last = sorted(
                (
                    (p["timestamp"], p["prediction"] == y["label"])
                    for p, y in rows
                    if p["model"] == model
                )
            )[-1_000:]
            assert metrics[
                f'model_accuracy{{model="{model}",version="1",window="last_1000"}}'
            ] == pytest.approx(sum(ok for _, ok in last) / 1_000, abs=1e-9)
    finally:
        worker.process.send_signal(signal.SIGTERM)
        code = worker.process.wait(20)
    assert code == 0, (tmp_path / f"{kills}.log").read_text()
    assert kills == 2
    alerts = [json.loads(value(m)) for m in read_all(kafka.bootstrap, prefix + "alerts")]
    assert {a["model"] for a in alerts if a["status"] == "firing"} == set(want)
    ids = [a["id"] for a in alerts]
    assert len(ids) == len(set(ids))


def test_bad_records_are_dead_letters_and_the_good_ones_count(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    worker = start(kafka.bootstrap, prefix, tmp_path, "log")
    try:
        wait("ready", lambda: worker.metrics().get("stream_monitor_ready") == 1)
        producer = Producer({"bootstrap.servers": kafka.bootstrap})
        good = json.dumps({"event_id": "a", "model": "m", "prediction": 1}).encode()
        for record in (
            b"{",
            b"[]",
            b"{}",
            None,
            good,
            b"\xff",
            json.dumps({"event_id": "b", "model": "m", "prediction": [1]}).encode(),
            good,
        ):
            producer.produce(prefix + "predictions", record, b"k", partition=0)
        assert producer.flush(20) == 0
        wait(
            "the good one",
            lambda: worker.metrics().get('model_predictions_total{model="m",version=""}') == 1,
        )
        topic = prefix + "dead-letters"
        wait("the dead letters", lambda: len(read_all(kafka.bootstrap, topic)) >= 5)
        letters = read_all(kafka.bootstrap, topic)
        assert reasons(letters) == {
            "invalid_json": 2,
            "not_an_object": 1,
            "missing_field": 1,
            "wrong_type": 1,
        }
        first = next(m for m in letters if m.value() == b"[]")
        assert header(first, "__connect.errors.offset") == "1"
        assert header(first, "__connect.errors.topic") == prefix + "predictions"
    finally:
        os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.process.wait(20) == 0
