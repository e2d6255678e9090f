"""`experiment plan`: formulas, simulations and plain Python are the oracles of what it says."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from stream_monitor.cli import cli
from stream_monitor.errors import InputError
from stream_monitor.stats.confidence_sequences import half_width
from stream_monitor.stats.failure_race import advance, start
from stream_monitor.stats.race_length import race_length

T0 = 1_760_000_000_000
FAILS = ("--metric", "error", "--mean", "0.005")
SHARE = ("--metric", "accuracy", "--effect", "0.02", "--mean", "0.9")


def run(*words):
    result = CliRunner().invoke(cli, ("experiment", "plan", *words))
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout) if "--json" in words else result.stdout


def t_test_units(effect, variances, weights, alpha=0.05, power=0.8, deff=1.0, calls=1.0):
    """Textbook: units of both arms together."""
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    per = [v / w for v, w in zip(variances, weights, strict=True)]
    return z * z * sum(per) / effect**2 * deff / calls


def test_the_t_test_of_a_share_is_that_of_the_textbook():
    more = ("--weights", "control=80,b=20", "--calls-a-unit", "20", "--icc", "0.05")
    got = run(*SHARE, *more, "--units-a-day", "500", "--power", "0.9", "--json")
    units = t_test_units(0.02, (0.09, 0.88 * 0.12), (0.8, 0.2), power=0.9, deff=1.95, calls=20)
    way = got["effects"][0]["t_test"]
    assert way["units_in_all"] == pytest.approx(units)
    assert way["units"] == pytest.approx({"control": 0.8 * units, "b": 0.2 * units})
    assert way["calls"] == pytest.approx(20 * units)
    assert way["days"] == pytest.approx(units / 500)


def test_the_t_test_of_a_number_and_of_a_ratio():
    number = ("--metric", "features.spent", "--effect", "2", "--mean", "30", "--sd", "12")
    got = run(*number, "--json")["effects"][0]["t_test"]["units_in_all"]
    assert got == pytest.approx(t_test_units(2, (144, 144), (0.5, 0.5)))
    ratio = ("--metric", "latency_ms", "--effect", "0.05", "--mean", "30", "--sd", "12")
    got = run(*ratio, "--json")["effects"][0]["t_test"]["units_in_all"]
    s = math.sqrt(math.log1p((12 / 30) ** 2))
    assert stats.lognorm.std(s, scale=30 / math.exp(s * s / 2)) == pytest.approx(12)
    assert got == pytest.approx(t_test_units(math.log(1.05), (s * s, s * s), (0.5, 0.5)))


def test_the_sequence_is_that_of_watched_experiments():
    """Yes/no outcomes 90 % and 88 %, looked at after 2 % more units each."""
    rng = np.random.default_rng(5)
    looks = np.unique((200 * 1.02 ** np.arange(260)).astype(int))
    looks = looks[looks < 30_000]
    steps = np.diff(looks, prepend=0)
    a, b = (np.cumsum(rng.binomial(steps, p, (800, len(looks))), axis=1) for p in (0.9, 0.88))
    variance = (a / looks * (1 - a / looks) + b / looks * (1 - b / looks)) / (looks - 1)
    alpha = 0.05 * 0.95  # the rest is for later phases
    half = np.vectorize(lambda v: half_width(float(v), 0.02, alpha))(variance)
    over = np.abs(b - a) / looks > half
    stopped = np.where(over.any(axis=1), 2 * looks[over.argmax(axis=1)], np.inf)
    found = run(*SHARE, "--json")["effects"][0]
    assert found["sequence_median"]["units_in_all"] == pytest.approx(np.median(stopped), rel=0.09)
    assert found["sequence"]["units_in_all"] == pytest.approx(np.quantile(stopped, 0.8), rel=0.09)


def test_arms_and_steps_share_alpha():
    three = run(*SHARE, "--weights", "control=50,b=30,c=20", "--json")["effects"][0]
    assert three["arm"] == "c"
    pair = t_test_units(0.02, (0.09, 0.88 * 0.12), (5 / 7, 2 / 7), alpha=0.025)
    assert three["t_test"]["units_in_all"] == pytest.approx(pair / 0.7)
    plain, steps = run(*SHARE, "--json"), run(*SHARE, "--steps", "1,5,25,50", "--json")
    assert steps["weights"] == {"control": 50, "b": 50}
    of = [p["effects"][0] for p in (plain, steps)]
    assert of[0]["t_test"] == of[1]["t_test"]
    assert of[1]["sequence"]["units_in_all"] > 1.15 * of[0]["sequence"]["units_in_all"]


def test_what_limits_a_plan_is_said():
    def limits(*words):
        return run(*words, "--json")["effects"][0]["limits"]

    assert limits(*SHARE) == ["effect"]
    assert limits("--metric", "error", "--effect", "0.02", "--mean", "0.002") == ["rare_answers"]
    assert limits("--metric", "accuracy", "--effect", "0.3", "--mean", "0.8") == ["few_units"]
    assert "small_weight" in limits(*SHARE, "--weights", "control=99,b=1")
    assert limits(*SHARE, "--calls-a-unit", "20", "--icc", "0.3") == ["correlated_calls"]
    rare = run("--metric", "error", "--effect", "0.02", "--mean", "0.002", "--json")["effects"][0]
    assert rare["burn_in"]["units_in_all"] == pytest.approx(2 * 20 / 0.002)
    assert rare["sequence_median"]["units_in_all"] >= 0.9 * rare["burn_in"]["units_in_all"]


def test_of_a_number_of_any_size_the_tail_is_not_known_without_a_file():
    number = ("--metric", "features.spent", "--effect", "2", "--mean", "30", "--sd", "5")
    assert run(*number, "--json")["effects"][0]["burn_in"]["units_in_all"] == 400
    note = (
        "features.spent may be of any size, and how far its tail goes is not known without --from"
    )
    assert note in run(*number)
    assert "any size" not in run(*number, "--cap", "90")


def test_a_heavy_tail_of_the_past_is_waited_for(tmp_path):
    """Of fresh units of the same kind, so many are about enough."""
    rng = np.random.default_rng(2)
    spent = np.exp(rng.normal(0, 1.2, 4_000))
    rows = [
        {
            "event_id": f"e{i}",
            "timestamp": T0 + 20_000 * i,
            "model": "shop",
            "unit": f"u{i}",
            "prediction": 1,
            "features": {"spent": float(x)},
        }
        for i, x in enumerate(spent)
    ]
    words = ("--metric", "features.spent", "--effect", "1.5")
    got = from_file(tmp_path, rows, *words, "--json")["effects"][0]
    arm = got["burn_in"]["units_in_all"] / 2
    assert arm > 1_000
    assert got["limits"] == ["heavy_tail"]
    assert "single units are large" in from_file(tmp_path, rows, *words)

    def too_much(n: int) -> float:
        """How often one of n units is more than a tenth of their variance."""
        arms = [np.exp(rng.normal(0, 1.2, n)) for _ in range(200)]
        squares = [(x - x.mean()) ** 2 for x in arms]
        return float(np.mean([s.max() > 0.1 * s.sum() for s in squares]))

    assert too_much(int(arm / 4)) > 0.5
    assert too_much(int(8 * arm)) < 0.5
    capped = from_file(tmp_path, rows, *words, "--cap", "5", "--json")["effects"][0]
    assert capped["burn_in"]["units_in_all"] == 400


def rows_of(seed, *, units=400, days=2, by_unit=True):
    """Users of different skill and activity."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for u in range(units):
        skill = rng.beta(8, 2)
        for _ in range(1 + min(int(rng.geometric(0.2)), 45)):
            label, right = int(rng.random() < 0.4), bool(rng.random() < skill)
            row = {
                "event_id": f"e{len(rows)}",
                "timestamp": T0 + int(rng.random() * days * 86_400_000),
                "model": "shop",
                "variant": ("old", "?")[u % 2],
                "prediction": label if right else 1 - label,
                "label": label,
                "features": {"spent": float(round(rng.gamma(2, 10), 3))},
            }
            rows.append(row | ({"unit": f"u{u}"} if by_unit else {}))
    return sorted(rows, key=lambda row: row["timestamp"])


