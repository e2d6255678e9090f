"""`config check` refuses rules that no value could break, or none keep, with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stream_monitor.config import parse
from stream_monitor.errors import ConfigError

NEVER_FIRE = "the alert would never fire"
NEVER_END = "the alert would never end"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"thresholds": {"accuracy": {"min": 0}}}, NEVER_FIRE),
    ({"thresholds": {"accuracy": {"max": 1}}}, NEVER_FIRE),
    ({"thresholds": {"rmse": {"min": 0}}}, NEVER_FIRE),
    ({"thresholds": {"r2": {"max": 1}}}, NEVER_FIRE),
    ({"thresholds": {"r2": {"min": 1.5}}}, NEVER_END),
    ({"thresholds": {"mae": {"max": -1}}}, NEVER_END),
    ({"thresholds": {"accuracy": {"min": 0.8, "clear": 0.7}}}, "clear must be at least min"),
    ({"thresholds": {"log_loss": {"max": 0.4, "clear": 0.5}}}, "clear must be at most max"),
    ({"thresholds": {"mae": {"max": 2, "clear": -1}}}, NEVER_END),
    ({"thresholds": {"accuracy": {"min": 0.9, "max": 0.8}}}, "min is more than max"),
    ({"thresholds": {"accuracy": {"severity": "critical"}}}, "min or max is missing"),
    ({"thresholds": {"accuracy": {"min": 0.9, "window": "last_7"}}}, "must be one of `windows`"),
    (
        {"windows": ["last_200"], "thresholds": {"accuracy": {"min": 0.9, "min_labels": 500}}},
        "never holds so many",
    ),
    ({"task": "regression", "thresholds": {"accuracy": {"min": 0.9}}}, "has no accuracy"),
    ({"task": "multiclass", "thresholds": {"calibration_error": 0.1}}, "has no calibration_error"),
    (
        {
            "task": "multiclass",
            "windows": ["last_1000", "1h"],
            "thresholds": {"roc_auc": {"min": 0.9, "window": "1h"}},
        },
        "`last_N` only",
    ),
    ({"quality": {"missing_ratio": 1}}, NEVER_FIRE),
    ({"quality": {"violation_ratio": 1}}, NEVER_FIRE),
    ({"anomalies": {"share": 1}}, NEVER_FIRE),
    ({"calls": {"error_share": 1}}, NEVER_FIRE),
    ({"drift": {"thresholds": {"js": 1}}}, NEVER_FIRE),
    (
        {"drift": {"features": {"kswin": {"window_size": 30, "stat_size": 30}}}},
        "must be more than stat_size",
    ),
    (
        {"drift": {"errors": {"ddm": {"drift_threshold": 1, "warning_threshold": 2}}}},
        "must be at least warning_threshold",
    ),
    ({"features": {"x": {"categories": []}}}, NEVER_END),
    ({"features": {"x": {"min": 2, "max": 1}}}, "min is more than max"),
]


@pytest.mark.parametrize(
    ("model", "message"), REFUSED, ids=[json.dumps(model) for model, _ in REFUSED]
)
@pytest.mark.parametrize("place", ["defaults", "models"])
def test_a_rule_without_sense_is_refused_with_its_reason(
    model: dict[str, Any], message: str, place: str
) -> None:
    content = {"defaults": model} if place == "defaults" else {"models": {"fraud": model}}
    with pytest.raises(ConfigError) as refused:
        parse(json.dumps(content))
    assert any(message in problem for problem in refused.value.problems), refused.value.problems


@pytest.mark.parametrize(
    "model",
    [
        {"thresholds": {"accuracy": {"min": 0.001, "max": 0.999}}},
        {"thresholds": {"bias": {"max": 1e9}, "rmse": 1e-6, "r2": {"min": -3}}},
        {
            "quality": {"missing_ratio": 0.999, "violation_ratio": "off"},
            "calls": {"error_share": 0.0, "latency_factor": "off"},
        },
    ],
)
def test_rules_at_the_edge_are_taken(model: dict[str, Any]) -> None:
    parse(json.dumps({"defaults": model}))
