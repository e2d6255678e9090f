"""
The law of a changed configuration: whatever key changes, each part of the state goes on, or begins
anew and says so.

Rule of the file: `TABLE` has every key of the core's settings, found by walking the structs, with
values that are given one after the other. What is not said to begin anew is what it would be had
the configuration been there all along; what is said to is what a new worker would make of the later
log alone. No monitor is ever switched off.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
import pytest

from stream_monitor.config import parse
from stream_monitor.detectors.base import METHODS
from stream_monitor.evaluate import Shard
from stream_monitor.frozen import Frozen
from stream_monitor.ingest import Ingest, tick
from stream_monitor.monitors.inputs_state import form_of
from stream_monitor.settings import CoreSettings, ModelSettings
from stream_monitor.shard_form import settings_of
from tests.laws.test_evaluate_laws import near

T0 = 1_760_000_000_000
ROWS, CHUNK = 300, 150
"""Of each half of the log, and of a record."""
BASE: dict[str, Any] = {
    "baseline": {"rows": 100},
    "windows": ["last_500", "1h"],
    "cooldown": "0s",
    "labels": {"max_delay": "1h"},
    "segments": ["s", {"x": [0.0]}],
    "metrics": {
        "custom": {
            "q": {
                "type": "histogram",
                "field": "features.x",
                "buckets": [-1, 0, 1],
                "labels": ["s"],
            }
        }
    },
    "thresholds": {"accuracy": {"min": 0.5, "min_labels": 50}},
    "quality": {"min_rows": 50},
}


class Key(NamedTuple):
    """
    One key: values after one another (None: it is not there), and what begins anew when it changes.
    """

    values: tuple[Any, ...]
    anew: tuple[str, ...] = ()
    learns: bool = False
    """The baseline is learnt; else it is given."""
    beside: Mapping[str, Any] = {}
    """Other keys that it takes to matter."""
    keeps: bool = False
    """What has a place keeps it: the state is that of the configuration before."""


DETECTORS = (
    {"adwin": {"delta": 0.01}},
    {"adwin": {"delta": 0.2}, "kswin": {}},
    "off",
    None,
    {"page_hinkley": {"threshold": 20.0}},
    {"page_hinkley": {"delta": 0.1}},
)
ERRORS: tuple[Any, ...] = (
    *DETECTORS,
    {"ddm": {}, "hddm_a": {}},
    {"ddm": {"drift_threshold": 2.5}, "hddm_w": {}},
)
REFERENCE = ("baseline of the features",)
TABLE: dict[str, Key] = {
    "defaults.task": Key(
        ("auto", "binary", "multiclass", "regression", "auto"),
        ("performance",),
        beside={"thresholds": {}},
    ),
    "defaults.positive_class": Key((None, "1", "0", None)),
    "defaults.average": Key(("weighted", "macro", "weighted"), beside={"task": "multiclass"}),
    "defaults.windows": Key(
        (["last_500", "1h"], ["last_700", "10m", "24h"], ["1h"], ["last_400", "last_500"]),
        ("trend of performance",),
    ),
    "defaults.labels.max_delay": Key(
        ("1h", "1m", "30d", "0s", "1h"), ("delays of labels", "estimate of accuracy")
    ),
    "defaults.baseline.source": Key(
        ("learn", "file", "learn"),
        (*REFERENCE, "level of performance"),
        learns=True,
        beside={"baseline.path": "a.json"},
    ),
    "defaults.baseline.rows": Key(
        (100, 150, 80),
        (*REFERENCE, "baseline of score and prediction", "level of performance"),
        learns=True,
    ),
    "defaults.baseline.path": Key(
        ("a.json", "b.json", "a.json"),
        (*REFERENCE, "level of performance"),
        beside={"baseline.source": "file"},
    ),
    "defaults.features.NAME.type": Key(
        (None, "numeric", "category", "text", "auto"), REFERENCE, learns=True
    ),
    "defaults.features.NAME.min": Key((None, -1, 0, None), ("feature x",)),
    "defaults.features.NAME.max": Key((None, 1, 0.5, None), ("feature x",)),
    "defaults.features.NAME.categories": Key(
        (None, ["a", "b"], ["b", "a"], ["a", "b", "z"], ["z"], None), ("feature c",)
    ),
    "defaults.features.NAME.pattern": Key((None, "[ab]", "[a-z]", None), ("feature c",)),
    "defaults.features.NAME.max_missing": Key((None, 0.5, 0.001, None)),
    "defaults.features.NAME.required": Key((None, True, False)),
    "defaults.features.NAME.unique": Key((None, True, None, True)),
    "defaults.segments": Key((["s", "t"], ["t", "s"], ["t"], None, ["c", "t", "s"])),
    "defaults.segments.NAME.name": Key(([{"name": "s"}], [{"name": "t"}], [{"name": "s"}])),
    "defaults.segments.NAME.cut": Key(
        ([{"x": [0]}, "s"], [{"x": [-1, 1]}, "s"], ["s", "x"]), ("segment x",)
    ),
    "defaults.segment_alerts.level": Key((True, False)),
    "defaults.segment_alerts.max_gap.accuracy": Key((None, 1e-9, 0.5)),
    "defaults.segment_alerts.max_gap.precision": Key((None, 1e-9, 0.5)),
    "defaults.segment_alerts.max_gap.recall": Key((None, 1e-9, 0.5)),
    "defaults.segment_alerts.max_gap.mae": Key((None, 1e-9, 100.0)),
    "defaults.segment_alerts.min_labels": Key((100, 10, 5_000)),
    "defaults.segment_alerts.severity": Key(
        ("warning", "critical", "info"), beside={"segment_alerts.max_gap.accuracy": 1e-9}
    ),
    "defaults.fairness": Key((None, {"s": {"reference": "j"}}, {"s": {}, "x": {}}, None)),
    "defaults.fairness.NAME.reference": Key((None, "j", "k")),
    "defaults.fairness.NAME.limits.statistical_parity_difference": Key((None, 1e-9, 0.5)),
    "defaults.fairness.NAME.limits.disparate_impact_ratio": Key((None, 0.999, 0.1)),
    "defaults.fairness.NAME.limits.equal_opportunity_difference": Key((None, 1e-9, 0.5)),
    "defaults.fairness.NAME.limits.false_positive_rate_difference": Key((None, 1e-9, 0.5)),
    "defaults.fairness.NAME.limits.equalized_odds_difference": Key((None, 1e-9, 0.5)),
    "defaults.fairness.NAME.min_rows": Key((100, 10, 5_000)),
    "defaults.fairness.NAME.severity": Key(
        ("warning", "critical", "info"),
        beside={"fairness.NAME.limits.equalized_odds_difference": 1e-9},
    ),
    "defaults.thresholds": Key(
        (
            {"accuracy": 0.99, "estimated_accuracy": 0.99},
            {"recall": 0.99, "accuracy": "off"},
            None,
            {"f1": 0.1, "mae": 1e-9, "estimated_f1": 0.999},
        )
    ),
    "defaults.thresholds.NAME.min": Key((0.5, 0.99, 0.01)),
    "defaults.thresholds.NAME.max": Key((None, 0.999, 0.6)),
    "defaults.thresholds.NAME.severity": Key(("warning", "critical", "info")),
    "defaults.thresholds.NAME.window": Key((None, "1h", "last_500")),
    "defaults.thresholds.NAME.min_labels": Key((50, 450, 10)),
    "defaults.thresholds.NAME.for": Key(
        ("0s", "5s", "2h", "1s"), beside={"thresholds.accuracy.min": 0.99}
    ),
    "defaults.thresholds.NAME.judge": Key(("bound", "value", "bound")),
    "defaults.thresholds.NAME.clear": Key((None, 0.9, 0.6)),
    "defaults.drift.errors": Key(
        ERRORS, ("detector errors.adwin", "detector errors.page_hinkley", "detector errors.ddm")
    ),
    "defaults.drift.score": Key(DETECTORS, ("detector score.adwin", "detector score.page_hinkley")),
    "defaults.drift.prediction": Key(
        DETECTORS, ("detector prediction.adwin", "detector prediction.page_hinkley")
    ),
    "defaults.drift.features": Key(
        DETECTORS, ("detector features.adwin", "detector features.page_hinkley")
    ),
    "defaults.drift.calibration": Key(({"evidence": {"tolerance": 0.1}}, "off", None)),
    "defaults.drift.latency": Key(({"evidence": {"tolerance": 0.1}}, "off", None)),
    "defaults.drift.thresholds": Key((None, {"psi": 1e-9}, {"js": 1e-9, "psi": 9}, None)),
    "defaults.drift.severity": Key(
        ("warning", "critical", "info"), beside={"drift.thresholds": {"js": 1e-9}}
    ),
    "defaults.anomalies.fence": Key((1.5, 0.5, 3.0), ("numeric features",)),
    "defaults.anomalies.reference": Key(
        ("baseline", "trailing", "baseline"), ("numeric features",)
    ),
    "defaults.anomalies.trailing_rows": Key(
        (100, 50, 200), ("numeric features",), beside={"anomalies.reference": "trailing"}
    ),
    "defaults.anomalies.share": Key((0.05, 0.0, 0.9)),
    "defaults.anomalies.sample": Key((0.01, 1.0, 0.0), beside={"anomalies.topic": True}),
    "defaults.anomalies.topic": Key((False, True, False)),
    "defaults.anomalies.trend_windows": Key(
        (10, 3, 5), beside={"windows": ["last_100", "last_500"]}
    ),
    "defaults.anomalies.trend_slope": Key(
        (-0.1, 0.5, -0.5), beside={"windows": ["last_100", "last_500"]}
    ),
    "defaults.anomalies.pattern_z": Key((6.0, 1.0, 9.0)),
    "defaults.anomalies.pattern_windows": Key((2, 1, 5)),
    "defaults.quality.missing_ratio": Key((0.1, 0.01, "off", 0.9)),
    "defaults.quality.violation_ratio": Key((0.05, 0.001, "off", 0.9)),
    "defaults.quality.repeated_ratio": Key((None, 0.5, 0.001, "off")),
    "defaults.quality.unknown_field_ratio": Key((None, 0.5, 0.0, "off")),
    "defaults.quality.min_rows": Key((50, 10, 5_000)),
    "defaults.calls.latency_factor": Key((3.0, 1.01, "off")),
    "defaults.calls.error_share": Key((0.02, 0.5, "off")),
    "defaults.freshness.predictions": Key(("10m", "1s", "off")),
    "defaults.freshness.labels": Key((None, "1s", "1d")),
    "defaults.metrics.custom": Key(
        (
            BASE["metrics"]["custom"],
            {
                "n": {"type": "counter", "field": "latency_ms"},
                "q": {"type": "gauge", "field": "score"},
            },
            None,
        ),
        ("custom metric q",),
    ),
    "defaults.metrics.custom.NAME.type": Key(
        ("histogram", "counter", "summary", "gauge"), ("custom metric q",)
    ),
    "defaults.metrics.custom.NAME.field": Key(
        ("features.x", "latency_ms", "score", "prediction"), ("custom metric q",)
    ),
    "defaults.metrics.custom.NAME.help": Key((None, "of x")),
    "defaults.metrics.custom.NAME.labels": Key(
        (["s"], ["t"], ["t", "s"], ["s", "t"], []), ("custom metric q",)
    ),
    "defaults.metrics.custom.NAME.buckets": Key(
        ([-1, 0, 1], [-1, 0, 2], [1, 0, -1], [10, 20, 30]), ("custom metric q",)
    ),
    "defaults.metrics.custom.NAME.quantiles": Key(
        ([0.5], [0.1, 0.9]), beside={"metrics.custom.q.type": "summary"}
    ),
    "defaults.alarm_budget": Key(("1/30d", "10/1h", "1/1d")),
    "defaults.cooldown": Key(("0s", "1h", "5m")),
    "defaults.retire_after": Key(("7d", "2h", "30d")),
    "models": Key((None, {"m": {}, "new": {}}, {"r": {"windows": ["last_500", "1h"]}}, None)),
    "limits.models": Key((100, 1), keeps=True),
    "limits.versions": Key((20, 1), keeps=True),
    "limits.fleet_alarm_budget": Key((None, "1/365d", "100/1h", None)),
    "limits.features": Key((200, 2, 4, 200), REFERENCE, learns=True),
    "limits.segments": Key(
        (50, 3, 1),
        ("values of segment s beyond the first 1", "values of segment x beyond the first 1"),
        keeps=True,
    ),
    "limits.categories": Key((50, 1, 2, 50), REFERENCE, learns=True),
    "limits.pending": Key((500_000, 1_000, 5_000)),
    "limits.series": Key((50_000, 100)),
    "privacy.raw_values": Key((False, True)),
}
NAMES = {"features": "x", "segments": "", "fairness": "s", "thresholds": "accuracy", "custom": "q"}

Views = dict[tuple[str, str, str], dict[Any, Any]]


def keys_of(kind: type[Frozen], path: str = "") -> Iterator[str]:
    """Every key that settings of this kind have."""
    for field in (f for f in kind.__struct_fields__ if (kind, f) != (CoreSettings, "models")):
        hint = get_type_hints(kind)[field]
        encoded = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))[
            field
        ].removesuffix("_ms")
        here = f"{path}{encoded}"
        inner = [
            a for a in (hint, *get_args(hint)) if isinstance(a, type) and issubclass(a, Frozen)
        ]
        if not inner:
            yield here
        elif get_origin(hint) is None:
            yield from keys_of(inner[0], f"{here}.")
        else:
            if encoded != "features":
                yield here
            yield from keys_of(inner[0], f"{here}.NAME.")


def test_every_key_is_in_the_table():
    assert {*keys_of(CoreSettings), "models"} == TABLE.keys()


def _spelled_out(value: Any) -> Any:
    """Every setting written down, each value a new object, as a file gives them."""
    if isinstance(value, Frozen):
        return {
            f.encode_name: _spelled_out(getattr(value, f.name))
            for f in msgspec.structs.fields(value)
        }
    if isinstance(value, dict):
        return {key: _spelled_out(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled_out(item) for item in value]
    return json.loads(json.dumps(value))


def test_a_default_that_is_written_down_is_the_same_configuration():
    core = parse("models: {m: {features: {x: {min: 0}}, thresholds: {accuracy: 0.9}}}").core
    written = msgspec.convert(_spelled_out(core), CoreSettings)
    assert written == core
    assert written.hash == core.hash
    parts = {name: data for name, data in Shard(0, written).snapshot().items() if data is not None}
    assert settings_of(parts).hash == core.hash
    assert msgspec.structs.replace(core, models={}).hash != core.hash


# ---- the log


def _events(seed: int, first: int, n: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """
    Predictions and labels of a classification and of a regression, with all that a rule may be
    about: missing, broken, far and repeated values.
    """
    rnd = random.Random(seed)
    for i in range(first, first + n):
        x, truth = rnd.gauss(0, 1), rnd.random() < 0.4
        features: dict[str, Any] = {
            "x": x,
            "y": rnd.gauss(5, 2),
            "c": rnd.choice("aaabq"),
            "u": f"u{rnd.randrange(10**6)}",
        }
        if rnd.random() < 0.05:
            features["y"] = rnd.choice([None, "text", 1e6])
        wrong = rnd.random() < 0.2
        event = {
            "event_id": f"e{i}",
            "latency_ms": 5 + rnd.random(),
            "features": features,
            "segments": {"s": rnd.choice("jkl"), "t": "u"},
        }
        if i % 2:
            score = 0.5 + (0.4 if truth ^ wrong else -0.4) * rnd.random()
            event |= {
                "model": "m",
                "version": str(1 + i % 3 // 2),
                "prediction": int(truth ^ wrong),
                "score": score,
            }
            yield event, {"event_id": f"e{i}", "model": "m", "label": int(truth)}
        else:
            event |= {"model": "r", "version": "1", "prediction": 3 * x}
            yield event, {"event_id": f"e{i}", "model": "r", "label": 3 * x + rnd.gauss(0, 0.5)}


@cache
def log() -> tuple[list[bytes], list[bytes]]:
    """Two halves of the log of one partition; every label of a half is in it."""
    ingest, halves, now = Ingest(1), [], T0
    offsets = {"predictions": 0, "labels": 0}
    for half in range(2):
        records: list[bytes] = []
        pairs = list(_events(half, half * ROWS, ROWS))
        for start in range(0, ROWS, CHUNK):
            now += 2_000
            for kind, place in (("predictions", 0), ("labels", 1)):
                values: list[bytes | None] = [
                    json.dumps(p[place]).encode() for p in pairs[start : start + CHUNK]
                ]
                at = np.arange(offsets[kind], offsets[kind] + len(values))
                offsets[kind] += len(values)
                assert not ingest.take(f"{kind}@x/0", kind, values, at, np.full(len(values), now))
                records += ingest.flush(now)[0]
            records.append(tick(now + 1_000))
        halves.append(records)
    halves[1] += [
        tick(now + 2_000 + second * 1_000) for second in range(15)
    ]  # every monitor has looked since the last row
    return halves[0], halves[1]


def content(key: str, value: Any, beside: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `monitor.yaml` with this value of a key."""
    out: dict[str, Any] = {"defaults": json.loads(json.dumps(BASE))}
    for path, given in (*((f"defaults.{k}", v) for k, v in beside.items()), (key, value)):
        names = path.split(".")
        names = [
            ("c" if key.endswith(("categories", "pattern")) else NAMES[names[i - 1]])
            if n == "NAME"
            else n
            for i, n in enumerate(names)
        ]
        names = names[: names.index("segments") + 1] if "segments" in names else names
        target = out
        for name in names[:-1]:
            target = target.setdefault(name, {})
        if given is None:
            target.pop(names[-1], None)
        else:
            target[names[-1]] = given
    if key == "defaults.baseline.source" and value == "learn":
        del out["defaults"]["baseline"]["path"]
    return out


