"""
The law of restarting, for INGEST: however often it was restarted, whatever owners and zombies wrote
at the same time, EVALUATE comes to the same.

Rule of the file: what happens is a list of small steps on the pure `Ingest` and lists of records;
`World` is the INGEST rule (docs/reliability.md) and nothing else. Each part of the rule can be left
out, and then rows are lost: so the law is able to fail.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.evaluate import Shard
from stream_monitor.events.observations import Head, pack, unpack
from stream_monitor.ingest import Ingest, home, tick
from stream_monitor.settings import (
    Baseline,
    CoreSettings,
    Drift,
    Feature,
    ModelSettings,
    Quality,
    Threshold,
)

T0 = 1_760_000_000_000
TARGETS, WORKERS = 2, 3
MODELS = ("a", "d")
SETTINGS = CoreSettings(
    defaults=ModelSettings(
        baseline=Baseline(rows=20),
        windows=("last_20", "1h"),
        quality=Quality(min_rows=10),
        features={"x": Feature(max=0.5)},
        thresholds={
            "accuracy": Threshold(min=0.8, min_labels=5, window="last_20", clear=0.9, judge="value")
        },
        drift=Drift(
            errors={"adwin": {}, "evidence": {}},
            features={"adwin": {}, "evidence": {}},
            thresholds={"js": 0.3},
        ),
    )
)


def source_logs(n: int) -> dict[str, list[bytes | None]]:
    """
    Two partitions of predictions and one of labels, with all that is found there: bad records,
    tombstones, failed calls, repetitions, labels without a model.
    """
    rnd = random.Random(7)
    logs: dict[str, list[bytes | None]] = {
        "predictions@x/0": [],
        "predictions@x/1": [],
        "labels@y/0": [],
    }
    for i in range(n):
        event: dict[str, Any] = {
            "event_id": f"e{i}",
            "model": rnd.choice(MODELS),
            "timestamp": T0 + i,
        }
        answer = {
            "prediction": rnd.randrange(2),
            "score": rnd.random(),
            "features": {"x": rnd.gauss(0, 1), "c": rnd.choice("uv")},
        }
        source = logs[f"predictions@x/{rnd.randrange(2)}"]
        source.append(json.dumps(event | (answer if i % 9 else {"status": "error"})).encode())
        source += [rnd.choice([None, b"{", source[-1]])] if i % 5 == 0 else []
        label = {
            "event_id": f"e{rnd.randrange(i + 1)}",
            "label": int(rnd.random() < 0.5),
            "timestamp": T0 + i,
        } | ({"model": event["model"]} if i % 3 else {})
        logs["labels@y/0"].append(json.dumps(label).encode())
    return logs


LOGS = source_logs(80)
EXPECTED: dict[tuple[int, str], list[int]] = defaultdict(list)
"""Offsets of each source that every target must have."""
for name, values in LOGS.items():
    for offset, value in enumerate(values):
        fields = json.loads(value) if value not in (None, b"{") else None
        if fields is not None:
            for target in [home(fields["model"], TARGETS)] if "model" in fields else range(TARGETS):
                EXPECTED[target, name].append(offset)


class Process:
    """
    A worker's INGEST: what it has read, what waits, what is under way to each target, and what is
    acknowledged.
    """

    def __init__(self) -> None:
        self.ingest = Ingest(TARGETS, record_bytes=2_000)
        self.read: dict[str, int] = {}
        self.queues: list[list[bytes]] = [[] for _ in range(TARGETS)]
        self.frontier: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}


class World:
    """
    The logs of the targets, the commits of the group, and workers that may be zombies of what
    another one owns by now.
    """

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.log: list[list[bytes]] = [[] for _ in range(TARGETS)]
        self.committed = dict.fromkeys(LOGS, 0)
        self.workers = [Process() for _ in range(WORKERS)]
        self.owner = {name: i % WORKERS for i, name in enumerate(LOGS)}
        self.now = T0
        for name, i in self.owner.items():
            self.open(self.workers[i], name)

    def open(self, worker: Process, name: str) -> None:
        """
        A tenure begins at the committed offset; rows of an earlier one that were not sent yet are
        forgotten.
        """
        if self.broken != "two tenures in a record":
            worker.ingest.drop({name})
        worker.read[name] = self.committed[name]
        worker.acknowledged.pop(name, None)

    # ---- steps

    def take(self, worker: Process, n: int) -> None:
        for name, at in list(worker.read.items()):
            skipped = 1 if self.broken == "a hole" and n % 5 == 0 else 0
            values = LOGS[name][at + skipped : at + skipped + n]
            offsets = np.arange(at + skipped, at + skipped + len(values))
            worker.ingest.take(
                name, name.partition("@")[0], values, offsets, np.full(len(values), T0)
            )
            worker.read[name] = min(at + skipped + len(values), len(LOGS[name]))

    def flush(self, worker: Process, _: int) -> None:
        if not any(worker.queues):
            self.now += 300
            worker.frontier = dict(worker.read)
            records = worker.ingest.flush(self.now)
            worker.queues = [records.get(target, []) for target in range(TARGETS)]
            self._settle(worker)

    def send(self, worker: Process, n: int) -> None:
        """The next record of a target; it is acknowledged before the one after it is sent."""
        queue = worker.queues[n % TARGETS]
        if queue:
            self.log[n % TARGETS].append(queue.pop(0))
        self._settle(worker)

    def fail(self, worker: Process, n: int) -> None:
        """
        A send fails for good, written or not: the process ends, and another one begins where it
        committed.
        """
        queue = worker.queues[n % TARGETS]
        if queue and n % 4 < 2:
            self.log[n % TARGETS].append(queue[0])
        if self.broken == "on after a failure":
            del queue[:1]
            self._settle(worker)
            return
        self._replace(worker)

    def _replace(self, worker: Process) -> None:
        i = self.workers.index(worker)
        self.workers[i] = Process()
        for name, owner in self.owner.items():
            if owner == i:
                self.open(self.workers[i], name)

    def _settle(self, worker: Process) -> None:
        if not any(worker.queues):
            worker.acknowledged.update(
                {
                    name: at
                    for name, at in worker.frontier.items()
                    if name in worker.read and at <= worker.read[name]
                }
            )

    def commit(self, worker: Process, _: int) -> None:
        """
        Of zombies too, and back to where another one has been already: a commit is a fact about the
        log.
        """
        self.committed.update(
            worker.read if self.broken == "commit before acknowledgement" else worker.acknowledged
        )

    def move(self, worker: Process, n: int) -> None:
        """
        A partition goes to another worker, which has nothing under way; the former owner learns
        nothing of it, or at once.
        """
        name = list(LOGS)[n % len(LOGS)]
        if any(worker.queues) and self.broken != "two tenures in a record":
            return
        former = self.workers[self.owner[name]]
        self.owner[name] = self.workers.index(worker)
        if n % 2 and former is not worker and not any(former.queues):
            former.ingest.drop({name})
            for known in (former.read, former.acknowledged, former.frontier):
                known.pop(name, None)
        self.open(worker, name)

    def end(self) -> None:
        """Zombies die, owners read to the end."""
        for worker in list(self.workers):
            self._replace(worker)
        for worker in self.workers:
            while (
                any(at < len(LOGS[name]) for name, at in worker.read.items())
                or worker.ingest.rows
                or any(worker.queues)
            ):
                self.take(worker, 7)
                self.flush(worker, 0)
                while any(worker.queues):
                    for target in range(TARGETS):
                        self.send(worker, target)


STEPS = ("take", "take", "flush", "send", "send", "send", "commit", "fail", "move")


def run(steps: list[tuple[str, int, int]], broken: str = "") -> World:
    world = World(broken)
    for step, worker, n in steps:
        getattr(world, step)(world.workers[worker], n)
    world.end()
    return world


def random_steps(seed: int) -> list[tuple[str, int, int]]:
    rnd = random.Random(seed)
    return [(rnd.choice(STEPS), rnd.randrange(WORKERS), rnd.randrange(12)) for _ in range(120)]


def unseen(log: list[bytes]) -> tuple[list[bytes], dict[str, list[int]]]:
    """The log without what was there before, and the offsets of each source in it."""
    out, offsets = [], defaultdict(list)
    expected: dict[str, int] = {}
    for record in log:
        head, rows, blocks = unpack(record)
        keep = np.zeros(len(rows), bool)
        after = dict(expected)
        for i, row in enumerate(rows):
            name, offset = head.sources[row["source"]], int(row["offset"])
            keep[i] = offset >= expected.get(name, 0)
            after[name] = max(after.get(name, 0), offset + 1)
            if keep[i]:
                offsets[name].append(offset)
        expected = after
        kept = Head(
            head.flushed_ms,
            head.sources,
            head.groups,
            head.layouts,
            [int(keep[b.rows].sum()) for b in blocks],
            head.texts,
            int(keep.sum()),
        )
        out.append(
            pack(kept, rows[keep], [np.ascontiguousarray(b.cells[:, keep[b.rows]]) for b in blocks])
        )
    return out, offsets


def wrong(world: World) -> bool:
    """Whether a target has lost a row, or has one out of its order."""
    return any(
        unseen(log)[1].get(name, []) != EXPECTED[target, name]
        for target, log in enumerate(world.log)
        for name in LOGS
    )


def totals(shards: list[Shard]) -> dict[Any, Any]:
    """
    What does not depend on how the partitions of the sources came to be mixed: counts, and windows
    of labelled predictions.
    """
    out: dict[Any, Any] = {}
    for shard in shards:
        summary = shard.summary()
        for kind, counts in summary["records"].items():
            for outcome in ("accepted", "duplicate"):
                out[kind, outcome] = out.get((kind, outcome), 0) + counts[outcome]
        for model, found in summary["models"].items():
            for version, told in found["versions"].items():
                out[model, version] = [
                    told[n] for n in ("predictions", "labels", "pending", "expired", "evicted")
                ]
                out[model, version, "last_20"] = told["windows"].get("last_20")
    return out


def evaluated(logs: list[list[bytes]]) -> list[Shard]:
    shards = [Shard(target, SETTINGS) for target in range(TARGETS)]
    for shard, log in zip(shards, logs, strict=True):
        for record in log:
            shard.fold(record)
    return shards


def without_seen(shard: Shard) -> dict[str, Any]:
    summary = shard.summary()
    for counts in summary["records"].values():
        counts.pop("seen")
    return summary


def undisturbed() -> dict[Any, Any]:
    shards = evaluated(run([]).log)
    for shard in shards:
        shard.close()
    return totals(shards)


UNDISTURBED = undisturbed()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, WORKERS - 1), st.integers(0, 11)),
        min_size=20,
        max_size=120,
    )
)
def test_restarts_moves_and_zombies_of_ingest_do_not_show(
    steps: list[tuple[str, int, int]],
) -> None:
    world = run(steps)
    assert not wrong(world)
    shards = evaluated(world.log)
    clean = evaluated([unseen(log)[0] for log in world.log])
    for shard, other in zip(shards, clean, strict=True):
        assert shard.outbox == other.outbox
        assert without_seen(shard) == without_seen(other)
        shard.close()
    assert totals(shards) == UNDISTURBED


def test_something_happens() -> None:
    seen, alerts = {"predictions": 0, "labels": 0}, list[bool]()
    for seed in range(8):
        for shard in evaluated(run(random_steps(seed)).log):
            alerts.append(any(o.topic == "alerts" for o in shard.outbox))
            for kind in seen:
                seen[kind] += shard.summary()["records"][kind]["seen"]
    assert sum(alerts) > len(alerts) / 2
    assert min(seen.values()) > 20
    assert UNDISTURBED["predictions", "duplicate"] > 0


@pytest.mark.parametrize(
    "broken",
    ["a hole", "two tenures in a record", "on after a failure", "commit before acknowledgement"],
)
def test_without_a_part_of_the_rule_rows_are_lost(broken: str) -> None:
    assert not any(wrong(run(random_steps(seed))) for seed in range(30))
    assert any(wrong(run(random_steps(seed), broken)) for seed in range(30))


def test_a_model_without_features_is_restored_as_it_was() -> None:
    """
    It learns a baseline of nothing; more models than one, and rows before and after it has learnt.
    """
    shard, ingest = Shard(0, SETTINGS, {}), Ingest(1)
    for start in range(0, 100, 10):
        values = [
            json.dumps(
                {
                    "event_id": f"{i}",
                    "model": MODELS[i % 2],
                    "timestamp": T0 + i,
                    "prediction": i % 2,
                }
            ).encode()
            for i in range(start, start + 10)
        ]
        assert (
            ingest.take(
                "predictions@x/0",
                "predictions",
                list(values),
                np.arange(start, start + 10),
                np.full(10, T0),
            )
            == []
        )
        (record,) = ingest.flush(T0 + start)[0]
        shard.fold(record, T0 + start)
        parts = {name: data or b"" for name, data in shard.snapshot().items()}
        restored = Shard.restore(0, SETTINGS, parts, {})
        assert restored.summary() == shard.summary()
        shard = restored
    shard.fold(tick(T0 + 60_000), T0 + 60_000)  # nothing waits any more
    assert [
        found["versions"][""]["predictions"] for found in shard.summary()["models"].values()
    ] == [50, 50]
