"""
`docs/metrics.md`, generated from the catalogue.

Rule of the file: a page that is written by hand is wrong after the next change. `python -m
stream_monitor.metrics.page > docs/metrics.md` writes it anew, and a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream_monitor.metrics.catalogue import CATALOGUE, CUSTOM_PREFIX, PSEUDO_FEATURES
from stream_monitor.metrics.metric import Metric

LABELS = {
    "model": "`model` of the event.",
    "version": '`version` of the event, `""` when it has none.',
    "window": (
        "`last_N` (the N labelled predictions with the greatest event time) or a duration such as "
        "`1h`."
    ),
    "quantile": "0.5, 0.95, 0.99 of latency; 0.25, 0.5, 0.75 of a feature.",
    "feature": (
        f"Name of the feature, or {', '.join(f'`{name}`' for name in PSEUDO_FEATURES)}; "
        "`__other__` beyond `limits.features`."
    ),
    "method": (
        "`psi` `js` `ks` `wasserstein` `chi2` compare with the baseline; `adwin` `page_hinkley` "
        "`ddm` `hddm_a` `hddm_w` `kswin` watch the stream."
    ),
    "segment": "`name=value`; `__other__` beyond `limits.segments`.",
    "severity": "`info`, `warning` or `critical`.",
    "rule": "`missing`, `type`, `range`, `category`, `unique` or `unknown_field`.",
    "kind": "`point`, `pattern` or `trend`.",
    "revision": "Id of the baseline in use; empty while it is learnt.",
    "positive_class": (
        "Class that precision, recall, F1 and the scores are of; empty where there is none, or "
        "nothing says which."
    ),
    "positive_class_source": "How it was found: `configured`, `name`, `score` or `rarer`.",
    "topic": "Logical name of the topic, without `kafka.topic_prefix`.",
    "partition": "Number of the partition.",
    "outcome": (
        "Of records: `forwarded` `rejected` `tombstone` where they are read, `accepted` "
        "`duplicate` `seen` where they are evaluated. "
        "Of labels: `matched` `corrected` `superseded` `duplicate` `orphan` `evicted`."
    ),
    "reason": "Why a record could not be used, one of a closed set: see the dead letters.",
    "limit": "Name of the limit under `limits`.",
    "monitor": "Name of the monitor.",
    "status": "`firing`, `updated` or `resolved`.",
    "group": "Consumer group of the worker (`worker.group`).",
    "hash": (
        "Hash of the configuration of the evaluation: differs between workers only while a change "
        "is rolled out."
    ),
    "python": "Version of Python.",
}

INTRODUCTION = """\
# Metrics

<!-- Generated: python -m stream_monitor.metrics.page > docs/metrics.md -->

The worker serves these at `/metrics` (`worker.metrics`, port 9108) in the Prometheus text format; what is shown is the state at the moment of the scrape.

- `model_*` series are a fold of the log of observations: their counters never go backwards over restarts and rebalances, and each series comes from one worker. A series is there once its partition has caught up, and gone when the model retires.
- `stream_monitor_*` series belong to the process and start at 0 with it.
- What is undefined (no labels yet, no positive predicted, one class only) is **absent**: never 0, never NaN. Write rules so that absence is not an alarm, and use `absent()` where it should be.
- `model_latency_seconds` and `model_feature_quantile` are gauges by nature. They are of type summary, without `_sum` and `_count`, because Prometheus keeps the label `quantile` for summaries.
- No ids are ever labels. `limits.series` bounds the series of a worker: models below their fair share keep everything, a model above it loses whole families: first histograms by feature, then other detail by feature, segments and custom metrics, other histograms, the rest. What was left out is counted in `stream_monitor_series_dropped_total`.
- During a hand-over Prometheus may see a gauge from two instances for some minutes: take `max without (instance)`, not `sum`. Add the rates of counters.

`stream-monitor export dashboards` and `stream-monitor export rules` write Grafana dashboards and alerting rules over them; they are also in `dashboards/`.
"""  # noqa: E501

CUSTOM = f"""
## Your own metrics

`metrics.custom` of a model (or of `defaults`) makes a metric of one field. It is called `{CUSTOM_PREFIX}NAME`, a counter with `_total` at its end, and labelled with `model`, `version` and the segments under `labels` (a character that a label cannot have becomes `_`).

```yaml
defaults:
  metrics:
    custom:
      basket_value: {{type: histogram, field: features.basket, labels: [country], buckets: [10, 50, 200]}}
```

gives `{CUSTOM_PREFIX}basket_value_bucket{{model="shop",version="3",country="NL",le="50"}}`. A `summary` has the `quantiles` asked for. One name is one family: two models may share it only with the same type, labels and buckets.
"""  # noqa: E501


def page() -> str:
    """The whole page."""
    return "\n".join([*_page()]) + "\n"


def _page() -> Iterator[str]:
    yield INTRODUCTION
    yield "## Of the models\n"
    yield from _table(
        [metric for metric in CATALOGUE.values() if metric.name.startswith("model_")], shared=2
    )
    yield "\nEvery one of them has `model` and `version` besides."
    yield CUSTOM
    yield "## Of the process\n"
    yield from _table(
        [metric for metric in CATALOGUE.values() if not metric.name.startswith("model_")], shared=0
    )
    yield "\n## Labels\n"
    yield "| label | values |"
    yield "|---|---|"
    for label in dict.fromkeys(label for metric in CATALOGUE.values() for label in metric.labels):
        yield f"| `{label}` | {LABELS[label]} |"


def _table(metrics: list[Metric], *, shared: int) -> Iterator[str]:
    yield "| name | type | labels | meaning |"
    yield "|---|---|---|---|"
    for metric in metrics:
        labels = " ".join(f"`{label}`" for label in metric.labels[shared:])
        buckets = (
            f" Buckets: {', '.join(f'{edge:g}' for edge in metric.buckets)}."
            if metric.buckets
            else ""
        )
        yield f"| `{metric.name}` | {metric.type} | {labels} | {metric.help}{buckets} |"


if __name__ == "__main__":
    print(page(), end="")
