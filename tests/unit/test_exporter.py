"""Text of a scrape, read back by prometheus_client's parser and judged by promtool."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.metrics.catalogue import CATALOGUE, custom_metrics
from stream_monitor.metrics.samples import HistogramSample, Sample, SummarySample
from stream_monitor.runtime.exporter import Exporter, registry
from stream_monitor.runtime.families import OPENMETRICS, PLAIN, wanted
from stream_monitor.settings import Baseline, CoreSettings, CustomMetric, Metrics, ModelSettings


def exporter(*sources, limit=50_000, custom=None):
    return Exporter(lambda: [iter(source) for source in sources], series_limit=limit, custom=custom)


def parsed(text: bytes):
    """Name and labels of a series -> value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def series(name, **labels):
    return name, frozenset(labels.items())


def one_of_each():
    """A series of every family of the catalogue, with plausible labels and values."""
    for metric in CATALOGUE.values():
        labels = tuple(
            {"quantile": "0.5", "model": "churn", "window": "last_1000"}.get(label, "x")
            for label in metric.labels
        )
        if metric.type == "histogram":
            edges = metric.buckets or (0.5, 1.5)
            yield HistogramSample(
                metric.name, labels, (1.0,) * (len(edges) + 1), 3.5, () if metric.buckets else edges
            )
        else:
            yield Sample(metric.name, labels, 0.25)


def test_every_metric_survives_the_parser_with_its_type_and_labels():
    text = exporter(one_of_each()).render().decode()
    found = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in CATALOGUE.values():
        family = found[
            metric.name.removesuffix("_total") if metric.type == "counter" else metric.name
        ]
        assert (family.type, family.documentation) == (metric.type, metric.help)
        assert all(set(sample.labels) - {"le"} == set(metric.labels) for sample in family.samples)
    assert [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")] == list(
        CATALOGUE
    )
    assert "_created" not in text


def test_promtool_has_no_complaint():
    if shutil.which("promtool") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool must be on PATH in CI")
        pytest.skip("promtool is not on PATH")
    custom = custom_metrics(
        CoreSettings(
            defaults=ModelSettings(
                metrics=Metrics(
                    custom={"basket": CustomMetric(type="summary", field="score", help="Basket.")}
                )
            )
        )
    )
    text = exporter(
        one_of_each(),
        [SummarySample("model_custom_basket", ("a", "1"), ((0.5, 1.0),), 1, 1.0)],
        custom=custom,
    ).render()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def values_of_each_sign():
    """A histogram, both kinds of summary and a gauge, of values below zero and above."""
    for sign, model in ((1, "up"), (-1, "down")):
        yield HistogramSample(
            "model_feature_values",
            (model, "1", "age"),
            (1.0, 2.0, 4.0),
            sign * 9.5,
            (sign * 3.0, 20.0),
        )
        yield Sample("model_feature_quantile", (model, "1", "age", "0.5"), sign * 2.5)
        yield SummarySample(
            "model_custom_basket", (model, "1"), ((0.5, sign * 1.5), (0.9, 7.0)), 3, sign * 8.0
        )
        yield Sample("model_bias", (model, "1", "1h"), sign * 0.25)


BASKET = custom_metrics(
    CoreSettings(
        defaults=ModelSettings(
            metrics=Metrics(
                custom={"basket": CustomMetric(type="summary", field="score", help="Basket.")}
            )
        )
    )
)


@pytest.mark.parametrize("samples", [one_of_each, values_of_each_sign])
@pytest.mark.parametrize("piece", [1, 7, 1_000])
def test_a_family_in_pieces_is_what_the_library_writes_of_the_whole(monkeypatch, samples, piece):
    monkeypatch.setattr("stream_monitor.runtime.families.PIECE_LINES", piece)
    subject = exporter(list(samples()), custom=BASKET)
    assert subject.render() == generate_latest(registry(subject))


