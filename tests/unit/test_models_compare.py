"""`models compare --predictions`: what people read, what programs read, and when the gate fails."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.cli.models_compare import WIDTH, picture


def file(path: Path, wrong: float, n: int = 2_000, seed: int = 0, **more: Any) -> str:
    """Predictions of one model, as pandas writes booleans; the labels are always the same."""
    y = np.random.default_rng(1).random(n) < 0.4
    p = y ^ (np.random.default_rng(seed).random(n) < wrong)
    with path.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["id", "y", "y_hat", "user", "country", *more])
        for i in range(n):
            country = "DE" if i % 4 else "FR"
            values = [column[i] for column in more.values()]
            rows.writerow([i, bool(y[i]), bool(p[i]), f"u{i // 3}", country, *values])
    return str(path)


def run(*arguments: str) -> tuple[int, str, str]:
    maps = ("--map", "label=y", "--map", "prediction=y_hat")
    done = CliRunner().invoke(cli, ["models", "compare", *maps, "--predictions", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("predictions")
    return {
        "champion": file(folder / "champion.csv", 0.2),
        "equal": file(folder / "equal.csv", 0.2, seed=5),
        "better": file(folder / "better.csv", 0.1, seed=6),
        "worse": file(folder / "worse.csv", 0.3, seed=7),
        "few": file(folder / "few.csv", 0.2, n=300),
        "few_better": file(folder / "few_better.csv", 0.05, n=300, seed=8),
    }


@pytest.mark.parametrize(
    ("champion", "challenger", "worse", "not_better"),
    [
        ("champion", "better", 0, 0),
        ("champion", "equal", 0, 1),
        ("champion", "champion", 0, 1),
        ("champion", "worse", 1, 1),
        ("few", "few_better", 1, 1),
    ],
)
def test_the_gate(files, champion, challenger, worse, not_better):
    pair = files[champion], files[challenger]
    assert run(*pair)[0] == 0
    for fail_on, code in (("worse", worse), ("not-better", not_better)):
        got, out, err = run(*pair, "--fail-on", fail_on, "--json")
        assert got == code
        found = json.loads(out)
        assert found["failed"] is bool(code)
        assert (f"failed: --fail-on {fail_on}" in err) is bool(code)


def test_fewer_rows_can_be_allowed(files):
    pair = files["few"], files["few_better"]
    assert run(*pair, "--fail-on", "not-better", "--min-rows", "300")[0] == 0


def test_a_harmed_segment_fails_the_gate(tmp_path, files):
    text = Path(files["better"]).read_text().splitlines()
    for i in range(1, len(text), 16):
        cells = text[i].split(",")
        if cells[4] == "FR":
            text[i] = ",".join([*cells[:2], str(cells[1] != "True"), *cells[3:]])
    harmed = tmp_path / "harmed.csv"
    harmed.write_text("\n".join(text) + "\n")
    pair = files["champion"], str(harmed)
    assert run(*pair, "--fail-on", "worse")[0] == 0
    code, out, _ = run(*pair, "--fail-on", "worse", "--segments", "country", "--unit", "user")
    assert code == 1
    assert "reject: country=FR may be worse by " in out


def test_not_worse_needs_an_anchor(files):
    pair = files["champion"], files["champion"]
    rule = ("--rule", "not-worse", "--fail-on", "not-better")
    assert run(*pair, *rule)[0] == 1
    assert run(*pair, *rule, "--anchor", files["champion"])[0] == 0
    assert run(*pair, *rule, "--anchor", files["better"])[0] == 1


def test_what_people_read(files):
    code, out, _ = run(files["champion"], files["better"], "--unit", "user", "--segments=country")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].endswith("2,000 rows, 667 units, each bound at 0.95")
    pictures = {line.split()[0]: line for line in lines[2:5]}
    assert set(pictures) == {"accuracy", "country=DE", "country=FR"}
    zero = lines[1].index("0")
    for line in pictures.values():
        assert line[zero] in "|=o"
        assert line.index("[") > zero  # all of it is better
    assert lines[-1].startswith("promote: accuracy 0.")


def test_pictures_have_their_marks():
    for lower, gain, upper in ((-1, 0, 1), (0, 0, 0), (0.999, 1, 1), (-1, -1, -0.999)):
        made = picture(lower, gain, upper, 1.0)
        assert len(made) == WIDTH
        assert "o" in made
    assert picture(None, None, None, 1.0).strip() == "not defined"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--map", "lable=x"), "no field 'lable'. Did you mean 'label'"),
        (("--map", "score"), "write FIELD=COLUMN"),
        (("--metric", "roc_auc"), "no column `score`"),
        (("--metric", "f2"), "metric 'f2' is not known"),
        (("--unit", "session"), "no column 'session'"),
    ],
)
def test_what_cannot_be_is_refused(files, arguments, message):
    from stream_monitor.errors import InputError

    with pytest.raises(InputError, match=message):
        run(files["champion"], files["better"], *arguments)
