"""Contracts of data quality: clean rows keep them, broken ones do not, and imports say all."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bench.contracts import LAWS, contract_of, measured
from stream_monitor.cli import cli
from stream_monitor.config import parse
from stream_monitor.errors import InputError
from stream_monitor.offline.contract import form_of, written
from stream_monitor.offline.sagemaker import read
from stream_monitor.settings import Feature

EXPECTED: dict[str, dict[str, Any]] = {
    "uniform": {"type": "numeric", "min": 0.0, "required": True},
    "constant": {"type": "numeric", "min": 6.0, "max": 8.0},
    "ids that ascend": {"type": "numeric", "unique": True, "min": None},
    "flags, 1 %": {"type": "category", "categories": ("0", "1")},
    "cities, a long tail": {"type": "text", "categories": None, "pattern": None, "unique": False},
    "codes": {"type": "text", "pattern": "T[0-9]{6}"},
    "UUIDs": {"unique": True, "type": "text"},
    "dates": {"pattern": r"\d{4}-\d{2}-\d{2}", "categories": None},
    "days": {"pattern": r"\d{4}-\d{2}-\d{2}", "unique": False},
    "words": {"type": "text", "pattern": None},
    "missing 5 %": {"required": False, "max_missing": pytest.approx(0.09, abs=0.015)},
}


@pytest.mark.parametrize("law", LAWS)
def test_rows_of_the_same_law_keep_the_contract(law: str) -> None:
    """A share of 0.001 is a fiftieth of what is an alert; `bench/contracts.py` has more rows."""
    rule, share = measured(law, references=2, new=4_000)
    assert share <= 0.001
    for key, value in EXPECTED.get(law, {}).items():
        assert getattr(rule, key) == value, key


def test_few_rows_make_few_rules() -> None:
    rng = np.random.default_rng(1)
    found = contract_of({name: law(rng, 30, 0) for name, law in LAWS.items()})
    for of in found.values():
        assert not of.rule.required
        assert not of.rule.unique
    assert found["codes"].rule.pattern is None


@pytest.mark.parametrize("values", [["a1"] * 3, [f"A{i}" for i in range(600)], ["", "x"]])
def test_what_has_no_one_form_has_no_pattern(values: list[str]) -> None:
    assert form_of(set(values)) is None


def test_a_contract_of_any_names_and_values_is_a_configuration() -> None:
    rng = np.random.default_rng(2)
    columns: dict[str, list[Any]] = {
        "a: b": LAWS["normal"](rng, 1_500, 0),
        "null": ["it's", 'a "b"', "#c", "- d"] * 375,
        "ü {x}": [1e300, -1e300, 1e-300] * 500,
        "tiny": [1e-200, 2e-200, 3e-200] * 500,
        "n": [-5, -3, -1] * 500,
    }
    model = parse(written("no: model", contract_of(columns), "f.csv", [])).core.models["no: model"]
    assert model.features.keys() == columns.keys()
    assert model.features["null"].categories == tuple(sorted(set(columns["null"])))
    assert model.features["n"].max == 0


def test_the_command_writes_rules_that_the_gate_checks(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def table(name: str, unit: float, code: str) -> str:
        path = tmp_path / name
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["amount", "code", "label"])
            for i in range(2_000):
                amount = float(rng.gamma(2, 20)) * unit
                rows.writerow([round(amount, 2), f"{code}{rng.integers(10**4):04d}", i % 2])
        return str(path)

    reference, same, other = (
        table("ref.csv", 1.0, "T"),
        table("same.csv", 1.0, "T"),
        table("other.csv", 100.0, "?"),
    )
    out = str(tmp_path / "contract.yaml")
    made = CliRunner().invoke(cli, ["baseline", "contract", reference, "--model", "m", "-o", out])
    assert made.exit_code == 0, made.output
    core = parse(Path(out).read_text()).core.models["m"]
    assert core.features["code"] == Feature(type="text", pattern="T[0-9]{4}", required=True)
    gate = ["--model", "m", "--config", out]
    good = CliRunner().invoke(cli, ["quality", "check", same, *gate])
    assert good.exit_code == 0, good.output
    bad = CliRunner().invoke(cli, ["quality", "check", other, *gate])
    assert bad.exit_code == 1
    assert "broken: pattern code: 2,000 values" in bad.output
    assert "broken: range amount" in bad.output


CONSTRAINTS = {
    "version": 0.0,
    "features": [
        {
            "name": "Churn",
            "inferred_type": "Integral",
            "completeness": 1.0,
            "num_constraints": {"is_non_negative": True},
        },
        {
            "name": "Charge",
            "inferred_type": "Fractional",
            "completeness": 0.95,
            "num_constraints": {"is_non_negative": False},
        },
        {
            "name": "State",
            "inferred_type": "String",
            "completeness": 1.0,
            "string_constraints": {"domains": ["NY", "CA"]},
        },
        {"name": "Odd", "inferred_type": "Unknown", "completeness": 1.0},
    ],
    "monitoring_config": {
        "evaluate_constraints": "Enabled",
        "emit_metrics": "Enabled",
        "datatype_check_threshold": 1.0,
        "domain_content_threshold": 1.0,
        "distribution_constraints": {
            "perform_comparison": "Enabled",
            "comparison_threshold": 0.1,
            "comparison_method": "Robust",
        },
    },
}


def test_constraints_of_sagemaker_are_rules_and_what_is_not_is_told(tmp_path: Path) -> None:
    file = tmp_path / "constraints.json"
    file.write_text(json.dumps(CONSTRAINTS))
    made = CliRunner().invoke(
        cli, ["baseline", "contract", "--sagemaker", str(file), "--model", "m"]
    )
    assert made.exit_code == 0, made.output
    features = parse(made.stdout).core.models["m"].features
    assert features == {
        "Churn": Feature(type="numeric", min=0, required=True),
        "Charge": Feature(type="numeric", max_missing=0.05),
        "State": Feature(type="category", categories=("NY", "CA"), required=True),
        "Odd": Feature(required=True),
    }
    _, notes = read(file.read_bytes(), "c.json")
    for told in ("Churn: whole numbers", "Odd: the type", "datatype_check", "comparison_threshold"):
        assert sum(told in note for note in notes) == 1
        assert told in made.output


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"features": [{"name": "a", "completeness": 2}]}', "x"]
)
def test_another_file_is_no_constraints(tmp_path: Path, text: str) -> None:
    file = tmp_path / "constraints.json"
    file.write_text(text)
    made = CliRunner().invoke(cli, ["baseline", "contract", "--sagemaker", str(file)])
    assert isinstance(made.exception, InputError)
    assert "constraints.json" in str(made.exception)
