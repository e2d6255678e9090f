"""A replay with an experiment: what it prints, the report, the summary, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from stream_monitor.cli import cli

Row = dict[str, Any]
T0 = 1_760_000_000_000
ROOT = Path(__file__).parents[2]
STARTED: Row = {
    "model": "m",
    "experiment": "x-1",
    "arms": ["control", "<b>"],
    "weights": {"control": 50, "<b>": 50},
    "primary": {"metric": "features.spent", "effect": 0.5, "cap": 100},
    "guards": [{"metric": "accuracy", "effect": 0.1}],
    "duration": ["10m", "30d"],
}


def table(n: int = 2_000, *, better: float = 0.0, wrong: float = 0.2, seed: int = 1) -> list[Row]:
    """One call a unit; half of them in each arm."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        arm, y = int(rng.random() < 0.5), int(rng.random() < 0.5)
        rows.append(
            {
                "event_id": f"e{i}",
                "timestamp": T0 + i * 1_000,
                "model": "m",
                "variant": ("control", "<b>")[arm],
                "unit": f"u{i}",
                "prediction": y if rng.random() > wrong else 1 - y,
                "label": y,
                "features.spent": float(np.round(rng.normal(20 + better * arm, 2), 3)),
            }
        )
    return rows


class Replayed:
    """One run of the command."""

    def __init__(self, folder: Path, rows: list[Row], event: Row, *arguments: str) -> None:
        files = {name: folder / name for name in ("t.jsonl", "e.json", "v", "r.html", "s.json")}
        files["t.jsonl"].write_text("".join(json.dumps(row) + "\n" for row in rows))
        files["e.json"].write_text(json.dumps(event))
        given = ["replay", str(files["t.jsonl"]), "--experiment", str(files["e.json"])]
        given += ["--verdicts", str(files["v"]), "--report", str(files["r.html"])]
        given += ["--summary", str(files["s.json"]), *arguments]
        done = CliRunner().invoke(cli, given)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        self.code, self.stdout, self.stderr = done.exit_code, done.stdout, done.stderr
        self.report = re.sub("</?code>", "`", files["r.html"].read_text())
        self.summary = json.loads(files["s.json"].read_text())
        self.verdicts = [json.loads(line) for line in files["v"].read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Replayed]:
    return lambda rows, event=STARTED, *arguments: Replayed(tmp_path, rows, event, *arguments)


def test_an_arm_that_is_better_is_shown_with_its_sequence_and_what_a_textbook_says(run):
    rows = table(better=0.6)
    got = run(rows)
    (verdict,) = got.verdicts
    assert verdict["verdict"] == "promote"
    e = got.summary["experiments"]["m"]["x-1"]
    assert e["arms"]["<b>"]["verdict"] == "promote"
    assert (e["rows"], e["left_out"], e["phase"]) == (2_000, {}, 1)
    counted = {a: sum(r["variant"] == a for r in rows) for a in ("control", "<b>")}
    assert e["units"] == counted
    spent = [np.array([r["features.spent"] for r in rows if r["variant"] == a]) for a in counted]
    welch = stats.ttest_ind(spent[1], spent[0], equal_var=False)
    found = e["arms"]["<b>"]["fixed_horizon"]["features.spent"]
    assert (found["t"], found["p"]) == pytest.approx((welch.statistic, welch.pvalue), rel=1e-4)
    contrast = e["arms"]["<b>"]["evidence"]["features.spent"]
    assert contrast["estimate"] == pytest.approx(spent[1].mean() - spent[0].mean(), rel=1e-4)
    assert contrast["interval"][0] < contrast["estimate"] < contrast["interval"][1]
    assert "experiment x-1" in got.stdout
    assert "<b>: promote because of features.spent" in got.stdout
    assert "├" in got.stdout
    assert f"t {found['t']:.3g}" in got.stdout
    for text in (got.stdout, got.report):
        assert "Valid at one planned look" in text


