"""
The work of the benchmarks: prediction events of 430 bytes and their labels, on topics of four
partitions.

Rule of the file: everything comes from a seed, so that every subject of every round gets the same
bytes. The record's timestamp is the event's, the key is the event's id.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from stream_monitor.experiments.registry import OF_SHARD_MAX
from stream_monitor.ingest import home

PARTITIONS = 4
CHUNK = 10_000
EVENTS_PER_MS = 10
"""Event time runs at 10,000 events a second."""
LABEL_DELAY_MS = 2_000
ERROR_RATE = 0.1
INPUTS = ("predictions", "labels")


class Event(NamedTuple):
    """One prediction and its label, as records."""

    key: bytes
    time_ms: int
    prediction: bytes
    label: bytes


def events(
    n: int,
    *,
    models: int = 1,
    features: int = 10,
    users: int = 0,
    seed: int = 7,
    start_ms: int = 1_760_000_000_000,
) -> Iterator[Event]:
    """
    `n` predictions with their labels; nothing drifts, one of ten is wrong, the last feature is null
    in one event of 200. With `users`, each is of a user of an experiment of two arms.

    Examples
    --------
    >>> first, again = (next(events(1)) for _ in range(2))
    >>> first == again, 400 < len(first.prediction) < 460
    (True, True)
    """
    ids, rng = random.Random(seed), np.random.default_rng(seed)
    encode = msgspec.json.Encoder().encode
    names = [f"f{i}" for i in range(features)]
    for base in range(0, n, CHUNK):
        m = min(CHUNK, n - base)
        values = rng.normal(size=(m, features)).tolist()
        scores = rng.beta(2, 5, m).tolist()
        latencies = rng.gamma(2.0, 10.0, m).round(4).tolist()
        wrong = (rng.random(m) < ERROR_RATE).tolist()
        null = (rng.random(m) < 0.005).tolist()
        for j, x in enumerate(values):
            if null[j]:
                x[-1] = None
            event_id, at, prediction = (
                event_id_of(ids),
                start_ms + (base + j) // EVENTS_PER_MS,
                int(scores[j] > 0.3),
            )
            event = {
                "event_id": event_id,
                "model": f"fraud-{(base + j) % models}",
                "version": "3",
                "timestamp": at,
                "prediction": prediction,
            }
            event |= {
                "score": scores[j],
                "latency_ms": latencies[j],
                "features": dict(zip(names, x, strict=True)),
            }
            if users:
                user = (base + j) // models % users
                event |= {"unit": f"user-{user}", "variant": ("control", "b")[user % 2]}
            label = {
                "event_id": event_id,
                "label": prediction ^ wrong[j],
                "timestamp": at + LABEL_DELAY_MS,
            }
            yield Event(event_id.encode(), at, encode(event), encode(label))


def event_id_of(ids: random.Random) -> str:
    """A UUID in its usual spelling."""
    h = f"{ids.getrandbits(128):032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def create_topics(bootstrap: str, names: list[str]) -> None:
    """Topics of four partitions; those that are there already are left alone."""
    # at 6 it tells of events that nobody asked for
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})
    there = admin.list_topics(timeout=30).topics
    new = [NewTopic(n, PARTITIONS, 1) for n in names if n not in there]
    for made in admin.create_topics(new).values() if new else ():
        made.result(30)


def forget_state(bootstrap: str, prefix: str, kept: tuple[str, ...]) -> None:
    """Delete every topic of the prefix but `kept`, so that the next worker starts with nothing."""
    # at 6 it tells of events that nobody asked for
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})
    old = [
        t
        for t in admin.list_topics(timeout=30).topics
        if t.startswith(prefix) and t not in {prefix + k for k in kept}
    ]
    for gone in admin.delete_topics(old).values() if old else ():
        gone.result(30)
    deadline = time.monotonic() + 30
    while set(old) & set(admin.list_topics(timeout=30).topics):
        if time.monotonic() > deadline:
            raise TimeoutError(f"topics of {prefix} are still there")
        time.sleep(0.1)


def produce(
    bootstrap: str,
    prefix: str,
    n: int,
    *,
    labels: bool,
    models: int = 1,
    features: int = 10,
    users: int = 0,
) -> int:
    """
    Make the input topics and write the events (lz4), the last of which lie in the present; the mean
    size of a prediction in bytes.
    """
    create_topics(bootstrap, [prefix + t for t in INPUTS])
    options = {
        "compression.type": "lz4",
        "linger.ms": 20,
        "batch.size": 262_144,
        "queue.buffering.max.messages": 500_000,
    }
    producer = Producer({"bootstrap.servers": bootstrap, **options})
    start_ms, size = int(time.time() * 1000) - n // EVENTS_PER_MS - LABEL_DELAY_MS, 0
    for event in events(n, models=models, features=features, users=users, start_ms=start_ms):
        size += len(event.prediction)
        send(producer, prefix + "predictions", event.prediction, event.key, event.time_ms)
        if labels:
            send(
                producer, prefix + "labels", event.label, event.key, event.time_ms + LABEL_DELAY_MS
            )
    if producer.flush(120):
        raise TimeoutError("not every event could be produced within 120 s")
    return size // n


def begin_experiments(bootstrap: str, prefix: str, models: int, n: int) -> None:
    """
    Make the topic `lifecycle` with the start of an experiment for each of `n` models.

    They are as old as the first of the events, so the worker reads them before these.
    """
    create_topics(bootstrap, [prefix + "lifecycle"])
    producer = Producer({"bootstrap.servers": bootstrap})
    guards = [{"metric": "error", "effect": 0.01}, {"metric": "latency_ms", "effect": 0.05}]
    names = itertools.cycle([f"fraud-{i}" for i in range(models)])
    free = dict.fromkeys(range(PARTITIONS), OF_SHARD_MAX)
    for i in range(n):
        # a partition takes no more than so many, so some models may have two
        model = next(m for m in names if free[home(m, PARTITIONS)])
        free[home(model, PARTITIONS)] -= 1
        event = {
            "schema": 1,
            "type": "experiment_started",
            "model": model,
            "experiment": f"x-{i}",
            "arms": ["control", "b"],
            "primary": {"metric": "accuracy", "effect": 0.02},
            "guards": guards,
            "maturity": "2s",
        }
        value = msgspec.json.encode(event)
        send(producer, prefix + "lifecycle", value, model.encode(), 1_760_000_000_000)
    if producer.flush(60):
        raise TimeoutError("not every experiment could be started within 60 s")


def send(producer: Producer, topic: str, value: bytes, key: bytes, timestamp_ms: int) -> None:
    """Produce, and wait where the queue is full."""
    while True:
        try:
            producer.produce(topic, value, key, timestamp=timestamp_ms)
        except BufferError:
            producer.poll(0.1)
        else:
            return
