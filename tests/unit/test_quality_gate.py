"""May a model be trained on it? Each rule by itself, on files as programs write them."""

from __future__ import annotations

import csv
import json
import random
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.errors import InputError
from stream_monitor.settings import Feature, ModelSettings, Quality
from stream_monitor.training.quality import Report, check
from stream_monitor.training.quality_rules import ColumnRule, OwnCommand, Rules, of_model


def written(tmp_path: Path, rows: list[dict[str, Any]], form: str = "csv") -> Path:
    """Rows as a program writes them; of CSV as pandas does, with an index and empty cells."""
    path = tmp_path / f"data.{form}"
    names = list(rows[0])
    if form == "parquet":
        pq.write_table(pa.table({n: [r[n] for r in rows] for n in names}), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["", *names])
            for i, row in enumerate(rows):
                writer.writerow([i, *("" if row[n] is None else row[n] for n in names)])
    return path


def rows_of(n: int = 200, seed: int = 1) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {
            "customer": f"c{i}",
            "age": rng.randrange(18, 90),
            "amount": round(rng.gauss(50, 10), 2),
            "city": rng.choice(["Berlin", "Köln"]),
            "member": rng.random() < 0.5,
            "label": rng.randrange(2),
        }
        for i in range(n)
    ]


def broken(report: Report) -> set[tuple[str, str | None]]:
    return {(v.rule, v.column) for v in report.verdicts if not v.passed}


FORMS = pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])


@FORMS
def test_good_rows_break_no_rule(tmp_path, form):
    report = check(written(tmp_path, rows_of(), form), Rules())
    assert (report.passed, broken(report), report.rows) == (True, set(), 200)
    assert "" not in {v.column for v in report.verdicts}  # the index of the data frame


@FORMS
@pytest.mark.parametrize("gone", [19, 20, 21])
def test_a_tenth_missing_is_too_much(tmp_path, form, gone):
    rows = rows_of()
    for row in random.Random(gone).sample(rows, gone):
        row["age"] = None
    report = check(written(tmp_path, rows, form), Rules())
    assert broken(report) == ({("missing", "age")} if gone / 200 >= 0.1 else set())
    found = next(v for v in report.verdicts if (v.rule, v.column) == ("missing", "age"))
    assert (found.value, found.limit) == (pytest.approx(gone / 200), 0.1)
    assert not check(written(tmp_path, rows, form), Rules(max_missing=0.05)).passed
    assert check(written(tmp_path, rows, form), Rules(max_missing=0.2)).passed


def test_marks_of_missing_values_count_as_missing(tmp_path):
    rows = rows_of(100)
    for row, mark in zip(rows, ["NA", "NaN", "null", "", "#N/A", "None"] * 2, strict=False):
        row["amount"] = mark
    report = check(written(tmp_path, rows), Rules())
    found = next(v for v in report.verdicts if (v.rule, v.column) == ("missing", "amount"))
    assert (found.value, found.passed) == (pytest.approx(0.12), False)


BAD: dict[str, tuple[str, Any, ColumnRule, str]] = {
    "below": ("age", -1, ColumnRule(min=0), "range"),
    "above": ("amount", 1e9, ColumnRule(max=500.0), "range"),
    "category": ("city", "Atlantis", ColumnRule(categories=("Berlin", "Köln")), "categories"),
    "pattern": ("customer", "d007x", ColumnRule(pattern=r"c\d+"), "pattern"),
    "repeated": ("customer", "c7", ColumnRule(unique=True), "unique"),
    "missing": ("age", None, ColumnRule(required=True), "required"),
}


@FORMS
@pytest.mark.parametrize("name", BAD)
def test_a_single_bad_value_is_found_and_named(tmp_path, form, name):
    column, value, rule, kind = BAD[name]
    rules = Rules(columns={column: rule})
    rows = rows_of()
    assert check(written(tmp_path, rows, form), rules).passed
    rows[100][column] = value
    report = check(written(tmp_path, rows, form), rules)
    assert broken(report) == {(kind, column)}
    assert check(written(tmp_path, rows, form), rules, fail_on=["rows"]).passed


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_words_among_numbers_are_found(tmp_path, share):
    rows = rows_of()
    for row in rows[: int(200 * share)]:
        row["amount"] = "lots"
    for form in ("csv", "jsonl"):
        report = check(written(tmp_path, rows, form), Rules())
        assert broken(report) == {("type", "amount")}
        found = next(v for v in report.verdicts if not v.passed)
        assert found.value == pytest.approx(share)
        assert "'lots'" in found.text