@pytest.mark.parametrize("samples", [one_of_each, values_of_each_sign])
def test_openmetrics_holds_its_own_rules_and_the_same_values(monkeypatch, samples):
    monkeypatch.setattr("stream_monitor.runtime.families.PIECE_LINES", 3)
    subject = exporter(list(samples()), custom=BASKET)
    # raises where a rule is broken
    strict = {
        (
            sample.name,
            frozenset(
                (k, v.removesuffix(".0") if k == "le" else v) for k, v in sample.labels.items()
            ),
        ): sample.value
        for family in openmetrics_families(subject.render(OPENMETRICS).decode())
        for sample in family.samples
    }
    plain = parsed(subject.render())
    assert strict.items() <= plain.items()
    left_out = {name for name, labels in plain.keys() - strict.keys()}
    assert left_out == (
        {"model_feature_values_sum", "model_feature_values_count"}
        if samples is values_of_each_sign
        else set()
    )


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/html", PLAIN),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5", PLAIN),
        (
            "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.75,*/*;q=0.1",
            OPENMETRICS,
        ),
        ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;q=0.5", PLAIN),
        ("application/openmetrics-text;q=0", PLAIN),
        ("application/openmetrics-text;q=much", PLAIN),
        # of Prometheus 2.55 and 3.5
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            OPENMETRICS,
        ),
        (",;=, ;q=,", PLAIN),
    ],
)
def test_the_format_is_the_one_that_is_preferred(accept, form):
    assert wanted(accept) is form


def test_histogram_is_cumulative():
    got = parsed(
        exporter(
            [
                HistogramSample(
                    "model_feature_values", ("m", "1", "age"), (1.0, 2.0, 4.0), 9.5, (10.0, 20.0)
                )
            ]
        ).render()
    )
    labels = {"model": "m", "version": "1", "feature": "age"}
    assert got[series("model_feature_values_bucket", **labels, le="10")] == 1
    assert got[series("model_feature_values_bucket", **labels, le="20")] == 3
    assert got[series("model_feature_values_bucket", **labels, le="+Inf")] == 7
    assert got[series("model_feature_values_count", **labels)] == 7
    assert got[series("model_feature_values_sum", **labels)] == 9.5


def test_equal_edges_make_one_bucket():
    subject = exporter(
        [
            HistogramSample(
                "model_feature_values",
                ("m", "1", "age"),
                (1.0, 2.0, 4.0, 8.0),
                9.5,
                (0.0, 0.0, 5.0),
            )
        ]
    )
    text = subject.render()
    assert text.count(b"le=") == 3
    got = parsed(text)
    labels = {"model": "m", "version": "1", "feature": "age"}
    assert [
        got[series("model_feature_values_bucket", **labels, le=edge)] for edge in ("0", "5", "+Inf")
    ] == [3, 7, 15]
    assert parsed(generate_latest(registry(subject))) == got


@pytest.mark.parametrize("name", ['quote"s', "back\\slash", "new\nline", "ünï, {}=", "\\n", ""])
def test_label_values_are_escaped(name):
    assert (
        parsed(exporter([Sample("model_predictions_total", (name, "1"), 3)]).render())[
            series("model_predictions_total", model=name, version="1")
        ]
        == 3
    )


def test_lone_surrogate_does_not_end_the_scrape():
    assert (
        b'model="?"' in exporter([Sample("model_predictions_total", ("\ud800", "1"), 3)]).render()
    )


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_undefined_is_absent(value):
    text = exporter(
        [
            Sample("model_accuracy", ("m", "1", "1h"), value),
            Sample("model_f1", ("m", "1", "1h"), 0.5),
        ]
    ).render()
    assert b"model_accuracy" not in text
    assert b"model_f1" in text
    assert parsed(text)[series("stream_monitor_scrape_errors_total")] == 0


Unchecked: Any = Sample
"""What has other types than the catalogue asks for."""
UncheckedHistogram: Any = HistogramSample


