"""
A rollout of a model whose classes are texts: the loop decides and the worker judges, in one log.
What the classes are called decides nothing.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.lifecycle.events import Asked, Stage, Version
from stream_monitor.lifecycle_settings import Deploy, ModelLoop
from stream_monitor.settings import CoreSettings
from stream_monitor.times import rfc3339
from tests.lifecycle_world import MODEL, World

OLD, NEW = "v1.0.0", "v1.1.0"
STAGES = Deploy(stages=(25, 100), min_labels=400, min_time_ms=1_000, settle_ms=0, watch_ms=5_000)


class Served:
    """A world with a worker: its log is folded, and what the worker says is in it."""

    def __init__(self, classes: tuple[Any, ...], accuracy: float) -> None:
        self.world, self.classes = World(ModelLoop(repository=".", deploy=STAGES)), classes
        self.right = {OLD: 0.9, NEW: accuracy}
        self.ingest, self.shard = Ingest(1), Shard(0, CoreSettings())
        self.folded = self.n = 0
        self.random = np.random.default_rng(5)
        at = rfc3339(self.world.now_ms)
        tag = Version(model=MODEL, at=at, version=NEW, tag=f"churn@{NEW}", revision="0" * 40)
        for event in (
            Stage(model=MODEL, at=at, by="ana", stages={OLD: "production"}),
            tag,
            Asked(model=MODEL, at=at, by="ana", what="start", version=NEW),
        ):
            self.world.write(event.named())

    def take(self, kind: str, values: list[bytes], first: int) -> None:
        at, times = first + np.arange(len(values)), np.full(len(values), self.world.now_ms)
        assert not self.ingest.take(f"{kind}@t/0", kind, list(values), at, times)

    def second(self) -> None:
        world = self.world
        world.settle()
        self.take("lifecycle", world.log[self.folded :], self.folded)
        self.folded = len(world.log)
        trial = world.model().trial
        weights = {OLD: 100.0} if trial is None or trial.keep else trial.weights
        predictions, labels = [], []
        for n in range(self.n, self.n + 20):
            arm = str(self.random.choice(list(weights), p=np.array([*weights.values()]) / 100))
            actual = int(self.random.integers(len(self.classes)))
            off = int(self.random.random() > self.right[arm])
            about = {"event_id": f"e{n}", "model": MODEL, "timestamp": world.now_ms}
            said = self.classes[(actual + off) % len(self.classes)]
            call = {**about, "version": arm, "prediction": said, "variant": arm, "unit": f"u{n}"}
            predictions.append(json.dumps(call).encode())
            labels.append(json.dumps({**about, "label": self.classes[actual]}).encode())
            world.label(arm, 1)
        self.take("predictions", predictions, self.n)
        self.take("labels", labels, self.n)
        self.n += 20
        for record in self.ingest.flush(world.now_ms)[0]:
            self.shard.fold(record, world.now_ms)
        world.log += [o.value for o in self.shard.outbox if o.topic == "lifecycle"]
        self.shard.outbox = []
        world.wait(1)

    def end(self) -> tuple[dict[str, str], str, int]:
        """Stages, the reason of the last, and after how many seconds the rollout was over."""
        for seconds in range(1, 200):
            self.second()
            m = self.world.model()
            if m.rollout is None and m.stage is not None and NEW in m.stages:
                return dict(m.stages), m.stage.reason.partition(" of ")[0], seconds
        raise AssertionError("the rollout does not end")


@cache
def ended(classes: tuple[Any, ...], accuracy: float) -> tuple[dict[str, str], str, int]:
    return Served(classes, accuracy).end()


NAMES = (("red", "green", "blue"), ("nein", "möglich", "ja"))


@pytest.mark.parametrize("classes", NAMES)
def test_a_bad_version_goes_back_and_a_good_one_does_not(classes):
    stages, reason, seconds = ended(classes, 0.4)
    assert (stages, reason) == ({OLD: "production", NEW: "retired"}, "verdict rollback")
    assert (stages, reason, seconds) == ended((0, 1, 2), 0.4)
    stages, reason, _ = ended(classes, 0.9)
    assert (stages, reason) == ({OLD: "retired", NEW: "production"}, "in production")
