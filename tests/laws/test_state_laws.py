"""
State goes through a snapshot and goes on as if nothing had happened, whatever has it.

Classes with state are found by walking over all objects of a lived-in shard, so that a new one
cannot be forgotten: it is in the snapshot, or somebody has said here what in the snapshot has it.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cache, partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple, get_args, get_type_hints

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.alerts.event import fingerprint
from stream_monitor.alerts.marks import Mark, MarkType
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.monitors.late_errors import LateErrors
from stream_monitor.settings import (
    Anomalies,
    Baseline,
    CoreSettings,
    CustomMetric,
    Drift,
    Feature,
    Freshness,
    Labels,
    Limits,
    Metrics,
    ModelSettings,
    Quality,
    Segment,
    Threshold,
)
from stream_monitor.shard_form import ShardForm, form_of
from stream_monitor.state import Packed, decode, encode
from stream_monitor.times import rfc3339

T0 = 1_760_000_000_000
HOUR_MS = 3_600_000

IN_THE_SNAPSHOT_AS = {
    "Adwin": "SignalForm.detectors; tests/conformance restores every detector",
    "PageHinkley": "SignalForm.detectors; tests/conformance restores every detector",
    "Plain": "SignalForm.detectors; tests/conformance restores every detector",
    "Sums": "SignalForm.detectors, as plain values of PageHinkley",
    "Shard": "ShardForm",
    "Registry": "RegistryForm",
    "Version": "VersionForm",
    "Performance": "PerformanceForm",
    "Estimate": "EstimateState; rows that it holds back are counted first",
    "Checked": "CheckedState",
    "PerformanceWindows": "WindowsState",
    "Inputs": "InputsForm",
    "ValueRules": "ValueRulesForm",
    "InputDrift": "InputDriftForm",
    "Newest": "NewestForm",
    "SegmentDrift": "SegmentDriftForm",
    "Errors": "ErrorsState",
    "Calibration": "OneSignalForm",
    "Slowness": "SlownessForm",
    "Evidence": "EvidenceState",
    "Recent": "EvidenceState.widths, starts_ms, origins, and by signal",
    "PoolTilt": "PoolState, by signal",
    "Openings": "OpenState, by signal",
    "Seasons": "SeasonState, by signal, and EvidenceState.hour",
    "Weeks": "SeasonState.week, by signal",
    "Fences": "nothing: they follow from the baseline",
    "TrailingFences": "Trailing",
    "Segments": "SegmentsForm",
    "Custom": "Metric",
    "Signals": "VersionForm.signals, first_errors and error_scale",
    "Signal": "SignalForm",
    "Trend": "Blocks",
    "Join": "StoreForm, and parts of their own for full segments",
    "Ring": "RingForm, and parts of their own for full segments; in Unique it is UniqueForm",
    "Experiments": "ExperimentsState",
    "Separation": "ShardForm.texts, registry and join",
    "Texts": "ShardForm.texts and LateForm.texts: a cell follows from the place of its text",
    "Classes": "PerformanceForm.classes and score_classes",
    "Counted": "nothing: it is read off WindowsState.total",
    "ClassSums": "WindowsState.layout, from which it follows",
    "RegressionSums": "WindowsState.layout, from which it follows",
    "BinTable": "nothing: it follows from the baseline",
    "Layout": "nothing: it follows from the baseline (of WindowsState: by itself)",
}
"""Classes of objects of a shard that are no part of the form of a snapshot, and what has them."""
ALWAYS_AT_ITS_DEFAULT = {
    "LogTime.confirm_ms": "it is another one only in a replay, which takes no snapshots",
    "LogTime.refused": "tests/laws/test_clock_laws.py has clocks that jump",
    "LogTime.jumped_ms": "tests/laws/test_clock_laws.py has clocks that jump",
    "Containment.software": "it is another one only after an upgrade",
    "Containment.off": "tests/laws/test_restart_laws.py and test_configuration_laws.py",
    "Containment.tried": "tests/laws/test_restart_laws.py and test_configuration_laws.py",
    "ShardForm.changed_ms": "tests/laws/test_configuration_laws.py changes the configuration",
    "ShardForm.anew": "tests/laws/test_configuration_laws.py changes the configuration",
    "ShardForm.schema": "it is a constant",
    "ShardForm.releases": "tests/laws/test_release_laws.py",
    "ShardForm.references": "tests/laws/test_reference_laws.py",
    "Alerts.refused": "tests/laws/test_alert_laws.py has more alerts than there is room",
    "Outcomes.ahead": "tests/laws/test_clock_laws.py has events of the future",
    "RegistryState.retired": "tests/laws/test_retirement_laws.py",
    "Places.merged": "tests/laws/test_estimate_laws.py has more classes than places",
    "CheckedState.turned": "tests/laws/test_estimate_laws.py; the next verdict takes it back",
    "Level.mature": "tests/laws/test_maturity_laws.py has delays that depend on the class",
    "PerformanceForm.built": "tests/laws/test_level_laws.py; a baseline that is built has metrics",
    "Level.built": "tests/laws/test_level_laws.py; a baseline that is built has metrics",
    "Drifted.last_alert": "tests/laws/test_drift_alert_laws.py; here no feature drifts twice",
    "InputsForm.left_out": "tests/laws/test_reference_laws.py has a baseline beyond the limit",
    **dict.fromkeys(
        [
            "Maturity.depends",
            *(f"LateErrors.{name}" for name in LateErrors.__struct_fields__ if name != "newest_ms"),
        ],
        "tests/laws/test_maturity_laws.py has delays that depend on the class",
    ),
    "SlowHours.run": "tests/laws/test_calibration_laws.py has days with slow hours",
}
"""Fields of the form that the logs of this file leave alone, and who does not."""
ROOMS_ELSEWHERE = {
    "stream_monitor.experiments": "tests/laws/test_experiment_laws.py restores shards with them",
    "stream_monitor.monitors.releases": "tests/laws/test_release_laws.py restores shards with them",
    "stream_monitor.monitors.references": "tests/laws/test_reference_laws.py restores shards",
}
"""Rooms whose classes are in the snapshot, and stay empty in the logs of this file."""


class World(NamedTuple):
    """A log as people have it, and the configuration that reads it."""

    seed: int = 0
    task: str = "binary"
    step_ms: int = 2_000
    """Log time from one batch to the next."""
    batches: int = 12
    rows: int = 40
    """Of a batch."""
    models: str = "mmmno"
    """The more often one is in it, the more rows it has; one alone has one version."""


WORLDS = (
    World(),
    World(seed=1, task="regression", batches=30, models="m"),
    World(seed=2, task="multiclass", step_ms=60_000),
    World(seed=3, task="more classes", batches=30, models="m"),
    World(seed=4, batches=30, rows=100, models="m"),
    World(seed=6, step_ms=100, batches=40),
    World(seed=7, task="regression", batches=5, rows=4, models="m"),
    World(seed=5, step_ms=HOUR_MS, batches=24 * 9, rows=45, models="m"),
)


@cache
def core() -> CoreSettings:
    model = ModelSettings(
        baseline=Baseline(rows=60),
        windows=("last_100", "5m"),
        thresholds={"accuracy": Threshold(min=0.6)},
        labels=Labels(max_delay_ms=60_000),
        segments=(Segment(name="country"), Segment(name="age", cut=(30.0, 60.0))),
        features={"id": Feature(unique=True), "age": Feature(min=0, max=100)},
        anomalies=Anomalies(
            reference="trailing", trailing_rows=50, pattern_z=1.0, pattern_windows=1, topic=True
        ),
        freshness=Freshness(predictions_ms=1_000, labels_ms=5_000),
        quality=Quality(min_rows=50),
        drift=Drift(
            errors={"adwin": {}, "page_hinkley": {}, "evidence": {}},
            score={"adwin": {}, "evidence": {}},
            features={"adwin": {}, "evidence": {}},
        ),
        metrics=Metrics(
            custom={
                "amount": CustomMetric("summary", "features.amount", labels=("country",)),
                "sizes": CustomMetric("histogram", "features.amount"),
            }
        ),
    )
    return CoreSettings(
        defaults=model,
        limits=Limits(pending=150, models=2, versions=2, features=8, segments=3, categories=4),
    )


@cache
def log(world: World) -> tuple[tuple[int, bytes], ...]:
    """Records of `observations`, each with the log time at which it was appended."""
    rng, ingest = np.random.default_rng(world.seed), Ingest(1)
    offsets: dict[str, int] = defaultdict(int)
    out: list[tuple[int, bytes]] = []
    waiting: list[dict[str, Any]] = []
    for batch in range(world.batches):
        log_ms = T0 + batch * world.step_ms
        drift = 3.0 if world.batches < 3 * batch < 2 * world.batches else 0.0
        predictions, labels = [], waiting
        waiting = []
        for row in range(world.rows):
            event = prediction(rng, world, f"{batch}-{row}", log_ms, drift)
            predictions.append(event)
            late = rng.random()
            if late < 0.7:
                (labels if late < 0.4 else waiting).append(label(rng, world, event, log_ms))
        labels.append({"event_id": f"nobody-{batch}", "label": 1, "model": "m"})
        predictions += predictions[:1]
        if batch % 6 == 5:
            predictions = []  # a pause
        for kind, events in (("predictions", predictions), ("labels", labels)):
            values: list[bytes | None] = [json.dumps(e).encode() for e in events]
            n, source = len(values), f"{kind}@id/0"
            at = np.arange(offsets[source], offsets[source] + n)
            ingest.take(source, kind, values, at, np.full(n, log_ms))
            offsets[source] += n
        out += [(log_ms, record) for record in ingest.flush(log_ms).get(0, [tick(log_ms)])]
    return tuple(out)


def prediction(
    rng: np.random.Generator, world: World, event_id: str, log_ms: int, drift: float
) -> dict[str, Any]:
    """With what is missing, wrong, new and too much now and then."""
    event: dict[str, Any] = {
        "event_id": event_id,
        "model": str(rng.choice(list(world.models))),
        "version": str(rng.choice(list("1111123"))) if len(world.models) > 1 else "1",
        "timestamp": log_ms + int(rng.integers(-3_000, 1)),
        "latency_ms": float(rng.lognormal(2, 1)),
        "segments": {"country": str(rng.choice(["DE", "FR", "IT", "ES", "PT"]))},
    }
    if rng.random() < 0.05:
        return event | {"status": "error"}
    features: dict[str, Any] = {
        "amount": float(rng.normal(100 + 50 * drift, 10)),
        "age": int(rng.integers(18, 110)),
        "id": f"u{rng.integers(0, 200)}",
        "channel": str(rng.choice(["app", "web", "shop", "phone", "mail", "fax"])),
    }
    if drift:
        features["kind"] = str(rng.choice(["old", "new"]))
        features |= {f"more{i}": 1 for i in range(8)}
    if rng.random() < 0.2:
        features["amount"] = [None, "n/a", 1e400, True][int(rng.integers(0, 4))]
    answers: dict[str, dict[str, Any]] = {
        "binary": {"score": float(rng.random())},
        "multiclass": {"score": dict(zip("abc", rng.dirichlet(np.ones(3)).tolist(), strict=True))},
        "regression": {"prediction": float(rng.normal(50, 10))},
        "more classes": {"prediction": str(rng.choice(list("abc" if drift else "ab")))},
    }
    return event | {"features": features} | answers[world.task]


def label(
    rng: np.random.Generator, world: World, event: dict[str, Any], log_ms: int
) -> dict[str, Any]:
    """Of a prediction, or of a call that failed."""
    likely = event.get("score", 0.5) if world.task == "binary" else 0.5
    turned = "kind" in event.get("features", {})  # while inputs drift the model is wrong
    truth: dict[str, Any] = {
        "binary": int((rng.random() < likely) != turned),
        "multiclass": str(rng.choice(list("abc"))),
        "regression": float(rng.normal(50, 5)),
        "more classes": event.get("prediction", "a"),
    }
    return {
        "event_id": event["event_id"],
        "model": event["model"],
        "label": truth[world.task],
        "timestamp": log_ms,
    }


def folded(records: tuple[tuple[int, bytes], ...], shard: Shard | None = None) -> Shard:
    shard = Shard(0, core()) if shard is None else shard
    for log_ms, record in records:
        shard.fold(record, log_ms)
    return shard


def parts(shard: Shard) -> dict[str, bytes]:
    return {name: data or b"" for name, data in shard.snapshot().items()}


def words(shard: Shard, place: int) -> bytes:
    """A record in which people say something about every alert that fires."""
    types: tuple[MarkType, ...] = ("muted", "acknowledged", "false_alarm")
    marks = [
        Mark(
            type=types[i % 3],
            model=key.model,
            at=rfc3339(shard.log_time_ms),
            fingerprint=fingerprint(key),
            until=rfc3339(shard.log_time_ms + 10**9) if i % 3 == 0 else None,
        )
        for i, (key, _) in enumerate(shard.alerts.firing())
    ]
    values = [mark.encoded() for mark in marks]
    n, ingest = len(values), Ingest(1)
    at = np.arange(place * 1_000, place * 1_000 + n)
    times = np.full(n, shard.log_time_ms)
    ingest.take("lifecycle@id/0", "lifecycle", values, at, times)
    return ingest.flush(shard.log_time_ms).get(0, [tick(shard.log_time_ms)])[0]


@cache
def lives() -> tuple[tuple[Shard, ...], tuple[dict[str, bytes], ...]]:
    """Shards at the end of what happens to them, and snapshots of them on the way."""
    shards, snapshots = [], []
    for world in WORLDS:
        records, shard = log(world), Shard(0, core())
        shards.append(shard)
        for k in range(5):
            folded(records[len(records) * k // 5 : len(records) * (k + 1) // 5], shard)
            shard.fold(words(shard, k), shard.log_time_ms)
            snapshots.append(parts(shard))
    return tuple(shards), tuple(snapshots)


# ---- what has state


def named(cls: type) -> bool:
    return cls.__module__.startswith("stream_monitor.")


def is_value(cls: type) -> bool:
    """What never changes is no state of its own."""
    if issubclass(cls, tuple):
        return True
    return issubclass(cls, msgspec.Struct) and cls.__struct_config__.frozen


def lives_here(cls: type) -> bool:
    """Whether the logs of this file fill it; a tuple is part of what has it."""
    return not issubclass(cls, tuple) and not cls.__module__.startswith(tuple(ROOMS_ELSEWHERE))


def types_in(annotation: Any) -> Iterator[type]:
    """The classes of ours that an annotation, and those in it, name."""
    if isinstance(annotation, type) and named(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from types_in(inner)


@cache
def form_types() -> frozenset[type]:
    """All classes that the form of a snapshot has."""
    found: set[type] = set()
    new: list[type] = [ShardForm]
    while new:
        cls = new.pop()
        if cls in found:
            continue
        found.add(cls)
        if issubclass(cls, Packed):
            new.append(cls.Form)
        if issubclass(cls, msgspec.Struct) or issubclass(cls, tuple):
            for annotation in get_type_hints(cls).values():
                new += types_in(annotation)
    return frozenset(found)


def objects_in(root: object, *, calls: bool = False) -> Iterator[object]:
    """An object and all of ours that it holds; by its functions too, if `calls`."""
    seen: dict[int, object] = {}
    new = [root]
    while new:
        one = new.pop()
        if id(one) in seen or isinstance(one, (np.ndarray, str, bytes, int, float, type(None))):
            continue
        seen[id(one)] = one
        if named(type(one)):
            yield one
        if isinstance(one, dict):
            new += [*one.keys(), *one.values()]
        if isinstance(one, (list, tuple, set, frozenset)):
            new += list(one)
        if isinstance(one, msgspec.Struct):
            new += [getattr(one, name) for name in one.__struct_fields__]
        if calls and isinstance(one, FunctionType):
            new += [cell.cell_contents for cell in one.__closure__ or ()]
        if calls and isinstance(one, MethodType):
            new.append(one.__self__)
        if calls and isinstance(one, partial):
            new += [one.func, *one.args, *one.keywords.values()]
        new += list(getattr(one, "__dict__", {}).values())


def test_every_object_of_a_shard_is_in_its_snapshot():
    """Or is told of in `IN_THE_SNAPSHOT_AS`: then a law has to hold for what has it."""
    classes = {type(one) for shard in lives()[0] for one in objects_in(shard)}
    with_state = {cls for cls in classes if not is_value(cls)}
    packed = {cls for cls in form_types() if issubclass(cls, Packed) and lives_here(cls)}
    assert with_state >= packed
    outside = {cls.__name__ for cls in with_state - form_types()}
    assert outside <= set(IN_THE_SNAPSHOT_AS), "is it in the snapshot?"
    assert set(IN_THE_SNAPSHOT_AS) <= {cls.__name__ for cls in with_state} | {"Plain", "Fences"}


def test_a_copy_of_a_shard_shares_nothing_that_changes():
    """Trials of drifts (`offline/trials.py`) go on with copies; closures are not copied."""
    for shard in lives()[0]:
        here, there = (
            {id(one): one for one in objects_in(each, calls=True) if not is_value(type(one))}
            for each in (shard, copy.deepcopy(shard))
        )
        assert not {type(here[key]).__name__ for key in here.keys() & there.keys()}


# ---- the round trip


@cache
def stored() -> tuple[object, ...]:
    """Everything of ours in the snapshots of those lives, read back."""
    forms = [form_of(snapshot) for snapshot in lives()[1]]
    return tuple(one for form in forms for one in objects_in(form))


def test_every_part_of_the_state_makes_the_round_trip():
    """Part by part, so that what is wrong with one is not hidden by another."""
    between = {cls.Form for cls in form_types() if issubclass(cls, Packed)}
    wanted = {cls for cls in form_types() - between if lives_here(cls)}
    seen = set()
    for one in stored():
        if type(one) in wanted:
            data = encode(one)
            assert encode(decode(data, type(one))) == data, type(one)
            seen.add(type(one))
    assert seen == wanted


def test_every_field_of_the_state_has_something_in_it():
    """Otherwise the round trip and the law below would say nothing of it."""
    filled: set[str] = set()
    for one in stored():
        fields = one.packed() if isinstance(one, Packed) else one
        if isinstance(fields, msgspec.Struct) and not is_value(type(fields)):
            for field in msgspec.structs.fields(type(fields)):
                value = getattr(fields, field.name)
                default = None if field.required else default_of(field)
                empty = isinstance(value, np.ndarray) and not value.size
                if not empty and encode(value) not in {encode(e) for e in (default, 0, "", [], {})}:
                    filled.add(f"{type(fields).__name__}.{field.name}")
    every = {
        f"{cls.__name__}.{name}"
        for cls in form_types()
        if issubclass(cls, msgspec.Struct) and lives_here(cls) and not is_value(cls)
        for name in cls.__struct_fields__
    }
    assert every - filled == set(ALWAYS_AT_ITS_DEFAULT)


def default_of(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def shown(shard: Shard) -> list[str]:
    """All gauges but the one of memory, which has room for what may come."""
    return [repr(s) for s in shard.samples() if s.name != "stream_monitor_state_bytes"]


@settings(max_examples=12, deadline=None)
@given(
    world=st.builds(
        World,
        seed=st.integers(0, 1_000),
        task=st.sampled_from(["binary", "multiclass", "regression", "more classes"]),
        step_ms=st.sampled_from([100, 2_000, 60_000, HOUR_MS]),
        batches=st.integers(4, 20),
        rows=st.integers(1, 60),
        models=st.sampled_from(["m", "mmmno"]),
    ),
    at=st.floats(0, 1),
)
def test_a_restored_shard_goes_on_like_one_that_never_stopped(world, at):
    records = log(world)
    cut = round(at * len(records))
    whole, first = folded(records), parts(folded(records[:cut]))
    restored = Shard.restore(0, core(), first)
    assert parts(restored) == first
    folded(records[cut:], restored)
    assert restored.outbox == whole.outbox
    assert parts(restored) == parts(whole)
    assert shown(restored) == shown(whole)


@pytest.mark.parametrize("name", ShardForm.__struct_fields__)
def test_a_part_that_is_missing_or_of_another_type_is_refused(name):
    state = lives()[1][0]
    plain = msgspec.msgpack.decode(state["state"])
    for broken in ({**plain, name: -0.5}, {k: v for k, v in plain.items() if k != name}):
        if name in broken or name not in ("schema", "releases", "references"):
            with pytest.raises(msgspec.ValidationError, match=name):
                form_of(state | {"state": msgspec.msgpack.encode(broken)})
