"""
What `replay` says of tables as people have them, held to scikit-learn and plain Python; and that a
run which looked at nothing has failed.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score

from stream_monitor.cli import cli
from stream_monitor.errors import InputError

T0 = 1_760_000_000_000
Columns = dict[str, Sequence[Any]]


class Ran:
    """One run of `replay`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        out = folder / "summary.json"
        run = CliRunner().invoke(
            cli,
            ["replay", *arguments, "--summary", str(out), "--report", str(folder / "report.html")],
        )
        if run.exception is not None and not isinstance(run.exception, SystemExit):
            raise run.exception
        self.code, self.text = run.exit_code, run.stdout + run.stderr
        assert run.exit_code in (0, 1), self.text
        self.summary = json.loads(out.read_text()) if out.exists() else {}
        page = (folder / "report.html").read_text() if out.exists() else ""
        self.report = re.sub("</?code>", "`", page)

    @property
    def version(self) -> dict[str, Any]:
        (model,) = self.summary["models"].values()
        (version,) = model["versions"].values()
        return version


@pytest.fixture
def replay(tmp_path, monkeypatch) -> Callable[..., Ran]:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: Ran(tmp_path, *arguments)


def csv_file(name: str, columns: Columns) -> str:
    Path(name).write_text(
        "".join(
            ",".join("" if v is None else str(v) for v in row) + "\n"
            for row in [list(columns), *zip(*columns.values(), strict=True)]
        )
    )
    return name


def jsonl_file(name: str, columns: Columns) -> str:
    Path(name).write_text(
        "".join(
            json.dumps(dict(zip(columns, row, strict=True))) + "\n"
            for row in zip(*columns.values(), strict=True)
        )
    )
    return name


def parquet_file(name: str, columns: Columns) -> str:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), name)
    return name


FILES = {"csv": csv_file, "jsonl": jsonl_file, "parquet": parquet_file}


def outcomes(n: int, seed: int = 0) -> tuple[list[int], list[int]]:
    r = random.Random(seed)
    labels = [r.randrange(2) for _ in range(n)]
    return [y if r.random() < 0.9 else 1 - y for y in labels], labels


# ---- labels in a file of their own


@pytest.mark.parametrize("labels_as", FILES)
@pytest.mark.parametrize("predictions_as", FILES)
@pytest.mark.parametrize("times", ["both", "predictions", "labels", "none"])
def test_labels_meet_their_predictions_in_every_format_with_and_without_times(
    replay, predictions_as, labels_as, times
):
    n = 120
    predicted, labels = outcomes(n)
    ids = random.Random(1).sample(range(1, 10_000), n)
    p: Columns = {"event_id": list(ids), "model": ["m"] * n, "prediction": list(predicted)}
    y: Columns = {"event_id": list(ids), "label": list(labels)}
    if times in ("both", "predictions"):
        p["timestamp"] = [T0 + i * 100 for i in range(n)]
    if times in ("both", "labels"):
        y["timestamp"] = [T0 + i * 100 + 50 for i in range(n)]
    order = random.Random(2).sample(range(n), n)
    y = {name: [values[i] for i in order] for name, values in y.items()}
    got = replay(
        "--predictions",
        FILES[predictions_as](f"p.{predictions_as}", p),
        "--labels",
        FILES[labels_as](f"l.{labels_as}", y),
        "--fail-on",
        "critical",
    )
    assert got.code == 0, got.text
    assert got.version["labels"] == n
    if times != "labels":  # else the order of the file is that of the ids
        assert got.version["windows"]["24h"]["accuracy"] == pytest.approx(
            accuracy_score(labels, predicted)
        )
    assert ("takes the time of its prediction" in got.text) is (times != "both")


@pytest.mark.parametrize(
    ("written", "meets", "word"),
    [
        (lambda i: f" {i} ", True, None),
        (lambda i: f"{i}.0", True, None),
        (lambda i: f"{i:08}", False, "without zeros in front"),
        (lambda i: f"{i / 3:.2e}", False, "ids of such labels: "),
        (lambda i: f"order-{i}", False, "'order-"),
    ],
)
def test_ids_written_in_two_ways_meet_or_are_told(replay, written, meets, word):
    n = 300
    predicted, labels = outcomes(n)
    ids = [1_000 + 7 * i for i in range(n)]
    csv_file(
        "p.csv",
        {
            "event_id": ids,
            "model": ["m"] * n,
            "timestamp": [T0 + i for i in range(n)],
            "prediction": predicted,
        },
    )
    csv_file(
        "l.csv",
        {
            "event_id": [written(i) for i in ids],
            "timestamp": [T0 + i + 60_000 for i in range(n)],
            "label": labels,
        },
    )
    got = replay("--predictions", "p.csv", "--labels", "l.csv", "--fail-on", "critical")
    assert got.version["labels"] == n * meets
    assert got.code == (0 if meets else 1)
    if word is not None:
        assert f"no label met a prediction ({n} labels)" in got.text
        assert word in got.text
        assert repr(str(ids[0])) in got.text


