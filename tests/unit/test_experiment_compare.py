"""`experiment compare` on files as people write them; scipy is the oracle of every number."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy import stats

from stream_monitor.cli import cli
from stream_monitor.errors import InputError


@pytest.fixture
def compare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(text, *words, name="results.csv"):
        if text is not None:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        result = CliRunner().invoke(cli, ("experiment", "compare", name, *words))
        if result.exception is not None:
            raise result.exception
        return json.loads(result.output) if "--json" in words else result.output

    return run


def agrees(found, a, b):
    """The comparison is that of scipy."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    expected = stats.ttest_ind(b, a, equal_var=False)
    look = found["one_planned_look"]
    assert look["t"] == pytest.approx(expected.statistic, rel=1e-10)
    assert look["df"] == pytest.approx(expected.df, rel=1e-10)
    assert look["p"] == pytest.approx(expected.pvalue, rel=1e-9)
    n, m = len(a), len(b)
    pooled = math.sqrt(((n - 1) * a.var(ddof=1) + (m - 1) * b.var(ddof=1)) / (n + m - 2))
    assert look["cohens_d"]["estimate"] == pytest.approx((b.mean() - a.mean()) / pooled)
    for arm, x in (("control", a), ("arm", b)):
        assert found[arm]["n"] == len(x)
        assert found[arm]["mean"] == pytest.approx(x.mean())
        assert found[arm]["sd"] == pytest.approx(x.std(ddof=1))
    return True


def columns(a, b, *, write=str, separator=",", header="a,b"):
    rows = [
        separator.join(write(x[i]) if i < len(x) else "" for x in (a, b))
        for i in range(max(len(a), len(b)))
    ]
    return "\n".join([header.replace(",", separator), *rows, ""])


RNG = np.random.default_rng(12)
A = [round(float(x), 4) for x in RNG.normal(0.8, 0.05, 240)]
B = [round(float(x), 4) for x in RNG.normal(0.81, 0.07, 260)]
YES = [bool(x) for x in RNG.random(400) < 0.9]
NO = [bool(x) for x in RNG.random(300) < 0.8]


@pytest.mark.parametrize(
    "text",
    [
        columns(A, B),
        columns(A, B, write=lambda x: f"{x:.4f}".replace(".", ","), separator=";"),
        columns(A, B, write=lambda x: f'"{x:.4f}"'.replace(".", ",")),
        columns(A, B, write=lambda x: f"{100 * x:.2f}%"),
        columns(A, B, write=lambda x: f"{100 * x:.2f} %".replace(".", ","), separator="\t"),
        columns(A, B, write=lambda x: f"{x:.3e}" if x == float(f"{x:.3e}") else repr(x)),
        "﻿" + columns(A, B).replace("\n", "\r\n"),
        columns(A, B).encode("utf-16"),
        columns(A, B, header="a,b").replace("a,b\n", "# of Monday\n\na,b\n"),
        "sep=;\n" + columns(A, B, separator=";"),
        columns(A, [*B, *["NA", "n/a", ""] * 3], write=str),
        columns([*A, *[""] * 30], B).replace("\n", "\n", 1) + "\n\n",
    ],
)
def test_two_columns_as_programs_write_them(compare, text):
    assert agrees(compare(text, "--json"), A, B)


def test_an_index_of_a_data_frame_is_no_column_of_results(compare):
    lines = columns(A, B).splitlines()
    text = "\n".join([f",{lines[0]}", *(f"{i},{row}" for i, row in enumerate(lines[1:]))])
    assert agrees(compare(text, "--json"), A, B)


@pytest.mark.parametrize(
    "write", [str, lambda x: str(x).lower(), lambda x: f"{x:d}", lambda x: f"{x:d}.0", "{:.0%}"]
)
def test_truth_values_are_one_and_zero(compare, write):
    write = write.format if isinstance(write, str) else write
    found = compare(columns(YES, NO, write=write), "--json", "--effect", "0.02")
    assert agrees(found, YES, NO)
    look = found["one_planned_look"]
    table = [[sum(x), len(x) - sum(x)] for x in (YES, NO)]
    expected = stats.chi2_contingency(table, correction=False)
    assert look["z"] ** 2 == pytest.approx(expected.statistic)
    assert look["p_of_z"] == pytest.approx(expected.pvalue)
    h = [2 * math.asin(math.sqrt(np.mean(x))) for x in (YES, NO)]
    assert look["cohens_h"]["estimate"] == pytest.approx(h[1] - h[0])


def long(rows, header="variant,value"):
    return "\n".join([header, *(",".join(map(str, row)) for row in rows), ""])


def shuffled(a, b):
    rows = [("control", x) for x in a] + [("b", x) for x in b]
    return [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]


def test_the_long_form(compare):
    assert agrees(compare(long(shuffled(A, B)), "--json"), A, B)
    text = long([(x, v, "y") for v, x in shuffled(A, B)], "latency,Arm,note")
    assert agrees(compare(text, "--json"), A, B)
    renamed = long(shuffled(A, B), "model,seconds")
    assert agrees(compare(renamed, "--json", "--variant", "model", "--value", "seconds"), A, B)
    assert agrees(compare(None, "--json", "--variant", "model", "--control", "b"), B, A)


