"""
`docs/metrics.md`, generated from the catalogue.

Rule of the file: a page that is written by hand is wrong after the next change. `python -m
stream_monitor.metrics.page > docs/metrics.md` writes it, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream_monitor.metrics.catalogue import CATALOGUE, CUSTOM_PREFIX, PSEUDO_FEATURES
from stream_monitor.metrics.metric import Metric
from stream_monitor.metrics.of_the_archive import OF_THE_ARCHIVE
from stream_monitor.metrics.of_the_loop import OF_THE_LOOP

LABELS = {
    "model": "`model` of the event.",
    "version": '`version` of the event; `""` if it has none.',
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
        "`psi` `js` `ks` `wasserstein` `chi2` compare with the baseline; `evidence` is the "
        "detector on counts (its score is in days, its ratio alarms at 1); `adwin` `page_hinkley` "
        "`ddm` `hddm_a` `hddm_w` `conformal` `kswin` are detectors on the stream of values."
    ),
    "segment": "`name=value`; `__other__` beyond `limits.segments`.",
    "severity": "`info`, `warning` or `critical`.",
    "rule": "`missing`, `type`, `range`, `category`, `pattern`, `unique` or `unknown_field`.",
    "kind": "`point`, `pattern` or `trend`; of a drift in a segment the kind of its alert.",
    "revision": "Id of the baseline in use; empty while it is learnt.",
    "positive_class": (
        "Class that precision, recall, F1 and the scores refer to; empty if there is none or it is "
        "unknown."
    ),
    "commit": "Revision in git of a registered version; else empty.",
    "stage": "Stage that `lifecycle` says: shadow, canary, production or retired; `unregistered` "
    "if other versions of the model are registered and this one is not.",
    "positive_class_source": (
        "How the positive class was found: `configured`, `name`, `score` or `rarer`."
    ),
    "topic": "Logical name of the topic, without `kafka.topic_prefix`.",
    "partition": "Number of the partition.",
    "outcome": (
        "Of records: `forwarded` `rejected` `tombstone` in INGEST, `accepted` `duplicate` `seen` "
        "in EVALUATE. "
        "Of labels: `matched` `corrected` `superseded` `duplicate` `orphan` `evicted`."
    ),
    "reason": (
        "Why a record could not be used: see the dead letters. Of an experiment: `unknown_arm` "
        "`two_arms` `before_start` `change` `rolled_back` `no_unit` `evicted`. Of triggers: `run` "
        "`rollout` `paused` `cooldown` `rolled_back` `max_a_week` `bad_data` `few_labels`. Of what "
        "a controller waits for: a person (`approval` `inconclusive` `deadline` `mismatch` "
        "`refused` `weights` `paused`), or `alert` `time` `labels`. Of estimates: `learning`, "
        "`contradicted` (by labels) or `no_score`; empty if it is valid."
    ),
    "end": "`done`, `failed`, `cancelled`, `rejected` or `refused`.",
    "step": "Name of the step of the run: `collect`, `decide`, `register`, or one of the project.",
    "experiment": "Name of the experiment.",
    "arm": "Name of the arm; the control has no interval and no verdict.",
    "metric": (
        "Performance metric, such as `accuracy` or `estimated_accuracy`; of an experiment, one of "
        "its `primary` or `guards`; of a gap `accuracy`, `precision`, `recall` or `mae`; of "
        "fairness `statistical_parity_difference`, `disparate_impact_ratio`, "
        "`equal_opportunity_difference`, `false_positive_rate_difference` or "
        "`equalized_odds_difference`."
    ),
    "rate": "`selection`, `true_positive` or `false_positive`.",
    "test": (
        "`race` of first failures, `sample_ratio`, or `worse`: the guard with the most evidence."
    ),
    "verdict": "`continue` `promote` `rollback` `mismatch` `inconclusive`.",
    "type": "`experiment_started`, `experiment_changed` or `experiment_stopped`.",
    "limit": (
        "Name of the limit under `limits`, or `alerts`: new alerts that were refused, because "
        "20,000 are known in their partition of observations."
    ),
    "monitor": "Name of the monitor.",
    "status": "`firing`, `updated` or `resolved`.",
    "group": "Consumer group of the worker (`worker.group`).",
    "hash": (
        "Hash of the configuration of the evaluation; it differs between workers only while a "
        "change is rolled out."
    ),
    "python": "Version of Python.",
}

INTRODUCTION = """\
# Metrics