def test_labels_that_come_too_late_are_told_with_their_delay(replay):
    n, day = 300, 86_400_000
    predicted, labels = outcomes(n)
    csv_file(
        "p.csv",
        {
            "event_id": range(n),
            "model": ["m"] * n,
            "timestamp": [T0 + i for i in range(n)],
            "prediction": predicted,
        },
    )
    csv_file(
        "l.csv",
        {"event_id": range(n), "timestamp": [T0 + i + 12 * day for i in range(n)], "label": labels},
    )
    got = replay("--predictions", "p.csv", "--labels", "l.csv", "--fail-on", "warning")
    assert got.code == 1
    assert "300 labels came later than labels.max_delay (24h)" in got.text
    assert "the last 12d" in got.text


# ---- columns that have the name of a field by chance


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("status", ["married", "single"]),
        ("status", [1, 2, 3]),
        ("score", [300, 700, 850]),
        ("score", ["high", "low"]),
        ("segments", ["retail", "private"]),
        ("features", [1, 2]),
        ("embedding", ["a", "b"]),
        ("latency_ms", ["slow", "fast"]),
    ],
)
def test_a_column_that_cannot_be_the_field_of_its_name_is_a_feature_and_that_is_said(
    replay, kind, field, values
):
    n = 120
    r = random.Random(3)
    columns: Columns = {
        field: [r.choice(values) for _ in range(n)],
        "age": list(range(n)),
        "prediction": outcomes(n)[0],
    }
    got = replay(FILES[kind](f"m.{kind}", columns), "--fail-on", "warning")
    assert got.summary["records"]["predictions"]["accepted"] == n, got.text
    assert f"column `{field}` is read as a feature" in got.text
    assert f"column `{field}` is read as a feature" in got.report
    if field == "features":
        return  # `age` is one too, so that there are features
    insisted = replay(f"m.{kind}", "--map", f"{field}={field}", "--fail-on", "warning")
    assert (insisted.summary["records"]["predictions"]["accepted"], insisted.code) == (0, 1)
    assert f"`{field}`" in insisted.report


def test_fields_that_fit_stay_fields(replay):
    n = 200
    r = random.Random(4)
    columns: Columns = {
        "status": ["error" if i % 50 == 7 else "ok" for i in range(n)],
        "score": [1.2 if i == 9 else r.random() for i in range(n)],
        "latency_ms": [r.random() for _ in range(n)],
    }
    got = replay(csv_file("m.csv", columns), "--fail-on", "critical")
    assert "read as a feature" not in got.text
    assert got.summary["records"]["predictions"] == {
        "received": n,
        "accepted": n - 1,
        "duplicate": 0,
        "rejected": 1,
    }
    assert (
        "predictions refused as out_of_range: 1; the first (row 10): `score` must be in [0, "
        "1], not 1.2"
    ) in got.text
    assert got.code == 0


def test_many_models_are_told_by_the_column(replay):
    n = 400
    got = replay(
        csv_file("cars.csv", {"model": [f"car{i % 40}" for i in range(n)], "prediction": range(n)})
    )
    assert "column `model` is read as `model`: 40 models" in got.text
    assert "--map model=:NAME --map features.model=model" in got.text
    meant = replay("cars.csv", "--map", "model=:cars", "--map", "features.model=model")
    assert list(meant.summary["models"]) == ["cars"]
    assert "features: model\n" in meant.text


# ---- nothing, or hardly anything


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("prediction\n", "the input has no rows"),
        ("y_hat\n1\n0\n", "none of 2 predictions could be used"),
        ("prediction,timestamp\n1,1995-01-01\n0,1996-01-01\n", "not after 2000-01-01"),
        (
            "prediction,timestamp\n1,soon\n0,later\n0,2025-10-09\n",
            "most predictions were refused: 2 of 3 (67%)",
        ),
        (
            "prediction,event_id\n" + "1,a\n" * 9,
            "most predictions have an id that another row has, and count once: 8 of 9",
        ),
    ],
)
def test_a_run_that_looked_at_nothing_fails_where_it_is_asked_to(replay, content, word):
    Path("m.csv").write_text(content)
    got = replay("m.csv", "--fail-on", "critical")
    assert got.code == 1
    assert word in got.text
    assert (
        word.partition(" (")[0] in got.report.replace("&#x27;", "'")
        or word == "not after 2000-01-01"
    )
    assert replay("m.csv").code == 0


