"""
Events for training, written to Kafka as INGEST writes them, and what a batch join makes of them.

The oracle is plain Python over the events themselves: no columns, no SQL, no code of the product
but the hash of an id.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from aiokafka import AIOKafkaProducer
from xxhash import xxh3_64_intdigest

from stream_monitor.ingest import Ingest
from stream_monitor.settings import Settings

START_MS = 1_760_000_000_000
FEATURES = ("amount", "age", 'odd "name"', "country", "member", "mixed")


class Sent(NamedTuple):
    """An event of `topic`, and the place it has there."""

    topic: str
    partition: int
    offset: int
    event: dict[str, Any]


class Stream:
    """
    A seeded stream of events of two models with duplicates, corrections, labels of every kind, and
    features that come later.
    """

    def __init__(self, seed: int, partitions: int = 2) -> None:
        self.random = random.Random(seed)
        self.partitions = partitions
        self.sent: list[Sent] = []
        self._ends: dict[tuple[str, int], int] = defaultdict(int)
        self._number = 0

    def more(self, calls: int) -> list[Sent]:
        """The next events."""
        made: list[Sent] = []
        for _ in range(calls):
            for topic, event in self._call():
                # of one id all predictions are in one partition, as a key makes them
                spread = int(event["event_id"].rpartition("-")[2]) if topic == "predictions" else 0
                partition = (spread or self.random.randrange(99)) % self.partitions
                place = topic, partition
                made.append(Sent(topic, partition, self._ends[place], event))
                self._ends[place] += 1
        self.sent += made
        return made

    def _call(self) -> list[tuple[str, dict[str, Any]]]:
        rng, n = self.random, self._number
        self._number += 1
        model = rng.choice(["fraud/EU ü", "fraud/EU ü", "churn"])
        version = rng.choice(["v1.0.0", "v1.1.0"])
        event_id, time_ms = f"e-{n + 1}", START_MS + n * 1_000
        features: dict[str, Any] = {
            "amount": round(rng.gauss(50, 20), 3),
            "age": rng.choice([30, 41, None]),
            'odd "name"': rng.choice([0.25, 1]),
            "country": rng.choice(["DE", "FR", "ü"]),
            "member": rng.random() < 0.5,
            "mixed": rng.choice([1, 2.5, "x", True, None]),
        }
        if n > 150:
            features["later"] = rng.randrange(5)
        base = {"event_id": event_id, "model": model, "version": version, "timestamp": time_ms}
        call = {
            **base,
            "prediction": rng.choice([0, 1]),
            "score": round(rng.random(), 4),
            "unit": f"user-{n % 17}",
            "features": features,
        }
        out: list[tuple[str, dict[str, Any]]] = [("predictions", call)]
        if rng.random() < 0.1:  # sent again, and once with another answer
            again = {**call, "prediction": 7, "timestamp": time_ms - 5}
            out.append(("predictions", again))
        if rng.random() < 0.1:  # the other version was asked too
            other = "v1.1.0" if version == "v1.0.0" else "v1.0.0"
            out.append(("predictions", {**call, "version": other}))
        if rng.random() < 0.05:
            out.append(("predictions", {**base, "event_id": f"f-{n + 1}", "status": "error"}))
        label = {"event_id": event_id, "model": model, "timestamp": time_ms + 500}
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            made = {**label, "label": rng.choice([0, 1]), "timestamp": time_ms + rng.randrange(3)}
            if rng.random() < 0.3:
                made["version"] = rng.choice(["v1.0.0", "v1.1.0"])
            if rng.random() < 0.2:
                del made["model"]
            out.append(("labels", made))
        rng.shuffle(out)
        return out


def oracle(sent: list[Sent], model: str, since_ms: int, until_ms: int) -> list[dict[str, Any]]:
    """The labelled predictions of a model, by a batch join in plain Python."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for one in sent:
        event = one.event
        wanted = since_ms <= event["timestamp"] < until_ms and event.get("model") == model
        if one.topic == "predictions" and wanted and event.get("status") != "error":
            first.setdefault((event["event_id"], event["version"]), event)
    rows = []
    for (event_id, version), call in first.items():
        labels = [
            (one.event["timestamp"], one.partition, one.offset, one.event["label"])
            for one in sent
            if one.topic == "labels"
            and one.event["event_id"] == event_id
            and one.event.get("model", model) == model
            # a label that names no model is for every version
            and (one.event.get("version", version) == version or "model" not in one.event)
        ]
        if labels:
            rows.append(_row(call, max(labels)[3]))
    return sorted(rows, key=lambda r: (r["timestamp"], r["event_id"], r["version"]))


def _row(call: dict[str, Any], label: Any) -> dict[str, Any]:
    return {
        "event_id": f"{xxh3_64_intdigest(call['event_id'].encode()):016x}",
        "version": call["version"],
        "timestamp": call["timestamp"],
        "prediction": call["prediction"],
        "score": call["score"],
        "unit": str(xxh3_64_intdigest(call["unit"].encode()) >> 11),
        **{f"features.{name}": value for name, value in call["features"].items()},
        "label": label,
    }


def as_read(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the oracle with the types of the file: a mixed column is one of texts."""
    row = {"features.later": None, **row}
    mixed = row["features.mixed"]
    if mixed is not None:
        row["features.mixed"] = mixed if isinstance(mixed, str) else json.dumps(mixed)
    return row


async def write(settings: Settings, sent: list[Sent], *, chunk: int = 40) -> None:
    """Write events to their topics, and to `observations` as INGEST does, in order."""
    ingest = Ingest(2)
    prefix = settings.kafka.topic_prefix
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    await producer.start()
    try:
        for at in range(0, len(sent), chunk):
            batch = sent[at : at + chunk]
            for one in batch:
                value = json.dumps(one.event).encode()
                await producer.send_and_wait(
                    prefix + one.topic, value, partition=one.partition, timestamp_ms=START_MS + at
                )
                ingest.take(
                    f"{prefix}{one.topic}@id/{one.partition}",
                    one.topic,
                    [value],
                    np.array([one.offset]),
                    np.array([one.event["timestamp"] + 10_000]),
                )
            for target, records in ingest.flush(START_MS + at * 60_000).items():
                for record in records:
                    await producer.send_and_wait(prefix + "observations", record, partition=target)
            await asyncio.sleep(0)
    finally:
        await producer.stop()