def from_file(tmp_path, rows, *words):
    path = tmp_path / "past.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run("--from", str(path), *words)


def by_hand(rows, value):
    """Mean, variance between units, effective units, in plain Python."""
    of_unit = defaultdict(list)
    for row in rows:
        of_unit[row.get("unit", row["event_id"])].append(value(row))
    n = [len(v) for v in of_unit.values()]
    mean = sum(sum(v) for v in of_unit.values()) / sum(n)
    residuals = [sum(v) - mean * len(v) for v in of_unit.values()]
    units = len(n)
    between = sum(r * r for r in residuals) * units / (units - 1) / sum(n) ** 2 * units
    return mean, between, sum(n) ** 2 / sum(k * k for k in n), units


def right(row):
    return float(row["prediction"] == row["label"])


@pytest.mark.parametrize("seed", [1, 2])
def test_the_past_gives_mean_spread_and_units(tmp_path, seed):
    rows = rows_of(seed)
    mean, between, effective, units = by_hand(rows, right)
    words = ("--metric", "accuracy", "--effect", "0.03", "--json")
    got = from_file(tmp_path, rows, *words)
    base, past = got["base"], got["past"]
    assert base["mean"] == pytest.approx(mean)
    assert past["effective_units"] == pytest.approx(effective)
    assert (past["units"], past["calls"], past["unit"]) == (units, len(rows), "unit")
    days = (rows[-1]["timestamp"] - rows[0]["timestamp"]) / 86_400_000
    assert base["units_a_day"] == pytest.approx(units / days)
    # the variance of the arm is as many times greater as that of independent calls
    arm = mean - 0.03 if mean > 0.5 else mean + 0.03
    ratio = arm * (1 - arm) / (mean * (1 - mean))
    expected = t_test_units(0.03, (between, between * ratio), (0.5, 0.5))
    way = got["effects"][0]["t_test"]
    assert way["units_in_all"] == pytest.approx(expected)
    assert way["calls"] == pytest.approx(expected * len(rows) / units)
    assert got["effects"][0]["burn_in"]["units_in_all"] >= 400 * units / effective * 0.999
    plain = [{k: v for k, v in row.items() if k != "variant"} for row in rows]
    assert from_file(tmp_path, plain, *words)["effects"] == got["effects"]


