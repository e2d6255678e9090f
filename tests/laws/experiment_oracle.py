"""
Experiments in plain Python: a stream of calls with every kind of outcome, and what loops over
dictionaries say that an experiment must have counted. No array, and nothing of the package.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from typing import Any

START_MS = 1_760_000_000_000
SETTLE_MS, OUTCOMES_OF_UNIT_MAX = 60_000, 50
HAZARDS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
Event = tuple[str, dict[str, Any]]
YES: tuple[Any, ...] = (1, True, "1", "True", "1.0")
NO: tuple[Any, ...] = (0, False, "0", "false", "0.0")
RULES: dict[str, dict[str, Any]] = {
    "amount": {"min": 0.0, "max": 90.0, "required": True},
    "kind": {"categories": ("card", "cash", "1")},
}
"""Rules under `features` of the model."""


def stream(
    seed: int, n: int, units: int, *, share: float = 0.5, bad: float = 0.0, step_ms: int = 1_000
) -> list[Event]:
    """Calls of sticky units and their labels; `bad` is how much worse arm b is."""
    rng = random.Random(seed)
    arm_of = [rng.random() < share for _ in range(units)]
    out: list[tuple[int, int, Event]] = []
    for i in range(n):
        u, at = rng.randrange(units), i * step_ms
        worse = 0.08 + bad * arm_of[u]
        event: dict[str, Any] = {
            "event_id": f"e{seed}-{i}",
            "model": "m",
            "version": "1",
            "variant": "b" if arm_of[u] else "control",
            "unit": f"user-{u}",
            "latency_ms": round(400 * rng.random() ** 3, 3) if rng.random() > worse else 251.5,
        }
        if rng.random() < 0.02:
            out.append((at, i, ("predictions", {**event, "status": "error"})))
            continue
        y = rng.random() < 0.3
        amount: Any = rng.choice([5, 12.5, 88, 90, 0])
        if rng.random() < worse:
            amount = rng.choice([-1, 90.5, "12", True, None, [1], {"a": 1}])
        kind: Any = rng.choice(["card", "cash", 1]) if rng.random() > worse / 2 else "cheque"
        features = {"amount": amount, "kind": kind}
        if rng.random() < worse / 4:
            del features["amount"]
        prediction = y != (rng.random() < worse)
        event |= {
            "prediction": rng.choice(YES if prediction else NO),
            "score": round(rng.random(), 3),
            "features": features,
        }
        out.append((at, i, ("predictions", event)))
        if rng.random() < 0.9:
            later = at + int(rng.expovariate(1 / 600_000)) + 1
            label = {"event_id": event["event_id"], "label": rng.choice(YES if y else NO)}
            out.append((later, i, ("labels", label)))
            if rng.random() < 0.2:
                other = {**label, "label": rng.choice(NO if y else YES)}
                out.append((later + int(rng.expovariate(1 / 1_200_000)) + 1, i, ("labels", other)))
    out.sort(key=lambda e: e[:2])
    return [(kind, {**event, "timestamp": START_MS + at}) for at, _, (kind, event) in out]


def breaks_a_rule(features: dict[str, Any]) -> bool:
    """By the words of docs/experiments.md."""
    for name, rule in RULES.items():
        value = features.get(name)
        if value is None:
            if rule.get("required"):
                return True
            continue
        if isinstance(value, list | dict):
            return True
        if "min" in rule:
            if isinstance(value, bool | str):
                return True
            if not rule["min"] <= value <= rule["max"]:
                return True
        if "categories" in rule and str(value) not in rule["categories"]:
            return True
    return False


def as_number(value: Any) -> float:
    """A number, a boolean, or a text that is one of them."""
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.lower(), value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def value_of(outcome: dict[str, Any], call: dict[str, Any], label: Any) -> float:
    """The outcome of one call; NaN if it has none."""
    metric = outcome.get("field") or outcome["metric"]
    failed = call.get("status") == "error"
    if metric == "error":
        return float(failed)
    if failed:
        return math.nan
    if metric == "violations":
        return float(breaks_a_rule(call["features"]))
    if metric in {"accuracy", "error_rate", "label"}:
        if label is None:
            return math.nan
        if metric == "label":
            return as_number(label)
        right = as_number(label) == as_number(call["prediction"])
        return float(right == (metric == "accuracy"))
    if metric.startswith("features."):
        return as_number(call["features"].get(metric[9:]))
    return as_number(call[metric])


def is_race(outcome: dict[str, Any]) -> bool:
    return any(k in outcome for k in ("above", "below", "race"))


def fails(outcome: dict[str, Any], value: float) -> bool:
    if "above" in outcome:
        return value > outcome["above"]
    if "below" in outcome:
        return value < outcome["below"]
    return value == 1


def name_of(outcome: dict[str, Any]) -> str:
    for key in ("above", "below"):
        if key in outcome:
            return f"{outcome['metric']} {key} {outcome[key]}"
    return f"{outcome['metric']} race" if "race" in outcome else str(outcome["metric"])


class Counted:
    """What an experiment of two arms must have counted at the end."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * 6)
        self.trials: dict[str, list[tuple[bool, float]]] = defaultdict(list)
        """By race: (in arm b, its share) of each first failure."""
        self.complete = {"control": 0, "b": 0}

    def peak(self, race: str) -> float:
        """Greatest log evidence after any trial."""
        factors, peak = [0.0] * len(HAZARDS), 0.0
        for in_b, share in self.trials[race]:
            for i, h in enumerate(HAZARDS):
                factors[i] += (math.log(h) if in_b else 0.0) - math.log(1 + share * (h - 1))
            peak = max(peak, math.log(sum(map(math.exp, factors)) / len(factors)))
        return peak


