"""
The past of a model as the ground of a plan: what one arm with all of its calls would have shown.

Rule of the file: it is measured by the fold of experiments itself, with every call in one arm. So
outcomes, caps, the first 50 of a unit and late labels are those that the experiment will have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.errors import UNREADABLE, InputError
from stream_monitor.experiments.experiment import Experiment
from stream_monitor.experiments.judgement import is_yes_no
from stream_monitor.experiments.measures import Outcome
from stream_monitor.experiments.planning import Base
from stream_monitor.experiments.units import KEY_BITS
from stream_monitor.inputs.options import did_you_mean
from stream_monitor.offline.replay import Replay
from stream_monitor.settings import Settings
from stream_monitor.stats.confidence_sequences import UNIT_SHARE_MAX
from stream_monitor.stats.unit_sums import (
    UNITS,
    N,
    effective_units,
    mean_and_variance,
    rarer_answers,
)

Event = tuple[str, bytes, Any, int]
ALL, NOBODY = "all", "nobody"
BY_UNIT, BY_EVENT = "by-unit", "by-event"
LONGER, DAY_MS = 20, 86_400_000


class Past(NamedTuple):
    """What a file says of an outcome."""

    base: Base
    model: str
    versions: list[str]
    unit: str
    """`unit`, or `event` where rows have no unit."""
    units: float
    """An estimate above 200,000, of which a sample is kept."""
    calls: int
    outcomes: float
    """Those that count."""
    days: float
    """From the first call to the last; NaN where rows have no times."""
    left_out: dict[str, int]
    effective_units: float
    rarer_answers: float
    """NaN unless the outcome is yes or no."""


class OneArm:
    """
    Events with every call in one arm, after the events that start its experiments.

    Parameters
    ----------
    events : iterable of (kind, value, key, time in ms)
    starts : list of dict
        The `experiment_started` events, without type and model.
    model : str or None
        Of this model; by default that of the first row.
    """

    def __init__(
        self, events: Iterable[Event], starts: list[dict[str, Any]], model: str | None
    ) -> None:
        self.events, self.starts, self.model = events, starts, model
        self.first_ms: int | None = None
        self.last_ms = 0

    def __iter__(self) -> Iterator[Event]:
        started = False
        for kind, value, key, time_ms in self.events:
            event = _object(value) if kind == "predictions" else None
            if event is None:
                yield kind, value, key, time_ms
                continue
            named = event.get("model")
            if self.model is None and isinstance(named, str):
                self.model = named
            if self.model is not None and not started:
                started = True
                yield from self._started(self.model, time_ms)
            if named == self.model:
                self.first_ms = time_ms if self.first_ms is None else min(self.first_ms, time_ms)
                self.last_ms = max(self.last_ms, time_ms)
            yield kind, msgspec.json.encode({**event, "variant": ALL}), key, time_ms

    def _started(self, model: str, time_ms: int) -> Iterator[Event]:
        for start in self.starts:
            event = {"type": "experiment_started", "model": model, **start}
            yield "lifecycle", msgspec.json.encode(event), None, time_ms


def _object(value: bytes) -> dict[str, Any] | None:
    """A prediction as an object; None where it is none, which the fold refuses and counts."""
    try:
        found = msgspec.json.decode(value)
    except UNREADABLE:
        return None
    return found if isinstance(found, dict) else None


def past_of(
    events: Iterable[Event],
    outcome: Outcome,
    settings: Settings,
    model: str | None = None,
    *,
    span_ms: int = 0,
    has_times: bool = True,
) -> Past:
    """
    Fold a model's past, and read off what a plan needs.

    Parameters
    ----------
    events : iterable of (kind, value, key, time in ms)
    outcome : Outcome
    settings : Settings
        How long predictions wait for labels.
    model : str or None
        Of this model; by default that of the first row, which must then be the only one.
    span_ms : int, ms
        From the first event to the last: it is folded in few long steps, because sums do not depend
        on them.
    has_times : bool
        Whether times are those of the calls.

    Returns
    -------
    Past

    Raises
    ------
    InputError
        There is no such model, or nothing of the outcome, or no spread.

    Notes
    -----
    About as fast as a replay; of more than 200,000 units a random sample is kept.
    """
    starts = [
        {
            "experiment": name,
            "arms": [ALL, NOBODY],
            "weights": {ALL: 100, NOBODY: 0},
            "primary": msgspec.to_builtins(outcome),
            "unit": unit,
        }
        for name, unit in ((BY_UNIT, "user"), (BY_EVENT, "event"))
    ]
    one_arm = OneArm(events, starts, model)
    replay = Replay(settings, span_ms=LONGER * span_ms)
    replay.feed(one_arm)
    replay.close()
    models = replay.summary()["models"]
    if not models:
        raise InputError("--from: no row could be used; `stream-monitor replay` says why")
    if model is None and len(models) > 1:
        raise InputError(f"--from: rows are of {', '.join(models)}; say which with --model")
    if one_arm.model not in models:
        hint = did_you_mean(str(one_arm.model), list(models))
        raise InputError(f"--model {one_arm.model}: the rows are of {', '.join(models)}.{hint}")
    found = {e.definition.name: e for shard in replay.shards for e in shard.experiments}
    by_unit = found[BY_UNIT]
    with_unit = by_unit.rows - by_unit.left_out.get("no_unit", 0)
    experiment = by_unit if with_unit else found[BY_EVENT]
    span_ms = one_arm.last_ms - (one_arm.first_ms or 0) if has_times else 0
    versions = sorted(models[one_arm.model]["versions"])
    days = span_ms / DAY_MS if span_ms else math.nan
    return _read(experiment, str(one_arm.model), versions, days)


def units_of_tail(shares: Float) -> float:
    """
    Units of an arm until none of them has more than `UNIT_SHARE_MAX` of the variance.

    Parameters
    ----------
    shares : (units,) float64
        Of all units of the past in its variance.

    Notes
    -----
    Of n units drawn from U, the greatest is taken to be the k-th of all, k = U/n rounded up. More
    than the greatest one of the past is not foreseen.

    Examples
    --------
    One unit of 1,000 has 30 % of the variance, and the others have equal parts:

    >>> round(units_of_tail(np.append(0.3, np.full(999, 0.7 / 999))))
    3000
    """
    k, part = np.arange(1, len(shares) + 1), np.sort(shares)[::-1] / UNIT_SHARE_MAX
    some = k * part > 1  # of 1/k of the units, the greatest has too much
    ends = np.minimum(part[some], 1 / np.maximum(k[some] - 1, 1 / len(shares)))
    return float(len(shares) * ends.max(initial=0.0))


def _read(experiment: Experiment, model: str, versions: list[str], days: float) -> Past:
    outcome = experiment.definition.outcomes[0]
    sums = experiment.units.sums[0, 0]
    kept = len(experiment.units.table)
    mean, variance = mean_and_variance(sums)
    if not sums[N]:
        raise InputError(
            f"--metric {outcome.metric}: no call of {model} has it; name its column with --map"
            + (", or the file of labels with --labels" if outcome.needs_label else "")
        )
    if sums[UNITS] < 2:
        raise InputError("--from: one unit has all outcomes, and a plan needs two or more")
    if not variance > 0:
        raise InputError(
            f"--from: {outcome.metric} is {mean:g} in all units, so it has no spread; give more "
            "rows, or --mean"
        )
    yes_no = is_yes_no(outcome, sums)
    calls = experiment.rows - experiment.left_out.get("no_unit", 0)
    units = kept / ((int(experiment.units.keep) + 1) / (1 << KEY_BITS))
    a_unit = float(sums[N]) / kept
    between = variance * kept
    single = mean * (1 - mean) if yes_no else between * a_unit
    base = Base(
        mean=math.nan if outcome.is_log else mean,
        variance=single,
        yes_no=yes_no,
        design_effect=between * a_unit / single,
        calls_a_unit=calls / units,
        outcomes_a_unit=a_unit,
        effective_share=effective_units(sums) / kept,
        units_a_day=units / days,
        units_of_tail=units_of_tail(experiment.units.shares(0, 0)),
    )
    return Past(
        base=base,
        model=model,
        versions=versions,
        unit="event" if experiment.definition.unit == "event" else "unit",
        units=units,
        calls=calls,
        outcomes=float(sums[N]) * units / kept,
        days=days,
        left_out={reason: n for reason, n in experiment.left_out.items() if n},
        effective_units=effective_units(sums),
        rarer_answers=rarer_answers(sums) if yes_no else math.nan,
    )