@cache
def profile(which: str) -> bytes:
    """A baseline that is learnt from a part of the log."""
    shard = Shard(0, parse(json.dumps({"defaults": {"baseline": {"rows": 60}}})).core)
    first, second = log()
    for record in first if which == "a.json" else second:
        shard.fold(record)
    found = form_of(shard.versions[0].features).profile
    assert found is not None
    return found


def baselines(core: CoreSettings, *, learns: bool) -> dict[str, bytes]:
    """What is published, or stands in the file of the configuration."""
    if core.defaults.baseline.source == "file":
        return {"/": profile(str(core.defaults.baseline.path).rpartition("/")[2])}
    return {} if learns else {"m/": profile("a.json"), "r/": profile("a.json")}


class Told(NamedTuple):
    """What a shard says."""

    views: Views
    firing: set[Any]
    parts: dict[str, bytes]


KNOWN: dict[tuple[str, bool, str], Told] = {}
KNOWN_MAX = 64
"""Keys share the base; what one key alone needs is forgotten some keys later."""


def under(core: CoreSettings, which: str, *, learns: bool) -> Told:
    """
    One configuration all along: of both halves of the log, of the `first`, or of the `later` one.
    """
    known = KNOWN.get((core.hash, learns, which))
    if known is None:
        shard = Shard(0, core, baselines(core, learns=learns))
        for half in {"both": log(), "first": log()[:1], "later": log()[1:]}[which]:
            fold(shard, half)
        known = Told(views(shard), firing(shard), parts(shard))
    else:
        del KNOWN[core.hash, learns, which]
    KNOWN[core.hash, learns, which] = known  # the last one that was needed is at the end
    if len(KNOWN) > KNOWN_MAX:
        del KNOWN[next(iter(KNOWN))]
    return known