def test_a_number_of_the_past(tmp_path):
    rows = rows_of(3)
    _, between, _, _ = by_hand(rows, lambda row: row["features"]["spent"])
    got = from_file(tmp_path, rows, "--metric", "features.spent", "--effect", "2", "--json")
    expected = t_test_units(2, (between, between), (0.5, 0.5))
    assert got["effects"][0]["t_test"]["units_in_all"] == pytest.approx(expected, rel=1e-4)


def test_of_very_many_units_a_sample_is_kept_and_all_are_counted(tmp_path, monkeypatch):
    rows = rows_of(6, units=1_000)
    words = ("--metric", "accuracy", "--effect", "0.03", "--json")
    whole = from_file(tmp_path, rows, *words)
    monkeypatch.setattr("stream_monitor.experiments.registry.UNITS_MAX", 600)
    sampled = from_file(tmp_path, rows, *words)
    assert sampled["past"]["effective_units"] < 0.7 * whole["past"]["effective_units"]
    assert sampled["past"]["calls"] == whole["past"]["calls"] == len(rows)
    assert sampled["past"]["units"] == pytest.approx(1_000, rel=0.15)
    needed = [got["effects"][0]["t_test"]["units_in_all"] for got in (whole, sampled)]
    assert needed[1] == pytest.approx(needed[0], rel=0.25)


def test_versions_are_taken_together_and_it_says_so(tmp_path):
    rows = [row | {"version": str(3 + i % 2)} for i, row in enumerate(rows_of(7, units=60))]
    words = ("--metric", "accuracy", "--effect", "0.1")
    assert from_file(tmp_path, rows, *words, "--json")["past"]["calls"] == len(rows)
    assert "versions 3, 4 are taken together" in from_file(tmp_path, rows, *words)
    one = [row | {"version": "3"} for row in rows]
    assert "taken together" not in from_file(tmp_path, one, *words)


def test_rows_without_units_are_units_and_it_says_so(tmp_path):
    rows = rows_of(4, by_unit=False)
    _, _, effective, units = by_hand(rows, right)
    words = ("--metric", "accuracy", "--effect", "0.03")
    got = from_file(tmp_path, rows, *words, "--json")
    assert (got["past"]["unit"], got["past"]["units"]) == ("event", units)
    assert got["past"]["effective_units"] == effective == units
    assert got["base"]["design_effect"] == pytest.approx(1, abs=0.01)
    assert "units are events" in from_file(tmp_path, rows, *words)
    assert "units are events" not in from_file(tmp_path, rows_of(4), *words)


