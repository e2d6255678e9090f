"""
The gauges of an experiment, and how it stands in `summary.json`.

Rule of the file: it only reads. A stopped experiment has no series. What is not known yet (an
interval before its burn-in, a coverage without mature calls) has no sample. Counters are there at
0, because Prometheus would not see their first increase otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stream_monitor.experiments.definition import SLOTS, TYPES
from stream_monitor.experiments.experiment import LEFT_OUT, Experiment
from stream_monitor.experiments.judgement import ArmVerdict, fixed_horizon, hours, standing
from stream_monitor.experiments.registry import Experiments
from stream_monitor.experiments.telling import complete_of
from stream_monitor.metrics.samples import Sample


def experiment_samples(experiments: Experiments, now_ms: int) -> Iterator[Sample]:
    """
    Samples of all experiments that run, and of events that were refused.

    Parameters
    ----------
    experiments : Experiments
    now_ms : int
        Log time.

    Notes
    -----
    As long as a look: about 50 µs an arm and outcome.
    """
    for kind in TYPES:
        refused = experiments.state.refused.get(kind, 0)
        yield Sample("stream_monitor_experiment_events_refused_total", (kind,), refused)
    for experiment in experiments:
        if not experiment.stopped:
            yield from _of_experiment(experiment, now_ms)


def experiment_summaries(experiments: Iterable[Experiment], now_ms: int) -> dict[str, Any]:
    """How each experiment stands at a log time, by model and name."""
    out: dict[str, Any] = {}
    for experiment in experiments:
        d = experiment.definition
        names = [arm.name for arm in d.arms]
        out.setdefault(d.model, {})[d.name] = {
            "phase": experiment.phase,
            "weights": percent_of(experiment.weights, names),
            **complete_of(experiment),
            "unit": d.unit,
            "hours": round(hours(experiment, now_ms), 3),
            "stopped": experiment.stopped,
            "rows": experiment.rows,
            "left_out": {reason: n for reason, n in experiment.left_out.items() if n},
            "units": dict(zip(names, experiment.all_units.tolist(), strict=True)),
            "arms": {
                found.arm: {
                    "verdict": found.verdict,
                    "because": found.because,
                    "evidence": found.evidence,
                    "fixed_horizon": fixed_horizon(experiment, found.number),
                }
                for found in standing(experiment, now_ms)
            },
        }
    return out


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
    for found in standing(experiment, now_ms):
        labels = (*name, found.arm)
        yield Sample("model_experiment_verdict", (*labels, found.verdict), 1)
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
        "race": [e for e in found.evidence.values() if "first" in e],
        "sample_ratio": [found.evidence["sample_ratio"]],
        "worse": [c["worse"] for c in found.evidence.values() if "worse" in c],
    }
    return {
        test: max(e["e"] / e["needed"] for e in evidence)
        for test, evidence in of_tests.items()
        if evidence
    }


def percent_of(weights: tuple[int, ...], names: list[str]) -> dict[str, float]:
    """Weights as events have them."""
    return {name: w * 100 / SLOTS for name, w in zip(names, weights, strict=True)}