def parts(shard: Shard) -> dict[str, bytes]:
    return {name: data or b"" for name, data in shard.snapshot().items()}


def moved(state: dict[str, bytes], core: CoreSettings, *, learns: bool) -> Shard:
    """A state under another configuration."""
    return Shard.restore(0, core, state, baselines(core, learns=learns))


def fold(shard: Shard, records: list[bytes]) -> Shard:
    for record in records:
        shard.fold(record)
    return shard


# ---- what is compared

SIGNALS = {"__error__": "errors", "__score__": "score", "__prediction__": "prediction"}
COUNTERS = (
    "predictions_total",
    "prediction_errors_total",
    "labels_total",
    "prediction_latency_seconds",
)
ELSEWHERE = (
    "model_drift_detected",
    "model_segment_drift_detected",
    "model_label_coverage",
    "model_latency",
    "model_alerts",
    "model_incidents",
    "model_info",
    "model_worst_segment",
    "model_segment_positive",
    "model_segment_prediction_mean",
)
"""
Samples that show several parts, or none; `drift_detected` shows an alert, which lasts, and that of
segments whether detectors have begun.
"""


def part_of(name: str, labels: tuple[str, ...]) -> tuple[str, str]:
    """The part of a version's state that a sample shows."""
    metric, subject = name.removeprefix("model_"), labels[2] if len(labels) > 2 else ""
    if metric.startswith("custom_"):
        return "custom metric", metric.removeprefix("custom_").removesuffix("_total")
    segment = subject.partition("=")[0]
    if metric.startswith(("segment_missing", "segment_violations")):
        return "segment fields", f"{segment} {labels[3]}"
    if metric.startswith("segment_drift"):
        return "segment outputs", segment
    if metric.startswith(("segment_predictions", "segment_traffic")):
        return "segment rows", segment
    if metric.startswith(("segment_", "fairness")):
        return "segment", segment
    if metric.startswith("drift_") and labels[3] in METHODS:
        return "detector", f"{SIGNALS.get(subject, 'features')}.{labels[3]}"
    if metric.startswith(("drift_", "feature_", "data_quality_", "anomalies_")):
        return ("outputs", "") if subject in SIGNALS else ("feature", subject)
    return ("counters", "") if metric in COUNTERS else ("performance", "")


