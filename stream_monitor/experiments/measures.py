"""
What arms are compared by: metrics, and the two ways in which one is judged.

Rule of the file: pure functions of a definition. With `effect` it is a sequence, an interval of the
difference. With `above`, `below` or `race` it is a race of first failures. What contradicts itself
is refused, with the key, its value and the way out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.settings import CustomMetric

OUTCOMES_MAX = 6
Scale = Literal["linear", "log"]
Goal = Literal["better", "not worse"]

WORSE_WHEN_GREATER = frozenset(
    ("latency_ms", "error", "error_rate", "violations", "absolute_error", "squared_error", "brier")
)
"""Metrics of which less is better; of all others more is."""
SHARES = frozenset(("accuracy", "error_rate", "error", "violations"))
"""Metrics whose values are 0 or 1."""
RACED = frozenset(("error_rate", "violations"))
"""Those of which a race may be asked for: 1 is the bad one, and no other race has it."""
OF_LABELS = frozenset(
    ("accuracy", "error_rate", "label", "absolute_error", "squared_error", "brier")
)
"""Metrics that need the label; the others are known when the call is answered."""
OF_CALLS = frozenset(("error", "latency_ms", "score", "prediction", "violations"))
"""Metrics that every event may have; any other name is that of a feature."""


class Outcome(msgspec.Struct, frozen=True):
    """A metric by which arms are compared."""

    metric: str
    effect: float = 0.0
    """
    The smallest difference that matters, in units of the metric; with `scale: log` relative (0.05
    is 5 %). It fixes the shape of the sequence and is the margin of `not worse`. A race has none.
    """
    scale: Scale | None = None
    """`log` compares geometric means; by default for `latency_ms`."""
    goal: Goal = "better"
    better: Literal["more", "less"] | None = None
    """Which direction is better; None: known from the metric."""
    cap: float | None = None
    """Greater values count as this one. Take it from the time before the experiment."""
    field: str | None = None
    """The field of the event that a metric `custom.NAME` measures, by the configuration."""
    above: float | None = None
    """A race: a call with a greater number is a failure."""
    below: float | None = None
    """A race: a call with a smaller number is a failure."""
    race: bool = False
    """A race of a metric that is 0 or 1: a call with 1 is a failure."""

    @property
    def is_race(self) -> bool:
        """Whether first failures of units are counted, and not the difference of means."""
        return self.race or self.above is not None or self.below is not None

    @property
    def name(self) -> str:
        """
        Its name in verdicts.

        >>> [o.name for o in (Outcome("latency_ms", 0.05), Outcome("latency_ms", above=250.0))]
        ['latency_ms', 'latency_ms above 250']
        >>> Outcome("violations", race=True).name
        'violations race'
        """
        if self.above is not None:
            return f"{self.metric} above {self.above:.15g}"
        if self.below is not None:
            return f"{self.metric} below {self.below:.15g}"
        return f"{self.metric} race" if self.race else self.metric

    @property
    def is_log(self) -> bool:
        """Whether ratios of geometric means are compared."""
        default = "log" if self.metric == "latency_ms" else "linear"
        return not self.is_race and (self.scale or default) == "log"

    @property
    def sign(self) -> int:
        """1 if more is better, -1 if less is."""
        better = self.better or ("less" if self.metric in WORSE_WHEN_GREATER else "more")
        return 1 if better == "more" else -1

    @property
    def is_share(self) -> bool:
        """Whether its values are 0 and 1."""
        return self.metric in SHARES

    @property
    def needs_label(self) -> bool:
        """Whether it is known only when the label has come."""
        return self.metric in OF_LABELS


def check_outcomes(primary: Outcome, guards: tuple[Outcome, ...], maturity_ms: int) -> None:
    """
    Refuse outcomes that cannot be judged.

    Raises
    ------
    InputError
    """
    outcomes = (primary, *guards)
    if len(outcomes) > OUTCOMES_MAX:
        raise InputError(f"at most {OUTCOMES_MAX} outcomes, `primary` included")
    names = [o.name for o in outcomes]
    if len(set(names)) < len(names):
        raise InputError(f"each metric once, in `primary` or in `guards`, not {names}")
    if primary.is_race:
        raise InputError(
            f"`primary` is {primary.name!r}: a race shows only that an arm is worse, so it cannot "
            "promote one; make it a guard, and give `primary` an `effect`"
        )
    for o in outcomes:
        _check_metric(o)
        if o.is_race:
            _check_race(o, maturity_ms)
        else:
            _check_effect(o)


def _check_effect(o: Outcome) -> None:
    if not 0 < o.effect < math.inf:
        raise InputError(
            f"`effect` of {o.metric} must be greater than 0, not {o.effect:g}: it is the "
            "smallest difference that matters"
        )
    if o.is_share and o.effect >= 1:
        raise InputError(
            f"`effect` of {o.metric} is a difference of shares and must be less than 1, not "
            f"{o.effect:g}"
        )
    if o.is_share and o.is_log:
        raise InputError(f"{o.metric} is 0 or 1 and has no logarithm: leave `scale` out")


def _check_race(o: Outcome, maturity_ms: int) -> None:
    keys = [k for k in ("above", "below", "race") if getattr(o, k) not in {None, False}]
    if len(keys) > 1:
        raise InputError(
            f"guard {o.metric} has {' and '.join(f'`{k}`' for k in keys)}: one race has one of "
            "them; make two guards"
        )
    key, default = keys[0], Outcome(o.metric)
    for other in ("effect", "scale", "goal", "better", "cap"):
        if getattr(o, other) != getattr(default, other):
            raise InputError(
                f"guard {o.metric} has `{key}` and `{other}` ({getattr(o, other)!r}): a race of "
                f"first failures has no `{other}`; leave it out, or make two guards"
            )
    if key != "race":
        _check_limit(o, key)
    elif o.metric not in RACED:
        raise InputError(f"guard {o.metric} has `race`: {_WAYS_OUT.get(o.metric, _NUMBERS)}")
    if o.needs_label and not maturity_ms:
        raise InputError(
            f"guard {o.name!r} needs labels, and a call is judged once, when it is `maturity` old; "
            "`maturity` is 0: give one, such as 1d"
        )


_NUMBERS = (
    "it is for metrics that are 0 or 1 (error_rate, violations); for a number give `above` or "
    "`below`"
)
_WAYS_OUT = {
    "error": "every experiment has the race of failed calls (`failures`); leave it out, or give "
    "`effect`",
    "accuracy": "it is of bad outcomes; wrong answers are error_rate",
}


def _check_limit(o: Outcome, key: str) -> None:
    limit = getattr(o, key)
    if o.is_share:
        raise InputError(
            f"guard {o.metric} has `{key}` ({limit:g}), but it is 0 or 1: "
            + (_WAYS_OUT.get(o.metric) or 'give `"race": true`')
        )
    if not math.isfinite(limit):
        raise InputError(f"`{key}` of {o.metric} must be a number, not {limit:g}")


CUSTOM = "custom."
OF_WINDOWS = {
    "precision": "accuracy or error_rate",
    "recall": "accuracy or error_rate",
    "f1": "accuracy or error_rate",
    "roc_auc": "brier",
    "log_loss": "brier",
    "brier_score": "brier",
    "calibration_error": "brier",
    "mae": "absolute_error",
    "rmse": "squared_error",
    "r2": "squared_error",
    "bias": "absolute_error",
}
"""Metrics of many calls together, and what to take in their place."""


def with_fields(event: Mapping[str, Any], custom: Mapping[str, CustomMetric]) -> dict[str, Any]:
    """
    An `experiment_started` event whose metrics `custom.NAME` have their field.

    The value of a call is the number of that field, whatever the type of the metric is; labels and
    buckets take no part.

    Parameters
    ----------
    event : mapping
    custom : mapping of name to CustomMetric
        `metrics.custom` of the model.

    Raises
    ------
    InputError
        There is no such metric.

    Examples
    --------
    >>> basket = CustomMetric(type="gauge", field="features.basket")
    >>> with_fields({"primary": {"metric": "custom.basket", "effect": 1}}, {"basket": basket})
    {'primary': {'metric': 'custom.basket', 'effect': 1, 'field': 'features.basket'}}
    """

    def one(outcome: Any) -> Any:
        metric = outcome.get("metric") if isinstance(outcome, Mapping) else None
        if not isinstance(metric, str) or not metric.startswith(CUSTOM):
            return outcome
        found = custom.get(metric.removeprefix(CUSTOM))
        if found is None:
            known = ", ".join(CUSTOM + name for name in custom) or "none"
            raise InputError(
                f"metric {metric!r} is not under metrics.custom of the model; known are {known}"
            )
        return {**outcome, "field": found.field}

    guards = event.get("guards")
    return {
        **event,
        **({"primary": one(event["primary"])} if "primary" in event else {}),
        **({"guards": [one(g) for g in guards]} if isinstance(guards, list | tuple) else {}),
    }


def check_caps(event: Mapping[str, Any]) -> None:
    """
    Refuse a cap that is a quantile: it would be learnt inside the experiment.

    Raises
    ------
    InputError
    """
    guards = event.get("guards") or ()
    for o in (event.get("primary"), *(guards if isinstance(guards, list | tuple) else ())):
        if isinstance(o, Mapping) and isinstance(o.get("cap"), str):
            raise InputError(
                f"`cap` of {o.get('metric')} is {o['cap']!r}: it must be a number before the "
                "experiment begins; give one, or the past with `experiment start FILE --from PAST` "
                "or `replay --experiment FILE --experiment-past PAST`"
            )


def _check_metric(o: Outcome) -> None:
    metric, known = o.metric, sorted(OF_LABELS | OF_CALLS)
    if metric.startswith(CUSTOM) != (o.field is not None):
        raise InputError(
            f"metric {metric!r} and `field` {o.field!r}: a metric custom.NAME has the `field` of "
            "the configuration, which `experiment start` and `replay` fill in, and no other has one"
        )
    if metric in known or metric.startswith(("features.", CUSTOM)):
        return
    if metric in OF_WINDOWS:
        raise InputError(
            f"metric {metric!r} is of many calls together and has no value of one call, so units "
            f"cannot be compared by it; take {OF_WINDOWS[metric]}. A feature of this name is "
            f"features.{metric}"
        )
    if metric.startswith("model_custom_"):
        raise InputError(
            f"metric {metric!r} is the name of a series; in an experiment it is "
            f"{CUSTOM + metric.removeprefix('model_custom_').removesuffix('_total')!r}"
        )
    meant = get_close_matches(metric, known, 1, 0.75)
    if not metric or meant:
        hint = f" Did you mean {meant[0]!r}?" if meant else ""
        raise InputError(
            f"metric {metric!r} is not known.{hint} Known are {', '.join(known)}, "
            "features.NAME and custom.NAME"
        )