<!-- Generated: python -m stream_monitor.metrics.page > docs/metrics.md -->

A worker serves these metrics at `/metrics` (`worker.metrics`, port 9108) in the Prometheus text format. A scrape shows the state at that moment.

- `model_*` series are computed from the log of observations. Their counters never decrease, even over restarts and rebalances, and each series comes from one worker. A series appears when its partition has caught up, and disappears when its model version retires.
- `stream_monitor_*` series belong to the process and start at 0 with it.
- A metric that is undefined (no labels yet, no positive prediction, only one class) is **absent**, never 0 and never NaN. Write rules so that an absent series raises no alert; use `absent()` if it should.
- `model_latency_seconds` and `model_feature_quantile` behave like gauges. Their type is summary, without `_sum` and `_count`, because Prometheus reserves the label `quantile` for summaries.
- Ids are never labels. `limits.series` limits the series of a worker. A model below its fair share keeps all series. A model above it loses whole families, in this order: histograms by feature, other detail by feature, segments and custom metrics, other histograms, the rest. `stream_monitor_series_dropped_total` counts the dropped series.
- While a partition moves to another worker, Prometheus may see a gauge from two instances for some minutes. Use `max without (instance)`, not `sum`. For counters, add the rates.

`stream-monitor export dashboards` and `stream-monitor export rules` write Grafana dashboards and alerting rules for them. The same files are in `dashboards/`.
"""  # noqa: E501

CUSTOM = f"""
## Your own metrics

`metrics.custom` of a model (or of `defaults`) makes a metric of one field. Its name is `{CUSTOM_PREFIX}NAME`; a counter also ends in `_total`. Its labels are `model`, `version` and the segments under `labels` (characters that a label name must not have become `_`).

```yaml
defaults:
  metrics:
    custom:
      basket_value: {{type: histogram, field: features.basket, labels: [country], buckets: [10, 50, 200]}}
```

This gives `{CUSTOM_PREFIX}basket_value_bucket{{model="shop",version="3",country="NL",le="50"}}`. A `summary` has the configured `quantiles`. Two models may use the same name only with the same type, labels and buckets.
"""  # noqa: E501

CONTROLLER = """
## Of the controller

`stream-monitor controller` ([lifecycle.md](lifecycle.md)) serves these at `/metrics` on a port of its own (`lifecycle.port`, 9109). What it says of models comes from the log, so its counters go on after a failover. Only the active controller has them; the others say `stream_monitor_controller_active 0`.
"""  # noqa: E501

ARCHIVE = """
## Of the archive

`stream-monitor archive` serves these at `/metrics` on a port of its own (`archive.port`, 9110). Counters start at 0 with the process. Holes are read from the folder, so they stay after a restart, and archivers that share a folder say the same: use `max`, not `sum`.
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
    yield "\nEach of them also has the labels `model` and `version`."
    yield CUSTOM
    yield "## Of the process\n"
    yield from _table(
        [
            metric
            for metric in CATALOGUE.values()
            if not metric.name.startswith("model_")
            and metric not in (*OF_THE_LOOP, *OF_THE_ARCHIVE)
        ],
        shared=0,
    )
    yield CONTROLLER
    yield from _table(list(OF_THE_LOOP), shared=0)
    yield ARCHIVE
    yield from _table(list(OF_THE_ARCHIVE), shared=0)
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
