"""
Relations that must hold between keys.

Rule of the file: it checks settings whose values are right one by one, and reports a problem at the
key that a person would change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from stream_monitor.config import ranges
from stream_monitor.config.tree import Node
from stream_monitor.detectors.base import METHODS
from stream_monitor.errors import InputError
from stream_monitor.events.cells import feature_named
from stream_monitor.events.pattern import Pattern
from stream_monitor.settings import (
    CoreSettings,
    HttpSettings,
    KafkaSettings,
    ModelSettings,
    Threshold,
)
from stream_monitor.stats.metric_intervals import share_interval
from stream_monitor.windows.names import last_n

Say = Callable[[Node, str], Any]
Conflicts = Iterator[tuple[tuple[str, ...], str]]
"""Problems of a model: the path of the key that a person would change, and what is wrong."""


def check_model(model: ModelSettings, node: Node, say: Say) -> ModelSettings:
    """Report contradictions in the settings of a model, and complete the settings."""
    given = {metric for metric in model.thresholds if node.has("thresholds", metric, "min_labels")}
    for place, what in (
        *_thresholds(model, given),
        *_endless(model),
        *_endless_shares(model),
        *_features(model),
        *_others(model),
        *_drift(model),
    ):
        say(node.find(*place), what)
    return msgspec.structs.replace(
        model,
        thresholds={
            metric: _supported(model, node, metric, rule)
            for metric, rule in model.thresholds.items()
        },
    )


def _window_of(model: ModelSettings, rule: Threshold) -> str:
    return rule.window or next(
        (w for w in model.windows if last_n(w) is not None), model.windows[0]
    )


def _supported(model: ModelSettings, node: Node, metric: str, rule: Threshold) -> Threshold:
    """
    Lower `min_labels` for a window with fewer rows than its default, and judge by the value where
    the window is too short to be certain of anything; otherwise the alert would never fire.
    """
    n = last_n(_window_of(model, rule))
    if n is not None and metric in ranges.SHARES and not node.has("thresholds", metric, "judge"):
        sure = (
            rule.min is None or share_interval(0.0, n)[1] < rule.min,
            rule.max is None or share_interval(1.0, n)[0] > rule.max,
        )
        rule = rule if all(sure) else msgspec.structs.replace(rule, judge="value")
    if n is None or n >= rule.min_labels or node.has("thresholds", metric, "min_labels"):
        return rule
    return msgspec.structs.replace(rule, min_labels=n)


def _thresholds(model: ModelSettings, given: set[str]) -> Conflicts:
    for metric, rule in model.thresholds.items():
        place = ("thresholds", metric)
        if rule.min is None and rule.max is None:
            yield place, "min or max is missing"
        for name, bound in (("min", rule.min), ("max", rule.max), ("clear", rule.clear)):
            if bound is not None and metric in ranges.SHARES and not 0 <= bound <= 1:
                yield (*place, name), f"{metric} lies between 0 and 1"
        if rule.min is not None and rule.max is not None and rule.min > rule.max:
            yield (*place, "min"), f"min is more than max ({rule.max:g})"
        if rule.clear is not None and rule.min is not None and rule.clear < rule.min:
            yield (
                (*place, "clear"),
                f"clear must be at least min ({rule.min:g}), where the alert fires",
            )
        if (
            rule.clear is not None
            and rule.min is None
            and rule.max is not None
            and rule.clear > rule.max
        ):
            yield (
                (*place, "clear"),
                f"clear must be at most max ({rule.max:g}), where the alert fires",
            )
        if rule.window is not None and rule.window not in model.windows:
            yield (*place, "window"), f"must be one of `windows` ({', '.join(model.windows)})"
        n = last_n(_window_of(model, rule))
        if n is not None and rule.min_labels > n and metric in given:
            yield (*place, "min_labels"), f"the window last_{n} never holds so many"
        if model.task != "auto" and metric not in (
            ranges.REGRESSION if model.task == "regression" else ranges.CLASSIFICATION
        ):
            yield place, f"a model of task {model.task} has no {metric}"


def _endless(model: ModelSettings) -> Conflicts:
    """Thresholds whose alert could never fire, or never end."""
    for metric, rule in model.thresholds.items():
        low, high = ranges.RANGES[metric]
        place = ("thresholds", metric)
        name = f"the absolute value of {metric}" if metric == "bias" else metric
        if rule.min is not None and rule.min <= low:
            yield (
                (*place, "min"),
                (
                    f"{name} is never below {rule.min:g}, so the alert would never fire; give a "
                    "greater value, or `off`"
                ),
            )
        if rule.max is not None and rule.max >= high:
            yield (
                (*place, "max"),
                (
                    f"{name} is never above {rule.max:g}, so the alert would never fire; give a "
                    "smaller value, or `off`"
                ),
            )
        if rule.min is not None and rule.min > high:
            yield (
                (*place, "min"),
                f"{name} is never more than {high:g}, so the alert would never end",
            )
        if rule.max is not None and rule.max < low:
            yield (
                (*place, "max"),
                f"{name} is never less than {low:g}, so the alert would never end",
            )
        if rule.clear is not None and not low <= rule.clear <= high:
            yield (*place, "clear"), f"{name} never reaches it, so the alert would never end"
        if (
            rule.clear is not None
            and rule.min is not None
            and rule.max is not None
            and rule.clear > rule.max
        ):
            yield (
                (*place, "clear"),
                f"clear must be at most max ({rule.max:g}), else the alert would never end",
            )
        if model.task == "multiclass" and metric == "calibration_error":
            yield place, "a model of task multiclass has no calibration_error"
        if (
            model.task == "multiclass"
            and metric == "roc_auc"
            and last_n(_window_of(model, rule)) is None
        ):
            yield (*place, "window"), "roc_auc of a multiclass model is of windows `last_N` only"


def _endless_shares(model: ModelSettings) -> Conflicts:
    """Limits of 1 or more on shares, whose alert could never fire."""
    for place, share in (
        (("quality", "missing_ratio"), model.quality.missing_ratio),
        (("quality", "violation_ratio"), model.quality.violation_ratio),
        (("quality", "repeated_ratio"), model.quality.repeated_ratio),
        (("quality", "unknown_field_ratio"), model.quality.unknown_field_ratio),
        (("anomalies", "share"), model.anomalies.share),
        (("calls", "error_share"), model.calls.error_share),
    ):
        if share is not None and share >= 1:
            yield (
                place,
                "a share is never above 1, so the alert would never fire; give a smaller value"
                + ("" if place[0] == "anomalies" else ", or `off`"),
            )


def _drift(model: ModelSettings) -> Conflicts:
    """Distances and parameters of detectors that could never fire."""
    for method, limit in model.drift.thresholds.items():
        if method in ("js", "ks", "chi2") and limit >= 1:
            yield (
                ("drift", "thresholds", method),
                (
                    f"{method} is never above 1, so the alert would never fire; give a smaller "
                    "value, or `off`"
                ),
            )
    for signal in ranges.SIGNALS:
        for method, given in getattr(model.drift, signal).items():
            place, all_of = ("drift", signal, method), {**METHODS[method].parameters, **given}
            if method == "kswin" and all_of["window_size"] <= all_of["stat_size"]:
                yield (
                    place,
                    (
                        f"window_size ({all_of['window_size']:g}) must be more than stat_size "
                        f"({all_of['stat_size']:g})"
                    ),
                )
            if method == "ddm" and all_of["drift_threshold"] < all_of["warning_threshold"]:
                yield (
                    place,
                    (
                        f"drift_threshold ({all_of['drift_threshold']:g}) must be at least "
                        f"warning_threshold ({all_of['warning_threshold']:g})"
                    ),
                )
            if (
                method.startswith("hddm")
                and all_of["drift_confidence"] > all_of["warning_confidence"]
            ):
                yield (
                    place,
                    (
                        f"drift_confidence ({all_of['drift_confidence']:g}) must be at most "
                        f"warning_confidence ({all_of['warning_confidence']:g})"
                    ),
                )


def _features(model: ModelSettings) -> Conflicts:
    for name, feature in model.features.items():
        place = ("features", name)
        if feature.min is not None and feature.max is not None and feature.min > feature.max:
            yield (*place, "min"), f"min is more than max ({feature.max:g})"
        if feature.categories is not None and not feature.categories:
            yield (
                (*place, "categories"),
                (
                    "every value would be a violation, so the alert would never end; name the "
                    "values, or leave it out"
                ),
            )
        if feature.type in {"category", "text"} and (
            feature.min is not None or feature.max is not None
        ):
            yield (*place, "type"), "min and max are of numbers"
        if feature.type in {"numeric", "text"} and feature.categories is not None:
            yield (*place, "type"), "categories are of type category"
        if feature.categories is not None and (feature.min is not None or feature.max is not None):
            yield (*place, "categories"), "a feature has categories, or min and max"
        if feature.required and feature.max_missing is not None:
            yield (*place, "max_missing"), "no value of a required feature may be missing"
        if feature.max_missing is not None and feature.max_missing >= 1:
            yield (
                (*place, "max_missing"),
                "a share is never above 1, so the alert would never fire; give a smaller value",
            )
        if feature.type == "numeric" and feature.pattern is not None:
            yield (*place, "pattern"), "a pattern is of texts; numbers have min and max"
        if feature.pattern is not None:
            try:
                Pattern(feature.pattern)
            except InputError as e:
                yield (*place, "pattern"), str(e)


def _others(model: ModelSettings) -> Conflicts:
    if model.baseline.source == "file" and not model.baseline.path:
        yield ("baseline", "source"), "source: file needs a path"
    if model.baseline.source == "learn" and model.baseline.path:
        yield ("baseline", "path"), "a path needs source: file"
    if model.positive_class is not None and model.task in {"multiclass", "regression"}:
        yield ("positive_class",), f"a model of task {model.task} has no positive class"
    if model.task == "regression":
        for method in model.drift.errors:
            if METHODS[method].binary:
                yield (
                    ("drift", "errors", method),
                    f"{method} takes 0 and 1 only, and errors of a regression are numbers",
                )
    names = [segment.name for segment in model.segments]
    for name in model.fairness:
        if name not in names:
            yield ("fairness", name), f"is not one of `segments` ({', '.join(names) or 'none'})"
    if model.fairness and model.task in {"multiclass", "regression"}:
        yield ("fairness",), f"a model of task {model.task} has no positive class"
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield ("segments",), f"{name} is given twice"
    for segment in model.segments:
        if "=" in segment.name:
            yield (
                ("segments",),
                f"the name {segment.name!r} has a `=`, which parts name and value in what is shown",
            )
        if any(low >= high for low, high in zip(segment.cut, segment.cut[1:], strict=False)):
            yield ("segments",), f"the cut points of {segment.name} must ascend"
    for name in model.features:
        if feature_named(name) != name:
            yield (
                ("features", name),
                (
                    "is a name of stream-monitor's own; a feature that is called so is shown as "
                    f"{feature_named(name)!r}, and configured by that name"
                ),
            )
    for name, metric in model.metrics.custom.items():
        feature = metric.field.removeprefix("features.")
        if feature != metric.field and feature_named(feature) != feature:
            yield (
                ("metrics", "custom", name, "field"),
                f"a feature that is called so is known as features.{feature_named(feature)}",
            )
        if any(not 0 < q < 1 for q in metric.quantiles):
            yield ("metrics", "custom", name, "quantiles"), "quantiles lie between 0 and 1"


def check_kafka(kafka: KafkaSettings, node: Node, say: Say) -> None:
    """Report settings that are missing for a connection to Kafka."""
    security, place = kafka.security, node.find("security")
    for broker in kafka.bootstrap_servers.split(","):
        port = (
            broker.strip().rpartition(":")[2]
            if not broker.strip().endswith("]") and ":" in broker
            else ""
        )
        if port.isdigit() and not 1 <= int(port) <= 65_535:
            say(node.find("bootstrap_servers"), "a port lies between 1 and 65535")
    sasl = {
        "sasl_mechanism": security.sasl_mechanism,
        "username": security.username,
        "password": security.password,
    }
    if security.protocol.startswith("SASL"):
        missing = [name for name, value in sasl.items() if not value]
        if missing:
            say(place.find("protocol"), f"needs {', '.join(missing)} too")
    elif any(sasl.values()):
        name = next(name for name, value in sasl.items() if value)
        say(
            place.find(name),
            "needs protocol "
            f"{'SASL_SSL' if security.protocol == 'SSL' else 'SASL_SSL or SASL_PLAINTEXT'}",
        )
    files = {
        "ca_file": security.ca_file,
        "cert_file": security.cert_file,
        "key_file": security.key_file,
    }
    if not security.protocol.endswith("SSL") and any(files.values()):
        say(
            place.find(next(name for name, value in files.items() if value)),
            "needs protocol SSL or SASL_SSL",
        )
    if security.key_file and not security.cert_file:
        say(place.find("key_file"), "needs cert_file too")


def check_http(http: HttpSettings, node: Node, say: Say) -> None:
    """Report settings that are missing for the HTTP endpoint."""
    if bool(http.cert_file) != bool(http.key_file):
        say(
            node.find("cert_file" if http.cert_file else "key_file"),
            f"needs {'key_file' if http.cert_file else 'cert_file'} too",
        )
    if http.token is not None and not (
        http.token and http.token.reveal().isascii() and " " not in http.token.reveal()
    ):
        say(node.find("token"), "must be ASCII without spaces, and not empty")


def check_custom(core: CoreSettings, root: Node, say: Say) -> None:
    """Report custom metrics that Prometheus would refuse, or that collide."""
    if not any(model.metrics.custom for model in (core.defaults, *core.models.values())):
        return
    from stream_monitor.errors import ConfigError
    from stream_monitor.metrics.catalogue import custom_metrics

    try:
        custom_metrics(core)
    except ConfigError as e:
        places = [("defaults",), *(("models", name) for name in core.models)]
        for problem in e.problems:
            found = [
                p for p in places if problem.startswith(".".join((*p, "metrics", "custom", "")))
            ]
            place = max(found, key=len)
            name, _, what = problem.removeprefix(
                ".".join((*place, "metrics", "custom", ""))
            ).partition(": ")
            inherited = not root.has(*place, "metrics", "custom", name)
            say(
                root.find(*(("defaults",) if inherited else place), "metrics", "custom", name), what
            )
