"""
`baseline`: a profile of a file is the one a worker learns of the same rows, and what is wrong is
said in one line.
"""

from __future__ import annotations

import gzip
import json
import random

import msgspec
import numpy as np
import pytest
from pyarrow import csv, parquet

from stream_monitor.cli import main
from stream_monitor.config import load
from stream_monitor.demo.broker import start_in_thread
from stream_monitor.inputs import InputOptions, open_events
from stream_monitor.monitors.baseline import decode_profile, profile_id
from stream_monitor.offline.replay import Replay
from stream_monitor.settings import Baseline, CoreSettings, ModelSettings, Settings

ROWS = 1_400


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty folder; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str):
        monkeypatch.setattr("sys.argv", ["stream-monitor", *arguments])
        try:
            main()
        except SystemExit as e:
            code = e.code or 0
        else:
            code = 0
        found = capsys.readouterr()
        assert "Traceback" not in found.err
        return code, found.out, found.err

    return run


@pytest.fixture
def table(tmp_path):
    """A table with numbers, categories, missing values, texts, ties and doubles."""
    rnd = random.Random(5)
    lines = ["event_id,age,country,amount,flag,prediction,score,label"]
    for i in range(ROWS):
        age = "" if rnd.random() < 0.05 else repr(rnd.gauss(40, 12))
        lines.append(
            f"e{i if i % 100 else 0},{age},{rnd.choice(['de', 'fr', 'it', ''])},{rnd.lognormvariate(0, 2)!r},{rnd.choice([0, 1])},{i % 2},{rnd.random():.3f},{i % 3 % 2}"  # noqa: E501
        )
    path = tmp_path / "train.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def formats(path):
    """The same table in every format."""
    found = csv.read_csv(path, convert_options=csv.ConvertOptions(strings_can_be_null=True))
    parquet.write_table(found, path.with_suffix(".parquet"))
    path.with_suffix(".jsonl").write_text(
        "".join(json.dumps({"model": "train", **row}) + "\n" for row in found.to_pylist())
    )
    for name in ("csv", "jsonl"):
        plain = path.with_suffix(f".{name}")
        plain.with_name(plain.name + ".gz").write_bytes(gzip.compress(plain.read_bytes()))
    return [
        path.with_name("train" + end)
        for end in (".csv", ".csv.gz", ".parquet", ".jsonl", ".jsonl.gz")
    ]


def learnt(path, rows: int) -> bytes:
    """What a worker publishes when it has learnt of the first rows."""
    replay = Replay(
        Settings(core=CoreSettings(defaults=ModelSettings(baseline=Baseline(rows=rows))))
    )
    with open_events(InputOptions(table=str(path))) as events:
        replay.feed(events)
    replay.close()
    return next(o.value for o in replay.out if o.topic == "baselines")


def test_the_same_rows_give_the_same_profile_as_in_a_worker(call, table):
    for path in formats(table):
        expected = learnt(path, 700)
        code, out, _ = call(
            "baseline", "build", str(path), "-o", "p.json", "--rows", "700", "--json"
        )
        assert code == 0
        built = (table.parent / "p.json").read_bytes()
        profile = decode_profile(built)
        assert msgspec.structs.replace(profile, performance={}) == decode_profile(expected), (
            "performance is what a file with labels adds"
        )
        found = json.loads(out)
        assert found == {
            "id": profile_id(profile),
            "path": "p.json",
            "model": "train",
            "version": "",
            "rows": 700,
            "features": 4,
        }


def test_all_rows_are_those_that_count_once(call, table):
    code, out, _ = call("baseline", "build", str(table), "-o", "p.json")
    profile = decode_profile((table.parent / "p.json").read_bytes())
    distinct = ROWS - ROWS // 100 + 1
    assert code == 0
    assert profile.rows == distinct, "doubles are dropped, as a worker drops them"
    assert profile_id(profile) in out
    assert msgspec.structs.replace(profile, performance={}) == decode_profile(
        learnt(table, distinct)
    )


