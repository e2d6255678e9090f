"""
From a label to what people see, at a steady rate on a real Kafka: `python bench/latency.py [--rate
N] [--seconds S] [--scrape-ms N]`.

Method. A few background models get `rate` predictions a second together, each with its label two
seconds later. The records of a model have the model as key, hence one partition and
one order, so that a count identifies a label: label k of a model is visible when the gauge `model_window_labels` of its hour says k. Four phases of a length:
  idle    /metrics is read every 5 s: the share of a core that the worker takes.
  gauge   /metrics is read again `scrape-ms` after each answer. A label waits up to a pause and an answer for the next reading: both are in the figures, and said beside them.
  alert   five fresh models a second, each with one prediction and later one wrong label, which takes its accuracy to 0, under the threshold, with no dwell. Seen by a consumer
          that reads committed records of `alerts`. With windows of 5 labels a threshold is judged
          at every label; with 1,000, the default, every 200 labels and once a second.
"Produced" is the moment before the label is given to the producer (no linger); "visible" the moment
the answer is read whole, or the alert is taken from the consumer.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import measure
import msgspec
import numpy as np
import workload
from confluent_kafka import Consumer, Producer

BACKGROUND = 4
LABEL_DELAY_S = 2.0
PROBES_A_SECOND = 5
WINDOWS = ("last_5", "last_1000")
IDLE_SCRAPE_S = 5.0
SETTLE_S = 8.0
THRESHOLD = {"min": 0.5, "min_labels": 1, "for": "0s"}
GAUGE = re.compile(
    r'^model_window_labels\{model="(background-\d+)",version="1",window="1h"\} (\S+)$', re.MULTILINE
)


class Timeline(NamedTuple):
    """When each label of each background model was produced, and each probe's one label."""

    labels: dict[str, list[float]]
    probes: dict[str, float]


class Source(threading.Thread):
    """
    Produces on time: predictions at the rate, their labels later, and probes while they are wanted.
    """

    def __init__(self, bootstrap: str, prefix: str, rate: float) -> None:
        super().__init__(daemon=True)
        self.producer = Producer(
            {"bootstrap.servers": bootstrap, "linger.ms": 0, "compression.type": "lz4"}
        )
        self.prefix, self.rate = prefix, rate
        self.timeline = Timeline({f"background-{i}": [] for i in range(BACKGROUND)}, {})
        self.probing = self.done = False
        self.late_s_max = 0.0
        self._waiting: list[tuple[float, str, dict[str, Any]]] = []

    def run(self) -> None:
        rng, ids = np.random.default_rng(3), random.Random(3)
        values, scores = rng.normal(size=(10_000, 10)).tolist(), rng.beta(2, 5, 10_000).tolist()
        begin, sent, labelled, probes = time.perf_counter(), 0, 0, 0
        while not self.done:
            now = time.perf_counter()
            due = begin + sent / self.rate
            while labelled < len(self._waiting) and self._waiting[labelled][0] <= now:
                self._label(*self._waiting[labelled][1:])
                labelled += 1
            if due > now:
                self.producer.poll(0)
                time.sleep(min(due - now, 0.001))
                continue
            self.late_s_max = max(self.late_s_max, now - due)
            model = f"background-{sent % BACKGROUND}"
            if self.probing and sent % int(self.rate / PROBES_A_SECOND) == 0:
                self._predict(
                    f"probe-{WINDOWS[probes % len(WINDOWS)]}-{probes}",
                    ids,
                    values[sent % 10_000],
                    0.9,
                    now,
                    wrong=True,
                )
                probes += 1
            self._predict(
                model,
                ids,
                values[sent % 10_000],
                scores[sent % 10_000],
                now,
                wrong=ids.random() < workload.ERROR_RATE,
            )
            sent += 1
        self.producer.flush(10)

    def _predict(
        self,
        model: str,
        ids: random.Random,
        values: list[float],
        score: float,
        now: float,
        *,
        wrong: bool,
    ) -> None:
        event = {
            "event_id": workload.event_id_of(ids),
            "model": model,
            "version": "1",
            "timestamp": int(time.time() * 1e3),
            "prediction": int(score > 0.3),
        }
        event |= {
            "score": score,
            "latency_ms": 12.5,
            "features": {f"f{i}": x for i, x in enumerate(values)},
        }
        self.producer.produce(self.prefix + "predictions", msgspec.json.encode(event), model)
        self._waiting.append(
            (
                now + LABEL_DELAY_S,
                model,
                {"event_id": event["event_id"], "label": event["prediction"] ^ wrong},
            )
        )

    def _label(self, model: str, label: dict[str, Any]) -> None:
        value, now = (
            msgspec.json.encode({**label, "timestamp": int(time.time() * 1e3)}),
            time.perf_counter(),
        )
        if model.startswith("probe"):
            self.timeline.probes[model] = now
        else:
            self.timeline.labels[model].append(now)
        self.producer.produce(self.prefix + "labels", value, model)


