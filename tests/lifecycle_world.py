"""
A world for the decisions of the loop: a log, a clock, alerts and labels, and a project whose steps
do what a test says. It can lose the controller at any moment, write an event twice, and let an old
controller speak.

It cannot: run commands, talk to git or Kafka, or write parts of records.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from stream_monitor.lifecycle.actions import Action, Execute, Firing, Say, Tell, Work
from stream_monitor.lifecycle.decisions import next_action
from stream_monitor.lifecycle.events import Claim, Deployment, Event, Retraining, Version, encode
from stream_monitor.lifecycle.fold import Fold
from stream_monitor.lifecycle.model import Model
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.times import rfc3339

MODEL = "churn"


class World:
    """One model and its controller."""

    def __init__(self, loop: ModelLoop) -> None:
        self.loop, self.now_ms = loop, 1_760_000_000_000
        self.log: list[bytes] = []
        self.alerts: list[Firing] = []
        self.label_times: list[tuple[str, int, int]] = []
        self.done: list[Action] = []
        self.results: dict[str, dict[str, Any]] = {"decide": {"decision": "promote"}}
        self.fail: set[str] = set()
        self.made = 0
        self.fold, self.read, self.epoch = Fold(), 0, -1
        self.restart()

    # ---- facts

    def firing(self, model: str) -> list[Firing]:
        assert model == MODEL
        return self.alerts

    def labels(self, model: str, version: str | None, since_ms: int) -> int:
        assert model == MODEL
        return sum(
            n
            for v, time_ms, n in self.label_times
            if (version is None or v == version) and time_ms >= since_ms
        )

    def metrics(self, model: str, version: str, since_ms: int, until_ms: int) -> dict[str, float]:
        assert model == MODEL
        assert since_ms <= until_ms
        labels = float(
            self.labels(model, version, since_ms) - self.labels(model, version, until_ms)
        )
        return {"accuracy": 0.9, "labels": labels} if labels else {"labels": 0.0}

    # ---- the controller

    def restart(self) -> None:
        """A controller begins: it claims the log and reads all of it."""
        claim = Claim(model="", at=rfc3339(self.now_ms), host="h").named()
        self.write(claim)
        self.epoch = len(self.log) - 1
        self.write(msgspec.structs.replace(claim, id="", epoch=self.epoch))
        self.fold, self.read = Fold(), 0

    def write(self, event: Event | dict[str, Any]) -> None:
        value = json.dumps(event).encode() if isinstance(event, dict) else encode(event)
        self.log.append(value)

    def model(self) -> Model:
        for offset in range(self.read, len(self.log)):
            self.fold.take(self.log[offset], offset)
        self.read = len(self.log)
        return self.fold.of(MODEL)

    def next(self) -> Action | None:
        return next_action(MODEL, self.model(), self.loop, self, self.now_ms)

    def act(self, action: Action, *, epoch: int | None = None, twice: bool = False) -> None:
        """Do an action, and write what comes of it."""
        epoch = self.epoch if epoch is None else epoch
        for event in self._events(action):
            said = (
                {**event, "epoch": epoch}
                if isinstance(event, dict)
                else msgspec.structs.replace(event, epoch=epoch)
            )
            for _ in range(1 + twice):
                self.write(said)
        self.done.append(action)

    def _events(self, action: Action) -> list[Event | dict[str, Any]]:
        at = rfc3339(self.now_ms)
        if isinstance(action, Say | Tell):
            return [action.event]
        if isinstance(action, Execute):
            outcome = "taken_back" if action.undo else "done"
            if not action.undo and action.command in self.fail:
                outcome = "failed"
            made = Deployment(
                model=MODEL,
                at=at,
                experiment=action.experiment,
                step=action.step,
                command=action.command,
                outcome=outcome,  # type: ignore[arg-type]
            )
            return [made.named()]
        assert isinstance(action, Work)
        result = dict(self.results.get(action.step, {}))
        events: list[Event | dict[str, Any]] = []
        if action.step == "register":
            self.made += 1
            result["version"] = f"v1.{self.made}.0"
            events.append(
                Version(
                    model=MODEL,
                    at=at,
                    version=result["version"],
                    tag=f"churn@{result['version']}",
                    revision="0" * 40,
                    run=action.run,
                ).named()
            )
        outcome = "failed" if action.step in self.fail else "done"
        step = Retraining(
            model=MODEL,
            at=at,
            run=action.run,
            step=action.step,
            attempt=action.attempt,
            outcome=outcome,  # type: ignore[arg-type]
            result=result,
            reason="it is broken" if outcome == "failed" else "",
        )
        return [*events, step.named()]

    def settle(self, most: int = 100) -> list[Action]:
        """Act until there is nothing to do."""
        began = len(self.done)
        for _ in range(most):
            action = self.next()
            if action is None:
                return self.done[began:]
            self.act(action)
        raise AssertionError(f"it does not come to rest: {self.done[-3:]}")

    # ---- the rest of the world

    def wait(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1_000)

    def label(self, version: str, n: int) -> None:
        self.label_times.append((version, self.now_ms, n))

    def verdict(self, verdict: str) -> None:
        """EVALUATE judges the rollout that is under way."""
        rollout = self.model().rollout
        assert rollout is not None
        self.write(
            {
                "type": "experiment_verdict",
                "model": MODEL,
                "experiment": rollout.experiment,
                "arm": rollout.version,
                "verdict": verdict,
                "because": ["failures"],
            }
        )

    def alert(self, version: str, kind: str = "performance", severity: str = "warning") -> None:
        n = len(self.alerts)
        fingerprint = f"{kind}-{version}-{self.now_ms}-{n}"
        self.alerts.append(Firing(fingerprint, kind, severity, version, self.now_ms, "it is low"))
