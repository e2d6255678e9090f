"""
Events a CPU-second of a whole worker on a real Kafka: `python bench/worker.py [--events N] [--labels] [--no-features] [--bootstrap HOST:PORT]`.

The work: JSON events of about 400 bytes with 10 numeric features and a score from 4 partitions (lz4), every monitor on, gauges exported, snapshots and transactions on.
CPU is user + system of the worker process between the moment a fifth and the moment all of the events are counted on /metrics; start-up is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
CLOCK = os.sysconf("SC_CLK_TCK")


def produce(bootstrap: str, prefix: str, n: int, *, labels: bool, models: int) -> int:
    """Write the events; the mean size of a prediction in bytes."""
    rnd, rng = random.Random(7), np.random.default_rng(7)
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 20, "batch.size": 262_144, "queue.buffering.max.messages": 500_000})
    start, size = int(time.time() * 1000) - n // 10, 0
    for i in range(n):
        x = rng.normal(size=10).round(12).tolist()
        score = round(rnd.betavariate(2, 5), 10)
        event = {"event_id": f"{rnd.getrandbits(128):032x}", "model": f"fraud-{i % models}", "version": "3", "timestamp": start + i // 10, "prediction": int(score > 0.3)}
        event |= {"score": score, "latency_ms": round(rnd.gammavariate(2, 10), 4), "features": {f"f{k}": None if k == 9 and i % 200 == 0 else x[k] for k in range(10)}}
        value = json.dumps(event).encode()
        size += len(value)
        sends = [("predictions", value)]
        if labels:
            wrong = rnd.random() < 0.1
            sends.append(("labels", json.dumps({"event_id": event["event_id"], "label": event["prediction"] ^ wrong, "timestamp": start + i // 10 + 2_000}).encode()))
        for topic, sent in sends:
            while True:
                try:
                    producer.produce(prefix + topic, sent, event["event_id"])
                    break
                except BufferError:
                    producer.poll(0.1)
    producer.flush(120)
    return size // n


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK


def rss_mb(pid: int) -> int:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def counted(url: str, name: str) -> float:
    with urllib.request.urlopen(url + "/metrics", timeout=30) as response:
        return sum(float(line.rpartition(" ")[2]) for line in response.read().decode().splitlines() if line.startswith(name + "{"))


def run(bootstrap: str, n: int, *, labels: bool, features: bool, models: int) -> dict[str, Any]:
    prefix = f"bench{random.randrange(10**9)}."
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "monitor.yaml"
        drift = "" if features else "drift: {features: {}}"
        config.write_text(
            f"kafka: {{bootstrap_servers: '{bootstrap}', topic_prefix: '{prefix}'}}\nworker: {{group: '{prefix}g', metrics: {{port: 0}}}}\nlimits: {{models: {max(models, 100)}}}\ndefaults: {{{drift}}}\n"
        )
        command = [sys.executable, "-m", "stream_monitor", "worker", "--config", str(config)]
        first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # makes the topics
        assert first.stdout is not None
        url = first.stdout.readline().split()[-1]
        while counted(url, "stream_monitor_build_info") and "\nstream_monitor_ready 1" not in urllib.request.urlopen(url + "/metrics").read().decode():
            time.sleep(0.2)
        first.send_signal(signal.SIGTERM)
        first.wait(20)
        size = produce(bootstrap, prefix, n, labels=labels, models=models)
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert worker.stdout is not None
            url = worker.stdout.readline().split()[-1]
            name = "model_labels_total" if labels else "model_predictions_total"
            began: tuple[float, float, float] | None = None
            deadline = time.monotonic() + 600
            while time.monotonic() < deadline:
                done, cpu, now = counted(url, name), cpu_s(worker.pid), time.monotonic()
                if began is None and done >= n / 5:
                    began = done, cpu, now
                if done >= n:
                    assert began is not None
                    events, spent = done - began[0], cpu - began[1]
                    return {
                        "events": int(events),
                        "bytes": size,
                        "cpu_s": round(spent, 2),
                        "per_cpu_s": int(events / spent),
                        "per_s": int(events / (now - began[2])),
                        "rss_mb": rss_mb(worker.pid),
                    }
                time.sleep(0.25)
            raise TimeoutError
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--labels", action="store_true", help="labelled pairs instead of predictions")
    parser.add_argument("--no-features", action="store_true", help="no ADWIN on features")
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--bootstrap")
    a = parser.parse_args()
    server = None
    if not a.bootstrap:
        from kafka_server import KafkaServer

        server = KafkaServer().start()
    try:
        print(json.dumps(run(a.bootstrap or server.bootstrap, a.events, labels=a.labels, features=not a.no_features, models=a.models)))
    finally:
        if server is not None:
            server.close()


if __name__ == "__main__":
    main()