def test_units_are_summed(compare):
    """A t-test of means of units where all have as many outcomes: the contrast by unit."""
    rng = np.random.default_rng(4)
    means = rng.normal(0, 1, 60)
    outcomes = means[:, None] + rng.normal(0, 1, (60, 8))
    rows = [
        (f"u{u}", "b" if u % 3 else "control", repr(float(x)))
        for u in range(60)
        for x in outcomes[u]
    ]
    rng.shuffle(rows)
    found = compare(long(rows, "user,variant,value"), "--json")
    by_unit = [
        outcomes.mean(axis=1)[[u for u in range(60) if (u % 3 > 0) == arm]] for arm in (0, 1)
    ]
    expected = stats.ttest_ind(by_unit[1], by_unit[0], equal_var=False)
    assert found["one_planned_look"]["t"] == pytest.approx(expected.statistic)
    assert found["one_planned_look"]["p"] == pytest.approx(expected.pvalue)
    assert (found["control"]["units"], found["control"]["n"]) == (20, 160)
    assert not found["units_are_rows"]
    moved = [*rows, ("u0", "b", "1.0"), ("u0", "b", "2.0")]
    again = compare(long(moved, "user,variant,value"), "--json")
    assert again["moved_share"] == pytest.approx(2 / 482)
    assert again["one_planned_look"] == found["one_planned_look"]


def test_json_lines_and_parquet(compare, tmp_path):
    rows = shuffled(YES, NO)
    text = "\n".join(json.dumps({"variant": v, "value": x}) for v, x in rows)
    assert agrees(compare(text, "--json", name="r.jsonl"), YES, NO)
    pq.write_table(
        pa.table({"a": A + [math.nan] * (len(B) - len(A)), "b": B}), tmp_path / "r.parquet"
    )
    assert agrees(compare(None, "--json", name="r.parquet"), A, B)


def test_cells_with_two_readings_are_read_as_told(compare):
    text = 'a,b\n"1,234","2,345"\n"1,300","2,100"\n'
    for decimal, mean in (("point", 1267), ("comma", 1.267)):
        found = compare(text, "--json", "--decimal", decimal)
        assert found["control"]["mean"] == pytest.approx(mean)
    by_others = compare("a;b\n1,234;2,345\n1,5;2,25\n", "--json")
    assert by_others["control"]["mean"] == pytest.approx(1.367)


def test_the_line_is_that_of_the_file(compare):
    """Comments, empty lines and cells of several lines count as what they are."""
    text = '# note\nnote,a,b\n"two\nlines",1,2\n\n# more\nz,1,2\n"x\ny",1,bad\n'
    with pytest.raises(InputError, match=r"results.csv:8: b: expected a number, got 'bad'"):
        compare(text, "--control", "a", "--arm", "b")


def test_lines_that_are_no_rows_are_refused(compare):
    with pytest.raises(InputError, match=r"r.jsonl: row 2: not a JSON object: 'xx'"):
        compare('{"a": 1, "b": 2}\nxx\n', name="r.jsonl")


def test_a_control_that_does_not_vary_has_a_sequence(compare):
    look = compare("a,b\n1,1\n1,0\n1,1\n", "--json")["every_look"]
    assert look["effect_from"] == "0.2 standard deviations of the arm"
    assert look["low"] is not None


def test_a_spread_far_below_the_mean_keeps_its_digits(compare):
    a, b = [[1e9 + round(x, 3) for x in y] for y in (A, B)]
    found = compare(columns(a, b, write=repr), "--json")["one_planned_look"]
    expected = stats.ttest_ind(np.array(b) - 1e9, np.array(a) - 1e9, equal_var=False)
    assert found["t"] == pytest.approx(expected.statistic, rel=1e-6)


def test_the_effect_is_never_that_of_the_data(compare):
    shifted = [x + 5 for x in B]
    near, far = (compare(columns(A, b), "--json")["every_look"] for b in (B, shifted))
    assert near["effect"] == far["effect"] == pytest.approx(0.2 * np.std(A, ddof=1))
    assert near["high"] - near["low"] == pytest.approx(far["high"] - far["low"])
    told = compare(columns(A, B))
    assert "because --effect was not given; not taken from the difference" in told
    assert "Valid at one planned look" in told
    from stream_monitor.stats.confidence_sequences import half_width

    given = compare(columns(A, B), "--json", "--effect", "0.01", "--alpha", "0.01")["every_look"]
    variance = np.var(A, ddof=1) / len(A) + np.var(B, ddof=1) / len(B)
    half = float(half_width(float(variance), 0.01, 0.01))
    assert given["high"] - given["low"] == pytest.approx(2 * half)


