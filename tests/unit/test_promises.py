"""What the catalogue, the schemas and the settings promise is made somewhere."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import numpy as np
import pytest

import stream_monitor
from stream_monitor.alerts.event import Alert, Status, fingerprint
from stream_monitor.alerts.marks import Mark
from stream_monitor.detectors.base import METHODS
from stream_monitor.evaluate import Shard
from stream_monitor.events.parse import Bad
from stream_monitor.ingest import Ingest, tick
from stream_monitor.kafka.deliveries import Broken
from stream_monitor.metrics.catalogue import CATALOGUE
from stream_monitor.metrics.page import LABELS
from stream_monitor.metrics.samples import Sample
from stream_monitor.monitors.containment import MONITORS
from stream_monitor.outcomes import LABEL_OUTCOMES
from stream_monitor.schema import REJECT_REASONS, Reason, topics
from stream_monitor.settings import (
    Baseline,
    CoreSettings,
    Drift,
    Fairness,
    Limits,
    ModelSettings,
    Segment,
)
from stream_monitor.stages.poison import letter_headers
from stream_monitor.stages.refusals import Refusals
from stream_monitor.times import rfc3339
from stream_monitor.verdicts import Direction, Kind, Level, Reject

PACKAGE = Path(stream_monitor.__file__).parent
MODULES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
}
T0 = 1_760_000_000_000
Event = dict[str, Any]
NOT_IN_THE_SCENARIO: dict[str, str] = {}
"""Families that no scenario here makes, each with its reason."""

EXPERIMENT: Event = {
    "type": "experiment_started",
    "model": "binary",
    "experiment": "x-1",
    "arms": ["control", "b"],
    "primary": {"metric": "accuracy", "effect": 0.02},
    "maturity": "1h",
}


SETS_OF_ALERTS: dict[str, list[str | None]] = {
    "status": list(get_args(Status)),
    "severity": [level for level in get_args(Level) if level != "ok"],
    "direction": [*get_args(Direction), None],
}


def constants(*folders: str) -> set[str]:
    """Texts in the code of these modules, docstrings apart."""
    found: set[str] = set()
    for name, tree in MODULES.items():
        if name.startswith(folders):
            docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            found |= {
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in docs
            }
    return found


def emitted_by_a_core() -> set[str]:
    """
    Families of a binary, a multiclass and a regression model with everything on, over eleven days.
    """
    model = ModelSettings(
        baseline=Baseline(rows=500),
        windows=("last_500", "1h", "24h"),
        segments=(Segment(name="country"),),
        fairness={"country": Fairness(reference="NL")},
        drift=Drift(thresholds={"psi": 0.2}),
    )
    regression = msgspec.structs.replace(model, task="regression")
    shard = Shard(0, CoreSettings(defaults=model, models={"amounts": regression}))
    ingest, random = Ingest(1), np.random.default_rng(1)
    started = json.dumps(EXPERIMENT).encode()
    ingest.take("lifecycle@x/0", "lifecycle", [started], np.arange(1), np.array([T0]))
    found: set[str] = set()
    sent = 0
    for day in range(11):
        events, labels = a_day(day, random)
        now = T0 + (day + 1) * 86_400_000
        for kind, what in (("predictions", events), ("labels", labels)):
            values = [json.dumps(each).encode() for each in what]
            times = np.array([each["timestamp"] for each in what], np.int64)
            ingest.take(f"{kind}@x/0", kind, values, np.arange(sent, sent + len(values)), times)
        sent += len(events)
        for record in ingest.flush(now)[0]:
            shard.fold(record)
        shard.fold(tick(now))
        found |= {sample.name for sample in shard.samples()}
        people_say(shard, ingest, day)
    return found


def people_say(shard: Shard, ingest: Ingest, day: int) -> None:
    """The first alert that fires is muted, the last one acknowledged: the next records say so."""
    for kind, (key, _) in zip(("muted", "acknowledged"), shard.alerts.firing(), strict=False):
        at = T0 + (day + 1) * 86_400_000
        mark = Mark(type=kind, model=key.model, at=rfc3339(at), fingerprint=fingerprint(key))  # type: ignore[arg-type]
        offset = np.array([2 * day + 1 + (kind == "muted")])
        ingest.take("lifecycle@x/0", "lifecycle", [mark.encoded()], offset, np.array([at]))


def a_day(day: int, random: np.random.Generator) -> tuple[list[Event], list[Event]]:
    """Predictions of a day by the three models, and their labels; `z` is far off in the end."""
    events: list[Event] = []
    labels: list[Event] = []
    for i in range(1_500):
        score, at = float(random.random()), T0 + day * 86_400_000 + i * 50_000
        head = {
            "event_id": f"{day}/{i}",
            "timestamp": at,
            "latency_ms": 3.5,
            "segments": {"country": "NL" if i % 2 else "DE"},
            "variant": "b" if i % 2 else "control",
            "unit": f"user-{i}",
        }
        features = {
            "x": score * 10 if i % 9 else None,
            "kind": "u" if i % 2 else "v",
            "z": 1e9 if day > 8 and i % 3 == 0 else score,
        }
        answers: dict[str, dict[str, Any]] = {
            "binary": {"score": score},
            "classes": {"score": {"a": score / 2, "b": 1 - score, "c": score / 2}},
            "amounts": {"prediction": 100 * score + 0.25},
        }
        truth = {
            "binary": int(score > 0.4),
            "classes": "abc"[i % 3],
            "amounts": 100 * score + float(random.normal()) + 0.123,
        }
        if i % 50 == 0:
            failed = {"model": "binary", "event_id": f"e{day}/{i}", "status": "error"}
            events.append({**head, **failed})
        for name, answer in answers.items():
            events.append({**head, "model": name, **answer, "features": features})
        for name, value in truth.items():
            label = {"event_id": head["event_id"], "model": name, "label": value}
            labels.append({**label, "timestamp": at + 1_000})
    return events, labels


@pytest.fixture(scope="module")
def of_a_core() -> set[str]:
    return emitted_by_a_core()


def test_every_family_of_models_is_emitted(of_a_core):
    promised = {name for name in CATALOGUE if name.startswith("model_")}
    assert promised - of_a_core == set(NOT_IN_THE_SCENARIO)


def test_every_family_of_the_process_is_made_in_the_code(of_a_core):
    made = of_a_core | constants("runtime/", "stages/", "kafka/", "lifecycle/", "training/")
    assert {name for name in CATALOGUE if name.startswith("stream_monitor_")} <= made


def test_every_kind_of_alert_is_made():
    assert set(get_args(Kind)) <= constants("monitors/", "alerts/", "experiments/", "evaluate.py")
    schema = topics()["alerts"].schema
    assert schema is not None
    assert schema["properties"]["kind"]["enum"] == list(get_args(Kind))


def test_every_status_severity_and_direction_of_an_alert_is_made():
    """Nothing else can be: these are types, and the type checker reads all the code."""
    schema = topics()["alerts"].schema
    assert schema is not None
    promised = {name: schema["properties"][name]["enum"] for name in SETS_OF_ALERTS}
    assert promised == SETS_OF_ALERTS
    for values in SETS_OF_ALERTS.values():
        assert {v for v in values if v} <= constants(
            "monitors/", "alerts/lifecycle.py", "settings.py"
        )
    hints = get_type_hints(Alert)
    assert hints["status"] == Status
    assert (hints["severity"], hints["kind"]) == (Level, Kind)
    assert hints["direction"] == Direction | None


def test_every_reason_is_given():
    """Nothing else can be: who makes a reject or a dead letter is asked for a `Reason`."""
    for made in (Reject, Broken, Bad.__init__, letter_headers, Refusals.count):
        assert get_type_hints(made)["reason"] == Reason
    assert set(REJECT_REASONS) <= constants("events/", "kafka/", "stages/")
    headers = topics()["dead-letters"].headers
    assert headers is not None
    assert set(headers["properties"]["stream-monitor.reason"]["enum"]) == set(REJECT_REASONS)


def test_every_method_that_is_described_is_there():
    compared = {"psi", "js", "ks", "wasserstein", "chi2"}
    assert set(re.findall(r"`(\w+)`", LABELS["method"])) == compared | set(METHODS)
    assert set(re.findall(r"`(\w+)`", LABELS["outcome"].partition("Of labels:")[2])) == set(
        LABEL_OUTCOMES
    )


def test_every_outcome_that_a_label_can_have_is_shown():
    """One that is counted and not shown is a label that is lost in silence."""
    shard, ingest = Shard(0, CoreSettings(limits=Limits(pending=100))), Ingest(1)
    for kind, ids in (
        ("predictions", range(1_000)),
        ("labels", range(1_000)),
        ("labels", range(5_000, 6_000)),
    ):
        answer = {"prediction": 1} if kind == "predictions" else {"label": 1}
        values = [json.dumps({"event_id": str(i), "model": "m", **answer}).encode() for i in ids]
        assert not ingest.take(
            f"{kind}@{ids.start}/0", kind, list(values), np.arange(1_000), np.full(1_000, T0)
        )
        for record in ingest.flush(T0)[0]:
            shard.fold(record)
    shown = {
        s.labels[0]: s.value
        for s in shard.samples()
        if isinstance(s, Sample) and s.name == "stream_monitor_labels_total"
    }
    assert shown["evicted"] > 0
    assert {outcome: n for outcome, n in shown.items() if n} == {
        outcome: n for outcome, n in shard.outcomes.labels.items() if n
    }


def test_every_label_that_is_described_is_of_a_metric():
    assert set(LABELS) == {label for metric in CATALOGUE.values() for label in metric.labels}


def test_every_monitor_that_can_be_off_is_counted_from_0_on():
    nodes = [node for tree in MODULES.values() for node in ast.walk(tree)]
    named = [
        node.args[0]
        for node in nodes
        if isinstance(node, ast.Call)
        and node.args
        and re.search(r"contained\.(run|judge)$", ast.unparse(node.func))
    ] + [
        node.value.elts[0]
        for node in nodes
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple)
    ]
    run = {name.value for name in named if isinstance(name, ast.Constant)}
    assert run >= set(MONITORS), "what is contained; that it has no other name is typed"