def test_a_table_without_times_has_no_days(tmp_path):
    path = tmp_path / "t.csv"
    lines = [f"u{i // 3},{int(i % 7 > 0)},1" for i in range(900)]
    path.write_text("\n".join(["user,y_hat,y", *lines, ""]))
    maps = [w for m in ("unit=user", "prediction=y_hat", "label=y") for w in ("--map", m)]
    got = run("--metric", "accuracy", "--effect", "0.05", "--from", str(path), *maps, "--json")
    assert (got["past"]["units"], got["base"]["calls_a_unit"]) == (300, 3)
    assert got["effects"][0]["sequence"]["days"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--metric", "accuracy", "--effect", "0.02"), "give --mean, or --from FILE"),
        (("--metric", "accurcy", "--effect", "0.02", "--mean", "0.9"), "Did you mean 'accuracy'"),
        (("--metric", "accuracy", "--effect", "0", "--mean", "0.9"), "greater than 0, not 0"),
        (("--metric", "error", "--effect", "0.99", "--mean", "0.1"), "--effect 0.99: the mean"),
        (("--metric", "accuracy", "--effect", "0.1", "--mean", "90"), "--mean 90: .*such as 0.9"),
        (("--metric", "latency_ms", "--effect", "0.1", "--mean", "90"), "--sd is missing"),
        (("--metric", "features.x", "--effect", "1", "--mean", "90"), "--sd is missing"),
        ((*SHARE, "--sd", "1"), "--sd 1: accuracy is 0 or 1"),
        ((*SHARE, "--calls-a-unit", "20"), "--calls-a-unit 20 needs --icc"),
        ((*SHARE, "--icc", "0.1"), "--icc needs --calls-a-unit"),
        ((*SHARE, "--calls-a-unit", "20", "--icc", "5"), "--icc 5: expected a number from 0 to 1"),
        ((*SHARE, "--power", "1"), "--power 1: expected"),
        (("--metric", "score", "--effect", "1", "--mean", "nan", "--sd", "1"), "--mean nan"),
        ((*SHARE, "--alpha", "2"), "`alpha` must be between 0 and 1"),
        ((*SHARE, "--units-a-day", "0"), "--units-a-day 0: expected a number above 0"),
        ((*SHARE, "--weights", "control=90,b=5"), "add up to 100"),
        ((*SHARE, "--weights", "control=100,b=0"), "b has no traffic"),
        ((*SHARE, "--steps", "1,five"), "--steps 1,five"),
        ((*SHARE, "--from", "x.csv"), "--mean 0.9: the file says it"),
        ((*SHARE, "--model", "m"), "--model m: it needs --from FILE"),
        (("--metric", "accuracy", "--mean", "0.9"), "--effect is missing"),
        ((*SHARE, "--times", "2"), "give one of them"),
        (("--metric", "accuracy", "--times", "2", "--mean", "0.9"), "--times is of failed calls"),
        ((*FAILS, "--times", "1"), "--times 1: expected a number above 1"),
        ((*FAILS, "--times", "nan"), "--times nan: expected a number above 1"),
        ((*FAILS, "--times", "200"), "200 times 0.005 is no share"),
        ((*FAILS, "--times", "2", "--weights", "a=100,b=0"), "need traffic"),
    ],
)
def test_what_cannot_work_is_refused(words, said):
    with pytest.raises(InputError, match=said):
        run(*words)


def test_a_past_that_says_nothing_is_refused(tmp_path):
    rows = rows_of(5, units=20)
    with pytest.raises(InputError, match=r"features.age: no call of shop has it"):
        from_file(tmp_path, rows, "--metric", "features.age", "--effect", "1")
    with pytest.raises(InputError, match=r"--model shp: the rows are of shop. Did you mean 'shop'"):
        from_file(tmp_path, rows, "--metric", "accuracy", "--effect", "0.1", "--model", "shp")
    same = [row | {"prediction": row["label"]} for row in rows]
    with pytest.raises(InputError, match="accuracy is 1 in all units"):
        from_file(tmp_path, same, "--metric", "accuracy", "--effect", "0.1")
    two = [row | {"model": f"m{i % 2}"} for i, row in enumerate(rows)]
    with pytest.raises(InputError, match=r"rows are of .*; say which with --model"):
        from_file(tmp_path, two, "--metric", "accuracy", "--effect", "0.1")
    got = from_file(
        tmp_path, two, "--metric", "accuracy", "--effect", "0.1", "--model", "m1", "--json"
    )
    assert got["past"]["calls"] == len(rows) // 2


