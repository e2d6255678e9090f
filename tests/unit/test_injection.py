"""
`replay --inject`: what is put into the data is held to numpy, and what is found to a replay of a
file that was changed by hand.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from stream_monitor.cli import cli
from stream_monitor.config.checker import keys_of
from stream_monitor.config.injection import load_injection, parse_injection
from stream_monitor.config.injection_rules import KINDS, RULES
from stream_monitor.config.injection_settings import Drift, Injection
from stream_monitor.config.json_schema import injection_schema
from stream_monitor.errors import ConfigError, InputError
from stream_monitor.inputs.merge import Event
from stream_monitor.offline.injecting import Injector, Place, Survey

ROOT = Path(__file__).parents[2]
ROWS = 400
T0 = 1_700_000_000_000


def events(rows: int = ROWS) -> list[Event]:
    """A prediction and its label a second, of two models."""
    rng, found = np.random.default_rng(5), []
    for i in range(rows):
        at, name = T0 + i * 1_000, str(i).encode()
        row = {
            "event_id": str(i),
            "model": "a" if i % 4 else "b",
            "timestamp": at,
            "prediction": int(rng.random() < 0.5),
            "score": round(float(rng.random()), 3),
            "latency_ms": 10.0,
            "segments": {"plan": "free" if i % 2 else "paid"},
            "features": {
                "x": float(rng.normal(50, 8)),
                "n": int(rng.integers(9)),
                "country": str(rng.choice(["DE", "FR", "IT"])),
                "on": bool(rng.random() < 0.5),
            },
        }
        label = {"event_id": str(i), "model": row["model"], "label": int(rng.random() < 0.3)}
        found.append(("predictions", json.dumps(row).encode(), name, at))
        found.append(("labels", json.dumps(label).encode(), name, at))
    return found


EVENTS = events()


def surveyed(drift: Drift) -> Survey:
    survey = Survey(Injection(drifts=(drift,)))
    survey.add(EVENTS)
    return survey


def injected(seed: int = 0, blocks: int = 0, **keys: Any) -> tuple[list[Event], Injector]:
    """The events with one drift."""
    drift = Drift(**({"at": "100"} | keys))
    survey = surveyed(drift)
    survey.check(drift, "drifts.0")
    injector = Injector(drift, Place.of(drift, survey), survey, [seed])
    if not blocks:
        return list(injector.events(EVENTS)), injector
    parts = [EVENTS[i : i + blocks] for i in range(0, len(EVENTS), blocks)]
    return [event for part in parts for event in injector.events(part)], injector


def column(found: list[Event], field: str, kind: str = "predictions") -> list[Any]:
    rows = [json.loads(value) for k, value, _, _ in found if k == kind]
    if field.startswith("features."):
        return [row["features"].get(field[9:]) for row in rows]
    return [row.get(field) for row in rows]


X = np.array(column(EVENTS, "features.x"))
SD = float(np.std(X, ddof=1))


def test_the_survey_counts_as_numpy_does():
    survey = surveyed(Drift(kind="shift", field="features.x", by=1, at="0"))
    numbers = survey.fields["features.x"]
    assert numbers.n == ROWS
    assert numbers.mean == pytest.approx(X.mean())
    assert numbers.sd == pytest.approx(SD)
    assert (survey.rows, survey.labels, survey.models) == (ROWS, ROWS, {"a": 300, "b": 100})
    assert set(survey.classes.levels) == {"0", "1"}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"kind": "shift", "by": 0.5}, X + 0.5 * SD),
        ({"kind": "shift", "by": -3, "unit": "value"}, X - 3),
        ({"kind": "scale", "by": 1000}, X * 1000),
        ({"kind": "stuck"}, np.full(ROWS, X[100])),
        ({"kind": "stuck", "value": 7}, np.full(ROWS, 7.0)),
        (
            {"kind": "ramp", "by": 2, "unit": "value", "over": 50},
            X + 2 * np.minimum(1, (np.arange(ROWS) - 99) / 50),
        ),
    ],
)
def test_numbers_change_as_in_numpy_from_its_row_on(keys, expected):
    found, injector = injected(field="features.x", **keys)
    after = np.array(column(found, "features.x"))
    assert after[100:] == pytest.approx(expected[100:])
    assert found[:200] == EVENTS[:200], "bytes before it are passed on"
    assert (injector.start_ms, injector.changed) == (T0 + 100_000, 300)
    assert injector.times == [T0 + i * 1_000 for i in range(100, ROWS)]


def test_noise_has_the_spread_that_was_asked_for():
    found, _ = injected(kind="noise", field="features.x", by=2, at="0")
    added = np.array(column(found, "features.x")) - X
    assert added.std() == pytest.approx(2 * SD, rel=0.1)
    assert abs(added.mean()) < 0.3 * SD


@pytest.mark.parametrize(
    ("keys", "is_changed"),
    [
        ({"kind": "missing"}, lambda v: v is None),
        ({"kind": "wrong_type"}, lambda v: v == "n/a"),
        ({"kind": "new_level", "level": "XX"}, lambda v: v == "XX"),
    ],
)
def test_a_share_of_the_rows_is_broken(keys, is_changed):
    found, injector = injected(field="features.n", share=0.25, at="0", **keys)
    changed = [is_changed(v) for v in column(found, "features.n")]
    assert sum(changed) == injector.changed
    assert 0.25 * ROWS - 35 < sum(changed) < 0.25 * ROWS + 35  # four standard deviations


def test_categories_change_places_and_keep_their_type():
    found, _ = injected(kind="swap", field="features.country", levels=("DE", "IT"), at="0")
    swapped = {"DE": "IT", "IT": "DE", "FR": "FR"}
    assert column(found, "features.country") == [
        swapped[c] for c in column(EVENTS, "features.country")
    ]
    found, _ = injected(kind="swap", field="features.on", levels=("true", "false"), at="0")
    assert column(found, "features.on") == [not v for v in column(EVENTS, "features.on")]


def test_a_score_stays_within_0_and_1_and_a_missing_one_is_absent():
    found, _ = injected(kind="shift", field="score", by=0.5, unit="value", at="0")
    score = np.array(column(EVENTS, "score"))
    assert column(found, "score") == pytest.approx(np.minimum(score + 0.5, 1))
    found, _ = injected(kind="missing", field="score")
    assert '"score"' not in found[-2][1].decode()


def test_labels_flip_by_their_own_rows_also_of_one_class_and_of_one_segment():
    labels, before = "labels", column(EVENTS, "label", "labels")
    found, _ = injected(kind="flip")
    assert column(found, "label", labels) == before[:100] + [1 - v for v in before[100:]]
    found, _ = injected(kind="flip", of="1", at="0")
    assert column(found, "label", labels) == [0] * ROWS
    found, injector = injected(kind="flip", only={"plan": "free"}, at="0")
    expected = [1 - v if i % 2 else v for i, v in enumerate(before)]
    assert column(found, "label", labels) == expected
    assert injector.changed == ROWS // 2


def test_rows_that_are_dropped_take_their_labels_with_them():
    found, injector = injected(kind="drop", share=0.5)
    ids = [column(found, "event_id", kind) for kind in ("predictions", "labels")]
    assert ids[0] == ids[1]
    assert len(ids[0]) == ROWS - injector.changed
    assert 110 < injector.changed < 190
    assert len(injector.times) == 300, "time goes on while nothing comes"


def test_a_drift_has_an_end_a_model_and_a_segment():
    x = column(EVENTS, "features.x")
    found, _ = injected(kind="stuck", field="features.x", value=0, lasts="50")
    assert column(found, "features.x") == x[:100] + [0] * 50 + x[150:]
    found, _ = injected(kind="stuck", field="features.x", value=0, at="25%", lasts="30s")
    assert column(found, "features.x") == x[:100] + [0] * 30 + x[130:]
    at = "2023-11-14T22:15:00Z"  # 100 s after the first row
    found, _ = injected(kind="stuck", field="features.x", value=0, at=at, lasts="1s")
    assert column(found, "features.x") == [*x[:100], 0, *x[101:]]
    found, _ = injected(kind="stuck", field="features.x", value=0, model="b", at="10")
    assert column(found, "features.x") == [v if i % 4 or i < 40 else 0 for i, v in enumerate(x)]
    only = {"plan": "paid", "country": "DE"}
    found, _ = injected(kind="stuck", field="features.x", value=0, only=only, at="0")
    country = column(EVENTS, "features.country")
    assert column(found, "features.x") == [
        0 if i % 2 == 0 and country[i] == "DE" else v for i, v in enumerate(x)
    ]


def test_it_follows_from_the_seed_and_not_from_how_events_are_cut():
    keys: dict[str, Any] = {"kind": "missing", "field": "features.x", "share": 0.5}
    assert injected(**keys)[0] == injected(blocks=7, **keys)[0]
    assert injected(**keys)[0] != injected(seed=1, **keys)[0]


def test_what_is_no_event_is_passed_on():
    drift = Drift(kind="missing", field="features.x", at="0")
    injector = Injector(drift, Place(row=0), surveyed(drift), [0])
    odd = [("predictions", value, b"", T0) for value in (b"{", b"[]", b'{"features": 1}', b"\xff")]
    assert list(injector.events(odd)) == odd


# ---- the file


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "d.yaml: is empty"),
        ("drifts: []", "d.yaml:1: drifts: at least one drift is expected"),
        ("drift: []", "d.yaml:1: drift: unknown key; did you mean 'drifts'?"),
        (
            "drifts:\n- {kind: shfit, field: score, by: 1, at: 1}",
            "d.yaml:2: drifts.0.kind: must be one of shift",
        ),
        ("drifts:\n- {kind: shfit}", "did you mean 'shift'?"),
        ("drifts:\n- {kind: shift, field: x, by: 1, at: 1}", "features.NAME is expected (got 'x')"),
        ("drifts:\n- {kind: shift, field: score, at: 1}", "d.yaml:2: drifts.0: shift needs by"),
        (
            "drifts:\n- kind: stuck\n  field: score\n  at: 1\n  by: 2",
            "d.yaml:5: drifts.0.by: means nothing to stuck, which has field, value",
        ),
        ("drifts: [{kind: drop, share: 0.5}]", "at is missing: a row, a time or a share"),
        ("drifts: [{kind: drop, share: 2, at: 1}]", "drifts.0.share: must be at most 1 (got 2)"),
        ("drifts: [{kind: drop, share: 0.5, at: soon}]", "share such as 60% is expected"),
        ("drifts: [{kind: flip, at: 1, for: ever}]", "a duration such as 2h is expected"),
        ("repeats: 2\ndrifts: [{kind: flip, at: 1}]", "with `repeats` places are random"),
        (
            "drifts: [{kind: swap, field: features.x, levels: [a, a], at: 1}]",
            "two different levels are expected",
        ),
    ],
)
def test_each_fault_of_the_file_has_its_line_and_its_way_out(text, problem):
    with pytest.raises(ConfigError) as error:
        parse_injection(text, "d.yaml")
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"kind": "shift", "field": "features.xx", "by": 1}, "no row has features.xx. Did you"),
        ({"kind": "shift", "field": "features.country", "by": 1}, "has no numbers to shift"),
        ({"kind": "shift", "field": "latency_ms", "by": 1}, "is constant; use `unit: value`"),
        ({"kind": "swap", "field": "features.country", "levels": ("DE", "US")}, "is never 'US'"),
        ({"kind": "missing", "field": "score", "model": "c"}, "no rows of 'c'; there are a, b"),
    ],
)
def test_a_drift_that_the_data_cannot_have_is_refused(keys, problem):
    with pytest.raises(InputError, match=problem):
        injected(**keys)


def test_the_schema_and_the_page_have_every_key_and_every_kind():
    page = (ROOT / "docs/replay.md").read_text()
    schema = injection_schema()
    for kind, rules in RULES.items():
        assert set(rules) == set(keys_of(kind)) == set(schema["$defs"][kind.__name__]["properties"])
        assert all(rule.text in page for rule in rules.values())
    assert set(KINDS) == set(schema["$defs"]["Drift"]["properties"]["kind"]["enum"]) - {None}
    assert all(what in page for _, _, what in KINDS.values())
    example = YAML(typ="safe").load(ROOT / "examples/drift.yaml")
    jsonschema.validate(example, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"drifts": [{"kind": "shfit"}]}, schema)
    assert {d.kind for d in load_injection(str(ROOT / "examples/drift.yaml")).drifts} == set(KINDS)


# ---- the command


def table(folder: Path, rows: int, change: Any = lambda _, row: row) -> str:
    """A table as people have it, with a model that is right in three of four rows."""
    rng, path = np.random.default_rng(2), folder / "scored.csv"
    with path.open("w") as file:
        writer = csv.writer(file)
        names = ["amount", "age", "country", "score", "latency_ms", "prediction", "label"]
        writer.writerow(names)
        for i in range(rows):
            p = float(rng.random())
            row = {
                "amount": round(float(rng.lognormal()), 3),
                "age": round(float(rng.normal(40, 10)), 1),
                "country": str(rng.choice(["DE", "FR", "IT"], p=[0.5, 0.3, 0.2])),
                "score": round(p, 3),
                "latency_ms": round(float(rng.gamma(4, 3)), 1),
                "prediction": int(p > 0.5),
                "label": int(rng.random() < p),
            }
            writer.writerow([change(i, row)[name] for name in names])
    return str(path)


def replayed(folder: Path, file: str, drifts: str, *more: str) -> tuple[Any, list[Any]]:
    (folder / "drift.yaml").write_text(drifts)
    (folder / "monitor.yaml").write_text("defaults: {baseline: {rows: 300}}\n")
    alerts = folder / "alerts.jsonl"
    arguments = ["--config", str(folder / "monitor.yaml"), "--alerts", str(alerts), *more]
    arguments += ["--inject", str(folder / "drift.yaml")] if drifts else []
    run = CliRunner().invoke(cli, ["replay", file, *arguments])
    if run.exception is not None and not isinstance(run.exception, SystemExit):
        raise run.exception
    assert run.exit_code == 0, run.output
    found = [json.loads(line) for line in alerts.read_text().splitlines()]
    return json.loads(run.stdout) if "--json" in more else run.stdout, found


def test_a_drift_is_found_as_in_a_file_that_was_changed_by_hand(tmp_path):
    file = table(tmp_path, 600)
    text = "drifts: [{kind: missing, field: features.age, at: 400}]"
    summary, told = replayed(tmp_path, file, text, "--json")

    def emptied(i: int, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "age": "" if i >= 400 else row["age"]}

    _, by_hand = replayed(tmp_path, table(tmp_path, 600, emptied), "")
    assert told == by_hand
    assert {(a["kind"], a["subject"]) for a in told} == {("data_quality", "age")}
    (drift,) = summary["injection"]["drifts"]
    assert (drift["found"], drift["named_first_share"], drift["by_chance_share"]) == (1, 1, 0)
    first = next(a for a in told if a["status"] == "firing")["starts_at"]
    hours, minutes, seconds = first[11:19].split(":")
    row = int(hours) * 3_600 + int(minutes) * 60 + int(seconds) - 1  # a row a second, from 1 on
    assert drift["delay_rows"]["median"] == row - 400 + 1
    assert summary["injection"]["without_drifts"]["alarms"] == 0


def test_a_trial_tells_what_a_run_with_its_place_from_the_beginning_tells(tmp_path):
    file = table(tmp_path, 800)
    one = "{kind: missing, field: features.age"
    trials = f"repeats: 2\nhorizon: 150\nseed: 3\ndrifts: [{one}}}, {{kind: flip, share: 0.001}}]"
    many, told = replayed(tmp_path, file, trials, "--json")
    assert told == [], "alerts are those of the data as it is"
    (emptied, clean) = many["injection"]["drifts"]
    assert (emptied["found"], clean["found"], clean["delay_rows"]) == (2, 0, None)
    for trial in emptied["trials"]:
        assert 360 <= trial["row"] < 650
        single = f"horizon: 150\ndrifts: [{one}, at: {trial['row']}}}]"
        once, _ = replayed(tmp_path, file, single, "--json")
        (whole,) = once["injection"]["drifts"][0]["trials"]
        assert {**whole, "row": 0, "changed": 0} == {**trial, "row": 0, "changed": 0}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_every_format_gives_the_same(tmp_path, form):
    file = table(tmp_path, 700)
    other = str(tmp_path / f"scored.{form}")
    rows = pyarrow.csv.read_csv(file)
    if form == "parquet":
        pyarrow.parquet.write_table(rows, other)
    else:
        Path(other).write_text("".join(json.dumps(row) + "\n" for row in rows.to_pylist()))
    text = "drifts: [{kind: missing, field: features.age, share: 0.5, at: 400}]"
    expected, _ = replayed(tmp_path, file, text, "--json")
    assert replayed(tmp_path, other, text, "--json")[0]["injection"] == expected["injection"]
    assert expected["injection"]["drifts"][0]["found"] == 1


def test_the_example_runs_and_shows_its_table(tmp_path):
    text = (ROOT / "examples/drift.yaml").read_text()
    small = text.replace("repeats: 2 ", "repeats: 1 ").replace("horizon: 2000", "horizon: 150")
    shown, _ = replayed(tmp_path, table(tmp_path, 700), small)
    lines = shown[shown.index("without drifts") :].partition("note:")[0].splitlines()
    assert lines[0].startswith("without drifts: 0 alarms in 700 rows")
    assert lines[1].split("  ")[0] == "drift"
    assert len(lines) == 2 + len(load_injection(str(ROOT / "examples/drift.yaml")).drifts)
    assert any(line.startswith("missing of features.age") and "1 of 1" in line for line in lines)


def test_too_few_rows_for_random_places_is_an_error(tmp_path):
    (tmp_path / "drift.yaml").write_text("repeats: 2\ndrifts: [{kind: flip}]")
    arguments = [table(tmp_path, 50), "--inject", str(tmp_path / "drift.yaml")]
    run = CliRunner().invoke(cli, ["replay", *arguments])
    assert isinstance(run.exception, InputError)
    assert "50 rows are too few: a random place needs 6,000 rows before it" in str(run.exception)