class Page(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_report_draws_the_sequence_and_escapes_names(run):
    got = run(table(better=0.6))
    page = Page(got.report)
    assert "Experiment x-1" in page.texts
    assert not any(tag == "b" for tag, _ in page.tags)
    (band,) = [a["points"] for tag, a in page.tags if tag == "polygon"]
    assert band is not None
    points = [tuple(map(float, p.split(","))) for p in band.split()]
    upper, lower = points[: len(points) // 2], points[len(points) // 2 :][::-1]
    assert len(upper) > 40
    assert all(u[0] == b[0] and u[1] <= b[1] for u, b in zip(upper, lower, strict=True))
    first, last = (lower[i][1] - upper[i][1] for i in (5, -1))
    assert last < first, "the interval shrinks"
    boxes = [str(a.get("viewbox")) for tag, a in page.tags if tag == "svg"]
    assert any(box.startswith("0 0 400 ") for box in boxes), "it is drawn for a telephone"


def test_a_change_of_weights_is_a_line_in_the_picture(run):
    changed = {
        "type": "experiment_changed",
        "model": "m",
        "experiment": "x-1",
        "weights": {"control": 49, "<b>": 51},
        "at": "2025-10-09T09:16:40Z",
    }
    got = run(table(3_000), [{**STARTED, "type": "experiment_started"}, changed])
    e = got.summary["experiments"]["m"]["x-1"]
    assert e["phase"] == 2
    assert e["left_out"]["change"] == 60
    assert got.report.count("<polygon") == 2
    assert "stroke-dasharray" in got.report
    assert "within a minute after a change of weights" in got.report
    assert "60 change" in got.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"variant": None}, "no row has a `variant` that names an arm"),
        ({"variant": "other"}, "the arms are 'control', '<b>'"),
        ({"unit": None}, "no row has a `unit`"),
        ({"model": "n"}, "no row is of its model 'm' (models of the rows: 'n')"),
    ],
)
def test_a_run_whose_experiment_counts_nothing_fails_and_says_why(run, change, says):
    rows = [{k: v for k, v in {**row, **change}.items() if v is not None} for row in table(300)]
    got = run(rows, STARTED, "--fail-on", "critical")
    assert got.code == 1
    assert says in got.stdout
    assert says in re.sub("&#x27;", "'", got.report.replace("&lt;", "<").replace("&gt;", ">"))


def test_most_rows_left_out_fail_and_some_are_a_note(run):
    rows = table(600)
    for row in rows[:400]:
        del row["unit"]
    got = run(rows, STARTED, "--fail-on", "critical")
    assert got.code == 1
    assert "warning: experiment x-1: 400 of 600 rows left out: without `unit`" in got.stdout
    for row in rows[:350]:
        row["unit"] = row["event_id"]
    got = run(rows, STARTED, "--fail-on", "critical")
    assert got.code == 0
    assert "note: experiment x-1: 50 of 600 rows left out: without `unit`" in got.stdout


def test_two_equal_arms_are_not_told_apart(run):
    got = run(table(seed=3))
    assert [v["verdict"] for v in got.verdicts] == ["continue"]
    assert "<b>: continue" in got.stdout
    assert got.summary["alerts"] == {"firing": 0, "resolved": 0, "notifications": 0}


def test_without_an_experiment_there_is_none_in_the_summary(tmp_path):
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table(200)))
    done = CliRunner().invoke(cli, ["replay", str(tmp_path / "t.jsonl"), "--json"])
    assert "experiments" not in json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "rows", "verdict"), [("ab", 6_200, "promote"), ("canary", 3_000, "rollback")]
)
def test_the_experiments_of_the_docs_end_as_they_say(tmp_path, name, rows, verdict):
    """Of the first days, which decide."""
    program = ROOT / "examples" / "experiment_data.py"
    subprocess.run([sys.executable, program, tmp_path], check=True, timeout=120)
    table = (tmp_path / f"{name}.csv").read_text().splitlines(keepends=True)
    (tmp_path / f"{name}.csv").write_text("".join(table[: rows + 1]))
    files = [str(tmp_path / each) for each in (f"{name}.csv", f"{name}.json", "v")]
    done = CliRunner().invoke(
        cli, ["replay", files[0], "--experiment", files[1], "--verdicts", files[2]]
    )
    assert done.exit_code == 0, done.output
    (found,) = [json.loads(line) for line in Path(files[2]).read_text().splitlines()]
    assert found["verdict"] == verdict
    page = (ROOT / "docs" / "experiments.md").read_text()
    event = json.loads((tmp_path / f"{name}.json").read_text())
    if name == "ab":
        shown = re.search(r"^```json\n(.*?)```", page, re.DOTALL | re.MULTILINE)
        assert shown is not None
        assert json.loads(shown[1]) == event
    else:
        race = found["evidence"]["failures"]
        assert f"of {sum(race['first'])} units with a failed call, {race['first'][1]} had" in page
        assert f"evidence {race['e']:.1f}, 400 needed" in page
        assert f"the canary had served {found['units']['canary']} users" in page


def test_an_event_that_the_fold_refuses_fails_the_run_and_says_why(run):
    events = [{**STARTED, "type": "experiment_started", "experiment": f"x-{i}"} for i in range(6)]
    got = run(table(100), events, "--fail-on", "critical")
    assert got.code == 1
    for i in (4, 5):
        assert f"warning: experiment x-{i}: event started refused: model 'm' has 4" in got.stdout
    assert "x-3: event" not in got.stdout


def test_numbers_between_verdicts_are_drawn_and_are_no_verdicts(run):
    rows = [{**row, "timestamp": T0 + i * 60_000} for i, row in enumerate(table())]
    got = run(rows, {**STARTED, "guards": []})
    assert {v["type"] for v in got.verdicts} == {"experiment_verdict"}
    drawn = [line.strip().split("  ")[0] for line in got.stdout.splitlines() if "●" in line]
    assert drawn[-2:] == ["day 1", "33 h"] or drawn[-1] == "day 1", drawn
    assert len(drawn) >= 3