# ---- times


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("unit", "factor"),
    [("seconds", 1e-3), ("milliseconds", 1), ("microseconds", 1_000), ("nanoseconds", 10**6)],
)
@pytest.mark.parametrize("as_float", [False, True])
def test_times_in_any_unit_are_the_true_times(replay, kind, unit, factor, as_float):
    n = 100
    times_ms = [T0 + i * 1_000 for i in range(n)]
    values = [float(t * factor) if as_float else int(t * factor) for t in times_ms]
    got = replay(
        FILES[kind](f"m.{kind}", {"timestamp": values, "prediction": [1] * n, "label": [1] * n})
    )
    end = datetime.fromisoformat(got.version["windows"]["24h"]["end"])
    assert abs(end.timestamp() * 1_000 - times_ms[-1]) <= 60_000
    assert (f"are read as {unit} since 1970" in got.text) is (unit != "milliseconds")


@pytest.mark.parametrize(
    ("text", "zone", "right"),
    [
        ("2025-07-09 08:15:00", "UTC", "2025-07-09T08:15:00"),
        ("2025-07-09 08:15:00", "Europe/Berlin", "2025-07-09T06:15:00"),
        ("2025-07-09 08:15:00", "+05:30", "2025-07-09T02:45:00"),
        ("2025-07-09T08:15:00+02:00", "Europe/Berlin", "2025-07-09T06:15:00"),
        ("2025-07-09", "UTC", "2025-07-09T00:00:00"),
        ("20250709", "UTC", "2025-07-09T00:00:00"),
        ("9.7.2025 8:15", "UTC", "2025-07-09T08:15:00"),
        ("7/29/2025 8:15 PM", "UTC", "2025-07-29T20:15:00"),
        ("29/7/2025 08:15", "UTC", "2025-07-29T08:15:00"),
        ("2025-07-09 08:15:00.123456789 UTC", "UTC", "2025-07-09T08:15:00.123"),
    ],
)
def test_times_without_a_zone_are_in_the_one_that_was_told(replay, text, zone, right):
    got = replay(
        csv_file("m.csv", {"timestamp": [text] * 20, "prediction": [1] * 20, "label": [1] * 20}),
        "--timezone",
        zone,
    )
    right_ms = datetime.fromisoformat(right).replace(tzinfo=UTC).timestamp() * 1_000
    end_ms = datetime.fromisoformat(got.version["windows"]["24h"]["end"]).timestamp() * 1_000
    assert 0 <= end_ms - right_ms <= 60_000


def test_rows_without_a_time_are_counted(replay):
    got = replay(
        csv_file("m.csv", {"timestamp": [T0, None, T0 + 5_000, None], "prediction": [1] * 4})
    )
    assert "timestamp: 2 rows have no time and take that of the row before" in got.text


# ---- how it was read


def test_likely_names_are_asked_about_and_nothing_is_guessed(replay):
    n = 50
    got = replay(
        csv_file(
            "m.csv",
            {
                "id": range(n),
                "ts": [T0] * n,
                "y_pred": [1] * n,
                "y_true": [1] * n,
                "Probability": [0.5] * n,
                "age": range(n),
            },
        )
    )
    for ask in (
        "--map prediction=y_pred",
        "--map label=y_true",
        "--map score=Probability",
        "--map timestamp=ts",
        "--map event_id=id",
    ):
        assert f"did you mean {ask}?" in got.text
        assert ask in got.report
    assert "features: id, ts, y_pred, y_true, Probability and 1 more" in got.text


def test_refused_rows_are_told_by_model(replay):
    rows = [
        {
            "event_id": str(i),
            "model": "ab"[i % 2],
            "timestamp": T0 + i,
            "score": 1.5 if i % 2 and i < 40 else 0.5,
        }
        for i in range(200)
    ]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    got = replay("--predictions", "p.jsonl")
    assert (got.summary["models"]["a"].get("rejected"), got.summary["models"]["b"]["rejected"]) == (
        None,
        20,
    )
    assert "b: 20 of 100 predictions refused (20.0%)" in got.text


