"""
Thresholds within chance are told with the number; that number is what samples of one law keep.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from stream_monitor.cli.config import command
from stream_monitor.config.remarks import remarks
from stream_monitor.settings import Baseline, CoreSettings, Drift, ModelSettings, Quality
from stream_monitor.stats import divergence
from stream_monitor.stats.chance import chance_of

METHODS = ("psi", "js", "ks", "chi2", "wasserstein")


def measured(method: str, expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    if method == "psi":
        return divergence.psi(expected, actual, unbiased=True)
    one = {"js": divergence.jensen_shannon, "ks": divergence.ks, "chi2": divergence.chi2}
    return one[method](expected, actual)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("before", "now"), [(5_000, 1_000), (500, 200), (5_000, 100_000)])
def test_chance_is_beyond_what_samples_of_one_law_show_and_not_far(
    method: str, before: int, now: int
) -> None:
    rng = np.random.default_rng(3)
    if method == "wasserstein":
        places = (np.arange(2_000) + 0.5) / 2_000
        a, b = (
            np.quantile(rng.normal(size=(100, n)), places, axis=1)
            for n in (before, min(now, 20_000))
        )
        found = np.abs(a - b).mean(axis=0)
        now = min(now, 20_000)
    else:
        law = np.full(20, 1 / 20)
        found = measured(
            method,
            rng.multinomial(before, law, 2_000).astype(float),
            rng.multinomial(now, law, 2_000).astype(float),
        )
    bound = chance_of(method, before, now)
    assert found.max() < bound
    assert bound < 6 * np.quantile(found, 0.95)


def test_a_threshold_within_chance_is_told_with_the_number_and_others_are_not() -> None:
    def of(method: str, limit: float, min_rows: int = 200, source: str = "learn") -> list[str]:
        baseline = Baseline() if source == "learn" else Baseline(source="file", path="p.json")
        return remarks(
            CoreSettings(
                defaults=ModelSettings(
                    drift=Drift(thresholds={method: limit}),
                    quality=Quality(min_rows=min_rows),
                    baseline=baseline,
                )
            )
        )

    for method in METHODS:
        chance = chance_of(method, 5_000, 1_000)
        (text,) = of(method, chance * 0.5)
        assert f"defaults.drift.thresholds.{method}" in text
        assert f"{chance:.2g} or more" in text
        assert of(method, chance * 1.5) == []
        assert of(method, chance * 0.5, min_rows=40_000, source="file") == []


def test_config_check_says_it(tmp_path: Path) -> None:
    file = tmp_path / "monitor.yaml"
    file.write_text("defaults: {drift: {thresholds: {psi: 0.02}}}\nmodels: {fraud: {}}\n")
    told = CliRunner().invoke(command, ["check", str(file)])
    assert told.exit_code == 0
    assert told.output.count("is within chance") == 1
    found = CliRunner().invoke(command, ["check", str(file), "--json"])
    assert len(json.loads(found.output)["notes"]) == 1
