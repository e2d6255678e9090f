"""
Champion against challenger: whether a new version is good enough to be registered.

Rule of the file: the same files, settings and run give the same answer. The reason is one sentence
with its numbers. What cannot be known is `inconclusive`, and a person decides.

The rows are the hold-out of the run: the newest rows that `collect` found, in time order, on which
neither of the two was trained. Nothing in the files can prove that; the step of the project that
writes them holds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream_monitor.arrays import Int
from stream_monitor.errors import InputError
from stream_monitor.inputs.options import did_you_mean
from stream_monitor.lifecycle.comparison import Paired
from stream_monitor.lifecycle.held_out import answered
from stream_monitor.lifecycle.matched_metrics import ALIASES, METRICS, Metric, Said, Truth, compared
from stream_monitor.lifecycle.prediction_files import Matched, matched
from stream_monitor.lifecycle.tags import shown
from stream_monitor.lifecycle_settings import Decide

UNITS_MIN = 30
"""With fewer units the bounds are not to be trusted."""
VALUES_MAX = 200
SHOWN_MAX, TEXT_MAX = 20, 64
"""Segments in the result, the worst first, and characters of a value."""


class _Test(NamedTuple):
    """What does not change from one comparison to the next."""

    metric: Metric
    truth: Truth
    said: tuple[Said, ...]
    units: Int | None
    alpha: float
    seed: int

    def of(self, other: int, rows: Int | None = None) -> Paired:
        """The challenger against the champion (0) or the anchor (2), on all rows or on some."""
        truth, units = self.truth, self.units
        pair = self.said[other], self.said[1]
        if rows is not None:
            truth = truth._replace(code=truth.code[rows], number=truth.number[rows])
            pair = _some(pair[0], rows), _some(pair[1], rows)
            if units is not None:
                units = np.unique(units[rows], return_inverse=True)[1]
        return compared(self.metric, truth, pair, units, alpha=self.alpha, seed=self.seed)


def _some(said: Said, rows: Int) -> Said:
    return Said(said.code[rows], said.number[rows], said.score[rows])


def decide(
    champion_file: str,
    challenger_file: str,
    settings: Decide,
    run: str,
    *,
    anchor_file: str | None = None,
    challengers: int = 1,
    quality_passed: bool | None = None,
    model_bytes: tuple[int, int] | None = None,
    columns: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """
    Compare the predictions of two models on held-out rows.

    Parameters
    ----------
    champion_file, challenger_file : str
        Predictions on the same rows, with `label`, `prediction` or `score`, and if there are any
        `event_id`, `unit`, `latency_ms` and the columns of segments.
    settings : Decide
    run : str
        Seed of the bootstrap.
    anchor_file : str or None
        Predictions of the anchor on the same rows; that of the champion, if it is the anchor. The
        rule `not worse` needs it: margins against the champion alone add up.
    challengers : int
        How many models are compared with this champion; `alpha` is divided by it.
    quality_passed : bool or None
        What the rules of quality said of the training data; None: there are none.
    model_bytes : (champion, challenger) or None
        Size of the model's files.
    columns : mapping of str to str
        Names of columns, by field.

    Returns
    -------
    dict
        For the event of the step `decide`: `decision` (`promote`, `reject` or `inconclusive`),
        `reason`, `difference` with `lower` and `upper` (above 0 the challenger is better, whatever
        the metric), and what else was looked at. Plain JSON below 16 KiB; null for what is not
        defined.

    Raises
    ------
    InputError
        A file cannot be read, or the files do not match.

    Notes
    -----
    O(rows) for metrics that are means; 2,000 samples for the others. 10,000 rows take 0.2 s of CPU
    (ROC AUC 0.6 s), 200,000 rows 3 s (10 s) and 300 MB, and segments together once more.
    """
    name = ALIASES.get(settings.metric, settings.metric)
    if name not in METRICS:
        hint = did_you_mean(settings.metric, [*METRICS, *ALIASES])
        raise InputError(
            f"metric {settings.metric!r} is not known.{hint} Known: {', '.join(METRICS)}"
        )
    files = [champion_file, challenger_file, *([anchor_file] if anchor_file else [])]
    rows = matched(files, unit=settings.unit, segments=settings.segments, columns=columns)
    test = _test(name, rows, settings, run, challengers)
    found = test.of(0)
    anchor = test.of(2) if anchor_file else None
    segments = _segments(test, rows.segments, settings)
    guards = _guards(rows, settings, quality_passed, model_bytes)
    decision, reason = _decision(name, settings, found, anchor, len(rows.label), segments, guards)
    result = {
        "decision": decision,
        "reason": reason,
        "metric": name,
        "rule": settings.rule,
        "margin": settings.margin,
        "alpha": test.alpha,
        "challengers": challengers,
        **_numbers(found),
        "rows": len(rows.label),
        "unlabelled": rows.unlabelled,
        "method": found.method,
        "anchor": None if anchor is None else _numbers(anchor),
        "segments": segments[:SHOWN_MAX],
        "segments_left_out": max(len(segments) - SHOWN_MAX, 0),
        "guards": guards,
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(result))
    return plain


def _numbers(found: Paired) -> dict[str, Any]:
    return {
        "difference": found.gain,
        "lower": found.lower,
        "upper": found.upper,
        "champion": found.champion,
        "challenger": found.challenger,
        "units": found.units,
    }


# ---- rows


def _test(name: str, rows: Matched, settings: Decide, run: str, challengers: int) -> _Test:
    if challengers < 1:
        raise InputError(f"{challengers} challengers: expected a number from 1 on")
    truth, said = answered(name, rows, settings.positive_class)
    seed = int.from_bytes(blake2b(run.encode(), digest_size=8).digest(), "big")
    return _Test(METRICS[name], truth, said, rows.units, settings.alpha / challengers, seed)


# ---- guards


def _segments(
    test: _Test, columns: Mapping[str, list[str]], settings: Decide
) -> list[dict[str, Any]]:
    """
    Each segment, the worst first.

    `harmless`: the upper bound of harm is below `segment_margin`. `harmful`: even the lower bound
    is not. A segment with fewer than `min_rows` rows that is neither is `few`, and holds up
    nothing.
    """
    found: list[dict[str, Any]] = []
    for column, values in columns.items():
        names, place = np.unique(np.array(values, object).astype(str), return_inverse=True)
        if len(names) > VALUES_MAX:
            raise InputError(
                f"segments: {column} has {len(names):,} values; expected up to {VALUES_MAX}"
            )
        for i, value in enumerate(names.tolist()):
            rows = np.flatnonzero(place == i)
            paired = test.of(0, rows)
            harm = -paired.lower if paired.is_defined else math.inf
            verdict = (
                "harmless"
                if harm < settings.segment_margin
                else "harmful"
                if paired.is_defined and -paired.upper >= settings.segment_margin
                else "few"
                if len(rows) < settings.min_rows
                else "unclear"
            )
            found.append(
                {
                    "segment": column[:TEXT_MAX],
                    "value": value[:TEXT_MAX],
                    "rows": len(rows),
                    "difference": paired.gain,
                    "lower": paired.lower,
                    "upper": paired.upper,
                    "verdict": verdict,
                }
            )
    worst = {"harmful": 0, "unclear": 1, "few": 2, "harmless": 3}
    return sorted(
        found, key=lambda s: (worst[s["verdict"]], math.isnan(s["lower"]), s["lower"], s["value"])
    )


def _guards(
    rows: Matched,
    settings: Decide,
    quality_passed: bool | None,
    model_bytes: tuple[int, int] | None,
) -> dict[str, dict[str, Any]]:
    """Latency, quality and size; a guard about which nothing is known is absent."""
    found: dict[str, dict[str, Any]] = {}
    latencies = [a.latency_ms for a in rows.models[:2]]
    p95 = [
        float(np.quantile(known, 0.95))
        for latency in latencies
        if latency is not None and len(known := latency[np.isfinite(latency)])
    ]
    if len(p95) == 2:
        found["latency_p95_ms"] = _ratio(p95[0], p95[1], settings.latency_ratio)
    if model_bytes is not None:
        found["model_bytes"] = _ratio(*model_bytes, settings.size_ratio)
    if quality_passed is not None:
        found["quality"] = {"passed": quality_passed}
    return found


def _ratio(champion: float, challenger: float, limit: float) -> dict[str, Any]:
    return {
        "champion": champion,
        "challenger": challenger,
        "limit": limit,
        "passed": challenger <= limit * champion,
    }


# ---- the decision


def _decision(
    name: str,
    settings: Decide,
    found: Paired,
    anchor: Paired | None,
    rows: int,
    segments: list[dict[str, Any]],
    guards: Mapping[str, dict[str, Any]],
) -> tuple[str, str]:
    if not guards.get("quality", {"passed": True})["passed"]:
        return "reject", "the rules of quality did not pass on the training data"
    if rows < settings.min_rows:
        return "inconclusive", f"{rows:,} labelled rows, and {settings.min_rows:,} are needed"
    if found.units < UNITS_MIN:
        return "inconclusive", f"{found.units:,} units, and {UNITS_MIN} are needed"
    if not found.is_defined or (anchor is not None and not anchor.is_defined):
        return "inconclusive", (
            f"{name} is not defined on these {rows:,} rows, because a class does not occur in "
            "labels or answers"
        )
    limit = 0.0 if settings.rule == "better" else -settings.margin
    said = (
        f"{name} {shown(found.challenger)} against {shown(found.champion)} ({rows:,} rows, "
        f"{found.units:,} units): difference {found.gain:+.4g}, lower bound {found.lower:+.4g}"
    )
    if found.lower <= limit:
        return "reject", f"{said} is not above {limit:g}"
    harm = _harm(segments, guards, settings)
    if harm is not None:
        return "reject", harm
    if settings.rule == "better":
        return "promote", f"{said} is above {limit:g}"
    if anchor is None:
        return "inconclusive", (
            f"{said} is above {limit:g}, but the rule `not worse` needs the anchor too: margins "
            "against the champion alone add up"
        )
    passed = anchor.lower > limit
    return ("promote" if passed else "reject"), (
        f"{said}, against the anchor {anchor.lower:+.4g}: "
        f"{'both are above' if passed else 'not both are above'} {limit:g}"
    )


def _harm(
    segments: list[dict[str, Any]], guards: Mapping[str, dict[str, Any]], settings: Decide
) -> str | None:
    """The first guard that does not pass, in a sentence."""
    for name, guard in guards.items():
        if not guard["passed"]:
            return (
                f"{name} {guard['challenger']:g} against {guard['champion']:g}: more than "
                f"{guard['limit']:g} times as much"
            )
    worst = next((s for s in segments if s["verdict"] in ("harmful", "unclear")), None)
    if worst is None:
        return None
    bound = (
        f"by {-worst['lower']:.4g}"
        if math.isfinite(worst["lower"])
        else "by any amount, because the metric is not defined there"
    )
    return (
        f"{worst['segment']}={worst['value']} may be worse {bound}, and less than "
        f"{settings.segment_margin:g} is allowed ({worst['rows']:,} rows)"
    )
