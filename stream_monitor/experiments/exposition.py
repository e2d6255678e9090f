"""
The gauges of an experiment.

Rule of the file: it only reads. A stopped experiment has no series. What is not known yet (an
interval before its burn-in, a coverage without mature calls) has no sample. Counters are there at
0, because Prometheus would not see their first increase otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stream_monitor.experiments.experiment import LEFT_OUT, Experiment
from stream_monitor.experiments.judgement import FINAL, ArmVerdict, look
from stream_monitor.metrics.samples import Sample


def experiment_samples(experiments: Iterable[Experiment], now_ms: int) -> Iterator[Sample]:
    """
    Samples of all experiments that run.

    Parameters
    ----------
    experiments : iterable of Experiment
    now_ms : int
        Log time.

    Notes
    -----
    As long as a look, about 10 µs an arm and outcome.
    """
    for experiment in experiments:
        if not experiment.stopped:
            yield from _of_experiment(experiment, now_ms)


def standing(experiment: Experiment, found: ArmVerdict) -> str:
    """The verdict in force on an arm: `rollback` and `mismatch` stay once they are told."""
    told = experiment.told.get(found.arm, {})
    return next((verdict for verdict in FINAL if verdict in told), found.verdict)


def _of_experiment(experiment: Experiment, now_ms: int) -> Iterator[Sample]:
    d = experiment.definition
    name = d.model, d.name
    for reason in LEFT_OUT:
        n = experiment.left_out.get(reason, 0)
        yield Sample("model_experiment_rows_left_out_total", (*name, reason), n)
    for arm, units, (mature, labelled) in zip(
        d.arms, experiment.all_units.tolist(), experiment.mature.tolist(), strict=True
    ):
        yield Sample("model_experiment_units_total", (*name, arm.name), units)
        for o in experiment.of_labels if mature else ():
            of_metric = (*name, arm.name, d.outcomes[o].metric)
            yield Sample("model_experiment_coverage_ratio", of_metric, labelled / mature)
    for found in look(experiment, now_ms):
        labels = (*name, found.arm)
        verdict = (*labels, standing(experiment, found))
        yield Sample("model_experiment_verdict", verdict, 1)
        for test, ratio in _ratios(found).items():
            yield Sample("model_experiment_evidence_ratio", (*labels, test), ratio)
        for outcome in d.outcomes:
            yield from _interval((*labels, outcome.metric), found.evidence[outcome.metric])


def _interval(labels: tuple[str, ...], contrast: dict[str, Any]) -> Iterator[Sample]:
    if not contrast["ready"]:
        return
    values = (contrast["estimate"], *contrast["interval"])
    for end, value in zip(("estimate", "lower", "upper"), values, strict=True):
        if value is not None:
            yield Sample(f"model_experiment_{end}", labels, value)


def _ratios(found: ArmVerdict) -> dict[str, float]:
    """Evidence divided by what is needed, by test."""
    of_tests = {
        "race": [found.evidence["failures"]],
        "sample_ratio": [found.evidence["sample_ratio"]],
        "worse": [c["worse"] for c in found.evidence.values() if "worse" in c],
    }
    return {
        test: max(e["e"] / e["needed"] for e in evidence)
        for test, evidence in of_tests.items()
        if evidence
    }