def ends_of_races(rng, share, times, mean, needed, paths=400):
    """Failures and requests until the race of the fold itself is over, by simulation."""
    rate = mean * (1 - share + share * times)
    in_arm = share * times / (share * times + 1 - share)
    ends = []
    for _ in range(paths):
        race, n, requests = start(), 0, 0
        while race.peak <= math.log(needed):
            race = advance(race, np.array([rng.random() < in_arm]), share)
            n, requests = n + 1, requests + rng.geometric(rate)
        ends.append((n, requests))
    return np.array(ends)


@pytest.mark.parametrize(
    ("share", "times", "mean", "needed"),
    [(0.05, 10, 0.005, 400), (0.3, 6, 0.02, 200), (0.5, 20, 0.001, 800)],
)
def test_the_length_of_a_race_is_that_of_simulated_ones(share, times, mean, needed):
    found = race_length(share, times, needed)
    ends = ends_of_races(np.random.default_rng(4), share, times, mean, needed)
    for part in (0.5, 0.9):
        # bounds of a quantile by the binomial: four standard errors
        low, high = (part + sign * 4 * math.sqrt(part * (1 - part) / len(ends)) for sign in (-1, 1))
        for column, value in (
            (0, found.failures(part)),
            (1, found.requests(part, mean * (1 - share + share * times))),
        ):
            assert np.quantile(ends[:, column], low) <= value
            assert value <= np.quantile(ends[:, column], high)
    assert found.ended[-1] == pytest.approx(1, abs=0.001)


def test_a_bad_canary_is_planned_by_its_race():
    words = ["--metric", "error", "--mean", "0.005", "--weights", "control=95,canary=5"]
    told = run(*words, "--times", "10", "--times", "2", "--json")
    ten, two = told["races"]
    half, most = ten["rollbacks"]
    assert (ten["arm"], ten["needed"], half["share"], most["share"]) == ("canary", 200, 0.5, 0.9)
    assert half["calls_of_arm"] == pytest.approx(0.05 * half["calls"], rel=1e-6)
    assert 80 < half["calls_of_arm"] < 150
    assert most["calls"] > half["calls"]
    assert two["rollbacks"][0]["calls"] > 20 * half["calls"]
    assert half["days"] is None
    three = run(*words[:-1], "control=90,b=5,canary=5", "--times", "10", "--json")["races"][0]
    assert three["needed"] == 400
    assert three["rollbacks"][0]["calls"] > half["calls"]
    daily = ("--units-a-day", "100", "--calls-a-unit", "2", "--icc", "0")
    with_days = run(*words, "--times", "10", *daily, "--json")
    days = with_days["races"][0]["rollbacks"][0]
    assert days["days"] == pytest.approx(days["calls"] / 200)
    weak = run("--metric", "error", "--mean", "0.005", "--times", "1.02", "--json")["races"][0]
    assert weak["rollbacks"][0]["calls"] is None, "it is not followed, and does not say a number"


def test_a_definition_is_planned_with_its_guards_and_says_which_takes_longest(tmp_path):
    event: dict[str, Any] = {"model": "shop", "experiment": "x", "arms": ["control", "b"]}
    event["primary"] = {"metric": "accuracy", "effect": 0.05}
    event["guards"] = [
        {"metric": "accuracy", "effect": 0.01},
        {"metric": "features.age", "effect": 1},
    ]
    path = tmp_path / "e.json"
    path.write_text(json.dumps(event))
    with pytest.raises(InputError, match="give --from FILE"):
        run(str(path))
    with pytest.raises(InputError, match="leave --metric and --effect out"):
        run(str(path), "--metric", "error", "--mean", "0.1")
    with pytest.raises(InputError, match="each metric once"):
        from_file(tmp_path, rows_of(5), str(path), "--json")
    event["guards"][0] = {"metric": "error_rate", "effect": 0.01}
    path.write_text(json.dumps(event))
    got = from_file(tmp_path, rows_of(5), str(path), "--json")
    first, guard = got["outcomes"]
    assert [(o["metric"], o["guard"]) for o in got["outcomes"]] == [
        ("accuracy", False),
        ("error_rate", True),
    ]
    alone = from_file(tmp_path, rows_of(5), "--metric", "accuracy", "--effect", "0.05", "--json")
    assert first["planned"]["sequence"] == alone["effects"][0]["sequence"]
    assert guard["planned"]["sequence"]["calls"] > 10 * first["planned"]["sequence"]["calls"]
    assert got["longest"] == "error_rate"
    assert "guard error_rate 0.01 takes longest" in from_file(tmp_path, rows_of(5), str(path))
    assert any("guard features.age is not planned" in note for note in got["notes"])
