"""The catalogue holds what the contract promises, and Prometheus has no complaint about it."""

from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as text_string_to_openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from stream_monitor.errors import ConfigError
from stream_monitor.metrics.built_in import LATENCY_BUCKETS_S
from stream_monitor.metrics.catalogue import CATALOGUE, CUSTOM_PREFIX, custom_metrics
from stream_monitor.metrics.metric import series_names
from stream_monitor.metrics.samples import HistogramSample, Sample, SummarySample
from stream_monitor.runtime.exporter import Exporter
from stream_monitor.runtime.families import OPENMETRICS, PLAIN
from stream_monitor.settings import CoreSettings, CustomMetric, Metrics, ModelSettings

WINDOWED = (
    "accuracy precision recall f1 roc_auc log_loss brier_score calibration_error mae rmse r2 bias "
    "label_coverage_ratio window_labels window_end_timestamp_seconds"
)
PROMISED = {
    **{f"model_{name}": ("gauge", "model version window") for name in WINDOWED.split()},
    **{
        f"model_{name}": ("counter", "model version")
        for name in ("predictions_total", "prediction_errors_total", "labels_total")
    },
    **{
        f"model_drift_{name}": ("gauge", "model version feature method")
        for name in ("score", "ratio", "detected")
    },
    "model_prediction_latency_seconds": ("histogram", "model version"),
    "model_latency_seconds": ("summary", "model version quantile window"),
    "model_feature_missing_ratio": ("gauge", "model version feature"),
    "model_feature_mean": ("gauge", "model version feature"),
    "model_feature_quantile": ("summary", "model version feature quantile"),
    "model_feature_values": ("histogram", "model version feature"),
    "model_data_quality_violations_total": ("counter", "model version feature rule"),
    "model_anomalies_total": ("counter", "model version feature kind"),
    "model_incidents_firing": ("gauge", "model version severity"),
    "model_alerts_firing": ("gauge", "model version severity"),
    "model_alerts_muted": ("gauge", "model version severity"),
    "model_alerts_acknowledged": ("gauge", "model version severity"),
    "model_alerts_marked_false_total": ("counter", "model version"),
    **{
        f"model_experiment_{name}": ("gauge", "model experiment arm metric")
        for name in ("estimate", "lower", "upper", "coverage_ratio")
    },
    "model_experiment_units_total": ("counter", "model experiment arm"),
    "model_experiment_evidence_ratio": ("gauge", "model experiment arm test"),
    "model_experiment_verdict": ("gauge", "model experiment arm verdict"),
    "model_experiment_rows_left_out_total": ("counter", "model experiment reason"),
    "model_segment_accuracy": ("gauge", "model version segment window"),
    "model_info": (
        "gauge",
        "model version revision positive_class positive_class_source commit stage",
    ),
    "stream_monitor_records_total": ("counter", "topic outcome"),
    "stream_monitor_labels_total": ("counter", "outcome"),
    "stream_monitor_dead_letters_total": ("counter", "topic reason"),
    "stream_monitor_consumer_lag_records": ("gauge", "topic partition"),
    "stream_monitor_log_time_lag_seconds": ("gauge", "topic partition"),
    "stream_monitor_join_pending": ("gauge", ""),
    "stream_monitor_state_bytes": ("gauge", ""),
    "stream_monitor_series_dropped_total": ("counter", ""),
    "stream_monitor_config_info": ("gauge", "group hash"),
}


@pytest.mark.parametrize("name", PROMISED)
def test_promised_metric_is_there(name):
    kind, labels = PROMISED[name]
    assert (CATALOGUE[name].type, set(CATALOGUE[name].labels)) == (kind, set(labels.split()))