def test_several_files_are_one_table(call, tmp_path):
    lines = [f"{i * 0.5},{'ab'[i % 2]}" for i in range(1_200)]
    for name, part in (("all", lines), ("one", lines[:700]), ("two", lines[700:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y", *part]) + "\n")
    assert call("baseline", "build", "all.csv", "-o", "all.json")[0] == 0
    assert call("baseline", "build", "one.csv", "two.csv", "-o", "parts.json")[0] == 0
    assert (tmp_path / "all.json").read_bytes() == (tmp_path / "parts.json").read_bytes()
    assert decode_profile((tmp_path / "all.json").read_bytes()).rows == 1_200, (
        "rows without a prediction have features too"
    )


def test_types_of_the_configuration_count(call, table, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "models: {fraud: {features: {flag: {type: category}}, baseline: {source: file, path: "
        "not-yet.json}}}\n"
    )
    assert (
        call(
            "baseline",
            "build",
            str(table),
            "-o",
            "p.json",
            "--config",
            "c.yaml",
            "--model",
            "fraud",
        )[0]
        == 0
    )
    assert decode_profile((tmp_path / "p.json").read_bytes()).features["flag"].type == "category"


def test_fewer_rows_than_wanted_are_said(call, table):
    code, _, err = call("baseline", "build", str(table), "-o", "p.json", "--rows", "9000")
    assert code == 0
    assert "there are 1,387 rows, not 9,000" in err


def test_one_of_several_versions(call, tmp_path):
    rows = [
        {
            "event_id": str(i),
            "model": "churn",
            "version": str(i % 2),
            "prediction": 1,
            "features": {"x": i},
        }
        for i in range(20)
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    code, _, err = call("baseline", "build", "--predictions", "p.jsonl", "-o", "p.json")
    assert code == 2
    assert "churn/0 (10 rows), churn/1 (10 rows); choose with --model and --version" in err
    code, _, err = call(
        "baseline", "build", "--predictions", "p.jsonl", "-o", "p.json", "--version", "3"
    )
    assert code == 2
    assert "no rows of 3; there are rows of churn/0, churn/1" in err
    assert not (tmp_path / "p.json").exists()
    assert (
        call("baseline", "build", "--predictions", "p.jsonl", "-o", "p.json", "--version", "1")[0]
        == 0
    )
    assert decode_profile((tmp_path / "p.json").read_bytes()).features["x"].min == 1


def test_no_usable_row_names_the_reason(call, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"event_id": "1", "model": "m"}\n{\n')
    code, _, err = call("baseline", "build", "--predictions", "p.jsonl", "-o", "p.json")
    assert code == 2
    assert (
        "no usable prediction in 2 rows: 1 rejected as missing_field, 1 rejected as invalid_json"
        in err
    )


def test_show_is_readable(call, table):
    call("baseline", "build", str(table), "-o", "p.json")
    profile = decode_profile((table.parent / "p.json").read_bytes())
    code, out, _ = call("baseline", "show", "p.json")
    assert code == 0
    assert profile_id(profile) in out
    age = profile.features["age"]
    assert f"{age.mean:.4g}" in out
    assert (
        f"{age.q1 - 1.5 * (age.q3 - age.q1):.4g} to {age.q3 + 1.5 * (age.q3 - age.q1):.4g}" in out
    )
    assert next(iter(profile.features["country"].categories)) in out
    shown = json.loads(call("baseline", "show", "p.json", "--json")[1])
    assert (shown["id"], shown["profile"]["rows"]) == (profile_id(profile), profile.rows)


def test_show_says_what_a_baseline_is_of(call, tmp_path):
    """Its support, missing and broken values, and the shares of categories, feature by feature."""
    ages = [None if i % 4 == 0 else i % 50 for i in range(400)]
    plans = ["free" if i % 5 else "paid" for i in range(400)]
    rows = [
        f"{'' if age is None else age},{plan},1\n" for age, plan in zip(ages, plans, strict=True)
    ]
    file = tmp_path / "rows.csv"
    file.write_text("age,plan,prediction\n" + "".join(rows))
    call("baseline", "build", str(file), "-o", "p.json")
    code, out, _ = call("baseline", "show", "p.json")
    assert code == 0
    lines = {line.split()[0]: line.split() for line in out.splitlines()[2:] if line.strip()}
    assert "3 features of 400 rows" in out or "2 features of 400 rows" in out
    assert lines["age"][1:5] == ["numeric", "300", "100", "0"]
    assert lines["plan"][1:5] == ["category", "400", "0", "0"]
    assert "free 80.0%, paid 20.0%" in out
    known = [age for age in ages if age is not None]
    assert lines["age"][5:10] == [
        f"{v:.4g}" for v in (np.mean(known), np.std(known), *np.quantile(known, (0.25, 0.5, 0.75)))
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("{", "not a baseline profile"),
        ('{"schema": 9}', "of schema 9"),
        ('{"features": {"x": 1}}', "not a baseline"),
    ],
)
def test_what_is_no_profile_is_refused(call, tmp_path, content, says):
    if content is not None:
        (tmp_path / "p.json").write_text(content)
    for arguments in (("show", "p.json"), ("publish", "p.json", "--model", "m")):
        code, _, err = call("baseline", *arguments)
        assert code == 2
        assert says in err
        assert "p.json" in err


def test_published_and_shown_from_the_topic(call, table, tmp_path):
    call("baseline", "build", str(table), "-o", "p.json")
    identity = profile_id(decode_profile((tmp_path / "p.json").read_bytes()))
    with start_in_thread(partitions=1) as broker:
        (tmp_path / "monitor.yaml").write_text(
            f"kafka: {{bootstrap_servers: '{broker.bootstrap}', topic_prefix: 'x.'}}\n"
        )
        code, _, err = call("baseline", "show", "fraud/1")
        assert (code, "x.baselines does not exist" in err) == (1, True)
        code, out, _ = call("baseline", "publish", "p.json", "--model", "fraud", "--json")
        assert (code, json.loads(out)) == (
            0,
            {"id": identity, "topic": "x.baselines", "key": "fraud/"},
        )
        assert (
            identity
            in call("baseline", "publish", "p.json", "--model", "fraud", "--version", "1")[1]
        )
        for name in ("fraud", "fraud/", "fraud/1"):
            assert json.loads(call("baseline", "show", name, "--json")[1])["id"] == identity
        code, _, err = call("baseline", "show", "fruad/1")
        assert (code, "Did you mean 'fraud/1'?" in err) == (1, True)


def test_a_broker_that_is_not_there(call, tmp_path):
    (tmp_path / "monitor.yaml").write_text("kafka: {bootstrap_servers: '127.0.0.1:9'}\n")
    code, _, err = call("baseline", "show", "fraud/1")
    assert code == 1
    assert "no connection to Kafka at 127.0.0.1:9 (kafka.bootstrap_servers)" in err


# ---- the file in the configuration


def test_replay_takes_the_file_of_the_configuration(call, table, tmp_path):
    (tmp_path / "conf").mkdir()
    call("baseline", "build", str(table), "-o", "conf/p.json")
    identity = profile_id(decode_profile((tmp_path / "conf" / "p.json").read_bytes()))
    (tmp_path / "conf" / "monitor.yaml").write_text(
        "defaults: {baseline: {source: file, path: p.json}}\n"
    )
    code, out, _ = call("replay", str(table), "--config", "conf/monitor.yaml", "--json")
    assert code == 0
    assert json.loads(out)["models"]["train"]["versions"][""]["baseline"] == identity


@pytest.mark.parametrize("command", [("worker",), ("replay", "t.csv"), ("config", "check")])
def test_a_file_that_is_missing_or_broken_is_a_fault_of_the_configuration(call, tmp_path, command):
    (tmp_path / "t.csv").write_text("x,prediction\n1,1\n")
    (tmp_path / "broken.json").write_text("[]")
    (tmp_path / "monitor.yaml").write_text(
        "kafka: {bootstrap_servers: '127.0.0.1:9'}\ndefaults: {baseline: {source: file, path: "
        "missing.json}}\nmodels: {a: {}, b: {baseline: {source: file, path: broken.json}}}\n"
    )
    code, _, err = call(*command)
    assert code == 2
    assert "defaults.baseline.path: missing.json: cannot be read: No such file" in err
    assert "models.b.baseline.path: broken.json: not a baseline profile" in err
    assert "models.a" not in err, "a file that cannot be used is told once"


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "monitor.yaml").write_text(
        "models: {b: {baseline: {source: file, path: p.json}}}\n"
    )
    assert load(str(tmp_path / "monitor.yaml"), {}).core.models["b"].baseline.path == str(
        tmp_path / "p.json"
    )


def test_performance_is_that_of_the_labelled_rows(call, table, tmp_path):
    """
    Right answers of the rows that count, by their last label; a regression by its errors; none
    without labels, and none of answers that nobody gave.
    """
    assert call("baseline", "build", str(table), "-o", "p.json")[0] == 0
    counted = [i for i in range(ROWS) if i % 100 or i == 0]
    labels = {i if i % 100 else 0: i % 3 % 2 for i in range(ROWS)}
    right = sum(i % 2 == labels[i] for i in counted)
    assert decode_profile((tmp_path / "p.json").read_bytes()).performance == pytest.approx(
        {"accuracy": right / len(counted), "labels": len(counted)}
    )
    rng = np.random.default_rng(2)
    y, p = rng.normal(size=(2, 300))
    (tmp_path / "r.csv").write_text(
        "\n".join(
            [
                "x,prediction,label",
                *(
                    f"{i},{a!r},{b!r}"
                    for i, (a, b) in enumerate(zip(p.tolist(), y.tolist(), strict=True))
                ),
            ]
        )
    )
    assert call("baseline", "build", "r.csv", "-o", "r.json")[0] == 0
    errors = np.abs(p - y)
    expected = {"mae": errors.mean(), "rmse": (errors**2).mean() ** 0.5, "labels": 300}
    assert decode_profile((tmp_path / "r.json").read_bytes()).performance == pytest.approx(
        expected, rel=1e-12
    )
    for name, columns in (("no_label", "x,prediction"), ("no_prediction", "x,label")):
        (tmp_path / f"{name}.csv").write_text(
            "\n".join([columns, *(f"{i},{i % 2}" for i in range(300))])
        )
        assert call("baseline", "build", f"{name}.csv", "-o", "n.json")[0] == 0
        assert decode_profile((tmp_path / "n.json").read_bytes()).performance == {}


@pytest.mark.parametrize("worse", [False, True])
def test_a_model_that_is_worse_than_its_profile_is_told_from_the_first_labels(
    call, tmp_path, worse
):
    """Where the first labels would be the level there would be nothing to compare with."""
    rng = np.random.default_rng(3)

    def written(name: str, share: float, n: int) -> None:
        y = rng.integers(0, 2, n)
        p = np.where(rng.random(n) < share, y, 1 - y)
        lines = [
            f"{1_760_000_000_000 + i * 1000},{a},{b},{x!r}"
            for i, (a, b, x) in enumerate(
                zip(p.tolist(), y.tolist(), rng.normal(size=n).tolist(), strict=True)
            )
        ]
        (tmp_path / name).write_text("\n".join(["timestamp,prediction,label,x", *lines]))

    written("train.csv", 0.96, 4_000)
    written("live.csv", 0.8 if worse else 0.96, 600)
    assert call("baseline", "build", "train.csv", "-o", "p.json")[0] == 0
    replay = Replay(
        Settings(core=CoreSettings(defaults=ModelSettings(baseline=Baseline(source="file")))),
        {"/": (tmp_path / "p.json").read_bytes()},
    )
    with open_events(InputOptions(table=str(tmp_path / "live.csv"))) as events:
        replay.feed(events)
    replay.close()
    told = [json.loads(o.value) for o in replay.out if o.topic == "alerts"]
    found = [a for a in told if a["subject"] == "accuracy" and a["status"] == "firing"]
    assert bool(found) == worse
    if worse:
        assert found[0]["severity"] == "warning"
        assert "over 4,000 rows of the baseline" in found[0]["summary"]
        assert found[0]["window"]["count"] <= 400, "from its first labels"