def views(shard: Shard) -> Views:
    """What is shown, by version and part of its state."""
    out: Views = {}
    for name, labels, *values in shard.samples():
        if name.startswith("model_") and not name.startswith(ELSEWHERE):
            out.setdefault(("/".join(labels[:2]), *part_of(name, labels)), {})[(name, labels)] = (
                tuple(values)
            )
    return out


def covers(what: str, part: str, name: str) -> bool:
    """Whether a part is of what is said to begin anew."""
    signal = name.partition(".")[0] if part == "detector" else ""
    return (
        what == f"{part} {name}".strip()
        or (part.startswith("segment ") and what == f"segment {name.partition(' ')[0]}")
        or (
            part == "segment fields"
            and what in (f"feature {name.partition(' ')[2]}", "baseline of the features")
        )
        or (part == "segment outputs" and what == "baseline of score and prediction")
        or (what == "performance" and (part == "segment" or signal == "errors"))
        or (what == "baseline of the features" and (part == "feature" or signal == "features"))
        or (
            what == "baseline of score and prediction"
            and (part == "outputs" or signal in ("score", "prediction"))
        )
        or (what == "numeric features" and part == "feature" and name in ("x", "y"))
    )


def said(shard: Shard, version: str = "") -> set[str]:
    return {
        text.partition(": ")[2].rpartition(" (")[0]
        for text in shard.anew
        if text.startswith(version)
    }


