"""
Names of models, versions, features and segments that somebody chose to do harm, on their way to
`/metrics` and to alerts.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_monitor.evaluate import Shard
from stream_monitor.events.cells import feature_named
from stream_monitor.ingest import Ingest
from stream_monitor.metrics.catalogue import CATALOGUE
from stream_monitor.monitors.baseline import baseline_key
from stream_monitor.runtime.exporter import Exporter
from stream_monitor.schema import Reason
from stream_monitor.settings import Baseline, CoreSettings, ModelSettings, Segment

T0 = 1_760_000_000_000
NAMES = {
    "newline": 'm\nmodel_accuracy{model="other"} 0',
    "carriage": "m\r\nx",
    "ansi": "m\x1b[2J\x1b]0;owned\x07",
    "quotes": 'm",evil="1"} 1 #\\',
    "backslash": "m\\",
    "rtl": "m\u202etxt\u2066",
    "separators": "m\u2028x\u0085y\x0c",
    "nul": "m\x00x",
    "long": "m" + "x" * 10_000,
    "reserved": "__other__",
}


def exposed(name: str) -> tuple[str, Shard, list[Reason]]:
    """
    `/metrics` after some events that bear the name wherever they can, the state, and the reasons of
    the dead letters.
    """
    core = CoreSettings(
        defaults=ModelSettings(baseline=Baseline(rows=20), segments=(Segment(name="s"),))
    )
    shard, ingest = Shard(0, core), Ingest(1)
    events = [
        {
            "event_id": f"e{i}",
            "model": name if i % 2 else "m",
            "version": name if i % 2 else "1",
            "timestamp": T0 + i,
            "prediction": i % 2,
            "score": 0.5,
            "features": {name: i, f"{name}2": name},
            "segments": {"s": name[:256]},
        }
        for i in range(100)
    ]
    labels = [{"event_id": f"e{i}", "label": 1, "timestamp": T0 + 200} for i in range(100)]
    reasons = []
    for kind, rows in (("predictions", events), ("labels", labels)):
        values = [json.dumps(row).encode() for row in rows]
        reasons += [
            reject.reason
            for reject in ingest.take(
                f"{kind}@id/0", kind, values, np.arange(100), np.full(100, T0)
            )
        ]
        for record in ingest.flush(T0).get(0, []):
            shard.fold(record)
    shard.close()
    return Exporter(lambda: [shard.samples()], series_limit=5_000).render().decode(), shard, reasons


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_metrics_are_what_they_would_be_with_harmless_names(name):
    text, shard, reasons = exposed(name)
    assert set(reasons) <= {"wrong_type", "out_of_range", "too_large"}
    families = list(text_string_to_metric_families(text))
    samples = [sample for family in families for sample in family.samples]
    assert len(samples) == sum(not line.startswith("#") for line in text.split("\n") if line)
    assert {label for sample in samples for label in sample.labels} <= {"le"} | {
        label for metric in CATALOGUE.values() for label in metric.labels
    } | {"quantile"}
    assert all(len(value) <= 600 for sample in samples for value in sample.labels.values())
    models = {sample.labels.get("model") for sample in samples}
    assert "other" not in models
    assert models <= {"m", name, None}
    if not reasons:
        assert name in models
        features = {
            sample.labels.get("feature")
            for sample in samples
            if sample.name == "model_feature_mean"
        }
        assert feature_named(name) in features
    for out in shard.outbox:
        json.loads(out.value)
        assert b"\n" not in out.value
        assert b"\x1b" not in out.value


def test_features_that_are_called_like_ours_stay_apart():
    names = [
        "__error__",
        "__score__",
        "features.__score__",
        "features.features.__score__",
        "__other__",
        "age",
        "features.age",
        "",
        "_x",
        "a/b",
    ]
    known = [feature_named(name) for name in names]
    assert len(set(known)) == len(names)
    assert not any(name.startswith("__") for name in known)


def test_models_and_versions_with_slashes_have_baselines_of_their_own():
    parts = ["a", "a/b", "b", "b/c", "c", "", "a%2Fb", "%", "%25", "/", "a\0b"]
    keys = [baseline_key(model, version) for model in parts for version in parts]
    assert len(set(keys)) == len(keys)