def test_clipped_scores_are_counted(replay):
    got = replay(csv_file("m.csv", {"score": [0.5, 1 + 1e-7, -1e-9, 0.25]}))
    assert got.summary["records"]["predictions"]["accepted"] == 4
    assert "2 rows have a score outside [0, 1] by rounding: clipped" in got.text


def test_the_index_of_a_data_frame_is_no_feature(replay):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    n = 40
    table = pa.table(
        {
            "x": [1.5] * n,
            "prediction": [1] * n,
            "customer": list(range(n)),
            "__index_level_1__": list(range(n)),
        }
    )
    pq.write_table(
        table.replace_schema_metadata(
            {"pandas": json.dumps({"index_columns": ["customer", "__index_level_1__"]})}
        ),
        "m.parquet",
    )
    got = replay("m.parquet")
    assert "customer, __index_level_1__: the index of a data frame, left out" in got.text
    assert "features: x\n" in got.text
    Path("m.csv").write_text(
        ",Unnamed: 0,x,prediction\n" + "".join(f"{i},{i},1.5,1\n" for i in range(n))
    )
    assert "features: x\n" in replay("m.csv").text


def test_parquet_of_every_type_is_read(replay):
    import decimal

    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    n = 30
    columns = {
        "prediction": pa.array([1] * n, pa.uint64()),
        "u64": pa.array([2**63 + i for i in range(n)], pa.uint64()),
        "i64": pa.array([2**60 + i for i in range(n)]),
        "dec": pa.array([decimal.Decimal("1.25")] * n),
        "lists": pa.array([[1, 2]] * n),
        "objects": pa.array([{"a": 1}] * n),
        "moments": pa.array([[1]] * n, pa.list_(pa.timestamp("ns"))),
        "kinds": pa.array(["a"] * n).dictionary_encode(),
        "day": pa.array([20_000] * n, pa.date32()),
        "hour": pa.array([1] * n, pa.time64("ns")),
        "nothing": pa.nulls(n),
        "half": pa.array([0.5] * n, pa.float32()).cast(pa.float16()),
        "raw": pa.array([b"\xff\x00"] * n),
        "seen": pa.array([10**18 + 1] * n, pa.timestamp("ns", "Europe/Berlin")),
        "spent": pa.array([1_500_000_000] * n, pa.duration("ns")),
        "infinite": pa.array([float("inf")] * n, pa.float32()),
        "pairs": pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
    }
    pq.write_table(pa.table(columns), "m.parquet")
    got = replay("m.parquet")
    assert got.summary["records"]["predictions"]["accepted"] == n, got.text
    for word in (
        "u64, i64: whole numbers are beyond 2**53",
        "lists, objects, moments, pairs: lists or objects",
        "spent: durations, in seconds",
        "raw: bytes",
        "day, hour, seen: times",
    ):
        assert word in got.text
    run = CliRunner().invoke(cli, ["baseline", "build", "m.parquet", "-o", "p.json"])
    assert run.exit_code == 0, run.output
    features = json.loads(Path("p.json").read_text())["features"]
    assert {name: features[name]["mean"] for name in ("dec", "half", "spent")} == {
        "dec": 1.25,
        "half": 0.5,
        "spent": 1.5,
    }


@pytest.mark.parametrize("labels_as", [csv_file, jsonl_file, parquet_file])
@pytest.mark.parametrize("known", [1.0, 0.3, 0.0])
def test_rows_whose_label_is_not_there_yet_are_counted_and_not_refused(replay, labels_as, known):
    truth, answers = outcomes(400)
    rng = random.Random(3)
    told = [y if rng.random() < known else None for y in truth]
    ids = [f"a{i}" for i in range(400)]
    predictions = csv_file("p.csv", {"event_id": ids, "model": ["m"] * 400, "prediction": answers})
    labels = labels_as(
        f"l.{labels_as.__name__.removesuffix('_file')}", {"event_id": ids, "label": told}
    )
    table = labels_as(
        f"t.{labels_as.__name__.removesuffix('_file')}",
        {"event_id": ids, "prediction": answers, "label": told},
    )
    there = [i for i, y in enumerate(told) if y is not None]
    for ran in (
        replay("--predictions", predictions, "--labels", labels, "--fail-on", "critical"),
        replay(table, "--fail-on", "critical"),
    ):
        assert ran.summary["records"]["labels"]["received"] == ran.version["labels"] == len(there)
        assert "refused" not in ran.summary or not ran.summary["refused"]
        assert ran.code == (not there)
        assert ("no row has a label" in ran.text) is (not there)
        assert (f"{400 - len(there)} rows have no label yet" in ran.text) is (0 < len(there) < 400)
        if there:
            assert ran.version["windows"]["all"]["accuracy"] == pytest.approx(
                accuracy_score([truth[i] for i in there], [answers[i] for i in there]), abs=1e-9
            )


