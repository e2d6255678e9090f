"""
What EVALUATE makes of events: slices, custom metrics, anomalies, labels that bring their
prediction, failed calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from scipy.stats import linregress
from sklearn import metrics as oracle

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.schema import topics
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
    Privacy,
    Quality,
    Segment,
    Threshold,
)

T0 = 1_760_000_000_000
HOUR_MS = 3_600_000
QUIET = Drift(errors={}, score={}, features={})


class Stream:
    """Folds events as a worker would."""

    def __init__(self, core: CoreSettings) -> None:
        self.ingest, self.shard = Ingest(1), Shard(0, core)
        self.offsets = {"predictions": 0, "labels": 0}
        self.log_ms = T0

    def send(self, kind: str, events: Iterable[dict[str, Any]], log_ms: int | None = None) -> None:
        values: list[bytes | None] = [json.dumps(e).encode() for e in events]
        n, start = len(values), self.offsets[kind]
        self.log_ms = self.log_ms if log_ms is None else log_ms
        assert not self.ingest.take(
            f"{kind}@id/0", kind, values, np.arange(start, start + n), np.full(n, self.log_ms)
        )
        self.offsets[kind] += n
        for record in self.ingest.flush(self.log_ms).get(0, []):
            self.shard.fold(record)

    def close(self) -> Shard:
        self.shard.close()
        return self.shard

    def samples(self) -> dict[tuple[Any, ...], Any]:
        return {(s[0], *s[1]): s[2:] if len(s) > 3 else s[2] for s in self.shard.samples()}

    def told(self, topic: str = "alerts") -> list[dict[str, Any]]:
        return [json.loads(o.value) for o in self.shard.outbox if o.topic == topic]


def prediction(i: int, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{i}",
        "model": "m",
        "version": "1",
        "timestamp": T0 + i,
        "prediction": 1,
        **more,
    }


def label(i: int, value: Any, **more: Any) -> dict[str, Any]:
    return {"event_id": f"e{i}", "label": value, "timestamp": T0 + i, **more}


def settings(**more: Any) -> CoreSettings:
    return CoreSettings(defaults=ModelSettings(windows=("last_1000", "1h"), drift=QUIET, **more))


# ---- slices


def test_a_slice_is_read_by_a_class_that_came_after_its_last_row() -> None:
    stream = Stream(
        settings(task="binary", positive_class="late", segments=(Segment(name="country"),))
    )
    for country, first, classes in (("DE", 0, ["a", "b"]), ("FR", 100, ["a", "late"])):
        rows = range(first, first + 100)
        stream.send(
            "predictions",
            (prediction(i, prediction=classes[i % 2], segments={"country": country}) for i in rows),
        )
        stream.send("labels", (label(i, classes[i % 2]) for i in rows))
    stream.close()
    found = stream.samples()
    for country in ("DE", "FR"):
        assert found["model_segment_accuracy", "m", "1", f"country={country}", "1h"] == 1.0


def test_slices_have_the_metrics_of_their_rows() -> None:
    rng = np.random.default_rng(3)
    n = 2_000
    country, age = rng.choice(["DE", "FR", "IT"], n), rng.normal(40, 20, n).round(1)
    score = rng.random(n).round(6)
    truth = (rng.random(n) < np.where(country == "IT", 0.5, score)).astype(int)
    stream = Stream(
        settings(segments=(Segment(name="country"), Segment(name="age", cut=(18.0, 65.0))))
    )
    stream.send(
        "predictions",
        (
            prediction(
                i,
                prediction=int(score[i] > 0.5),
                score=score[i],
                segments={"country": country[i]},
                features={"age": age[i]},
            )
            for i in range(n)
        ),
    )
    stream.send("labels", (label(i, int(truth[i])) for i in range(n)))
    stream.close()
    found = stream.samples()
    for name, mask in {
        "country=IT": country == "IT",
        "age=<18": age < 18,
        "age=[18,65)": (age >= 18) & (age < 65),
        "age=>=65": age >= 65,
    }.items():
        for window in ("last_1000", "1h"):
            at = np.flatnonzero(mask)[-1_000:] if window == "last_1000" else np.flatnonzero(mask)
            got = {
                m: found[f"model_segment_{m}", "m", "1", name, window]
                for m in (
                    "accuracy",
                    "precision",
                    "recall",
                    "f1",
                    "log_loss",
                    "brier_score",
                    "window_labels",
                )
            }
            y, p, s = truth[at], (score[at] > 0.5).astype(int), score[at]
            want = [
                oracle.accuracy_score(y, p),
                oracle.precision_score(y, p),
                oracle.recall_score(y, p),
                oracle.f1_score(y, p),
                oracle.log_loss(y, s),
            ]
            assert list(got.values()) == pytest.approx(
                [*want, oracle.brier_score_loss(y, s), len(at)], abs=1e-9
            )
        assert found["model_segment_roc_auc", "m", "1", name, "last_1000"] == pytest.approx(
            oracle.roc_auc_score(truth[mask][-1_000:], score[mask][-1_000:]), abs=1e-9
        )


def test_a_threshold_is_judged_in_each_slice() -> None:
    stream = Stream(
        settings(segments=(Segment(name="c"),), thresholds={"accuracy": Threshold(min=0.8)})
    )
    n = 3_000
    stream.send(
        "predictions",
        (prediction(i, segments={"c": "bad" if i % 10 == 0 else "good"}) for i in range(n)),
    )
    stream.send("labels", (label(i, int(i % 10 != 0 or i % 20 == 0)) for i in range(n)))
    stream.close()
    alerts = stream.told()
    assert [(a["segment"], a["status"], a["subject"]) for a in alerts] == [
        ({"c": "bad"}, "firing", "accuracy")
    ]
    assert alerts[0]["value"] == pytest.approx(0.5)
    assert "c=bad" in alerts[0]["summary"]


def test_slices_beyond_the_limit_are_one_and_counted() -> None:
    core = CoreSettings(
        defaults=ModelSettings(segments=(Segment(name="c"),), drift=QUIET),
        limits=Limits(segments=3),
    )
    stream = Stream(core)
    stream.send("predictions", (prediction(i, segments={"c": f"c{i % 100}"}) for i in range(1_000)))
    stream.send("labels", (label(i, 1) for i in range(1_000)))
    stream.close()
    names = {key[3] for key in stream.samples() if key[0] == "model_segment_window_labels"}
    assert names == {"c=c0", "c=c1", "c=c2", "c=__other__"}
    assert stream.samples()["stream_monitor_limit_hits_total", "segments"] > 0
    assert [a["subject"] for a in stream.told()] == ["limits.segments"]


# ---- labels that bring their prediction, and failed calls


def test_a_label_with_its_own_prediction_needs_no_stored_one_and_counts_once() -> None:
    stream = Stream(settings(task="binary"))
    stream.send(
        "labels",
        [
            label(1, 1, model="m", version="1", prediction=1, score=0.9),
            label(2, 0, model="m", version="1", score=0.8),
            label(3, 1, model="m", prediction=1),
        ],
    )
    stream.send("labels", [label(1, 1, model="m", version="1", prediction=1, score=0.9)])
    stream.close()
    found = stream.samples()
    assert found["model_labels_total", "m", "1"] == 2
    assert found["model_labels_total", "m", ""] == 1
    assert found["model_predictions_total", "m", "1"] == 0
    assert found["model_accuracy", "m", "1", "last_1000"] == 0.5
    assert found["stream_monitor_labels_total", "duplicate"] == 1


def test_a_prediction_that_comes_after_such_a_label_is_counted_but_judged_once() -> None:
    before, after = Stream(settings(task="binary")), Stream(settings(task="binary"))
    p, q = prediction(1, score=0.9), label(1, 1, model="m", version="1", prediction=1, score=0.9)
    before.send("predictions", [p])
    before.send("labels", [q])
    after.send("labels", [q])
    after.send("predictions", [p])
    after.send("predictions", [p])
    one, other = before.close().summary()["models"], after.close().summary()["models"]
    assert one == other
    assert one["m"]["versions"]["1"] | {"windows": 0, "features": 0, "task": 0, "estimate": 0} == {
        "predictions": 1,
        "labels": 1,
        "pending": 0,
        "expired": 0,
        "evicted": 0,
        "windows": 0,
        "features": 0,
        "estimate": 0,
        "task": 0,
        "positive_class": "1",
        "positive_class_source": "name",
        "task_source": "configured",
    }
    assert after.shard.outcomes.counts["predictions", "duplicate"] == 1


def test_a_label_without_a_stored_prediction_and_without_a_model_brings_nothing() -> None:
    stream = Stream(settings())
    stream.send("labels", [label(1, 1, prediction=1)])
    assert stream.close().versions == []


def test_failed_calls_count_once_each_and_never_get_a_label() -> None:
    stream = Stream(settings())
    failed = [prediction(i, status="error") for i in range(3)]
    stream.send("predictions", [*failed, *failed[:1], prediction(0), prediction(0)])
    stream.send("labels", [label(0, 1), label(1, 1)])
    stream.close()
    found = stream.samples()
    assert found["model_predictions_total", "m", "1"] == 4
    assert found["model_prediction_errors_total", "m", "1"] == 3
    assert found["model_labels_total", "m", "1"] == 1
    assert stream.shard.outcomes.counts["predictions", "duplicate"] == 2
    assert stream.shard.summary()["models"]["m"]["versions"]["1"]["pending"] == 0


def test_most_labels_of_an_hour_being_orphans_is_one_alert() -> None:
    stream = Stream(settings(labels=Labels(max_delay_ms=60_000)))
    for minute in range(130):
        stream.send(
            "labels",
            (label(minute * 10 + i, 1, model="m") for i in range(10)),
            T0 + minute * 60_000,
        )
    stream.close()
    alerts = [a for a in stream.told() if a["subject"] == "labels"]
    assert [(a["status"], a["model"], a["kind"]) for a in alerts] == [
        ("firing", "m", "data_quality")
    ]


# ---- custom metrics


def test_custom_metrics_of_fields_by_segment() -> None:
    custom = {
        "amount": CustomMetric(type="counter", field="features.amount", labels=("country",)),
        "size": CustomMetric(type="histogram", field="features.amount", buckets=(10.0, 100.0)),
        "spread": CustomMetric(type="summary", field="features.amount", quantiles=(0.5,)),
        "latest": CustomMetric(type="gauge", field="score"),
        "texts": CustomMetric(type="counter", field="features.note"),
    }
    stream = Stream(settings(metrics=Metrics(custom=custom)))
    rows = [(5.0, "DE", "a"), (50.0, "DE", None), (500.0, "FR", "b"), (-1.0, "FR", "c")]
    stream.send(
        "predictions",
        (
            prediction(i, score=0.1 * i, features={"amount": a, "note": t}, segments={"country": c})
            for i, (a, c, t) in enumerate(rows)
        ),
    )
    stream.close()
    found = stream.samples()
    assert found["model_custom_amount_total", "m", "1", "DE"] == 55
    assert found["model_custom_amount_total", "m", "1", "FR"] == 500
    assert found["model_custom_size", "m", "1"] == ((2.0, 1.0, 1.0), 554.0, ())
    assert found["model_custom_spread", "m", "1"] == (((0.5, 27.5),), 4, 554.0)
    assert found["model_custom_latest", "m", "1"] == pytest.approx(0.3)
    assert found["model_custom_texts_total", "m", "1"] == 3


# ---- data quality


def test_repeated_values_of_a_unique_feature_are_counted() -> None:
    stream = Stream(
        settings(
            baseline=Baseline(rows=10),
            features={"id": Feature(unique=True), "x": Feature(required=True)},
            quality=Quality(min_rows=20),
        )
    )
    values = ["a", "b", "a", "c", None, None, *(f"v{i}" for i in range(50)), "v7", "b"]
    for i, v in enumerate(values):
        stream.send(
            "predictions",
            [prediction(i, features={"id": v, **({"x": 1.0} if i % 3 else {})})],
            T0 + i * 20,
        )
    stream.close()
    found = stream.samples()
    assert found["model_data_quality_violations_total", "m", "1", "id", "unique"] == 3
    assert found["model_data_quality_violations_total", "m", "1", "x", "missing"] == sum(
        i % 3 == 0 for i in range(len(values))
    )
    assert [(a["subject"], a["detector"], a["status"]) for a in stream.told()] == [
        ("x", "missing", "firing")
    ], "though the baseline lacks a third of `x` too"


# ---- anomalies


def test_single_values_outside_the_fences_go_to_their_topic_without_raw_values() -> None:
    import jsonschema

    core = settings(baseline=Baseline(rows=200), anomalies=Anomalies(topic=True, sample=1.0))
    rng = np.random.default_rng(1)
    values = np.append(rng.normal(size=500), [9.0, -8.0])
    for privacy in (Privacy(), Privacy(raw_values=True)):
        stream = Stream(CoreSettings(defaults=core.defaults, privacy=privacy))
        stream.send(
            "predictions", (prediction(i, features={"x": v}) for i, v in enumerate(values.tolist()))
        )
        stream.close()
        first = values[:200]
        q1, q3 = np.quantile(first, (0.25, 0.75))
        out = np.flatnonzero((values < q1 - 1.5 * (q3 - q1)) | (values > q3 + 1.5 * (q3 - q1)))
        records = stream.told("anomalies")
        assert [r["source"] for r in records] == [
            {"topic": "predictions", "partition": 0, "offset": i} for i in out.tolist()
        ]
        assert records[-2]["distance_iqr"] == pytest.approx((9.0 - q3) / (q3 - q1))
        assert [r["direction"] for r in records[-2:]] == ["up", "down"]
        for r in records:
            jsonschema.validate(r, topics()["anomalies"].schema)
            assert ("value" in r) == privacy.raw_values
        assert stream.samples()["model_anomalies_total", "m", "1", "x", "point"] == len(out)


def test_a_sample_of_single_values_is_about_its_share() -> None:
    stream = Stream(
        settings(baseline=Baseline(rows=100), anomalies=Anomalies(topic=True, sample=0.1))
    )
    stream.send(
        "predictions",
        (prediction(i, features={"x": float(i % 7) if i < 100 else 1e6}) for i in range(5_000)),
    )
    stream.close()
    assert 0.07 * 4_900 < len(stream.told("anomalies")) < 0.13 * 4_900


@pytest.mark.parametrize("cut", [50, 7, 1_000])
def test_trailing_fences_follow_the_values(cut: int) -> None:
    stream = Stream(
        settings(
            baseline=Baseline(rows=200),
            anomalies=Anomalies(reference="trailing", trailing_rows=100),
        )
    )
    x = np.random.default_rng(5).normal(size=1_000) + np.repeat([0.0, 50.0], 500)
    for start in range(0, 1_000, cut):
        stream.send(
            "predictions",
            (prediction(i, features={"x": x[i]}) for i in range(start, min(start + cut, 1_000))),
            T0 + start,
        )
    stream.close()
    q1, q3 = np.quantile(x[:200], (0.25, 0.75))
    points = 0
    for i in range(1_000):
        if i >= 100 and i % 10 == 0:
            q1, q3 = np.quantile(x[i - 100 : i], (0.25, 0.75))
        points += x[i] < q1 - 1.5 * (q3 - q1) or x[i] > q3 + 1.5 * (q3 - q1)
    assert stream.samples()["model_anomalies_total", "m", "1", "x", "point"] == points
    assert 20 < points < 200


def falls(blocks: np.ndarray[Any, Any]) -> bool:
    """Whether the line through them falls by 0.1 and by three standard errors."""
    line = linregress(np.arange(len(blocks)), blocks)
    return bool(line.slope * (len(blocks) - 1) < -0.1 and line.slope < -3 * line.stderr)


def test_a_falling_trend_of_accuracy_is_an_anomaly() -> None:
    rng = np.random.default_rng(9)
    stream = Stream(
        CoreSettings(
            defaults=ModelSettings(
                windows=("last_200",), drift=QUIET, thresholds={"recall": Threshold(min=0.0)}
            )
        )
    )
    n = 6_000
    right = rng.random(n) < np.where(
        np.arange(n) < 3_000, 0.95, 0.95 - (np.arange(n) - 3_000) / 6_000
    )
    for start in range(0, n, 500):
        stream.send(
            "predictions",
            (prediction(i, prediction=i % 2) for i in range(start, start + 500)),
            T0 + start,
        )
        stream.send(
            "labels",
            (label(i, i % 2 if right[i] else 1 - i % 2) for i in range(start, start + 500)),
            T0 + start,
        )
    stream.close()
    told = stream.told()
    assert {
        (a["detector"], a["kind"], a["subject"], a["status"], a["direction"]) for a in told
    } == {
        ("trend", "anomaly", metric, "firing", "down")
        for metric in ("accuracy", "precision", "recall", "f1")
    }
    alerts = [a for a in told if a["subject"] == "accuracy"]
    blocks = right.reshape(-1, 200).mean(axis=1)
    at = next(k for k in range(10, 31) if falls(blocks[k - 10 : k]))
    assert at > 15
    assert alerts[0]["value"] == pytest.approx(blocks[at - 1])
    assert alerts[0]["threshold"] == pytest.approx(blocks[at - 10 : at - 7].mean() - 0.05)
    assert stream.samples()["model_anomalies_total", "m", "1", "__error__", "trend"] == 4


def test_an_hour_unlike_the_same_hour_of_earlier_days_is_a_pattern_anomaly() -> None:
    rng = np.random.default_rng(2)
    stream = Stream(
        settings(
            freshness=Freshness(predictions_ms=None),
            baseline=Baseline(rows=500),
            quality=Quality(missing_ratio=None),
            anomalies=Anomalies(share=1.0),
        )
    )
    start = T0 // HOUR_MS * HOUR_MS
    i = 0
    for hour in range(24 * 10 + 12):
        daily = np.sin(hour % 24 / 24 * 2 * np.pi)
        shift = 1.5 if hour >= 24 * 10 + 6 else 0.0
        rows = []
        for k in range(60):
            rows.append(
                {
                    "event_id": f"e{i}",
                    "model": "m",
                    "timestamp": start + hour * HOUR_MS + k * 59_000,
                    "prediction": 1,
                    "features": {"x": rng.normal(daily + shift, 0.2)},
                }
            )
            i += 1
        stream.send("predictions", rows, start + (hour + 1) * HOUR_MS)
    stream.close()
    alerts = [a for a in stream.told() if a["kind"] == "anomaly"]
    assert [
        (a["kind"], a["subject"], a["detector"], a["status"])
        for a in alerts
        if a["status"] != "updated"
    ] == [("anomaly", "x", "profile", "firing")]
    assert (
        alerts[0]["window"]["start"]
        >= f"{np.datetime64(start + (24 * 10 + 7) * HOUR_MS, 'ms')}"[:13]
    )
    assert stream.samples()["model_anomalies_total", "m", "", "x", "pattern"] == 1


# ---- history


def test_history_adds_up_to_the_totals() -> None:
    import jsonschema

    stream = Stream(settings(baseline=Baseline(rows=20)))
    for second in range(0, 400, 4):
        stream.send(
            "predictions",
            (prediction(second * 5 + k, features={"x": float(k)}) for k in range(5)),
            T0 + second * 1_000,
        )
        stream.send("labels", [label(second * 5, 1)], T0 + second * 1_000 + 500)
    stream.send("predictions", [prediction(9_999)], T0 + 3 * HOUR_MS)
    stream.close()
    records = stream.told("history")
    for r in records:
        jsonschema.validate(r, topics()["history"].schema)
    minutes = [
        r
        for r in records
        if r["end"][:16] != r["start"][:13] + ":00"
        and (int(r["end"][14:16]) - int(r["start"][14:16])) % 60 == 1
    ]
    assert sum(r["predictions"] for r in minutes) == 501
    assert sum(r["labels"] for r in minutes) == 100
    hours = [r for r in records if r not in minutes]
    assert sum(r["predictions"] for r in hours) == 501
    assert {r["config"] for r in records} == {stream.shard.config}


# ---- a monitor that fails


@pytest.mark.parametrize(
    "error",
    [RuntimeError("boom"), ZeroDivisionError(), type("Panic", (BaseException,), {})("of Rust")],
)
def test_a_monitor_that_raises_is_off_from_there_and_the_rest_goes_on(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stream_monitor.monitors.volume import Volume

    add = Volume.add

    def broken(self: Volume, times_ms: Any, latency_ms: Any) -> None:
        if (times_ms == T0 + 700).any():
            raise error
        add(self, times_ms, latency_ms)

    monkeypatch.setattr(Volume, "add", broken)
    core = settings(baseline=Baseline(rows=100))

    def run(restarts: tuple[int, ...]) -> Stream:
        stream = Stream(core)
        for start in range(0, 2_000, 100):
            if start in restarts:
                kept = stream.shard.outbox
                stream.shard = Shard.restore(
                    0, core, {k: v for k, v in stream.shard.snapshot().items() if v is not None}
                )
                assert stream.shard.outbox == kept
            stream.send(
                "predictions",
                (
                    prediction(i, features={"x": float(i)}, latency_ms=1.0)
                    for i in range(start, start + 100)
                ),
                T0 + start * 20,
            )
            stream.send("labels", (label(i, 1) for i in range(start, start + 100)), T0 + start * 20)
        stream.close()
        return stream

    smooth, restarted = run(()), run((300, 800, 1_500))
    assert smooth.told() == restarted.told()
    found, other = smooth.samples(), restarted.samples()
    assert {k: v for k, v in found.items() if k[0] != "stream_monitor_state_bytes"} == {
        k: v for k, v in other.items() if k[0] != "stream_monitor_state_bytes"
    }
    assert found["model_labels_total", "m", "1"] == 2_000
    assert found["model_accuracy", "m", "1", "last_1000"] == 1.0
    assert found["stream_monitor_monitor_failures_total", "volume"] == 1
    assert found["model_predictions_total", "m", "1"] < 2_000
    off = [a for a in smooth.told() if a["subject"] == "monitor.volume"]
    assert [(a["status"], a["severity"]) for a in off] == [("firing", "critical")]
    assert type(error).__name__ in off[0]["summary"]


def test_running_out_of_memory_is_no_defect_of_a_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    from stream_monitor.monitors.volume import Volume

    monkeypatch.setattr(Volume, "add", lambda *_: (_ for _ in ()).throw(MemoryError))
    stream = Stream(settings())
    with pytest.raises(MemoryError):
        stream.send("predictions", (prediction(i) for i in range(2_000)))


# ---- what kind of model it is


def labelled(
    stream: Stream, truth: list[Any], predicted: list[Any], cut: int, **more: Any
) -> dict[tuple[Any, ...], Any]:
    for start in range(0, len(truth), cut):
        at = range(start, min(start + cut, len(truth)))
        stream.send(
            "predictions",
            (
                prediction(i, prediction=predicted[i], **{k: v[i] for k, v in more.items()})
                for i in at
            ),
            T0 + start * 200,
        )
        stream.send("labels", (label(i, truth[i]) for i in at), T0 + start * 200)
    stream.close()
    return stream.samples()


@pytest.mark.parametrize("cut", [1, 40, 1_000])
@pytest.mark.parametrize("task", ["auto", "binary"])
def test_the_positive_class_is_known_when_both_classes_are_however_rows_come(
    task: Any, cut: int
) -> None:
    rng = np.random.default_rng(4)
    truth = ["no"] * 150 + rng.choice(["no", "yes"], 150).tolist()
    predicted = ["no"] * 150 + rng.choice(["no", "yes"], 150).tolist()
    if task == "auto":
        truth[20] = "yes"
    else:
        predicted[60] = "yes"
    found = labelled(Stream(settings(task=task)), truth, predicted, cut)
    for name, score in (("precision", oracle.precision_score), ("recall", oracle.recall_score)):
        assert found[f"model_{name}", "m", "1", "last_1000"] == pytest.approx(
            score(truth, predicted, pos_label="yes"), abs=1e-12
        )


@pytest.mark.parametrize(
    ("truth", "configured", "told"),
    [
        (["Yes", "no", "no"], None, ("Yes", "name")),
        (["a", "b", "b"], None, ("a", "rarer")),
        (["a", "b", "b"], "b", ("b", "configured")),
        (["a", "b", "b"], "x", ("", "configured")),
        (["a", "b"], None, ("", "")),
        ([0.5, 1.5, 2.5] * 50, None, ("", "")),
    ],
)
def test_the_positive_class_stands_in_model_info_as_in_the_summary(
    truth: list[Any], configured: str | None, told: tuple[str, str]
) -> None:
    stream = Stream(settings(positive_class=configured))
    found = labelled(stream, truth, truth, 10)
    assert [key for key in found if key[0] == "model_info"] == [
        ("model_info", "m", "1", "", *told, "", "")
    ]
    summary = stream.shard.summary()["models"]["m"]["versions"]["1"]
    assert (
        tuple(summary.get(key) or "" for key in ("positive_class", "positive_class_source")) == told
    )


def test_two_classes_are_enough_to_begin_with() -> None:
    found = labelled(Stream(settings()), [True, False, True], [True, True, True], 1)
    assert found["model_accuracy", "m", "1", "last_1000"] == pytest.approx(2 / 3)
    assert found["model_recall", "m", "1", "last_1000"] == 1.0


def test_the_end_of_the_input_decides_on_what_there_is() -> None:
    found = labelled(Stream(settings()), [1.5, 2.5, 4.0], [1.0, 2.0, 5.0], 3)
    assert found["model_mae", "m", "1", "last_1000"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("cut", [7, 500])
def test_a_third_class_makes_it_multiclass_from_the_first_row_on(cut: int) -> None:
    rng = np.random.default_rng(8)
    truth = rng.choice(["a", "b"], 300).tolist() + rng.choice(["a", "b", "c"], 200).tolist()
    predicted = rng.choice(["a", "b"], 500).tolist()
    stream = Stream(settings(segments=(Segment(name="s"),)))
    found = labelled(stream, truth, predicted, cut, segments=[{"s": "x"}] * 500)
    assert stream.shard.summary()["models"]["m"]["versions"]["1"]["task"] == "multiclass"
    for prefix, labels in (("model_", ("m", "1")), ("model_segment_", ("m", "1", "s=x"))):
        for window in ("last_1000", "1h"):
            assert found[f"{prefix}accuracy", *labels, window] == pytest.approx(
                oracle.accuracy_score(truth, predicted), abs=1e-12
            )
            for name, score in (
                ("precision", oracle.precision_score),
                ("recall", oracle.recall_score),
                ("f1", oracle.f1_score),
            ):
                assert found[prefix + name, *labels, window] == pytest.approx(
                    score(truth, predicted, average="weighted", zero_division=0), abs=1e-12
                )


def test_coverage_is_whole_when_every_prediction_has_a_label() -> None:
    stream = Stream(settings())
    n = 3_000
    for start in range(0, n, 500):
        stream.send(
            "predictions",
            (prediction(i, timestamp=T0 + i * 137) for i in range(start, start + 500)),
            T0 + start * 137,
        )
        stream.send(
            "labels", (label(i, i % 2) for i in range(start, start + 500)), T0 + start * 137
        )
    stream.close()
    found = stream.samples()
    assert found["model_label_coverage_ratio", "m", "1", "last_1000"] == 1.0
    assert found["model_label_coverage_ratio", "m", "1", "1h"] == 1.0


def test_a_constant_feature_that_stays_constant_is_quiet() -> None:
    stream = Stream(CoreSettings(defaults=ModelSettings(baseline=Baseline(rows=500))))
    for start in range(0, 5_000, 500):
        stream.send(
            "predictions",
            (
                prediction(i, features={"x": 0.003467, "y": 0.1 + 0.2})
                for i in range(start, start + 500)
            ),
            T0 + start * 10,
        )
    stream.close()
    assert stream.told() == []


@pytest.mark.parametrize("late_ms", range(900, 1_000, 10))
def test_a_label_just_before_a_tick_is_judged_by_itself(late_ms: int) -> None:
    stream = Stream(
        settings(
            task="binary",
            positive_class="1",
            thresholds={"accuracy": Threshold(min=0.5, min_labels=5, judge="value")},
        )
    )
    start = T0 // 1_000 * 1_000
    stream.send("predictions", (prediction(i) for i in range(10)), start)
    stream.send("labels", (label(i, 0) for i in range(10)), start + late_ms)
    for ms in range(1_000, 3_000, 100):
        stream.send("labels", [], start + ms)
        stream.shard.fold(tick(start + ms))
    assert [a["status"] for a in stream.told()] == ["firing"]


def test_a_version_that_nobody_uses_for_a_week_retires_and_goes_on_when_it_is_used_again() -> None:
    day = 86_400_000
    core = CoreSettings(
        defaults=ModelSettings(drift=QUIET, baseline=Baseline(rows=50)), limits=Limits(models=1)
    )
    stream = Stream(core)
    stream.send("predictions", (prediction(i, features={"x": float(i)}) for i in range(100)))
    for hour in range(8 * 24):
        stream.shard.fold(tick(T0 + hour * HOUR_MS))
    assert [(a["kind"], a["status"]) for a in stream.told() if a["status"] != "updated"] == [
        ("freshness", "firing"),
        ("freshness", "resolved"),
    ]
    assert not [k for k in stream.samples() if k[0].startswith("model_")]
    stream.send("predictions", [prediction(0, model="other", timestamp=T0 + 8 * day)], T0 + 8 * day)
    stream.send("predictions", [prediction(0, timestamp=T0 + 8 * day)], T0 + 8 * day)
    restored = Shard.restore(
        0, core, {k: v for k, v in stream.shard.snapshot().items() if v is not None}
    )
    for shard in (stream.shard, restored):
        shard.close()
        found = {(s[0], *s[1]): s[2] for s in shard.samples()}
        assert found["model_predictions_total", "m", "1"] == 101
        assert found["model_predictions_total", "other", "1"] == 1


@pytest.mark.parametrize(
    ("before", "after"), [("last_100", "last_1000"), ("last_1000", "last_100")]
)
def test_a_window_of_another_length_takes_effect_after_a_restart(before: str, after: str) -> None:
    stream = Stream(CoreSettings(defaults=ModelSettings(windows=(before,), drift=QUIET)))
    core = CoreSettings(defaults=ModelSettings(windows=(after,), drift=QUIET))
    right = np.random.default_rng(6).random(3_000) < 0.7
    for start in range(0, 3_000, 200):
        if start == 600:
            stream.shard = Shard.restore(
                0, core, {k: v for k, v in stream.shard.snapshot().items() if v is not None}
            )
        stream.send(
            "predictions",
            (prediction(i, prediction=i % 2) for i in range(start, start + 200)),
            T0 + start,
        )
        stream.send(
            "labels",
            (label(i, i % 2 if right[i] else 1 - i % 2) for i in range(start, start + 200)),
            T0 + start,
        )
    stream.close()
    n = int(after[5:])
    found = stream.samples()
    assert found["model_window_labels", "m", "1", after] == n
    assert found["model_accuracy", "m", "1", after] == pytest.approx(right[-n:].mean(), abs=1e-12)


def test_a_constant_feature_that_moves_is_told_in_its_own_units() -> None:
    stream = Stream(CoreSettings(defaults=ModelSettings(baseline=Baseline(rows=500))))
    for start in range(0, 4_000, 500):
        stream.send(
            "predictions",
            (
                prediction(i, features={"x": 0.4 if i < 2_000 else 0.7})
                for i in range(start, start + 500)
            ),
            T0 + start * 10,
        )
    stream.close()
    drift = [a for a in stream.told() if a["kind"] == "data_drift"]
    assert drift
    moved = drift[0]["evidence"]["contributors"][0]
    assert (moved["subject"], moved["what"]) == ("x", "mean")
    assert moved["after"] == pytest.approx(0.7, abs=0.01)
    assert moved["before"] == pytest.approx(0.4, abs=0.05)
