"""
The controller's own port, on the embedded broker: what a scrape says is what the log says, the
controller that waits says nothing of models, and a port that is taken is named.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, get_args

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_monitor.demo.broker import start_in_thread
from stream_monitor.kafka.records import write
from stream_monitor.lifecycle.controller import Controller, projects_of
from stream_monitor.lifecycle.endpoint import serving
from stream_monitor.lifecycle.events import (
    Accepted,
    Claim,
    Ended,
    Event,
    RefusalKind,
    Refused,
    Rollout,
    Stage,
    Trigger,
    encode,
)
from stream_monitor.lifecycle.rollout import WaitKind
from stream_monitor.lifecycle_settings import Lifecycle, ModelLoop, RunLimits, Step
from stream_monitor.metrics.page import LABELS
from stream_monitor.metrics.queries import labels_of
from stream_monitor.runtime.http import PortError
from stream_monitor.settings import KafkaSettings, Settings

AT = "2026-01-01T00:00:0{}Z"
STARTED = {
    "schema": 1,
    "type": "experiment_started",
    "model": "fraud",
    "at": AT.format(3),
    "by": "ana",
    "experiment": "x",
    "weights": {"v1.0.0": 95, "v1.1.0": 5},
}


def log() -> list[tuple[str, bytes]]:
    """A run that failed, one that waits for a person, a refusal, and a canary at 5 %."""
    first = Trigger(model="churn", at=AT.format(1), cause="person", by="ana").named()
    second = Trigger(model="churn", at=AT.format(2), cause="person", by="ana").named()
    third = Trigger(model="churn", at=AT.format(3), cause="person", by="ana").named()

    def accepted(trigger: Trigger, run: str, *, approval: bool) -> Accepted:
        return Accepted(
            model="churn",
            at=AT.format(4),
            trigger=trigger.id,
            run=run,
            steps=("train",),
            approval=approval,
        )

    rollout = Rollout(
        version="v1.1.0",
        against="v1.0.0",
        experiment="x",
        stages=(5.0, 100.0),
        step=0,
        since=AT.format(3),
        state="late",
    )
    stages: dict[str, Any] = {"v0.9.0": "retired", "v1.0.0": "production", "v1.1.0": "canary"}
    events: list[Event] = [
        Claim(model="", at=AT.format(0), host="a"),
        first,
        accepted(first, "r1", approval=False),
        Ended(model="churn", at=AT.format(5), run="r1", end="failed", reason="train: no"),
        second,
        Refused(model="churn", at=AT.format(6), trigger=second.id, reason="no", kind="cooldown"),
        third,
        accepted(third, "r2", approval=True),
        Claim(model="", at=AT.format(7), host="b", epoch=3),
        # of a controller with an older claim
        Ended(model="churn", at=AT.format(7), run="r2", end="done", epoch=2),
        Stage(model="fraud", at=AT.format(3), by="ana", stages=stages, rollout=rollout),
    ]
    own = [(e.model, encode(e.named())) for e in events]
    return [*own, ("fraud", msgspec.json.encode(STARTED))]


EXPECTED = {
    ("stream_monitor_controller_active",): 1,
    ("stream_monitor_controller_events_ignored_total",): 1,
    ("stream_monitor_controller_waiting", "churn", "approval"): 1,
    ("stream_monitor_controller_waiting", "fraud", "weights"): 1,
    ("stream_monitor_triggers_refused_total", "churn", "cooldown"): 1,
    ("stream_monitor_retraining_runs_total", "churn", "failed"): 1,
    ("stream_monitor_retraining_runs_total", "churn", "done"): 0,
    ("stream_monitor_retraining_end_timestamp_seconds", "churn", "failed"): 1_767_225_605,
    ("stream_monitor_retraining_step_start_timestamp_seconds", "churn", "approval"): 1_767_225_604,
    ("stream_monitor_version_stage", "fraud", "v1.0.0", "production"): 1,
    ("stream_monitor_version_stage", "fraud", "v1.1.0", "canary"): 1,
    ("stream_monitor_version_weight_ratio", "fraud", "v1.0.0"): 0.95,
    ("stream_monitor_version_weight_ratio", "fraud", "v1.1.0"): 0.05,
}


def a_controller(bootstrap: str) -> Controller:
    train = Step(name="train", command=("true",))
    loop = ModelLoop(repository=".", steps=(train,), limits=RunLimits(approval="run"))
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap),
        lifecycle=Lifecycle(port=0, models={"churn": loop, "fraud": loop}),
    )
    return Controller(settings, projects_of(settings, None))


async def asked(port: int, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


async def scraped(port: int) -> dict[tuple[str, ...], float]:
    _, text = await asked(port, "/metrics")
    return {
        (sample.name, *(sample.labels[label] for label in labels_of(sample.name))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def until(port: int, word: str) -> None:
    async with asyncio.timeout(60):
        while True:
            if word in (await asked(port, "/ready"))[1]:
                return
            await asyncio.sleep(0.1)


async def test_a_scrape_says_what_the_log_says_and_only_the_active_one_speaks_of_models():
    with start_in_thread() as broker:
        one, two = a_controller(broker.bootstrap), a_controller(broker.bootstrap)
        for key, value in log():
            await write(one.settings, "lifecycle", key, value)
        stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(serving(one))
            assert await asked(port, "/ready") == (503, "not in the group yet\n")
            assert (await asked(port, "/live"))[0] == 200
            running = [asyncio.ensure_future(one.run(stop))]
            try:
                await until(port, "active, epoch")
                before = await scraped(port)
                other = await stack.enter_async_context(serving(two))
                running.append(asyncio.ensure_future(two.run(stop)))
                await until(other, "another controller")
                waits = await scraped(other)
                status, _ = await asked(other, "/ready")
            finally:
                stop.set()
                await asyncio.gather(*running)
    # a person set the weights, so the controller pauses the rollout; that is what it waits for
    found = {key: before.get(key) for key in EXPECTED}
    assert found == EXPECTED
    assert before["stream_monitor_controller_epoch",] == one.epoch > 0
    assert before["stream_monitor_controller_last_record_timestamp_seconds",] > 1_767_225_604
    assert not [key for key in before if "v0.9.0" in key], "a retired version needs no series"
    assert status == 200
    ours = {key for key in waits if not key[0].endswith(("dropped_total", "errors_total"))}
    assert ours == {("stream_monitor_controller_active",)}


async def test_a_port_that_is_taken_is_named_with_its_key():
    one, other = a_controller("127.0.0.1:1"), a_controller("127.0.0.1:1")
    async with serving(one) as port:
        lifecycle = msgspec.structs.replace(other.settings.lifecycle, port=port)
        other.settings = msgspec.structs.replace(other.settings, lifecycle=lifecycle)
        with pytest.raises(PortError, match=r"set lifecycle\.port to another port"):
            async with serving(other):
                pass


def test_what_it_waits_for_and_why_it_refuses_are_described():
    described = LABELS["reason"]
    assert {f"`{word}`" for kinds in (WaitKind, RefusalKind) for word in get_args(kinds)} <= set(
        described.replace("(", " ").replace(")", " ").replace(".", " ").replace(",", " ").split()
    )