def test_a_label_file_of_whole_numbers_is_told_as_a_regression_unless_it_is_configured(replay):
    stars = csv_file(
        "stars.csv",
        {"prediction": [i % 5 for i in range(300)], "label": [i % 4 for i in range(300)]},
    )
    assert "labels are read as numbers, not as classes" in replay(stars).text
    Path("monitor.yaml").write_text("defaults: {task: regression}")
    assert "labels are read as numbers" not in replay(stars).text


def test_faults_of_spreadsheets_in_other_languages_are_missing(replay):
    faults = ["#NV", "#N/D", "#WERT!", "#VALEUR!", "#¡VALOR!"]
    ran = replay(
        csv_file(
            "t.csv",
            {
                "prediction": [1] * 50,
                "label": [0] * 50,
                "x": [faults[i % 5] if i % 3 == 0 else i for i in range(50)],
            },
        )
    )
    assert "read as missing" in ran.text
    assert "no number" not in ran.text


def test_rows_of_unexpected_classes_are_no_more_than_there_are_rows(replay):
    """Another class is answered than is true in each row: the row is one."""
    ran = replay(
        csv_file(
            "t.csv",
            {
                "prediction": ["a", "b"] * 50 + [f"x{i}" for i in range(3)],
                "label": ["a", "b"] * 50 + [f"y{i}" for i in range(3)],
            },
        ),
        "--alerts",
        "a.jsonl",
    )
    told = [
        a
        for a in map(json.loads, Path("a.jsonl").read_text().splitlines())
        if a["subject"] == "unexpected_class"
    ]
    assert told[-1]["value"] == 3
    assert "3 of 103 labelled rows" in told[-1]["summary"], ran.text


@pytest.mark.parametrize(
    "form",
    [
        "%d-%b-%Y",
        "%d%b%Y",
        "%b %d, %Y",
        "%A, %d %B %Y",
        "%d %B %Y",
        "%a, %d %b %Y 00:00:00",
        "%d-%b-%Y 12:00 AM",
        "%d%b%Y:00:00:00",
    ],
)
def test_dates_with_the_name_of_the_month(replay, form):
    days = [datetime.fromtimestamp(1_640_995_200 + i * 86_400, UTC) for i in range(400)]
    table = csv_file(
        "t.csv",
        {
            "timestamp": [f'"{day.strftime(form)}"' for day in days],
            "prediction": [i % 2 for i in range(400)],
            "label": [0] * 400,
        },
    )
    ran = replay(table)
    window = ran.version["windows"]["all"]
    assert (window["start"], window["end"], window["labels"]) == (
        "2022-01-01T00:00:00.000Z",
        "2023-02-04T00:00:00.000Z",
        400,
    )


def test_times_that_cannot_be_used_are_told_by_column(replay):
    columns: Columns = {"timestamp": ["the 9th"] * 20, "prediction": [1] * 20}
    ran = replay(csv_file("t.csv", columns))
    assert "timestamp: 20 values are no time, such as 'the 9th'" in ran.text
    assert "no timestamp" not in ran.text
    columns["timestamp"] = [f"1985-01-{i + 1:02}" for i in range(20)]
    assert (
        "timestamp: times begin at 1985-01-01T00:00:00+00:00; rows before 2000-01-01 are refused"
        in replay(csv_file("t.csv", columns)).text
    )


@pytest.mark.parametrize("write", [csv_file, parquet_file])
def test_classes_of_columns_of_a_fixed_width_are_the_same_classes(replay, write):
    truth, answers = outcomes(300)
    table = write(
        f"t.{write.__name__.removesuffix('_file')}",
        {
            "label": [f"{['no', 'yes'][y]:<5}" for y in truth],
            "prediction": [f" {['no', 'yes'][p]}" for p in answers],
        },
    )
    ran = replay(table)
    assert ran.version["task"] == "binary"
    assert ran.version["windows"]["all"]["accuracy"] == pytest.approx(
        accuracy_score(truth, answers), abs=1e-9
    )