def test_infinite_numbers_are_found(tmp_path):
    rows = rows_of()
    rows[3]["amount"] = float("inf")
    for form in ("csv", "parquet"):
        assert broken(check(written(tmp_path, rows, form), Rules())) == {("type", "amount")}


@pytest.mark.parametrize("label", [0, None])
def test_a_label_must_be_there_and_differ(tmp_path, label):
    rows = [{**row, "label": label} for row in rows_of()]
    assert ("label", "label") in broken(check(written(tmp_path, rows, "jsonl"), Rules()))
    without = [{k: v for k, v in row.items() if k != "label"} for row in rows]
    report = check(written(tmp_path, without), Rules())
    assert broken(report) == {("label", "label")}
    assert "--label" in next(v.text for v in report.verdicts if not v.passed)
    assert check(written(tmp_path, without), Rules(label=None)).passed
    assert check(written(tmp_path, without), Rules(label="member")).passed


def test_too_few_rows(tmp_path):
    path = written(tmp_path, rows_of(99))
    assert broken(check(path, Rules(min_rows=100))) == {("rows", None)}
    assert check(path, Rules(min_rows=99)).passed


def test_a_row_with_too_few_cells(tmp_path):
    path = written(tmp_path, rows_of())
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:50], "7,c9", *lines[50:]]) + "\n")
    assert broken(check(path, Rules())) == {("readable", None)}


def test_the_features_of_the_monitor_are_rules(tmp_path):
    settings = ModelSettings(
        features={"age": Feature(min=0, max=80), "gone": Feature(required=True)},
        quality=Quality(missing_ratio=0.3),
    )
    rules = of_model(settings)
    assert rules.max_missing == 0.3
    rows = [{f"features.{k}": v for k, v in row.items() if k != "label"} for row in rows_of()]
    rows = [{**row, "label": i % 2} for i, row in enumerate(rows)]
    rows[0]["features.age"] = 81
    report = check(written(tmp_path, rows, "parquet"), rules)
    assert broken(report) >= {("range", "features.age"), ("required", "gone")}


def test_a_command_of_ones_own(tmp_path):
    path = written(tmp_path, rows_of())
    script = tmp_path / "own.py"
    script.write_text(
        "import sys\nrows = open(sys.argv[1]).readlines()\nprint('first')\n"
        "print(f'{len(rows)} lines')\nsys.exit(len(rows) > int(sys.argv[2]))\n"
    )
    own = OwnCommand(name="few", command=(sys.executable, str(script), "{file}", "201"))
    assert check(path, Rules(commands=(own,))).passed
    less = OwnCommand(name="few", command=(sys.executable, str(script), "{file}", "200"))
    report = check(path, Rules(commands=(less,)))
    assert broken(report) == {("command", "few")}
    assert "201 lines" in next(v.text for v in report.verdicts if not v.passed)
    slow = OwnCommand(
        name="slow",
        command=(sys.executable, "-c", "import time; time.sleep(60)"),
        timeout="300ms",
    )
    assert broken(check(path, Rules(commands=(slow,)))) == {("command", "slow")}
    with pytest.raises(InputError, match="cannot be started"):
        check(path, Rules(commands=(OwnCommand(name="x", command=("no-such-program",)),)))


def test_an_entry_point_of_ones_own(tmp_path, monkeypatch):
    package = tmp_path / "site"
    (package / "ours-1.0.dist-info").mkdir(parents=True)
    (package / "ours-1.0.dist-info" / "METADATA").write_text("Name: ours\nVersion: 1.0\n")
    (package / "ours-1.0.dist-info" / "entry_points.txt").write_text(
        "[stream_monitor.quality]\nodd_rows = ours_quality:odd\nfails = ours_quality:fails\n"
    )
    (package / "ours_quality.py").write_text(
        "def odd(path):\n    n = len(open(path).readlines()) - 1\n"
        "    return [f'{n} rows is odd'] if n % 2 else []\n"
        "def fails(path):\n    raise ValueError('no idea')\n"
    )
    monkeypatch.syspath_prepend(str(package))
    path = written(tmp_path, rows_of(201))
    report = check(path, Rules(entry_points=("odd_rows", "fails")))
    assert broken(report) == {("entry_point", "odd_rows"), ("entry_point", "fails")}
    assert check(written(tmp_path, rows_of(200)), Rules(entry_points=("odd_rows",))).passed
    with pytest.raises(InputError, match="not installed"):
        check(path, Rules(entry_points=("other",)))