def counted(
    events: list[Event], started: dict[str, Any], maturity_ms: int, window_ms: int, end_ms: int
) -> Counted:
    """Loops over all calls, in the order of the log."""
    outcomes = [started["primary"], *started["guards"]]
    labels: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for kind, e in events:
        if kind == "labels":
            labels[e["event_id"]].append((e["timestamp"], e["label"]))
    weights, phase, changed_ms = started["weights"], 1, -SETTLE_MS
    out, fallen = Counted(), set()
    since: dict[tuple[int, str], int] = {}
    values: dict[Any, list[float]] = defaultdict(list)
    units: dict[tuple[int, str], str] = {}
    for _, e in events:
        if e.get("type") == "experiment_changed":
            weights, phase, changed_ms = e["weights"], phase + 1, e["timestamp"]
        if "variant" not in e or e["timestamp"] < changed_ms + SETTLE_MS:
            continue
        now, arm, unit = e["timestamp"], e["variant"], (phase, e["unit"])
        begun = since.setdefault(unit, now)
        units[unit] = arm
        share = weights["b"] / (weights["b"] + weights["control"])
        told = labels[e["event_id"]]
        for o in outcomes:
            of_label = o["metric"] in {"accuracy", "error_rate", "label"}
            last = end_ms
            if is_race(o):
                last = now + maturity_ms
            elif window_ms:
                last = begun + window_ms + maturity_ms
            label = next((v for at, v in reversed(told) if at <= last), None)
            x = value_of(o, e, label)
            if of_label and now + maturity_ms >= end_ms:
                continue
            if not is_race(o):
                if x == x and (not window_ms or now < begun + window_ms):
                    values[unit, name_of(o)].append(x)
            elif fails(o, x) and (name_of(o), e["unit"]) not in fallen:
                fallen.add((name_of(o), e["unit"]))
                out.trials[name_of(o)].append((arm == "b", share))
    for unit, arm in units.items():
        whole = not window_ms or since[unit] + window_ms + maturity_ms < end_ms
        if unit[0] != phase or not whole:
            continue
        out.complete[arm] += 1
        for o in outcomes:
            xs = values[unit, name_of(o)]
            if xs and not is_race(o):
                assert len(xs) <= OUTCOMES_OF_UNIT_MAX
                n, x = len(xs), sum(xs)
                terms = (1, n, x, n * n, n * x, x * x)
                found = out.sums[arm, name_of(o)]
                found[:] = [a + b for a, b in zip(found, terms, strict=True)]
    return out