def firing(shard: Shard) -> set[Any]:
    return {alert for alert, _ in shard.alerts.firing()}


def is_elsewhere(told: set[str], part: str, name: str, *, added: bool) -> bool:
    """
    Whether a new worker would hold a part against another baseline of score and prediction, which
    goes on here.
    """
    of_outputs = part == "outputs" or (
        part == "detector" and name.startswith(("score", "prediction"))
    )
    return (
        of_outputs
        and "baseline of score and prediction" not in told
        and (added or bool({"numeric features", f"{part} {name}"} & told))
    )


def is_defined(model: ModelSettings, part: str, name: str) -> bool:
    """Whether a configuration has this part at all."""
    if part == "detector":
        signal, _, method = name.partition(".")
        return method in getattr(model.drift, signal)
    named = {
        "segment": {s.name for s in model.segments},
        "custom metric": set(model.metrics.custom),
    }
    if part.startswith("segment "):
        part, name = "segment", name.partition(" ")[0]
    return part not in named or name in named[part]


def check(key: Key, before: CoreSettings, after: CoreSettings) -> set[str]:
    """The law, of one change; what was said to begin anew."""
    first = under(before, "first", learns=key.learns)
    shard = fold(moved(first.parts, after, learns=key.learns), log()[1])
    assert not [v.contained.off for v in shard.versions if v.contained.off]
    all_along, new = (
        under(before if key.keeps else after, "both", learns=key.learns),
        under(after, "later", learns=key.learns),
    )
    got, always, later = views(shard), all_along.views, new.views
    for version, part, name in {*got, *always, *later}:
        at, told, model = (
            (version, part, name),
            said(shard, version),
            before.of(version.partition("/")[0]),
        )
        added = not is_defined(model, part, name)
        if is_elsewhere(told, part, name, added=added) or (
            key.keeps and part.startswith(("segment", "custom metric"))
        ):
            continue
        anew = added or any(covers(what, part, name) for what in told)
        expected = later if anew else always
        assert near(got.get(at, {}), expected.get(at, {})), (
            at,
            "anew" if anew else "goes on",
            told,
        )
    if not key.keeps:
        assert all_along.firing & new.firing <= firing(shard) | first.firing, "a new limit counts"
    return said(shard)