def test_ids_are_no_features_whatever_their_size(replay):
    ran = replay(
        parquet_file(
            "t.parquet",
            {"event_id": [2**61 + i for i in range(50)], "prediction": [1] * 50, "x": [2**61] * 50},
        )
    )
    assert "x.parquet" not in ran.text
    assert "t.parquet: x: whole numbers are beyond 2**53" in ran.text


@pytest.mark.parametrize("where", [0, 199, 399], ids=["first", "middle", "last"])
@pytest.mark.parametrize(
    "ahead_ms", [400 * 86_400_000, 80 * 365 * 86_400_000], ids=["after all others", "after today"]
)
@pytest.mark.parametrize("write", [csv_file, jsonl_file])
def test_a_row_of_a_clock_that_is_ahead_takes_the_time_of_the_row_before(
    replay, write, ahead_ms, where
):
    random_ = random.Random(where)
    times = [T0 + 1_000 * max(i, 1) for i in range(400)]
    columns: Columns = {
        "timestamp": times,
        "prediction": [1] * 400,
        "label": [int(random_.random() < 0.7) for _ in times],
    }
    right = list(times)
    right[where] = times[max(where - 1, 0)]
    expected = replay(
        write(
            "right.x".replace("x", "csv" if write is csv_file else "jsonl"),
            columns | {"timestamp": right},
        ),
        "--map",
        "model=:m",
    ).version["windows"]
    wrong = list(times)
    wrong[where] += ahead_ms
    found = replay(
        write(
            "wrong.x".replace("x", "csv" if write is csv_file else "jsonl"),
            columns | {"timestamp": wrong},
        ),
        "--map",
        "model=:m",
    )
    assert found.version["windows"] == expected
    assert "1 row is dated after today or far after all others" in found.text


@pytest.mark.parametrize(
    "times",
    [
        [T0 + i * 31 * 86_400_000 for i in range(30)],
        [T0] * 200 + [T0 + 100 * 86_400_000] * 2,
        [T0, T0 + 10**10 * 3],
    ],
    ids=["monthly", "a pause", "two"],
)
def test_a_pause_is_no_clock_that_is_ahead(replay, times):
    run = replay(
        csv_file(
            "t.csv", {"timestamp": times, "prediction": [1] * len(times), "label": [1] * len(times)}
        )
    )
    assert "clock that is ahead" not in run.text
    assert run.version["windows"]["all"]["end"] == datetime.fromtimestamp(
        times[-1] / 1e3, UTC
    ).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_the_report_says_the_positive_class_and_how_it_was_found(replay):
    truth, answers = outcomes(300)
    table = csv_file(
        "t.csv",
        {
            "label": ["<ok>" if y else "bad" for y in truth],
            "prediction": ["<ok>" if p else "bad" for p in answers],
            "score": [0.9 if p else 0.1 for p in answers],
        },
    )
    ran = replay(table)
    assert (ran.version["positive_class"], ran.version["positive_class_source"]) == (
        "<ok>",
        "score",
    )
    assert "binary, positive class `&lt;ok&gt;` (the greater mean score)" in ran.report
    assert "`<ok>` is the positive class (the greater mean score)" in ran.text


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            "1,{long},1",
            "line 4: the cell of column `text` has 131,073 characters (at most 131,072)",
        ),
        ("1,2,3,4", "4 cells, where the header has 3"),
        ('1,"2"3,4', "line 4: malformed CSV: ',' expected after '\"'"),
    ],
)
def test_a_row_that_is_not_csv_is_refused_with_what_is_wrong(replay, row: str, why: str) -> None:
    limit, text = csv.field_size_limit(), row.format(long="x" * 131_073)
    Path("t.csv").write_text(f"prediction,text,label\n1,a,1\n0,b,1\n{text}\n" + "1,c,1\n" * 50)
    found = replay("t.csv").summary["refused"]["predictions"][0]
    assert found["first"] == {"offset": 2, "message": why}
    assert csv.field_size_limit() == limit == 131_072


def test_a_cell_of_too_many_lines_is_named_although_its_quote_spoils_the_rest(tmp_path) -> None:
    text = "xxxx\n" * 26_300
    (tmp_path / "t.csv").write_text(f'prediction,text\n1,a\n0,"{text}"\n' + "1,c\n" * 50)
    run = CliRunner().invoke(cli, ["replay", str(tmp_path / "t.csv")])
    assert isinstance(run.exception, InputError)
    assert str(run.exception).endswith(
        "t.csv: line 3: the cell of column `text` has more than 131,072 characters in 26,215 "
        "lines; is its quote closed? (at most 131,072)"
    )