def test_few_units_and_equal_values_are_said(compare):
    told = compare("a,b\n1.5,2\n2.5,2\n")
    assert "It waits for effective units: 2 of 200" in told
    told = compare("a,b\n0.5,0.2\n0.7,0.2\n")
    assert "It waits for effective units: 2 of 200" in told
    told = compare("a,b\n0.1,0.3\n0.1,0.3\n0.1,0.3\n")
    assert "Welch's t is not defined" in told
    assert "No confidence sequence" in told
    assert "nan" not in told
    one = compare("a,b\n1.5,2\n,3\n", "--json")["one_planned_look"]
    assert one["t"] is one["p"] is one["cohens_d"] is None
    rare = compare(columns([0] * 300 + [1] * 5, [0] * 290 + [1] * 9))
    assert "It waits for the rarer answer: 5 of 20" in rare


def test_a_difference_because_of_one_unit_is_not_judged(compare):
    rng = np.random.default_rng(4)
    a, b = rng.normal(0, 1, 300), rng.normal(1, 1, 300)
    assert "b has the higher mean" in compare(columns(a, b))
    b[7] = 60
    told = compare(columns(a, b))
    squares = (b - b.mean()) ** 2
    assert f"one unit makes up {squares.max() / squares.sum():.0%} of the variance of b" in told
    assert "higher mean" not in told


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        ("a,b\n1,0\n1,yes\n", (), r"results.csv:3: b: expected a number, got 'yes'"),
        ("# x\n\na,b\n1,0\n1,lost\n", (), r"results.csv:5: b: expected a number, got 'lost'"),
        ('a,b\n"1",0\n\n1,inf\n', (), r"results.csv:4: b: expected a number, got inf"),
        (columns(A, B) + "12%,0.5\n", (), r"results.csv:262: a: expected a number, got '12%'; wr"),
        ("a;b\n1,5;2,5\n3,5;4,5\n1,5;2.5\n", (), r"results.csv:4: b: .*'2.5'; say --decimal"),
        ("a,b\n12.5,3\ntrue,4\n", (), r"results.csv:3: a: True is a truth value, but 12.5 of"),
        ("a,b\n1,2\n1,2,3\n", (), r"results.csv:3: not a row of 2 cells: '1,2,3'"),
        ("a,b,c\n1,2,3\n", (), r"found 3 columns of numbers: a, b, c. Name two with --control"),
        ("a,b\n1,2\n", ("--control", "aa", "--arm", "b"), r"no column 'aa'. Did you mean 'a'"),
        ("a,b\n1,2\n", ("--control", "a", "--arm", "a"), r"--control and --arm are both 'a'"),
        ("a\n1\n", (), r"expected two columns of results"),
        ("a,b\n1,\n2,\n", (), r"b: no result"),
        ("variant,value\nx,1\ny,2\nz,3\n", (), r"expected two variants, found 3: x, y, z"),
        ("variant,value\nx,1\ny,2\n", ("--arm", "w"), r"variant: no row of 'w'"),
        ("variant,p,q\nx,1,1\ny,2,2\n", (), r"which column holds the results\? .*: p, q"),
        ("variant,value\nx,1\ny,high\n", (), r"results.csv:3: value: expected a number"),
        ("a,b\n1,2\n", ("--unit", "a"), r"no column says which arm a row is of"),
        ("a,b\n1,2\n", ("--effect", "0"), r"--effect 0: expected a number above 0"),
        ("a,b\n1,2\n", ("--effect", "nan"), r"--effect nan: expected a number above 0"),
        ("a,b\n1,2\n", ("--alpha", "5"), r"--alpha 5: expected a number between 0 and 1"),
        ("0.9,0.8\n0.7,0.6\n", (), r"the first line has numbers, 0.9, 0.8; write the names"),
        ('a,b\n5,7\n"1,234",8\n', (), r"results.csv:3: a: '1,234' may mean two numbers"),
        ("a,b\n95%,90%\n0.9,91%\n91%,92%\n", (), r":3: a: .*'0.9'; write all cells .* with %"),
        ("a,b\n1,2\n1e200,2\n", (), r"results.csv:3: a: expected a number, .*at most 1e\+100"),
        ("", (), r"results.csv: empty"),
        ("a,b\n", (), r"no result|found 0"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(compare, text, words, says):
    with pytest.raises(InputError, match=says):
        compare(text, *words)


def test_other_variants_and_gaps_are_counted(compare):
    rows = [*shuffled(YES, NO), ("", True), ("control", ""), ("other", True)]
    found = compare(long(rows), "--json", "--control", "control", "--arm", "b")
    assert agrees(found, YES, NO)
    assert {
        "1 row without variant left out",
        "1 row without value left out",
        "1 row of other variants left out",
    } <= set(found["notes"])


def test_the_text_is_for_people(compare):
    told = compare(columns(YES, NO, header="old,new"), "--effect", "0.1")
    assert "control  old  n 400, mean" in told
    assert "arm      new  n 300, mean" in told
    assert "old has the higher mean, new the lower one." in told
    assert "every row counts as independent" in told
    help_text = CliRunner().invoke(cli, ("experiment", "compare", "--help")).output
    assert "stream-monitor experiment compare results.csv" in help_text
