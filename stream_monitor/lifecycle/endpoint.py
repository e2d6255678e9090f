"""
The controller's own port: `/metrics`, `/live` and `/ready`, as a worker has them.

Rule of the file: it reads the state of a controller and changes nothing. What is told of models
comes from the log, so a controller that takes over goes on with the same numbers. A controller
that waits for its turn tells nothing of models, so no series comes from two of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import get_args

from stream_monitor.kafka.clocks import now_ms
from stream_monitor.lifecycle import rollout
from stream_monitor.lifecycle.actions import Facts
from stream_monitor.lifecycle.controller import Controller
from stream_monitor.lifecycle.decisions import is_approved
from stream_monitor.lifecycle.events import End
from stream_monitor.lifecycle.model import APPROVAL, DECIDE, Model, ms_of
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.metrics.samples import Sample
from stream_monitor.runtime.own_port import serving_at


def serving(controller: Controller) -> AbstractAsyncContextManager[int]:
    """Serve while the block runs; gives the port. It raises as `serving_at` does."""
    return serving_at(
        controller.settings,
        "lifecycle",
        lambda: samples(controller, now_ms()),
        lambda: ready(controller),
    )


def ready(controller: Controller) -> tuple[bool, str]:
    """Whether a controller does its work, or could take it over, and a line that says so."""
    if controller.active:
        return True, f"active, epoch {controller.epoch}, {len(controller.projects)} model(s)"
    if controller.leading:
        return False, "reading lifecycle, alerts and history"
    if controller.joined:
        return True, "another controller is active; this one takes over if it dies"
    return False, "not in the group yet"


def samples(controller: Controller, now_ms: int) -> Iterator[Sample]:
    """
    What a scrape shows.

    Parameters
    ----------
    controller : Controller
    now_ms : int
        Wall clock.
    """
    yield Sample("stream_monitor_controller_active", (), float(controller.active))
    if not controller.active:
        return
    fold = controller.fold
    yield Sample("stream_monitor_controller_epoch", (), controller.epoch)
    yield Sample("stream_monitor_controller_events_ignored_total", (), fold.ignored)
    read_s = controller.last_read_ms / 1e3
    yield Sample("stream_monitor_controller_last_record_timestamp_seconds", (), read_s)
    for name, project in controller.projects.items():
        m = fold.of(name)
        kind = waits_for(name, m, project.loop, controller.observed, now_ms)
        if kind is not None:
            yield Sample("stream_monitor_controller_waiting", (name, kind), 1.0)
        yield from _of_runs(name, m)
        yield from _of_versions(name, m)


def waits_for(
    name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int
) -> rollout.WaitKind | None:
    """
    What a run or a rollout waits for; None: for nothing, or there is none.

    Parameters
    ----------
    name : str
        The model.
    m : Model
    loop : ModelLoop
    facts : Facts
    now_ms : int
        Wall clock.
    """
    run = m.runs.get(m.current or "")
    if run is not None and not is_approved(run, loop):
        if run.step == APPROVAL:
            return "approval"
        if run.results.get(DECIDE, {}).get("decision") == "inconclusive":
            return "inconclusive"
    if m.rollout is None or m.rollout.state == "watch":
        return None
    wait = rollout.waiting_for(name, m, m.rollout, loop, facts, now_ms)
    return wait.kind if wait is not None else None


def _of_runs(name: str, m: Model) -> Iterator[Sample]:
    for kind, n in sorted(m.refusals.items()):
        yield Sample("stream_monitor_triggers_refused_total", (name, kind), n)
    for end in get_args(End):
        yield Sample("stream_monitor_retraining_runs_total", (name, end), m.ended.get(end, 0))
    for end, at in m.ended_at.items():
        at_s = ms_of(at) / 1e3
        yield Sample("stream_monitor_retraining_end_timestamp_seconds", (name, end), at_s)
    run = m.runs.get(m.current or "")
    if run is not None and run.step is not None:
        began_s = ms_of(run.changed) / 1e3
        family = "stream_monitor_retraining_step_start_timestamp_seconds"
        yield Sample(family, (name, run.step), began_s)


def _of_versions(name: str, m: Model) -> Iterator[Sample]:
    trial, live = m.trial, m.champion
    split = {live: 100.0} if live is not None else {}
    if trial is not None:
        split = {trial.keep: 100.0} if trial.keep is not None else trial.weights
    for version, stage in m.stages.items():
        if stage != "retired":
            yield Sample("stream_monitor_version_stage", (name, version, stage), 1.0)
            share = split.get(version, 0.0) / 100
            yield Sample("stream_monitor_version_weight_ratio", (name, version), share)