@pytest.mark.parametrize(
    "sample",
    [
        Sample("model_akkuracy", ("m", "1", "1h"), 1.0),
        Sample("model_accuracy", ("m", "1"), 1.0),
        Sample("model_feature_values", ("m", "1", "age"), 1.0),
        Unchecked("model_accuracy", ("m", "1", "1h"), "0.5"),
        HistogramSample("model_prediction_latency_seconds", ("m", "1"), (1.0,), 1.0),
        HistogramSample("model_accuracy", ("m", "1", "1h"), (1.0,), 1.0),
        SummarySample("model_accuracy", ("m", "1", "1h"), ((0.5, 1.0),), 1, 1.0),
        Unchecked("model_accuracy", ["m", "1", "1h"], 1.0),
        UncheckedHistogram("model_feature_values", ("m", "1", "age"), (1.0, 2.0), 1.0, [0.5]),
    ],
)
def test_what_does_not_fit_the_catalogue_is_left_out_and_counted(sample):
    subject = exporter([sample, Sample("stream_monitor_ready", (), 1)])
    assert parsed(subject.render()) == {
        series("stream_monitor_ready"): 1,
        series("stream_monitor_series_dropped_total"): 0,
        series("stream_monitor_scrape_errors_total"): 1,
    }
    assert parsed(subject.render())[series("stream_monitor_scrape_errors_total")] == 2


def test_a_source_that_raises_does_not_take_the_others_away():
    def broken():
        yield Sample("model_accuracy", ("bad", "1", "1h"), 1.0)
        raise RuntimeError("boom")

    got = parsed(
        Exporter(
            lambda: [broken(), iter([Sample("stream_monitor_ready", (), 1)])], series_limit=100
        ).render()
    )
    assert got[series("stream_monitor_ready")] == 1
    assert got[series("stream_monitor_scrape_errors_total")] == 1
    assert not any(name == "model_accuracy" for name, _ in got)


def test_series_of_the_process_add_up_and_those_of_a_model_stay_alone():
    pending = Sample("stream_monitor_join_pending", (), 3)
    accuracy = Sample("model_accuracy", ("m", "1", "1h"), 0.5)
    got = parsed(exporter([pending, accuracy], [pending, accuracy._replace(value=0.75)]).render())
    assert got[series("stream_monitor_join_pending")] == 6
    assert got[series("model_accuracy", model="m", version="1", window="1h")] == 0.5
    assert got[series("stream_monitor_scrape_errors_total")] == 1


def test_counts_of_other_add_up_over_the_partitions():
    """
    Each partition of `observations` has a model `__other__` of its own; counts of three of four
    were missing.
    """

    def shard(n: int) -> list:
        return [
            Sample("model_predictions_total", ("__other__", ""), n),
            Sample("model_info", ("__other__", "", "", "", "", "", ""), 1),
            HistogramSample(
                "model_prediction_latency_seconds", ("__other__", ""), (n,) + (0,) * 13, n / 10
            ),
        ]

    got = parsed(exporter(shard(2), shard(5)).render())
    of = {"model": "__other__", "version": ""}
    about = dict.fromkeys(
        ("revision", "positive_class", "positive_class_source", "commit", "stage"), ""
    )
    assert got[series("model_predictions_total", **of)] == 7
    assert got[series("model_info", **about, **of)] == 1
    assert got[series("model_prediction_latency_seconds_count", **of)] == 7
    assert got[series("model_prediction_latency_seconds_sum", **of)] == pytest.approx(0.7)
    assert (
        series("stream_monitor_scrape_errors_total") not in got
        or not got[series("stream_monitor_scrape_errors_total")]
    )


def test_beyond_the_limit_detail_of_the_greedy_model_goes_and_is_counted():
    greedy = [
        Sample("model_drift_score", ("greedy", "1", f"f{feature}", "psi"), 0.1)
        for feature in range(100)
    ]
    rest = [Sample("model_accuracy", (model, "1", "1h"), 0.5) for model in ("greedy", "modest")]
    modest = [Sample("model_drift_score", ("modest", "1", "age", "psi"), 0.1)]
    subject = exporter(greedy + rest + modest, limit=50)
    got = parsed(subject.render())
    assert {
        labels["model"]
        for name, found in got
        if name == "model_drift_score"
        for labels in [dict(found)]
    } == {"modest"}
    assert sum(name == "model_accuracy" for name, _ in got) == 2
    assert got[series("stream_monitor_series_dropped_total")] == 100