class Alerts(threading.Thread):
    """When the first alert of each probe could be read."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        super().__init__(daemon=True)
        options = {
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "enable.auto.commit": False,
        }
        self.consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": f"{prefix}latency", **options}
        )
        self.consumer.subscribe([prefix + "alerts"])
        self.seen: dict[str, float] = {}
        self.done = False

    def run(self) -> None:
        while not self.done:
            message = self.consumer.poll(0.2)
            if message is None or message.error():
                continue
            now, alert = time.perf_counter(), msgspec.json.decode(message.value())
            if alert["kind"] == "performance" and alert["status"] == "firing":
                self.seen.setdefault(alert["model"], now)
        self.consumer.close()


class GaugeTimes:
    """Latencies of labels, by reading the gauge again and again."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.counted: dict[str, int] = {}
        self.latencies_s: list[float] = []
        self.answers_s: list[float] = []

    def read(self, worker: measure.Subject) -> None:
        """
        Read once; labels that show for the first time have been produced so long ago.

        The first reading only finds the place.
        """
        asked = time.perf_counter()
        found = GAUGE.findall(worker.metrics())
        now = time.perf_counter()
        self.answers_s.append(now - asked)
        for model, value in found:
            n = int(float(value))
            if model in self.counted:
                self.latencies_s += [
                    now - produced
                    for produced in self.timeline.labels[model][self.counted[model] : n]
                ]
            self.counted[model] = n


def quantiles_ms(seconds: list[float]) -> dict[str, Any]:
    """Number, median, 99th percentile and maximum."""
    if not seconds:
        return {"n": 0}
    p50, p99, most = (round(float(v) * 1e3, 1) for v in np.quantile(seconds, [0.5, 0.99, 1.0]))
    return {"n": len(seconds), "p50_ms": p50, "p99_ms": p99, "max_ms": most}


def until(seconds: float, pause_s: float, step: Callable[[], Any]) -> None:
    """Do something again and again for a time."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        step()
        time.sleep(max(min(pause_s, end - time.perf_counter()), 0))


def phases(worker: measure.Subject, source: Source, alerts: Alerts, a: argparse.Namespace) -> None:
    """Print a line for each phase."""
    until(SETTLE_S, IDLE_SCRAPE_S, worker.metrics)
    cpu, began = worker.cpu_s(), time.perf_counter()
    until(a.seconds, IDLE_SCRAPE_S, worker.metrics)
    share = (worker.cpu_s() - cpu) / (time.perf_counter() - began)
    print(
        json.dumps(
            {
                "phase": "idle",
                "predictions_per_s": a.rate,
                "labels_per_s": a.rate,
                "core_share": round(share, 3),
                "scrape_every_s": IDLE_SCRAPE_S,
            }
        ),
        flush=True,
    )

    gauge = GaugeTimes(source.timeline)
    until(a.seconds, a.scrape_ms / 1e3, lambda: gauge.read(worker))
    answer_ms = round(float(np.median(gauge.answers_s)) * 1e3, 1)
    print(
        json.dumps(
            {
                "phase": "gauge",
                **quantiles_ms(gauge.latencies_s),
                "scrape_pause_ms": a.scrape_ms,
                "scrape_answer_p50_ms": answer_ms,
            }
        ),
        flush=True,
    )

    source.probing = True
    until(a.seconds, IDLE_SCRAPE_S, worker.metrics)
    source.probing = False
    time.sleep(LABEL_DELAY_S + 3)
    for window in WINDOWS:
        probes = {
            m: t for m, t in source.timeline.probes.items() if m.startswith(f"probe-{window}-")
        }
        found = [alerts.seen[m] - t for m, t in probes.items() if m in alerts.seen]
        print(
            json.dumps(
                {
                    "phase": "alert",
                    "window": window,
                    **quantiles_ms(found),
                    "not_seen": len(probes) - len(found),
                }
            ),
            flush=True,
        )


def run(bootstrap: str, a: argparse.Namespace) -> None:
    with measure.workplace() as (folder, prefix):
        workload.create_topics(bootstrap, [prefix + t for t in workload.INPUTS])
        n = int(a.seconds * PROBES_A_SECOND) + 10
        windows = {
            f"probe-{w}-{i}": {
                "task": "binary",
                "windows": [w],
                "thresholds": {"accuracy": {**THRESHOLD, "window": w}},
            }
            for i in range(n)
            for w in WINDOWS
        }
        command = measure.worker_command(
            folder, bootstrap, prefix, defaults={"task": "binary"}, models=windows
        )
        with measure.running(command, folder) as worker:
            worker.wait_ready()
            source, alerts = Source(bootstrap, prefix, a.rate), Alerts(bootstrap, prefix)
            alerts.start()
            source.start()
            try:
                phases(worker, source, alerts, a)
            finally:
                source.done = alerts.done = True
                source.join(15)
                alerts.join(15)
            print(
                json.dumps(
                    {
                        "producer_late_ms_max": round(source.late_s_max * 1e3, 1),
                        "rss_mb": int(worker.rss_mb()),
                    }
                ),
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rate", type=float, default=1_000, help="predictions a second, and as many labels"
    )
    parser.add_argument("--seconds", type=float, default=30, help="length of a phase")
    parser.add_argument("--scrape-ms", type=float, default=50)
    parser.add_argument("--bootstrap", metavar="HOST:PORT")
    a = parser.parse_args()
    with measure.broker(a.bootstrap) as bootstrap:
        run(bootstrap, a)


if __name__ == "__main__":
    main()
