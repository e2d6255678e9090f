"""
Files of predictions and labels become events in the order of their time, by the rules of `replay`.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import sys
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.errors import InputError
from stream_monitor.inputs import InputOptions, open_events
from stream_monitor.inputs import merge as merging

START_MS = 946_684_800_000


def events(**options) -> list[tuple[str, Any, bytes, int]]:
    with open_events(InputOptions(**options)) as stream:
        return [(kind, decoded(value), key, time_ms) for kind, value, key, time_ms in stream]


def decoded(value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def stdin(monkeypatch, text: str) -> None:
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(text.encode())))
    )


# ---- the plain table


def test_a_plain_table_gets_a_model_ids_and_times(write):
    path = write("churn.csv", "prediction,age,city\n1,33,Rome\n0,41.5,\n")
    assert events(table=path) == [
        (
            "predictions",
            {
                "prediction": 1,
                "features": {"age": 33.0, "city": "Rome"},
                "event_id": "1",
                "model": "churn",
                "timestamp": START_MS + 1_000,
            },
            b"1",
            START_MS + 1_000,
        ),
        (
            "predictions",
            {
                "prediction": 0,
                "features": {"age": 41.5, "city": None},
                "event_id": "2",
                "model": "churn",
                "timestamp": START_MS + 2_000,
            },
            b"2",
            START_MS + 2_000,
        ),
    ]


def test_a_label_of_a_table_is_an_event_later(write):
    path = write("m.csv", "prediction,label,version\na,a,7\nb,,7\nc,b,7\n")
    got = events(table=path, label_delay_ms=1_500, interval_ms=1_000)
    assert [(kind, value["event_id"], time_ms - START_MS) for kind, value, _, time_ms in got] == [
        ("predictions", "1", 1_000),
        ("predictions", "2", 2_000),
        ("labels", "1", 2_500),
        ("predictions", "3", 3_000),
        ("labels", "3", 4_500),
    ]
    assert got[2][1] == {
        "event_id": "1",
        "model": "m",
        "version": "7",
        "label": "a",
        "timestamp": START_MS + 2_500,
    }
    assert "label" not in got[0][1]


def test_at_the_same_time_predictions_come_first(write):
    got = events(
        table=write(
            "m.csv",
            "prediction,label,timestamp\n1,1,1000000000000\n0,0,1000000000000\n1,1,1000000001000\n",
        )
    )
    assert [kind[0] for kind, *_ in got] == ["p", "p", "l", "l", "p", "l"]


def test_columns_are_mapped_to_fields_constants_and_nothing(write):
    path = write(
        "bank.csv",
        "id,when,p,y,age,income,country,secret\n007,2024-05-01T10:00:00Z,0.75,no,33,10,IT,x\n",
    )
    maps = (
        "event_id=id",
        "timestamp=when",
        "score=p",
        "label=y",
        "features.salary=income",
        "segments.country=country",
        "model=:risk",
        "version=:3",
        "features.source=:4",
    )
    prediction, label = events(table=path, maps=maps, ignore=("secret",))
    assert prediction[1] == {
        "event_id": "007",
        "timestamp": "2024-05-01T10:00:00Z",
        "score": 0.75,
        "features": {"age": 33, "salary": 10, "source": 4},
        "segments": {"country": "IT"},
        "model": "risk",
        "version": "3",
    }
    when_ms = int(datetime(2024, 5, 1, 10, tzinfo=UTC).timestamp() * 1_000)
    assert (prediction[2], prediction[3]) == (b"007", when_ms)
    assert label[1] == {
        "event_id": "007",
        "model": "risk",
        "version": "3",
        "label": "no",
        "timestamp": when_ms,
    }


def test_a_map_wins_over_a_column_of_that_name_which_is_then_left_out(write):
    ((_, value, *_),) = events(
        table=write("m.csv", "prediction,pred,age\n1,0,5\n"), maps=("prediction=pred",)
    )
    assert (value["prediction"], value["features"]) == (0, {"age": 5})


def test_dots_name_fields_inside_and_a_name_without_a_known_parent_is_a_feature(write):
    ((_, value, *_),) = events(
        table=write(
            "m.csv", "score.cat,score.dog,features.age,segments.band,geo.lat\n0.2,0.8,5,3,1.5\n"
        )
    )
    assert value["score"] == {"cat": 0.2, "dog": 0.8}
    assert value["features"] == {"age": 5, "geo.lat": 1.5}
    assert value["segments"] == {"band": "3"}


def test_a_column_is_numeric_if_all_its_cells_that_are_not_empty_are(write):
    path = write(
        "m.csv", "prediction,a,b,c,d,e,f\n1,1,1,1,1_0,,nan\n1,,x,1.5,2,,2\n1,-3,2,1e3,3,,inf\n"
    )
    assert [value["features"] for _, value, *_ in events(table=path)] == [
        {"a": 1, "b": "1", "c": 1.0, "d": "1_0", "e": None, "f": None},
        {"a": None, "b": "x", "c": 1.5, "d": "2", "e": None, "f": 2.0},
        {"a": -3, "b": "2", "c": 1000.0, "d": "3", "e": None, "f": math.inf},
    ]


@given(
    st.lists(
        st.one_of(
            st.just(""),
            st.integers().map(str),
            st.floats(allow_nan=False, allow_infinity=False).map(repr),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_numbers_keep_their_value(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("n") / "m.csv"
    path.write_text("prediction,x\n" + "".join(f"1,{cell}\n" for cell in cells))
    got = [value["features"]["x"] for _, value, *_ in events(table=str(path))]
    assert [None if value is None else float(value) for value in got] == [
        float(cell) if cell else None for cell in cells
    ]
    if all(not cell or (cell.lstrip("-").isdigit() and abs(int(cell)) < 2**63) for cell in cells):
        assert got == [int(cell) if cell else None for cell in cells]


def test_a_type_is_that_of_the_whole_column_however_late_it_shows(write):
    rows = "".join(f"1,{number}\n" for number in range(3_000))
    got = events(table=write("m.csv", "prediction,x\n" + rows + "1,late\n"))
    assert [value["features"]["x"] for _, value, *_ in got] == [*range(3_000), "late"]
    got = events(table=write("m.csv", "prediction,x\n" + rows + "1,late\n" * 3_000))
    assert [value["features"]["x"] for _, value, *_ in got] == [
        *map(str, range(3_000)),
        *["late"] * 3_000,
    ]


def test_cells_with_commas_quotes_and_line_ends(write):
    got = events(table=write("m.csv", '\ufeffprediction,text\r\n1,"a ""b"", c\nd"\r\n\r\n0,é\r\n'))
    assert [(value["event_id"], value["features"]["text"]) for _, value, *_ in got] == [
        ("1", 'a "b", c\nd'),
        ("2", "é"),
    ]


def test_a_row_with_too_many_or_too_few_cells_travels_on_as_it_is(write):
    got = events(table=write("m.csv", 'prediction,a\n1,2\n1\n1,"x,y",3\n0,4\n'))
    assert [
        value
        if isinstance(value, bytes)
        else value["event_id"]
        if isinstance(value, dict)
        else value
        for _, value, *_ in got
    ] == ["1", 1, b'1,"x,y",3', "4"]
    assert [time_ms - START_MS for *_, time_ms in got] == [1_000, 2_000, 3_000, 4_000]


@pytest.mark.parametrize("columns", ["prediction", "prediction,a"])
def test_a_row_that_is_no_csv_travels_on_as_it_is(write, columns):
    rest = ",2" if "," in columns else ""
    long = "x" * 200_000  # longer than a cell may be
    got = events(
        table=write(
            "m.csv", f'{columns}\n1{rest}\n"a"b{rest}\n{long}{rest}\n"two\nlines"x{rest}\n0{rest}\n'
        )
    )
    assert [value if isinstance(value, bytes) else value["event_id"] for _, value, *_ in got] == [
        "1",
        f'"a"b{rest}'.encode(),
        (long + rest).encode(),
        f'"two\nlines"x{rest}'.encode(),
        "5",
    ]
    assert got[0][1]["prediction"] == 1


def test_json_lines_as_a_table_have_columns_by_line(write):
    lines = [
        '{"prediction": 1, "age": 3, "label": 0}',
        '{"prediction": 0, "features": {"age": 4}, "city": "x", "event_id": 7}',
        "nonsense",
        "[1]",
        "",
    ]
    got = events(table=write("m.jsonl", "\n".join(lines)))
    assert [value for kind, value, *_ in got if kind == "predictions"] == [
        {
            "prediction": 1,
            "features": {"age": 3},
            "event_id": "1",
            "model": "m",
            "timestamp": START_MS + 1_000,
        },
        {
            "prediction": 0,
            "features": {"age": 4, "city": "x"},
            "event_id": "7",
            "model": "m",
            "timestamp": START_MS + 2_000,
        },
        b"nonsense",
        [1],
    ]
    assert [value for kind, value, *_ in got if kind == "labels"] == [
        {"event_id": "1", "model": "m", "label": 0, "timestamp": START_MS + 1_000}
    ]


# ---- predictions and labels


def line(time_ms: object, event_id: str = "e", **more: object) -> str:
    return json.dumps({"event_id": event_id, "timestamp": time_ms, **more})


def test_json_lines_pass_through_untouched(write):
    raw = (
        '  {"timestamp" : 1700000000000,"event_id":"ä", "x":1.10, "x":2}\n{"bad": '
        'NaN}\n{"event_id": 7}\n'
    )
    with open_events(InputOptions(predictions=write("p.jsonl", raw))) as stream:
        assert list(stream) == [
            ("predictions", raw.splitlines()[0].strip().encode(), "ä".encode(), 1_700_000_000_000),
            ("predictions", b'{"bad": NaN}', b"", 1_700_000_000_000),
            ("predictions", b'{"event_id":"7"}', b"7", 1_700_000_000_000),
        ]


def test_predictions_and_labels_are_merged_by_time_predictions_first(write):
    predictions = write(
        "p.jsonl",
        "\n".join(
            [
                line(1_000_000_000_000, "a"),
                line(1_000_000_002_000, "b"),
                line(1_000_000_002_000, "c"),
            ]
        ),
    )
    labels = write(
        "l.csv",
        "event_id,label,timestamp\na,1,2001-09-09T01:46:40Z\nb,0,2001-09-09T01:46:42Z\nz,0,1999-01-01T00:00:00Z\n",
    )
    got = events(predictions=predictions, labels=labels)
    assert [(kind[0], value["event_id"]) for kind, value, *_ in got] == [
        ("l", "z"),
        ("p", "a"),
        ("l", "a"),
        ("p", "b"),
        ("p", "c"),
        ("l", "b"),
    ]


@pytest.mark.parametrize("run_events", [3, 100_000])
def test_files_that_are_not_in_order_are_sorted_and_ties_keep_the_order_of_the_file(
    write, monkeypatch, run_events
):
    monkeypatch.setattr(merging, "RUN_EVENTS", run_events)
    times = [5, 3, 9, 3, 1, 9, 7, 5, 5, 2, 8]
    path = write(
        "p.jsonl",
        "\n".join(
            line(1_000_000_000_000 + time_ms, f"{number}", pad="x" * 50_000 * (number % 3))
            for number, time_ms in enumerate(times)
        ),
    )
    got = [value["event_id"] for _, value, *_ in events(predictions=path)]
    assert got == [str(number) for number, _ in sorted(enumerate(times), key=lambda pair: pair[1])]


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=60), st.integers(1, 10))
def test_sorting_in_runs_is_sorting(rows, run_events):
    made = [
        ("labels" if is_label else "predictions", b"v%d" % number, b"k", time_ms)
        for number, (time_ms, is_label) in enumerate(rows)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "RUN_EVENTS", run_events)
        assert list(merging.in_order(made)) == sorted(made, key=merging.order)


def test_an_unsorted_table_is_sorted_with_its_labels(write):
    path = write(
        "m.csv",
        "timestamp,prediction,label\n1000000005000,1,1\n1000000001000,0,0\n1000000003000,1,0\n",
    )
    got = events(table=path, label_delay_ms=2_000)
    assert [(kind[0], value["event_id"]) for kind, value, *_ in got] == [
        ("p", "2"),
        ("p", "3"),
        ("l", "2"),
        ("p", "1"),
        ("l", "3"),
        ("l", "1"),
    ]
    assert all(before[3] <= after[3] for before, after in pairwise(got))


def test_a_time_that_cannot_be_used_is_that_of_the_row_before(write):
    rows = ["1000000000000", "soon", "", "17000000000000000", "1000000001000"]
    got = events(
        table=write("m.csv", "prediction,timestamp\n" + "".join(f"1,{row}\n" for row in rows))
    )
    assert [time_ms - 1_000_000_000_000 for *_, time_ms in got] == [0, 0, 0, 0, 1_000]
    assert [value.get("timestamp") for _, value, *_ in got] == [
        1_000_000_000_000,
        "soon",
        None,
        "17000000000000000",
        1_000_000_001_000,
    ]


def test_a_csv_of_predictions_has_the_fields_of_the_event_and_others_are_noted(write):
    path = write("p.csv", "event_id,model,prediction,features.age,age\n1,churn,1,5,6\n")
    with open_events(InputOptions(predictions=path)) as stream:
        assert [json.loads(value) for _, value, *_ in stream] == [
            {"event_id": "1", "model": "churn", "prediction": 1, "features": {"age": 5}}
        ]
        assert [note for note in stream.notes if "age" in note and "features.NAME" in note]


def test_a_map_may_be_meant_for_one_of_two_files(write):
    predictions = write("p.csv", "id,model,prediction\n1,m,1\n")
    labels = write("l.csv", "event_id,truth\n1,0\n")
    got = events(predictions=predictions, labels=labels, maps=("event_id=id", "label=truth"))
    assert [value["event_id"] for _, value, *_ in got] == ["1", "1"]


# ---- other containers


def test_gzip(write):
    text = "prediction,a\n1,2\n"
    assert events(table=write("m.csv.gz", gzip.compress(text.encode()))) == events(
        table=write("m.csv", text)
    )


def test_stdin_is_json_lines_and_is_sorted(monkeypatch):
    stdin(monkeypatch, line(1_000_000_001_000, "b") + "\n" + line(1_000_000_000_000, "a"))
    assert [key for *_, key, _ in events(predictions="-")] == [b"a", b"b"]


def test_live_stdin_keeps_its_order(monkeypatch):
    stdin(monkeypatch, line(1_000_000_001_000, "b") + "\n" + line(1_000_000_000_000, "a"))
    with open_events(InputOptions(predictions="-", live=True)) as stream:
        assert stream.live
        assert [key for *_, key, _ in stream] == [b"b", b"a"]


def test_stdin_as_a_table_is_called_stdin(monkeypatch):
    stdin(monkeypatch, '{"prediction": 1, "age": 3}\n')
    assert events(table="-")[0][1]["model"] == "stdin"


@pytest.fixture
def parquet():
    return pytest.importorskip("pyarrow.parquet")


@pytest.mark.parametrize("gzipped", [False, True])
def test_parquet(tmp_path, parquet, gzipped):
    import pyarrow as pa

    table = pa.table(
        {
            "event_id": [7, 8],
            "timestamp": pa.array(
                [1_704_067_200_000_000, 1_704_067_201_000_000], pa.timestamp("us")
            ),
            "prediction": [True, False],
            "x": [float("nan"), float("inf")],
            "city": pa.array(["a", None]).dictionary_encode(),
            "embedding": [[1.0, 2.0], None],
        }
    )
    path = tmp_path / "m.parquet"
    parquet.write_table(table, path)
    if gzipped:
        (tmp_path / "m.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "m.parquet.gz"
    got = events(table=str(path))
    assert [value for _, value, *_ in got] == [
        {
            "event_id": "7",
            "timestamp": 1_704_067_200_000,
            "prediction": True,
            "embedding": [1.0, 2.0],
            "features": {"x": None, "city": "a"},
            "model": "m",
        },
        {
            "event_id": "8",
            "timestamp": 1_704_067_201_000,
            "prediction": False,
            "features": {"x": math.inf, "city": None},
            "model": "m",
        },
    ]


def test_parquet_without_pyarrow_names_the_extra(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"stream-monitor\[parquet\]"):
        open_events(InputOptions(table=write("m.parquet", b"PAR1")))


# ---- progress, the last time


def test_progress_ends_at_the_total_and_the_last_time_is_known(write):
    seen = []
    path = write("m.csv", "prediction,label\n" + "1,1\n" * 50_000)
    with open_events(
        InputOptions(table=path, label_delay_ms=500), lambda read, total: seen.append((read, total))
    ) as stream:
        assert stream.scan().last_ms == START_MS + 50_000_000 + 500
        assert max(time_ms for *_, time_ms in stream) == stream.last_ms
        assert stream.read_bytes == stream.total_bytes > 0
    assert seen[-1] == (stream.total_bytes, stream.total_bytes)


# ---- what cannot be used


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("m.csv", "", {}, "empty"),
        ("m.csv", "a,a\n1,2\n", {}, "line 1: two columns are called 'a'"),
        ("m.csv", 'a,b\n1,"2\n', {}, "line 2: malformed CSV"),
        ("m.csv", "a,timestamp\n1,3/4/2025\n", {}, "may mean two days"),
        ("m.csv", "a,b\n1,2\n", {"timezone": "Europe/Berln"}, "no such zone"),
        ("m.json", '[{"prediction": 1}]', {}, "JSON Lines"),
        ("m.csv", "a,b\n1,2\n", {"maps": ("prediction=c",)}, "no column 'c'.* It has: a, b"),
        ("m.csv", "a,b\n1,2\n", {"maps": ("predicton=a",)}, "Did you mean 'prediction'"),
        ("m.csv", "a,b\n1,2\n", {"maps": ("prediction",)}, "FIELD=COLUMN"),
        ("m.csv", "a,b\n1,2\n", {"maps": ("prediction=a", "prediction=b")}, "mapped twice"),
        ("m.csv", "alpha,b\n1,2\n", {"ignore": ("alpa",)}, "Did you mean 'alpha'"),
        ("m.csv", "a,b\n1,2\n", {"interval_ms": -1}, "negative"),
        ("m.csv.gz", "no gzip", {}, "cannot be read to its end"),
        ("m.xlsx", "a", {}, "name it with one of .csv, .jsonl, .parquet"),
        ("m.parquet", "a", {}, "not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_says_what_is_wrong(write, name, text, options, message):
    path = write(name, text)
    with pytest.raises(InputError, match=message) as error:
        events(table=path, **options)
    assert "--" in str(error.value) or path in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no input"),
        ({"table": "a.csv", "predictions": "b.csv"}, "not both"),
        ({"predictions": "-", "labels": "-"}, "only one"),
        ({"table": "absent.csv"}, "absent.csv: No such file"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        open_events(InputOptions(**options))


def test_columns_that_are_needed_are_named(write):
    with pytest.raises(
        InputError, match="no column 'event_id'; say which it is with --map event_id=COLUMN"
    ):
        events(predictions=write("p.csv", "id,model\n1,m\n"))
    with pytest.raises(InputError, match="--map model=:VALUE"):
        events(predictions=write("p.csv", "event_id,prediction\n1,1\n"))
    with pytest.raises(InputError, match="no column 'label'"):
        events(labels=write("l.csv", "event_id,truth\n1,1\n"))
    with pytest.raises(InputError, match="holds labels, which have no field"):
        events(labels=write("l.csv", "event_id,label\n1,1\n"), maps=("features.a=label",))


def test_a_table_that_says_no_prediction_is_noted(write):
    with open_events(InputOptions(table=write("m.csv", "a,class\n1,2\n"))) as stream:
        stream.scan()
        assert [note for note in stream.notes if "--map prediction=COLUMN" in note]