def test_custom_families_come_after_the_catalogue():
    custom = custom_metrics(
        CoreSettings(
            defaults=ModelSettings(
                metrics=Metrics(
                    custom={
                        "basket": CustomMetric(
                            type="summary", field="features.basket", labels=("country",)
                        ),
                        "seen": CustomMetric(type="counter", field="score"),
                    }
                )
            )
        )
    )
    text = exporter(
        [
            SummarySample(
                "model_custom_basket", ("m", "1", "NL"), ((0.5, 12.0), (0.9, float("nan"))), 7, 99.0
            ),
            Sample("model_custom_seen_total", ("m", "1"), 4),
        ],
        custom=custom,
    ).render()
    got = parsed(text)
    labels = {"model": "m", "version": "1", "country": "NL"}
    assert got[series("model_custom_basket", **labels, quantile="0.5")] == 12
    assert got[series("model_custom_basket_count", **labels)] == 7
    assert got[series("model_custom_basket_sum", **labels)] == 99
    assert got[series("model_custom_seen_total", model="m", version="1")] == 4
    assert b"0.9" not in text


def test_state_is_read_at_each_scrape():
    state = {"predictions": 1}
    subject = Exporter(
        lambda: [iter([Sample("model_predictions_total", ("m", "1"), state["predictions"])])],
        series_limit=100,
    )
    first = parsed(subject.render())
    state["predictions"] = 2
    key = series("model_predictions_total", model="m", version="1")
    assert (first[key], parsed(subject.render())[key]) == (1, 2)


def test_a_shard_that_folded_events_exports_them_without_a_fault():
    events = [
        {
            "event_id": str(n),
            "model": "churn",
            "prediction": n % 2,
            "score": n % 2,
            "latency_ms": 5,
            "features": {"age": n % 70, "plan": "ab"[n % 2], "zeros": 0},
        }
        for n in range(3_000)
    ]
    labels = [
        {"event_id": str(n), "model": "churn", "label": int(n % 3 == 0)} for n in range(3_000)
    ]
    ingest = Ingest(1)
    for kind, sent in (("predictions", events), ("labels", labels)):
        times = np.arange(len(sent), dtype=np.int64) * 1_000 + 1_750_000_000_000
        assert (
            ingest.take(
                f"{kind}@id/0",
                kind,
                [json.dumps(event).encode() for event in sent],
                np.arange(len(sent), dtype=np.int64),
                times,
            )
            == []
        )
    shard = Shard(0, CoreSettings(defaults=ModelSettings(baseline=Baseline(rows=1_000))))
    for record in ingest.flush(1_750_003_600_000)[0]:
        shard.fold(record)
    got = parsed(Exporter(lambda: [shard.samples()], series_limit=10_000).render())
    assert got[series("stream_monitor_scrape_errors_total")] == 0
    assert got[series("model_predictions_total", model="churn", version="")] == 3_000
    assert got[series("model_labels_total", model="churn", version="")] == 3_000
    last = [n % 2 == int(n % 3 == 0) for n in range(2_000, 3_000)]
    assert got[
        series("model_accuracy", model="churn", version="", window="last_1000")
    ] == pytest.approx(sum(last) / 1_000)


def test_collector_says_the_same_and_not_in_the_global_registry():
    subject = exporter(list(one_of_each()))
    found = registry(subject)
    assert found is not REGISTRY
    assert parsed(generate_latest(found)) == parsed(subject.render())


async def test_scrape_lets_the_loop_run_between_sources_and_is_shared(monkeypatch):
    # pause wherever a pause is possible, however fast the machine
    monkeypatch.setattr("stream_monitor.runtime.exporter.HOLD_S", 0.0)

    turns = 0
    reads = []

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def source(number):
        reads.append(number)
        yield from (
            Sample("model_drift_score", (f"m{number}", "1", f"f{feature}", "psi"), 0.5)
            for feature in range(5_000)
        )

    subject = Exporter(lambda: [source(number) for number in range(4)], series_limit=100_000)
    other = asyncio.create_task(turn())
    await asyncio.sleep(0)
    texts = await asyncio.gather(subject.scrape(), subject.scrape())
    other.cancel()
    (one, two), whole = texts, subject.render()
    assert turns > 8
    assert reads[:4] == [0, 1, 2, 3]
    assert one[0] is two[0]
    assert one[0] == whole


async def test_a_scrape_that_is_given_up_does_not_spoil_the_next():
    subject = exporter(list(one_of_each()))
    task = asyncio.create_task(subject.scrape())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert b"stream_monitor_ready 0.25" in (await subject.scrape())[0]