@pytest.mark.parametrize("key", TABLE)
def test_whatever_changes_goes_on_or_begins_anew_and_says_so(key: str) -> None:
    of, told = TABLE[key], set()
    cores = [parse(json.dumps(content(key, value, of.beside))).core for value in of.values]
    for before, after in [*pairwise(cores), *([] if of.keeps else pairwise(reversed(cores)))]:
        if before.hash != after.hash:
            told |= check(of, before, after)
    assert told == set(of.anew)


def test_there_and_back_again() -> None:
    """Through all values of a key, one after the other and back, without a row between."""
    for key, of in TABLE.items():
        cores = [parse(json.dumps(content(key, value, of.beside))).core for value in of.values]
        state = under(cores[0], "first", learns=of.learns).parts
        for core in [*cores[1:], *cores[-2::-1]]:
            shard = moved(state, core, learns=of.learns)
            state = parts(shard)
        assert not [v.contained.off for v in fold(shard, log()[1]).versions if v.contained.off], key


def test_what_changes_for_one_model_alone_begins_anew_there_alone() -> None:
    before, after = (
        parse(
            json.dumps({"defaults": BASE, "models": {"m": {"features": {"x": {"min": low}}}}})
        ).core
        for low in (-1, 0)
    )
    shard = moved(under(before, "first", learns=False).parts, after, learns=False)
    assert shard.anew == ["m/1: feature x (min)", "m/2: feature x (min)"]