def test_latency_buckets_are_those_of_the_contract():
    assert (
        CATALOGUE["model_prediction_latency_seconds"].buckets
        == LATENCY_BUCKETS_S
        == (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
    )


@pytest.mark.parametrize("metric", CATALOGUE.values(), ids=CATALOGUE)
def test_shape(metric):
    assert CATALOGUE[metric.name] is metric
    assert re.fullmatch(r"(model|stream_monitor)_[a-z0-9_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.type == "counter")
    assert metric.help.endswith(".")
    of = ("model", "experiment" if "_experiment_" in metric.name else "version")
    assert metric.name.startswith("stream_monitor_") or metric.labels[:2] == of
    assert len(set(metric.labels)) == len(metric.labels)
    assert list(metric.buckets) == sorted(set(metric.buckets))


def core(defaults=None, **models):
    return CoreSettings(
        defaults=ModelSettings(metrics=Metrics(custom=defaults or {})),
        models={
            name: ModelSettings(metrics=Metrics(custom=custom)) for name, custom in models.items()
        },
    )


def test_custom_metric_may_be_shared_by_models():
    basket = CustomMetric(
        type="histogram", field="features.basket", labels=("user-country",), buckets=(10.0, 1.0)
    )
    found = custom_metrics(core({"basket": basket}, shop={"basket": basket}))
    assert list(found) == ["model_custom_basket"]
    assert found["model_custom_basket"].labels == ("model", "version", "user_country")
    assert found["model_custom_basket"].buckets == (1.0, 10.0)


@pytest.mark.parametrize(
    ("name", "labels", "says"),
    [
        ("bas-ket", (), "letters, digits and _"),
        ("basket", ("version",), "reserved"),
        ("basket", ("quantile",), "reserved"),
        ("basket", ("group",), "reserved"),
        ("basket", ("__x",), "reserved"),
        ("basket", ("",), "a label needs a name"),
        ("basket", ("a-b", "a_b"), "both become"),
        ("basket_total", (), "_total"),
        ("basket_count", (), "_count"),
        ("basket_sum", (), "_sum"),
        ("basket_bucket", (), "_bucket"),
    ],
)
def test_custom_metric_that_prometheus_would_refuse(name, labels, says):
    with pytest.raises(ConfigError, match=says) as caught:
        custom_metrics(core(shop={name: CustomMetric(type="gauge", field="score", labels=labels)}))
    assert caught.value.problems[0].startswith(f"models.shop.metrics.custom.{name}: ")


KINDS = ("counter", "gauge", "histogram", "summary")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize(
    "name", ["x", "x_total", "x_count", "x_sum", "x_bucket", "x_created", "x_info", "y", "X"]
)
def test_what_is_accepted_can_be_scraped_and_what_is_refused_could_not(kind, other, name):
    """
    Two families: either the check refuses them, or both readers of the library take what is
    exported of them.
    """
    defined = {
        "x": CustomMetric(type=kind, field="score"),
        name: CustomMetric(type=other, field="score"),
    }
    try:
        found = custom_metrics(core(a=defined))
    except ConfigError:
        assert name not in ("y", "X")
        return
    text, strict = (
        Exporter(lambda: [map(sample_of, found.values())], series_limit=100, custom=found)
        .render(form)
        .decode()
        for form in (PLAIN, OPENMETRICS)
    )
    families = [*text_string_to_metric_families(text), *text_string_to_openmetrics_families(strict)]
    custom = [family for family in families if family.name.startswith("model_custom_")]
    assert len(custom) == 2 * len(found)
    assert {family.type for family in custom} == {metric.type for metric in found.values()}


def sample_of(metric):
    if metric.type == "histogram":
        return HistogramSample(metric.name, ("m", "1"), (1.0,) * (len(metric.buckets) + 1), 3.0)
    return (
        SummarySample(metric.name, ("m", "1"), ((0.5, 1.0),), 2, 3.0)
        if metric.type == "summary"
        else Sample(metric.name, ("m", "1"), 1.0)
    )


def test_no_metric_of_a_user_can_be_one_of_ours():
    assert not any(
        name.startswith(CUSTOM_PREFIX)
        for metric in CATALOGUE.values()
        for name in series_names(metric)
    )
    names = [name for metric in CATALOGUE.values() for name in series_names(metric)]
    assert len(names) == len(set(names)), "two families of the catalogue have series of one name"


@pytest.mark.parametrize("quantiles", [(0.5, 0.5), (0.9, 0.5, 0.90)])
def test_a_quantile_is_given_once(quantiles):
    with pytest.raises(ConfigError, match="a quantile is given twice"):
        custom_metrics(
            core(a={"x": CustomMetric(type="summary", field="score", quantiles=quantiles)})
        )


def test_one_name_is_one_family():
    with pytest.raises(ConfigError, match="one name is one family"):
        custom_metrics(
            core(
                a={"x": CustomMetric(type="gauge", field="score")},
                b={"x": CustomMetric(type="summary", field="score")},
            )
        )


@pytest.mark.parametrize("buckets", [(), (1.0, 1.0), (float("nan"),)])
def test_histogram_needs_proper_buckets(buckets):
    with pytest.raises(ConfigError, match="buckets"):
        custom_metrics(
            core(a={"x": CustomMetric(type="histogram", field="score", buckets=buckets)})
        )
