"""
Law: a row is a pure function of its record.

What was learnt before, and how records are cut into batches, never shows.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.events import cells
from stream_monitor.events.cells import Texts
from stream_monitor.events.observations import unpack
from stream_monitor.events.parse import PARSERS, Bad
from stream_monitor.ingest import Ingest, home
from stream_monitor.schema import Reason

RECORD_MS = 1_760_000_100_000
BYTES_MAX = 100_000
Row = tuple[Any, ...]

scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.just([1]),
    st.just({"a": [1]}),
)
number = st.one_of(st.floats(-1e6, 1e6), st.integers(-1000, 1000))
regular_features = st.fixed_dictionaries(
    {},
    optional={
        "a": number,
        "b": number,
        "c c": st.one_of(st.none(), number),
        "kind": st.sampled_from(["x", "y"]),
    },
)
prediction = st.fixed_dictionaries(
    {
        "event_id": st.one_of(st.text(min_size=1, max_size=8), st.just("x")),
        "model": st.sampled_from(["m", "n", "ö"]),
    },
    optional={
        "version": st.sampled_from(["", "1", "2"]),
        "timestamp": st.one_of(
            st.integers(RECORD_MS - 10**9, RECORD_MS + 10**9),
            st.sampled_from(
                [
                    "2025-10-09T08:15:00Z",
                    "2025-10-09T08:15:00.123456+02:00",
                    "2025-10-09",
                    5,
                    2**70,
                    None,
                    1.5,
                ]
            ),
        ),
        "prediction": st.one_of(number, st.booleans(), st.sampled_from(["yes", "no"]), scalar),
        "score": st.one_of(
            st.floats(0, 1),
            st.floats(-2e-6, 2e-6),
            st.floats(1 - 2e-6, 1 + 2e-6),
            st.sampled_from(
                [0, 1, 2, None, math.nan, "a", {}, {"cat": 0.25, "dog": 1 + 1e-7}, {"cat": 2}]
            ),
        ),
        "latency_ms": st.one_of(
            st.floats(0, 1e4), st.sampled_from([-1, None, "3", math.nan, math.inf])
        ),
        "features": st.one_of(
            regular_features,
            st.dictionaries(st.sampled_from(["a", "b", "z", "d.e"]), scalar, max_size=3),
            st.sampled_from([None, 3]),
        ),
        "segments": st.one_of(
            st.fixed_dictionaries(
                {}, optional={"country": st.sampled_from(["de", "fr", None, math.nan])}
            ),
            st.sampled_from([{"country": 3}, None]),
        ),
        "status": st.sampled_from(["ok", "error", "bad", None]),
        "variant": st.sampled_from(["a", "b", None, 3]),
        "unit": st.sampled_from(["u1", "", None]),
        "embedding": st.sampled_from([[1.0, 2], None, ["a"]]),
        "extra": scalar,
    },
)
label = st.fixed_dictionaries(
    {
        "event_id": st.text(min_size=1, max_size=4),
        "label": st.one_of(number, st.sampled_from(["yes", True, None, [1]])),
    },
    optional={
        "model": st.sampled_from(["m", "n", None]),
        "version": st.sampled_from(["1", "", None]),
        "timestamp": st.integers(RECORD_MS - 1000, RECORD_MS),
        "score": st.one_of(st.floats(0, 1), st.sampled_from([1 + 1e-7, -1e-9, math.nan])),
    },
)


def canonical(cell: float, texts: list[str]) -> object:
    if not math.isnan(cell):
        return cell
    one = np.array([cell])
    tag = int(cells.tags(one)[0])
    return (
        (tag, texts[int(cells.arguments(one)[0])])
        if tag == cells.TEXT
        else (tag, int(cells.arguments(one)[0]))
    )


def rows_of(ingest: Ingest) -> dict[int, list[Row]]:
    """Every row of a flush by target partition: absent cells left out, columns sorted."""
    out: dict[int, list[Row]] = {}
    for target, records in ingest.flush(RECORD_MS).items():
        for record in records:
            obs = unpack(record)
            found: list[tuple[int, Row]] = []
            for block in obs.blocks:
                for j, at in enumerate(block.rows.tolist()):
                    row = obs.rows[at]
                    group = obs.head.groups[int(row["group"])]
                    named = {
                        c: canonical(float(block.cells[i, j]), obs.head.texts)
                        for i, c in enumerate(block.columns)
                    }
                    content = tuple(
                        sorted((k, v) for k, v in named.items() if v != (cells.ABSENT, 0))
                    )
                    found.append(
                        (
                            at,
                            (
                                int(row["offset"]),
                                int(row["id"]),
                                int(row["time"]),
                                group.kind,
                                group.model,
                                group.version,
                                content,
                            ),
                        )
                    )
            out.setdefault(target, []).extend(r for _, r in sorted(found, key=lambda f: f[0]))
    return out


def alone(kind: str, values: list[bytes]) -> tuple[dict[int, list[Row]], list[tuple[int, Reason]]]:
    """What `parse` makes of each record by itself."""
    from xxhash import xxh3_64_intdigest

    rows: dict[int, list[Row]] = {}
    rejects = []
    for offset, value in enumerate(values):
        texts = Texts()
        try:
            p = PARSERS[kind](value, RECORD_MS, texts, BYTES_MAX)
        except Bad as bad:
            rejects.append((offset, bad.reason))
            continue
        content = tuple(
            sorted((c, canonical(v, texts.names)) for c, v in zip(p.columns, p.cells, strict=True))
        )
        row = (
            offset,
            xxh3_64_intdigest(p.event_id.encode()),
            p.time_ms,
            p.kind,
            p.model,
            p.version,
            content,
        )
        for target in range(4) if not p.model else (home(p.model, 4),):
            rows.setdefault(target, []).append(row)
    return rows, rejects


def check(kind: str, values: list[bytes], cuts: list[int]) -> None:
    ingest = Ingest(4, max_record_bytes=BYTES_MAX)
    for _ in range(3):
        # what is learnt in the first round speeds up the next ones, and must not show
        bounds = sorted({0, len(values), *(c % (len(values) + 1) for c in cuts)})
        rejects = []
        for start, end in itertools.pairwise(bounds):
            offsets = np.arange(start, end)
            found = ingest.take(
                "s/0", kind, list(values[start:end]), offsets, np.full(end - start, RECORD_MS)
            )
            rejects += [(start + r.index, r.reason) for r in found]
        assert (rows_of(ingest), sorted(rejects)) == alone(kind, values)


@settings(max_examples=150, deadline=None)
@given(st.lists(prediction, max_size=25), st.lists(st.integers(0, 100), max_size=4))
def test_predictions_do_not_depend_on_what_was_learnt_or_how_they_were_cut(
    events: list[dict[str, Any]], cuts: list[int]
) -> None:
    check("predictions", [json.dumps(e).encode() for e in events], cuts)


@settings(max_examples=100, deadline=None)
@given(st.lists(label, max_size=25), st.lists(st.integers(0, 100), max_size=4))
def test_labels_do_not_depend_on_what_was_learnt_or_how_they_were_cut(
    events: list[dict[str, Any]], cuts: list[int]
) -> None:
    check("labels", [json.dumps(e).encode() for e in events], cuts)


@pytest.mark.parametrize(
    "seen", [[None], [None, 2.5], [True, 2.5], ["u", None], [True, None, "u", 1]], ids=str
)
@pytest.mark.parametrize("others", [{}, {"y": 1.0}, {"y": 1.0, "c": "u"}], ids=str)
def test_a_feature_of_any_kind_may_be_left_out(seen, others):
    """
    Alone, beside numbers (one block), and beside a category (column by column): absent is not null,
    and not out of range.
    """
    events = [
        {"event_id": str(i), "model": "m", "prediction": 1.5, "features": {"x": x, **others}}
        for i, x in enumerate(seen)
    ]
    events += [
        {"event_id": "a", "model": "m", "prediction": 1.5, "features": others},
        {"event_id": "b", "model": "m", "prediction": 1.5},
    ]
    check("predictions", [json.dumps(e).encode() for e in events], [len(seen)])


@pytest.mark.parametrize(
    "name",
    [
        '"',
        "\\",
        "\n",
        "a\0b",
        "\x1f",
        "\x7f",
        "\u2028",
        "ö",
        "",
        ".",
        "a.b",
        "c0",
        "event_id",
        "n" * 250,
        "n" * 256,
        "n" * 257,
        "n" * 300,
    ],
    ids=ascii,
)
@pytest.mark.parametrize("place", ["features", "segments", "score", "extra", "label"])
def test_a_name_may_have_any_characters(name, place):
    events: list[dict[str, Any]] = [{"event_id": f"e{i}", "model": "m"} for i in range(4)]
    for i, event in enumerate(events):
        if place == "extra":
            event |= {"prediction": 1.5, "x" + name: i}
        elif place == "label":
            event |= {"label": "l" + name, "x" + name: i}
        else:
            event |= {
                "prediction": 1.5,
                place: {name: {"features": float(i), "segments": "u", "score": 0.5}[place]},
            }
    check(
        "labels" if place == "label" else "predictions",
        [json.dumps(e).encode() for e in events],
        [2],
    )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            prediction.map(lambda e: json.dumps(e).encode()[:-1]),
            prediction.map(lambda e: json.dumps(e).encode()),
        ),
        max_size=20,
    )
)
def test_anything_is_a_row_or_a_reject(values: list[bytes]) -> None:
    ingest = Ingest(4)
    ingest.take(
        "s/0",
        "predictions",
        [json.dumps({"event_id": "a", "model": "m", "prediction": 1}).encode()],
        np.array([0]),
        np.array([RECORD_MS]),
    )
    ingest.flush(1)
    rejects = ingest.take(
        "s/0", "predictions", list(values), np.arange(len(values)), np.full(len(values), RECORD_MS)
    )
    assert len(rejects) + ingest.rows == len(values)
    assert ingest.counts["predictions", "rejected"] == len(rejects)


def test_a_tombstone_or_a_large_record_does_not_slow_down_those_around_it():
    ingest = Ingest(1, max_record_bytes=1_000)
    good: list[bytes | None] = [
        json.dumps(
            {"event_id": f"e{i}", "model": "m", "prediction": 1, "features": {"x": 0.5}}
        ).encode()
        for i in range(8)
    ]
    ingest.take("s@id/0", "predictions", good, np.arange(8), np.full(8, 1_760_000_000_000))
    decoder = ingest._decoders["predictions"]
    parsed: list[bytes] = []
    patient = decoder._parse

    def counted(value: bytes, *rest: Any) -> Any:
        parsed.append(value)
        return patient(value, *rest)

    decoder._parse = counted
    large = (good[0] or b"") + b" " * 1_000
    rejects = ingest.take(
        "s@id/0",
        "predictions",
        [None, good[1], large, good[2], b"{", None, good[3]],
        np.arange(8, 15),
        np.full(7, 1_760_000_000_000),
    )
    assert [(r.index, r.reason) for r in rejects] == [(2, "too_large"), (4, "invalid_json")]
    assert parsed == [large, b"{"]
    assert ingest.counts["predictions", "tombstone"] == 2
    assert ingest.counts["predictions", "forwarded"] == 8 + 3
    assert sorted(row[0] for rows in rows_of(ingest).values() for row in rows) == [
        *range(8),
        9,
        11,
        14,
    ]


def test_a_flood_of_feature_names_does_not_make_the_struct_of_a_model_wide():
    ingest = Ingest(1)
    values: list[bytes | None] = [
        json.dumps(
            {
                "event_id": f"e{i}",
                "model": "m",
                "prediction": 1,
                "features": {"x": 0.5, f"f{i}": 1.0},
            }
        ).encode()
        for i in range(400)
    ]
    wide: list[bytes | None] = [
        json.dumps(
            {
                "event_id": f"e{i}",
                "model": "w",
                "prediction": 1,
                "features": {f"f{k}": 1.0 for k in range(200)},
            }
        ).encode()
        for i in range(4)
    ]
    for start in range(0, 400, 50):
        ingest.take(
            "s@id/0",
            "predictions",
            values[start : start + 50] + wide,
            np.arange(start, start + 54),
            np.full(54, 1_760_000_000_000),
        )
        ingest.flush(0)
    assert {known.model for known in ingest._decoders["predictions"]._known.values()} == {"w"}