def run(*arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(cli, ["quality", "check", *arguments])
    if isinstance(done.exception, InputError):
        return 2, str(done.exception)
    return done.exit_code, json.loads(done.stdout) if "--json" in arguments else done.output


def test_the_command_with_rules_and_a_reference(tmp_path):
    path = written(tmp_path, rows_of())
    rules = tmp_path / "rules.yaml"
    rules.write_text("min_rows: 100\ncolumns:\n  city: {categories: [Berlin, Köln]}\n")
    assert run(str(path), "--rules", str(rules), "--json")[0] == 0
    profile = tmp_path / "profile.json"
    built = CliRunner().invoke(
        cli,
        ["baseline", "build", str(path), "-o", str(profile), "--ignore", "customer"],
    )
    assert built.exit_code == 0, built.output
    assert run(str(path), "--reference", str(profile))[0] == 0
    cents = [{**row, "amount": 100 * row["amount"]} for row in rows_of()]
    other = [{**row, "city": "Roma"} for row in cents]
    code, told = run(str(written(tmp_path, other)), "--reference", str(profile), "--json")
    failed = {(v["rule"], v["column"]) for v in told["verdicts"] if not v["passed"]}
    assert (code, failed) == (1, {("reference", "amount"), ("reference", "city")})
    assert run(str(tmp_path / "none.csv"))[0] == 2
    for wrong, word in (
        ("max_mising: 1\n", "max_missing"),
        ("max_missing: 2\n", "0 to 1"),
        ("columns: {age: {min: x}}\n", "min"),
        ("columns: {age: {min: 2, max: 1}}\n", "above"),
        ("- 1\n", "expected keys"),
    ):
        rules.write_text(wrong)
        code, text = run(str(path), "--rules", str(rules))
        assert code == 2
        assert word in text


def test_an_unknown_model_is_an_error_that_names_those_that_are_known(tmp_path):
    path, config = written(tmp_path, rows_of()), tmp_path / "monitor.yaml"
    config.write_text(
        "models: {fraud: {features: {age: {max: 20}}}}\n"
        "lifecycle: {models: {credit: {repository: .}}}\n"
    )
    given = (str(path), "--config", str(config), "--json", "--model")
    assert run(*given, "fraud")[0] == 1
    assert run(*given, "credit")[0] == 0  # the loop has it, so the rules of `defaults` count
    code, text = run(*given, "frud")
    assert code == 2
    for word in ("--model frud", str(config), "credit, fraud", "Did you mean 'fraud'?"):
        assert word in text
    config.write_text("{}")
    assert "no model at all" in run(*given, "fraud")[1]


def test_a_label_that_is_not_there_names_the_columns(tmp_path):
    path = written(tmp_path, rows_of())
    report = check(path, Rules(label="lable"))
    (told,) = (v.text for v in report.verdicts if not v.passed)
    assert told.endswith("the columns are customer, age, amount, city, member, label")
    wide = [{f"x{i}": i + j for i in range(30)} for j in range(3)]
    report = check(written(tmp_path, wide), Rules())
    assert "x19, …" in next(v.text for v in report.verdicts if not v.passed)


@FORMS
def test_a_column_can_be_left_out(tmp_path, form):
    rows = [{**row, "note": None if i < 100 else "x"} for i, row in enumerate(rows_of())]
    path, rules = written(tmp_path, rows, form), tmp_path / "rules.yaml"
    assert broken(check(path, Rules())) == {("missing", "note")}
    assert check(path, Rules(ignore=("note",))).passed
    assert run(str(path), "--ignore", "note")[0] == 0
    rules.write_text("ignore: [note]\n")
    code, told = run(str(path), "--rules", str(rules), "--ignore", "age", "--json")
    assert code == 0
    assert {"note", "age"}.isdisjoint(v["column"] for v in told["verdicts"])


def test_lists_say_what_they_are(tmp_path):
    rows = [{**row, "embedding": [0.5, 1.5]} for row in rows_of()]
    for form in ("parquet", "jsonl"):
        report = check(written(tmp_path, rows, form), Rules())
        assert broken(report) == {("type", "embedding")}
        text = next(v.text for v in report.verdicts if not v.passed)
        assert text.startswith("200 values that are lists or objects; --ignore leaves")


def lines(tmp_path: Path, header: str, *rows: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "pandas.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return path


TABLES: dict[str, tuple[str, list[str], str, set[tuple[str, str | None]], str]] = {
    "an index": (",a,label", ["0,1.5,no", "1,2.5,yes"], "utf-8", set(), ""),
    "a mark of order": ("a,label", ["1.5,no", "2.5,yes"], "utf-8-sig", set(), ""),
    "semicolons": ("a;label", ["1,5;no", "2,5;yes"], "utf-8", set(), "semicolons"),
    "booleans": ("a,label", ["True,True", "False,False"], "utf-8", set(), ""),
    "a hole": (
        "a,label",
        ["True,1", ",0", "NaN,1"],
        "utf-8",
        {("missing", "a")},
        "66.67% of the values are missing",
    ),
    "an empty column": ("a,e,label", ["1,,0", "2,,1"], "utf-8", {("missing", "e")}, "100.00%"),
    "a word": ("a,label", ["1,0", "2,1", "many,1"], "utf-8", {("type", "a")}, "1 value that"),
    "a switch": (
        "a,label",
        ["True,0", "False,1"] * 9 + ["x,1"],
        "utf-8",
        {("type", "a")},
        "than boolean",
    ),
    "thousands": ("a,label", ['"1,234.50",0', '"2,345.00",1'], "utf-8", set(), "'1,234.50' are"),
    "percent": ("a,label", ["12.5%,0", "3%,1"], "utf-8", set(), "'12.5%' are read as numbers"),
    "no header": ("17,2.5,label", ["18,3.5,0", "19,4.5,1"], "utf-8", set(), "lack its header?"),
    "an array": ("0,1,label", ["18,3.5,0", "19,4.5,1"], "utf-8", set(), ""),
    "dates": ("t,label", ["2026-03-29T01:30:00+02:00,0", "2026-03-30,1"], "utf-8", set(), ""),
    "one row": ("a,label", ["1,0"], "utf-8", {("rows", None), ("label", "label")}, "1 row, at"),
    "no rows": ("a,label", [], "utf-8", {("rows", None), ("label", "label")}, "0 rows, at"),
    "short": ("a,label", ["1,0", "2,1", "3"], "utf-8", {("readable", None)}, "1 row that cannot"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_as_people_have_them(tmp_path, name):
    header, rows, encoding, wrong, word = TABLES[name]
    report = check(lines(tmp_path, header, *rows, encoding=encoding), Rules())
    assert broken(report) == wrong
    told = [v.text for v in report.verdicts if not v.passed] + report.notes
    assert any(word in text for text in told) if word else told == []


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_two_columns_of_one_name_are_refused(tmp_path, form):
    path = tmp_path / f"two.{form}"
    if form == "csv":
        path.write_text("a,a,label\n1,2,0\n3,4,1\n")
    else:
        columns = [pa.array([1, 2]), pa.array([3, 4]), pa.array([0, 1])]
        pq.write_table(pa.Table.from_arrays(columns, names=["a", "a", "label"]), path)
    with pytest.raises(InputError, match="two columns are called 'a'; rename one"):
        check(path, Rules())


def test_types_of_parquet(tmp_path):
    moments = [datetime(2026, 3, 29, tzinfo=UTC) + timedelta(hours=i) for i in range(40)]
    columns = {
        "nullable": pa.array([None, *range(1, 40)], pa.int32()),
        "decimal": pa.array([Decimal("1.50") + i for i in range(40)]),
        "moment": pa.array(moments, pa.timestamp("us", tz="Europe/Berlin")),
        "category": pa.array(["a", "b"] * 20).dictionary_encode(),
        "flag": pa.array([True, None] + [False] * 38),
        "label": pa.array([0, 1] * 20, pa.int8()),
        "__index_level_0__": pa.array(range(40)),
    }
    pq.write_table(pa.table(columns), tmp_path / "types.parquet")
    rules = Rules(columns={"decimal": ColumnRule(type="numeric", max=41), "flag": ColumnRule()})
    report = check(tmp_path / "types.parquet", rules)
    assert (broken(report), report.passed) == (set(), True)
    missing = {v.column: v.value for v in report.verdicts if v.rule == "missing"}
    assert (missing["nullable"], missing["flag"], missing["decimal"]) == (1 / 40, 1 / 40, 0)
    assert "__index_level_0__" not in missing
    tight = Rules(columns={"decimal": ColumnRule(max=40.4)})
    assert broken(check(tmp_path / "types.parquet", tight)) == {("range", "decimal")}
