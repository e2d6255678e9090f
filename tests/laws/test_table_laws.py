"""
Law: a table says the same in whatever way a program wrote it.

The oracle is the table itself, as plain Python values; the texts are written here as pandas, R, SQL
tools and spreadsheets write them.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.inputs import InputOptions, open_events
from stream_monitor.inputs.columns import Column, Told

T0 = datetime(2025, 10, 9, 8, tzinfo=UTC)
Table = dict[str, list[Any]]


def made(seed: int, rows: int = 60) -> Table:
    """Numbers, switches, codes, texts with marks and quotes, all with holes; times that rise."""
    r = random.Random(seed)

    def holed(value: Callable[[], Any]) -> list[Any]:
        return [None if r.random() < 0.1 else value() for _ in range(rows)]

    return {
        "event_id": [str(10_000_000_000_000_000 + i * 7) for i in range(rows)],
        "timestamp": [
            T0 + timedelta(seconds=i * 61, milliseconds=r.randrange(1_000)) for i in range(rows)
        ],
        "prediction": [r.randrange(2) for _ in range(rows)],
        "score": [round(r.random(), 4) for _ in range(rows)],
        "label": holed(lambda: r.random() < 0.3),
        "amount": holed(lambda: round(r.lognormvariate(7, 2), 2)),
        "count": holed(lambda: r.randrange(-5, 50_000)),
        "is_new": holed(lambda: r.random() < 0.5),
        "zip": [f"{r.randrange(100_000):05}" for _ in range(rows - 1)] + ["01067"],
        "city": holed(
            lambda: r.choice(
                ["Köln", 'Łódź "a, b"; c\td|e', "Rome\nEast", "São Paulo", "None", "-", "x" * 50]
            )
        ),
    }


def number(value: Any, mark: str = ".", group: str = "") -> str:
    text = f"{value:,}" if group else repr(value)
    return text.replace(",", "\0").replace(".", mark).replace("\0", group)


def csv_text(
    table: Table,
    write: Callable[[Any], str],
    sep: str = ",",
    quote_texts: bool = False,
    row_names: bool = False,
    end: str = "\n",
) -> str:
    def cell(value: Any) -> str:
        text = write(value)
        quoted = (quote_texts and isinstance(value, str)) or any(
            c in text for c in (sep, '"', "\n", "\r")
        )
        return '"' + text.replace('"', '""') + '"' if quoted else text

    lines = [
        sep.join(['""'] * row_names + [f'"{name}"' if quote_texts else name for name in table])
    ]
    for i, row in enumerate(zip(*table.values(), strict=True), 1):
        lines.append(sep.join([f'"{i}"'] * row_names + [cell(v) for v in row]))
    return end.join(lines) + end


def writing(
    missing: str,
    true: str = "True",
    false: str = "False",
    mark: str = ".",
    group: str = "",
    time: str = "%Y-%m-%d %H:%M:%S.%f",
) -> Callable[[Any], str]:
    def write(value: Any) -> str:
        if value is None:
            return missing
        if isinstance(value, bool):
            return true if value else false
        if isinstance(value, datetime):
            return value.strftime(time)
        return number(value, mark, group) if isinstance(value, (int, float)) else value

    return write


def parquet(path: Path, table: Table, unit: str = "ns") -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        name: pa.array(values, pa.timestamp("us")).cast(pa.timestamp(unit))
        if name == "timestamp"
        else pa.array(values)
        for name, values in table.items()
    }
    pq.write_table(pa.table(columns), path)


def pandas_json(table: Table, nan: bool) -> str:
    """
    `to_json(orient="records", lines=True)`, times as milliseconds; or records through `json.dumps`,
    where missing numbers are NaN.
    """
    lines = []
    for row in zip(*table.values(), strict=True):
        values = dict(zip(table, row, strict=True))
        values["timestamp"] = round(values["timestamp"].timestamp() * 1_000)
        if nan:
            values |= {name: math.nan for name in ("amount", "count") if values[name] is None}
        lines.append(json.dumps(values))
    return "\n".join(lines) + "\n"


def written(folder: Path, table: Table) -> dict[str, Path]:
    """The table in many files, by a name for each way."""
    texts = {
        "pandas.csv": csv_text(table, writing("")),
        "pandas-nan.csv": csv_text(table, writing("NaN")),
        "pandas-na.csv": csv_text(table, writing("<NA>")),
        "r.csv": csv_text(table, writing("NA", "TRUE", "FALSE"), quote_texts=True, row_names=True),
        "r2.csv": csv_text(
            table,
            writing("NA", "TRUE", "FALSE", mark=","),
            sep=";",
            quote_texts=True,
            row_names=True,
        ),
        "sql.tsv": csv_text(table, writing("\\N", "true", "false"), sep="\t"),
        "sql-null.csv": csv_text(table, writing("NULL", "true", "false"), sep="|"),
        "excel-de.csv": "\ufeff"
        + csv_text(
            table,
            writing("", "TRUE", "FALSE", ",", ".", time="%d.%m.%Y %H:%M:%S.%f"),
            sep=";",
            end="\r\n",
        ),
        "excel-en.csv": csv_text(table, writing("#N/A", "TRUE", "FALSE", ".", ","), end="\r\n"),
        "iso.csv": csv_text(table, writing("null", "true", "false", time="%Y-%m-%dT%H:%M:%S.%fZ")),
        "sep.csv": "sep=;\r\n" + csv_text(table, writing("n/a"), sep=";", end="\r\n"),
        "notes.csv": "# made by hand\n"
        + csv_text(table, writing(""))
        + "\nSource: the office of numbers\n",
        "pandas.jsonl": pandas_json(table, nan=False),
        "nan.ndjson": pandas_json(table, nan=True),
    }
    paths = {}
    for name, text in texts.items():
        for suffix, data in (
            ((name, text.encode()), (name + ".gz", gzip.compress(text.encode())))
            if name == "pandas.csv"
            else ((name, text.encode()),)
        ):
            paths[suffix] = folder / suffix
            paths[suffix].write_bytes(data)
    paths["utf16.csv"] = folder / "utf16.csv"
    paths["utf16.csv"].write_bytes(texts["pandas.csv"].encode("utf-16"))
    for unit in ("ms", "us", "ns"):
        paths[f"{unit}.parquet"] = folder / f"{unit}.parquet"
        parquet(paths[f"{unit}.parquet"], table, unit)
    return paths


def said(path: Path) -> list[dict[str, Any]]:
    """The rows that the events of a file say, with times as milliseconds."""
    found: dict[str, dict[str, Any]] = {}
    with open_events(InputOptions(table=str(path), model="m")) as stream:
        for kind, value, _, time_ms in stream:
            event = json.loads(value)
            if kind == "predictions":
                found[event["event_id"]] = {
                    **event.pop("features"),
                    **event,
                    "timestamp": time_ms,
                    "label": None,
                }
                del found[event["event_id"]]["model"]
            else:
                found[event["event_id"]]["label"] = event["label"]
    return list(found.values())


@pytest.mark.parametrize("seed", range(4))
def test_a_table_says_the_same_in_every_format(tmp_path, seed):
    table = made(seed)
    right = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    for row in right:
        row["timestamp"] = (row["timestamp"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
            milliseconds=1
        )
    for name, path in written(tmp_path, table).items():
        got = said(path)
        assert got == right, (
            name,
            next((a, b) for a, b in zip(got, right, strict=False) if a != b)
            if len(got) == len(right)
            else (len(got), len(right)),
        )


def test_latin_1_is_read(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes("prediction,city\n1,Köln\n0,Łódź\n1,José\n".encode("cp1252", "ignore"))
    assert [row["city"] for row in said(path)] == ["Köln", "ód", "José"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.none(), st.floats(-1e9, 1e9).map(lambda x: round(x, 3)), st.integers(-(10**9), 10**9)
        ),
        min_size=2,
        max_size=40,
    ),
    st.sampled_from([",", "."]),
    st.sampled_from(["", ".", ",", " ", "'"]),
)
def test_numbers_in_every_writing_keep_their_value(values, mark, group):
    if group == mark:
        return
    column = Column(
        "x", Told(decimal="comma" if mark == "," else "point", commas_in_cells=mark == ",")
    )
    cells = ["" if v is None else number(v, mark, group) for v in values]
    column.add(cells)
    column.decide()
    assert column.kind == "number"
    assert column.convert(cells) == values


@pytest.mark.parametrize("rows", [20, 500, 5_000])
@pytest.mark.parametrize(
    "odd", ["5O.1", "-", "12,5", "7%", "1.2.3", "Inf", "True", "007", "2025-10-09", "1e999"]
)
def test_one_odd_cell_changes_no_other(rows, odd):
    r = random.Random(rows)
    cells = [f"{r.gauss(50, 10):.3f}" for _ in range(rows)]
    at = r.randrange(rows)
    right = [float(c) for c in cells]
    cells[at] = odd
    column = Column("x", Told())
    for start in range(0, rows, 77):
        column.add(cells[start : start + 77])
    column.decide()
    got = column.convert(cells)
    assert got[:at] + got[at + 1 :] == right[:at] + right[at + 1 :]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_and_how_they_are_cut_do_not_matter(seed):
    r = random.Random(seed)
    pool = ["1,5", "2.5", "1.234", "7", "x", "NA", "-", "True", "01", "12%", "", "3,25"]
    cells = [r.choice(pool[: r.randrange(2, len(pool))]) for _ in range(300)]

    def decided(cells: list[str], size: int) -> tuple[Any, ...]:
        column = Column("x", Told(commas_in_cells=True))
        for start in range(0, len(cells), size):
            column.add(cells[start : start + size])
        column.decide()
        return column.kind, column.decimal, column.percent, column.is_code, column.convert(pool)

    right = decided(cells, 1_000)
    for size in (1, 7, 100):
        assert decided(cells, size) == right
        assert decided(r.sample(cells, len(cells)), size) == right
