"""
Caps that are quantiles of the past, and custom metrics as outcomes: numbers and fields stand in the
event before anything is counted. The oracle of a cap is a sorted list in plain Python.
"""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.cli.experiment_board import board_of
from stream_monitor.cli.experiment_caps import resolve_caps
from stream_monitor.cli.experiment_events import started
from stream_monitor.config import load
from stream_monitor.errors import InputError
from stream_monitor.settings import CoreSettings, CustomMetric, Metrics, ModelSettings

OPTIONS: dict[str, Any] = {
    "maps": (),
    "ignore": (),
    "interval": "1s",
    "label_delay": "0s",
    "timezone": "UTC",
    "dates": None,
    "decimal": None,
    "missing": (),
}


def event(cap: Any = "p99", **more: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "experiment": "x-1",
        "arms": ["control", "b"],
        "primary": {"metric": "features.spent", "effect": 1.0, "cap": cap},
        "guards": [{"metric": "label", "effect": 1.0, "cap": "p90"}],
        **more,
    }


def past(path: Path, n: int = 3_000, seed: int = 3, model: str = "m") -> dict[str, list[float]]:
    """A CSV as pandas writes it, with missing values; the values of two columns."""
    rng = random.Random(seed)
    spent = [round(rng.lognormvariate(3, 1.5), 3) for _ in range(n)]
    earned = [round(rng.expovariate(0.1), 2) for _ in range(n)]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["event_id", "model", "variant", "unit", "prediction", "label", "spent"])
        for i, (s, e) in enumerate(zip(spent, earned, strict=True)):
            row = [
                f"p{seed}-{i}",
                model,
                "",
                f"u{i % 50}",
                10,
                e if i % 7 else "",
                s if i % 5 else "",
            ]
            out.writerow(row)
    return {
        "spent": [s for i, s in enumerate(spent) if i % 5],
        "label": [e for i, e in enumerate(earned) if i % 7],
    }


def quantile(values: list[float], share: float) -> float:
    """The smallest value that so many are not greater than."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


@pytest.mark.parametrize("cap", ["p99", "p97.5", "p50"])
def test_a_cap_is_the_quantile_of_the_outcomes_of_a_file(tmp_path: Path, cap: str) -> None:
    values, given = past(tmp_path / "past.csv"), event(cap)
    resolve_caps(given, "--from", str(tmp_path / "past.csv"), OPTIONS, load(None, {}))
    made = started(given, board_of([]), CoreSettings(), "2026-11-02T09:00:00Z", None)
    spent, label = made.event["primary"]["cap"], made.event["guards"][0]["cap"]
    assert spent == pytest.approx(quantile(values["spent"], float(cap[1:]) / 100), abs=1e-6)
    assert label == pytest.approx(quantile(values["label"], 0.9), abs=1e-6)


def test_a_replay_takes_caps_from_a_past_and_refuses_them_without_one(tmp_path: Path) -> None:
    values = past(tmp_path / "past.csv")
    past(tmp_path / "now.csv", seed=4)
    (tmp_path / "e.json").write_text(json.dumps(event()))
    words = ["replay", str(tmp_path / "now.csv"), "--experiment", str(tmp_path / "e.json")]
    refused = CliRunner().invoke(cli, words)
    assert isinstance(refused.exception, InputError)
    assert "features.spent is 'p99': it must be a number" in str(refused.exception)
    assert "--experiment-past PAST" in str(refused.exception)
    done = CliRunner().invoke(cli, [*words, "--experiment-past", str(tmp_path / "past.csv")])
    shown = f"cap of features.spent is {quantile(values['spent'], 0.99):.6g}, p99 of 2,400 outcomes"
    assert shown in done.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (event("p100"), "a quantile from p50 to p99.999"),
        (event("99 %"), "a quantile from p50 to p99.999"),
        (event("p99.9"), "the past has 2,400 outcomes of it; 10,000 are needed"),
        (event(model="other"), "no row is of model 'other' (models of the rows: m)"),
        (event(100, guards=[]), "no `cap` is a quantile such as p99; leave it out"),
    ],
)
def test_a_cap_that_cannot_be_known_is_refused(
    tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    past(tmp_path / "past.csv")
    with pytest.raises(InputError) as e:
        resolve_caps(given, "--from", str(tmp_path / "past.csv"), OPTIONS, load(None, {}))
    assert told in str(e.value)


SHOP = CoreSettings(
    models={
        "m": ModelSettings(
            metrics=Metrics(custom={"basket": CustomMetric(type="gauge", field="features.spent")})
        )
    }
)


def test_violations_without_rules_are_told() -> None:
    given = event(100, guards=[{"metric": "violations", "race": True}])
    made = started(given, board_of([]), SHOP, "2026-11-02T09:00:00Z", None)
    assert any("m has no rules under `features`" in note for note in made.notes)
    given["guards"] = []
    assert not started(given, board_of([]), SHOP, "2026-11-02T09:00:00Z", None).notes


def test_a_custom_metric_is_an_outcome_by_its_field() -> None:
    given = event(100, primary={"metric": "custom.basket", "effect": 1.0}, guards=[])
    made = started(given, board_of([]), SHOP, "2026-11-02T09:00:00Z", None)
    assert made.event["primary"]["field"] == "features.spent"


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("custom.baskets", "is not under metrics.custom of the model; known are custom.basket"),
        ("model_custom_basket", "in an experiment it is 'custom.basket'"),
        ("f1", "has no value of one call, so units cannot be compared by it; take accuracy"),
        ("roc_auc", "take brier. A feature of this name is features.roc_auc"),
    ],
)
def test_a_metric_without_a_value_of_a_call_is_refused(metric: str, told: str) -> None:
    given = event(100, primary={"metric": metric, "effect": 1.0}, guards=[])
    with pytest.raises(InputError) as e:
        started(given, board_of([]), SHOP, "2026-11-02T09:00:00Z", None)
    assert told in str(e.value)
