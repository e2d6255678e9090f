"""
Two independent readers of what a chaos run left behind.

Rule of the file: one compares what the workers showed on /metrics with the oracle of the input; the
other folds `observations` again, from its beginning up to the committed position, and compares the
alerts it finds with those on the topic. Every difference is a line of text; no difference, no line.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, Message, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from stream_monitor import config
from stream_monitor.evaluate import Shard
from stream_monitor.events.observations import unpack
from stream_monitor.ingest import home
from stream_monitor.monitors.performance_windows import ALL

Key = tuple[str, str]
Totals = dict[Key, dict[str, float]]
METRICS = ("accuracy", "precision", "recall", "mae", "rmse", "bias", "window_labels")
TOLERANCE = 1e-9


def read(bootstrap: str, topic: str, isolation: str = "read_committed") -> dict[int, list[Message]]:
    """All records of a topic, by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "chaos-reader",
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    partitions = list(consumer.list_topics(topic, 20).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    out: dict[int, list[Message]] = {p: [] for p in partitions}
    ended: set[int] = set()
    while len(ended) < len(partitions):
        message = consumer.poll(30)
        assert message is not None, f"{topic} cannot be read to its end"
        if message.error():
            ended.add(message.partition())
        else:
            out[message.partition()].append(message)
    consumer.close()
    return out


def ends(bootstrap: str, group: str, topic: str) -> dict[int, tuple[int, int]]:
    """By partition: the offset the group committed (0 where it has none), and the end."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False}
    )
    partitions = [
        TopicPartition(topic, p) for p in consumer.list_topics(topic, 20).topics[topic].partitions
    ]
    found = {
        tp.partition: (
            max(tp.offset, 0),
            consumer.get_watermark_offsets(TopicPartition(topic, tp.partition), 20)[1],
        )
        for tp in consumer.committed(partitions, 20)
    }
    consumer.close()
    return found


def keep_all(bootstrap: str, topic: str) -> None:
    """Take compaction from a topic, so that a checker sees every record."""
    entry = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]
    ).values():
        done.result(20)


def shown(metrics: list[dict[str, float]]) -> tuple[dict[Key, dict[str, float]], list[str]]:
    """
    What the workers show together, in the form of `Oracle.expected`; a series that two of them show
    is a difference.
    """
    out: dict[Key, dict[str, float]] = defaultdict(dict)
    problems = []
    for one in metrics:
        for series, value in one.items():
            name, _, labels = series.partition("{")
            if not name.startswith("model_"):
                continue
            at = dict(
                part.split("=", 1)
                for part in labels.rstrip("}").replace('"', "").split(",")
                if "=" in part
            )
            metric = {"model_predictions_total": "predictions", "model_labels_total": "labels"}.get(
                name
            )
            if metric is None and name.removeprefix("model_") in METRICS and "segment" not in at:
                metric = f"{name.removeprefix('model_')}/{at['window']}"
            if metric is not None:
                of = out[at["model"], at["version"]]
                if metric in of:
                    problems.append(f"{series} is shown by two workers")
                of[metric] = value
    return dict(out), problems


def differences(
    what: str, want: dict[Key, dict[str, float]], got: dict[Key, dict[str, float]]
) -> list[str]:
    """Where two answers differ."""
    out = []
    for key in sorted(want.keys() | got.keys()):
        one, other = want.get(key, {}), got.get(key, {})
        for metric in sorted(one.keys() | other.keys()):
            a, b = one.get(metric), other.get(metric)
            if (
                a is None
                or b is None
                or not math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
            ):
                out.append(f"{what}: {'/'.join(key)} {metric}: {a} expected, {b} found")
    return out


def fold(
    bootstrap: str, file: Path, group: str, prefix: str = ""
) -> tuple[dict[int, Shard], dict[int, list[str]], list[str]]:
    """
    Fold `observations` again, up to the committed position.

    Returns
    -------
    shards, ids of their alerts in order, and differences: rows behind the committed position would
    have to be folded again
    """
    settings = config.load(str(file), {})
    committed = ends(bootstrap, group, prefix + "observations")
    shards, alerts, problems = {}, {}, []
    log = read(bootstrap, prefix + "observations")
    for partition, messages in log.items():
        shard, told = Shard(partition, settings.core, {}, partitions=len(log)), []
        behind = 0
        for message in messages:
            if message.offset() >= committed[partition][0]:
                behind += unpack(message.value()).head.rows
                continue
            kind, time_ms = message.timestamp()
            shard.fold(message.value(), time_ms if kind == TIMESTAMP_LOG_APPEND_TIME else None)
            told += [json.loads(out.value)["id"] for out in shard.outbox if out.topic == "alerts"]
            shard.outbox.clear()
        if behind:
            problems.append(
                f"observations/{partition}: {behind} rows lie behind the committed position "
                "although all workers ended cleanly"
            )
        shards[partition], alerts[partition] = shard, told
    return shards, alerts, problems


def summaries(shards: dict[int, Shard]) -> dict[Key, dict[str, float]]:
    """The summaries of shards in the form of `Oracle.expected`."""
    out: dict[Key, dict[str, float]] = {}
    for shard in shards.values():
        for model, versions in shard.summary()["models"].items():
            for version, found in versions["versions"].items():
                of = out[model, version] = {
                    "predictions": float(found["predictions"]),
                    "labels": float(found["labels"]),
                }
                for window, metrics in found["windows"].items():
                    if window == ALL:  # of the summary only: no gauge
                        continue
                    of[f"window_labels/{window}"] = float(metrics["labels"])
                    of |= {f"{m}/{window}": metrics[m] for m in METRICS if m in metrics}
    return out


class Alerts:
    """The records of `alerts` against those of a fold."""

    def __init__(self, bootstrap: str, folded: dict[int, list[str]], prefix: str = "") -> None:
        records = [m for messages in read(bootstrap, prefix + "alerts").values() for m in messages]
        written: dict[int, list[str]] = {p: [] for p in folded}
        times: dict[int, list[int]] = {p: [] for p in folded}
        for message in records:
            alert: dict[str, Any] = json.loads(message.value())
            partition = home(alert["model"], len(folded))
            written[partition].append(alert["id"])
            times[partition].append(message.timestamp()[1])
        want, got = (
            Counter(i for ids in folded.values() for i in ids),
            Counter(i for ids in written.values() for i in ids),
        )
        self.transitions = len(records)
        self.lost, self.twice = (want - got).total(), (got - want).total()
        self.aborted = sum(
            len(m) for m in read(bootstrap, prefix + "alerts", "read_uncommitted").values()
        ) - len(records)
        self.silence_s = (
            max((b - a for t in times.values() for a, b in itertools.pairwise(t)), default=0) / 1e3
        )
        self.problems = (
            [f"alerts: {self.lost} lost, {self.twice} that should not be there"]
            if self.lost or self.twice
            else []
        )
        self.problems += [
            f"alerts of observations/{p} are in another order"
            for p in folded
            if written[p] != folded[p] and Counter(written[p]) == Counter(folded[p])
        ]
